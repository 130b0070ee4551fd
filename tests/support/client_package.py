"""The Python client, and a line to a server that loses what a test tells it to lose."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import dualcast_client as package
from dualcast_client import (
    bodies,
    calls,
    conversations,
    default,
    flow,
    flows,
    ids,
    notifications,
    progress,
    rooms,
    shapes,
    topics,
)

FOLDER = Path(__file__).parents[2] / "clients/python"

__all__ = [
    "FOLDER",
    "LossyLine",
    "bodies",
    "calls",
    "conversations",
    "default",
    "flow",
    "flows",
    "ids",
    "lossy_line",
    "notifications",
    "package",
    "progress",
    "rooms",
    "shapes",
    "topics",
]


class LossyLine:
    """A TCP proxy before an HTTP server. The requests reach it; of the first `lose` connections that had an
    answer, the answer does not come back: the connection breaks."""

    def __init__(self, port: int, lose: int) -> None:
        self._to = port
        self.lose = lose
        self.lost = 0
        self.port = 0

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    async def accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        up_reader, up_writer = await asyncio.open_connection("127.0.0.1", self._to)

        async def there() -> None:
            while data := await reader.read(65_536):
                up_writer.write(data)
                await up_writer.drain()

        async def back() -> None:
            while data := await up_reader.read(65_536):
                if self.lose:
                    self.lose -= 1
                    self.lost += 1
                    return
                writer.write(data)
                await writer.drain()

        pumps = [asyncio.ensure_future(there()), asyncio.ensure_future(back())]
        try:
            with suppress(OSError):
                await asyncio.wait(pumps, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for pump in pumps:
                pump.cancel()
            await asyncio.gather(*pumps, return_exceptions=True)
            writer.transport.abort()
            up_writer.transport.abort()


@asynccontextmanager
async def lossy_line(port: int, *, lose: int = 1) -> AsyncIterator[LossyLine]:
    """A line to `port` on this machine."""
    line = LossyLine(port, lose)
    async with await asyncio.start_server(line.accept, "127.0.0.1", 0) as server:
        line.port = server.sockets[0].getsockname()[1]
        yield line
        server.close()
