"""The wires of the migration drill's clients: one asyncio protocol per connection, no task, raw bytes.

They know HTTP/1.1, Server-Sent Events and RFC 6455 as far as a client reads them, and nothing of dualcast.
"""

from __future__ import annotations

import asyncio
import base64
import os
from typing import Protocol

import httptools

from support.raw_http import masked

NO_CLOSE_FRAME = 1006
CLOSE, PING = 8, 9
PONG = 10


class StreamOwner(Protocol):
    """Who reads a stream."""

    def stream_opened(self, wire: StreamWire) -> None: ...
    def block(self, wire: StreamWire, lines: list[bytes]) -> None: ...
    def stream_ended(self, wire: StreamWire) -> None: ...


class SocketOwner(Protocol):
    """Who reads a WebSocket."""

    def socket_opened(self, wire: SocketWire) -> None: ...
    def frame(self, wire: SocketWire, payload: bytes) -> None: ...
    def socket_ended(self, wire: SocketWire) -> None: ...


class Wire(asyncio.Protocol):
    """A connection to a node."""

    transport: asyncio.Transport

    def __init__(self, request: bytes, node: int) -> None:
        self.request = request
        self.node = node
        """Number of the node it was meant for."""
        self.heard_at = asyncio.get_running_loop().time()
        self.welcomed = False
        self.dropped = False
        """Set by its owner: it has opened another one in its place."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport  # type: ignore[assignment]  # uvloop's are not asyncio.Transport by type
        self.transport.write(self.request)
        self.opened()

    def opened(self) -> None:
        """Its owner is told here, before anything can come or end."""
        raise NotImplementedError

    def heard(self) -> None:
        self.heard_at = asyncio.get_running_loop().time()

    def cut(self) -> None:
        """RST; its owner is told it ended."""
        self.transport.abort()


class StreamWire(Wire):
    """An SSE response, split into blocks. `status` 0: there was no answer."""

    def __init__(self, owner: StreamOwner, request: bytes, node: int) -> None:
        super().__init__(request, node)
        self.status = 0
        self._owner = owner
        self._parser = httptools.HttpResponseParser(self)
        self._text = b""
        self._over = False

    def opened(self) -> None:
        self._owner.stream_opened(self)

    def data_received(self, data: bytes) -> None:
        self.heard()
        self._parser.feed_data(data)

    def on_headers_complete(self) -> None:
        self.status = self._parser.get_status_code()

    def on_body(self, body: bytes) -> None:
        if self.status != 200:
            return
        *blocks, self._text = (self._text + body).split(b"\n\n")
        for block in blocks:
            self._owner.block(self, block.split(b"\n"))

    def on_message_complete(self) -> None:
        self._end()
        self.transport.close()

    def connection_lost(self, exc: Exception | None) -> None:
        self._end()

    def _end(self) -> None:
        if not self._over:
            self._over = True
            self._owner.stream_ended(self)


class SocketWire(Wire):
    """A WebSocket. Pings are answered here, as every stack does. `code` 0: it was never one."""

    def __init__(self, owner: SocketOwner, request: bytes, node: int) -> None:
        super().__init__(request, node)
        self.code = 0
        self._owner = owner
        self._open = False
        self._buffer = b""
        self._closed = False

    def opened(self) -> None:
        self._owner.socket_opened(self)

    def data_received(self, data: bytes) -> None:
        self.heard()
        self._buffer += data
        if not self._open:
            head, end, rest = self._buffer.partition(b"\r\n\r\n")
            if not end:
                return
            if head.split(b" ", 2)[1] != b"101":
                self.transport.abort()
                return
            self._open, self._buffer, self.code = True, rest, NO_CLOSE_FRAME
        self._frames()

    def _frames(self) -> None:
        data, at, size = self._buffer, 0, len(self._buffer)
        while size - at >= 2:
            length, head = data[at + 1], 2
            if length == 126:
                head = 4
            elif length == 127:
                head = 10
            if size - at < head:
                break
            if head > 2:
                length = int.from_bytes(data[at + 2 : at + head], "big")
            end = at + head + length
            if end > size:
                break
            self._frame(data[at] & 0x0F, data[at + head : end])
            at = end
        self._buffer = data[at:]

    def _frame(self, opcode: int, payload: bytes) -> None:
        if opcode == PING:
            self.transport.write(masked(PONG, payload))
        elif opcode == CLOSE:
            self.code = int.from_bytes(payload[:2], "big") if payload else 1005
            self.close(self.code)
            self.transport.close()
        elif opcode != PONG:
            self._owner.frame(self, payload)

    def close(self, code: int = 1000) -> None:
        """Sends a close frame; the server answers it and ends the connection."""
        if not self._closed:
            self._closed = True
            self.transport.write(masked(CLOSE, code.to_bytes(2, "big")))

    def connection_lost(self, exc: Exception | None) -> None:
        self._owner.socket_ended(self)


def stream_request(path: str, *, last_id: str = "", **headers: str) -> bytes:
    """GET of a stream; `last_id`: Last-Event-ID, as an `EventSource` sends it."""
    lines = [f"GET {path} HTTP/1.1", "host: drill", "accept: text/event-stream"]
    lines += [f"last-event-id: {last_id}"] if last_id else []
    lines += [f"{name}: {value}" for name, value in headers.items()]
    return "\r\n".join([*lines, "", ""]).encode()


def socket_request(path: str, **headers: str) -> bytes:
    """An upgrade request."""
    lines = [
        f"GET {path} HTTP/1.1",
        "host: drill",
        "upgrade: websocket",
        "connection: Upgrade",
        "sec-websocket-version: 13",
        "sec-websocket-key: " + base64.b64encode(os.urandom(16)).decode(),
        *(f"{name}: {value}" for name, value in headers.items()),
    ]
    return "\r\n".join([*lines, "", ""]).encode()
