"""The store of conversations on every engine of the bus, with a clock that tests move (Redis has its own)."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from dualcast.bus.memory import MemoryBus
from dualcast.bus.port import EventBus, Follower
from dualcast.bus.redis.engine import RedisBus
from dualcast.bus.sqlite import SqliteBus
from dualcast.conversations.model import ConversationSettings
from dualcast.conversations.port import ConversationStore
from dualcast.conversations.redis import RedisConversations, extension
from dualcast.conversations.sql import PART, SqlConversations
from support.bus_engines import ENGINES, Recorder


class Clock:
    """Unix seconds that go on only by `skip`."""

    def __init__(self) -> None:
        self.now = time.time()

    def __call__(self) -> float:
        return self.now

    def skip(self, seconds: float) -> None:
        self.now += seconds


def store_on(
    bus: EventBus, settings: ConversationSettings | None = None, clock: Clock | None = None
) -> ConversationStore:
    """The store beside the log of `bus`, which was made with PART and `extension()`."""
    if isinstance(bus, RedisBus):
        return RedisConversations(bus, settings)
    assert isinstance(bus, MemoryBus | SqliteBus)
    return SqlConversations(bus.database, settings, clock or Clock())


@asynccontextmanager
async def started_bus(engine: str, follower: Follower | None = None) -> AsyncIterator[EventBus]:
    """A started bus with this room's tables and scripts."""
    async with ENGINES[engine](parts=(PART,), extensions=(extension(),)) as bus:
        await bus.start(follower or Recorder())
        yield bus
