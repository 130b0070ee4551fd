"""The TaskStore port over every engine: one winner per write, exact counters, pages, retention, tenants."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import AsyncIterator

import pytest
from msgspec.structs import replace

from dualcast.model.errors import DualcastError
from dualcast.tasks.errors import TaskConflict
from dualcast.tasks.model import BatchFacts, State, Task
from dualcast.tasks.port import TaskSettings, TaskStore
from support.bus_engines import ENGINES
from support.task_room import task_room

pytestmark = pytest.mark.anyio
TINY = TaskSettings(max_tasks=5, max_tasks_per_batch=3)
SHORT = TaskSettings(finished_s=0.15, unfinished_s=0.3)


@pytest.fixture(params=sorted(ENGINES))
def name(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
async def store(name: str) -> AsyncIterator[TaskStore]:
    async with task_room(name) as room:
        yield room.store


def task(ident: str, state: State = "queued", **more: object) -> Task:
    fields: dict[str, object] = {"owner": "alice", "revision": 1, **more}
    return Task(id=ident, state=state, **fields)  # type: ignore[arg-type]


async def put(store: TaskStore, tenant: str, wanted: Task) -> Task:
    """Writes over whatever is there."""
    loaded = await store.load(tenant, wanted.id)
    assert await store.save(tenant, wanted, loaded.token) is not None
    return wanted


async def test_a_write_needs_the_state_it_was_made_from(store: TaskStore, tenant: str) -> None:
    assert (await store.load(tenant, "t")).task is None
    first = task("t", data={"文": [1, {"a": None}]}, message="m")
    assert await store.save(tenant, first, "") is not None
    assert await store.save(tenant, first, "") is None
    loaded = await store.load(tenant, "t")
    assert loaded.task == first and loaded.token
    second = replace(first, revision=2, message="n")
    third = replace(first, revision=2, message="o")
    assert await store.save(tenant, second, loaded.token) is not None
    assert await store.save(tenant, third, loaded.token) is None
    assert (await store.load(tenant, "t")).task == second


async def test_of_many_writers_one_wins(store: TaskStore, tenant: str) -> None:
    await store.save(tenant, task("t", batch="b"), "")
    token = (await store.load(tenant, "t")).token
    saved = await asyncio.gather(
        *(
            store.save(tenant, task("t", "completed", batch="b", revision=2, message=str(number)), token)
            for number in range(20)
        )
    )
    assert sum(result is not None for result in saved) == 1
    batch = (await store.load_batch(tenant, "b")).batch
    assert batch is not None and (batch.completed, batch.total, batch.revision) == (1, 1, 2)


async def test_counters_move_with_the_task(store: TaskStore, tenant: str) -> None:
    for ident in ("1", "2", "3"):
        saved = await store.save(tenant, task(ident, batch="b"), "")
        assert saved is not None and saved.batch is not None and saved.batch.queued == int(ident)
    loaded = await store.load(tenant, "1")
    saved = await store.save(tenant, task("1", "processing", batch="b", revision=2), loaded.token)
    assert saved is not None and saved.batch is not None
    assert (saved.batch.queued, saved.batch.processing, saved.batch.revision) == (2, 1, 4)
    loaded = await store.load(tenant, "1")
    saved = await store.save(tenant, task("1", "processing", batch="b", revision=3), loaded.token)
    assert saved is not None and saved.batch is None, "nothing the batch counts has changed"
    for ident, state in (("1", "completed"), ("2", "failed"), ("3", "cancelled")):
        await put(store, tenant, task(ident, state, batch="b", revision=4))  # type: ignore[arg-type]
    batch = (await store.load_batch(tenant, "b")).batch
    assert batch is not None
    assert (batch.state, batch.progress, batch.finished) == ("partial", 100.0, False)
    assert (batch.queued, batch.processing, batch.completed, batch.failed, batch.cancelled) == (0, 0, 1, 1, 1)
    assert batch.completed_ms is not None and batch.completed_ms >= batch.created_ms > 0
    await store.save(tenant, task("4", batch="b"), "")
    batch = (await store.load_batch(tenant, "b")).batch
    assert batch is not None and (batch.state, batch.progress, batch.completed_ms) == (
        "processing",
        75.0,
        None,
    )


async def test_a_declared_batch_takes_so_many_and_ends_for_good(store: TaskStore, tenant: str) -> None:
    made = await store.save_batch(tenant, BatchFacts("b", "alice", "T", {"k": 1}), 2, "")
    assert made is not None and (made.batch.total, made.batch.state, made.batch.revision) == (
        2,
        "processing",
        1,
    )
    assert await store.save_batch(tenant, BatchFacts("b", "alice"), 3, "") is None
    with pytest.raises(TaskConflict) as refused:
        await store.save(tenant, task("x", owner="bob", batch="b"), "")
    assert refused.value.code == "foreign-batch"
    await store.save(tenant, task("1", "completed", batch="b"), "")
    batch = (await store.load_batch(tenant, "b")).batch
    assert batch is not None and (batch.state, batch.progress) == ("processing", 50.0)
    await store.save(tenant, task("2", batch="b"), "")
    with pytest.raises(TaskConflict) as refused:
        await store.save(tenant, task("3", batch="b"), "")
    assert refused.value.code == "batch-full"
    token = (await store.load_batch(tenant, "b")).token
    with pytest.raises(TaskConflict) as refused:
        await store.save_batch(tenant, BatchFacts("b", "alice"), 1, token)
    assert refused.value.code == "batch-full"
    await put(store, tenant, task("2", "completed", batch="b", revision=2))
    batch = (await store.load_batch(tenant, "b")).batch
    assert batch is not None and batch.state == "completed" and batch.finished
    assert (batch.title, batch.data) == ("T", {"k": 1})
    for late in (
        store.save(tenant, task("3", batch="b"), ""),
        store.save_batch(tenant, BatchFacts("b", "alice"), 9, token),
    ):
        with pytest.raises(TaskConflict) as refused:
            await late
        assert refused.value.code == "batch-finished"
    again = await store.save_batch(tenant, BatchFacts("b", "alice", "U"), 2, token)
    assert again is not None and again.batch.title == "U" and again.batch.finished
    assert (await store.load(tenant, "3")).task is None and (await store.load(tenant, "x")).task is None


async def test_a_batch_ended_when_its_last_task_did(store: TaskStore, tenant: str) -> None:
    """Also when each task joined after all before it had ended, so that the batch was never open between."""
    ended = []
    for number in range(3):
        saved = await store.save(tenant, task(f"t{number}", "completed", batch="b"), "")
        assert saved is not None and saved.batch is not None
        assert saved.batch.completed_ms == saved.batch.updated_ms
        ended.append(saved.batch.completed_ms)
        await asyncio.sleep(0.005)
    assert ended == sorted(set(ended))
    token = (await store.load_batch(tenant, "b")).token
    titled = await store.save_batch(tenant, BatchFacts("b", "alice", "T"), 0, token)
    assert titled is not None and titled.batch.completed_ms == ended[-1], "a title is no end"


async def test_lists_page_newest_first_by_owner_and_state(store: TaskStore, tenant: str) -> None:
    for number in range(7):
        owner = "alice" if number % 2 == 0 else "bob:x/ü"
        await store.save(tenant, task(f"t{number}", owner=owner), "")
    await put(store, tenant, task("t2", "completed", revision=2))

    async def listed(owner: str = "", state: State | None = None) -> list[str]:
        found, after = [], ""
        while True:
            page = await store.list(tenant, owner, state, after, 2)
            found += [one.id for one in page.tasks]
            after = page.next
            if not after:
                return found

    assert await listed() == ["t6", "t5", "t4", "t3", "t2", "t1", "t0"]
    assert await listed("alice") == ["t6", "t4", "t2", "t0"]
    assert await listed("bob:x/ü") == ["t5", "t3", "t1"]
    assert await listed("alice", "queued") == ["t6", "t4", "t0"]
    assert await listed("", "completed") == ["t2"] and await listed("nobody") == []


async def test_members_page_in_the_order_they_joined(store: TaskStore, tenant: str) -> None:
    for ident in ("c", "a", "b"):
        await store.save(tenant, task(ident, batch="b"), "")
    await store.save(tenant, task("alone"), "")
    page = await store.members(tenant, "b", "", 2)
    assert [one.id for one in page.tasks] == ["c", "a"] and page.next
    page = await store.members(tenant, "b", page.next, 2)
    assert ([one.id for one in page.tasks], page.next) == (["b"], "")
    assert (await store.members(tenant, "none", "", 2)).tasks == []


async def test_tenants_never_see_each_other(store: TaskStore, tenant: str) -> None:
    other = "t-" + secrets.token_hex(5)
    await store.save(tenant, task("t", batch="b"), "")
    assert (await store.load(other, "t")).task is None
    assert (await store.load_batch(other, "b")).batch is None
    assert (await store.list(other, "", None, "", 9)).tasks == []
    assert (await store.members(other, "b", "", 9)).tasks == []
    await store.save(other, task("t", "completed", batch="b", owner="bob"), "")
    mine = (await store.load_batch(tenant, "b")).batch
    assert mine is not None and (mine.owner, mine.queued, mine.completed) == ("alice", 1, 0)


async def test_ids_are_opaque(store: TaskStore, tenant: str) -> None:
    ids = ["a:b", "a/b", "a%2Fb", "任务 1", "t:", "'; --", "{x}", "*"]
    for ident in ids:
        await store.save(tenant, task(ident, batch="batch " + ident, owner="用户|" + ident), "")
    for ident in ids:
        found = (await store.load(tenant, ident)).task
        assert found is not None and found.id == ident
        batch = (await store.load_batch(tenant, "batch " + ident)).batch
        assert batch is not None and (batch.owner, batch.total) == ("用户|" + ident, 1)
        assert [one.id for one in (await store.list(tenant, "用户|" + ident, "queued", "", 9)).tasks] == [
            ident
        ]


async def test_a_tenant_and_a_batch_hold_so_many(name: str, tenant: str) -> None:
    async with task_room(name, TINY) as room:
        store = room.store
        for number in range(3):
            await store.save(tenant, task(str(number), batch="b"), "")
        with pytest.raises(TaskConflict) as full:
            await store.save(tenant, task("3", batch="b"), "")
        assert full.value.code == "batch-full"
        with pytest.raises(DualcastError) as most:
            await store.save(tenant, task("3", batch="c"), "")
        assert most.value.code == "too-many-tasks", "the batch needs a place as well"
        await store.save(tenant, task("3"), "")
        for refused in (
            store.save(tenant, task("4"), ""),
            store.save_batch(tenant, BatchFacts("c", "alice"), 0, ""),
        ):
            with pytest.raises(DualcastError) as most:
                await refused
            assert (most.value.code, most.value.status) == ("too-many-tasks", 413)
        await put(store, tenant, task("3", "completed", revision=2))
        assert (await store.load_batch(tenant, "c")).batch is None


async def test_retention_forgets_tasks_and_then_their_batch(name: str, tenant: str) -> None:
    async with task_room(name, SHORT) as room:
        store = room.store
        await store.save(tenant, task("done", "completed", batch="b"), "")
        await store.save(tenant, task("silent", batch="b"), "")
        await store.save(tenant, task("alone", "failed"), "")
        gone: set[str] = set()
        async with asyncio.timeout(20):
            while (await store.load(tenant, "alone")).task is not None:
                await asyncio.sleep(0.02)
            assert (await store.load(tenant, "silent")).task is not None
            batch = (await store.load_batch(tenant, "b")).batch
            assert batch is not None and batch.completed == 1, "it was completed, whatever is kept of it"
            while (await store.load(tenant, "silent")).task is not None:
                await asyncio.sleep(0.02)
            gone |= set(await store.tidy(tenant))
            batch = (await store.load_batch(tenant, "b")).batch
            assert batch is not None and (batch.queued, batch.completed, batch.failed) == (0, 1, 1)
            assert batch.state == "partial" and batch.completed_ms is not None
            assert (await store.list(tenant, "", None, "", 9)).tasks == []
            while (await store.load_batch(tenant, "b")).batch is not None:
                await asyncio.sleep(0.05)
            gone |= set(await store.tidy(tenant))
        assert gone == {"task:done", "task:alone", "task:silent", "batch:b"}
        saved = await store.save(tenant, task("done", batch="b"), "")
        assert saved is not None and saved.batch is not None and saved.batch.total == 1


async def test_what_is_over_does_not_stand_in_the_way(name: str, tenant: str) -> None:
    """Registered again without any tidying between."""
    async with task_room(name, SHORT) as room:
        store = room.store
        for number in range(60):
            await store.save(tenant, task(f"old{number}", batch="b"), "")
        async with asyncio.timeout(20):
            while (await store.load_batch(tenant, "b")).batch is not None:
                await asyncio.sleep(0.05)
        saved = await store.save(tenant, task("old59", batch="b", owner="bob"), "")
        assert saved is not None and saved.batch is not None
        assert (saved.batch.owner, saved.batch.total, saved.batch.queued) == ("bob", 1, 1)
        assert "task:old59" in saved.forgotten and "batch:b" in saved.forgotten
        while await store.tidy(tenant):
            pass
        batch = (await store.load_batch(tenant, "b")).batch
        assert batch is not None and (batch.total, batch.queued, batch.failed) == (1, 1, 0), "no drift"
        assert [one.id for one in (await store.list(tenant, "", None, "", 9)).tasks] == ["old59"]
