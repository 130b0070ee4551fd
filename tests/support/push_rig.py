"""The push queue over every engine, with presence that tests set and time that tests move."""

from __future__ import annotations

import secrets
import sqlite3
import tempfile
import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path
from typing import Any, Protocol

from dualcast.bus.memory import MemoryBus
from dualcast.bus.port import Retention
from dualcast.bus.redis.engine import RedisBus
from dualcast.bus.redis.options import RedisSettings
from dualcast.bus.sqlite import SqliteBus
from dualcast.model.channel import key_part
from dualcast.model.inbox import PushRider
from dualcast.model.publication import Quota, Receipt
from dualcast.model.push import PushMessage, encode_push
from dualcast.push.port import Claim, PushQueue, PushSettings
from dualcast.push.redis import RedisPushQueue, extension
from dualcast.push.sql import SqlPushQueue, part
from support import redis_server
from support.bus_engines import Recorder, draft

LONG = Retention(idempotency_s=1_000_000)
"""Where tests move the clock, ids must not be forgotten by it."""


class Rig(Protocol):
    """One node: its bus, its queue."""

    bus: Any
    queue: PushQueue
    tenant: str

    async def online(self, user: str, *kinds: str) -> None:
        """`user` has a connection of each of these kinds."""
        ...

    async def elapse(self, seconds: float) -> None:
        """Time passes for what is queued."""
        ...

    async def leftovers(self) -> int:
        """Stored jobs and messages."""
        ...


class _Base:
    bus: Any
    queue: PushQueue

    def __init__(self) -> None:
        self.tenant = "t-" + secrets.token_hex(5)

    async def push(
        self, *users: str, ident: str = "", tenant: str = "", quota: Quota | None = None, **fields: Any
    ) -> Receipt:
        """Publishes a notification with a push rider."""
        ident = ident or secrets.token_hex(8)
        message = encode_push(PushMessage(id=ident, title="T " + ident, text="x"))
        rider = PushRider(users, fields.pop("message", message), **fields)
        channels = [f"user:{user}" for user in users]
        receipt: Receipt = await self.bus.append(
            draft(tenant or self.tenant, *channels, id=ident, push=rider), quota
        )
        return receipt

    async def claim(self, limit: int = 100, lease_s: float = 60.0, tenant: str = "") -> Claim:
        return await self.queue.claim(tenant or self.tenant, limit, lease_s, secrets.token_hex(8))

    async def waiting(self, tenant: str = "") -> int:
        return (await self.queue.facts(tenant or self.tenant)).queued


class SqlRig(_Base):
    def __init__(self, settings: PushSettings, make: Callable[..., Any]) -> None:
        super().__init__()
        self.now = time.time()
        self.present: set[tuple[str, str, str]] = set()
        self.bus = make(part(self._is_online, settings), lambda: self.now)
        self.queue = SqlPushQueue(self.bus.database, settings, clock=lambda: self.now)

    def _is_online(self, tenant: str, user: str, devices: Sequence[str]) -> bool:
        if user == "broken":
            raise RuntimeError("presence is broken")
        return any(
            row[:2] == (tenant, user) and (not devices or row[2] in devices) for row in list(self.present)
        )

    async def online(self, user: str, *kinds: str) -> None:
        self.present |= {(self.tenant, user, kind) for kind in kinds}

    async def elapse(self, seconds: float) -> None:
        self.now += seconds

    async def leftovers(self) -> int:
        def count(db: sqlite3.Connection) -> int:
            tables = ("push_job", "push_message")
            rows = (db.execute(f"SELECT count(*) FROM {t} WHERE tenant = ?", (self.tenant,)) for t in tables)
            return sum(row.fetchone()[0] for row in rows)

        found: int = await self.bus.database.read(count)
        return found


class RedisRig(_Base):
    """A worker works off every tenant under its key prefix, so each rig has a prefix of its own."""

    def __init__(self, settings: PushSettings, url: str, key_prefix: str = "") -> None:
        super().__init__()
        self.key_prefix = key_prefix or "t" + secrets.token_hex(5)
        redis = RedisSettings(url=url, prefix=self.key_prefix, probe_every_s=0.5)
        self.bus = RedisBus(redis, extensions=[extension(settings)])
        self.queue = RedisPushQueue(self.bus)

    @property
    def prefix(self) -> str:
        return f"{self.key_prefix}:{{{self.tenant}}}:"

    async def online(self, user: str, *kinds: str) -> None:
        name = key_part("user:" + user)
        for kind in kinds:
            await self.bus.pool.client.hincrby(f"{self.prefix}w:g:", name, 1)
            await self.bus.pool.client.hincrby(f"{self.prefix}w:k:{kind}", name, 1)

    async def elapse(self, seconds: float) -> None:
        # The clock of a server cannot be moved, so everything is moved into its past.
        client, x = self.bus.pool.client, self.prefix + "x:"
        for job in await client.zrange(x + "d", 0, -1):
            await client.zincrby(x + "d", -seconds * 1000, job)
            await client.zincrby(x + "q", -seconds * 1000, job)
            name = (x + "j:").encode() + job
            deadline = int(await client.hget(name, "e"))
            await client.hset(name, "e", int(deadline - seconds * 1000))

    async def leftovers(self) -> int:
        client = self.bus.pool.client
        return len(await client.keys(self.prefix + "x:j:*")) + len(await client.keys(self.prefix + "x:m:*"))


Factory = Callable[..., AbstractAsyncContextManager[Any]]


@asynccontextmanager
async def memory(**settings: Any) -> AsyncIterator[SqlRig]:
    async with _started(
        SqlRig(PushSettings(**settings), lambda one, clock: MemoryBus(LONG, parts=[one], clock=clock))
    ) as rig:
        yield rig


@asynccontextmanager
async def sqlite(**settings: Any) -> AsyncIterator[SqlRig]:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "bus.db"
        async with _started(
            SqlRig(
                PushSettings(**settings), lambda one, clock: SqliteBus(path, LONG, parts=[one], clock=clock)
            )
        ) as rig:
            yield rig


@asynccontextmanager
async def redis(**settings: Any) -> AsyncIterator[RedisRig]:
    async with _started(RedisRig(PushSettings(**settings), redis_server.shared().url)) as rig:
        yield rig


@asynccontextmanager
async def _started(rig: Any) -> AsyncIterator[Any]:
    await rig.bus.start(Recorder())
    try:
        yield rig
    finally:
        await rig.bus.close()


ENGINES: dict[str, Factory] = {"memory": memory, "redis": redis, "sqlite": sqlite}
