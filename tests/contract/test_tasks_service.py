"""TaskService over every engine: what is stored, what is announced, who is let in, and what is refused."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import msgspec
import pytest

from dualcast.bus.announcing import Announcer
from dualcast.model.errors import BusUnavailable, DualcastError
from dualcast.model.publication import Receipt
from dualcast.tasks.errors import BadReport, TaskConflict, UnknownBatch, UnknownTask
from dualcast.tasks.port import TaskSettings
from dualcast.tasks.rules import Report
from dualcast.tasks.service import TaskService
from support.bus_engines import ENGINES
from support.task_room import TaskRoom, task_room

pytestmark = pytest.mark.anyio


@pytest.fixture(params=sorted(ENGINES))
def name(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
async def room(name: str) -> AsyncIterator[TaskRoom]:
    async with task_room(name) as room:
        yield room


async def test_a_life(room: TaskRoom, tenant: str) -> None:
    service = room.service
    made = await service.register(
        tenant, "T1", "u1", kind="analysis", title="分析", total_steps=5, data={"stock": "000001"}
    )
    assert made.created and (made.task.state, made.task.revision, made.task.percent) == ("queued", 1, None)
    task = await service.progress(tenant, "T1", step=1, message="正在分析...", data={"current_report": "r1"})
    assert (task.state, task.step, task.total_steps, task.percent) == ("processing", 1, 5, 20.0)
    assert task.started_ms is not None and task.completed_ms is None
    task = await service.finish(tenant, "T1", "completed", result={}, message="完成")
    assert (task.percent, task.step, task.result, task.revision) == (100.0, 5, {}, 3)
    assert task.completed_ms is not None and task.data == {"stock": "000001", "current_report": "r1"}
    published = await room.published(tenant, "task:T1")
    assert [found.type for found in published] == ["task"] * 3
    assert {found.conflation_key for found in published} == {"task:T1"}
    assert [found.terminal for found in published] == [False, False, True]
    assert len({found.id for found in published}) == 3
    assert published[-1].data == await service.state(tenant, "task:T1")
    assert msgspec.json.decode(published[-1].data) == msgspec.to_builtins(task)
    assert [state["revision"] for state in await room.states(tenant, "task:T1")] == [1, 2, 3]


async def test_registration_is_idempotent_and_bound_to_its_owner(room: TaskRoom, tenant: str) -> None:
    service = room.service
    await service.register(tenant, "t", "alice", kind="k", data={"a": 1}, members=["carol"])
    again = await service.register(tenant, "t", "alice", kind="k", data={"a": 1})
    assert not again.created and again.task.revision == 1
    assert len(await room.published(tenant, "task:t")) == 1
    for user, let_in in (("alice", True), ("carol", True), ("bob", False)):
        assert await room.grants.allows(tenant, "task:t", user) is let_in
    with pytest.raises(TaskConflict) as refused:
        await service.register(tenant, "t", "bob")
    assert (refused.value.code, refused.value.status) == ("task-exists", 409)
    assert not await room.grants.allows(tenant, "task:t", "bob"), "a refused owner is not let in"
    more = await service.register(tenant, "t", "alice", title="T", data={"b": 2, "a": None})
    assert (more.task.title, more.task.kind, more.task.data, more.task.revision) == ("T", "k", {"b": 2}, 2)
    with pytest.raises(TaskConflict):
        await service.register(tenant, "t", "alice", batch="b")
    await service.finish(tenant, "t", "failed", error="no")
    assert (await service.register(tenant, "t", "alice", title="other")).task.title == "T"


async def test_registration_with_a_report_is_one_revision(room: TaskRoom, tenant: str) -> None:
    report = Report(step=2, message="m")
    made = await room.service.register(tenant, "t", "alice", total_steps=4, report=report)
    assert (made.task.revision, made.task.state, made.task.percent) == (1, "processing", 50.0)
    made = await room.service.register(tenant, "t", "alice", title="T", report=Report(step=3))
    assert (made.task.revision, made.task.title, made.task.percent) == (2, "T", 75.0)
    with pytest.raises(BadReport):
        await room.service.register(tenant, "u", "alice", total_steps=1, report=Report(step=2))
    with pytest.raises(UnknownTask):
        await room.service.get(tenant, "u")


async def test_the_end_is_the_end(room: TaskRoom, tenant: str) -> None:
    service = room.service
    await service.register(tenant, "t", "alice")
    first = await service.finish(tenant, "t", "failed", error="reason")
    again = await service.finish(tenant, "t", "failed", error="another")
    assert again == first
    assert len(await room.published(tenant, "task:t")) == 2, "the same end is not published twice"
    for refused in (
        service.finish(tenant, "t", "completed"),
        service.progress(tenant, "t", step=1),
        service.report(tenant, "t", Report(state="queued")),
    ):
        with pytest.raises(TaskConflict) as error:
            await refused
        assert error.value.code == "task-finished"
    assert await service.get(tenant, "t") == first


async def test_unknown_things(room: TaskRoom, tenant: str) -> None:
    service = room.service
    for refused in (
        service.progress(tenant, "t", step=1),
        service.finish(tenant, "t", "completed"),
        service.get(tenant, "t"),
    ):
        with pytest.raises(UnknownTask) as error:
            await refused
        assert (error.value.code, error.value.status) == ("unknown-task", 404)
    with pytest.raises(UnknownBatch):
        await service.batch(tenant, "b")
    for channel in ("task:t", "batch:b", "user:alice", "all", "presence:x"):
        assert await service.state(tenant, channel) is None


async def test_late_reports_change_nothing(room: TaskRoom, tenant: str) -> None:
    service = room.service
    await service.register(tenant, "t", "alice", total_steps=10)
    await service.progress(tenant, "t", step=5, sequence=5)
    for late in (Report(step=4, sequence=4), Report(step=5, sequence=5), Report(step=99, sequence=1)):
        assert (await service.report(tenant, "t", late)).step == 5
    assert (await service.progress(tenant, "t", step=6)).sequence == 5
    end = await service.finish(tenant, "t", "completed", sequence=7)
    assert await service.progress(tenant, "t", step=6, sequence=6) == end
    assert [state["step"] for state in await room.states(tenant, "task:t")] == [None, 5, 6, 10]


async def test_contradictions(room: TaskRoom, tenant: str) -> None:
    service = room.service
    await service.register(tenant, "t", "alice", total_steps=5)
    big = "x" * 17_000
    for report, path in (
        (Report(step=6), "$.step"),
        (Report(step=3, total_steps=2), "$.step"),
        (Report(step=-1), "$.step"),
        (Report(total_steps=-1), "$.total_steps"),
        (Report(percent=100.1), "$.percent"),
        (Report(percent=float("nan")), "$.percent"),
        (Report(sequence=-1), "$.sequence"),
        (Report(message="x" * 4097), "$.message"),
        (Report(result=1), "$.result"),
        (Report(error="e"), "$.error"),
        (Report(state="completed", error="e"), "$.error"),
        (Report(data={"a": "\ud800"}), "$.data"),
    ):
        with pytest.raises(BadReport) as refused:
            await service.report(tenant, "t", report)
        assert refused.value.errors[0][0] == path and refused.value.status == 422
    for report in (Report(data={"a": big}), Report(state="completed", result=big)):
        with pytest.raises(DualcastError) as too_big:
            await service.report(tenant, "t", report)
        assert (too_big.value.code, too_big.value.status) == ("data-too-large", 413)
    assert (await service.get(tenant, "t")).revision == 1


async def test_a_batch_is_announced_when_it_changes(room: TaskRoom, tenant: str) -> None:
    service = room.service
    made = await service.put_batch(tenant, "B1", "u1", total=3, title="报告", data={"format": "pdf"})
    assert made.created and made.batch.total == 3
    assert not (await service.put_batch(tenant, "B1", "u1", total=3)).created
    for ident in ("1", "2", "3"):
        await service.register(tenant, ident, "u1", batch="B1", total_steps=2)
    await service.progress(tenant, "1", step=1)
    await service.progress(tenant, "1", step=2)
    await service.finish(tenant, "1", "completed")
    await service.finish(tenant, "2", "failed", error="no")
    await service.finish(tenant, "3", "completed")
    published = await room.published(tenant, "batch:B1")
    states = [msgspec.json.decode(found.data) for found in published]
    assert [state["revision"] for state in states] == list(range(1, len(states) + 1))
    assert len(states) == 8, "made, three joined, one began, three ended"
    assert [found.terminal for found in published] == [False] * 7 + [True]
    assert {found.conflation_key for found in published} == {"batch:B1"}
    last = states[-1]
    assert last["state"] == "partial" and last["progress"] == 100.0 and last["completed_ms"] is not None
    assert (last["total"], last["completed"], last["failed"], last["cancelled"]) == (3, 2, 1, 0)
    assert (last["id"], last["owner"], last["title"], last["data"]) == ("B1", "u1", "报告", {"format": "pdf"})
    assert published[-1].data == await service.state(tenant, "batch:B1")
    assert states[5]["progress"] == 33.3 and states[5]["processing"] == 0
    assert await room.grants.allows(tenant, "batch:B1", "u1")
    assert not await room.grants.allows(tenant, "batch:B1", "u2")


async def test_a_batch_has_one_owner(room: TaskRoom, tenant: str) -> None:
    service = room.service
    await service.register(tenant, "1", "alice", batch="b")
    assert await room.grants.allows(tenant, "batch:b", "alice")
    for refused, code in (
        (service.put_batch(tenant, "b", "bob"), "batch-exists"),
        (service.register(tenant, "2", "bob", batch="b"), "foreign-batch"),
    ):
        with pytest.raises(TaskConflict) as error:
            await refused
        assert error.value.code == code
    assert not await room.grants.allows(tenant, "batch:b", "bob")
    assert not await room.grants.allows(tenant, "task:2", "bob")
    for total in (0, -1, 10_001):
        with pytest.raises(BadReport):
            await service.put_batch(tenant, "b", "alice", total=total)
    told = await service.put_batch(tenant, "b", "alice", total=1, title="T")
    assert not told.created and told.batch.declared and told.batch.title == "T"
    await service.finish(tenant, "1", "cancelled")
    batch = await service.batch(tenant, "b")
    assert (batch.state, batch.cancelled, batch.finished) == ("failed", 1, True)


async def test_reports_of_one_node_take_turns(room: TaskRoom, tenant: str) -> None:
    service = room.service
    await service.register(tenant, "t", "alice", total_steps=1000)
    tasks = await asyncio.gather(*(service.progress(tenant, "t", step=n) for n in range(100)))
    assert sorted(task.revision for task in tasks) == list(range(2, 102))
    assert service.conflicts == 0
    assert [state["revision"] for state in await room.states(tenant, "task:t")] == list(range(1, 102))


class Unwell(Announcer):
    """An announcer that fails while `away`."""

    away = True

    async def announce(self, *args: Any, **more: Any) -> Receipt:
        if self.away:
            raise BusUnavailable("away")
        return await super().announce(*args, **more)


async def test_what_could_not_be_announced_is_announced_later(room: TaskRoom, tenant: str) -> None:
    announcer = Unwell(room.bus)
    service = TaskService(room.store, announcer, room.grants, TaskSettings(retry_s=0.01))
    await service.register(tenant, "t", "alice", batch="b")
    await service.progress(tenant, "t", percent=10)
    await service.finish(tenant, "t", "completed")
    assert await room.published(tenant, "task:t", "batch:b") == []
    assert (service.stats()["announcements_failed"], service.stats()["announcements_waiting"]) == (6, 2)
    running = asyncio.create_task(service.run())
    announcer.away = False
    async with asyncio.timeout(10):
        while service.stats()["announcements_waiting"]:
            await asyncio.sleep(0.01)
    running.cancel()
    (state,) = await room.states(tenant, "task:t")
    assert (state["state"], state["revision"]) == ("completed", 3)
    assert [state["state"] for state in await room.states(tenant, "batch:b")] == ["completed"]
    await service.finish(tenant, "t", "completed")
    assert len(await room.published(tenant, "task:t")) == 1


async def test_an_end_repeated_after_a_crash_is_announced(room: TaskRoom, tenant: str) -> None:
    """The first node stored it and died before announcing; the publisher asks again elsewhere."""
    dead = TaskService(room.store, Unwell(room.bus), room.grants)
    await dead.register(tenant, "t", "alice", batch="b")
    await dead.finish(tenant, "t", "completed")
    await room.service.finish(tenant, "t", "completed")
    await room.service.finish(tenant, "t", "completed")
    for channel in ("task:t", "batch:b"):
        (state,) = await room.states(tenant, channel)
        assert state["state"] == "completed"


async def test_what_waits_is_bounded(room: TaskRoom, tenant: str) -> None:
    service = TaskService(room.store, Unwell(room.bus), room.grants, TaskSettings(max_unannounced=2))
    for ident in ("1", "2", "3"):
        await service.register(tenant, ident, "alice")
    stats = service.stats()
    assert (stats["announcements_waiting"], stats["announcements_dropped"]) == (2, 1)


async def test_grants_go_with_what_is_forgotten(name: str, tenant: str) -> None:
    async with task_room(name, TaskSettings(finished_s=0.05, unfinished_s=0.05)) as room:
        await room.service.register(tenant, "t", "alice", batch="b")
        assert await room.grants.allows(tenant, "task:t", "alice")
        async with asyncio.timeout(20):
            while await room.grants.allows(tenant, "batch:b", "alice"):
                await room.service.tidy()
                await asyncio.sleep(0.05)
        assert not await room.grants.allows(tenant, "task:t", "alice")
        again = await room.service.register(tenant, "t", "bob", batch="b")
        assert again.created and await room.grants.allows(tenant, "task:t", "bob")
