"""The SQL inbox never scans a table: pages and counters cost what they show, not what is stored."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator

import pytest

from dualcast.inbox import sql, sql_accounts, sql_change, sql_rider
from dualcast.inbox.port import InboxSettings
from dualcast.inbox.sql import SqlInbox
from dualcast.inbox.sql_schema import SCHEMA
from support.inbox_engines import memory

STORED = 10_000


@pytest.fixture
def db() -> Iterator[sqlite3.Connection]:
    db = sqlite3.connect(":memory:")
    db.executescript(SCHEMA)
    yield db
    db.close()


QUERIES = {
    "purge ended": sql_accounts.PURGE_ENDED,
    "purge old": sql_accounts.PURGE_OLD,
    "count": sql_rider._COUNT,
    "account": sql_accounts._LOAD,
    "items": sql.ITEMS,
    "items in a state": sql.ITEMS_IN_STATE,
    "wide items": sql.WIDE,
    "marked items": sql.MARKED,
    "unread kinds": sql.UNREAD_KINDS,
    "items by id": sql_change.ITEMS_BY_ID,
    "items by state": sql_change.ITEMS_BY_STATE,
    "wide items by id": sql_change.WIDE_BY_ID,
    "wide items after": sql_change.WIDE_AFTER,
    "add": sql_rider._ADD,
    "trim": sql_rider._TRIM,
    "trim wide": sql_rider._TRIM_WIDE,
}


def plan(db: sqlite3.Connection, query: str) -> list[str]:
    rows = db.execute("EXPLAIN QUERY PLAN " + query, ("[]",) * _parameters(query)).fetchall()
    return [row[3] for row in rows]


def _parameters(query: str) -> int:
    numbered = [number for number in range(1, 10) if f"?{number}" in query]
    return max(numbered) if numbered else query.count("?")


@pytest.mark.parametrize("name", QUERIES)
def test_no_query_scans_a_table(db: sqlite3.Connection, name: str) -> None:
    steps = plan(db, QUERIES[name])
    assert not [step for step in steps if step.startswith("SCAN") and "json_each" not in step], steps
    assert not [step for step in steps if "TEMP B-TREE" in step and name != "unread kinds"], steps


@pytest.mark.anyio
async def test_a_page_of_many_reads_no_more_than_a_page_of_few() -> None:
    """Counted in steps of SQLite's virtual machine, so that it is the same on every machine."""
    costs = []
    for stored in (200, STORED):
        async with memory(InboxSettings(max_items=STORED)) as inboxes:
            for number in range(stored):
                await inboxes.add("t", *(("alice",) if number % 5 else ()), wide=number % 5 == 0)
            store = inboxes.store
            assert isinstance(store, SqlInbox)
            await store.change("t", "alice", "read", None)
            await store.change(
                "t", "alice", "unread", [item.id for item in (await store.page("t", "alice")).items]
            )
            db = inboxes.bus.database._db  # type: ignore[attr-defined]
            steps = 0

            def count() -> int:
                nonlocal steps
                steps += 1
                return 0

            db.set_progress_handler(count, 10)
            await store.page("t", "alice", limit=50)
            await store.page("t", "alice", limit=50, states=("unseen", "seen"))
            await store.counts("t", "alice")
            db.set_progress_handler(None, 0)
            costs.append(steps)
    few, many = costs
    assert many <= few * 1.5, costs
