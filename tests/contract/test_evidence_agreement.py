"""The evidence stores of all engines give the same answers after the same operations, whatever they are."""

from __future__ import annotations

import random
from contextlib import AsyncExitStack
from typing import Any

import pytest
from msgspec.structs import replace

from dualcast_migration.census import Row
from dualcast_migration.evidence.port import Batch
from dualcast_migration.figures import lag
from support.evidence_rig import ENGINES, change

pytestmark = pytest.mark.anyio
NAMES = ("ws_opened", "ws_abnormal", "mismatched", lag("ws", 14))
ROWS = tuple(
    Row(transport, "native", agent, app, "", instance)
    for transport in ("sse", "ws")
    for agent in ("Chrome 130", 'app:"quoted" 1')
    for app in ("", "ünïcode 1.0")
    for instance in (False, True)
)
TENANT = "agreement"


def users(dice: random.Random) -> tuple[str, ...]:
    """Marks of so many users that a sketch is cut now and then."""
    return tuple(sorted({f"{dice.randrange(16**12):012x}" for _ in range(dice.choice((0, 1, 40)))}))


def batch(dice: random.Random, number: int) -> Batch:
    live = {row: dice.randrange(1, 99) for row in dice.sample(ROWS, dice.randrange(4))}
    return Batch(
        node=f"n{dice.randrange(3)}",
        ident=f"b{number}",
        figures={name: dice.choice((1, 7, 2**33)) for name in dice.sample(NAMES, dice.randrange(4))},
        marks=users(dice),
        troubled=users(dice),
        rows=tuple(change(row, dice.randrange(1, 9), users(dice)) for row in dice.sample(ROWS, 2)),
        live=dice.choice((None, live)),
        lease_s=600.0,
        mismatches=tuple(b"%d-%d" % (number, n) for n in range(dice.randrange(3))),
    )


async def answers(rig: Any) -> dict[str, Any]:
    """All that can be asked, without what a clock says."""
    windows = {seconds: await rig.store.window(TENANT, seconds) for seconds in (300, 3_600, 86_400)}
    census = await rig.store.census(TENANT)
    rows = {one.row: replace(one, first_ms=0, last_ms=0) for one in census.rows}
    kept = await rig.store.mismatches(TENANT, 0, 200)
    page = await rig.store.mismatches(TENANT, kept[3].number, 5) if len(kept) > 3 else []
    return {
        "windows": windows,
        "rows": rows,
        "kept": [one.record for one in kept],
        "page": [one.record for one in page],
    }


@pytest.mark.parametrize("seed", range(3))
async def test_engines_agree_after_random_operations(seed: int) -> None:
    dice = random.Random(seed)
    async with AsyncExitStack() as stack:
        rigs = [await stack.enter_async_context(make()) for make in ENGINES.values()]
        told: list[Batch] = []
        for number in range(30):
            again = bool(told) and dice.random() < 0.2
            one = told[-1] if again else batch(dice, number)
            told.append(one)
            for rig in rigs:
                await rig.store.record(TENANT, one)
        first, *others = [await answers(rig) for rig in rigs]
        assert first["rows"] and first["kept"]
        assert all(other == first for other in others)
