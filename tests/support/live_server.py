"""A real server on a real socket inside the test's own event loop (uvloop or asyncio, whatever the test runs
on).
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import msgspec

from dualcast.transport.options import TransportSettings
from dualcast.transport.server import Server, listen


class LiveServer:
    """What a test sees of a running server."""

    def __init__(self, server: Server, port: int) -> None:
        self.server = server
        self.port = port
        self.base_url = f"http://127.0.0.1:{port}"
        self._stopped = False

    @property
    def connections(self) -> set[Any]:
        """Open connections: protocol objects and detached sessions."""
        return self.server.server_state.connections  # type: ignore[return-value]

    async def until_idle(self) -> None:
        """Waits until no connection and no request task is left."""
        async with asyncio.timeout(10):
            while self.connections or self.server.server_state.tasks:
                await asyncio.sleep(0.01)


@asynccontextmanager
async def running_server(
    app: Any,
    settings: TransportSettings | None = None,
    *,
    stock: bool = False,
    on_drain: Callable[[], Awaitable[None]] | None = None,
) -> AsyncIterator[LiveServer]:
    """Serves the ASGI application `app` on a free port until the block ends, then shuts down as in
    production.

    `stock`: uvicorn's own protocol classes, so that sessions run over plain ASGI. `settings`: port, host and
    garbage collector options are overruled; grace defaults to 1 s here.
    """
    given = settings or TransportSettings(grace_s=1.0)
    used = msgspec.structs.replace(
        given, host="127.0.0.1", port=0, detach=given.detach and not stock, freeze_gc=False
    )
    sock = listen(used)
    server = Server(app, used, on_drain=on_drain)
    task = asyncio.create_task(server._serve([sock]), name="live-server")
    try:
        async with asyncio.timeout(20):
            while not server.started:
                if task.done():
                    task.result()
                    raise RuntimeError("the server ended while starting")
                await asyncio.sleep(0.005)
        yield LiveServer(server, sock.getsockname()[1])
    finally:
        server.should_exit = True
        try:
            async with asyncio.timeout(30):
                await task
        finally:
            sock.close()
