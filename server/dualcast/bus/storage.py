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
"""(connection in the append's transaction, draft, offset, now in Unix ms) → channel → badge (used
only of drafts with an inbox rider) of its entry. Offset 0: an ephemeral draft.

Runs in the writer's thread, once per draft that is new; may read and write its own tables, must not begin,
commit or wait, and must keep nothing in memory: a transaction that fails takes back what it did, and it may
be called again. A DualcastError refuses this draft (with this error), any other exception, too (logged,
answered as one that cannot be stored); what was written for it is undone.
"""


class SqlPart(Struct, frozen=True):
    """A room's share of the SQL engines."""

    schema: str
    """`CREATE … IF NOT EXISTS` statements, separated by `;`, run at every start."""
    rider: SqlRider | None = None
    """Called for every new draft that has a rider (`inbox` or `push`); look which."""
    restored: str = ""
    """Statements run after the schema at a start that finds the file put back from a copy: what was stored,
    and told, after the copy is lost."""


class Database(Protocol):
    """SQLite shared with the log."""

    async def write(self, work: Callable[[sqlite3.Connection], T]) -> T:
        """Runs `work` in a transaction that may hold others' work too; returns once it is durable.

        What `work` raises undoes what it wrote (a savepoint) and is raised here. Raises BusUnavailable when
        the file cannot be written or too much waits. Works and appends submitted in one loop turn keep their
        order. `work` runs in another thread (or in this one), so it must be plain SQL and arithmetic; it may
        run twice, the first time undone. It must not begin or commit, and must be short: appends wait for
        it.
        """
        ...

    async def read(self, work: Callable[[sqlite3.Connection], T]) -> T:
        """Runs `work` on a read-only snapshot, which holds every write that has returned. What `work` raises
        is raised here. Raises BusUnavailable."""
        ...


class Extension(Struct, frozen=True):
    """A room's share of the redis engine's scripts. All run with `lua/fence.lua` in front: PREFIX (the
    tenant's key prefix with its hash tag, ending in `:`), META, `text(n)`, `push(…)`."""

    riders: str = ""
    """Lua that adds `RIDERS.inbox` or `RIDERS.push`: function(rider, offset, id, body, now_ms), called in
    this order before anything of the draft is appended. Its locals are its own.

    `rider` is the rider struct as a list, its user names as key parts (`user:alice%20b`); `body` the
    publication's record. RIDERS.inbox may return channel key part → badge as `cmsgpack.pack({unread, unseen,
    user_revision, tenant_revision})`. An error refuses the draft, but Redis undoes nothing: check first, then
    write. Not more than some thousand arguments per `redis.call` (`unpack`): a draft may have 1,000 users.
    """
    scripts: Mapping[str, str] = {}
    """Name → Lua text of scripts for `Scripting.call`. KEYS[1] is the tenant's meta key."""


class Scripting(Protocol):
    """Scripts on the connection the node has anyway."""

    async def call(self, script: str, tenant: str, *arguments: bytes, read: bool = False) -> Any:
        """The script's reply. A call whose reply was lost is sent once more: scripts bear repetition. `read`:
        on the connection for reading. Calls on one connection keep their order; an append of the same turn
        comes behind them. Raises BusUnavailable, also when the script failed (logged), KeyError when there is
        none.
        """
        ...
