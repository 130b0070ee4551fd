"""A TCP proxy that can go silent: both connections stay open, nothing is read or written any more (a frozen
phone, a dead route behind a middlebox).
"""

from __future__ import annotations

import asyncio
from typing import Self


class Blackhole:
    """Listens on `port` inside `async with`."""

    def __init__(self, host: str, port: int) -> None:
        self._target = (host, port)
        self._server: asyncio.Server | None = None
        self._halves: list[tuple[_Half, _Half]] = []
        self.host = "127.0.0.1"
        self.port = 0

    async def __aenter__(self) -> Self:
        loop = asyncio.get_running_loop()
        self._server = await loop.create_server(lambda: _Half(self), self.host, 0)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *_: object) -> None:
        assert self._server is not None
        self._server.close()
        self.cut()

    def swallow(self) -> None:
        """From now on the connections there are say nothing. New ones work."""
        for pair in self._halves:
            for half in pair:
                half.silent = True
                half.transport.pause_reading()

    def cut(self) -> None:
        """Ends all connections."""
        halves, self._halves = self._halves, []
        for pair in halves:
            for half in pair:
                half.transport.abort()

    async def join(self, near: _Half) -> None:
        """Connects an accepted connection to the target; ends it when nobody is there."""
        loop = asyncio.get_running_loop()
        try:
            _, far = await loop.create_connection(lambda: _Half(self, near), *self._target)
        except OSError:
            near.transport.abort()
            return
        self._halves.append((near, far))
        near.joined(far)


class _Half(asyncio.Protocol):
    transport: asyncio.Transport

    def __init__(self, proxy: Blackhole, other: _Half | None = None) -> None:
        self._proxy = proxy
        self._joining: asyncio.Task[None] | None = None
        self.other = other
        self.silent = False
        self._early: list[bytes] = []
        """Came before the connection to the target stood."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport  # type: ignore[assignment]
        if self.other is None:
            self._joining = asyncio.ensure_future(self._proxy.join(self))

    def joined(self, other: _Half) -> None:
        self.other = other
        other.transport.writelines(self._early)

    def data_received(self, data: bytes) -> None:
        if self.other is None:
            self._early.append(data)
        else:
            self.other.transport.write(data)

    def pause_writing(self) -> None:
        if self.other is not None:
            self.other.transport.pause_reading()

    def resume_writing(self) -> None:
        if self.other is not None and not self.silent and not self.other.transport.is_closing():
            self.other.transport.resume_reading()

    def connection_lost(self, exc: Exception | None) -> None:
        if self.other is not None:
            self.other.transport.close()
