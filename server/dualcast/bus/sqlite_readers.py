"""The reader threads of the sqlite engine: each with a read-only connection of its own, so every read is a
snapshot and none waits for the writer.
"""

from __future__ import annotations

import asyncio
import sqlite3
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TypeVar

from dualcast.model.errors import BusUnavailable

from .sqlite_file import connect
from .sqlite_parts import is_file_error

READ_THREADS = 2
T = TypeVar("T")


class Readers:
    """Reads of one bus file. `max_pending` reads may wait for a thread; beyond, they are refused."""

    def __init__(self, path: Path, max_pending: int) -> None:
        self._path = path
        self._max_pending = max_pending
        self._pool = ThreadPoolExecutor(READ_THREADS, thread_name_prefix="dualcast-bus-reader")
        self._own = threading.local()
        self._connections: list[sqlite3.Connection] = []
        self._pending = 0
        self.reads = 0

    async def run(self, work: Callable[[sqlite3.Connection], T]) -> T:
        """Runs `work` in a snapshot. Raises BusUnavailable, and what `work` raises."""
        if self._pending >= self._max_pending:
            raise BusUnavailable("too many reads wait for the disk", retry_after_s=1.0)
        self._pending += 1
        self.reads += 1
        try:
            return await asyncio.get_running_loop().run_in_executor(self._pool, self._read, work)
        finally:
            self._pending -= 1

    async def once(self, call: Callable[[], T]) -> T:
        """Runs `call`, which needs no connection of ours, in one of the threads."""
        return await asyncio.get_running_loop().run_in_executor(self._pool, call)

    def close(self) -> None:
        """Ends the threads after what they are doing."""
        self._pool.shutdown()
        for db in self._connections:
            db.close()
        self._connections.clear()

    def _read(self, work: Callable[[sqlite3.Connection], T]) -> T:
        try:
            db: sqlite3.Connection | None = getattr(self._own, "db", None)
            if db is None:
                db = connect(self._path, read_only=True)
                self._connections.append(db)
                self._own.db = db
            db.execute("BEGIN")
        except sqlite3.Error as error:
            raise BusUnavailable("the bus file cannot be read") from error
        try:
            return work(db)
        except sqlite3.Error as error:
            if is_file_error(db, error):
                raise BusUnavailable("the bus file cannot be read") from error
            raise
        finally:
            if db.in_transaction:
                db.execute("ROLLBACK")
