"""The accounts themselves: each kind of fault is seen, and a clean run is clean."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from support.accounting import Acknowledged, Arrival, Changes, account
from support.fleet import StreamClient

pytestmark = pytest.mark.anyio

SENT = [Acknowledged(f"p{n}", n, frozenset({"all"}), f"e-{n}") for n in (1, 2, 3)]


def copy(
    number: int, *, connection: int = 1, ident: str = "", cursor: str = "", channel: str = "all"
) -> Arrival:
    return Arrival(connection, ident or f"p{number}", number, channel, cursor or f"e-{number}")


@pytest.mark.parametrize(
    ("arrivals", "fault"),
    [
        ([copy(1), copy(2), copy(3)], None),
        ([copy(1), copy(2), copy(2, connection=2), copy(3, connection=2)], None),
        ([copy(1), copy(3)], "missing"),
        ([copy(1), copy(2), copy(2), copy(3)], "doubled_on_connection"),
        ([copy(1), copy(2), copy(3), copy(3, connection=2, ident="other")], "doubled_after_id"),
        ([copy(1), copy(3), copy(2)], "out_of_order"),
        ([copy(1), copy(2), copy(3, cursor="e-4")], "wrong_cursor"),
        ([copy(1), copy(2), copy(3), copy(4, channel="user:other")], "strangers"),
    ],
)
async def test_each_fault_is_counted(arrivals: Sequence[Arrival], fault: str | None) -> None:
    client = StreamClient("c", "u", [], [], Changes())
    client.arrivals.extend(arrivals)
    found = account([client], SENT)
    assert found.due == 3
    if fault is None:
        assert found.faults == 0
    else:
        assert getattr(found, fault) == 1, found.table()
