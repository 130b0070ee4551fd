"""A TCP proxy in front of a unix socket that loses what a test tells it to lose."""

from __future__ import annotations

import asyncio
from collections.abc import Callable


class FlakyProxy:
    """Listens on 127.0.0.1:`port` between `start` and `close`; `url` is a Redis URL through it."""

    def __init__(self, path: str) -> None:
        self._path = path
        self._server: asyncio.Server | None = None
        self._pairs: set[tuple[asyncio.StreamWriter, asyncio.StreamWriter]] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        self.port = 0
        self.cut_on: bytes = b""
        """A request with this in it goes to the server, but its reply kills the connection. Once."""
        self.swallow: bytes = b""
        """A read from the server with this in it vanishes. Once."""
        self.refuse = False
        """New connections are ended at once."""
        self.refused = asyncio.Event()
        self.cuts = 0
        self.swallowed = 0
        self.happened = asyncio.Event()
        """Set when something was cut or swallowed."""

    @property
    def url(self) -> str:
        return f"redis://127.0.0.1:{self.port}/0"

    async def start(self) -> None:
        self._server = await asyncio.start_server(self._accept, "127.0.0.1", 0)
        self.port = self._server.sockets[0].getsockname()[1]

    async def close(self) -> None:
        assert self._server is not None
        self._server.close()
        self.cut_all()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def move(self, path: str) -> None:
        """The address belongs to another server from now on."""
        self._path = path
        self.cut_all()

    def cut_all(self) -> None:
        """Ends every connection now."""
        for pair in list(self._pairs):
            for writer in pair:
                writer.transport.abort()

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if self.refuse:
            writer.transport.abort()
            self.refused.set()
            return
        up_reader, up_writer = await asyncio.open_unix_connection(self._path)
        pair = (writer, up_writer)
        self._pairs.add(pair)
        doomed = False

        def request(data: bytes) -> bytes:
            nonlocal doomed
            if self.cut_on and self.cut_on in data:
                self.cut_on = b""
                doomed = True
            return data

        def reply(data: bytes) -> bytes:
            if doomed:
                self.cuts += 1
                self.happened.set()
                raise ConnectionError
            if self.swallow and self.swallow in data:
                self.swallow = b""
                self.swallowed += 1
                self.happened.set()
                return b""
            return data

        async def pump(
            source: asyncio.StreamReader, sink: asyncio.StreamWriter, look: Callable[[bytes], bytes]
        ) -> None:
            try:
                while data := await source.read(1 << 20):
                    sink.write(look(data))
                    await sink.drain()
            except OSError:
                pass
            finally:
                for end in pair:
                    end.transport.abort()
                self._pairs.discard(pair)

        for task in (
            asyncio.ensure_future(pump(reader, up_writer, request)),
            asyncio.ensure_future(pump(up_reader, writer, reply)),
        ):
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)
