"""What every engine's evidence store promises: sums over all nodes, sliding windows, bounded size and age."""

from __future__ import annotations

import asyncio
from itertools import pairwise

import pytest

from dualcast_migration.census import MAX_ROWS, MAX_ROWS_PER_USER, Row
from dualcast_migration.evidence.port import MAX_MISMATCHES, ROW_S
from dualcast_migration.figures import lag
from dualcast_migration.sketch import ROW_SIZE, WINDOW_SIZE, cut
from support.evidence_rig import ENGINES, Factory, change, live

pytestmark = pytest.mark.anyio
CHROME = Row("sse", "native", "Chrome 130", "1.2", "https://a.example", True)


@pytest.fixture(params=sorted(ENGINES))
def engine(request: pytest.FixtureRequest) -> Factory:
    return ENGINES[request.param]


async def test_a_window_sums_up_all_nodes(engine: Factory) -> None:
    async with engine() as rig:
        await rig.record(node="n1", figures={"ws_opened": 3, "ws_fell_back": 1, lag("ws", 4): 7})
        await rig.record(node="n2", figures={"ws_opened": 2, "ws_closed": 2, "ws_abnormal": 1})
        found = await rig.store.window(rig.tenant, 60)
        assert (found.ws_opened, found.ws_fell_back, found.ws_closed, found.ws_abnormal) == (5, 1, 2, 1)
        assert found.ws_lag[4] == 7 and sum(found.ws_lag) == 7
        assert found.seconds == 60
        assert found.attempts == 6 and found.failed == 1


async def test_users_in_trouble_are_counted_once_over_all_nodes(engine: Factory) -> None:
    async with engine() as rig:
        await rig.record(node="n1", marks=rig.marks("ann", "bob", "cy"), troubled=rig.marks("ann"))
        await rig.record(node="n2", troubled=rig.marks("ann", "dan"))
        found = await rig.store.window(rig.tenant, 60)
        assert (found.users, found.troubled) == (3, 2)
        await rig.elapse(600)
        assert (await rig.store.window(rig.tenant, 60)).troubled == 0
        assert (await rig.store.window(rig.tenant, 1_800)).troubled == 2


async def test_names_of_a_newer_node_are_left_out(engine: Factory) -> None:
    async with engine() as rig:
        await rig.record(figures={"ws_opened": 1, "invented_later": 9})
        assert (await rig.store.window(rig.tenant, 60)).ws_opened == 1


async def test_the_window_slides_and_longer_ones_reach_back(engine: Factory) -> None:
    async with engine() as rig:
        await rig.count(ws_opened=1)
        await rig.elapse(600)
        await rig.count(ws_opened=10)
        assert (await rig.store.window(rig.tenant, 60)).ws_opened == 10
        assert (await rig.store.window(rig.tenant, 300)).ws_opened == 10
        assert (await rig.store.window(rig.tenant, 1_800)).ws_opened == 11
        assert (await rig.store.window(rig.tenant, 7_200)).ws_opened == 11
        await rig.elapse(4_200)
        assert (await rig.store.window(rig.tenant, 3_600)).ws_opened == 0
        assert (await rig.store.window(rig.tenant, 7_200)).ws_opened == 11


async def test_what_is_too_old_is_forgotten(engine: Factory) -> None:
    async with engine() as rig:
        await rig.count(ws_opened=1)
        await rig.elapse(3 * 86_400 + 1_200)
        await rig.count(sse_opened=1)
        assert (await rig.store.window(rig.tenant, 3 * 86_400)).ws_opened == 0
        assert await rig.leftovers() == 3


async def test_a_batch_that_is_told_twice_counts_once(engine: Factory) -> None:
    async with engine() as rig:
        batch = await rig.record(
            figures={"ws_opened": 5}, rows=(change(CHROME, 5),), mismatches=(b"one",), live={CHROME: 5}
        )
        await rig.store.record(rig.tenant, batch)
        assert (await rig.store.window(rig.tenant, 60)).ws_opened == 5
        (row,) = (await rig.store.census(rig.tenant)).rows
        assert (row.connects, row.live) == (5, 5)
        assert len(await rig.store.mismatches(rig.tenant, 0, 10)) == 1
        await rig.record(figures={"ws_opened": 1})
        await rig.record(node="n2", figures={"ws_opened": 1})
        assert (await rig.store.window(rig.tenant, 60)).ws_opened == 7


async def test_the_same_user_on_several_nodes_is_one(engine: Factory) -> None:
    async with engine() as rig:
        await rig.record(node="n1", marks=rig.marks("alice", "bob"))
        await rig.record(node="n2", marks=rig.marks("bob", "carol"))
        assert (await rig.store.window(rig.tenant, 60)).users == 3
        await rig.elapse(600)
        await rig.record(marks=rig.marks("alice", "dave"))
        assert (await rig.store.window(rig.tenant, 60)).users == 2
        assert (await rig.store.window(rig.tenant, 3_600)).users == 4


async def test_many_users_are_told_about_right(engine: Factory) -> None:
    async with engine() as rig:
        marks = [rig.marks(*(f"u{n}" for n in range(at, at + 500))) for at in range(0, 5_000, 500)]
        for part in marks:
            await rig.record(marks=tuple(cut(part, WINDOW_SIZE)))
        users = (await rig.store.window(rig.tenant, 60)).users
        assert 3_500 < users < 6_500  # five standard errors


async def test_tenants_do_not_see_each_other(engine: Factory) -> None:
    async with engine() as rig:
        await rig.record(
            rig.tenant + "-b",
            figures={"ws_opened": 1},
            marks=rig.marks("alice"),
            rows=(change(CHROME),),
            live={CHROME: 1},
            mismatches=(b"x",),
        )
        found = await rig.store.window(rig.tenant, 60)
        assert (found.ws_opened, found.users) == (0, 0)
        assert not (await rig.store.census(rig.tenant)).rows
        assert not await rig.store.mismatches(rig.tenant, 0, 10)


async def test_the_census_counts_by_kind(engine: Factory) -> None:
    async with engine() as rig:
        other = Row("ws", "native", "Firefox 131")
        users = rig.marks("alice", "bob")
        await rig.record(
            node="n1", rows=(change(CHROME, 2, users), change(other)), live={CHROME: 2, other: 1}
        )
        await rig.record(node="n2", rows=(change(CHROME, 1, users[:1]),), live={CHROME: 1})
        census = await rig.store.census(rig.tenant)
        first, second = census.rows
        assert (first.row, first.connects, first.live, first.users) == (CHROME, 3, 3, 2)
        assert (second.row, second.connects, second.live) == (other, 1, 1)
        assert first.first_ms <= first.last_ms <= census.now_ms
        assert (census.live("sse"), census.live("ws")) == (3, 1)


async def test_odd_texts_come_back_as_they_were(engine: Factory) -> None:
    row = Row("sse", "native", "app:Ä{x}", 'v"1\\2 用户', "https://[::1]:8080")
    async with engine() as rig:
        await rig.record(rows=(change(row, 1, rig.marks("auth0|用户")),), live={row: 1})
        (found,) = (await rig.store.census(rig.tenant)).rows
        assert found.row == row and found.live == 1


async def test_a_node_that_reports_no_more_is_not_counted(engine: Factory) -> None:
    async with engine() as rig:
        await rig.record(node="n1", rows=(change(CHROME),), live={CHROME: 7})
        await rig.record(node="n2", live={CHROME: 2})
        assert (await rig.store.census(rig.tenant)).live("sse") == 9
        await rig.record(node="n2", live={})
        assert (await rig.store.census(rig.tenant)).live("sse") == 7
        await rig.record(node="n1", figures={"ws_opened": 1})  # says nothing of live connections
        assert (await rig.store.census(rig.tenant)).live("sse") == 7
        await rig.elapse(600)
        assert (await rig.store.census(rig.tenant)).live("sse") == 0


async def test_kinds_beyond_the_bound_are_summed_up(engine: Factory) -> None:
    async with engine() as rig:
        rows = [Row("sse", "native", app=str(n)) for n in range(MAX_ROWS + 5)]
        await rig.record(rows=tuple(change(row) for row in rows[:MAX_ROWS]))
        await rig.record(rows=tuple(change(row, 2) for row in rows[MAX_ROWS:]), live={rows[-1]: 3})
        await rig.record(rows=(change(rows[0]),))
        census = await rig.store.census(rig.tenant)
        assert len(census.rows) == MAX_ROWS + 1
        found = {row.row: row for row in census.rows}
        rest = found[Row("sse", "other")]
        assert (rest.connects, rest.live) == (10, 3)
        assert found[rows[0]].connects == 2


async def test_one_user_who_varies_what_it_says_pushes_nobody_out_of_the_census(engine: Factory) -> None:
    async with engine() as rig:
        (liar, honest) = (rig.marks(name) for name in ("liar", "honest"))
        lies = [Row("ws", "native", app=f"lie {n}") for n in range(MAX_ROWS_PER_USER + 30)]
        for one in lies:  # however slowly it is done
            await rig.record(rows=(change(one, 1, liar),))
        await rig.record(rows=(change(lies[0], 1, liar), change(CHROME, 1, (*liar, *honest))))
        found = {row.row: row for row in (await rig.store.census(rig.tenant)).rows}
        assert set(found) == {*lies[:MAX_ROWS_PER_USER], Row("ws", "other"), CHROME}
        assert found[Row("ws", "other")].connects == 30 and found[lies[0]].connects == 2
        await rig.elapse(ROW_S + 600)  # what is forgotten is not held against it any more
        await rig.record(rows=tuple(change(one, 1, liar) for one in lies[:3]))
        assert len((await rig.store.census(rig.tenant)).rows) == 3


async def test_kinds_that_were_not_seen_for_long_make_room(engine: Factory) -> None:
    async with engine() as rig:
        await rig.record(rows=(change(CHROME),))
        await rig.elapse(ROW_S + 600)
        assert not (await rig.store.census(rig.tenant)).rows
        new = Row("ws", "native")
        await rig.record(rows=(change(new),))
        assert [row.row for row in (await rig.store.census(rig.tenant)).rows] == [new]


async def test_a_rows_users_are_bounded(engine: Factory) -> None:
    async with engine() as rig:
        for at in range(0, 1_000, 50):
            marks = rig.marks(*(f"u{n}" for n in range(at, at + 50)))
            await rig.record(rows=(change(CHROME, 50, marks[:ROW_SIZE]),))
        (row,) = (await rig.store.census(rig.tenant)).rows
        assert row.connects == 1_000 and 400 < row.users < 1_700


async def test_mismatches_are_kept_the_newest_first(engine: Factory) -> None:
    async with engine() as rig:
        for at in range(0, MAX_MISMATCHES + 20, 20):
            await rig.record(mismatches=tuple(b"\x00%d" % n for n in range(at, at + 20)))
        page = await rig.store.mismatches(rig.tenant, 0, 30)
        last = MAX_MISMATCHES + 19
        assert [one.record for one in page] == [b"\x00%d" % n for n in range(last, last - 30, -1)]
        assert all(one.number > two.number for one, two in pairwise(page))
        rest = await rig.store.mismatches(rig.tenant, page[-1].number, 10_000)
        assert len(rest) == MAX_MISMATCHES - 30
        assert rest[-1].record == b"\x0020"


async def test_nodes_tell_at_the_same_time(engine: Factory) -> None:
    async with engine() as rig:
        await asyncio.gather(*(rig.record(node=f"n{n}", figures={"ws_opened": 1}) for n in range(20)))
        assert (await rig.store.window(rig.tenant, 60)).ws_opened == 20


async def test_live_of_a_kind_without_a_row_are_the_rests(engine: Factory) -> None:
    async with engine() as rig:
        await rig.record(live=live(one=2, two=1))
        (row,) = (await rig.store.census(rig.tenant)).rows
        assert (row.row, row.live) == (Row("sse", "other"), 3)
