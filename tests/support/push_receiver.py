"""A receiver of push webhooks on a real socket, that answers as tests say."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

from dualcast.push.signature import verify

SECRET = "a secret of at least thirty-two bytes"
WAIT_S = 20.0


class Call:
    def __init__(self, head: bytes, body: bytes) -> None:
        first, *rest = head.decode().split("\r\n")
        self.line = first
        self.headers = {
            name.lower(): value.strip() for name, _, value in (row.partition(":") for row in rest if row)
        }
        self.body = body

    @property
    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def verified(self) -> bool:
        stamp, signature = self.headers["x-dualcast-timestamp"], self.headers["x-dualcast-signature"]
        return verify(SECRET.encode(), stamp, signature, self.body, now=time.time())


class Receiver:
    """Answers each call with the next of `answers` (the last one again and again); "hang": never."""

    def __init__(self) -> None:
        self.calls: list[Call] = []
        self.answers: list[str | bytes] = ["204 No Content"]
        self.connections = 0
        self.port = 0
        self.changed = asyncio.Event()
        self.released = asyncio.Event()

    async def connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        try:
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                size = int(Call(head, b"").headers["content-length"])
                self.calls.append(Call(head, await reader.readexactly(size)))
                self.changed.set()
                answer = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
                if answer == "hang":
                    await self.released.wait()
                    return
                if answer == "reset":
                    writer.transport.abort()
                    return
                if isinstance(answer, str):
                    status, *fields = answer.split("|")
                    text = "\r\n".join([f"HTTP/1.1 {status}", "Content-Length: 0", *fields])
                    answer = text.encode() + b"\r\n\r\n"
                writer.write(answer)
                await writer.drain()
        except (OSError, asyncio.IncompleteReadError):
            pass
        finally:
            writer.close()

    async def until(self, condition: Callable[[], bool]) -> None:
        """Waits until `condition` holds; looks after every call. Raises TimeoutError after WAIT_S."""
        async with asyncio.timeout(WAIT_S):
            while not condition():
                self.changed.clear()
                await self.changed.wait()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/push?app=1"


@asynccontextmanager
async def receiving() -> AsyncIterator[Receiver]:
    receiver = Receiver()
    server = await asyncio.start_server(receiver.connected, "127.0.0.1", 0)
    receiver.port = server.sockets[0].getsockname()[1]
    try:
        yield receiver
    finally:
        receiver.released.set()
        server.close()
        await server.wait_closed()
