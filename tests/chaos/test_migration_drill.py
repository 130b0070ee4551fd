"""The migration drill with small numbers: to WebSocket first and back, with a node killed on the way, and the
guard."""

from __future__ import annotations

from pathlib import Path

import pytest

from chaos.migration import Plan, migration_drill
from chaos.migration_account import Ledger
from chaos.migration_guard import guard_drill
from support.accounting import Changes

pytestmark = pytest.mark.anyio

QUICK = {"delivery.move_spread_s": 3, "delivery.move_grace_s": 2}
SMALL = Plan(clients=24, rate=6, seconds=1.5, settings=QUICK)


async def test_a_tenant_goes_forth_and_back_while_a_node_is_killed_and_nobody_misses_anything(
    tmp_path: Path,
) -> None:
    outcome = await migration_drill(tmp_path, SMALL, whole=False)
    print(outcome.report())
    assert outcome.faults == []
    rows = {row.name: row for row in outcome.ledger.rows}
    assert all(row.published and row.due == row.received for row in rows.values())
    # Everybody went over, everybody was silenced on SSE, everybody came back.
    assert rows["shadow"].moved == rows["back to sse"].moved == 24
    assert rows["fallback"].muted == rows["fallback"].covered == 24
    assert rows["back to sse"].muted == 0


@pytest.mark.parametrize("from_the_start", [False, True])
async def test_the_guard_steps_back_once_when_upgrades_fail_and_nobody_misses_anything(
    tmp_path: Path, from_the_start: bool
) -> None:
    """Also where they fail before the tenant comes into the stage: clients say so once, right then."""
    outcome = await guard_drill(tmp_path, SMALL, from_the_start=from_the_start)
    print(outcome.report())
    assert outcome.faults == []
    assert outcome.audited == 1
    assert 0 < outcome.stepped_s <= 10


class Reader:
    """A client that has got nothing yet."""

    kind = "instance"

    def __init__(self, name: str, user: str) -> None:
        self.name = name
        self.user = user
        self.got: set[int] = set()


@pytest.mark.parametrize(
    ("copies", "fault"),
    [
        ([("drill-0000001", "n1"), ("drill-0000002", "n2")], ""),
        ([("drill-0000001", "n1"), ("drill-0000001", "n1"), ("drill-0000002", "n2")], ""),
        ([("drill-0000001", "n1")], "a: 1 missing"),
        ([("drill-0000001", "n1"), ("other", "n1"), ("drill-0000002", "n2")], "a: 1 duplicates after id"),
        (
            [("drill-0000001", "n1"), ("drill-0000002", "n2"), ("drill-0000003", "n3")],
            "a: 1 for somebody else",
        ),
    ],
)
async def test_the_account_sees_every_kind_of_fault(copies: list[tuple[str, str]], fault: str) -> None:
    ledger = Ledger(Changes())
    reader = Reader("one", "u1")
    ledger.join(reader)
    ledger.step("a")
    for number, user in ((1, ""), (2, "u1"), (3, "u2")):
        ledger.sent(number, user)
        ledger.accepted(number)
    for ident, title in copies:
        ledger.came(reader, ident, title)
    ledger.close()
    assert ledger.faults[:1] == ([fault] if fault else [])
    assert ledger.missed["instance"] == (fault == "a: 1 missing")
    assert ledger.rows[0].twice == (1 if len(copies) == 3 and not fault else 0)
