"""Our HTTP protocol class for `uvicorn.Config(http=…)`: httptools parsing as in uvicorn, plus limits, the
upgrade and the detach.

Adds to uvicorn's class: deadlines for headers and body and a header size limit (slowloris; RFC 6585 section
5), a maximum of connections per address, a bound on pipelined requests, the WebSocket upgrade answered from
the request already parsed (`transport.upgrade`), and `scope["extensions"]["dualcast.detach"]` for streams.
The names of uvicorn it relies on are verified by `transport.selfcheck`.

The address limit counts socket peers. Behind a trusted proxy all peers are the proxy, which is exempt:
per-client limits belong to the gateway, which sees `scope["client"]` after uvicorn's ProxyHeadersMiddleware
has put the forwarded address there (for HTTP and WebSocket scopes alike, because both pass through
`config.loaded_app`).
"""

from __future__ import annotations

import asyncio
from typing import Any, Final
from urllib.parse import unquote

import httptools
from uvicorn import Config
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol
from uvicorn.server import ServerState

from dualcast.transport import handshake
from dualcast.transport.detach import (
    DEAD,
    EXTENSION,
    HOLD,
    DetachUnavailable,
    Session,
    hand_over,
    leave_prelude,
)
from dualcast.transport.edge import Connections, Edge
from dualcast.transport.held import Held
from dualcast.transport.options import TransportSettings
from dualcast.transport.upgrade import Upgrade

BETWEEN: Final = 0
HEADERS: Final = 1
BODY: Final = 2

_FRAMING: Final = 8
"""Bytes on the wire that one byte of a body may cost: a chunk of one byte takes six."""


class EdgeConfig(Config):
    """uvicorn's configuration plus what our protocol objects share."""

    def __init__(self, app: Any, edge: Edge, **options: Any) -> None:
        super().__init__(app, **options)
        self.edge = edge


class _Refused(Exception):
    """Raised inside a parser callback to stop the parser; the answer is in `HttpProtocol.refusal`."""


class HttpProtocol(HttpToolsProtocol):
    """One HTTP/1.1 connection until it ends, is upgraded or is detached."""

    def __init__(
        self,
        config: Config,
        server_state: ServerState,
        app_state: dict[str, Any],
        _loop: asyncio.AbstractEventLoop | None = None,
    ) -> None:
        super().__init__(config, server_state, app_state, _loop)
        self.edge: Edge = config.edge if isinstance(config, EdgeConfig) else Edge(TransportSettings())
        self.stage = BETWEEN
        self.head_bytes = 0
        self.around_bytes = 0
        """What came since the header of the running request, minus `_FRAMING` times its body."""
        self.refusal: tuple[int, str] | None = None
        self.ended = False

    # ── the life of the connection ─────────

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        limit = self.edge.settings.max_connections_per_address
        if limit and self.client is not None and isinstance(self.connections, Connections):
            address = self.edge.counted_address(self.client[0])
            if address is not None:
                count = self.connections.take(self, address)
                if count > 2 * limit:
                    transport.abort()  # a flood gets no answer
                    return
                if count > limit:
                    # Answered when the request comes: a response before it would be lost in the reset that
                    # unread data causes.
                    self.refusal = (503, "too many connections from this address")
        self.edge.headers.add(self)

    def connection_lost(self, exc: Exception | None) -> None:
        self.edge.headers.discard(self)
        self.edge.bodies.discard(self)
        self.edge.lingers.discard(self)
        super().connection_lost(exc)
        self._cut()

    def _cut(self) -> None:
        """Drops what refers back to this object, so that it is freed by reference count: the parser's bound
        callbacks, the scope with its bound detach, and the request cycle with its `on_response`. A running
        request keeps its own cycle alive.
        """
        self.parser = None  # type: ignore[assignment]
        self.cycle = None  # type: ignore[assignment]
        self.scope = None  # type: ignore[assignment]
        self.headers = None  # type: ignore[assignment]

    def data_received(self, data: bytes) -> None:
        if self.ended:
            return  # refused; what still comes is not read
        self._unset_keepalive_if_required()
        if self.refusal is not None:
            self._refuse(*self.refusal)
            return
        if self.stage != BODY:
            self.head_bytes += len(data)
        else:
            self.around_bytes += len(data)
        try:
            self.parser.feed_data(data)
        except httptools.HttpParserUpgrade as upgrade:
            if self._should_upgrade():
                self._upgrade(data[upgrade.args[0] :])
            elif self._idle():
                self.edge.headers.add(
                    self
                )  # after a proposal of another protocol, served as HTTP, nothing more is parsed
            return
        except httptools.HttpParserError:
            self._refuse(*(self.refusal or (400, "not a valid HTTP request")))
            return
        if self.stage == HEADERS:
            if self.head_bytes > self.edge.settings.header_bytes:
                self._refuse(431, "request headers too large")
            else:
                self.edge.headers.add(self)
        elif self.stage == BODY:
            if self.around_bytes > self.edge.settings.header_bytes:
                self._refuse(400, "too much around the request body")  # trailers, chunk extensions
            else:
                self.edge.bodies.add(self)
        elif self._idle():
            self.edge.headers.add(self)  # only line ends came; uvicorn's keep-alive timer is off now

    def _idle(self) -> bool:
        return self.cycle is None or self.cycle.response_complete

    def _refuse(self, status: int, reason: str) -> None:
        """Answers, unless the answer to this request has begun, and closes. A response to an earlier request
        may still be finished, for a moment.
        """
        if self.stage == BODY:
            self._refuse_body(status, reason)
        elif self._idle():
            self.transport.write(handshake.problem(status, reason))
            self._end(linger=status in (400, 431, 501))
        else:
            self.pipeline.clear()
            self._stop()
            self.edge.lingers.add(self)

    def _refuse_body(self, status: int, reason: str) -> None:
        """Refuses what is wrong with a body. The application, waiting in receive, gets http.disconnect."""
        cycle = self.cycle
        if cycle is not None and not cycle.response_started and not self.pipeline:
            cycle.disconnected = True  # uvicorn adds no response of its own after ours
            cycle.message_event.set()
            self.transport.write(handshake.problem(status, reason))
            self._end(linger=status == 400)
        else:
            self._end()  # a second response would be taken for that of the next request

    def _end(self, *, linger: bool = False) -> None:
        """Closes. `linger`: the peer may still be sending, and a full close would answer that with a reset,
        in which our answer is lost; so only our side is closed, and what comes is dropped for a moment.
        """
        self._stop()
        cycle = self.cycle
        if cycle is not None and not cycle.response_complete:
            cycle.disconnected = True  # what it still sends goes nowhere
            cycle.message_event.set()
        if self.transport.get_write_buffer_size():
            self.transport.abort()  # the peer does not read either
        elif linger and not self.transport.is_closing() and self.transport.can_write_eof():
            self.transport.write_eof()
            self.edge.lingers.add(self)
        else:
            self.transport.close()

    def _stop(self) -> None:
        """Nothing that comes is read any more."""
        self.edge.headers.discard(self)
        self.edge.bodies.discard(self)
        self.ended = True
        self.parser = None  # type: ignore[assignment]

    def header_overdue(self) -> None:
        """The deadline for complete headers has passed."""
        if self.stage == HEADERS:
            self._refuse(408, "request headers took too long")
        elif self._idle():
            self._end()

    def body_overdue(self) -> None:
        """The deadline for a complete body has passed."""
        self._refuse_body(408, "request body took too long")

    # ── parser callbacks ─────────

    def on_message_begin(self) -> None:
        super().on_message_begin()
        self.stage = HEADERS
        scope: Any = self.scope  # uvicorn's type knows only extensions that are dicts
        scope["extensions"] = {EXTENSION: self.detach, HOLD: self.hold}

    def on_headers_complete(self) -> None:
        settings = self.edge.settings
        if self.head_bytes > settings.header_bytes:  # may count body bytes of the same read: now exactly
            size = len(self.url) + sum(len(name) + len(value) + 4 for name, value in self.headers)
            if size > settings.header_bytes:
                self.refusal = (431, "request headers too large")
                raise _Refused
        if len(self.pipeline) >= settings.max_pipelined:
            self.refusal = (400, "too many pipelined requests")
            raise _Refused
        hosts = chunked = 0
        for name, value in self.headers:
            if name == b"host":
                hosts += 1
            elif name == b"transfer-encoding":
                chunked += 1
                if value.strip().lower() != b"chunked":  # RFC 9112 6.1
                    self.refusal = (501, "no transfer coding but chunked is understood")
                    raise _Refused
        if hosts != 1 and (hosts or self.parser.get_http_version() == "1.1"):  # RFC 9112 3.2
            self.refusal = (400, "exactly one host header is needed")
            raise _Refused
        self.stage = BODY
        self.around_bytes = 0
        self.edge.headers.discard(self)
        super().on_headers_complete()
        if chunked:
            # The parser reports trailers like headers. They must not become some (RFC 9110 6.5.1): the scope
            # keeps its own list.
            self.headers = list(self.headers)

    def on_body(self, body: bytes) -> None:
        self.around_bytes -= _FRAMING * len(body)
        super().on_body(body)

    def on_message_complete(self) -> None:
        self.stage = BETWEEN
        self.head_bytes = 0
        self.edge.bodies.discard(self)
        super().on_message_complete()

    # ── upgrade ─────────

    def _get_upgrade(self) -> bytes | None:
        return b"websocket" if handshake.asks_for_websocket(self.headers) else None

    def _should_upgrade_to_ws(self) -> bool:
        return True

    def _upgrade(self, initial: bytes) -> None:
        if not self._idle() or self.pipeline:
            self._refuse(400, "an upgrade request cannot be pipelined")
            return
        scope: dict[str, Any] = self.scope  # type: ignore[assignment]
        try:
            compression = self.edge.settings.compression
            offer = handshake.read_offer(
                scope.pop("method"), scope["http_version"], self.headers, deflate=compression
            )
            url = httptools.parse_url(self.url)
            raw_path = url.path or b"/"
            path = raw_path.decode("ascii")
        except handshake.Refusal as refusal:
            self.transport.write(handshake.problem(refusal.status, refusal.reason, refusal.headers))
            self._end(linger=True)
            return
        except (httptools.HttpParserError, ValueError):
            self._refuse(400, "not a valid HTTP request")
            return
        scope["type"] = "websocket"
        scope["asgi"] = {"version": self.asgi_version, "spec_version": "2.4"}
        scope["scheme"] = "wss" if self.scheme == "https" else "ws"
        scope["path"] = self.root_path + (unquote(path) if "%" in path else path)
        scope["raw_path"] = self.root_path.encode("ascii") + raw_path
        scope["query_string"] = url.query or b""
        scope["subprotocols"] = offer.subprotocols
        upgrade = Upgrade(
            self.transport,
            self.edge,
            self.server_state,
            scope,
            offer,
            initial=initial,
            paused=self.flow.write_paused,
        )
        transport = self.transport
        if isinstance(self.connections, Connections):
            self.connections.move(self, upgrade)
        self.connections.discard(self)
        self.connections.add(upgrade)  # type: ignore[arg-type]
        transport.set_protocol(upgrade)
        self.edge.headers.discard(self)
        self.transport = DEAD
        self.flow = None  # type: ignore[assignment]
        self._start_asgi_task(upgrade, self.app)  # type: ignore[arg-type]
        self._cut()

    # ── detach ─────────

    def hold(self) -> None:
        """Keeps the head of the response back (see `transport.detach.HOLD`)."""
        cycle: Any = self.cycle
        if cycle is None or self.pipeline or cycle.response_started or cycle.transport is not self.transport:
            return
        cycle.transport = held = Held(self.transport)

        def release() -> None:
            if cycle.transport is held:
                cycle.transport = held.transport
                held.flush()

        asyncio.get_running_loop().call_soon(release)

    def detach(self, session: Session) -> None:
        """Hands the socket of a running response to `session` (see `transport.detach`). Called from the
        request's task after `http.response.start` without content-length; from then on chunk framing (RFC
        9112 section 7.1) is the session's.

        Raises DetachUnavailable for HEAD and HTTP/1.0 requests, an unfinished request body, pipelined
        requests, a response with a length or one that has not started or has ended, and a connection that is
        gone.
        """
        cycle, transport = self.cycle, self.transport
        if (
            cycle is None
            or not (cycle.response_started and cycle.chunked_encoding)
            or cycle.response_complete
            or cycle.disconnected
            or cycle.more_body
            or self.stage != BETWEEN
            or self.pipeline
            or cycle.scope["method"] == "HEAD"
            or cycle.scope["http_version"] != "1.1"
            or transport.is_closing()
        ):
            raise DetachUnavailable("this response cannot be detached now")
        settings = self.edge.settings
        # Before set_protocol: lowering the marks may call pause_writing, which must reach the old protocol
        # and so `write_paused`.
        transport.set_write_buffer_limits(high=settings.write_high_bytes, low=settings.write_low_bytes)
        paused = self.flow.write_paused
        connections = self.connections
        if isinstance(connections, Connections):
            connections.move(self, session)
        connections.discard(self)
        self._unset_keepalive_if_required()
        self.server_state.total_requests += 1
        cycle.disconnected = True  # uvicorn adds no end of response; its task ends silently
        cycle.message_event.set()
        cycle.scope["extensions"].pop(EXTENSION, None)
        cycle.scope["extensions"].pop(HOLD, None)
        held: Any = cycle.transport
        head = held.take() if isinstance(held, Held) else b""
        cycle.transport = self.transport = DEAD
        self.flow.resume_writing()  # a send of another task waiting for this
        self.flow = None  # type: ignore[assignment]
        self._cut()
        leave_prelude(transport, session, head)
        hand_over(transport, session, connections, paused=paused, initial=b"")
