"""Stores what rides along with an append: one row per user, or one for the whole tenant."""

from __future__ import annotations

import sqlite3
from collections.abc import Mapping

from dualcast.bus.storage import SqlPart, SqlRider
from dualcast.model.channel import ALL
from dualcast.model.inbox import Badge
from dualcast.model.publication import Draft

from .port import InboxSettings
from .sql_accounts import (
    TIDY_EVERY,
    Account,
    add_user,
    badge,
    load,
    ready,
    remember_wide_counts,
    tidy,
)
from .sql_schema import RESTORED, SCHEMA

_ADD = (
    "INSERT OR IGNORE INTO inbox_item(user_no, offset, id, kind, state, due_ms, record, ends) "
    "VALUES (?, ?, ?, ?, 0, ?, ?, ?)"
)
_COUNT = (
    "UPDATE inbox_user SET items = items + 1, unread = unread + 1, unseen = unseen + 1, "
    "revision = revision + 1 WHERE no = ? RETURNING revision, items, unread, unseen"
)
_ADD_WIDE = (
    "INSERT OR IGNORE INTO inbox_wide(tenant_no, offset, id, kind, due_ms, record) VALUES (?, ?, ?, ?, ?, ?)"
)
_TRIM = (
    "DELETE FROM inbox_item WHERE user_no = ?1 AND offset IN "
    "(SELECT offset FROM inbox_item WHERE user_no = ?1 ORDER BY offset LIMIT ?2)"
)
_TRIM_WIDE = (
    "DELETE FROM inbox_wide WHERE tenant_no = ?1 AND offset IN "
    "(SELECT offset FROM inbox_wide WHERE tenant_no = ?1 ORDER BY offset LIMIT ?2)"
)


def inbox_part(settings: InboxSettings | None = None) -> SqlPart:
    """The inbox's share of a SQL engine. An id that is stored already stays as it is."""
    return SqlPart(SCHEMA, rider(settings or InboxSettings()), RESTORED)


def rider(settings: InboxSettings) -> SqlRider:
    """Gives the badge of each `user:` channel; of `all` the tenant revision."""
    keep_ms, max_items = settings.max_age_s * 1000, settings.max_items

    def ride(db: sqlite3.Connection, draft: Draft, offset: int, now_ms: int) -> Mapping[str, Badge] | None:
        inbox = draft.inbox
        if inbox is None:
            return None
        # What is born expired is not stored: it would be gone before anybody could look.
        alive = not draft.expires_ms or draft.expires_ms > now_ms
        due_ms = min(draft.expires_ms or now_ms + keep_ms, now_ms + keep_ms)
        ends = due_ms < now_ms + keep_ms
        row = (offset, draft.id, inbox.kind, due_ms, draft.data)
        badges: dict[str, Badge] = {}
        if inbox.wide:
            account = ready(db, draft.tenant, "", now_ms)
            if alive:
                db.execute(_ADD_WIDE, (account.tenant_no, *row))
                account = _again(db, draft.tenant, "")
                if account.wide_items > max_items:
                    db.execute(_TRIM_WIDE, (account.tenant_no, account.wide_items - max_items))
                    account = _again(db, draft.tenant, "")
            badges[ALL] = Badge(-1, -1, 0, account.tenant_revision)
        for user in inbox.users:
            account = ready(db, draft.tenant, user, now_ms)
            if alive:
                account = _keep(db, draft.tenant, user, account, row, ends, now_ms, max_items)
            badges["user:" + user] = badge(db, remember_wide_counts(db, account))
        if not offset % TIDY_EVERY:
            tidy(db, now_ms)
        return badges

    return ride


def _keep(
    db: sqlite3.Connection,
    tenant: str,
    user: str,
    account: Account,
    row: tuple[int, str, str, int, bytes],
    ends: bool,
    now_ms: int,
    max_items: int,
) -> Account:
    user_no = account.user_no or add_user(db, account, user, now_ms)
    if not db.execute(_ADD, (user_no, *row, ends)).rowcount:
        return account
    revision, items, unread, unseen = db.execute(_COUNT, (user_no,)).fetchone()
    due_ms = row[3]
    if due_ms < account.due_ms:
        db.execute("UPDATE inbox_user SET due_ms = ? WHERE no = ?", (due_ms, user_no))
    if items > max_items:
        db.execute(_TRIM, (user_no, items - max_items))
        return _again(db, tenant, user)
    return account._replace(user_no=user_no, revision=revision, items=items, unread=unread, unseen=unseen)


def _again(db: sqlite3.Connection, tenant: str, user: str) -> Account:
    account = load(db, tenant, user)
    assert account is not None
    return account
