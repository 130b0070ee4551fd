"""A site with the page of the JavaScript client and the files it loads, in front of a server: it is the
network between the two."""

from __future__ import annotations

import asyncio
from collections import Counter
from pathlib import Path

from support.front_door import FrontDoor, send_answer

SOURCE = Path(__file__).parents[2] / "clients" / "core" / "src"
PAGE = Path(__file__).parents[1] / "clients" / "core" / "support" / "page.html"


class Door(FrontDoor):
    """Serves the page and the client's files, and is the network between browser and server."""

    def __init__(self, port: int) -> None:
        super().__init__(SOURCE, [port])
        self.away = False
        """Every connection breaks, and no new one is let through."""
        self.swallow = False
        """A WebSocket is let through up to the answer of its handshake; then nothing is, in either way."""
        self.open: Counter[str] = Counter()
        """Connections there are now: `socket`, `stream`."""
        self._writers: set[asyncio.StreamWriter] = set()

    def cut(self) -> None:
        for writer in list(self._writers):
            writer.transport.abort()

    async def _page(self, writer: asyncio.StreamWriter, target: str) -> None:
        name = target.removeprefix("/site/")
        file = SOURCE / name.removeprefix("src/")
        if not name:
            await send_answer(writer, "200 OK", "text/html", PAGE.read_bytes())
        elif file.is_file() and file.is_relative_to(SOURCE):
            await send_answer(writer, "200 OK", "text/javascript", file.read_bytes())
        else:
            await send_answer(writer, "404 Not Found", "text/plain", b"")

    async def _pass(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, head: bytes, target: str
    ) -> None:
        if self.away:
            return
        kind = target.partition("?")[0].removeprefix("/v1/")
        self._writers.add(writer)
        self.open[kind] += 1
        try:
            if kind == "socket" and self.swallow:
                await self._swallow(reader, writer, head)
            else:
                await super()._pass(reader, writer, head, target)
        finally:
            self.open[kind] -= 1
            self._writers.discard(writer)

    async def _swallow(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, head: bytes) -> None:
        up_reader, up_writer = await asyncio.open_connection("127.0.0.1", self._ports[0])
        try:
            up_writer.write(head)
            writer.write(await up_reader.readuntil(b"\r\n\r\n"))
            while await reader.read(1 << 16):
                pass
        finally:
            up_writer.transport.abort()
