"""The InboxStore port, and what it gives. `tests/contract/test_inbox_store.py` proves it for every engine.

An inbox shows a user two kinds of items in one order (offsets, newest first): personal ones, and those stored
once for the whole tenant. Every operation first takes out what has expired. All methods raise BusUnavailable.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, Protocol

from msgspec import Struct

from dualcast.model.inbox import Badge, State

STATES: tuple[State, ...] = ("unseen", "seen", "read", "archived")
"""By number. An item that is deleted for one user, but lives on for others, has number 4."""
DELETED = 4
Action = Literal["seen", "read", "archived", "unread", "deleted"]
"""Raises items to that state. `unread`: read ones are `seen` again; others stay as they are."""
MAX_IDS = 500
"""Ids in one call, and ids told of a change of all."""
MAX_SCAN = 1000
"""Items a page looks at. When filters pass over many it may be short, or empty, and still have a next
one."""


MAX_NUMBERED = 10_000
"""Newest items of either kind that numbered pages know of."""


class InboxSettings(Struct, frozen=True):
    """How much an inbox keeps; the same for what is stored once for the tenant."""

    max_items: int = 1000
    """The newest so many; 1 to 100,000."""
    max_age_s: int = 90 * 86_400
    """Also the life of an inbox nobody touches."""


_UNREAD = b'"status":"unread","created_at":'


class InboxItem(Struct, frozen=True):
    """One notification as one user sees it."""

    id: str
    """The publication's id."""
    offset: int
    """The publication's offset in the tenant's log: the order of the inbox."""
    kind: str
    """The notification's type."""
    state: State
    wide: bool
    """Stored once for the whole tenant."""
    record: bytes
    """JSON of the canonical notification. Its `status` is that of the moment it was published."""

    def json(self) -> bytes:
        """The notification as it was published, with `status`, `state` and `scope` as they are now."""
        scope = b"tenant" if self.wide else b"user"
        record = self.record
        if self.state in ("read", "archived"):
            # `data` is the last key, so the first place is the notification's own (publishing.notification).
            record = record.replace(_UNREAD, b'"status":"read","created_at":', 1)
        return b'%b,"state":"%b","scope":"%b"}' % (record[:-1], self.state.encode(), scope)


class Found(Struct, frozen=True):
    """A page of items, newest first. `next`: go on before this offset; 0: there is no more."""

    items: tuple[InboxItem, ...]
    next: int
    badge: Badge


class Numbered(Struct, frozen=True):
    """A numbered page, newest first, and how many items there are on all pages."""

    items: tuple[InboxItem, ...]
    total: int


class Marked(Struct, frozen=True):
    """What a change did. Of a change of all, `changed` has the newest `MAX_IDS`; `count` is always exact.

    `unknown`: asked for, but not (or no longer) in this inbox.
    """

    changed: tuple[str, ...]
    unknown: tuple[str, ...]
    count: int
    badge: Badge


class InboxStore(Protocol):
    """See the module docstring. User ids are valid channel ids; `ids` are at most `MAX_IDS`, without
    doubles."""

    async def page(
        self,
        tenant: str,
        user: str,
        *,
        before: int = 0,
        limit: int = 50,
        states: Sequence[State] = (),
        kinds: Sequence[str] = (),
    ) -> Found:
        """Items with offset < `before` (0: from the newest); (): of every state, of every kind."""
        ...

    async def numbered(
        self,
        tenant: str,
        user: str,
        *,
        skip: int,
        limit: int,
        states: Sequence[State] = (),
        kinds: Sequence[str] = (),
    ) -> Numbered:
        """Items after the first `skip`, and how many there are in all; (): of every state, of every kind.

        For contracts that number their pages. With filters it looks at every item (of either kind, the newest
        MAX_NUMBERED), so `page` is the better one wherever a cursor will do.
        """
        ...

    async def counts(self, tenant: str, user: str) -> Badge: ...

    async def counts_by_kind(self, tenant: str, user: str) -> tuple[Badge, dict[str, int]]:
        """The counters, and in the same step how many items of each kind are unseen or seen; kinds without
        any are missing."""
        ...

    async def change(
        self,
        tenant: str,
        user: str,
        action: Action,
        ids: Sequence[str] | None,
        *,
        states: Sequence[State] = (),
    ) -> Marked:
        """None: everything there is now, with `states` only what is in one of them. Changing what is changed
        already succeeds and is not in `changed`.
        """
        ...

    async def withdraw(self, tenant: str, ident: str) -> int | None:
        """Takes a tenant-wide item out of every inbox: the new tenant revision, or None when there is none
        such."""
        ...
