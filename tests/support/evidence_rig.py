"""The evidence store over every engine, with time that tests move."""

from __future__ import annotations

import secrets
import tempfile
import time
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path
from typing import Any, Protocol

from dualcast.bus.memory import MemoryBus
from dualcast.bus.port import Retention
from dualcast.bus.redis.engine import RedisBus
from dualcast.bus.redis.options import RedisSettings
from dualcast.bus.sqlite import SqliteBus
from dualcast_migration.census import Row
from dualcast_migration.evidence.port import Batch, EvidenceStore, RowChange
from dualcast_migration.evidence.redis import RedisEvidence, extension
from dualcast_migration.evidence.sql import PART, SqlEvidence
from dualcast_migration.sketch import mark
from support import redis_server
from support.bus_engines import Recorder

LONG = Retention(idempotency_s=1_000_000)


class Rig(Protocol):
    """One store."""

    store: EvidenceStore
    tenant: str

    async def elapse(self, seconds: int) -> None:
        """Time passes for what is stored. A multiple of 600."""
        ...

    async def leftovers(self) -> int:
        """Stored buckets."""
        ...


class _Base:
    store: EvidenceStore

    def __init__(self) -> None:
        self.tenant = "t-" + secrets.token_hex(5)

    async def record(self, tenant: str = "", **fields: Any) -> Batch:
        """Tells one batch."""
        batch = Batch(**{"node": "n1", "ident": secrets.token_hex(8), **fields})
        await self.store.record(tenant or self.tenant, batch)
        return batch

    async def count(self, tenant: str = "", **figures: int) -> None:
        await self.record(tenant, figures=figures)

    def marks(self, *users: str) -> tuple[str, ...]:
        return tuple(sorted(mark(self.tenant, user) for user in users))


class SqlRig(_Base):
    def __init__(self, make: Callable[..., Any]) -> None:
        super().__init__()
        self.now = time.time()
        self.bus = make(PART, lambda: self.now)
        self.store = SqlEvidence(self.bus.database, clock=lambda: self.now)

    async def elapse(self, seconds: int) -> None:
        self.now += seconds

    async def leftovers(self) -> int:
        query = "SELECT count(*) FROM evidence_figure WHERE tenant = ?"
        found: int = await self.bus.database.read(lambda db: db.execute(query, (self.tenant,)).fetchone()[0])
        return found


class RedisRig(_Base):
    def __init__(self) -> None:
        super().__init__()
        self.key_prefix = "t" + secrets.token_hex(5)
        redis = RedisSettings(url=redis_server.shared().url, prefix=self.key_prefix, probe_every_s=0.5)
        self.bus = RedisBus(redis, extensions=[extension()])
        self.store = RedisEvidence(self.bus)

    @property
    def prefix(self) -> str:
        return f"{self.key_prefix}:{{{self.tenant}}}:e:"

    async def elapse(self, seconds: int) -> None:
        # The clock of a server cannot be moved, so everything is moved into its past.
        client = self.bus.pool.client
        for kind in ("f", "u", "t"):
            keys = [key.decode() for key in await client.keys(f"{self.prefix}{kind}:*")]
            for key in sorted(keys):
                name, _, bucket = key.rpartition(":")
                left = await client.ttl(key)
                if left <= seconds:
                    await client.delete(key)
                else:
                    await client.expire(key, left - seconds)
                    await client.rename(key, f"{name}:{int(bucket) - seconds}")
        for row in await client.zrange(self.prefix + "r", 0, -1):
            await client.zincrby(self.prefix + "r", -seconds * 1000, row)
        for node in await client.zrange(self.prefix + "n", 0, -1):
            await client.zincrby(self.prefix + "n", -seconds * 1000, node)

    async def leftovers(self) -> int:
        return len(await self.bus.pool.client.keys(f"{self.prefix}f:*"))


Factory = Callable[..., AbstractAsyncContextManager[Any]]


@asynccontextmanager
async def memory() -> AsyncIterator[SqlRig]:
    async with _started(SqlRig(lambda one, clock: MemoryBus(LONG, parts=[one], clock=clock))) as rig:
        yield rig


@asynccontextmanager
async def sqlite() -> AsyncIterator[SqlRig]:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "bus.db"
        async with _started(
            SqlRig(lambda one, clock: SqliteBus(path, LONG, parts=[one], clock=clock))
        ) as rig:
            yield rig


@asynccontextmanager
async def redis() -> AsyncIterator[RedisRig]:
    async with _started(RedisRig()) as rig:
        yield rig


@asynccontextmanager
async def _started(rig: Any) -> AsyncIterator[Any]:
    await rig.bus.start(Recorder())
    try:
        yield rig
    finally:
        await rig.bus.close()


ENGINES: dict[str, Factory] = {"memory": memory, "redis": redis, "sqlite": sqlite}


def change(row: Row, connects: int = 1, marks: Sequence[str] = ()) -> RowChange:
    """So many connects of a kind of client."""
    return RowChange(row, connects, tuple(marks))


def live(**counts: int) -> Mapping[Row, int]:
    """Live native connections by agent, on SSE."""
    return {Row("sse", "native", agent): count for agent, count in counts.items()}
