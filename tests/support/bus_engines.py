"""The engines the bus contract suite runs over, and a follower that records what it is told.

An engine is one line in ENGINES: an async context manager factory that gives a bus not yet started (the
suite starts it) and closes it. Tenants in the suite have unique names, so a shared server needs no
cleaning.
"""

from __future__ import annotations

import asyncio
import secrets
import tempfile
import threading
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path
from typing import Any, Protocol

from dualcast.bus.memory import MemoryBus
from dualcast.bus.port import EventBus, Retention
from dualcast.bus.redis.engine import RedisBus
from dualcast.bus.redis.options import RedisSettings
from dualcast.bus.sqlite import SqliteBus
from dualcast.model.publication import Draft, Entry, Gap
from support import redis_server

WAIT_S = 10.0
"""How long a test waits for something that must come; a bound, not an expectation."""


class Factory(Protocol):
    def __call__(self, *, retention: Retention | None = None) -> AbstractAsyncContextManager[EventBus]: ...


class Recorder:
    """A Follower that keeps every call, and lets tests wait for what they expect."""

    def __init__(self) -> None:
        self.batches: list[tuple[str, list[Entry]]] = []
        self.calls: list[tuple[Any, ...]] = []
        """Everything in order: ("entry", tenant, entry), ("watched", tenant, channel, epoch, offset), …"""
        self.threads: set[int] = set()
        """The threads it was called on."""
        self._changed = asyncio.Event()

    def entries(self, tenant: str, batch: Sequence[Entry]) -> None:
        self.batches.append((tenant, list(batch)))
        for entry in batch:
            self._note("entry", tenant, entry)

    def watched(self, tenant: str, channel: str, epoch: str, offset: int) -> None:
        self._note("watched", tenant, channel, epoch, offset)

    def advanced(self, tenant: str, epoch: str, offset: int) -> None:
        self._note("advanced", tenant, epoch, offset)

    def gap(self, tenant: str, gap: Gap) -> None:
        self._note("gap", tenant, gap)

    def epoch(self, tenant: str, epoch: str, offset: int) -> None:
        self._note("epoch", tenant, epoch, offset)

    def status(self, available: bool) -> None:
        self._note("status", available)

    def _note(self, *call: Any) -> None:
        self.calls.append(call)
        self.threads.add(threading.get_ident())
        self._changed.set()

    async def until(self, condition: Callable[[], bool]) -> None:
        """Waits until `condition` holds; looks after every call. Raises TimeoutError after WAIT_S."""
        async with asyncio.timeout(WAIT_S):
            while not condition():
                self._changed.clear()
                await self._changed.wait()

    def of(self, tenant: str, channel: str | None = None) -> list[Entry]:
        """The entries fed so far."""
        return [
            call[2]
            for call in self.calls
            if call[0] == "entry" and call[1] == tenant and channel in (None, call[2].channel)
        ]

    def named(self, name: str, tenant: str | None = None) -> list[tuple[Any, ...]]:
        """The other calls of one name so far, without name and tenant."""
        return [call[2:] for call in self.calls if call[0] == name and tenant in (None, call[1])]


async def watch(bus: EventBus, recorder: Recorder, tenant: str, *channels: str) -> int:
    """Watches the channels and waits until all are followed; the highest offset given to `watched`."""
    before = len(recorder.calls)

    def told() -> list[tuple[Any, ...]]:
        return [
            c for c in recorder.calls[before:] if c[0] == "watched" and c[1] == tenant and c[2] in channels
        ]

    for channel in channels:
        bus.watch(tenant, channel)
    await recorder.until(lambda: {call[2] for call in told()} == set(channels))
    return max(call[4] for call in told())


def draft(tenant: str, *channels: str, **fields: Any) -> Draft:
    """A draft with a random id unless `id` is given."""
    fields.setdefault("id", secrets.token_hex(8))
    fields.setdefault("type", "note")
    fields.setdefault("data", b'{"text":"hi"}')
    fields.setdefault("time_ms", 1_700_000_000_000)
    return Draft(tenant=tenant, channels=channels or ("all",), **fields)


@asynccontextmanager
async def memory(*, retention: Retention | None = None) -> AsyncIterator[EventBus]:
    bus = MemoryBus(retention)
    try:
        yield bus
    finally:
        await bus.close()


@asynccontextmanager
async def sqlite(*, retention: Retention | None = None) -> AsyncIterator[EventBus]:
    with tempfile.TemporaryDirectory() as folder:
        bus = SqliteBus(Path(folder) / "bus.db", retention)
        try:
            yield bus
        finally:
            await bus.close()


@asynccontextmanager
async def redis(*, retention: Retention | None = None) -> AsyncIterator[EventBus]:
    bus = RedisBus(RedisSettings(url=redis_server.shared().url, probe_every_s=0.5), retention)
    try:
        yield bus
    finally:
        await bus.close()


ENGINES: dict[str, Factory] = {
    "memory": memory,
    "sqlite": sqlite,
    "redis": redis,
}
