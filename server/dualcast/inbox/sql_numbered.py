"""Numbered pages of the SQL inbox: with filters every item is looked at, and only those of the page are
read."""

from __future__ import annotations

import sqlite3
from collections.abc import Set as AbstractSet

from .port import MAX_NUMBERED, STATES, InboxItem, Numbered
from .sql_accounts import Account

_OWN = "SELECT offset, kind, state FROM inbox_item WHERE user_no = ? ORDER BY offset DESC LIMIT ?"
_WIDE = (
    "SELECT w.offset, w.kind, m.state FROM inbox_wide w "
    "LEFT JOIN inbox_mark m ON m.user_no = ? AND m.offset = w.offset "
    "WHERE w.tenant_no = ? ORDER BY w.offset DESC LIMIT ?"
)
_OWN_RECORD = "SELECT id, record FROM inbox_item WHERE user_no = ? AND offset = ?"
_WIDE_RECORD = "SELECT id, record FROM inbox_wide WHERE tenant_no = ? AND offset = ?"


def numbered(
    db: sqlite3.Connection,
    account: Account,
    skip: int,
    limit: int,
    wanted: AbstractSet[int],
    kinds: AbstractSet[str],
) -> Numbered:
    """`InboxStore.numbered` for an account from which everything expired was taken out. `wanted`: numbers of
    states; `kinds` empty: every one."""
    found: list[tuple[int, str, int, bool]] = []
    total = 0
    if account.items:
        looked = MAX_NUMBERED
        if not kinds and len(wanted) == len(STATES):
            looked = min(skip + limit, MAX_NUMBERED)  # the others are older than this page, and counted
        rows = db.execute(_OWN, (account.user_no, looked))
        found += [(offset, kind, state, False) for offset, kind, state in rows]
        total = max(0, min(account.items, MAX_NUMBERED) - looked)
    if account.wide_items:
        state_at = account.watermarks.state
        rows = db.execute(_WIDE, (account.user_no, account.tenant_no, MAX_NUMBERED))
        found += [
            (offset, kind, state_at(offset) if marked is None else marked, True)
            for offset, kind, marked in rows
        ]
    found = [row for row in found if row[2] in wanted and (not kinds or row[1] in kinds)]
    found.sort(reverse=True)
    return Numbered(
        tuple(_item(db, account, *row) for row in found[skip : skip + limit]),
        total + len(found),
    )


def _item(
    db: sqlite3.Connection, account: Account, offset: int, kind: str, state: int, wide: bool
) -> InboxItem:
    where = (account.tenant_no if wide else account.user_no, offset)
    ident, record = db.execute(_WIDE_RECORD if wide else _OWN_RECORD, where).fetchone()
    return InboxItem(ident, offset, kind, STATES[state], wide, record)
