"""Random changes of a tenant's stage by several nodes: legal, held by the guard, every one in the audit."""

from __future__ import annotations

import itertools
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from dualcast.model.errors import DualcastError
from dualcast.state.memory import MemoryState
from dualcast.tenancy.model import Tenant, TenantSettings
from dualcast_migration.cohort import Cohort
from dualcast_migration.policy import StageRecord
from dualcast_migration.stage import Stage, may_move
from support.stage_control import WHO, Here
from support.tokens import Clock

pytestmark = pytest.mark.anyio
HOLD_OFF_S = 100

stages = st.sampled_from(Stage)
percents = st.sampled_from([0.0, 10.0, 100.0])
forced = st.booleans()
node = st.integers(0, 1)
operations = st.one_of(
    st.tuples(st.just("change"), node, stages, percents, forced),
    st.tuples(st.just("rollback"), node, forced),
    st.tuples(st.just("step_back"), node),
    st.tuples(st.just("seed"), node, stages),
    st.tuples(st.just("put"), node, stages),
    st.tuples(st.just("quota"), node, st.integers(1, 3)),
    st.tuples(st.just("wait"), st.sampled_from([10.0, 61.0, 101.0])),
    st.tuples(st.just("poll"), node),
)


@settings(max_examples=150, deadline=None)
@given(stages, st.lists(operations, max_size=25))
async def test_whatever_is_done_the_audit_tells_it(start: Stage, done: list[tuple[Any, ...]]) -> None:
    store, clock = MemoryState(), Clock()
    nodes = [await Here.open(store, clock) for _ in range(2)]
    await nodes[0].at(start)
    for node in nodes:
        await node.follower.refresh()
    for operation in done:
        before = (await nodes[0].control.read("acme")).record
        try:
            await apply(nodes, clock, operation)
        except DualcastError:
            assert (await nodes[0].control.read("acme")).record == before
            continue
        after = (await nodes[0].control.read("acme")).record
        check(operation, before, after, clock.now)
    view = await nodes[1].control.read("acme")
    everything = [entry async for entry in history(nodes[1])]
    assert [entry.number for entry in everything] == list(range(len(everything), 0, -1))
    for later, earlier in itertools.pairwise(everything):
        assert later.before == earlier.after and later.version > earlier.version
    bursts = [one.changes[0] for one in everything if one.action == "settings"]
    assert all(one.before == one.after and one.changes for one in everything if one.action == "settings")
    for newer, older in itertools.pairwise(bursts):
        assert newer.before == older.after != newer.after
    entries = [entry for entry in everything if entry.action != "settings"]
    assert entries[0] == view.last and entries[0].after == view.record
    for later, earlier in itertools.pairwise(entries):
        assert later.before == earlier.after != later.after
        assert later.version > earlier.version
    assert entries[-1].before is None and entries[-1].action == "create"


async def history(node: Here) -> Any:
    before = 0
    while True:
        page = await node.control.history("acme", before=before, limit=7)
        for entry in page.entries:
            yield entry
        if not (before := page.next):
            return


async def apply(nodes: list[Here], clock: Clock, operation: tuple[Any, ...]) -> None:
    match operation:
        case ("change", which, stage, percent, force):
            record = StageRecord(stage=stage, cohort=Cohort(percent))
            await nodes[which].control.change("acme", record, **WHO, force=force)
        case ("rollback", which, force):
            await nodes[which].control.rollback("acme", **WHO, force=force)
        case ("step_back", which):
            await nodes[which].control.step_back("acme", **WHO, now_s=clock.now, hold_off_s=HOLD_OFF_S)
        case ("seed", which, stage):
            await nodes[which].tenants.seed((Tenant(id="acme", stage=StageRecord(stage=stage)),))
        case ("put", which, stage):
            found = await nodes[which].tenants.get("acme")
            assert found is not None
            record = replace(found.tenant.stage, stage=stage)
            await nodes[which].tenants.put(replace(found.tenant, stage=record))
        case ("quota", which, burst):
            found = await nodes[which].tenants.get("acme")
            assert found is not None
            settings_ = TenantSettings(publish_burst=burst)
            await nodes[which].tenants.put(replace(found.tenant, settings=settings_))
        case ("wait", seconds):
            clock.forward(seconds)
        case ("poll", which):
            await nodes[which].follower.refresh()


def check(operation: tuple[Any, ...], before: StageRecord, after: StageRecord, now_s: float) -> None:
    """What this one may have done."""
    kind, force = operation[0], operation[-1] is True
    held = before.held_until > now_s
    if kind in ("change", "rollback") and held:
        assert force or after.stage.rank <= before.stage.rank
        assert after.held_until == (0 if force else before.held_until)
    if kind in ("change", "put"):
        assert may_move(before.stage, after.stage)
    if kind == "step_back" and after != before:
        assert after.stage is before.stage.previous and after.cohort == Cohort()
        assert after.held_until >= int(now_s + HOLD_OFF_S)
    if kind in ("wait", "poll", "quota"):
        assert after == before
