"""A site in front of several nodes, as older clients know it: one origin that serves pages of its own and
passes everything else on.

Each client has a node it is passed to while that one is there; otherwise it is passed to the next. A byte
that has been taken is passed on or the connection ends: nothing is repeated, nothing is kept.
"""

from __future__ import annotations

import asyncio
import contextlib
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Self
from urllib.parse import unquote

MAX_HEAD = 65536
MEDIA_TYPES = {".html": "text/html", ".js": "text/javascript"}
_HOP = re.compile(rb"\r\nConnection:[^\r]*", re.IGNORECASE)
_UPGRADE = re.compile(rb"\r\nUpgrade: *websocket", re.IGNORECASE)


class FrontDoor:
    """Serves `folder` under `/site/` and passes the rest on to `ports` of this machine."""

    def __init__(self, folder: Path, ports: Sequence[int]) -> None:
        self.base_url = ""
        self._folder = folder
        self._ports = list(ports)
        self._server: asyncio.Server | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self.preferred: dict[str, int] = {}
        """Mark (a piece of a request's target, such as a token) → number of the node its client likes."""
        self.sockets = True
        """Passes WebSocket handshakes on; else answers 502, as a proxy without the Upgrade headers may."""
        self.passed: dict[str, list[int]] = {}
        """Mark → the nodes its connections were passed to, in order."""

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._accept, "127.0.0.1", 0, limit=MAX_HEAD)
        self.base_url = f"http://127.0.0.1:{self._server.sockets[0].getsockname()[1]}"
        return self

    async def __aexit__(self, *_: object) -> None:
        assert self._server is not None
        self._server.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self._server.wait_closed()
        await asyncio.sleep(0)  # aborted transports close in the next turn

    def prefer(self, places: Mapping[str, int]) -> None:
        """More of `preferred`."""
        self.preferred.update(places)

    def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        # A coroutine here would be a task of asyncio's, which complains of its cancellation.
        task = asyncio.create_task(self._connection(reader, writer))
        self._tasks.add(task)
        task.add_done_callback(self._ended)

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and task.exception() is not None:
            task.get_loop().call_exception_handler(
                {"message": "a connection of the front door failed", "exception": task.exception()}
            )

    async def _connection(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            await self._serve(reader, writer)
        except (OSError, asyncio.IncompleteReadError):
            pass
        finally:
            writer.transport.abort()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        target = head.split(b" ", 2)[1].decode()
        if target.startswith("/site/"):
            await self._page(writer, target)
        elif _UPGRADE.search(head) and not self.sockets:
            await send_answer(writer, "502 Bad Gateway", "text/plain", b"no upgrade")
        else:
            await self._pass(reader, writer, head, target)

    async def _page(self, writer: asyncio.StreamWriter, target: str) -> None:
        name = target.removeprefix("/site/") or "index.html"
        file = self._folder / name
        if file.parent != self._folder or not file.is_file():
            await send_answer(writer, "404 Not Found", "text/plain", b"")
        else:
            await send_answer(writer, "200 OK", MEDIA_TYPES[file.suffix], file.read_bytes())

    async def _pass(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, head: bytes, target: str
    ) -> None:
        if not _UPGRADE.search(head):  # one request per connection, so that each may go to another node
            head = _HOP.sub(b"", head).replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n", 1)
        mark = next((mark for mark in self.preferred if mark in unquote(target)), "")
        first = self.preferred.get(mark, 0)
        for number in (first, *(n for n in range(len(self._ports)) if n != first)):
            try:
                up_reader, up_writer = await asyncio.open_connection("127.0.0.1", self._ports[number])
            except OSError:
                continue
            self.passed.setdefault(mark, []).append(number)
            try:
                up_writer.write(head)
                await _both(_pump(reader, up_writer), _pump(up_reader, writer))
            finally:
                up_writer.transport.abort()
            return
        await send_answer(writer, "502 Bad Gateway", "text/plain", b"nobody is there")


async def _both(*pumps: object) -> None:
    """Until one of them has ended."""
    tasks = [asyncio.ensure_future(pump) for pump in pumps]  # type: ignore[call-overload]
    try:
        await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def _pump(source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
    with contextlib.suppress(OSError):
        while data := await source.read(1 << 16):
            sink.write(data)
            await sink.drain()


async def send_answer(writer: asyncio.StreamWriter, status: str, media_type: str, body: bytes) -> None:
    """Answers a request, `status` as in "200 OK", and ends the connection."""
    lines = [f"HTTP/1.1 {status}", f"Content-Type: {media_type}; charset=utf-8"]
    lines += [f"Content-Length: {len(body)}", "Connection: close", "", ""]
    writer.write("\r\n".join(lines).encode() + body)
    await writer.drain()
    writer.close()
    await writer.wait_closed()
