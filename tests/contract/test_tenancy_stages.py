"""Changing stages at runtime over every state engine: one winner, known everywhere, held, reversible."""

from __future__ import annotations

import asyncio
import inspect
import itertools

import pytest
from msgspec.structs import replace

from dualcast.state.follow import StateFollower
from dualcast.state.memory import MemoryState
from dualcast.state.port import StateStore, VersionConflict
from dualcast.tenancy import audit
from dualcast.tenancy.model import Secret, SigningKey, Tenant
from dualcast.tenancy.stages import (
    GuardHold,
    SunsetPassed,
)
from dualcast.tenancy.store import Edit, Stored
from dualcast.tenancy.validate import BadTenant
from dualcast_migration.budgets import Budgets
from dualcast_migration.cohort import Cohort
from dualcast_migration.policy import StageRecord
from dualcast_migration.stage import IllegalMove, Stage, may_move
from support.stage_control import WHO, Here
from support.tokens import Clock

pytestmark = pytest.mark.anyio
SSE, SHADOW, FALLBACK, WEBSOCKET = Stage


async def test_every_legal_move_goes_and_comes_back(store: StateStore) -> None:
    here = await Here.open(store)
    for number, (now, to) in enumerate(itertools.product(Stage, Stage)):
        name = f"t{number}"
        start = StageRecord(stage=now, cohort=Cohort(25, ("a",), ("b",)))
        await here.tenants.put(Tenant(id=name, stage=start))
        wanted = StageRecord(stage=to, cohort=Cohort(50))
        if not may_move(now, to):
            with pytest.raises(IllegalMove):
                await here.control.change(name, wanted, **WHO)
            assert (await here.control.read(name)).record == start
            continue
        there = await here.control.change(name, wanted, **WHO)
        assert there.record == wanted
        back = await here.control.rollback(name, **WHO, expected=there.version)
        assert back.record == start
        again = await here.control.rollback(name, **WHO)
        assert again.record == wanted
        assert here.tenants.current(name) == Tenant(id=name, stage=wanted)
        actions = [entry.action for entry in (await here.control.history(name)).entries]
        assert actions == ["rollback", "rollback", "set", "create"]


async def test_of_ten_changes_with_one_version_exactly_one_wins(store: StateStore) -> None:
    nodes = [await Here.open(store) for _ in range(2)]
    version = await nodes[0].at(SSE)
    await nodes[1].follower.refresh()

    async def attempt(number: int) -> int | None:
        record = StageRecord(stage=SHADOW, cohort=Cohort(number))
        try:
            await nodes[number % 2].control.change(
                "acme", record, who=f"n{number}", why="x", expected=version
            )
        except VersionConflict:
            return None
        return number

    winners = [number for number in await asyncio.gather(*map(attempt, range(10))) if number is not None]
    assert len(winners) == 1
    view = await nodes[0].control.read("acme")
    assert view.record.cohort.percent == winners[0]
    entries = (await nodes[1].control.history("acme")).entries
    assert [entry.who for entry in entries] == [f"n{winners[0]}", audit.SERVER]


async def test_every_node_knows_with_its_next_poll_which_is_within_a_second(store: StateStore) -> None:
    assert inspect.signature(StateFollower).parameters["interval_s"].default <= 0.5
    here, there = await Here.open(store), await Here.open(store)
    await here.at(SSE)
    following = asyncio.create_task(there.follower.run())
    try:
        async with asyncio.timeout(15):
            await here.control.change("acme", StageRecord(stage=SHADOW), **WHO)
            while (found := there.tenants.current("acme")) is None or found.stage.stage is not SHADOW:
                await asyncio.sleep(0.01)
    finally:
        following.cancel()
    assert here.tenants.current("acme") == there.tenants.current("acme")


async def test_a_tenant_as_full_as_it_may_be_can_still_step_back(store: StateStore) -> None:
    here = await Here.open(store)
    users = tuple(f"{n:036}" for n in range(520))
    keys = tuple(
        SigningKey(algorithm="HS256", kid=f"k{n}", secret=Secret(f"{n:02}" + "s" * 1_200)) for n in range(15)
    )
    full = StageRecord(stage=FALLBACK, cohort=Cohort(allow=users))
    await here.tenants.put(Tenant(id="a" * 63, keys=keys, stage=full))
    long = {"who": "x" * 300, "why": "界" * 500}
    other = replace(full, cohort=Cohort(deny=users))
    assert (await here.control.change("a" * 63, other, **long)).record == other
    assert await here.control.step_back("a" * 63, **long, now_s=here.clock.now, hold_off_s=9)
    more = Tenant(id="b", keys=(*keys, SigningKey(algorithm="HS256", kid="x", secret=Secret("s" * 4_000))))
    with pytest.raises(BadTenant, match="20480 bytes"):
        await here.tenants.put(more)


async def test_of_several_guards_one_steps_back(store: StateStore) -> None:
    clock = Clock()
    nodes = [await Here.open(store, clock) for _ in range(3)]
    cohort = Cohort(10, ("vip",))
    await nodes[0].at(FALLBACK, cohort=cohort, sunset_at=9)
    for node in nodes:
        await node.follower.refresh()

    async def guard(node: Here) -> bool:
        return await node.control.step_back(
            "acme", who="guard", why="opens fail", now_s=clock.now, hold_off_s=900
        )

    assert sorted(await asyncio.gather(*map(guard, nodes))) == [False, False, True]
    for node in nodes:
        await node.follower.refresh()
    # They know now, and their figures are still about the stage before.
    assert [await guard(node) for node in nodes] == [False] * 3
    view = await nodes[0].control.read("acme")
    hold = int(clock.now + 900)
    assert view.record == StageRecord(stage=SHADOW, sunset_at=9, held_until=hold)
    assert view.last is not None and (view.last.who, view.last.action) == ("guard", "step-back")
    # A whole window later the figures are about this stage.
    clock.forward(Budgets().window_s)
    assert await guard(nodes[1])
    assert (await nodes[1].control.read("acme")).record.stage is SSE
    clock.forward(Budgets().window_s)
    assert not await guard(nodes[1])
    assert (await nodes[1].control.read("acme")).record.stage is SSE


async def test_the_guard_holds(store: StateStore) -> None:
    here = await Here.open(store)
    await here.at(FALLBACK, cohort=Cohort(10))
    await here.control.step_back("acme", who="guard", why="x", now_s=here.clock.now, hold_off_s=900)
    on = StageRecord(stage=FALLBACK, cohort=Cohort(10))
    for call in (here.control.change("acme", on, **WHO), here.control.rollback("acme", **WHO)):
        with pytest.raises(GuardHold) as caught:
            await call
        assert caught.value.code == "guard-hold"
    # Anything but going on is allowed, and cannot shake the hold off.
    held = (await here.control.read("acme")).record.held_until
    changed = await here.control.change("acme", StageRecord(stage=SHADOW, cohort=Cohort(50)), **WHO)
    assert changed.record.held_until == held
    scheduled = await here.control.change("acme", replace(changed.record, sunset_at=2**33), **WHO)
    assert scheduled.record.held_until == held
    forced = await here.control.change("acme", on, **WHO, force=True)
    assert forced.record == on
    # After the hold-off nothing has to be forced.
    await here.control.step_back("acme", who="guard", why="x", now_s=here.clock.now, hold_off_s=900)
    here.clock.forward(901)
    assert (await here.control.rollback("acme", **WHO)).record == on


async def test_a_hold_cannot_be_set_by_hand(store: StateStore) -> None:
    here = await Here.open(store)
    await here.at(SHADOW)
    made = await here.control.change("acme", StageRecord(stage=FALLBACK, held_until=2**33), **WHO)
    assert made.record.held_until == 0


async def test_entering_the_last_stage_after_its_sunset_has_to_be_forced(store: StateStore) -> None:
    here = await Here.open(store)
    past = int(here.clock.now) - 10
    await here.at(FALLBACK, sunset_at=past)
    last = StageRecord(stage=WEBSOCKET, sunset_at=past)
    with pytest.raises(SunsetPassed):
        await here.control.change("acme", last, **WHO)
    assert (await here.control.change("acme", last, **WHO, force=True)).record == last
    # What is over already may be changed without being forced.
    more = replace(last, link="https://e.org")
    assert (await here.control.change("acme", more, **WHO)).record == more


async def test_a_sunset_that_has_passed_ends_sse_for_nobody_unless_forced(store: StateStore) -> None:
    here = await Here.open(store)
    soon = int(here.clock.now) + 10
    await here.at(FALLBACK)
    last = StageRecord(stage=WEBSOCKET, sunset_at=soon, cohort=Cohort(10, ("vip",)))
    await here.control.change("acme", last, **WHO)
    await here.control.change("acme", StageRecord(stage=FALLBACK), **WHO)
    here.clock.forward(11)
    with pytest.raises(SunsetPassed):  # what is undone was made before the sunset
        await here.control.rollback("acme", **WHO)
    assert (await here.control.rollback("acme", **WHO, force=True)).record == last
    for more in (Cohort(11, ("vip",)), Cohort(10, ("vip", "b")), Cohort()):
        with pytest.raises(SunsetPassed):
            await here.control.change("acme", replace(last, cohort=more), **WHO)
    fewer = replace(last, cohort=Cohort(5, (), ("c",)))
    assert (await here.control.change("acme", fewer, **WHO)).record == fewer
    with pytest.raises(SunsetPassed):  # who was denied is so no longer
        await here.control.change("acme", replace(last, cohort=Cohort(5)), **WHO)


async def test_of_many_changes_without_a_version_on_two_nodes_none_is_lost_or_refused(
    store: StateStore,
) -> None:
    one, other = await Here.open(store), await Here.open(store)
    await one.at(SSE)

    def named(number: int) -> Edit:
        def edit(stored: Stored | None) -> Tenant:
            assert stored is not None
            settings = stored.tenant.settings
            origins = (*settings.origins, f"https://page-{number}.example")
            return replace(stored.tenant, settings=replace(settings, origins=origins))

        return edit

    nodes = (one, other)
    await asyncio.gather(*(nodes[n % 2].tenants.change("acme", named(n)) for n in range(20)))
    found = await one.tenants.get("acme")
    assert found is not None and len(found.tenant.settings.origins) == 20


async def test_records_that_do_not_fit_are_refused() -> None:
    here = await Here.open(MemoryState())
    await here.at(SSE)
    for record, words in (
        (StageRecord(cohort=Cohort(allow=("",))), "allow.0"),
        (StageRecord(cohort=Cohort(deny=("ok", "a\nb"))), "deny.1"),
        (StageRecord(link="https://e.org/" + "x" * 2_050), "link"),
        (StageRecord(cohort=Cohort(allow=tuple(f"{n:036}" for n in range(900)))), "20480 bytes"),
    ):
        with pytest.raises(BadTenant, match=words):
            await here.control.change("acme", replace(record, stage=SSE), **WHO)
    fits = StageRecord(stage=SSE, cohort=Cohort(allow=tuple(f"{n:036}" for n in range(500))))
    await here.control.change("acme", fits, **WHO)
    other = replace(fits, cohort=Cohort(deny=tuple(f"{n:036}" for n in range(500))))
    assert (await here.control.change("acme", other, **WHO)).record == other
