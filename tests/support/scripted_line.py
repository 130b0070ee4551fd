"""A server of subscriptions that a test has scripted, for the Python client."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Sequence
from typing import Any

import httpx

from dualcast_client.connections import Broken, Connection, Received
from dualcast_client.errors import DualcastError
from dualcast_client.events import Frame, Gap, Published, Welcome
from dualcast_client.flow import Policy, Retries
from dualcast_client.history import HistoryEntry, HistoryPage
from dualcast_client.line import Happening, Line, Reconnects
from dualcast_client.stream import Stream
from dualcast_client.wanted import Backend, Wanted, wanted

AT_ONCE = Reconnects(base_s=0, cap_s=0)
Step = Frame | Happening
HELLO = Welcome(connection="c", tenant="t", user="u", stage="fallback", channels=("all",), heartbeat_s=25)


def note(n: int) -> Published:
    return Published(channel="all", id=f"i{n}", event="n", time="t", data=n, cursor=f"e-{n}")


class Scripted(Connection):
    """Gives what it was told to; at the end of that it says nothing."""

    def __init__(self, server: Server, transport: Any, steps: Sequence[Step]) -> None:
        super().__init__()
        self.transport = transport
        self.steps = deque(steps)
        self.server = server
        self.sent: list[str] = []
        self.more = asyncio.Event()
        server.open += 1
        server.most = max(server.most, server.open)

    async def _next(self) -> Received:
        await asyncio.sleep(0)
        while not self.steps:
            self.more.clear()
            await self.more.wait()
        step = self.steps.popleft()
        if isinstance(step, Frame):
            return Received(step, getattr(step, "cursor", None))
        raise Broken(step)

    def say(self, *steps: Step) -> None:
        """What comes next."""
        self.steps.extend(steps)
        self.more.set()

    async def send(self, text: str) -> None:
        self.sent.append(text)

    async def close(self) -> None:
        await asyncio.sleep(0)
        if self.server is not None:
            self.server.open -= 1


class Server(Backend):
    """Each connect takes the next script; a script that begins with a Happening does not open."""

    def __init__(self, *scripts: Sequence[Step], renewable: bool = True) -> None:
        super().__init__("http://127.0.0.1:9", Policy(Retries(), renewable), self._flow)
        self.scripts = deque(scripts)
        self.open = self.most = 0
        self.connections: list[Scripted] = []
        self.asked: list[tuple[str, str, str, tuple[str, ...]]] = []
        self.tokens = 0
        self.refused: list[str] = []
        self.failing: list[Exception] = []
        self.pages: list[HistoryPage] = []

    async def _flow(self, flow: Any) -> Any:
        raise AssertionError("everything is answered here")

    async def token(self, refused: str) -> str:
        self.refused.append(refused)
        if self.failing:
            raise self.failing.pop(0)
        self.tokens += refused == f"token-{self.tokens}"
        return f"token-{self.tokens}"

    async def call(self, call: Any) -> Any:
        if not self.pages:
            raise DualcastError("bus-unavailable", 503)
        return self.pages.pop(0)

    def streaming(self, timeout_s: float) -> httpx.AsyncClient:
        return httpx.AsyncClient()

    async def connect(
        self, wanted: Wanted, line: Line, token: str, http: httpx.AsyncClient | None
    ) -> Connection:
        self.asked.append((line.transport, line.cursor, token, wanted.channels))
        script = self.scripts.popleft() if self.scripts else [HELLO]
        if not isinstance(script[0], Frame):
            raise Broken(script[0])
        self.connections.append(Scripted(self, line.transport, script))
        return self.connections[-1]


def stream_of(server: Server, channels: Sequence[str] = (), **options: Any) -> Stream:
    return Stream(server, wanted(channels, reconnects=AT_ONCE, **options))


async def data(stream: Stream, until: int) -> list[int]:
    found = []
    async with asyncio.timeout(10):
        async for publication in stream:
            found.append(publication.data)
            if found[-1] == until:
                break
    return found


def history(*numbers: int) -> HistoryPage:
    entries = [HistoryEntry(cursor=f"e-{n}", id=f"i{n}", event="n", time="t", data=n) for n in numbers]
    return HistoryPage(channel="all", publications=entries, gaps=[], next="e-9", more=False)


LATE = Gap(channel="all", reason="late", after="e-1", oldest="e-4", cursor="e-5")
