"""The inbox as the rest of the server uses it: checked, and every change told to all devices of the user."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from typing import Literal

import msgspec
import structlog

from dualcast.bus.announcing import Announcer
from dualcast.model.channel import ALL, check_id, user_channel
from dualcast.model.errors import BadRequest, BusUnavailable, LimitExceeded
from dualcast.model.inbox import Badge, State
from dualcast.model.publication import Audience

from .cursor import read_cursor, write_cursor
from .port import MAX_IDS, MAX_NUMBERED, STATES, Action, InboxItem, InboxStore, Marked

Mark = Literal["seen", "read", "archived", "unread"]
MARKS: tuple[Mark, ...] = ("seen", "read", "archived", "unread")
Status = Literal["unread", "read", "all"]
"""What a contract without archives tells apart: everything is one or the other."""
_STATES: Mapping[Status, tuple[State, ...]] = {
    "unread": ("unseen", "seen"),
    "read": ("read", "archived"),
    "all": (),
}
EVENT = "inbox"
MAX_PAGE = 100
MAX_KINDS = 20
TOGETHER = 50
"""Users who are told of something at a time."""
log = structlog.get_logger("dualcast.inbox")


class InboxPage(msgspec.Struct, frozen=True):
    """A page, newest first. `next`: cursor of the next one, "" when there is none; with filters a page may be
    short, or empty, and still have a next one."""

    items: tuple[InboxItem, ...]
    next: str
    badge: Badge


class Change(msgspec.Struct, frozen=True, omit_defaults=True):
    """Data of an `inbox` publication on `user:<id>`. `ids` null: all there were, with `states` all that were
    in one of them."""

    action: Action | Literal["added"]
    ids: tuple[str, ...] | None
    unread: int
    unseen: int
    revision: tuple[int, int]
    states: tuple[State, ...] = ()


class Withdrawn(msgspec.Struct, frozen=True):
    """Data of an `inbox` publication on `all`."""

    action: Literal["withdrawn"]
    ids: tuple[str, ...]
    tenant_revision: int


_encode = msgspec.json.Encoder().encode


class InboxService:
    """See the module docstring. Methods raise BadChannel (not a user id, or not an id), BadRequest,
    LimitExceeded, BusUnavailable.

    A change is stored first. When telling of it fails, it is logged and counted, and clients notice by the
    revision of the next thing they hear.
    """

    def __init__(self, store: InboxStore, announcer: Announcer) -> None:
        self._store = store
        self._announcer = announcer
        self.unannounced = 0
        """Changes that could not be told of, since start."""

    async def list(
        self,
        tenant: str,
        user: str,
        *,
        before: str = "",
        limit: int = 50,
        states: Sequence[State] = (),
        kinds: Sequence[str] = (),
    ) -> InboxPage:
        """Items older than cursor `before`, of these states and kinds (): all of them. Raises BadCursor."""
        check_id(user)
        if not 1 <= limit <= MAX_PAGE:
            raise BadRequest(f"limit is 1 to {MAX_PAGE}")
        if len(kinds) > MAX_KINDS:
            raise LimitExceeded(f"at most {MAX_KINDS} types")
        _check_states(states)
        offset = read_cursor(tenant, user, before)
        found = await self._store.page(
            tenant, user, before=offset, limit=limit, states=tuple(dict.fromkeys(states)), kinds=kinds
        )
        return InboxPage(found.items, write_cursor(tenant, user, found.next), found.badge)

    async def page(
        self,
        tenant: str,
        user: str,
        *,
        status: Status = "all",
        kind: str = "",
        page: int = 1,
        page_size: int = 20,
    ) -> tuple[tuple[InboxItem, ...], int]:
        """A numbered page, newest first, for contracts that have no cursors, and how many items there are on
        all of them. `page` from 1, `page_size` to MAX_PAGE; `kind` "": of every type. Items that come in
        between shift the pages; at most `port.MAX_NUMBERED` of either kind are known here.
        """
        check_id(user)
        if page < 1 or not 1 <= page_size <= MAX_PAGE:
            raise BadRequest(f"pages count from 1, and have 1 to {MAX_PAGE} items")
        found = await self._store.numbered(
            tenant,
            user,
            skip=(min(page, MAX_NUMBERED * 2 + 1) - 1) * page_size,
            limit=page_size,
            states=_STATES[status],
            kinds=(kind,) if kind else (),
        )
        return found.items, found.total

    async def counts(self, tenant: str, user: str) -> Badge:
        return await self._store.counts(tenant, check_id(user))

    async def counts_by_kind(self, tenant: str, user: str) -> tuple[Badge, dict[str, int]]:
        """The counters, and how many items of each type are unseen or seen: of one moment."""
        return await self._store.counts_by_kind(tenant, check_id(user))

    async def mark(
        self, tenant: str, user: str, state: Mark, ids: Sequence[str] | None, by_connection: str = ""
    ) -> Marked:
        """Raises items to `state` (`unread`: brings read ones back to seen). None: all up to now.

        `by_connection`: is not told, because it gets the answer.
        """
        if state not in MARKS:
            raise BadRequest("an item is marked " + ", ".join(MARKS))
        return await self._change(tenant, user, state, ids, (), by_connection)

    async def delete(
        self,
        tenant: str,
        user: str,
        ids: Sequence[str] | None,
        *,
        states: Sequence[State] = (),
        by_connection: str = "",
    ) -> Marked:
        """Deletes items from this user's inbox. None: all up to now, with `states` those in one of them."""
        _check_states(states)
        return await self._change(tenant, user, "deleted", ids, states, by_connection)

    async def withdraw(self, tenant: str, ident: str) -> bool:
        """Takes a tenant-wide item back from everybody. False: there is none of this id."""
        check_id(ident)
        revision = await self._store.withdraw(tenant, ident)
        if revision is None:
            return False
        await self._announce(tenant, ALL, _encode(Withdrawn("withdrawn", (ident,), revision)), None)
        return True

    async def added(self, tenant: str, items: Sequence[tuple[str, str]]) -> None:
        """Tells all devices of the users in `items`, (user, id) each, their counters, after those came in
        with publications that only some of their devices were due; TOGETHER at a time, because a publisher
        waits for it. Raises nothing: what is stored is stored."""
        for start in range(0, len(items), TOGETHER):
            some = items[start : start + TOGETHER]
            try:
                badges = await asyncio.gather(*(self._store.counts(tenant, user) for user, _ in some))
            except BusUnavailable:
                self.unannounced += len(items) - start
                log.warning("inbox_change_not_announced", tenant=tenant)
                return
            await asyncio.gather(
                *(self._tell_added(tenant, *item, badge) for item, badge in zip(some, badges, strict=True))
            )

    async def _change(
        self,
        tenant: str,
        user: str,
        action: Action,
        ids: Sequence[str] | None,
        states: Sequence[State],
        by_connection: str,
    ) -> Marked:
        channel = user_channel(user)
        if ids is not None:
            ids = tuple(dict.fromkeys(ids))
            if len(ids) > MAX_IDS:
                raise LimitExceeded(f"at most {MAX_IDS} ids in one request", code="too-many-items")
            for ident in ids:
                check_id(ident)
        marked = await self._store.change(tenant, user, action, ids, states=states)
        if marked.count:
            badge = marked.badge
            told = None if ids is None else marked.changed
            revision = badge.user_revision, badge.tenant_revision
            data = _encode(Change(action, told, badge.unread, badge.unseen, revision, tuple(states)))
            audience = Audience(exclude_connections=(by_connection,)) if by_connection else None
            await self._announce(tenant, channel, data, audience)
        return marked

    async def _tell_added(self, tenant: str, user: str, ident: str, badge: Badge) -> None:
        revision = badge.user_revision, badge.tenant_revision
        change = Change("added", (ident,), badge.unread, badge.unseen, revision)
        await self._announce(tenant, user_channel(user), _encode(change), None)

    async def _announce(self, tenant: str, channel: str, data: bytes, audience: Audience | None) -> None:
        try:
            await self._announcer.announce(tenant, (channel,), EVENT, data, audience=audience)
        except BusUnavailable:
            self.unannounced += 1
            log.warning("inbox_change_not_announced", tenant=tenant)


def _check_states(states: Sequence[State]) -> None:
    if any(state not in STATES for state in states):
        raise BadRequest("a state is " + ", ".join(STATES))
