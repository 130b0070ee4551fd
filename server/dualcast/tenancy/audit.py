"""Who changed a tenant's stage, settings or keys, when, from what to what, and why.

A change and its entry are one write: the stored tenant carries a note of its last change. The entry is filed
under the state store's space `audit` right after it; when a node dies between the two, whoever writes or
reads next files it from the note. The newest 1,000 entries of each tenant are kept.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from typing import Literal

import msgspec
from msgspec import Struct

from dualcast.model.errors import BadRequest
from dualcast.state.port import StateStore, VersionConflict
from dualcast_migration.policy import StageRecord

from .changes import FieldChange

SPACE = "audit"
KEPT = 1_000
PAGE = 100
MAX_WHY = 500
SETTINGS = "settings"
"""Who changed it, when it was the settings file."""
SERVER = "server"
"""Who changed it, when code did that names nobody."""

Action = Literal["create", "set", "rollback", "step-back", "settings", "keys"]
"""`settings`, `keys`: the stage stayed as it was."""


class BadReason(BadRequest):
    """A change without a reason, or with one that cannot be shown."""

    code = "bad-reason"
    status = 422


class Note(Struct, frozen=True):
    """Who makes a change, and why. `at_ms`: Unix milliseconds."""

    who: str
    why: str
    at_ms: int
    action: Action = "set"


class LastChange(Struct, frozen=True, omit_defaults=True):
    """What a stored tenant carries of its last change of stage. Where it led to is the tenant's stage."""

    number: int
    """1 for the tenant's first change."""
    note: Note
    before: StageRecord | None = None
    """None: the tenant was made by it."""
    version: int = 0
    """Of the tenant when the change was written; 0: that of the value that carries it."""
    changes: tuple[FieldChange, ...] = ()
    """What was changed with it beside the stage."""


class LastEdit(Struct, frozen=True, omit_defaults=True):
    """The same of its last change that left the stage alone. It is kept apart: what a rollback leads back to
    is the stage before the last change of stage."""

    number: int
    note: Note
    changes: tuple[FieldChange, ...]
    version: int = 0


class AuditEntry(Struct, frozen=True, rename={"before": "from", "after": "to"}):
    """One change of a tenant."""

    number: int
    """Counts the tenant's changes from 1."""
    version: int
    """The tenant's version since then."""
    at_ms: int
    """Unix milliseconds."""
    who: str
    """Tenant and user id (`default/root`), `settings`, `guard` or `server`."""
    action: Action
    why: str
    before: StageRecord | None
    after: StageRecord
    """Equal to `before` where the stage was left alone."""
    changes: tuple[FieldChange, ...] = ()
    """What was changed beside the stage; never a secret."""


_decoder = msgspec.json.Decoder(AuditEntry)


def check_why(why: str) -> str:
    """`why` without surrounding blanks; raises BadReason unless 1 to 500 printable characters are left."""
    text = why.strip()
    if not 1 <= len(text) <= MAX_WHY or not text.isprintable():
        raise BadReason(f"say why, in 1 to {MAX_WHY} printable characters")
    return text


def edit_note(note: Note, changes: Sequence[FieldChange]) -> Note:
    """`note` with the action of a change that leaves the stage alone."""
    only_keys = all(change.field == "keys" for change in changes)
    return msgspec.structs.replace(note, action="keys" if only_keys else "settings")


def entry_of(change: LastChange | LastEdit, after: StageRecord, version: int) -> AuditEntry:
    """The entry of `change`, carried by a stored tenant of `version` whose stage is `after`."""
    note = change.note
    return AuditEntry(
        number=change.number,
        version=change.version or version,
        at_ms=note.at_ms,
        who=note.who,
        action=note.action,
        why=note.why,
        before=change.before if isinstance(change, LastChange) else after,
        after=after,
        changes=change.changes,
    )


class Audit:
    """The filed entries. Waiting methods raise BusUnavailable when the state store is away."""

    def __init__(self, store: StateStore) -> None:
        self._store = store

    async def file(self, tenant: str, entry: AuditEntry) -> None:
        """Keeps `entry` unless it is kept already, and drops the one that is now too many."""
        key = _key(tenant, entry.number)
        if await self._store.get(SPACE, key) is not None:
            return
        if entry.number > KEPT:
            await self._store.take(SPACE, _key(tenant, entry.number - KEPT))
        # A conflict: another node was faster.
        with suppress(VersionConflict):
            await self._store.put(SPACE, key, msgspec.json.encode(entry), expected=0, quiet=True)

    async def page(self, tenant: str, upto: int, limit: int) -> list[AuditEntry]:
        """At most `limit` entries with numbers of `upto` and below, the newest first."""
        after = _key(tenant, max(0, upto - limit))
        values = await self._store.list(SPACE, prefix=f"{tenant}/", after=after, limit=limit)
        found = [_decoder.decode(value.data) for value in values]
        return [entry for entry in reversed(found) if entry.number <= upto]

    async def last_number(self, tenant: str) -> int:
        """The number of the newest entry, 0 when there is none: for a tenant that is made once more."""
        last, after = 0, ""
        while values := await self._store.list(SPACE, prefix=f"{tenant}/", after=after, limit=PAGE):
            after = values[-1].key
            last = _decoder.decode(values[-1].data).number
        return last


def _key(tenant: str, number: int) -> str:
    return f"{tenant}/{number:012d}"
