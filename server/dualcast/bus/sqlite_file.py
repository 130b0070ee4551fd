"""The bus file of the sqlite engine: the lock, the schema, the epoch.

One server per file: the holder of an exclusive `flock` on `<path>.lock`. The file keeps its epoch over
restarts. Into file and lock file goes a fresh stamp at every start and close; when they differ at a start,
the file was put back from a copy (or moved without its lock file): offsets after the copy were given out
once and must not be given out again, so a new epoch begins, far above. A copy taken since the last start,
put back after a crash, cannot be told from the file itself.
"""

from __future__ import annotations

import fcntl
import os
import secrets
import sqlite3
from collections.abc import Sequence
from pathlib import Path

from dualcast.model.errors import BusUnavailable

from .rules import new_epoch
from .sqlite_parts import create
from .storage import SqlPart

SCHEMA_VERSION = 1
RESTORE_LEAP = 1 << 32
"""How far above a restored counter the new epoch begins: more than was ever appended after the copy
was made.
"""

_SCHEMA = """
CREATE TABLE meta(name TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE epochs(epoch TEXT PRIMARY KEY, since INTEGER NOT NULL);
CREATE TABLE tenants(
  no INTEGER PRIMARY KEY, name TEXT NOT NULL UNIQUE, top INTEGER NOT NULL, floor INTEGER NOT NULL);
CREATE TABLE channels(
  no INTEGER PRIMARY KEY, tenant_no INTEGER NOT NULL, name TEXT NOT NULL, head INTEGER NOT NULL,
  head_ms INTEGER NOT NULL, kept INTEGER NOT NULL, oldest_ms INTEGER NOT NULL, UNIQUE(tenant_no, name));
CREATE INDEX channels_kept ON channels(head_ms) WHERE kept > 0;
CREATE INDEX channels_silent ON channels(head_ms) WHERE kept = 0;
CREATE TABLE links(
  channel_no INTEGER NOT NULL, offset INTEGER NOT NULL, prev INTEGER NOT NULL, at_ms INTEGER NOT NULL,
  body BLOB,
  PRIMARY KEY(channel_no, offset)) WITHOUT ROWID;
CREATE TABLE bodies(
  tenant_no INTEGER NOT NULL, offset INTEGER NOT NULL, refs INTEGER NOT NULL, body BLOB NOT NULL,
  PRIMARY KEY(tenant_no, offset)) WITHOUT ROWID;
CREATE TABLE remembered(
  tenant_no INTEGER NOT NULL, key TEXT NOT NULL, fingerprint TEXT NOT NULL, offset INTEGER NOT NULL,
  id TEXT NOT NULL, until_ms INTEGER NOT NULL, UNIQUE(tenant_no, key));
"""
# links.body is NULL for a publication with several channels: its body stands once, in bodies, with a
# count of links. One that is kept in inboxes has a body per link, as every channel has a badge of its own.


class FileLock:
    """The exclusive lock on a bus file; also keeps the stamp.

    Raises BusUnavailable("bus-locked") when it is taken.
    """

    def __init__(self, path: Path) -> None:
        lock_path = path.with_name(path.name + ".lock")
        self._fd = os.open(lock_path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(self._fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            os.close(self._fd)
            raise BusUnavailable(
                f"the bus file {path} is in use by another server (lock {lock_path.name})", code="bus-locked"
            ) from None

    def stamp(self) -> str:
        """The stamp of the last start or close, "" when there is none."""
        return os.pread(self._fd, 64, 0).decode("ascii", "replace").strip()

    def set_stamp(self, stamp: str) -> None:
        os.pwrite(self._fd, stamp.encode("ascii"), 0)
        os.ftruncate(self._fd, len(stamp))
        os.fsync(self._fd)

    def release(self) -> None:
        os.close(self._fd)


def connect(path: Path, *, read_only: bool = False) -> sqlite3.Connection:
    """A connection for use by one thread at a time, with transactions under our own control."""
    mode = "ro" if read_only else "rw"
    if not read_only:
        # Before SQLite opens it: only the owner may read notifications. The WAL takes over these permissions.
        os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600))
    uri = f"{path.absolute().as_uri()}?mode={mode}"
    db = sqlite3.connect(
        uri, uri=True, isolation_level=None, check_same_thread=False, timeout=5.0, cached_statements=256
    )
    if not read_only:
        db.execute("PRAGMA journal_mode=WAL")
        db.execute("PRAGMA synchronous=FULL")
        db.execute("PRAGMA journal_size_limit=67108864")
        db.execute("PRAGMA wal_autocheckpoint=2000")
    db.execute("PRAGMA cache_size=-16384")
    return db


def prepare(db: sqlite3.Connection, lock: FileLock, parts: Sequence[SqlPart] = ()) -> list[str]:
    """Creates or checks the file, what is stored beside the log too, and stamps this start. Returns its
    epochs, the current one last.

    Raises BusUnavailable("bus-file") when it is not a bus file or of a newer version. What other rooms store
    is added to a file of any version: theirs are tables the log knows nothing of.
    """
    version = db.execute("PRAGMA user_version").fetchone()[0]
    if version == 0 and db.execute("SELECT count(*) FROM sqlite_master").fetchone()[0]:
        raise BusUnavailable("the bus file is some other SQLite database", code="bus-file")
    if version > SCHEMA_VERSION:
        raise BusUnavailable("the bus file was written by a newer version", code="bus-file")
    stamp = secrets.token_hex(8)
    db.execute("BEGIN IMMEDIATE")
    restored = version != 0 and _stamp(db) != lock.stamp()
    if version == 0:
        for statement in _SCHEMA.split(";"):
            db.execute(statement)
        db.execute(f"PRAGMA user_version={SCHEMA_VERSION}")
        _begin_epoch(db)
    elif restored:
        db.execute("UPDATE tenants SET top = top + ?", (RESTORE_LEAP,))
        _begin_epoch(db)
    create(db, parts, restored=restored)
    _set_stamp(db, stamp)
    db.execute("COMMIT")
    lock.set_stamp(stamp)
    return [row[0] for row in db.execute("SELECT epoch FROM epochs ORDER BY since")]


def finish(db: sqlite3.Connection, lock: FileLock) -> None:
    """Stamps an orderly close, so that a copy made while the server ran is known when it is put back."""
    stamp = secrets.token_hex(8)
    _set_stamp(db, stamp)
    lock.set_stamp(stamp)


def _begin_epoch(db: sqlite3.Connection) -> None:
    db.execute("INSERT INTO epochs SELECT ?, coalesce(max(since), 0) + 1 FROM epochs", (new_epoch(),))


def _stamp(db: sqlite3.Connection) -> str:
    row = db.execute("SELECT value FROM meta WHERE name = 'stamp'").fetchone()
    return str(row[0]) if row else ""


def _set_stamp(db: sqlite3.Connection, stamp: str) -> None:
    db.execute("INSERT OR REPLACE INTO meta VALUES ('stamp', ?)", (stamp,))
