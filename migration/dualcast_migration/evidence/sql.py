"""Evidence in SQLite: the engines `memory` and `sqlite`."""

from __future__ import annotations

import math
import sqlite3
import time
from collections import Counter
from collections.abc import Callable, Mapping

import msgspec

from dualcast.bus.storage import Database, SqlPart
from dualcast_migration.census import (
    MAX_ROWS,
    MAX_ROWS_PER_USER,
    Census,
    CensusRow,
    Row,
    decode_row,
    encode_row,
    make_census,
    rest_row,
)
from dualcast_migration.figures import Window, make_window
from dualcast_migration.sketch import ROW_SIZE, WINDOW_SIZE, cut, estimate, packed, unpacked

from .port import LEVELS, MAX_MISMATCHES, MISMATCH_S, ROW_S, TAKEN_S, Batch, KeptMismatch, RowChange, level_of

PART = SqlPart(
    schema="""
CREATE TABLE IF NOT EXISTS evidence_figure (
  tenant TEXT NOT NULL, width INTEGER NOT NULL, bucket INTEGER NOT NULL, name TEXT NOT NULL,
  n INTEGER NOT NULL, PRIMARY KEY (tenant, width, bucket, name)) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS evidence_figure_age ON evidence_figure (width, bucket);
CREATE TABLE IF NOT EXISTS evidence_marks (
  tenant TEXT NOT NULL, width INTEGER NOT NULL, bucket INTEGER NOT NULL, kind TEXT NOT NULL,
  marks TEXT NOT NULL, PRIMARY KEY (tenant, width, bucket, kind)) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS evidence_marks_age ON evidence_marks (width, bucket);
CREATE TABLE IF NOT EXISTS evidence_row (
  tenant TEXT NOT NULL, row BLOB NOT NULL, connects INTEGER NOT NULL, first_ms INTEGER NOT NULL,
  last_ms INTEGER NOT NULL, marks TEXT NOT NULL, PRIMARY KEY (tenant, row)) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS evidence_row_age ON evidence_row (last_ms);
CREATE TABLE IF NOT EXISTS evidence_owner (
  tenant TEXT NOT NULL, row BLOB NOT NULL, mark TEXT NOT NULL, PRIMARY KEY (tenant, row)) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS evidence_owner_mark ON evidence_owner (tenant, mark);
CREATE TABLE IF NOT EXISTS evidence_live (
  tenant TEXT NOT NULL, node TEXT NOT NULL, until_ms INTEGER NOT NULL, counts BLOB NOT NULL,
  PRIMARY KEY (tenant, node)) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS evidence_live_age ON evidence_live (until_ms);
CREATE TABLE IF NOT EXISTS evidence_mismatch (
  number INTEGER PRIMARY KEY AUTOINCREMENT, tenant TEXT NOT NULL, at_ms INTEGER NOT NULL,
  record BLOB NOT NULL);
CREATE INDEX IF NOT EXISTS evidence_mismatch_tenant ON evidence_mismatch (tenant, number);
CREATE INDEX IF NOT EXISTS evidence_mismatch_age ON evidence_mismatch (at_ms);
CREATE TABLE IF NOT EXISTS evidence_batch (
  tenant TEXT NOT NULL, node TEXT NOT NULL, ident TEXT NOT NULL, at_ms INTEGER NOT NULL,
  PRIMARY KEY (tenant, node)) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS evidence_batch_age ON evidence_batch (at_ms)
"""
)
_encode = msgspec.json.Encoder().encode
_TIDY_MS = 60_000
_USERS, _TROUBLED = "u", "t"
_decode_counts = msgspec.json.Decoder(list[tuple[Row, int]]).decode


class SqlEvidence:
    """EvidenceStore over the database of an embedded engine, which was given `PART`. `clock` gives Unix
    seconds."""

    def __init__(self, database: Database, *, clock: Callable[[], float] = time.time) -> None:
        self._database = database
        self._clock = clock
        self._tidy_ms = 0

    async def record(self, tenant: str, batch: Batch) -> None:
        now_ms = int(self._clock() * 1000)
        tidy = now_ms >= self._tidy_ms
        if tidy:
            self._tidy_ms = now_ms + _TIDY_MS
        await self._database.write(lambda db: _Writer(db, tenant, now_ms).record(batch, tidy=tidy))

    async def window(self, tenant: str, seconds: int) -> Window:
        now_s = self._clock()
        width, _, _ = level_of(seconds)
        span = (tenant, width, math.ceil((now_s - seconds) / width) * width, int(now_s))

        def work(db: sqlite3.Connection) -> tuple[list[tuple[str, int]], list[tuple[str, str]]]:
            where = "WHERE tenant = ? AND width = ? AND bucket BETWEEN ? AND ?"
            # Only constant text is put together.
            names = f"SELECT name, sum(n) FROM evidence_figure {where} GROUP BY name"  # noqa: S608
            marks = f"SELECT kind, marks FROM evidence_marks {where}"  # noqa: S608
            return db.execute(names, span).fetchall(), db.execute(marks, span).fetchall()

        sums, sketches = await self._database.read(work)
        users, troubled = (
            cut((one for kind, text in sketches if kind == wanted for one in unpacked(text)), WINDOW_SIZE)
            for wanted in (_USERS, _TROUBLED)
        )
        return make_window(seconds, dict(sums), estimate(users, WINDOW_SIZE), estimate(troubled, WINDOW_SIZE))

    async def census(self, tenant: str) -> Census:
        now_ms = int(self._clock() * 1000)

        def work(db: sqlite3.Connection) -> Census:
            live: Counter[Row] = Counter()
            for (counts,) in db.execute(
                "SELECT counts FROM evidence_live WHERE tenant = ? AND until_ms > ?", (tenant, now_ms)
            ):
                for row, count in _decode_counts(counts):
                    live[row] += count
            found = db.execute(
                "SELECT row, connects, first_ms, last_ms, marks FROM evidence_row "
                "WHERE tenant = ? AND last_ms > ?",
                (tenant, now_ms - ROW_S * 1000),
            ).fetchall()
            return make_rows(
                [(decode_row(row), *rest, unpacked(marks)) for row, *rest, marks in found], live, now_ms
            )

        return await self._database.read(work)

    async def mismatches(self, tenant: str, before: int, limit: int) -> list[KeptMismatch]:
        oldest_ms = int(self._clock() * 1000) - MISMATCH_S * 1000

        def work(db: sqlite3.Connection) -> list[KeptMismatch]:
            rows = db.execute(
                "SELECT number, record FROM evidence_mismatch "
                "WHERE tenant = ? AND number < ? AND at_ms > ? ORDER BY number DESC LIMIT ?",
                (tenant, before or 2**62, oldest_ms, limit),
            )
            return [KeptMismatch(number, record) for number, record in rows]

        return await self._database.read(work)


def make_rows(
    found: list[tuple[Row, int, int, int, list[str]]], live: Mapping[Row, int], now_ms: int
) -> Census:
    """The census of what both engines find: (row, connects, first, last, marks). Live connections of a kind
    that has no row of its own are those of the rest."""
    known = {row for row, *_ in found}
    counts: Counter[Row] = Counter()
    for row, count in live.items():
        counts[row if row in known else rest_row(row)] += count
    rows = [
        CensusRow(
            row=row,
            connects=connects,
            live=counts.pop(row, 0),
            users=estimate(marks, ROW_SIZE),
            first_ms=first_ms,
            last_ms=last_ms,
        )
        for row, connects, first_ms, last_ms, marks in found
    ]
    rows += [
        CensusRow(row=row, connects=0, live=n, users=0, first_ms=now_ms, last_ms=now_ms)
        for row, n in counts.items()
    ]
    return make_census(rows, now_ms)


class _Writer:
    """One batch, in one transaction."""

    def __init__(self, db: sqlite3.Connection, tenant: str, now_ms: int) -> None:
        self._db = db
        self._tenant = tenant
        self._now_ms = now_ms

    def record(self, batch: Batch, *, tidy: bool) -> None:
        db, tenant, now_ms = self._db, self._tenant, self._now_ms
        if tidy:
            self._tidy()
        taken = db.execute(
            "SELECT ident FROM evidence_batch WHERE tenant = ? AND node = ?", (tenant, batch.node)
        ).fetchone()
        if taken is not None and taken[0] == batch.ident:
            return
        db.execute(
            "INSERT OR REPLACE INTO evidence_batch VALUES (?, ?, ?, ?)",
            (tenant, batch.node, batch.ident, now_ms),
        )
        for width, _, users in LEVELS:
            bucket = now_ms // 1000 // width * width
            db.executemany(
                "INSERT INTO evidence_figure VALUES (?, ?, ?, ?, ?) "
                "ON CONFLICT DO UPDATE SET n = n + excluded.n",
                [(tenant, width, bucket, name, n) for name, n in batch.figures.items()],
            )
            if users:
                self._marks(width, bucket, _USERS, batch.marks)
                self._marks(width, bucket, _TROUBLED, batch.troubled)
        for change in batch.rows:
            self._row(change)
        if batch.live is not None:
            self._live(batch)
        if batch.mismatches:
            self._mismatches(batch.mismatches)

    def _marks(self, width: int, bucket: int, kind: str, marks: tuple[str, ...]) -> None:
        if not marks:
            return
        key = (self._tenant, width, bucket, kind)
        found = self._db.execute(
            "SELECT marks FROM evidence_marks WHERE tenant = ? AND width = ? AND bucket = ? AND kind = ?", key
        ).fetchone()
        known = unpacked(found[0]) if found else []
        self._db.execute(
            "INSERT OR REPLACE INTO evidence_marks VALUES (?, ?, ?, ?, ?)",
            (*key, packed(cut((*known, *marks), WINDOW_SIZE))),
        )

    def _row(self, change: RowChange) -> None:
        row = change.row
        found = self._find(row)
        if found is None and row != rest_row(row) and not self._may_add(change):
            row = rest_row(row)
            found = self._find(row)
        connects, first_ms, marks = found or (0, self._now_ms, "")
        self._db.execute(
            "INSERT OR REPLACE INTO evidence_row VALUES (?, ?, ?, ?, ?, ?)",
            (
                self._tenant,
                encode_row(row),
                connects + change.connects,
                first_ms,
                self._now_ms,
                packed(cut((*unpacked(marks), *change.marks), ROW_SIZE)),
            ),
        )

    def _find(self, row: Row) -> tuple[int, int, str] | None:
        found: tuple[int, int, str] | None = self._db.execute(
            "SELECT connects, first_ms, marks FROM evidence_row WHERE tenant = ? AND row = ?",
            (self._tenant, encode_row(row)),
        ).fetchone()
        return found

    def _may_add(self, change: RowChange) -> bool:
        """Whether there is room for a new row, and one of its users has not brought too many."""
        if self._count("SELECT count(*) FROM evidence_row WHERE tenant = ?") >= MAX_ROWS:
            return False
        for mark in change.marks:
            owned = self._count("SELECT count(*) FROM evidence_owner WHERE tenant = ? AND mark = ?", mark)
            if owned < MAX_ROWS_PER_USER:
                self._db.execute(
                    "INSERT OR REPLACE INTO evidence_owner VALUES (?, ?, ?)",
                    (self._tenant, encode_row(change.row), mark),
                )
                return True
        return not change.marks

    def _count(self, query: str, *more: str) -> int:
        count: int = self._db.execute(query, (self._tenant, *more)).fetchone()[0]
        return count

    def _live(self, batch: Batch) -> None:
        key = (self._tenant, batch.node)
        if not batch.live:
            self._db.execute("DELETE FROM evidence_live WHERE tenant = ? AND node = ?", key)
            return
        until_ms = self._now_ms + int(batch.lease_s * 1000)
        self._db.execute(
            "INSERT OR REPLACE INTO evidence_live VALUES (?, ?, ?, ?)",
            (*key, until_ms, _encode(list(batch.live.items()))),
        )

    def _mismatches(self, records: tuple[bytes, ...]) -> None:
        self._db.executemany(
            "INSERT INTO evidence_mismatch (tenant, at_ms, record) VALUES (?, ?, ?)",
            [(self._tenant, self._now_ms, record) for record in records],
        )
        last = self._db.execute(
            "SELECT number FROM evidence_mismatch WHERE tenant = ? ORDER BY number DESC LIMIT 1 OFFSET ?",
            (self._tenant, MAX_MISMATCHES),
        ).fetchone()
        if last is not None:
            self._db.execute(
                "DELETE FROM evidence_mismatch WHERE tenant = ? AND number <= ?", (self._tenant, last[0])
            )

    def _tidy(self) -> None:
        """What is too old, of every tenant; each by an index."""
        db, now_ms = self._db, self._now_ms
        for width, kept_s, _ in LEVELS:
            oldest = (width, now_ms // 1000 - kept_s)
            db.execute("DELETE FROM evidence_figure WHERE width = ? AND bucket < ?", oldest)
            db.execute("DELETE FROM evidence_marks WHERE width = ? AND bucket < ?", oldest)
        db.execute("DELETE FROM evidence_live WHERE until_ms < ?", (now_ms,))
        db.execute("DELETE FROM evidence_batch WHERE at_ms < ?", (now_ms - TAKEN_S * 1000,))
        if db.execute("DELETE FROM evidence_row WHERE last_ms < ?", (now_ms - ROW_S * 1000,)).rowcount:
            db.execute(
                "DELETE FROM evidence_owner WHERE (tenant, row) NOT IN (SELECT tenant, row FROM evidence_row)"
            )
        db.execute("DELETE FROM evidence_mismatch WHERE at_ms < ?", (now_ms - MISMATCH_S * 1000,))
