"""The clients of the migration drill that stay on SSE, and what all of them have in common; pages with both
transports are in `migration_pages`.

Each is honest and small, as docs/protocol.md says a client is: it keeps the newest cursor it got from
anything, reconnects as an `EventSource`, and drops equal ids. No task belongs to a client, but for the moment
in which a connection is opened.
"""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from collections.abc import Callable, Coroutine, Sequence
from functools import partial
from typing import Any
from urllib.parse import quote

import msgspec
from msgspec import Struct

from chaos.migration_account import Ledger
from chaos.migration_wires import StreamWire, Wire, stream_request
from support.accounting import Changes
from support.server_process import token

RETRY_S = 3.0
"""Of an `EventSource` that was not told otherwise."""
PATIENCE_S = 10.0
"""Beyond the heartbeat a server promised, and of a handshake."""
STREAM_HEARTBEAT_S = 15.0
STREAM, LEGACY_STREAM = "/v1/stream", "/api/notifications/stream"


class Inner(Struct):
    """What stands in `data` of a notification."""

    title: str = ""


class Told(Struct):
    """Any frame or event of the native protocol, as far as these clients look at it."""

    type: str = ""
    id: str = ""
    data: Inner | None = None
    cursor: str | None = None
    stage: str = ""
    to: str = ""
    after_ms: int = 0
    heartbeat_s: int = 0
    retry_ms: int | None = None
    title: str = ""
    """Of a notification in the older contract."""


decode = msgspec.json.Decoder(Told).decode
Place = tuple[int, int]
"""Number of a node and the port it is reached at."""


class Crew:
    """All clients, and what they have under way: connects and timers."""

    def __init__(self, ledger: Ledger, seed: int) -> None:
        self.ledger = ledger
        self.random = random.Random(seed)
        self.loop = asyncio.get_running_loop()
        self.clients: list[StreamClient] = []
        self.over = False
        self.faults: list[str] = []
        """What no client should be told."""
        self._tasks: set[asyncio.Task[None]] = set()

    @property
    def changes(self) -> Changes:
        return self.ledger.changes

    def join(self, client: StreamClient) -> None:
        """A client comes, and connects."""
        self.clients.append(client)
        self.ledger.join(client)
        client.open_stream()

    def spawn(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.ensure_future(work)
        self._tasks.add(task)
        task.add_done_callback(self._done)

    def _done(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            self.faults.append(f"a client failed: {error!r}")

    def later(self, delay_s: float, call: Callable[[], None]) -> None:
        self.loop.call_later(delay_s, lambda: None if self.over else call())

    async def watch(self) -> None:
        """Ends connections that were silent for too long, as clients do."""
        while True:
            await asyncio.sleep(1)
            now = self.loop.time()
            for client in self.clients:
                client.look(now)

    async def stop(self) -> None:
        self.over = True
        for client in self.clients:
            client.leave()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await asyncio.sleep(0.05)  # aborted transports close in the next turns


class StreamClient:
    """On SSE only: an `EventSource`. `places`: where it connects to, the one it likes first."""

    kind = "plain"
    path = STREAM

    def __init__(
        self, crew: Crew, name: str, user: str, places: Sequence[Place], *, instance: str = ""
    ) -> None:
        self.crew = crew
        self.name = name
        self.user = user
        self.got: set[int] = set()
        self.places = list(places)
        self.token = token(user)
        self.query = f"instance={quote(instance)}" if instance else ""
        self.stream: StreamWire | None = None
        self.last_id = ""
        """`lastEventId` of its `EventSource`."""
        self.retry_s = RETRY_S
        self.stopped = ""
        """Why there is no stream any more; "": it comes back."""
        self.ends: Counter[str] = Counter()
        self._misses = 0

    @property
    def settled(self) -> bool:
        """Whether it is connected as its stage wants."""
        return self.stream is not None and self.stream.welcomed

    def url(self) -> str:
        return f"{self.path}?{self.query}" if self.query else self.path

    def open_stream(self) -> None:
        self.crew.spawn(self._open_stream())

    async def _open_stream(self) -> None:
        request = stream_request(self.url(), last_id=self.last_id, authorization=f"Bearer {self.token}")
        there = await self.dial(self.places, lambda node: StreamWire(self, request, node), self._misses)
        if not there:
            self.crew.later(self.retry_s, self.open_stream)

    def stream_opened(self, wire: StreamWire) -> None:
        self.stream = wire
        if self.crew.over:
            wire.cut()

    async def dial(self, places: Sequence[Place], make: Callable[[int], Wire], misses: int) -> bool:
        """Connects to the first place that is there; `misses` handshakes failed in a row before."""
        first = misses % len(places)
        for node, port in [*places[first:], *places[:first]]:
            try:
                await self.crew.loop.create_connection(partial(make, node), "127.0.0.1", port)
            except OSError:
                continue
            return True
        return False

    def stream_ended(self, wire: StreamWire) -> None:
        if not wire.welcomed and not wire.status:
            self._misses += 1
        if wire.dropped or self.crew.over:
            return
        self.stream = None
        self.ends[f"stream {wire.status}"] += 1
        if wire.status in (0, 200):
            self.crew.later(self.retry_s, self.open_stream)
        else:
            self.stopped = f"status {wire.status}"
            self.crew.faults.append(f"{self.name}: its stream was answered {wire.status}")
        self.crew.changes.note()

    def block(self, wire: StreamWire, lines: list[bytes]) -> None:
        """One block (WHATWG HTML, 9.2.6); what this drill's servers write has one line of data."""
        event, data = b"", b""
        for line in lines:
            name, _, value = line.partition(b":")
            if name == b"data":
                data = value
            elif name == b"event":
                event = value.strip()
            elif name == b"id":
                self.moved(value.strip().decode())
            elif name == b"retry":
                self.retry_s = int(value) / 1000
        if data:
            self.event(wire, event.decode(), decode(data))

    def moved(self, cursor: str) -> None:
        self.last_id = cursor

    def event(self, wire: StreamWire, name: str, told: Told) -> None:
        if name == "notification" and told.data is not None:
            self.crew.ledger.came(self, told.id, told.data.title)
        elif name == "welcome":
            wire.welcomed, self._misses = True, 0
            self.crew.changes.note()
        elif name == "gap":
            self.crew.faults.append(f"{self.name}: a gap on its stream")
        if told.retry_ms is not None:
            self.retry_s = told.retry_ms / 1000

    def look(self, now: float) -> None:
        """Once a second."""
        if self.stream is not None and now - self.stream.heard_at > STREAM_HEARTBEAT_S + PATIENCE_S:
            self.ends["stream silent"] += 1
            self.stream.cut()

    def home(self) -> None:
        """Reconnects what is not where it likes to be. It counts as away from now on."""
        if self.stream is not None and self.stream.node != self.places[0][0]:
            self.stream.welcomed = False
            self.stream.cut()

    def leave(self) -> None:
        if self.stream is not None:
            self.stream.cut()


class SecondTab(StreamClient):
    """A page of a user who has another one with a WebSocket; this one has none."""

    kind = "second tab"


class LegacyStream(StreamClient):
    """A page of the older contract: it knows nothing of instances, stages or sockets."""

    kind = "legacy"
    path = LEGACY_STREAM

    def __init__(self, crew: Crew, name: str, user: str, places: Sequence[Place]) -> None:
        super().__init__(crew, name, user, places)
        self.query = "token=" + quote(self.token)

    def event(self, wire: StreamWire, name: str, told: Told) -> None:
        if name == "notification":
            self.crew.ledger.came(self, told.id, told.title)
        elif name == "connected":
            wire.welcomed, self._misses = True, 0
            self.crew.changes.note()

    def look(self, now: float) -> None:
        """Its heartbeat comes every 30 s, and an `EventSource` waits for ever."""
