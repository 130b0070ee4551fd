"""Changes a user makes to the SQL inbox: states and deletions. Counters of personal items follow by
trigger."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Sequence

from .port import DELETED, STATES, Action
from .sql_accounts import Account, add_user
from .states import SEEN, TARGET, changed, marks

_Item = tuple[int, str, int]
"""Offset, id, state."""
ITEMS_BY_ID = (
    "SELECT offset, id, state FROM inbox_item WHERE user_no = ? AND id IN (SELECT value FROM json_each(?))"
)
ITEMS_BY_STATE = (
    "SELECT offset, id, state FROM inbox_item INDEXED BY inbox_item_state "
    "WHERE user_no = ? AND state IN (SELECT value FROM json_each(?))"
)
_WIDE = (
    "SELECT w.offset, w.id, m.state FROM inbox_wide w "
    "LEFT JOIN inbox_mark m ON m.user_no = ? AND m.offset = w.offset WHERE w.tenant_no = ? AND "
)
WIDE_BY_ID = _WIDE + "w.id IN (SELECT value FROM json_each(?))"  # noqa: S608 - a constant
WIDE_AFTER = _WIDE + "w.offset > ?"
_MARK = (
    "INSERT INTO inbox_mark(user_no, offset, state) VALUES (?, ?, ?) "
    "ON CONFLICT DO UPDATE SET state = excluded.state"
)
_DUE = (
    "UPDATE inbox_user SET due_ms = min(due_ms, coalesce((SELECT min(w.due_ms) FROM inbox_mark m "
    "JOIN inbox_wide w ON w.tenant_no = ?2 AND w.offset = m.offset WHERE m.user_no = ?1), due_ms)) "
    "WHERE no = ?1"
)


def change_some(
    db: sqlite3.Connection, account: Account, user: str, action: Action, ids: Sequence[str], now_ms: int
) -> tuple[list[str], list[str]]:
    """(Ids changed, ids not there)."""
    text = json.dumps(list(ids))
    personal: list[_Item] = db.execute(ITEMS_BY_ID, (account.user_no, text)).fetchall()
    wide = _wide(db, account, WIDE_BY_ID, text)
    known = {row[1] for row in personal} | {row[1] for row in wide}
    personal = [row for row in personal if changed(action, row[2]) != row[2]]
    wide = [row for row in wide if changed(action, row[2]) != row[2]]
    _change_items(db, account, action, personal)
    _mark(db, account, user, action, wide, now_ms)
    hit = {row[1] for row in personal} | {row[1] for row in wide}
    return [ident for ident in ids if ident in hit], [ident for ident in ids if ident not in known]


def change_all(
    db: sqlite3.Connection,
    account: Account,
    user: str,
    action: Action,
    states: frozenset[int],
    now_ms: int,
) -> list[str]:
    """Ids changed, newest first. `states`: only what is in one of them; empty: everything."""
    due = [
        state
        for state in range(len(STATES))
        if changed(action, state) != state and (not states or state in states)
    ]
    personal: list[_Item] = db.execute(ITEMS_BY_STATE, (account.user_no, json.dumps(due))).fetchall()
    _change_items(db, account, action, personal)
    everything = _wide(db, account, WIDE_AFTER, account.watermarks.deleted_to)
    wide = [row for row in everything if row[2] in due]
    if states:
        _mark(db, account, user, action, wide, now_ms)
    elif wide:
        _raise(db, account, user, action, everything, now_ms)
    hit = sorted((*personal, *wide), reverse=True)
    return list(dict.fromkeys(ident for _, ident, _ in hit))


def _wide(db: sqlite3.Connection, account: Account, query: str, which: str | int) -> list[_Item]:
    """Tenant-wide items as they stand for the user, without those deleted."""
    if not account.wide_items:
        return []
    state_of = account.watermarks.state
    rows = (
        (offset, ident, state_of(offset) if marked is None else marked)
        for offset, ident, marked in db.execute(query, (account.user_no, account.tenant_no, which))
    )
    return [row for row in rows if row[2] != DELETED]


def _change_items(db: sqlite3.Connection, account: Account, action: Action, items: Sequence[_Item]) -> None:
    if not items:
        return
    where = "WHERE user_no = ? AND offset IN (SELECT value FROM json_each(?))"
    which = (account.user_no, json.dumps([row[0] for row in items]))
    if action == "deleted":
        db.execute(f"DELETE FROM inbox_item {where}", which)  # noqa: S608 - a constant
    else:
        state = SEEN if action == "unread" else TARGET[action]
        db.execute(f"UPDATE inbox_item SET state = ? {where}", (state, *which))  # noqa: S608 - a constant


def _mark(
    db: sqlite3.Connection,
    account: Account,
    user: str,
    action: Action,
    items: Sequence[_Item],
    now_ms: int,
) -> None:
    """Tenant-wide items one by one."""
    if not items:
        return
    user_no = account.user_no or add_user(db, account, user, now_ms)
    for offset, _, state in items:
        new = changed(action, state)
        if account.watermarks.state(offset) == new:
            db.execute("DELETE FROM inbox_mark WHERE user_no = ? AND offset = ?", (user_no, offset))
        else:
            db.execute(_MARK, (user_no, offset, new))
    _touched(db, account, user_no)


def _raise(
    db: sqlite3.Connection,
    account: Account,
    user: str,
    action: Action,
    items: Sequence[_Item],
    now_ms: int,
) -> None:
    """All tenant-wide items there are, by watermark; marks stay where they say something else."""
    user_no = account.user_no or add_user(db, account, user, now_ms)
    watermarks = account.watermarks.after(action, max(row[0] for row in items))
    db.execute(
        "UPDATE inbox_user SET seen_to = ?, read_to = ?, archived_to = ?, deleted_to = ? WHERE no = ?",
        (*watermarks, user_no),
    )
    kept = db.execute(
        "SELECT offset, state FROM inbox_mark WHERE user_no = ? AND state = ?", (user_no, DELETED)
    ).fetchall()
    states = [(offset, changed(action, state)) for offset, _, state in items] + kept
    db.execute("DELETE FROM inbox_mark WHERE user_no = ?", (user_no,))
    db.executemany(_MARK, [(user_no, offset, state) for offset, state in marks(watermarks, states)])
    _touched(db, account, user_no)


def _touched(db: sqlite3.Connection, account: Account, user_no: int) -> None:
    db.execute("UPDATE inbox_user SET revision = revision + 1, wide_at = -1 WHERE no = ?", (user_no,))
    db.execute(_DUE, (user_no, account.tenant_no))
