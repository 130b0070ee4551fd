"""One WebSocket connection from its upgrade request until the session takes the socket, or for good if the
application never detaches.

In: the request httptools has parsed (checked by `transport.handshake`), bytes behind it, ASGI messages. Out:
the 101 or a denial, the detach, and for plain ASGI applications websocket.receive/send. ASGI specification:
HTTP and WebSocket, version 2.4.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from typing import Any, Final

from uvicorn.protocols.utils import ClientDisconnected
from uvicorn.server import ServerState

from dualcast.transport import frames, handshake, inbound
from dualcast.transport.detach import (
    DEAD,
    DEFLATE,
    EXTENSION,
    DetachUnavailable,
    Session,
    hand_over,
    leave_prelude,
)
from dualcast.transport.edge import Connections, Edge

logger = logging.getLogger("dualcast.transport")

CONNECTING: Final = 0
DENYING: Final = 1
OPEN: Final = 2
CLOSING: Final = 3
"""Our close frame is out, the peer's is awaited until the closing deadline."""
OVER: Final = 4

_SWITCHING: Final = (
    b"HTTP/1.1 101 Switching Protocols\r\nupgrade: websocket\r\nconnection: Upgrade\r\nsec-websocket-accept: "
)
_QUEUED_MESSAGES = 16
"""Received messages an undetached application may leave unread before reading pauses."""


class Upgrade(asyncio.Protocol):
    """Protocol of the socket, ASGI connection of the application, and (undetached) sink of the inbound
    parser.
    """

    def __init__(
        self,
        transport: asyncio.Transport,
        edge: Edge,
        server_state: ServerState,
        scope: dict[str, Any],
        offer: handshake.Offer,
        *,
        initial: bytes,
        paused: bool,
    ) -> None:
        self.transport = transport
        self.edge = edge
        self.connections: set[Any] = server_state.connections
        self.server_state = server_state
        self.scope: dict[str, Any] | None = scope
        self.offer = offer
        self.state = CONNECTING
        self.early = [initial] if initial else []
        self.early_bytes = len(initial)
        self.reading = False
        """The application has begun to read messages: too late to detach."""
        self.switching = b""
        """The 101, not written yet."""
        self.deflate = False
        self.inbound: object | None = None
        self.max_frame_bytes = edge.settings.max_frame_bytes
        self.received: deque[dict[str, Any]] = deque(({"type": "websocket.connect"},))
        self.arrived = asyncio.Event()
        self.arrived.set()
        self.writable = asyncio.Event()
        if not paused:
            self.writable.set()
        self.denial: tuple[int, handshake.Headers, list[bytes]] | None = None
        self.task: asyncio.Task[Any] | None = None
        scope["extensions"] = {"websocket.http.response": {}, EXTENSION: self.detach}
        if offer.deflate is not None:
            scope["extensions"][DEFLATE] = offer.deflate
        edge.answers.add(self)

    # ── asyncio.Protocol ─────────

    def data_received(self, data: bytes) -> None:
        if self.reading:
            inbound.receive(self, data, deflate=self.deflate)
            if self.state == OPEN and len(self.received) > _QUEUED_MESSAGES:
                self.transport.pause_reading()
        elif self.state <= OPEN:
            self.early.append(data)
            self.early_bytes += len(data)
            if self.early_bytes > self.edge.settings.early_bytes:
                self.transport.pause_reading()

    def eof_received(self) -> None:
        """Returning None closes the transport; nothing useful can follow on a half-open WebSocket."""

    def pause_writing(self) -> None:
        self.writable.clear()

    def resume_writing(self) -> None:
        self.writable.set()

    def connection_lost(self, exc: Exception | None) -> None:
        self.connections.discard(self)
        self.edge.answers.discard(self)
        self.edge.closings.discard(self)
        self._disconnected(1006 if self.state < OPEN else 1005)
        self.state = OVER
        self.writable.set()

    def shutdown(self) -> None:
        """uvicorn's shutdown: deny what waits, close what is open with 1012 (service restart)."""
        if self.state <= DENYING:
            self._deny(503, [(b"retry-after", b"1")], b"")
        elif self.state == OPEN:
            self._close(1012, "")

    def answer_overdue(self) -> None:
        """The application has neither accepted nor denied in time."""
        logger.error("websocket application gave no answer in %s s", self.edge.settings.handshake_s)
        self._deny(503, [(b"retry-after", b"1")], b"")
        if self.task is not None:
            self.task.cancel()

    # ── ASGI ─────────

    async def run_asgi(self, app: Any) -> None:
        """The application's task. Afterwards the connection is detached, or ended here."""
        self.task = asyncio.current_task()
        try:
            await app(self.scope, self.receive, self.send)
        except (ClientDisconnected, asyncio.CancelledError):
            self._end(500, 1012)
        except BaseException as exc:
            logger.error("exception in the websocket application", exc_info=exc)
            self._end(500, 1011)
            if not isinstance(exc, Exception):
                raise
        else:
            if self.state == CONNECTING:
                logger.error("websocket application returned without accept or denial")
            self._end(500, 1000)
        finally:
            self.task = None
            if self.scope is not None:
                self.scope["extensions"].pop(EXTENSION, None)
                self.scope = None

    def _end(self, status: int, close_code: int) -> None:
        if self.transport is DEAD:
            return  # detached
        if self.state <= DENYING:
            self._deny(status, [], b"Internal Server Error")
        elif self.state == OPEN:
            self._close(close_code, "")

    async def receive(self) -> dict[str, Any]:
        """ASGI receive: connect, then messages, then disconnect (repeated if asked again)."""
        while not self.received:
            if self.state == OPEN and not self.reading:
                self._start_reading()
                continue
            self.arrived.clear()
            await self.arrived.wait()
        message = self.received[0]
        if message["type"] != "websocket.disconnect":
            self.received.popleft()
            if self.reading and not self.received and not self.transport.is_closing():
                self.transport.resume_reading()
        return message

    def _start_reading(self) -> None:
        self.reading = True
        early, self.early = b"".join(self.early), []
        if early:
            inbound.receive(self, early, deflate=self.deflate)
        if not self.transport.is_closing() and len(self.received) <= _QUEUED_MESSAGES:
            self.transport.resume_reading()

    async def send(self, message: Any) -> None:
        """ASGI send. Raises uvicorn's ClientDisconnected (an OSError) when the peer is gone, RuntimeError for
        a message out of turn.
        """
        if not self.writable.is_set():
            await self.writable.wait()
        if self.state == OVER:
            raise ClientDisconnected
        kind = message["type"]
        if self.state == CONNECTING:
            if kind == "websocket.accept":
                self._accept(message.get("subprotocol"), list(message.get("headers") or ()))
            elif kind == "websocket.close":
                self._deny(403, [], b"")
            elif kind == "websocket.http.response.start":
                self.denial = (message["status"], _checked(message.get("headers") or ()), [])
                self.state = DENYING
            else:
                raise RuntimeError(f"unexpected {kind!r} before the WebSocket is accepted")
        elif self.state == DENYING:
            if kind != "websocket.http.response.body" or self.denial is None:
                raise RuntimeError(f"unexpected {kind!r} in a denial response")
            self.denial[2].append(message.get("body", b""))
            if not message.get("more_body", False):
                self._deny(self.denial[0], self.denial[1], b"".join(self.denial[2]))
        elif self.state == CLOSING:
            raise ClientDisconnected
        elif kind == "websocket.send":
            self._flush_switching()
            text = message.get("text")
            if text is not None:
                self.transport.write(frames.text(text.encode()))
            else:
                self.transport.write(frames.frame(frames.BINARY, message["bytes"]))
        elif kind == "websocket.close":
            self._close(message.get("code", 1000), message.get("reason") or "")
        else:
            raise RuntimeError(f"unexpected {kind!r} on an open WebSocket")

    def _accept(self, subprotocol: str | None, headers: handshake.Headers) -> None:
        lines = [
            _SWITCHING,
            self.offer.accept,
            b"\r\n",
        ]
        if subprotocol is not None:
            if subprotocol not in self.offer.subprotocols:
                raise RuntimeError("the accepted subprotocol was not offered")
            lines += [b"sec-websocket-protocol: ", subprotocol.encode("latin-1"), b"\r\n"]
        for name, value in _checked(self.server_state.default_headers + headers):
            if name == b"sec-websocket-extensions":
                if value != self.offer.deflate:
                    raise RuntimeError("the accepted extension was not offered")
                self.deflate = True
            lines += [name, b": ", value, b"\r\n"]
        lines.append(b"\r\n")
        if self.transport.is_closing():
            raise ClientDisconnected
        self.state = OPEN
        self.edge.answers.discard(self)
        # A session that takes the socket in this turn writes it with its first frames: one segment, not two.
        self.switching = b"".join(lines)
        asyncio.get_running_loop().call_soon(self._flush_switching)
        self.arrived.set()  # a receive that was called too early goes on to the messages

    def _flush_switching(self) -> None:
        """Writes the 101 that no detach has taken along."""
        switching, self.switching = self.switching, b""
        if switching and not self.transport.is_closing():
            self.transport.write(switching)

    def _deny(self, status: int, headers: handshake.Headers, body: bytes) -> None:
        self.state = OVER
        self.edge.answers.discard(self)
        self.denial = None
        if not self.transport.is_closing():
            self.transport.write(
                handshake.response(status, self.server_state.default_headers + headers, body)
            )
            self.transport.close()
        self._disconnected(1006)

    def _close(self, code: int, reason: str) -> None:
        """Sends our close frame and gives the peer the closing deadline to answer it."""
        self.state = CLOSING
        self._disconnected(code, reason)
        if self.transport.is_closing():
            return
        self._flush_switching()
        self.transport.write(frames.close(code, reason))
        if self.inbound is inbound.CLOSED:
            self.transport.close()
            return
        self.edge.closings.add(self)
        if not self.reading:
            self._start_reading()
        elif not self.transport.is_closing():
            self.transport.resume_reading()

    def _disconnected(self, code: int, reason: str = "") -> None:
        if not self.received or self.received[-1]["type"] != "websocket.disconnect":
            self.received.append({"type": "websocket.disconnect", "code": code, "reason": reason})
        self.arrived.set()

    # ── inbound.Sink, while undetached ─────────

    def on_text(self, text: str) -> None:
        if self.state == OPEN:
            self.received.append({"type": "websocket.receive", "text": text})
            self.arrived.set()

    def on_binary(self, data: bytes) -> None:
        if self.state == OPEN:
            self.received.append({"type": "websocket.receive", "bytes": data})
            self.arrived.set()

    def on_ping(self, payload: bytes) -> None:
        if (
            self.state == OPEN and self.writable.is_set()
        ):  # RFC 6455 5.5.3 lets us skip pongs a slow reader does not take
            self.transport.write(frames.pong(payload))

    def on_pong(self, payload: bytes) -> None:
        """Nobody asked."""

    def on_close(self, code: int, reason: str) -> None:
        if self.state == OPEN:
            self.transport.write(frames.close(code))
            self.state = CLOSING
            self._disconnected(code, reason)
        self.transport.close()

    def on_violation(self, close_code: int, reason: str) -> None:
        if self.state == OPEN:
            self._close(close_code, reason)
        else:
            self.transport.close()

    # ── detach ─────────

    def detach(self, session: Session) -> None:
        """Hands the socket to `session` (see `transport.detach`), with every byte that came behind the
        upgrade request.

        Raises DetachUnavailable before the accept, after the application has read a message, and when the
        connection is ending.
        """
        transport, scope = self.transport, self.scope
        if self.state != OPEN or self.reading or scope is None or transport.is_closing():
            raise DetachUnavailable("this WebSocket cannot be detached now")
        settings = self.edge.settings
        transport.set_write_buffer_limits(high=settings.write_high_bytes, low=settings.write_low_bytes)
        connections = self.connections
        if isinstance(connections, Connections):
            connections.move(self, session)
        connections.discard(self)
        self.server_state.total_requests += 1
        scope["extensions"].pop(EXTENSION, None)
        self.scope = None
        self.transport = DEAD
        self.state = OVER
        self._disconnected(1006)
        paused = not self.writable.is_set()
        self.writable.set()
        early, self.early = b"".join(self.early), []
        switching, self.switching = self.switching, b""
        leave_prelude(transport, session, switching)
        hand_over(transport, session, connections, paused=paused, initial=early)


def _checked(headers: Any) -> handshake.Headers:
    """Header pairs with lower-case names. Raises RuntimeError for a value that could inject lines."""
    checked = [(bytes(name).lower(), bytes(value)) for name, value in headers]
    for name, value in checked:
        if not name or any(byte in name for byte in b" :\r\n\0") or any(byte in value for byte in b"\r\n\0"):
            raise RuntimeError("invalid header")
    return checked
