"""What other rooms keep in the SQL engines (`bus.storage`), run inside a transaction of the engine's.

In: parts, work, drafts with riders. Out: badges, results, refusals. Whatever a part does wrong undoes its own
writes only; what goes wrong with the file is raised, and the engine's transaction fails as a whole.
"""

from __future__ import annotations

import logging
import sqlite3
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from dualcast.model.errors import DualcastError
from dualcast.model.inbox import Badge
from dualcast.model.publication import Draft

from .storage import SqlPart

log = logging.getLogger("dualcast.bus.sqlite")
Work = Callable[[sqlite3.Connection], Any]
# The file's or the machine's trouble, not that of a statement.
_FILE_ERRORS = frozenset(
    (
        sqlite3.SQLITE_PERM,
        sqlite3.SQLITE_BUSY,
        sqlite3.SQLITE_LOCKED,
        sqlite3.SQLITE_NOMEM,
        sqlite3.SQLITE_READONLY,
        sqlite3.SQLITE_INTERRUPT,
        sqlite3.SQLITE_IOERR,
        sqlite3.SQLITE_CORRUPT,
        sqlite3.SQLITE_FULL,
        sqlite3.SQLITE_CANTOPEN,
        sqlite3.SQLITE_PROTOCOL,
        sqlite3.SQLITE_NOTADB,
    )
)


class Outcome(NamedTuple):
    """What work returned, or what it raised."""

    value: Any = None
    error: Exception | None = None


def create(db: sqlite3.Connection, parts: Sequence[SqlPart], *, restored: bool = False) -> None:
    """Runs the parts' schemas; `restored`: also what they do in a file put back from a copy. Raises
    sqlite3.Error."""
    for part in parts:
        for statement in _statements(part.schema):
            db.execute(statement)
        for statement in _statements(part.restored if restored else ""):
            db.execute(statement)


def _statements(text: str) -> Iterator[str]:
    """The statements of `text`, bodies of triggers kept whole."""
    held = ""
    for piece in text.split(";"):
        held += piece
        if sqlite3.complete_statement(held + ";"):
            yield held
            held = ""
        else:
            held += ";"
    if held.strip("; \n"):
        yield held


def is_file_error(db: sqlite3.Connection, error: Exception) -> bool:
    """Whether the transaction cannot go on after `error`, whoever caused it."""
    if not db.in_transaction:
        return True
    return (getattr(error, "sqlite_errorcode", None) or 0) & 0xFF in _FILE_ERRORS


def run(db: sqlite3.Connection, work: Work) -> Outcome:
    """Runs `work` in a savepoint of the open transaction. Raises sqlite3.Error when that is lost."""
    db.execute("SAVEPOINT part")
    try:
        outcome = Outcome(work(db))
    except Exception as error:
        # Whatever it is, it belongs to the caller of `write`, in another thread.
        if isinstance(error, sqlite3.Error) and is_file_error(db, error):
            raise
        db.execute("ROLLBACK TO part")
        # A future cannot carry a StopIteration.
        known = RuntimeError("work raised StopIteration") if isinstance(error, StopIteration) else error
        outcome = Outcome(error=known)
    db.execute("RELEASE part")
    return outcome


class Riders:
    """The riders of all parts, called one after the other for a draft that has any."""

    __slots__ = ("_riders",)

    def __init__(self, parts: Sequence[SqlPart]) -> None:
        self._riders = tuple(part.rider for part in parts if part.rider is not None)

    def ride(
        self, db: sqlite3.Connection, draft: Draft, offset: int, now_ms: int
    ) -> Mapping[str, Badge] | DualcastError:
        """Stores what rides along with `draft`: badges by channel, or why the draft is refused (then nothing
        is stored). Raises sqlite3.Error when the transaction is lost.
        """
        riders = self._riders
        if not riders:
            return {}
        db.execute("SAVEPOINT rider")
        badges: dict[str, Badge] = {}
        refused: DualcastError | None = None
        try:
            for rider in riders:
                badges.update(rider(db, draft, offset, now_ms) or {})
        except DualcastError as error:
            refused = error
        except Exception as error:
            # Not the other publishers' trouble, nor the end of the thread that appends.
            if isinstance(error, sqlite3.Error) and is_file_error(db, error):
                raise
            log.exception("what rides along with a publication cannot be stored")
            refused = DualcastError("the publication cannot be stored")
        if refused is not None:
            db.execute("ROLLBACK TO rider")
        db.execute("RELEASE rider")
        return badges if refused is None else refused
