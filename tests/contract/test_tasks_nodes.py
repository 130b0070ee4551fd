"""Several nodes over a real Redis: one winner per revision, no drift; lost replies; clocks that differ."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from dualcast.bus.announcing import Announcer
from dualcast.bus.storage import Scripting
from dualcast.model.errors import DualcastError
from dualcast.state.memory import MemoryState
from dualcast.tasks.errors import TaskConflict
from dualcast.tasks.model import State, Task
from dualcast.tasks.port import TaskSettings
from dualcast.tasks.redis import RedisTasks
from dualcast.tasks.rules import Report
from dualcast.tasks.service import TaskService
from support.task_room import TaskRoom, task_room

pytestmark = pytest.mark.anyio


@asynccontextmanager
async def two_nodes() -> AsyncIterator[tuple[TaskRoom, TaskRoom]]:
    state = MemoryState()
    async with task_room("redis", state=state) as one, task_room("redis", state=state) as two:
        yield one, two


async def test_two_nodes_report_one_task(tenant: str) -> None:
    async with two_nodes() as (one, two):
        await one.service.register(tenant, "t", "alice", batch="b", total_steps=100)
        tasks = await asyncio.gather(
            *(
                node.service.progress(tenant, "t", step=step, data={f"{number}-{step}": 1})
                for step in range(30)
                for number, node in enumerate((one, two))
            )
        )
        assert sorted(task.revision for task in tasks) == list(range(2, 62)), "one winner per revision"
        last = await two.service.get(tenant, "t")
        assert last.revision == 61 and len(last.data) == 60, "no report was overwritten"
        revisions = [state["revision"] for state in await one.states(tenant, "task:t")]
        assert sorted(revisions) == list(range(1, 62)), "each announced once"
        batch = await one.service.batch(tenant, "b")
        assert (batch.processing, batch.total, batch.revision) == (1, 1, 2)


async def test_two_nodes_finish_one_task(tenant: str) -> None:
    async with two_nodes() as (one, two):
        for number in range(10):
            ident = f"t{number}"
            await one.service.register(tenant, ident, "alice", batch="b")
            ends: tuple[State, State] = ("completed", "failed")
            results = await asyncio.gather(
                one.service.finish(tenant, ident, ends[0]),
                two.service.finish(tenant, ident, ends[1]),
                return_exceptions=True,
            )
            (lost,) = [result for result in results if isinstance(result, BaseException)]
            assert isinstance(lost, TaskConflict) and lost.code == "task-finished"
            (won,) = [result for result in results if isinstance(result, Task)]
            assert (await one.service.get(tenant, ident)) == won
        batch = await two.service.batch(tenant, "b")
        assert (
            batch.completed + batch.failed == 10 == batch.total and not batch.queued and not batch.processing
        )


async def test_two_nodes_register_one_id(tenant: str) -> None:
    async with two_nodes() as (one, two):
        results = await asyncio.gather(
            one.service.register(tenant, "t", "alice", batch="b"),
            two.service.register(tenant, "t", "bob", batch="c"),
            return_exceptions=True,
        )
        (lost,) = [result for result in results if isinstance(result, DualcastError)]
        assert lost.code == "task-exists"
        owner = (await one.service.get(tenant, "t")).owner
        for user in ("alice", "bob"):
            assert await one.grants.allows(tenant, "task:t", user) is (user == owner)
        batches = [(await one.store.load_batch(tenant, ident)).batch for ident in ("b", "c")]
        assert sorted(batch.total if batch else 0 for batch in batches) == [0, 1]


async def test_many_tasks_of_one_batch_from_two_nodes(tenant: str) -> None:
    async with two_nodes() as (one, two):
        await one.service.put_batch(tenant, "b", "alice", total=60)

        async def live(node: TaskRoom, ident: str, state: State) -> None:
            await node.service.register(tenant, ident, "alice", batch="b")
            await node.service.progress(tenant, ident, percent=50)
            await node.service.finish(tenant, ident, state)

        ends: tuple[State, ...] = ("completed", "failed", "cancelled")
        await asyncio.gather(
            *(
                live(node, f"{who}-{n}", ends[n % 3])
                for n in range(30)
                for who, node in (("1", one), ("2", two))
            )
        )
        batch = await one.service.batch(tenant, "b")
        assert (batch.total, batch.completed, batch.failed, batch.cancelled) == (60, 20, 20, 20)
        assert (batch.state, batch.progress, batch.revision) == ("partial", 100.0, 181)
        states = await two.states(tenant, "batch:b")
        assert sorted(state["revision"] for state in states) == list(range(1, 182))
        assert max(states, key=lambda state: state["revision"])["state"] == "partial"
        (last,) = [found for found in await two.published(tenant, "batch:b") if found.terminal]
        assert b'"revision":181' in last.data, "only the end is terminal"


class Stutter:
    """Scripting whose first reply is always lost: every script runs twice with the same arguments."""

    def __init__(self, inner: Scripting) -> None:
        self._inner = inner

    async def call(self, script: str, tenant: str, *arguments: bytes, read: bool = False) -> Any:
        await self._inner.call(script, tenant, *arguments, read=read)
        return await self._inner.call(script, tenant, *arguments, read=read)


async def test_scripts_bear_repetition(tenant: str) -> None:
    async with task_room("redis") as room:
        bus: Any = room.bus
        service = TaskService(RedisTasks(Stutter(bus)), Announcer(bus), room.grants)
        made = await service.put_batch(tenant, "b", "alice", total=1, title="T")
        assert made.created and made.batch.revision == 1
        registered = await service.register(tenant, "t", "alice", batch="b")
        assert registered.created and registered.task.revision == 1
        await service.progress(tenant, "t", percent=1)
        ended = await service.finish(tenant, "t", "completed")
        batch = await service.batch(tenant, "b")
        assert (ended.revision, batch.revision, service.conflicts) == (3, 4, 0)
        assert (batch.completed, batch.total, batch.queued, batch.processing) == (1, 1, 0, 0)
        assert len((await service.list(tenant)).tasks) == 1
        assert [state["revision"] for state in await room.states(tenant, "batch:b")] == [1, 2, 3, 4]


async def test_clocks_of_nodes_do_not_matter(tenant: str, monkeypatch: pytest.MonkeyPatch) -> None:
    async with two_nodes() as (one, two):
        bus: Any = two.bus
        late = TaskService(two.store, Announcer(bus, clock=lambda: time.time() - 86_400), two.grants)
        await one.service.register(tenant, "t", "alice")
        first = await one.service.progress(tenant, "t", percent=10)
        second = await late.progress(tenant, "t", percent=20)
        assert (first.revision, second.revision) == (2, 3)
        assert second.updated_ms >= first.updated_ms >= first.created_ms, "the clock is Redis's"
        monkeypatch.setattr(time, "time", lambda: 1.0)
        third = await late.finish(tenant, "t", "completed")
        assert third.completed_ms is not None and third.completed_ms >= second.updated_ms
        assert (await one.service.get(tenant, "t")) == third


@pytest.mark.parametrize("engine", ["memory", "sqlite"])
async def test_a_clock_set_back_moves_no_time_back(engine: str, tenant: str) -> None:
    now = 1_800_000_000.0
    settings = TaskSettings()
    async with task_room(engine, settings, clock=lambda: now) as room:
        made = await room.service.register(tenant, "t", "alice", batch="b")
        now -= 3600
        task = await room.service.progress(tenant, "t", percent=50)
        assert (task.updated_ms, task.started_ms) == (made.task.created_ms,) * 2 and task.revision == 2
        ended = await room.service.report(tenant, "t", Report(state="completed"))
        assert (ended.completed_ms, ended.updated_ms, ended.revision) == (task.updated_ms, task.updated_ms, 3)
        batch = await room.service.batch(tenant, "b")
        assert batch.revision == 3 and batch.completed_ms == batch.updated_ms == batch.created_ms
        now += 3 * 3600
        later = await room.service.register(tenant, "u", "alice", batch="b")
        assert later.task.created_ms > ended.updated_ms
