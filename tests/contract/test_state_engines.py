"""What is particular to the persistent state engines: files, locks, and Redis away, restarted or frozen."""

from __future__ import annotations

import asyncio
import sqlite3
import stat
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from dualcast.model.errors import BusUnavailable
from dualcast.state.follow import StateFollower
from dualcast.state.redis import RedisState
from dualcast.state.sqlite import SqliteState
from support.redis_server import RedisServer
from support.state_engines import open_state, redis_client

pytestmark = pytest.mark.anyio


@pytest.fixture(scope="module")
def redis_url() -> Iterator[str]:
    """A redis-server of this module's own."""
    with RedisServer(tcp=True) as server:
        yield server.url


async def test_sqlite_keeps_everything_over_a_restart(tmp_path: Path) -> None:
    path = tmp_path / "state.db"
    store = SqliteState(path)
    await store.start()
    version = await store.put("s", "a", b"1")
    await store.put("s", "gone", b"1")
    await store.delete("s", "gone")
    before = await store.changes(0)
    await store.close()
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    store = SqliteState(path)
    await store.start()
    try:
        found = await store.get("s", "a")
        assert found is not None and found.version == version
        assert await store.changes(0) == before
        assert await store.put("s", "b", b"1") > before.revision
    finally:
        await store.close()


async def test_sqlite_serves_one_server_per_file(tmp_path: Path) -> None:
    async with open_state("sqlite", tmp_path) as first:
        second = SqliteState(tmp_path / "state.db", lock_wait_s=0.05)
        with pytest.raises(BusUnavailable, match="in use"):
            await second.start()
        with pytest.raises(BusUnavailable, match="not open"):
            await second.get("s", "a")
        await first.put("s", "a", b"1")
    await second.start()
    assert await second.get("s", "a") is not None
    await second.close()


async def test_a_running_sqlite_store_can_be_copied_by_a_backup(tmp_path: Path) -> None:
    """As docs/operations.md says: `sqlite3 state.db ".backup copy.db"` was refused, the file was locked."""
    async with open_state("sqlite", tmp_path) as store:
        await store.put("s", "a", b"1")
        with (
            closing(sqlite3.connect(tmp_path / "state.db", timeout=0)) as source,
            closing(sqlite3.connect(tmp_path / "copy.db")) as copy,
        ):
            source.backup(copy)
        await store.put("s", "a", b"2")
    restored = SqliteState(tmp_path / "copy.db")
    await restored.start()
    found = await restored.get("s", "a")
    await restored.close()
    assert found is not None and found.data == b"1"


async def test_sqlite_refuses_a_file_that_is_no_store(tmp_path: Path) -> None:
    path = tmp_path / "state.db"
    path.write_bytes(b"no database at all, but long enough to look" * 50)
    with pytest.raises(BusUnavailable, match="cannot be opened"):
        await SqliteState(path).start()
    with pytest.raises(BusUnavailable, match="cannot be opened"):
        await SqliteState(path / "below-a-file" / "state.db").start()


async def test_sqlite_outlives_a_cancelled_caller(tmp_path: Path) -> None:
    async with open_state("sqlite", tmp_path) as store:
        task = asyncio.ensure_future(store.put("s", "a", b"1"))
        await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        await store.put("s", "b", b"1")
        assert await store.get("s", "b") is not None


async def test_redis_away_and_back(redis_url: str) -> None:
    async with redis_client(redis_url) as client:
        store = RedisState(client)
        await store.put("s", "a", b"1")
        await client.script_flush()
        await store.put("s", "a", b"2")  # scripts load themselves again
    async with redis_client("redis://127.0.0.1:1/0") as client:
        store = RedisState(client)
        for call in (
            store.get("s", "a"),
            store.put("s", "a", b"1"),
            store.delete("s", "a"),
            store.take("s", "a"),
            store.list("s"),
            store.changes(0),
        ):
            with pytest.raises(BusUnavailable):
                await call


async def test_redis_stores_of_two_prefixes_are_two_stores(redis_url: str) -> None:
    async with redis_client(redis_url) as client:
        await client.flushdb()
        first, second = RedisState(client), RedisState(client, prefix="other")
        await first.put("s", "a", b"1")
        assert await second.get("s", "a") is None
        assert await second.list("s") == []
        assert (await second.changes(0)).changes == ()
        await second.put("s", "a", b"2", expected=0)
        assert [value.data for value in await first.list("s")] == [b"1"]


async def test_redis_keys_share_one_hash_tag_and_revisions_survive_a_lost_counter(redis_url: str) -> None:
    async with redis_client(redis_url) as client:
        await client.flushdb()
        store = RedisState(client)
        before = await store.put("s", "a {b}:c", b"1", ttl_s=60)
        keys: list[Any] = await client.keys("*")
        assert len(keys) == 5 and all(key.startswith(b"dc:{~state}:") for key in keys)
        await client.flushdb()
        assert not (await store.changes(before)).complete
        assert await store.put("s", "a {b}:c", b"1") > before


async def test_redis_revisions_grow_when_the_clock_does_not(redis_url: str) -> None:
    async with redis_client(redis_url) as client:
        await client.flushdb()
        store = RedisState(client)
        ahead = await store.put("s", "a", b"1") + 10**12
        await client.hset("dc:{~state}:head", "revision", str(ahead))
        assert await store.put("s", "a", b"2") == ahead + 1
        assert await store.delete("s", "a")
        assert (await store.changes(ahead)).revision == ahead + 2


async def test_redis_keeps_the_name_of_a_value_made_permanent(redis_url: str) -> None:
    async with redis_client(redis_url) as client:
        await client.flushdb()
        store = RedisState(client)
        await store.put("s", "k", b"1", ttl_s=60)
        await store.put("s", "k", b"2")
        assert await client.zcard("dc:{~state}:expiries") == 0
        assert await client.ttl("dc:{~state}:v:s:k") == -1


async def test_redis_forgets_the_names_of_expired_values(redis_url: str) -> None:
    async with redis_client(redis_url) as client:
        await client.flushdb()
        store = RedisState(client)
        for n in range(5):
            await store.put("s", f"k{n}", b"1", ttl_s=0.01, quiet=True)
        async with asyncio.timeout(10):
            while await client.zcard("dc:{~state}:names") > 1:
                await store.put("s", "other", b"1")
                await asyncio.sleep(0.05)
        assert await client.zcard("dc:{~state}:expiries") == 0


async def test_redis_restarted_without_its_data_means_reading_everything() -> None:
    heard: list[str] = []

    async def changed(key: str) -> None:
        heard.append(key)

    async def resync() -> None:
        heard.append("*")

    with RedisServer(tcp=True) as server:
        async with redis_client(server.url) as client:
            store = RedisState(client)
            follower = StateFollower(store)
            follower.on("s", changed, resync)
            version = await store.put("s", "a", b"1")
            await follower.refresh()
            server.kill()
            with pytest.raises(BusUnavailable):
                await follower.refresh()
            server.start()
            assert await store.get("s", "a") is None
            assert await store.put("s", "b", b"1") > version
            await follower.refresh()
            await store.put("s", "c", b"1")
            await follower.refresh()
            assert heard == ["*", "*", "c"]


async def test_a_frozen_redis_is_unavailable_not_for_ever() -> None:
    with RedisServer(tcp=True) as server:
        async with redis_client(server.url) as client:
            store = RedisState(client)
            await store.put("s", "a", b"1")
            server.freeze()
            try:
                with pytest.raises(BusUnavailable):
                    await store.get("s", "a")
            finally:
                server.thaw()
            value = await store.get("s", "a")
            assert value is not None and value.data == b"1"
