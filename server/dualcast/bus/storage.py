"""What other rooms keep in the bus's engine: beside the log, and riding along with an append.

The embedded engines give a `Database` (SQLite: the bus file, or one in memory), the redis engine `Scripting`.
A room that stores something has two engines: SQL and Lua.

Riders of a draft (`Draft.inbox`, `Draft.push`) are stored in the append's own transaction or script. SQL:
`SqlRider` callables given to the engine. Redis: an `Extension`, whose `riders` text is put before the append
script.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Mapping
from typing import Any, Protocol, TypeVar

from msgspec import Struct

from dualcast.model.inbox import Badge
from dualcast.model.publication import Draft

T = TypeVar("T")
SqlRider = Callable[[sqlite3.Connection, Draft, int, int], Mapping[str, Badge] | None]
"""(connection in the append's transaction, draft, offset, now in Unix ms) → channel → badge of its entry.
Runs
in the writer's thread, may read and write its own tables, must not begin, commit or wait."""


class SqlPart(Struct, frozen=True):
    """A room's share of the SQL engines."""

    schema: str
    """`CREATE … IF NOT EXISTS` statements, separated by `;`, run at every start."""
    rider: SqlRider | None = None
    """Called for every new draft that has a rider."""


class Database(Protocol):
    """SQLite shared with the log."""

    async def write(self, work: Callable[[sqlite3.Connection], T]) -> T:
        """Runs `work` in a transaction that may hold others' work too; returns once it is durable.

        What `work` raises undoes what it wrote (a savepoint) and is raised here. Raises BusUnavailable.
        `work` runs in another thread (or in this one), so it must be plain SQL and arithmetic.
        """
        ...

    async def read(self, work: Callable[[sqlite3.Connection], T]) -> T:
        """Runs `work` on a read-only snapshot. Raises BusUnavailable."""
        ...


class Extension(Struct, frozen=True):
    """A room's share of the redis engine's scripts. All run with `lua/fence.lua` in front: PREFIX (the
    tenant's key prefix with its hash tag, ending in `:`), META, `text(n)`, `push(…)`."""

    riders: str = ""
    """Lua that adds `RIDERS.inbox` or `RIDERS.push`: function(rider, offset, id, body, now_ms). `rider` is
    the
    rider struct as a list, its user names as key parts (`user:alice%20b`); `body` the publication's record.
    May return channel key part → packed badge."""
    scripts: Mapping[str, str] = {}
    """Name → Lua text of scripts for `Scripting.call`. KEYS[1] is the tenant's meta key."""


class Scripting(Protocol):
    """Scripts on the connection the node has anyway."""

    async def call(self, script: str, tenant: str, *arguments: bytes, read: bool = False) -> Any:
        """The script's reply. A call whose reply was lost is sent once more: scripts bear repetition. `read`:
        on the connection for reading. Raises BusUnavailable, also when the script failed.
        """
        ...
