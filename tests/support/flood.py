"""One tenant that publishes as fast as it is answered, in a process of its own: batches over many
connections.

Run as a program it reads its `Order` from standard input, floods until standard input ends, waits for what is
under way and prints its `Account`. The requests are made once, so that the flood costs its process little.
"""

from __future__ import annotations

import asyncio
import selectors
import socket
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable
from types import TracebackType
from typing import Self

import msgspec
from msgspec import Struct

PATIENCE_S = 60.0
"""For the answers under way when it shall end."""


class Order(Struct, frozen=True, kw_only=True):
    """What to flood with. `item`: JSON of one item; `%d` in it is the number of the item in its batch."""

    port: int
    token: str
    item: str
    connections: int = 32
    items: int = 1_000
    path: str = "/v1/notifications/batch"


class Account(Struct, frozen=True):
    """What came of it. `statuses`: answers by HTTP status; `slowest_s`: from sending to answer."""

    seconds: float
    statuses: dict[str, int]
    published: int
    slowest_s: float
    median_s: float


class _Poster:
    """One keep-alive connection."""

    def __init__(self, order: Order, request: bytes) -> None:
        self.socket = socket.create_connection(("127.0.0.1", order.port))
        self.socket.setblocking(False)
        self.request = request
        self.left = b""
        self.got = bytearray()
        self.missing = -1
        """Bytes of the answer still to come; -1: its head is not complete."""
        self.sent_at = 0.0

    def begin(self) -> None:
        self.left = self.request
        self.got.clear()
        self.missing = -1
        self.sent_at = time.monotonic()
        self.write()

    def write(self) -> None:
        while self.left:
            try:
                self.left = self.left[self.socket.send(self.left[: 1 << 18]) :]
            except BlockingIOError:
                return

    def read(self) -> bool:
        """True: the answer is complete; its status is at its beginning."""
        data = self.socket.recv(1 << 18)
        if not data:
            raise ConnectionResetError("the server closed a connection of the flood")
        self.got += data
        if self.missing < 0:
            head = self.got.find(b"\r\n\r\n")
            if head < 0:
                return False
            lines = bytes(self.got[:head]).lower().split(b"\r\n")
            length = next(int(line[15:]) for line in lines if line.startswith(b"content-length:"))
            self.missing = head + 4 + length - len(self.got)
        else:
            self.missing -= len(data)
        return self.missing <= 0


def flood(order: Order, over: Callable[[], bool]) -> Account:
    """Floods until `over()`; returns when every answer is there."""
    body = "\n".join(order.item.replace("%d", str(number)) for number in range(order.items)).encode()
    head = (
        f"POST {order.path} HTTP/1.1\r\nHost: flood\r\nAuthorization: Bearer {order.token}\r\n"
        f"Content-Type: application/x-ndjson\r\nContent-Length: {len(body)}\r\n\r\n"
    )
    posters = [_Poster(order, head.encode() + body) for _ in range(order.connections)]
    statuses: Counter[str] = Counter()
    took: list[float] = []
    begun = time.monotonic()
    end = 0.0
    with selectors.DefaultSelector() as selector:
        for poster in posters:
            selector.register(poster.socket, selectors.EVENT_READ | selectors.EVENT_WRITE, poster)
            poster.begin()
        busy = len(posters)
        while busy:
            for key, mask in selector.select(0.1):
                poster = key.data
                if mask & selectors.EVENT_WRITE:
                    poster.write()
                if mask & selectors.EVENT_READ and poster.read():
                    took.append(time.monotonic() - poster.sent_at)
                    statuses[bytes(poster.got[9:12]).decode()] += 1
                    if end:
                        busy -= 1
                        selector.unregister(poster.socket)
                        continue
                    poster.begin()
                wanted = selectors.EVENT_READ | (selectors.EVENT_WRITE if poster.left else 0)
                selector.modify(poster.socket, wanted, poster)
            if not end and over():
                end = time.monotonic()
            if end and time.monotonic() > end + PATIENCE_S:
                raise TimeoutError("the server does not answer the flood")
    took.sort()
    return Account(
        seconds=time.monotonic() - begun,
        statuses=dict(statuses),
        published=statuses["200"] * order.items,
        slowest_s=took[-1],
        median_s=took[len(took) // 2],
    )


class Flood:
    """The flood as a child process: `async with Flood(order) as flood: …; account = await flood.stop()`."""

    def __init__(self, order: Order) -> None:
        self._order = order
        self._process: subprocess.Popen[bytes] | None = None

    async def __aenter__(self) -> Self:
        self._process = subprocess.Popen(  # noqa: ASYNC220 — starts at once
            [sys.executable, __file__], stdin=subprocess.PIPE, stdout=subprocess.PIPE
        )
        assert self._process.stdin is not None
        self._process.stdin.write(msgspec.json.encode(self._order) + b"\n")
        self._process.stdin.flush()
        return self

    async def stop(self) -> Account:
        """Ends it, when everything sent was answered."""
        assert self._process is not None
        output, _ = await asyncio.to_thread(self._process.communicate)
        return msgspec.json.decode(output, type=Account)

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._process is not None and self._process.poll() is None:
            self._process.kill()
            await asyncio.to_thread(self._process.communicate)


def main() -> None:
    order = msgspec.json.decode(sys.stdin.buffer.readline(), type=Order)
    with selectors.DefaultSelector() as ended:
        ended.register(sys.stdin.buffer, selectors.EVENT_READ)
        account = flood(order, lambda: bool(ended.select(0)))
    sys.stdout.buffer.write(msgspec.json.encode(account))


if __name__ == "__main__":
    main()
