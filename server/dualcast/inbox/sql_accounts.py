"""A user's row of the SQL inbox: reading it, taking out what has expired, counting tenant-wide items.

Functions over a connection inside a transaction; `now_ms` is Unix milliseconds.
"""

from __future__ import annotations

import sqlite3
from typing import NamedTuple

from dualcast.model.inbox import Badge

from .sql_schema import NEVER_MS
from .states import Watermarks

TIDY_EVERY = 8
TIDIED = 16
"""Every eighth append takes out expired items of so many users: of more than appends can have brought."""
_LOAD = """
SELECT t.no, t.revision, t.items, t.due_ms, u.no, u.revision, u.items, u.unread, u.unseen, u.due_ms,
  u.seen_to, u.read_to, u.archived_to, u.deleted_to, u.wide_at, u.wide_unread, u.wide_unseen, t.birth
FROM inbox_tenant t LEFT JOIN inbox_user u ON u.tenant_no = t.no AND u.name = ? WHERE t.name = ?
"""
PURGE_ENDED = "DELETE FROM inbox_item WHERE user_no = ? AND ends = 1 AND due_ms <= ?"
PURGE_OLD = (
    "DELETE FROM inbox_item WHERE user_no = ?1 AND due_ms <= ?2 AND offset < coalesce((SELECT offset "
    "FROM inbox_item WHERE user_no = ?1 AND due_ms > ?2 ORDER BY offset LIMIT 1), 9223372036854775807)"
)


class Account(NamedTuple):
    """A user's counters and watermarks with the tenant's. `user_no` 0: nothing is stored of the user."""

    tenant_no: int
    tenant_revision: int
    wide_items: int
    tenant_due_ms: int
    user_no: int
    revision: int
    items: int
    unread: int
    unseen: int
    due_ms: int
    watermarks: Watermarks
    wide_at: int
    wide_unread: int
    wide_unseen: int
    birth: int


def load(db: sqlite3.Connection, tenant: str, user: str) -> Account | None:
    """None: nothing is stored of the tenant yet."""
    row = db.execute(_LOAD, (user, tenant)).fetchone()
    if row is None:
        return None
    if row[4] is None:
        nothing = (0, row[17], 0, 0, 0, NEVER_MS, Watermarks(), -1, 0, 0, row[17])
        return Account._make((*row[:4], *nothing))
    return Account._make((*row[:10], Watermarks(*row[10:14]), *row[14:]))


def is_due(account: Account, now_ms: int) -> bool:
    """Whether something may have expired, so that a write has to look."""
    return account.tenant_due_ms <= now_ms or account.due_ms <= now_ms


def ready(db: sqlite3.Connection, tenant: str, user: str, now_ms: int) -> Account:
    """The account in a write, with nothing expired left in it. Makes the tenant's row."""
    account = load(db, tenant, user)
    if account is None:
        add_tenant(db, tenant, now_ms)
    elif not is_due(account, now_ms):
        return account
    else:
        if account.tenant_due_ms <= now_ms:
            purge_wide(db, account.tenant_no, now_ms)
        if account.due_ms <= now_ms:
            purge_user(db, account.tenant_no, account.user_no, now_ms)
    account = load(db, tenant, user)
    assert account is not None
    return account


def add_tenant(db: sqlite3.Connection, tenant: str, now_ms: int) -> None:
    """Revisions begin at the time, so that they go on rising when everything was lost."""
    db.execute("INSERT INTO inbox_tenant(name, birth, revision) VALUES (?, ?, ?)", (tenant, now_ms, now_ms))


def add_user(db: sqlite3.Connection, account: Account, user: str, now_ms: int) -> int:
    """The number of a user of whom nothing was stored."""
    first = max(account.birth, now_ms)
    row = db.execute(
        "INSERT INTO inbox_user(tenant_no, name, revision) VALUES (?, ?, ?) RETURNING no",
        (account.tenant_no, user, first),
    ).fetchone()
    return int(row[0])


def purge_wide(db: sqlite3.Connection, tenant_no: int, now_ms: int) -> None:
    """Takes out the tenant-wide items that have expired."""
    db.execute("DELETE FROM inbox_wide WHERE tenant_no = ? AND due_ms <= ?", (tenant_no, now_ms))
    db.execute(
        "UPDATE inbox_tenant SET due_ms = "
        "coalesce((SELECT min(due_ms) FROM inbox_wide WHERE tenant_no = ?1), ?2) WHERE no = ?1",
        (tenant_no, NEVER_MS),
    )


def purge_user(db: sqlite3.Connection, tenant_no: int, user_no: int, now_ms: int) -> None:
    """Takes out the user's items that have expired, and marks of tenant-wide items that are gone."""
    db.execute(PURGE_ENDED, (user_no, now_ms))
    db.execute(PURGE_OLD, (user_no, now_ms))
    drop_dead_marks(db, tenant_no, user_no)
    db.execute(
        "UPDATE inbox_user SET due_ms = min("
        "coalesce((SELECT min(due_ms) FROM inbox_item WHERE user_no = ?1 AND ends = 1), ?2), "
        "coalesce((SELECT due_ms FROM inbox_item WHERE user_no = ?1 ORDER BY offset LIMIT 1), ?2), "
        "coalesce((SELECT min(w.due_ms) FROM inbox_mark m JOIN inbox_wide w "
        "ON w.tenant_no = ?3 AND w.offset = m.offset WHERE m.user_no = ?1), ?2)) WHERE no = ?1",
        (user_no, NEVER_MS, tenant_no),
    )


def drop_dead_marks(db: sqlite3.Connection, tenant_no: int, user_no: int) -> None:
    """Marks of tenant-wide items that are gone are dropped when their user is next looked at."""
    db.execute(
        "DELETE FROM inbox_mark WHERE user_no = ? AND NOT EXISTS "
        "(SELECT 1 FROM inbox_wide w WHERE w.tenant_no = ? AND w.offset = inbox_mark.offset)",
        (user_no, tenant_no),
    )


def tidy(db: sqlite3.Connection, now_ms: int) -> None:
    """Some of the expired items of users who are silent: bounded work."""
    rows = db.execute(
        "SELECT tenant_no, no FROM inbox_user WHERE due_ms <= ? ORDER BY due_ms LIMIT ?",
        (now_ms, TIDIED),
    ).fetchall()
    for tenant_no, user_no in rows:
        # An expired tenant-wide item would keep its marks, and so the user's due time, alive.
        purge_wide(db, tenant_no, now_ms)
        purge_user(db, tenant_no, user_no, now_ms)


def wide_counts(db: sqlite3.Connection, account: Account) -> tuple[int, int]:
    """Tenant-wide items that are (unseen or seen, unseen) for the user."""
    if not account.wide_items:
        return 0, 0
    if account.wide_at == account.tenant_revision:
        return account.wide_unread, account.wide_unseen
    read_floor, seen_floor = account.watermarks.floor(2), account.watermarks.floor(1)
    unread, unseen = (
        db.execute(
            "SELECT count(*) FROM inbox_wide WHERE tenant_no = ? AND offset > ?", (account.tenant_no, floor)
        ).fetchone()[0]
        for floor in (read_floor, seen_floor)
    )
    # Added up in SQL: marks can be many, and it may be the turn of a thousand users.
    by_mark = db.execute(
        "SELECT total((m.state < 2) - (m.offset > ?)), total((m.state < 1) - (m.offset > ?)) "
        "FROM inbox_mark m WHERE m.user_no = ? AND EXISTS "
        "(SELECT 1 FROM inbox_wide w WHERE w.tenant_no = ? AND w.offset = m.offset)",
        (read_floor, seen_floor, account.user_no, account.tenant_no),
    ).fetchone()
    return unread + int(by_mark[0]), unseen + int(by_mark[1])


def remember_wide_counts(db: sqlite3.Connection, account: Account) -> Account:
    """Counts tenant-wide items once per tenant revision, and drops marks of those that are gone."""
    if not account.user_no or account.wide_at == account.tenant_revision:
        return account
    drop_dead_marks(db, account.tenant_no, account.user_no)
    unread, unseen = wide_counts(db, account)
    db.execute(
        "UPDATE inbox_user SET wide_at = ?, wide_unread = ?, wide_unseen = ? WHERE no = ?",
        (account.tenant_revision, unread, unseen, account.user_no),
    )
    return account._replace(wide_at=account.tenant_revision, wide_unread=unread, wide_unseen=unseen)


def badge(db: sqlite3.Connection, account: Account) -> Badge:
    """The counters of an account from which everything expired was taken out."""
    unread, unseen = wide_counts(db, account)
    return Badge(account.unread + unread, account.unseen + unseen, account.revision, account.tenant_revision)
