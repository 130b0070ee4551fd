"""The engines the bus contract suite runs over, and a follower that records what it is told.

An engine is one line in ENGINES: an async context manager factory that gives a bus not yet started (the
suite starts it) and closes it. Tenants in the suite have unique names, so a shared server needs no
cleaning.
"""

from __future__ import annotations

import asyncio
import secrets
import sqlite3
import tempfile
import threading
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path
from typing import Any, Protocol

from dualcast.bus.keeping import Keeping
from dualcast.bus.memory import MemoryBus
from dualcast.bus.port import EventBus, Retention
from dualcast.bus.redis.engine import RedisBus
from dualcast.bus.redis.options import RedisSettings
from dualcast.bus.sqlite import SqliteBus
from dualcast.bus.storage import Extension, SqlPart
from dualcast.model.channel import key_part, user_channel
from dualcast.model.errors import Forbidden
from dualcast.model.inbox import Badge
from dualcast.model.publication import Draft, Entry, Gap
from support import redis_server, sentinel_set

WAIT_S = 10.0
"""How long a test waits for something that must come; a bound, not an expectation."""


class Factory(Protocol):
    def __call__(
        self,
        *,
        retention: Retention | Keeping | None = None,
        parts: Sequence[SqlPart] = (),
        extensions: Sequence[Extension] = (),
    ) -> AbstractAsyncContextManager[EventBus]:
        """`parts` go to the SQL engines, `extensions` to the redis engine."""
        ...


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
async def memory(
    *,
    retention: Retention | Keeping | None = None,
    parts: Sequence[SqlPart] = (),
    extensions: Sequence[Extension] = (),
) -> AsyncIterator[MemoryBus]:
    bus = MemoryBus(retention, parts=parts)
    try:
        yield bus
    finally:
        await bus.close()


@asynccontextmanager
async def sqlite(
    *,
    retention: Retention | Keeping | None = None,
    parts: Sequence[SqlPart] = (),
    extensions: Sequence[Extension] = (),
) -> AsyncIterator[SqliteBus]:
    with tempfile.TemporaryDirectory() as folder:
        bus = SqliteBus(Path(folder) / "bus.db", retention, parts=parts)
        try:
            yield bus
        finally:
            await bus.close()


@asynccontextmanager
async def redis(
    *,
    retention: Retention | Keeping | None = None,
    parts: Sequence[SqlPart] = (),
    extensions: Sequence[Extension] = (),
) -> AsyncIterator[RedisBus]:
    settings = RedisSettings(url=redis_server.shared().url, probe_every_s=0.5)
    bus = RedisBus(settings, retention, extensions=extensions)
    try:
        yield bus
    finally:
        await bus.close()


ENGINES: dict[str, Factory] = {
    "memory": memory,
    "sqlite": sqlite,
    "redis": redis,
}


@asynccontextmanager
async def redis_sentinels(
    *,
    retention: Retention | None = None,
    parts: Sequence[SqlPart] = (),
    extensions: Sequence[Extension] = (),
) -> AsyncIterator[RedisBus]:
    bus = RedisBus(
        RedisSettings(sentinels=sentinel_set.shared().places, probe_every_s=0.5),
        retention,
        extensions=extensions,
    )
    try:
        yield bus
    finally:
        await bus.close()


TOPOLOGIES: dict[str, Factory] = {"redis-sentinels": redis_sentinels}
"""The redis engine over more than one server: what is different is following what is published."""


# A room that stores something: items and pushes of riders, counted per user.

TOY_SCHEMA = """
CREATE TABLE IF NOT EXISTS toy_item(
  tenant TEXT NOT NULL, user TEXT NOT NULL, id TEXT NOT NULL);  -- user 'all': wide; one for all
CREATE TABLE IF NOT EXISTS toy_push(tenant TEXT NOT NULL, user TEXT NOT NULL, message BLOB NOT NULL)
"""
TOY_LUA = """
local function add(user, id)
  return redis.call('RPUSH', PREFIX .. 'n:' .. user, id)
end

RIDERS.inbox = function(rider, offset, id, body, now)
  local users, wide, kind = rider[1], rider[2], rider[3]
  if kind == 'broken' then error('broken on purpose') end
  assert(string.byte(body) == 0x99 and string.byte(body, -1) == 0xc0, 'not a record with a place for a badge')
  assert(now > 1.6e12 and offset > 0)
  local badges = {}
  for i = 1, #users do
    local n = add(users[i], id)
    badges[users[i]] = cmsgpack.pack({n, n, offset, 0})
  end
  if wide then badges.all = cmsgpack.pack({-1, -1, 0, add('all', id)}) end
  return badges
end

RIDERS.push = function(rider, offset, id, body, now)
  local users, message, always, devices, deadline = rider[1], rider[2], rider[3], rider[4], rider[5]
  assert(type(always) == 'boolean' and type(devices) == 'table' and type(deadline) == 'number')
  for i = 1, #users do redis.call('RPUSH', PREFIX .. 'x:' .. users[i], message) end
end
"""
TOY_SCRIPTS = {
    "toy_items": "return redis.call('LRANGE', PREFIX .. 'n:' .. ARGV[1], 0, -1)",
    "toy_pushes": "return redis.call('LRANGE', PREFIX .. 'x:' .. ARGV[1], 0, -1)",
    "toy_add": "redis.call('RPUSH', PREFIX .. 'n:' .. ARGV[1], ARGV[2]) return {text(2^53), ARGV[2]}",
    "toy_broken": "return redis.call('INCR', META)",
}


def toy_rider(db: sqlite3.Connection, draft: Draft, offset: int, now_ms: int) -> dict[str, Badge]:
    """What TOY_LUA does, in SQL. Kind `broken`: an exception after it wrote; `refused`: a Forbidden."""
    badges = {}
    rider = draft.inbox
    if rider is not None:
        assert offset > 0 and now_ms > 1.6e12
        for user in (*rider.users, *(["all"] if rider.wide else [])):
            db.execute("INSERT INTO toy_item VALUES (?, ?, ?)", (draft.tenant, user, draft.id))
            counted = db.execute(
                "SELECT count(*) FROM toy_item WHERE tenant = ? AND user = ?", (draft.tenant, user)
            )
            (n,) = counted.fetchone()
            if user == "all":
                badges["all"] = Badge(-1, -1, 0, n)
            else:
                badges[user_channel(user)] = Badge(n, n, offset, 0)
        if rider.kind == "broken":
            raise ZeroDivisionError
        if rider.kind == "refused":
            raise Forbidden("not today")
    if draft.push is not None:
        rows = [(draft.tenant, user, draft.push.message) for user in draft.push.users]
        db.executemany("INSERT INTO toy_push VALUES (?, ?, ?)", rows)
    return badges


TOY_PARTS = (SqlPart(TOY_SCHEMA, toy_rider),)
TOY_EXTENSIONS = (Extension(TOY_LUA, TOY_SCRIPTS),)


async def toy_items(bus: EventBus, tenant: str, user: str) -> list[str]:
    """Ids of the items of `user`; "all": of the whole tenant."""
    if isinstance(bus, RedisBus):
        name = "all" if user == "all" else key_part(user_channel(user))
        return [item.decode() for item in await bus.call("toy_items", tenant, name.encode(), read=True)]
    assert isinstance(bus, MemoryBus | SqliteBus)

    def work(db: sqlite3.Connection) -> list[str]:
        asked = "SELECT id FROM toy_item WHERE tenant = ? AND user = ? ORDER BY rowid"
        return [row[0] for row in db.execute(asked, (tenant, user))]

    return await bus.database.read(work)


async def toy_pushes(bus: EventBus, tenant: str, user: str) -> list[bytes]:
    """Messages queued for `user`."""
    if isinstance(bus, RedisBus):
        name = key_part(user_channel(user)).encode()
        found: list[bytes] = await bus.call("toy_pushes", tenant, name, read=True)
        return found
    assert isinstance(bus, MemoryBus | SqliteBus)

    def work(db: sqlite3.Connection) -> list[bytes]:
        asked = "SELECT message FROM toy_push WHERE tenant = ? AND user = ? ORDER BY rowid"
        return [row[0] for row in db.execute(asked, (tenant, user))]

    return await bus.database.read(work)
