"""Turns of tenants at the append: round robin over tenants, first come first served inside one, batches in
slices. The bus is a fake that answers when the test says so; no time passes.
"""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from dualcast.gateway.batch import Lines
from dualcast.model.errors import DualcastError
from dualcast.model.publication import Receipt
from dualcast.publishing.requests import NotificationRequest, Target
from dualcast.publishing.turns import TurnSettings
from support.turns_rig import ROOM, SLICE, Rig, principal, request, settled, start

pytestmark = pytest.mark.anyio


async def test_while_there_is_room_nobody_waits() -> None:
    rig = Rig()
    tasks = [rig.one("a" if number % 2 else "b", f"n{number}") for number in range(ROOM)]
    await asyncio.sleep(0)  # one turn of the loop: no request was put off
    assert len(rig.bus.open) == ROOM
    assert (rig.turns.waited, rig.turns.waiting) == (0, 0)
    await rig.bus.answer_all()
    assert [(await task).id for task in tasks] == [f"n{number}" for number in range(ROOM)]
    assert rig.idle()


async def test_one_request_gets_its_turn_after_at_most_one_slice_of_a_flood() -> None:
    rig = Rig()
    flood = [rig.many("loud", f"f{number}-", 100) for number in range(10)]
    singles = [rig.one("loud", f"s{number}") for number in range(200)]
    await settled()
    assert rig.turns.waiting >= 1_000
    for turn in range(5):
        before = len(rig.bus.taken)
        quiet = rig.one("quiet", f"q{turn}")
        await settled()
        while f"q{turn}" not in rig.ids():
            await rig.bus.answer()
        mine = rig.ids().index(f"q{turn}")
        assert mine - before <= SLICE
        await rig.bus.answer_all() if turn == 4 else await rig.bus.answer(2)
    assert (await quiet).id == "q4"
    for task in flood:
        assert all(isinstance(result, Receipt) for result in await task)
    await asyncio.gather(*singles)
    assert rig.idle()


async def test_two_floods_share_by_units_and_not_by_requests() -> None:
    rig = Rig()
    tasks: list[asyncio.Task[Any]] = [rig.many("batches", f"b{number}-", 100) for number in range(8)]
    tasks += [rig.one("singles", f"s{number}") for number in range(800)]
    tasks += [rig.one("wide", f"w{number}", users=SLICE) for number in range(80)]
    await settled()
    await rig.bus.answer_all()
    contended = rig.bus.taken[ROOM:600]
    units = dict.fromkeys(("batches", "singles", "wide"), 0)
    for draft in contended:
        units[draft.tenant] += len(draft.channels)
    assert max(units.values()) - min(units.values()) <= 3 * SLICE
    await asyncio.gather(*tasks)
    assert rig.idle()


async def test_inside_a_tenant_it_is_first_come_first_served() -> None:
    rig = Rig()
    tasks = [rig.one("a", f"n{number}") for number in range(100)]
    await settled()
    await rig.bus.answer_all()
    assert rig.ids() == [f"n{number}" for number in range(100)]
    await asyncio.gather(*tasks)


async def test_a_batch_gives_way_to_its_own_tenant_too() -> None:
    rig = Rig()
    batches = [rig.many("a", f"b{number}-", 100) for number in range(3)]
    await settled()
    one = rig.one("a", "small")
    await settled()
    await rig.bus.answer_all()
    assert rig.ids().index("small") <= ROOM + 3 * SLICE
    await asyncio.gather(one, *batches)


async def test_the_order_inside_a_batch_and_a_result_for_each_item() -> None:
    rig = Rig()
    rig.many("loud", "x", 100)
    lines = [
        b'{"to":{"user":"u"},"title":"t","id":"i%d"}' % number if number % 7 else b'{"title":%d}' % number
        for number in range(95)
    ]
    items = Lines(b"\n".join(lines), max_items=100, max_item_bytes=1_000)
    task = start(rig.publisher.publish_many(principal("a"), items))
    await settled()
    await rig.bus.answer_all()
    results = await task
    good = [f"i{number}" for number in range(95) if number % 7]
    assert [draft.id for draft in rig.bus.taken if draft.tenant == "a"] == good
    assert [result.id for result in results if isinstance(result, Receipt)] == good
    assert [index for index, one in enumerate(results) if isinstance(one, DualcastError)] == [
        *range(0, 95, 7)
    ]
    assert rig.idle()


class CountedLines(Lines):
    """Tells how many items have been decoded."""

    decoded = 0

    def __getitem__(self, index: Any) -> Any:
        found = super().__getitem__(index)
        self.decoded += len(found)
        return found


async def test_a_waiting_batch_is_not_even_decoded_before_its_turn() -> None:
    rig = Rig()
    rig.many("loud", "x", 100)
    rig.many("loud", "y", 100)
    await settled()
    body = b"\n".join(b'{"to":{"user":"u"},"title":"t"}' for _ in range(50))
    items = CountedLines(body, max_items=100, max_item_bytes=1_000)
    task = start(rig.publisher.publish_many(principal("loud"), items))
    await settled()
    assert items.decoded == 0
    while not items.decoded:
        await rig.bus.answer()
    assert items.decoded == SLICE
    await rig.bus.answer_all()
    assert len(await task) == items.decoded == 50


async def test_of_large_items_fewer_make_a_slice() -> None:
    rig = Rig(TurnSettings(slice_units=100, in_flight_units=200))
    body = b"\n".join(
        b'{"to":{"user":"u"},"title":"t","data":{"x":"%s"}}' % (b"x" * 50_000) for _ in range(20)
    )
    items = CountedLines(body, max_items=100, max_item_bytes=60_000)
    task = start(rig.publisher.publish_many(principal("a"), items, size=len(body)))
    await settled()
    assert items.decoded == 5  # 256 KiB
    await rig.bus.answer_all()
    assert len(await task) == 20


async def test_drafts_to_many_channels_take_several_turns() -> None:
    rig = Rig()
    items = [request(f"w{number}", users=SLICE - 1) for number in range(SLICE)]
    task = start(rig.publisher.publish_many(principal("a"), items))
    await settled()
    assert len(rig.bus.taken) == 1
    quiet = rig.one("b", "q")
    await settled()
    await rig.bus.answer_all()
    assert rig.ids().index("q") <= 2
    assert [draft.id for draft in rig.bus.taken if draft.tenant == "a"] == [one.id for one in items]
    assert len(await task) == SLICE
    await quiet
    assert rig.idle()


async def test_what_is_larger_than_the_room_goes_alone_and_is_paid_for() -> None:
    rig = Rig()
    first = rig.one("a", "first")
    large = [rig.one("a", f"large{number}", users=5 * ROOM) for number in range(2)]
    others = [rig.one("b", f"b{number}") for number in range(6 * SLICE)]
    await settled()
    assert rig.ids() == ["first"]
    await rig.bus.answer_all()
    ids = rig.ids()
    # In debt by nine rounds, `a` waits for all that `b` had.
    assert ids.index("large1") - ids.index("large0") > 6 * SLICE - ROOM
    await asyncio.gather(first, *large, *others)
    assert rig.idle()


async def test_what_other_rooms_are_asked_for_is_waited_for_without_a_turn() -> None:
    asked: list[asyncio.Future[str]] = []

    async def slow(tenant: str, connection: str) -> str:
        asked.append(asyncio.get_running_loop().create_future())
        return await asked[-1]

    rig = Rig(resolve_connection=slow)
    items = [NotificationRequest(to=Target(connection="c"), id=f"i{n}", title="t") for n in range(SLICE)]
    batches = [start(rig.publisher.publish_many(principal("a"), items)) for _ in range(5)]
    await settled()
    assert rig.turns.in_flight == 0
    quiet = rig.one("b", "q")
    await settled()
    assert rig.ids() == ["q"]
    for one in asked:
        one.set_result("u")
    await settled()
    await rig.bus.answer_all()
    assert [len(await task) for task in batches] == [SLICE] * 5
    await quiet
    assert rig.idle()
