"""State engine `sqlite`: its own file, WAL, synchronous=FULL; a write is acknowledged after its commit.

One thread owns the connection. Everything that waits when the thread turns to its queue shares one
transaction (group commit), so a storm of tickets costs a few disk flushes, not one each. One server per file:
the holder of an exclusive `flock` on `<path>.lock`, until `close`. SQLite locks as it always does, so a
backup can be made while the server runs.
"""

from __future__ import annotations

import asyncio
import fcntl
import os
import sqlite3
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from queue import Empty, Full, Queue
from typing import Any, NamedTuple, TypeVar

from dualcast.model.errors import BusUnavailable

from .limits import LOG_SIZE, check_log_size, check_name, check_write
from .port import Change, Changes, Value, VersionConflict

T = TypeVar("T")
MAX_WAITING = 10_000
LOCK_POLL_S = 0.05
MAX_BATCH = 256
PURGE_AT_ONCE = 64
FORMAT = 1
_SCHEMA = """
CREATE TABLE IF NOT EXISTS entry (
  space TEXT NOT NULL, key TEXT NOT NULL, data BLOB NOT NULL, version INTEGER NOT NULL, expires_ms INTEGER,
  PRIMARY KEY (space, key)
) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS entry_expiry ON entry (expires_ms) WHERE expires_ms IS NOT NULL;
CREATE TABLE IF NOT EXISTS log (
  revision INTEGER PRIMARY KEY, space TEXT NOT NULL, key TEXT NOT NULL, UNIQUE (space, key)
);
CREATE TABLE IF NOT EXISTS head (
  one INTEGER PRIMARY KEY CHECK (one = 1), revision INTEGER NOT NULL, floor INTEGER NOT NULL
);
INSERT OR IGNORE INTO head VALUES (1, 0, 0);
"""


class _Job(NamedTuple):
    work: Callable[[sqlite3.Connection], Any]
    result: asyncio.Future[Any]


class SqliteState:
    """A StateStore in the file `path`. `clock` gives Unix seconds."""

    def __init__(
        self,
        path: Path,
        *,
        log_size: int = LOG_SIZE,
        lock_wait_s: float = 2.0,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._path = path
        self._log_size = check_log_size(log_size)
        self._lock_wait_s = lock_wait_s
        self._clock = clock
        self._jobs: Queue[_Job | None] = Queue(MAX_WAITING)
        self._thread: threading.Thread | None = None
        self._loop: asyncio.AbstractEventLoop | None = None

    async def start(self) -> None:
        """Opens and locks the file; raises BusUnavailable when another server holds it or it is
        unreadable."""
        self._loop = asyncio.get_running_loop()
        opened: asyncio.Future[Any] = self._loop.create_future()
        self._thread = threading.Thread(target=self._own, args=(opened,), name="dualcast-state", daemon=True)
        self._thread.start()
        try:
            await opened
        except BusUnavailable:
            self._thread.join()
            self._thread = None
            raise

    async def close(self) -> None:
        """Finishes what waits and closes the file. Does nothing when the store is not open."""
        thread, self._thread = self._thread, None
        if thread is None:
            return
        while True:
            try:
                self._jobs.put_nowait(None)
                break
            except Full:
                await asyncio.sleep(0.01)
        await asyncio.get_running_loop().run_in_executor(None, thread.join)

    async def get(self, space: str, key: str) -> Value | None:
        check_name(space, key)
        return await self._run(lambda db: self._live(db, space, key))

    async def put(
        self,
        space: str,
        key: str,
        data: bytes,
        *,
        expected: int | None = None,
        ttl_s: float | None = None,
        quiet: bool = False,
    ) -> int:
        check_write(space, key, data, ttl_s)
        body = bytes(data)

        def work(db: sqlite3.Connection) -> int | VersionConflict:
            now_ms = int(self._clock() * 1000)
            db.execute(
                "DELETE FROM entry WHERE (space, key) IN"
                " (SELECT space, key FROM entry WHERE expires_ms <= ? LIMIT ?)",
                (now_ms, PURGE_AT_ONCE),
            )
            if expected is not None:
                have = self._live(db, space, key)
                if (have.version if have else 0) != expected:
                    return VersionConflict("the value was changed by somebody else")
            version = self._next_revision(db)
            expires_ms = None if ttl_s is None else now_ms + max(1, int(ttl_s * 1000))
            db.execute("REPLACE INTO entry VALUES (?, ?, ?, ?, ?)", (space, key, body, version, expires_ms))
            if not quiet:
                self._record(db, version, space, key)
            return version

        version = await self._run(work)
        if isinstance(version, VersionConflict):
            raise version
        return version

    async def delete(self, space: str, key: str) -> bool:
        check_name(space, key)

        def work(db: sqlite3.Connection) -> bool:
            if self._live(db, space, key) is None:
                return False
            db.execute("DELETE FROM entry WHERE space = ? AND key = ?", (space, key))
            self._record(db, self._next_revision(db), space, key)
            return True

        return await self._run(work)

    async def take(self, space: str, key: str) -> Value | None:
        check_name(space, key)

        def work(db: sqlite3.Connection) -> Value | None:
            value = self._live(db, space, key)
            if value is not None:
                db.execute("DELETE FROM entry WHERE space = ? AND key = ?", (space, key))
            return value

        return await self._run(work)

    async def list(self, space: str, *, prefix: str = "", after: str = "", limit: int = 100) -> list[Value]:
        def work(db: sqlite3.Connection) -> list[Value]:
            # The upper end is compared in Python: no text sorts after every text with the prefix.
            rows = db.execute(
                "SELECT key, data, version FROM entry WHERE space = ? AND key > ? AND key >= ?"
                " AND (expires_ms IS NULL OR expires_ms > ?) ORDER BY key LIMIT ?",
                (space, after, prefix, int(self._clock() * 1000), limit),
            )
            return [Value(*row) for row in rows if row[0].startswith(prefix)]

        return await self._run(work)

    async def changes(self, after: int) -> Changes:
        def work(db: sqlite3.Connection) -> Changes:
            revision, floor = db.execute("SELECT revision, floor FROM head").fetchone()
            complete = floor <= after <= revision
            since = after if complete else floor
            rows = db.execute(
                "SELECT revision, space, key FROM log WHERE revision > ? ORDER BY revision", (since,)
            )
            return Changes(revision, tuple(Change(*row) for row in rows), complete)

        return await self._run(work)

    async def _run(self, work: Callable[[sqlite3.Connection], T]) -> T:
        if self._thread is None or self._loop is None:
            raise BusUnavailable("the state file is not open")
        result: asyncio.Future[T] = self._loop.create_future()
        try:
            self._jobs.put_nowait(_Job(work, result))
        except Full:
            raise BusUnavailable("the state file has too much waiting", retry_after_s=1) from None
        return await result

    def _live(self, db: sqlite3.Connection, space: str, key: str) -> Value | None:
        row = db.execute(
            "SELECT key, data, version FROM entry WHERE space = ? AND key = ?"
            " AND (expires_ms IS NULL OR expires_ms > ?)",
            (space, key, int(self._clock() * 1000)),
        ).fetchone()
        return Value(*row) if row else None

    def _next_revision(self, db: sqlite3.Connection) -> int:
        row = db.execute("UPDATE head SET revision = revision + 1 RETURNING revision").fetchone()
        return int(row[0])

    def _record(self, db: sqlite3.Connection, revision: int, space: str, key: str) -> None:
        db.execute("REPLACE INTO log VALUES (?, ?, ?)", (revision, space, key))
        (count,) = db.execute("SELECT count(*) FROM log").fetchone()
        if count > self._log_size:
            (floor,) = db.execute(
                "SELECT revision FROM log ORDER BY revision LIMIT 1 OFFSET ?", (count - self._log_size - 1,)
            ).fetchone()
            db.execute("DELETE FROM log WHERE revision <= ?", (floor,))
            db.execute("UPDATE head SET floor = ?", (floor,))

    # The thread from here on.

    def _own(self, opened: asyncio.Future[Any]) -> None:
        lock = -1
        try:
            try:
                lock = self._take_lock()
                db = self._open()
            except BusUnavailable as error:
                self._resolve([(opened, None, error)])
                return
            self._resolve([(opened, None, None)])
            try:
                while self._turn(db):
                    pass
            finally:
                db.close()
        finally:
            if lock >= 0:
                os.close(lock)

    def _take_lock(self) -> int:
        """The open lock file. A server that is just ending is waited for."""
        ends = time.monotonic() + self._lock_wait_s
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            lock = os.open(f"{self._path}.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise self._unopened(error) from error
        while True:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                return lock
            except OSError:
                if time.monotonic() >= ends:
                    os.close(lock)
                    raise BusUnavailable(f"the state file {self._path} is in use by another server") from None
            time.sleep(LOCK_POLL_S)

    def _unopened(self, error: Exception) -> BusUnavailable:
        reason = getattr(error, "strerror", None) or error
        return BusUnavailable(f"the state file {self._path} cannot be opened: {reason}")

    def _open(self) -> sqlite3.Connection:
        db: sqlite3.Connection | None = None
        try:
            # The file holds signing secrets: its owner only (SQLite gives its WAL the same mode).
            os.close(os.open(self._path, os.O_CREAT | os.O_RDWR, 0o600))
            db = sqlite3.connect(self._path, timeout=self._lock_wait_s, isolation_level=None)
            db.execute("PRAGMA journal_mode = WAL")
            db.execute("PRAGMA synchronous = FULL")
            (found,) = db.execute("PRAGMA user_version").fetchone()
            if found not in (0, FORMAT):
                raise BusUnavailable(
                    f"the state file {self._path} was written by another version of dualcast"
                )
            db.execute("BEGIN IMMEDIATE")
            for statement in _SCHEMA.split(";"):
                db.execute(statement)
            db.execute(f"PRAGMA user_version = {FORMAT}")
            db.execute("COMMIT")
        except (sqlite3.Error, OSError, BusUnavailable) as error:
            if db is not None:
                db.close()
            if isinstance(error, BusUnavailable):
                raise
            raise self._unopened(error) from error
        return db

    def _turn(self, db: sqlite3.Connection) -> bool:
        """One transaction over everything that waits; False when the store is to be closed."""
        jobs: list[_Job] = []
        job = self._jobs.get()
        try:
            while job is not None and len(jobs) < MAX_BATCH:
                jobs.append(job)
                job = self._jobs.get_nowait()
        except Empty:
            pass
        going_on = job is not None
        if job is not None and jobs[-1] is not job:
            jobs.append(job)
        try:
            db.execute("BEGIN")
            done = [(each.result, each.work(db), None) for each in jobs]
            db.execute("COMMIT")
            self._resolve(done)
        except Exception as error:  # noqa: BLE001 the thread's edge: whoever waits must get an answer
            if db.in_transaction:
                db.execute("ROLLBACK")
            self._resolve([(each.result, None, _answer(error)) for each in jobs])
        return going_on

    def _resolve(self, results: Sequence[tuple[asyncio.Future[Any], Any, Exception | None]]) -> None:
        def on_loop() -> None:
            for future, value, error in results:
                if future.done():  # its caller was cancelled
                    continue
                if error is None:
                    future.set_result(value)
                else:
                    future.set_exception(error)

        assert self._loop is not None
        if not self._loop.is_closed():
            self._loop.call_soon_threadsafe(on_loop)


def _answer(error: Exception) -> Exception:
    """What a caller gets for `error`: an own object each, since every waiter adds its traceback."""
    if isinstance(error, sqlite3.Error):
        answer: Exception = BusUnavailable("the state file cannot be read or written")
    else:
        answer = RuntimeError("a fault in the sqlite state engine")
    answer.__cause__ = error
    return answer
