"""The memory engine's database: SQLite in memory, inline on the event loop, gone with the process."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TypeVar

from dualcast.model.errors import BusUnavailable, DualcastError
from dualcast.model.inbox import Badge
from dualcast.model.publication import Draft

from .sqlite_parts import Riders, create, is_file_error, run
from .storage import SqlPart

T = TypeVar("T")
_NONE: Mapping[str, Badge] = {}


class MemoryDatabase:
    """`storage.Database` between `open` and `close`. A write is one transaction; nothing waits."""

    __slots__ = ("_db", "_parts", "_riders")

    def __init__(self, parts: Sequence[SqlPart]) -> None:
        self._parts = parts
        self._riders = Riders(parts)
        self._db: sqlite3.Connection | None = None

    def open(self) -> None:
        """An empty database with the parts' tables."""
        self._db = sqlite3.connect(":memory:", isolation_level=None, cached_statements=256)
        create(self._db, self._parts)

    def close(self) -> None:
        if self._db is not None:
            self._db.close()
            self._db = None

    async def write(self, work: Callable[[sqlite3.Connection], T]) -> T:
        with self._transaction() as db:
            outcome = run(db, work)
        if outcome.error is not None:
            raise outcome.error
        value: T = outcome.value
        return value

    async def read(self, work: Callable[[sqlite3.Connection], T]) -> T:
        with self._transaction() as db:
            db.execute("PRAGMA query_only=1")
            try:
                return work(db)
            except sqlite3.Error as error:
                if is_file_error(db, error):
                    raise BusUnavailable("the database cannot be used") from error
                raise
            finally:
                db.execute("PRAGMA query_only=0")

    def ride(self, draft: Draft, offset: int, now_ms: int) -> Mapping[str, Badge]:
        """Stores what rides along with `draft`; badges by channel. Raises DualcastError: refused, nothing is
        stored."""
        with self._transaction() as db:
            badges = self._riders.ride(db, draft, offset, now_ms)
        if isinstance(badges, DualcastError):
            raise badges
        return _NONE if draft.inbox is None else badges

    @contextmanager
    def _transaction(self) -> Iterator[sqlite3.Connection]:
        db = self._db
        if db is None:
            raise BusUnavailable("the bus is closed")
        db.execute("BEGIN")
        try:
            yield db
        except BaseException:
            if db.in_transaction:
                db.execute("ROLLBACK")
            raise
        db.execute("COMMIT")
