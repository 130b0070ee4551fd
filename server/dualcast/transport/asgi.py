"""Serving a session from an ASGI handler: detach where the server offers it, else pump the same bytes through
plain ASGI.

The gateway calls `respond_sse` or `respond_websocket` once a request is admitted, and returns when they
return. Without the detach extension (another server, a test client, a refused detach) the session gets an
`AsgiTransport`, which takes the same wire bytes as a socket (whole HTTP/1.1 chunks, whole server frames),
un-frames them and sends ASGI messages from one pump, the handler's own task; a child task watches `receive`.

What differs from a socket: control pings cannot be sent (`skipped_pings` counts them; `session.can_ping` is
set to False if the session has that attribute), a peer's close frame shows only as `connection_lost`, and
`get_extra_info("socket")` is None.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Any, Final

from dualcast.transport import inbound
from dualcast.transport.detach import EXTENSION, HOLD, DetachUnavailable, Session
from dualcast.transport.unframe import Message, unframe_sse, unframe_websocket

Scope = Any
Receive = Callable[[], Awaitable[Any]]
Send = Callable[[Any], Awaitable[None]]

MAX_BACKLOG_BYTES: Final = 16 * 1024 * 1024
"""A session that goes on writing after `pause_writing` is aborted here."""

PUMPED: Final = "dualcast.pumped"
"""Key of the lifespan state (`scope["state"]`) under which our server keeps the set of its sessions over
plain ASGI. uvicorn's protocol objects do not know those sessions, so the server calls `shutdown()` on each.
Other servers have no such set.
"""


async def respond_sse(
    scope: Scope, receive: Receive, send: Send, session: Session, headers: list[tuple[bytes, bytes]]
) -> bool:
    """Answers an admitted request with status 200, `headers` (content-type included, no content-length) and
    `session` as the body.

    Enters: the ASGI triple of an HTTP request whose response has not started. Returns True when `session` got
    the connection: at once if it was detached, else after `connection_lost`. Returns False if it never did (a
    HEAD request, answered without body).
    """
    hold = (scope.get("extensions") or {}).get(HOLD)
    if hold is not None and scope["method"] != "HEAD":
        hold()
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    if scope["method"] == "HEAD":
        await send({"type": "http.response.body", "body": b"", "more_body": False})
        return False
    if not _detached(scope, session):
        transport = AsgiTransport(scope, session, unframe_sse)
        await transport.run(receive, send, {"type": "http.response.body", "body": b"", "more_body": False})
    return True


async def respond_websocket(
    scope: Scope,
    receive: Receive,
    send: Send,
    session: Session,
    *,
    subprotocol: str | None = None,
    headers: list[tuple[bytes, bytes]] | None = None,
) -> bool:
    """Accepts an admitted WebSocket and serves `session` on it; `session` is also an `inbound.Sink`.

    Enters: the ASGI triple before `websocket.connect` was received. Returns like `respond_sse`; False: the
    peer left before the accept.
    """
    if (await receive())["type"] != "websocket.connect":
        return False
    try:
        await send({"type": "websocket.accept", "subprotocol": subprotocol, "headers": headers or []})
    except OSError:
        return False
    if not _detached(scope, session):
        transport = AsgiTransport(scope, session, unframe_websocket)
        await transport.run(receive, send, {"type": "websocket.close", "code": 1000, "reason": ""})
    return True


def _detached(scope: Scope, session: Session) -> bool:
    detach = (scope.get("extensions") or {}).get(EXTENSION)
    if detach is None:
        return False
    try:
        detach(session)
    except DetachUnavailable:
        return False
    return True


class AsgiTransport(asyncio.Transport):
    """A transport whose far end is ASGI `send`. Backlog: references to the written bytes, signalled by the
    water marks like a socket's.
    """

    __slots__ = (
        "_aborted",
        "_backlog",
        "_backlog_bytes",
        "_closing",
        "_high",
        "_low",
        "_may_read",
        "_paused",
        "_reading",
        "_scope",
        "_session",
        "_task",
        "_unframe",
        "_wake",
        "skipped_pings",
    )

    def __init__(
        self, scope: Scope, session: Session, unframe: Callable[[bytes], tuple[list[Message], bool, int]]
    ) -> None:
        super().__init__()
        self._scope = scope
        self._session: Any = session
        self._unframe = unframe
        self._backlog: list[bytes] = []
        self._backlog_bytes = 0
        self._high, self._low = 64 * 1024, 16 * 1024
        self._paused = self._closing = self._aborted = False
        self._wake = asyncio.Event()
        self._may_read = asyncio.Event()
        self._may_read.set()
        self._task: asyncio.Task[Any] | None = None
        self._reading = False
        self.skipped_pings = 0

    # ── asyncio.Transport ─────────

    def write(self, data: bytes) -> None:  # type: ignore[override]
        """Queues `data`, whole chunks or frames."""
        if self._closing or not data:
            return
        self._backlog.append(data)
        self._backlog_bytes += len(data)
        self._wake.set()
        if self._backlog_bytes > MAX_BACKLOG_BYTES:
            self.abort()
        elif self._backlog_bytes > self._high and not self._paused:
            self._paused = True
            self._session.pause_writing()

    def writelines(self, list_of_data: Any) -> None:
        self.write(b"".join(list_of_data))

    def close(self) -> None:
        """Ends the connection after the backlog is sent."""
        self._closing = True
        self._wake.set()

    def abort(self) -> None:
        """Ends the connection now; the backlog is dropped and a send that hangs is cancelled."""
        self._closing = True
        if not self._aborted:
            self._aborted = True
            self._backlog.clear()
            self._wake.set()
            if self._task is not None and self._task is not asyncio.current_task():
                self._task.cancel()

    def is_closing(self) -> bool:
        return self._closing

    def is_reading(self) -> bool:
        return self._may_read.is_set()

    def pause_reading(self) -> None:
        self._may_read.clear()

    def resume_reading(self) -> None:
        self._may_read.set()

    def can_write_eof(self) -> bool:
        return False

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        self._high = high if high is not None else 64 * 1024 if low is None else 4 * low
        self._low = low if low is not None else self._high // 4

    def get_write_buffer_size(self) -> int:
        return self._backlog_bytes

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        if name == "peername":
            return self._scope.get("client") or default
        if name == "sockname":
            return self._scope.get("server") or default
        return default

    # ── the pump ─────────

    async def run(self, receive: Receive, send: Send, last: Message) -> None:
        """Attaches the session, pumps until either side ends, then calls `connection_lost(None)`. `last` ends
        an unfinished exchange.
        """
        session = self._session
        connections: set[Any] = (self._scope.get("state") or {}).get(PUMPED, set())
        with suppress(AttributeError):
            session.can_ping = False
        self._task = asyncio.current_task()
        reader = asyncio.create_task(self._read(receive))
        reader.add_done_callback(self._reader_done)
        try:
            session.attached(self, connections, paused=False, initial=b"")
            ended = await self._pump(send)
            if not ended and self._reading:
                await send(last)
        except OSError:
            pass  # the peer is gone: the servers' ClientDisconnected
        except asyncio.CancelledError:
            task = self._task
            if not self._aborted or task is None or task.uncancel():
                raise
        finally:
            self._task = None
            self._closing = True
            self._backlog.clear()
            self._backlog_bytes = 0
            reader.remove_done_callback(self._reader_done)
            reader.cancel()
            await asyncio.gather(reader, return_exceptions=True)
            connections.discard(session)
            session.connection_lost(None)

    async def _pump(self, send: Send) -> bool:
        """Sends what is written. True: the exchange has been ended by what was written."""
        self._reading = True
        while True:
            if not self._backlog:
                if self._closing:
                    return False
                self._wake.clear()
                await self._wake.wait()
                continue
            taken, self._backlog = self._backlog, []
            messages, ended, skipped = self._unframe(b"".join(taken))
            self.skipped_pings += skipped
            size = sum(map(len, taken))
            del taken
            for message in messages:
                await send(message)
            self._backlog_bytes = max(0, self._backlog_bytes - size)
            if ended:
                return True
            if self._paused and self._backlog_bytes <= self._low and not self._closing:
                self._paused = False
                self._session.resume_writing()

    def _reader_done(self, reader: asyncio.Task[None]) -> None:
        self._reading = False  # the peer has left: nothing needs to be ended
        if not reader.cancelled() and reader.exception() is not None:
            asyncio.get_running_loop().call_exception_handler(
                {"message": "receive failed under a plain-ASGI session", "exception": reader.exception()}
            )
        self.abort()

    async def _read(self, receive: Receive) -> None:
        session = self._session
        while True:
            if not self._may_read.is_set():
                await self._may_read.wait()
            message = await receive()
            kind = message["type"]
            if kind == "websocket.receive":
                if self._closing or getattr(session, "inbound", None) is inbound.CLOSED:
                    continue
                text, data = message.get("text"), message.get("bytes")
                size = len(text.encode()) if text is not None else len(data)
                if size > session.max_frame_bytes:
                    session.inbound = inbound.CLOSED
                    session.on_violation(inbound.TOO_BIG, "message too big")
                elif text is not None:
                    session.on_text(text)
                else:
                    session.on_binary(data)
            elif kind.endswith(".disconnect"):
                if kind == "websocket.disconnect":
                    session.ended = message.get("code") or 0  # 1006: torn
                return
