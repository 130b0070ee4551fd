"""Presence without a server: engines over real stores, sessions that are nothing but what presence sees of
them, and an announcer that keeps what it is told.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import tempfile
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from dualcast.bus.memory import MemoryBus
from dualcast.bus.redis.engine import RedisBus
from dualcast.bus.redis.options import RedisSettings
from dualcast.bus.sqlite import SqliteBus
from dualcast.model.errors import BusUnavailable
from dualcast.model.principal import Principal
from dualcast.presence.local import LocalPresence
from dualcast.presence.port import Batch, ConnectionFacts, Join, PresenceSettings, PresenceStore
from dualcast.presence.redis import RedisPresence, extension
from dualcast.presence.sql_devices import SqlDevices, sql_part
from dualcast.presence.tracker import Tracker
from support import redis_server
from support.bus_engines import Recorder

ENGINES = ("memory", "sqlite", "redis")
HOLD_MS = 60_000
WAIT_S = 10.0
_tokens = itertools.count()


@asynccontextmanager
async def store(engine: str, *, url: str = "", prefix: str = "dc") -> AsyncIterator[PresenceStore]:
    """A store of presence over a started bus of this engine."""
    with tempfile.TemporaryDirectory(prefix="dc-presence-") as folder:
        bus: Any
        if engine == "redis":
            settings = RedisSettings(
                url=url or redis_server.shared().url, prefix=prefix, probe_every_s=0.5, command_s=1.0
            )
            bus = RedisBus(settings, extensions=[extension()])
        elif engine == "sqlite":
            bus = SqliteBus(Path(folder) / "bus.db", parts=[sql_part()])
        else:
            bus = MemoryBus(parts=[sql_part()])
        await bus.start(Recorder())
        try:
            yield RedisPresence(bus) if engine == "redis" else LocalPresence(SqlDevices(bus.database))
        finally:
            await bus.close()


def facts(ident: str, user: str, **more: Any) -> ConnectionFacts:
    return ConnectionFacts(id=ident, user=user, node=ident.partition("-")[0], **more)


def batch(*joins: Join, leaves: tuple[str, ...] = (), token: str = "") -> Batch:
    return Batch(token or f"t{next(_tokens)}", joins, leaves)


def join(ident: str, user: str, *groups: str, **more: Any) -> Join:
    return Join(facts(ident, user, **more), groups)


class Announced:
    """An announcer. `away`: the bus is."""

    def __init__(self) -> None:
        self.away = False
        self.events: dict[str, tuple[str, dict[str, Any]]] = {}
        """Id → channel and data; the bus, too, takes an id once."""
        self.told = 0
        self._ids: set[str] = set()

    async def announce(
        self, tenant: str, channels: Any, event: str, data: bytes, *, ident: str = "", ttl_s: int = 0
    ) -> None:
        await asyncio.sleep(0)
        if self.away:
            raise BusUnavailable("away")
        assert event == "presence" and ttl_s == 60
        self.told += 1
        (channel,) = channels
        if ident not in self._ids:
            self._ids.add(ident)
            self.events[ident] = (channel, json.loads(data))

    def take(self) -> list[tuple[list[str], list[str], int]]:
        """What was announced since the last call: joined, left, count."""
        found = [(data["joined"], data["left"], data["count"]) for _, data in self.events.values()]
        self.events.clear()
        return found


class FakeSession:
    """What presence sees of a session."""

    _numbers = itertools.count()

    def __init__(self, node: str, tenant: str, user: str, *channels: str, **more: Any) -> None:
        self.id = f"{node}-{next(self._numbers):08x}"
        self.principal = Principal(tenant, user, token_id="tok")
        self.closed = False
        self.device = more.get("device", "")
        self.device_id = more.get("device_id", "")
        self.instance = more.get("instance", "")
        self.attached_at = asyncio.get_running_loop().time()
        self.encoding = SimpleNamespace(transport="ws")
        self.dialect = SimpleNamespace(name="native")
        self.channels: list[Any] = []
        self.subscribe(f"user:{user}", "all", *channels)

    def subscribe(self, *channels: str) -> None:
        self.channels = [*self.channels, *(SimpleNamespace(name=name) for name in channels)]

    def unsubscribe(self, *channels: str) -> None:
        self.channels = [feed for feed in self.channels if feed.name not in channels]


class FakeNode:
    """A tracker and its sessions. It runs when `flush` is called, or as its `run` in the `running` block."""

    def __init__(
        self,
        store: PresenceStore,
        name: str,
        tenant: str,
        *,
        announced: Announced | None = None,
        **settings: Any,
    ) -> None:
        self.announced = announced or Announced()
        self.name = name
        self.tenant = tenant
        self.store = store
        self.ahead_s = 0.0
        """How much more time has passed for the tracker."""
        self.tracker = Tracker(
            store,
            self.announced,  # type: ignore[arg-type]
            PresenceSettings(**{"flush_s": 0.01, "retry_s": 0.05, **settings}),
            node=name,
            monotonic=lambda: time.monotonic() + self.ahead_s,
        )

    def open(self, user: str, *channels: str, **more: Any) -> FakeSession:
        session = FakeSession(self.name, self.tenant, user, *channels, **more)
        self.tracker.changed(session)
        return session

    def close(self, *sessions: FakeSession) -> None:
        for session in sessions:
            session.closed = True
            self.tracker.changed(session)

    async def flush(self) -> None:
        await self.tracker.flush()

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        task = asyncio.create_task(self.tracker.run())
        try:
            yield
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)


async def until(condition: Callable[[], Any], what: str = "condition") -> None:
    """Waits until `condition` (may be a coroutine function) holds."""
    try:
        async with asyncio.timeout(WAIT_S):
            while True:
                found = condition()
                if asyncio.iscoroutine(found):
                    found = await found
                if found:
                    return
                await asyncio.sleep(0.01)
    except TimeoutError:
        raise AssertionError(f"never came: {what}") from None
