"""Conversations in SQLite: the file of the sqlite engine, or the memory engine's database."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from sqlite3 import Connection

from dualcast.bus.storage import Database, SqlPart

from .model import (
    ConversationSettings,
    NotAParticipant,
    Participants,
    TooManyParticipants,
    UnknownConversation,
)
from .port import Change, Reading, Row, Saved, Summary

TIDY_ROWS = 20
"""Old messages deleted with each new one, so that deleting keeps up without a task of its own."""

PART = SqlPart(
    schema="""
CREATE TABLE IF NOT EXISTS conversations_room(
  no INTEGER PRIMARY KEY, tenant TEXT NOT NULL, id TEXT NOT NULL, revision INTEGER NOT NULL,
  last_seq INTEGER NOT NULL, last_ms INTEGER NOT NULL, UNIQUE(tenant, id));
CREATE TABLE IF NOT EXISTS conversations_member(
  room_no INTEGER NOT NULL, user TEXT NOT NULL, tenant TEXT NOT NULL, room TEXT NOT NULL,
  read_seq INTEGER NOT NULL, left_ms INTEGER NOT NULL, PRIMARY KEY(room_no, user)) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS conversations_member_user ON conversations_member(tenant, user, room)
  WHERE left_ms = 0;
CREATE TABLE IF NOT EXISTS conversations_message(
  room_no INTEGER NOT NULL, seq INTEGER NOT NULL, id TEXT NOT NULL, saved_ms INTEGER NOT NULL,
  body BLOB NOT NULL, UNIQUE(room_no, seq), UNIQUE(room_no, id));
CREATE INDEX IF NOT EXISTS conversations_message_age ON conversations_message(saved_ms)
"""
)


class SqlConversations:
    """`ConversationStore` over a `Database` made with `PART`. `clock` gives Unix seconds."""

    def __init__(
        self,
        database: Database,
        settings: ConversationSettings | None = None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._db = database
        self._settings = settings or ConversationSettings()
        self._clock = clock

    async def change(
        self,
        tenant: str,
        conversation: str,
        *,
        replace: bool,
        add: Sequence[str] = (),
        remove: Sequence[str] = (),
    ) -> Change:
        now_ms = self._now_ms()
        return await self._db.write(
            lambda db: self._change(db, tenant, conversation, replace, set(add), set(remove), now_ms)
        )

    async def participants(self, tenant: str, conversation: str, user: str | None = None) -> Participants:
        def work(db: Connection) -> Participants:
            no, revision, _ = _room(db, tenant, conversation)
            if user is not None:
                _check(db, no, user)
            return self._people(db, no, revision, now_ms)

        now_ms = self._now_ms()
        return await self._db.read(work)

    async def mine(self, tenant: str, user: str, after: str, limit: int) -> list[Summary]:
        def work(db: Connection) -> list[Summary]:
            rows = db.execute(
                "SELECT r.id, r.no, r.revision, r.last_seq, r.last_ms, m.read_seq FROM conversations_member m"
                " JOIN conversations_room r ON r.no = m.room_no"
                " WHERE m.tenant = ? AND m.user = ? AND m.left_ms = 0 AND m.room > ? ORDER BY m.room LIMIT ?",
                (tenant, user, after, limit),
            ).fetchall()
            return [
                Summary(
                    ident,
                    _count(db, no),
                    revision,
                    last,
                    last_ms,
                    read,
                    last - max(read, _gone(db, no, last)),
                )
                for ident, no, revision, last, last_ms, read in rows
            ]

        return await self._db.read(work)

    async def save(
        self, tenant: str, conversation: str, sender: str, ident: str, body: bytes, *, strict: bool
    ) -> Saved:
        def work(db: Connection) -> Saved:
            no, revision, last = _room(db, tenant, conversation)
            if strict:
                _check(db, no, sender)
            people = self._people(db, no, revision, now_ms)
            found = db.execute(
                "SELECT seq, body, saved_ms FROM conversations_message WHERE room_no = ? AND id = ?",
                (no, ident),
            ).fetchone()
            if found is not None:
                return Saved(found[0], found[1], found[2], now_ms, False, people)
            seq = last + 1
            db.execute(
                "UPDATE conversations_room SET last_seq = ?, last_ms = ? WHERE no = ?", (seq, now_ms, no)
            )
            db.execute(
                "INSERT INTO conversations_message VALUES (?, ?, ?, ?, ?)", (no, seq, ident, now_ms, body)
            )
            _move(db, no, sender, seq)
            self._tidy(db, no, seq, now_ms)
            return Saved(seq, body, now_ms, now_ms, True, people)

        now_ms = self._now_ms()
        return await self._db.write(work)

    async def messages(
        self, tenant: str, conversation: str, user: str | None, before: int, limit: int
    ) -> list[Row]:
        def work(db: Connection) -> list[Row]:
            no, _, last = _room(db, tenant, conversation)
            if user is not None:
                _check(db, no, user)
            rows = db.execute(
                "SELECT seq, body FROM conversations_message WHERE room_no = ? AND seq < ? AND saved_ms > ?"
                " ORDER BY seq DESC LIMIT ?",
                (no, before or last + 1, oldest_ms, limit),
            )
            return [Row(seq, body) for seq, body in rows]

        oldest_ms = self._now_ms() - self._settings.messages_age_s * 1000
        return await self._db.read(work)

    async def read(self, tenant: str, conversation: str, user: str, ids: Sequence[str]) -> Reading:
        def work(db: Connection) -> Reading:
            no, revision, last = _room(db, tenant, conversation)
            before = _check(db, no, user)
            found = {}
            for ident in ids:
                row = db.execute(
                    "SELECT seq FROM conversations_message WHERE room_no = ? AND id = ?", (no, ident)
                ).fetchone()
                if row is not None:
                    found[ident] = row[0]
            position = max(before, *found.values(), 0)
            if position > before:
                _move(db, no, user, position)
            unread = last - max(position, _gone(db, no, last))
            people = self._people(db, no, revision, now_ms)
            return Reading(position, unread, tuple(one for one in ids if one not in found), people)

        now_ms = self._now_ms()
        return await self._db.write(work)

    def _change(
        self,
        db: Connection,
        tenant: str,
        conversation: str,
        replace: bool,
        add: set[str],
        remove: set[str],
        now_ms: int,
    ) -> Change:
        if replace:
            db.execute(
                "INSERT OR IGNORE INTO conversations_room(tenant, id, revision, last_seq, last_ms)"
                " VALUES (?, ?, 0, 0, ?)",
                (tenant, conversation, now_ms),
            )
        no, revision, last = _room(db, tenant, conversation)
        db.execute(
            "DELETE FROM conversations_member WHERE room_no = ? AND left_ms BETWEEN 1 AND ?",
            (no, now_ms - self._settings.former_s * 1000),
        )
        rows = db.execute(
            "SELECT user, left_ms FROM conversations_member WHERE room_no = ?", (no,)
        ).fetchall()
        present = {user for user, left_ms in rows if not left_ms}
        wanted = add if replace else (present | add) - remove
        joined, left = sorted(wanted - present), sorted(present - wanted)
        if not joined and not left and revision:
            return Change(self._people(db, no, revision, now_ms))
        limits = self._settings
        if len(wanted) > limits.max_participants or len({*wanted, *dict(rows)}) > limits.max_remembered:
            raise TooManyParticipants(limits.max_participants)
        db.execute("UPDATE conversations_room SET revision = ? WHERE no = ?", (revision + 1, no))
        db.executemany(
            "INSERT OR REPLACE INTO conversations_member VALUES (?, ?, ?, ?, ?, 0)",
            [(no, user, tenant, conversation, last) for user in joined],
        )
        db.executemany(
            "UPDATE conversations_member SET left_ms = ? WHERE room_no = ? AND user = ?",
            [(now_ms, no, user) for user in left],
        )
        return Change(self._people(db, no, revision + 1, now_ms), tuple(joined), tuple(left))

    def _people(self, db: Connection, no: int, revision: int, now_ms: int) -> Participants:
        rows = db.execute(
            "SELECT user, left_ms FROM conversations_member WHERE room_no = ? ORDER BY user", (no,)
        ).fetchall()
        since = now_ms - self._settings.former_s * 1000
        return Participants(
            tuple(user for user, left_ms in rows if not left_ms),
            revision,
            tuple(user for user, left_ms in rows if left_ms > since),
        )

    def _tidy(self, db: Connection, no: int, last: int, now_ms: int) -> None:
        # At most a few rows at a time, in place of a task of its own: each message makes room for itself.
        db.execute(
            "DELETE FROM conversations_message WHERE rowid IN (SELECT rowid FROM conversations_message"
            " WHERE room_no = ? AND seq <= ? ORDER BY seq LIMIT ?)",
            (no, last - self._settings.messages_kept, TIDY_ROWS),
        )
        db.execute(
            "DELETE FROM conversations_message WHERE rowid IN (SELECT rowid FROM conversations_message"
            " WHERE saved_ms <= ? ORDER BY saved_ms LIMIT ?)",
            (now_ms - self._settings.messages_age_s * 1000, TIDY_ROWS),
        )

    def _now_ms(self) -> int:
        return int(self._clock() * 1000)


def _room(db: Connection, tenant: str, conversation: str) -> tuple[int, int, int]:
    """(number, revision, last sequence number)"""
    row = db.execute(
        "SELECT no, revision, last_seq FROM conversations_room WHERE tenant = ? AND id = ?",
        (tenant, conversation),
    ).fetchone()
    if row is None:
        raise UnknownConversation
    return row[0], row[1], row[2]


def _check(db: Connection, no: int, user: str) -> int:
    """The participant's read position."""
    row = db.execute(
        "SELECT read_seq FROM conversations_member WHERE room_no = ? AND user = ? AND left_ms = 0", (no, user)
    ).fetchone()
    if row is None:
        raise NotAParticipant
    return int(row[0])


def _move(db: Connection, no: int, user: str, seq: int) -> None:
    db.execute(
        "UPDATE conversations_member SET read_seq = ? WHERE room_no = ? AND user = ? AND left_ms = 0",
        (seq, no, user),
    )


def _count(db: Connection, no: int) -> int:
    return int(
        db.execute(
            "SELECT count(*) FROM conversations_member WHERE room_no = ? AND left_ms = 0", (no,)
        ).fetchone()[0]
    )


def _gone(db: Connection, no: int, last: int) -> int:
    """Up to which sequence number nothing is kept any more."""
    oldest = db.execute("SELECT min(seq) FROM conversations_message WHERE room_no = ?", (no,)).fetchone()[0]
    return last if oldest is None else int(oldest) - 1
