"""Turns of tenants at the append: what may wait is bounded, and whoever is cancelled or fails leaves nothing
behind.
"""

from __future__ import annotations

import asyncio
import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dualcast.model.errors import BusUnavailable
from dualcast.model.publication import Receipt
from dualcast.publishing.turns import TenantBusy, Turns, TurnSettings
from support.turns_rig import ROOM, SLICE, Rig, principal, settled, start

pytestmark = pytest.mark.anyio


async def test_what_may_wait_of_a_tenant_is_bounded_in_number_and_nobody_elses_is() -> None:
    rig = Rig()
    flood = [rig.many("loud", f"f{number}-", 400) for number in range(3)]
    flood.append(rig.many("loud", "g", 100))
    await settled()
    for refused in (rig.many("loud", "no", 1), rig.one("loud", "no")):
        with pytest.raises(TenantBusy) as error:
            await refused
        assert (error.value.code, error.value.status, error.value.retryable) == ("tenant-busy", 429, True)
        assert error.value.retry_after_s == 1.0
    assert rig.turns.refused == 2
    quiet = rig.many("quiet", "q", 400)
    await settled()
    await rig.bus.answer_all()
    assert len(await quiet) == 400
    await asyncio.gather(*flood)
    assert rig.publisher._counters.publish_failed["loud", "tenant-busy"] == 2
    again = rig.many("loud", "again", 400)
    await settled()
    await rig.bus.answer_all()
    assert len(await again) == 400
    assert rig.idle()


async def test_what_may_wait_of_a_tenant_is_bounded_in_bytes() -> None:
    rig = Rig()
    first = rig.many("loud", "f", 50, size=990_000)
    await settled()
    with pytest.raises(TenantBusy):
        await rig.many("loud", "no", 1, size=10_001)
    fits = rig.many("loud", "g", 1, size=10_000)
    with pytest.raises(TenantBusy):
        await start(rig.publisher.in_turn(principal("loud"), 1, lambda: None))
    await settled()
    await rig.bus.answer_all()
    await asyncio.gather(first, fits)
    assert rig.idle()


async def test_a_single_body_larger_than_the_bound_may_enter_when_nothing_waits() -> None:
    rig = Rig()
    task = rig.many("a", "f", 5, size=10_000_000)
    await settled()
    await rig.bus.answer_all()
    assert len(await task) == 5


@pytest.mark.parametrize("units", [1, SLICE])
async def test_who_is_cancelled_while_waiting_frees_its_place(units: int) -> None:
    rig = Rig()
    running = [rig.one("a", f"n{number}") for number in range(ROOM)]
    await settled()
    gone = [rig.one("a", "gone1", units), rig.one("b", "gone2", units)]
    after = rig.one("a", "after")
    await settled()
    assert rig.turns.waiting == 3
    for task in gone:
        task.cancel()
    await settled()
    assert rig.turns.waiting == 1
    await rig.bus.answer_all()
    assert "gone1" not in rig.ids()
    assert "gone2" not in rig.ids()
    await asyncio.gather(after, *running)
    assert rig.idle()


async def test_the_one_nobody_could_pass_lets_the_others_go_when_it_is_cancelled() -> None:
    rig = Rig()
    running = rig.one("a", "running")
    await settled()
    large = rig.one("b", "large", users=ROOM)
    behind = rig.one("c", "behind")
    await settled()
    assert rig.ids() == ["running"]
    large.cancel()
    await settled()
    assert rig.ids() == ["running", "behind"]
    await rig.bus.answer_all()
    await asyncio.gather(running, behind)
    assert rig.idle()


async def test_who_is_cancelled_just_when_its_turn_comes_gives_it_back() -> None:
    turns = Turns(TurnSettings(slice_units=1, in_flight_units=1))
    assert turns.take(1)
    first, second = turns.enter("a", 1, 0), turns.enter("a", 1, 0)
    waiting = [start(place.turn(1)) for place in (first, second)]
    await asyncio.sleep(0)
    turns.give(1)  # the first has its turn, and has not heard of it
    waiting[0].cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting[0]
    await waiting[1]
    assert (first.held, second.held, turns.in_flight) == (0, 1, 1)
    for place in (first, second):
        place.leave()
    assert (turns.in_flight, turns.waiting) == (0, 0)


async def test_a_cancelled_one_that_has_not_run_yet_is_passed_over() -> None:
    turns = Turns(TurnSettings(slice_units=1, in_flight_units=1))
    assert turns.take(1)
    first, second = turns.enter("a", 1, 0), turns.enter("a", 1, 0)
    waiting = [start(place.turn(1)) for place in (first, second)]
    await asyncio.sleep(0)
    waiting[0].cancel()
    turns.give(1)
    await waiting[1]
    with pytest.raises(asyncio.CancelledError):
        await waiting[0]
    assert turns.in_flight == 1
    for place in (first, second):
        place.leave()
    assert (turns.in_flight, len(turns._ring)) == (0, 0)


async def test_a_cancelled_batch_leaves_nothing_behind() -> None:
    rig = Rig()
    batches = [rig.many("a", f"b{number}-", 100) for number in range(4)]
    await settled()
    for task in batches:  # two have a slice at the bus, two wait
        task.cancel()
    await asyncio.gather(*batches, return_exceptions=True)
    assert rig.idle()


async def test_a_failing_bus_frees_the_turn_and_the_rest_of_a_batch_is_not_tried() -> None:
    rig = Rig()
    rig.bus.away = True
    one = rig.one("a", "n")
    batch = rig.many("a", "b", 100)
    await settled()
    await rig.bus.answer_all()
    with pytest.raises(BusUnavailable):
        await one
    results = await batch
    assert [type(result) for result in results] == [BusUnavailable] * 100
    assert len(rig.bus.taken) == 1 + SLICE
    assert rig.idle()


async def test_a_batch_during_which_the_bus_goes_away_says_what_was_appended() -> None:
    rig = Rig()
    batch = rig.many("a", "b", 50)
    await settled()
    await rig.bus.answer()
    await rig.bus.answer()
    rig.bus.away = True
    await rig.bus.answer_all()
    results = await batch
    assert [type(result) for result in results] == [Receipt] * 2 * SLICE + [BusUnavailable] * 30
    assert rig.idle()


async def test_a_fault_of_the_bus_frees_the_turn() -> None:
    rig = Rig()
    one, batch = rig.one("a", "n"), rig.many("a", "b", 5)
    await settled()
    for _, future in rig.bus.open:
        future.set_exception(RuntimeError("a bug"))
    for task in (one, batch):
        with pytest.raises(RuntimeError):
            await task
    assert rig.idle()


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.tuples(st.sampled_from("abc"), st.integers(1, 30), st.booleans()), max_size=60), st.integers()
)
def test_whatever_comes_and_goes_everybody_gets_a_turn_and_nothing_is_left(
    requests: list[tuple[str, int, bool]], seed: int
) -> None:
    async def run() -> None:
        choice = random.Random(seed)
        turns = Turns(TurnSettings(slice_units=7, in_flight_units=12))
        served = 0

        async def one(tenant: str, units: int) -> None:
            nonlocal served
            place = turns.enter(tenant, 1, units)
            try:
                await place.turn(units)
                assert turns.in_flight <= 12 or turns.in_flight == units
                for _ in range(choice.randrange(4)):
                    await asyncio.sleep(0)
                served += 1
            finally:
                place.leave()

        tasks = [start(one(tenant, units)) for tenant, units, _ in requests]
        for task, (_, _, cancelled) in zip(tasks, requests, strict=True):
            if choice.random() < 0.5:
                await asyncio.sleep(0)
            if cancelled:
                task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        assert all(task.cancelled() or task.exception() is None for task in tasks)
        assert served >= sum(not cancelled for _, _, cancelled in requests)
        assert (turns.in_flight, turns.waiting, len(turns._ring), len(turns._queues)) == (0, 0, 0, 0)

    asyncio.run(run())
