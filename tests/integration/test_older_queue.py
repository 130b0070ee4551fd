"""Tasks and batches of the older queue in a real Redis: read, followed while somebody watches, never
written."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Any

import pytest

from dualcast.bus.announcing import Announcer
from dualcast.bus.memory import MemoryBus
from dualcast.bus.redis.options import RedisSettings
from dualcast.bus.redis.plain import PlainKeys
from dualcast.bus.redis.pool import RedisPool
from dualcast.model.errors import BusUnavailable
from dualcast.model.publication import Entry
from dualcast.state.follow import StateFollower
from dualcast.state.memory import MemoryState
from dualcast.tasks.known import KnownTasks
from dualcast.tasks.older_queue import OlderQueue, OlderQueueSettings
from dualcast.tasks.older_values import number, time_ms, value
from dualcast.tasks.service import TaskService
from dualcast.tasks.sql import SqlTasks
from dualcast.tasks.sql_rows import PART
from dualcast.tenancy.grants import Grants
from support.bus_engines import Recorder
from support.redis_server import RedisServer

pytestmark = pytest.mark.anyio


@dataclass
class Room:
    """An older queue in Redis, and a node that reads it."""

    server: RedisServer
    bus: MemoryBus
    keys: PlainKeys
    queue: OlderQueue
    watched: set[str] = field(default_factory=set)

    def put(self, key: str, **fields: str) -> None:
        self.server.command("HSET", key, *(text for pair in fields.items() for text in pair))

    def batch(self, *states: str, submitted: str = "") -> None:
        """Batch b1 of alice with these tasks: t0, t1 …"""
        self.put("qa:batch:b1", id="b1", user="alice", submitted=submitted or str(len(states)))
        for number_, state in enumerate(states):
            self.put(f"qa:task:t{number_}", user="alice", status=state, batch_id="b1")
            self.server.command("SADD", "qa:batch_tasks:b1", f"t{number_}")

    async def state(self, channel: str, tenant: str = "default") -> dict[str, Any] | None:
        found = await self.queue.state(tenant, channel)
        return None if found is None else dict(json.loads(found))

    async def told(self) -> list[Entry]:
        return list((await self.bus.read("default", ("batch:b1",), 0, 100)).entries)

    async def told_states(self) -> list[tuple[str, int, int]]:
        found = [json.loads(entry.publication.data) for entry in await self.told()]
        return [(one["state"], one["completed"], one["processing"]) for one in found]

    def node(self, **settings: Any) -> OlderQueue:
        return OlderQueue(
            self.keys,
            Announcer(self.bus),
            lambda tenant, channel: tenant == "default" and channel in self.watched,
            OlderQueueSettings(**settings),
        )


@pytest.fixture
async def room() -> AsyncIterator[Room]:
    with RedisServer() as server:
        pool = RedisPool(RedisSettings(url=server.url))
        bus = MemoryBus(parts=[PART])
        await bus.start(Recorder())
        keys = PlainKeys(pool)
        room = Room(server, bus, keys, None)  # type: ignore[arg-type]
        room.queue = room.node()
        try:
            yield room
        finally:
            await bus.close()
            await pool.close()


async def test_a_task_as_the_older_queue_has_it(room: Room) -> None:
    room.put(
        "qa:task:T1",
        id="T1",
        user="alice",
        symbol="000001",
        status="completed",
        created_at="1769860700",
        started_at="2026-01-31T12:00:00",
        completed_at="2026-01-31T13:00:10.5+01:00",
        batch_id="b1",
        params='{"a":1}',
        result='{"分析":[1]}',
        error="",
    )
    found = await room.state("task:T1")
    assert found is not None
    assert (found["owner"], found["batch"], found["title"]) == ("alice", "b1", "000001")
    assert (found["state"], found["percent"], found["result"]) == ("completed", 100.0, {"分析": [1]})
    assert (found["created_ms"], found["started_ms"]) == (1_769_860_700_000, 1_769_860_800_000)
    assert found["completed_ms"] == found["updated_ms"] == 1_769_860_810_500
    assert await room.queue.owner("default", "task:T1") == "alice"
    task = await room.queue.task("default", "T1")
    assert task is not None and task.finished


async def test_what_is_not_there(room: Room) -> None:
    room.batch("queued")
    for channel in ("task:t9", "batch:b9", "user:alice", "all"):
        assert await room.state(channel) is None
        assert await room.queue.owner("default", channel) is None
    for channel in ("task:t0", "batch:b1"):
        assert await room.state(channel, "other") is None, "the older queue belongs to one tenant"
        assert await room.queue.owner("other", channel) is None


@pytest.mark.parametrize(
    "fields",
    [
        {"status": "exploded", "created_at": "yesterday", "result": "{", "user": "a\nb"},
        {"status": "processing", "created_at": "1e400", "completed_at": "-5", "result": "[" * 5000},
        {"status": "failed", "error": "é" * 9000, "result": "x" * 100_000},
    ],
)
async def test_whatever_somebody_wrote(room: Room, fields: dict[str, str]) -> None:
    room.put("qa:task:T1", **fields)
    found = await room.state("task:T1")
    assert found is not None and found["state"] in ("queued", "processing", "failed")
    assert found["created_ms"] == 0 and found["result"] is None and len(found["error"]) <= 4096


async def test_keys_of_another_type_are_nothing(room: Room) -> None:
    room.server.command("SET", "qa:task:T1", "x")
    room.put("qa:batch:b1", user="alice")
    room.put("qa:batch_tasks:b1", no="set")
    assert await room.state("task:T1") is None
    found = await room.state("batch:b1")
    assert found is not None and found["total"] == 0


async def test_counters_of_a_batch(room: Room) -> None:
    room.batch("completed", "processing", "queued", "failed", "cancelled", submitted="6")
    found = await room.state("batch:b1")
    assert found is not None
    names = ("owner", "state", "total", "queued", "processing", "completed", "failed", "cancelled")
    assert [found[name] for name in names] == ["alice", "processing", 6, 1, 1, 1, 1, 1]
    assert found["progress"] == 50.0 and found["declared"] is True
    assert await room.queue.owner("default", "batch:b1") == "alice"


async def test_no_more_tasks_are_counted_than_may_be(room: Room) -> None:
    room.batch(*["queued"] * 30)
    found = json.loads(await room.node(max_batch_tasks=10).state("default", "batch:b1") or b"")
    assert found["queued"] == 10 and found["total"] == 30


async def test_a_watched_batch_is_told_when_it_changes(room: Room) -> None:
    room.watched.add("batch:b1")
    room.batch("processing", "queued")
    await room.state("batch:b1")
    await room.queue.look()
    assert await room.told() == [], "nothing has changed"
    room.batch("completed", "processing")
    await room.queue.look()
    await room.queue.look()
    room.batch("completed", "completed")
    await room.queue.look()
    assert await room.told_states() == [("processing", 1, 1), ("completed", 2, 0)], "each once"
    publications = [entry.publication for entry in await room.told()]
    assert [(one.type, one.conflation_key, one.terminal) for one in publications] == [
        ("batch", "batch:b1", False),
        ("batch", "batch:b1", True),
    ]
    assert room.queue.followed == 0, "it has ended"


async def test_who_asks_later_does_not_hide_a_change_from_who_watches(room: Room) -> None:
    room.watched.add("batch:b1")
    room.batch("processing", "queued")
    await room.state("batch:b1")
    room.batch("completed", "queued")
    await room.state("batch:b1")
    await room.queue.look()
    assert await room.told_states() == [("processing", 1, 0)]


async def test_what_is_read_later_has_the_higher_revision(room: Room) -> None:
    room.watched.add("batch:b1")
    room.batch("processing", "queued")
    first = await room.state("batch:b1")
    room.batch("completed", "queued")
    await room.node().state("default", "batch:b1")
    await room.queue.look()
    (entry,) = await room.told()
    told = json.loads(entry.publication.data)
    assert first is not None and told["revision"] > first["revision"], "a state that was shown covers less"
    room.put("qa:task:T1", user="alice", status="processing")
    task = await room.state("task:T1")
    assert task is not None and task["revision"] == 0, "ingested progress begins at 1"


async def test_two_nodes_tell_it_once(room: Room) -> None:
    room.watched.add("batch:b1")
    room.batch("processing", "queued")
    nodes = [room.node(), room.node()]
    for node in nodes:
        await node.state("default", "batch:b1")
    room.batch("completed", "queued")
    before = (await room.bus.head("default")).offset
    for node in nodes:
        await node.look()
    assert (await room.bus.head("default")).offset == before + 1


async def test_a_batch_that_is_again_as_it_was_is_told_again(room: Room) -> None:
    """A task that is tried once more goes back and forth between the same states."""
    room.watched.add("batch:b1")
    room.batch("queued", "queued")
    nodes = [room.node(), room.node()]
    for node in nodes:
        await node.state("default", "batch:b1")
    for state in ("processing", "queued", "processing", "queued", "processing"):
        room.put("qa:task:t0", status=state)
        for node in nodes:
            await node.look()
    assert [processing for _, _, processing in await room.told_states()] == [1, 0, 1, 0, 1], "each once"


async def test_nobody_watches_nothing_is_read(room: Room) -> None:
    room.batch("processing")
    await room.state("batch:b1")
    assert room.queue.followed == 1
    await room.queue.look()
    assert room.queue.followed == 1, "whoever asked may be about to subscribe"
    await room.queue.look()
    assert room.queue.followed == 0
    room.batch("completed")
    await room.queue.look()
    assert await room.told() == []


async def test_no_more_are_followed_than_may_be(room: Room) -> None:
    queue = room.node(max_followed=2)
    for name in "abc":
        room.put(f"qa:batch:{name}", user="alice", submitted="1")
        assert await queue.state("default", f"batch:{name}") is not None
    assert queue.followed == 2


async def test_redis_away_and_back(room: Room) -> None:
    room.watched.add("batch:b1")
    room.batch("processing")
    await room.state("batch:b1")
    room.server.kill()
    for ask in (room.queue.state, room.queue.owner):
        with pytest.raises(BusUnavailable):
            await ask("default", "batch:b1")
    await room.queue.look()
    assert room.queue.failed == 1 and room.queue.followed == 1
    room.server.start()
    room.batch("completed")
    await room.queue.look()
    assert await room.told_states() == [("completed", 1, 0)]


async def test_nothing_is_written(room: Room) -> None:
    room.watched.add("batch:b1")
    room.batch("processing", "completed")
    room.server.command("CONFIG", "RESETSTAT")
    await room.state("batch:b1")
    await room.state("task:t0")
    await room.queue.owner("default", "batch:b1")
    await room.queue.look()
    stats = room.server.command("INFO", "commandstats")
    assert isinstance(stats, bytes)
    used = {line.split(":")[0] for line in stats.decode().splitlines() if line.startswith("cmdstat_")}
    assert used <= {
        "cmdstat_" + name
        for name in (
            "time",
            "hmget",
            "type",
            "sscan",
            "config|resetstat",
            "client|setname",
            "client|setinfo",
            "info",
            "hello",
            "select",
        )
    }


async def test_ones_own_come_first(room: Room) -> None:
    state = MemoryState()
    await state.start()
    tasks = TaskService(SqlTasks(room.bus.database), Announcer(room.bus), Grants(state, StateFollower(state)))
    known = KnownTasks(tasks, room.queue)
    room.put("qa:task:both", user="older", status="queued")
    room.put("qa:task:older", user="older", status="queued")
    room.batch("queued")
    await tasks.register("default", "both", "own")
    assert await known.owner("default", "task:both") == "own"
    assert await known.owner("default", "task:older") == "older"
    assert await known.owner("default", "batch:b1") == "alice"
    assert await known.owner("default", "task:none") is None
    assert json.loads(await known.state("default", "task:both") or b"")["owner"] == "own"
    assert json.loads(await known.state("default", "task:older") or b"")["owner"] == "older"
    assert await known.state("default", "user:alice") is None
    alone = KnownTasks(tasks)
    assert (
        await alone.owner("default", "task:older") is None
        and await alone.state("default", "batch:b1") is None
    )
    await state.close()


def test_values() -> None:
    assert [number(raw) for raw in (b"3", b" 3", b"-3", b"3.0", None, b"9" * 40)] == [3, 0, 0, 0, 0, 0]
    assert time_ms(b"1769860800.25") == 1_769_860_800_250
    assert time_ms(b"2026-01-31T12:00:00Z") == time_ms(b"2026-01-31 12:00:00") == 1_769_860_800_000
    assert [time_ms(raw) for raw in (b"nan", b"inf", b"", None, b"None", b"x")] == [0] * 6
    assert value(b"None") is None and value(b"plain") == "plain" and value(b'"q"') == "q"
