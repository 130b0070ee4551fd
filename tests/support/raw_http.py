"""Raw socket clients: exact bytes out, exact bytes in. No HTTP or WebSocket library stands between a test and
the wire.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import os
from dataclasses import dataclass, field
from types import TracebackType
from typing import NamedTuple, Self

PATIENCE_S = 10.0
"""How long a read waits before the test fails."""


class Frame(NamedTuple):
    """A received WebSocket frame; `masked` must be False from a server."""

    opcode: int
    payload: bytes
    final: bool = True
    rsv1: bool = False

    @property
    def close_code(self) -> int:
        """Code of a close frame; 1005 if it has none."""
        return int.from_bytes(self.payload[:2], "big") if self.payload else 1005


class Response(NamedTuple):
    """Status line and headers (lower-case names, last one wins) of a response; `body` only if it had a
    content-length.
    """

    status: int
    headers: dict[str, str]
    body: bytes = b""


def masked(
    opcode: int, payload: bytes = b"", *, final: bool = True, rsv: int = 0, mask: bytes = b"\x01\x02\x03\x04"
) -> bytes:
    """A client frame. `rsv`: the three reserved bits as a number (4 is RSV1)."""
    head = bytes([(0x80 if final else 0) | rsv << 4 | opcode])
    length = len(payload)
    if length < 126:
        head += bytes([0x80 | length])
    elif length < 65536:
        head += bytes([0x80 | 126]) + length.to_bytes(2, "big")
    else:
        head += bytes([0x80 | 127]) + length.to_bytes(8, "big")
    return head + mask + bytes(byte ^ mask[i % 4] for i, byte in enumerate(payload))


def upgrade_request(path: str = "/ws", **headers: str | None) -> bytes:
    """A WebSocket upgrade request. Keyword headers (underscores for dashes) replace or, as None, drop the
    usual ones.
    """
    usual: dict[str, str | None] = {
        "host": "test",
        "upgrade": "websocket",
        "connection": "Upgrade",
        "sec-websocket-version": "13",
        "sec-websocket-key": base64.b64encode(os.urandom(16)).decode(),
    }
    usual |= {name.replace("_", "-"): value for name, value in headers.items()}
    lines = [f"{name}: {value}" for name, value in usual.items() if value is not None]
    return "\r\n".join([f"GET {path} HTTP/1.1", *lines, "", ""]).encode()


@dataclass
class Wire:
    """One client connection. Use as `async with await connect(port) as wire`."""

    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter
    response: Response | None = field(default=None)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    def write(self, data: bytes) -> None:
        """Sends `data` as it is."""
        self.writer.write(data)

    def send(self, opcode: int, payload: bytes = b"", **bits: object) -> None:
        """Sends one masked frame."""
        self.write(masked(opcode, payload, **bits))  # type: ignore[arg-type]

    async def close(self) -> None:
        """FIN (or RST if unread data is left)."""
        self.writer.close()
        with contextlib.suppress(OSError):
            await self.writer.wait_closed()

    def reset(self) -> None:
        """RST."""
        self.writer.transport.abort()

    async def exactly(self, count: int) -> bytes:
        """The next `count` bytes."""
        async with asyncio.timeout(PATIENCE_S):
            return await self.reader.readexactly(count)

    async def until(self, marker: bytes) -> bytes:
        """Everything up to and with `marker`."""
        async with asyncio.timeout(PATIENCE_S):
            return await self.reader.readuntil(marker)

    async def rest(self) -> bytes:
        """Everything until the server closes; a reset counts as an end."""
        received = b""
        async with asyncio.timeout(PATIENCE_S):
            try:
                while data := await self.reader.read(65536):
                    received += data
            except ConnectionResetError:
                pass
        return received

    async def read_response(self, *, body: bool = True) -> Response:
        """Reads a response head, and the body if it has a content-length and `body` is set."""
        head = (await self.until(b"\r\n\r\n")).decode("latin-1")
        first, *lines = head.split("\r\n")
        headers = {}
        for line in lines:
            if line:
                name, _, value = line.partition(":")
                headers[name.lower()] = value.strip()
        status = int(first.split(" ")[1])
        length = int(headers.get("content-length", "0")) if body else 0
        self.response = Response(status, headers, await self.exactly(length) if length else b"")
        return self.response

    async def frame(self) -> Frame:
        """The next server frame. Raises AssertionError if it is masked."""
        first, second = await self.exactly(2)
        assert not second & 0x80, "a server frame must not be masked"
        length = second & 0x7F
        if length == 126:
            length = int.from_bytes(await self.exactly(2), "big")
        elif length == 127:
            length = int.from_bytes(await self.exactly(8), "big")
        return Frame(first & 0x0F, await self.exactly(length), bool(first & 0x80), bool(first & 0x40))

    async def chunk(self) -> bytes:
        """The next HTTP/1.1 chunk; b"" is the last one."""
        size = int((await self.until(b"\r\n"))[:-2], 16)
        data = await self.exactly(size)
        assert await self.exactly(2) == b"\r\n"
        return data

    async def event(self) -> dict[str, str]:
        """The next SSE block with a field, comments skipped. Keys: id, event, data, retry (`data` lines
        joined with a newline).

        Raises EOFError at the end of the stream.
        """
        while True:
            block = await self._block()
            fields: dict[str, str] = {}
            for line in block.split("\n"):
                name, _, value = line.partition(":")
                if not name:
                    continue
                value = value.removeprefix(" ")
                fields[name] = fields[name] + "\n" + value if name == "data" and name in fields else value
            if fields:
                return fields

    _text: bytes = b""

    async def _block(self) -> str:
        while b"\n\n" not in self._text:
            data = await self.chunk()
            if not data:
                raise EOFError("the stream ended")
            self._text += data
        block, _, self._text = self._text.partition(b"\n\n")
        return block.decode()


async def connect(port: int, host: str = "127.0.0.1") -> Wire:
    """A TCP connection."""
    return Wire(*await asyncio.open_connection(host, port))


async def open_websocket(port: int, path: str = "/ws", *, behind: bytes = b"", **headers: str | None) -> Wire:
    """Connects and upgrades; `behind` is sent in the same segment as the request. The answer is in
    `wire.response`.
    """
    wire = await connect(port)
    wire.write(upgrade_request(path, **headers) + behind)
    await wire.read_response()
    return wire


async def open_sse(port: int, path: str = "/sse", **headers: str) -> Wire:
    """Connects and asks for a stream. The answer's head is in `wire.response`."""
    wire = await connect(port)
    lines = [
        "host: test",
        "accept: text/event-stream",
        *(f"{n.replace('_', '-')}: {v}" for n, v in headers.items()),
    ]
    wire.write("\r\n".join([f"GET {path} HTTP/1.1", *lines, "", ""]).encode())
    response = await wire.read_response(body=False)
    if response.headers.get("transfer-encoding") != "chunked" and "content-length" in response.headers:
        length = int(response.headers["content-length"])
        wire.response = response._replace(body=await wire.exactly(length))
    return wire
