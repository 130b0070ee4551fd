"""The StateStore port: a small versioned key-value store all nodes share, with a change log.

Tenants, grants, tickets, revocations and connection-close commands stand on it. Values are bytes the caller
encodes, at most 96 KiB. Keys are text; a `space` groups keys of one kind. Every write takes the next
*revision* of the whole store (an integer that
only grows); the change log names (revision, space, key) so that nodes poll it (every 500 ms) instead of
holding a subscription.
"""

from __future__ import annotations

from typing import Protocol

from msgspec import Struct

from dualcast.model.errors import DualcastError


class VersionConflict(DualcastError):
    """The key's version is not the expected one: somebody else wrote it."""

    code = "version-conflict"
    status = 409


class Value(Struct, frozen=True):
    """A stored value; `version` is the revision of its last write."""

    key: str
    data: bytes
    version: int


class Change(Struct, frozen=True):
    """Key `key` of `space` was written (or deleted, or taken) at `revision`."""

    revision: int
    space: str
    key: str


class Changes(Struct, frozen=True):
    """Changes after the asked revision, in order. `complete` False: the log no longer reaches back that far;
    read again."""

    revision: int
    changes: tuple[Change, ...]
    complete: bool = True


class StateStore(Protocol):
    """All methods raise BusUnavailable when the store cannot be reached."""

    async def start(self) -> None: ...

    async def close(self) -> None: ...

    async def get(self, space: str, key: str) -> Value | None:
        """The live (unexpired) value, or None."""
        ...

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
        """Stores and returns the new version. `expected`: the version the key must have now (0: must not
        exist), else VersionConflict. `ttl_s`: it vanishes by itself. `quiet`: not in the change log
        (tickets)."""
        ...

    async def delete(self, space: str, key: str) -> bool:
        """True when there was a live value."""
        ...

    async def take(self, space: str, key: str) -> Value | None:
        """Atomically gets and deletes: exactly one caller ever receives a value. Not in the change log."""
        ...

    async def list(self, space: str, *, prefix: str = "", after: str = "", limit: int = 100) -> list[Value]:
        """Live values in key order with key > `after` that start with `prefix`."""
        ...

    async def changes(self, after: int) -> Changes:
        """Changes with revision > `after`; the log keeps at least the last 1,000 changes."""
        ...
