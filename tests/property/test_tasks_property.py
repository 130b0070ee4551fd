"""After any sequence of registrations, reports, ends and passing time, a batch's counters are what a recount
gives, revisions have no hole, and what was announced last is what is stored.
"""

from __future__ import annotations

import asyncio
import secrets
from collections import Counter
from dataclasses import dataclass, field
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from dualcast.model.errors import DualcastError
from dualcast.tasks.model import FINISHED, STATES
from dualcast.tasks.port import TaskSettings
from dualcast.tasks.rules import Report
from support.task_room import TaskRoom, task_room

TASKS = ("1", "2", "3", "4")
BATCHES = ("", "a", "b")
OWNERS = ("alice", "bob")
DAY_S = 86_400.0
SETTINGS = TaskSettings(finished_s=7 * DAY_S, unfinished_s=30 * DAY_S, max_tasks=7, max_tasks_per_batch=3)

registering = st.tuples(
    st.just("register"), st.sampled_from(TASKS), st.sampled_from(BATCHES), st.sampled_from(OWNERS)
)
reporting = st.tuples(
    st.just("report"),
    st.sampled_from(TASKS),
    st.sampled_from(STATES),
    st.none() | st.integers(0, 5),
)
declaring = st.tuples(
    st.just("declare"), st.sampled_from(BATCHES[1:]), st.none() | st.integers(1, 3), st.sampled_from(OWNERS)
)
passing = st.tuples(st.just("pass"), st.sampled_from((1.0, 6 * DAY_S, 8 * DAY_S, 31 * DAY_S)))
tidying = st.tuples(st.just("tidy"))
steps = st.lists(st.one_of(registering, reporting, reporting, declaring), max_size=30)
steps_and_time = st.lists(
    st.one_of(registering, registering, reporting, reporting, declaring, passing, tidying), max_size=40
)


@dataclass
class Known:
    """What a publisher remembers of a task it registered."""

    batch: str
    state: str
    last_s: float


@dataclass
class Model:
    """The tasks and batches as a plain recount has them."""

    now_s: float = 1_800_000_000.0
    tasks: dict[str, Known] = field(default_factory=dict)
    counts: dict[str, Counter[str]] = field(default_factory=dict)
    """Of batches: how their tasks ended that retention has forgotten."""

    def clock(self) -> float:
        return self.now_s

    def forget(self) -> None:
        """What retention has ended by now: unfinished tasks count as failed from then on."""
        for ident, known in list(self.tasks.items()):
            kept_s = SETTINGS.finished_s if known.state in FINISHED else SETTINGS.unfinished_s
            if self.now_s >= known.last_s + kept_s:
                del self.tasks[ident]
                if known.batch in self.counts:
                    state = known.state if known.state in FINISHED else "failed"
                    self.counts[known.batch][state] += 1

    def recount(self, batch: str) -> Counter[str]:
        living = Counter(known.state for known in self.tasks.values() if known.batch == batch)
        return living + self.counts[batch]


async def play(room: TaskRoom, tenant: str, model: Model, step: tuple[Any, ...]) -> None:
    """One step; refusals are part of the game."""
    service = room.service
    for ident in BATCHES[1:]:
        if (await room.store.load_batch(tenant, ident)).batch is None:
            model.counts.pop(ident, None)  # a batch made from now on is another one
    try:
        if step[0] == "register":
            _, ident, batch, owner = step
            made = await service.register(tenant, ident, owner, batch=batch)
            if made.created:
                model.tasks[ident] = Known(batch, "queued", model.now_s)
                if batch:
                    model.counts.setdefault(batch, Counter())
        elif step[0] == "report":
            _, ident, state, sequence = step
            before = await service.get(tenant, ident)
            task = await service.report(tenant, ident, Report(state=state, sequence=sequence))
            if task.revision > before.revision:
                model.tasks[ident].state = state
                model.tasks[ident].last_s = model.now_s
        elif step[0] == "declare":
            _, batch, total, owner = step
            await service.put_batch(tenant, batch, owner, total=total)
            model.counts.setdefault(batch, Counter())
        elif step[0] == "pass":
            model.now_s += step[1]
            model.forget()
        else:
            await service.tidy()
    except DualcastError as refused:
        assert refused.status in (404, 409, 413), refused


async def check(room: TaskRoom, tenant: str, model: Model) -> None:
    """What is stored, against the recount."""
    for ident in TASKS:
        found = (await room.store.load(tenant, ident)).task
        known = model.tasks.get(ident)
        assert (found and (found.state, found.batch)) == (known and (known.state, known.batch)), ident
    listed = (await room.store.list(tenant, "", None, "", 99)).tasks
    assert sorted(task.id for task in listed) == sorted(model.tasks)
    for state in STATES:
        page = (await room.store.list(tenant, "", state, "", 99)).tasks
        assert {task.id for task in page} == {i for i, known in model.tasks.items() if known.state == state}
    for ident in BATCHES[1:]:
        batch = (await room.store.load_batch(tenant, ident)).batch
        if batch is None:
            members = [known for known in model.tasks.values() if known.batch == ident]
            assert not members, "a batch never goes before its tasks"
            model.counts.pop(ident, None)
            continue
        counts = model.recount(ident)
        assert {state: getattr(batch, state) for state in STATES} == {s: counts[s] for s in STATES}, ident
        assert counts.total() <= SETTINGS.max_tasks_per_batch and batch.total >= counts.total()
        ended = counts.total() - counts["queued"] - counts["processing"]
        assert (batch.state == "processing") == (not batch.total or ended < batch.total)
        members = (await room.store.members(tenant, ident, "", 99)).tasks
        assert {task.id for task in members} == {i for i, k in model.tasks.items() if k.batch == ident}


async def check_announced(room: TaskRoom, tenant: str) -> None:
    """Every revision once and in order; the last one is the stored one."""
    for channel in (*(f"task:{ident}" for ident in TASKS), *(f"batch:{ident}" for ident in BATCHES[1:])):
        states = await room.states(tenant, channel)
        revisions = [state["revision"] for state in states]
        assert revisions == list(range(1, len(revisions) + 1)), (channel, revisions)
        if states:
            assert (await room.published(tenant, channel))[-1].data == await room.service.state(
                tenant, channel
            )


@settings(max_examples=150, deadline=None)
@given(steps_and_time)
def test_counters_are_a_recount_at_any_time(played: list[tuple[Any, ...]]) -> None:
    async def run() -> None:
        model = Model()
        async with task_room("memory", SETTINGS, clock=model.clock) as room:
            for step in played:
                await play(room, "t", model, step)
                if step[0] != "pass":  # removal comes with the next write, and with it the recount
                    await settle(room)
                    await check(room, "t", model)

    async def settle(room: TaskRoom) -> None:
        while await room.store.tidy("t"):
            pass

    asyncio.run(run())


@settings(max_examples=25, deadline=None)
@given(steps)
def test_counters_are_a_recount_in_redis(played: list[tuple[Any, ...]]) -> None:
    async def run() -> None:
        model, tenant = Model(), "t-" + secrets.token_hex(5)
        async with task_room("redis", SETTINGS) as room:
            for step in played:
                await play(room, tenant, model, step)
            await check(room, tenant, model)
            await check_announced(room, tenant)

    asyncio.run(run())


@settings(max_examples=60, deadline=None)
@given(steps)
def test_what_was_announced_is_what_is_stored(played: list[tuple[Any, ...]]) -> None:
    async def run() -> None:
        model = Model()
        async with task_room("memory", SETTINGS) as room:
            for step in played:
                await play(room, "t", model, step)
            await check(room, "t", model)
            await check_announced(room, "t")

    asyncio.run(run())
