"""The SQL inbox: beside the log of the sqlite engine in its file, of the memory engine in memory."""

from __future__ import annotations

import sqlite3
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from heapq import merge
from itertools import chain
from typing import TypeVar

from dualcast.bus.storage import Database
from dualcast.model.inbox import Badge, State

from .port import MAX_IDS, MAX_SCAN, STATES, Action, Found, InboxItem, Marked, Numbered
from .sql_accounts import Account, badge, is_due, load, ready, remember_wide_counts, tidy
from .sql_change import change_all, change_some
from .sql_numbered import numbered
from .states import NO_END, NUMBER

T = TypeVar("T")
ITEMS = (
    "SELECT offset, id, kind, state, record FROM inbox_item WHERE user_no = ? AND offset < ? "
    "ORDER BY offset DESC"
)
ITEMS_IN_STATE = (
    "SELECT offset, id, kind, state, record FROM inbox_item INDEXED BY inbox_item_state "
    "WHERE user_no = ? AND offset < ? AND state = ? ORDER BY offset DESC"
)
WIDE = (
    "SELECT w.offset, w.id, w.kind, m.state, w.record FROM inbox_wide w "
    "LEFT JOIN inbox_mark m ON m.user_no = ? AND m.offset = w.offset "
    "WHERE w.tenant_no = ? AND w.offset < ? AND w.offset > ? ORDER BY w.offset DESC"
)
MARKED = (
    "SELECT w.offset, w.id, w.kind, m.state, w.record FROM inbox_mark m "
    "CROSS JOIN inbox_wide w ON w.tenant_no = ? AND w.offset = m.offset "
    "WHERE m.user_no = ? AND m.offset < ? AND (m.offset <= ? OR m.offset > ?) ORDER BY m.offset DESC"
)
UNREAD_KINDS = (
    "SELECT kind, count(*) FROM inbox_item INDEXED BY inbox_item_state "
    "WHERE user_no = ? AND state IN (0, 1) GROUP BY kind"
)
_Row = tuple[int, str, str, int, bytes, bool]


class SqlInbox:
    """`InboxStore` over a database that has `sql_rider.inbox_part`. `clock` gives Unix seconds."""

    def __init__(self, database: Database, *, clock: Callable[[], float] = time.time) -> None:
        self._database = database
        self._clock = clock

    async def page(
        self,
        tenant: str,
        user: str,
        *,
        before: int = 0,
        limit: int = 50,
        states: Sequence[State] = (),
        kinds: Sequence[str] = (),
    ) -> Found:
        wanted = frozenset(NUMBER[state] for state in states) or frozenset(range(4))
        of_kinds = frozenset(kinds)

        def work(db: sqlite3.Connection, account: Account) -> Found:
            found: list[InboxItem] = []
            last = 0
            rows = _rows(db, account, before or NO_END, wanted)
            for scanned, (offset, ident, kind, state, record, wide) in enumerate(rows):
                if len(found) == limit or scanned == MAX_SCAN:
                    return Found(tuple(found), last, badge(db, account))
                last = offset
                if state in wanted and (not of_kinds or kind in of_kinds):
                    found.append(InboxItem(ident, offset, kind, STATES[state], wide, record))
            return Found(tuple(found), 0, badge(db, account))

        return await self._read(tenant, user, work)

    async def numbered(
        self,
        tenant: str,
        user: str,
        *,
        skip: int,
        limit: int,
        states: Sequence[State] = (),
        kinds: Sequence[str] = (),
    ) -> Numbered:
        wanted = frozenset(NUMBER[state] for state in states) or frozenset(range(4))
        of_kinds = frozenset(kinds)
        return await self._read(
            tenant, user, lambda db, account: numbered(db, account, skip, limit, wanted, of_kinds)
        )

    async def counts(self, tenant: str, user: str) -> Badge:
        return await self._read(tenant, user, badge)

    async def counts_by_kind(self, tenant: str, user: str) -> tuple[Badge, dict[str, int]]:
        def work(db: sqlite3.Connection, account: Account) -> tuple[Badge, dict[str, int]]:
            kinds = Counter(dict(db.execute(UNREAD_KINDS, (account.user_no,)).fetchall()))
            unread = frozenset((0, 1))
            wide = chain(_wide(db, account, NO_END, unread), _marked(db, account, NO_END, unread))
            kinds.update(row[2] for row in wide if row[3] < 2)
            return badge(db, account), dict(kinds)

        return await self._read(tenant, user, work)

    async def change(
        self,
        tenant: str,
        user: str,
        action: Action,
        ids: Sequence[str] | None,
        *,
        states: Sequence[State] = (),
    ) -> Marked:
        def work(db: sqlite3.Connection) -> Marked:
            now_ms = self._now_ms()
            account = ready(db, tenant, user, now_ms)
            if ids is None:
                numbers = frozenset(NUMBER[state] for state in states)
                unknown: list[str] = []
                changed = change_all(db, account, user, action, numbers, now_ms)
            else:
                changed, unknown = change_some(db, account, user, action, ids, now_ms)
            tidy(db, now_ms)
            after = load(db, tenant, user)
            assert after is not None
            return Marked(
                tuple(changed[:MAX_IDS]),
                tuple(unknown),
                len(changed),
                badge(db, remember_wide_counts(db, after)),
            )

        return await self._database.write(work)

    async def withdraw(self, tenant: str, ident: str) -> int | None:
        def work(db: sqlite3.Connection) -> int | None:
            account = ready(db, tenant, "", self._now_ms())
            gone = db.execute(
                "DELETE FROM inbox_wide WHERE tenant_no = ? AND id = ?", (account.tenant_no, ident)
            ).rowcount
            after = load(db, tenant, "")
            return after.tenant_revision if gone and after is not None else None

        return await self._database.write(work)

    async def _read(self, tenant: str, user: str, work: Callable[[sqlite3.Connection, Account], T]) -> T:
        """Reads, and only when something has expired since, or the tenant is new, writes first."""

        def attempt(db: sqlite3.Connection) -> tuple[T] | None:
            account = load(db, tenant, user)
            return None if account is None or is_due(account, self._now_ms()) else (work(db, account),)

        done = await self._database.read(attempt)
        if done is not None:
            return done[0]
        return await self._database.write(lambda db: work(db, ready(db, tenant, user, self._now_ms())))

    def _now_ms(self) -> int:
        return int(self._clock() * 1000)


def _rows(db: sqlite3.Connection, account: Account, before: int, states: frozenset[int]) -> Iterator[_Row]:
    """Both kinds of items in one order, newest first, read as far as they are taken. Personal ones come
    filtered."""
    sources = [_wide(db, account, before, states), _marked(db, account, before, states)]
    if account.items:
        user_no = account.user_no
        if len(states) == len(STATES):
            sources.append((*row, False) for row in db.execute(ITEMS, (user_no, before)))
        else:
            sources += [_in_state(db, user_no, before, state) for state in states]
    return merge(*sources, key=lambda row: -row[0])


def _in_state(db: sqlite3.Connection, user_no: int, before: int, state: int) -> Iterator[_Row]:
    return ((*row, False) for row in db.execute(ITEMS_IN_STATE, (user_no, before, state)))


def _wide(db: sqlite3.Connection, account: Account, before: int, states: frozenset[int]) -> Iterator[_Row]:
    """Tenant-wide items among which those in `states` are, but for `_marked`."""
    if not account.wide_items:
        return
    watermarks = account.watermarks
    low, high = watermarks.span(states)
    rows = db.execute(WIDE, (account.user_no, account.tenant_no, min(before, high + 1), low))
    for offset, ident, kind, marked, record in rows:
        yield offset, ident, kind, watermarks.state(offset) if marked is None else marked, record, True


def _marked(db: sqlite3.Connection, account: Account, before: int, states: frozenset[int]) -> Iterator[_Row]:
    """Those that only a mark can put into one of `states`."""
    if account.wide_items:
        low, high = account.watermarks.span(states)
        rows = db.execute(MARKED, (account.tenant_no, account.user_no, before, low, high))
        yield from ((*row, True) for row in rows)
