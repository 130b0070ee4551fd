"""The state engines, opened the same way for every test that runs over all of them."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from redis.asyncio import Redis

from dualcast.bus.redis.options import RedisSettings
from dualcast.bus.redis.pool import RedisPool
from dualcast.state.memory import MemoryState
from dualcast.state.port import StateStore
from dualcast.state.redis import RedisState
from dualcast.state.sqlite import SqliteState

ENGINES = ("memory", "sqlite", "redis")


@asynccontextmanager
async def redis_client(url: str) -> AsyncIterator[Redis]:
    """The client of a node's pool, as the server makes it, with quick timeouts."""
    pool = RedisPool(RedisSettings(url=url, command_s=1.0, connect_s=0.5))
    try:
        yield pool.client
    finally:
        await pool.close()


@asynccontextmanager
async def open_state(
    engine: str, folder: Path, redis_url: str = "", *, log_size: int = 1000
) -> AsyncIterator[StateStore]:
    """A started, empty store of `engine`; the Redis database is emptied first: it must be the test's own."""
    if engine == "redis":
        async with redis_client(redis_url) as client:
            await client.flushdb()
            yield RedisState(client, log_size=log_size)
        return
    store: StateStore = (
        MemoryState(log_size=log_size)
        if engine == "memory"
        else SqliteState(folder / "state.db", log_size=log_size)
    )
    await store.start()
    try:
        yield store
    finally:
        await store.close()
