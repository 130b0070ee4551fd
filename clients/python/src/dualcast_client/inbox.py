"""`AsyncInbox` and `Inbox`: what is stored for a user. Users have their own; the roles publisher and admin
everybody's of their tenant. All calls raise DualcastError."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Iterator, Sequence
from typing import Any

from . import inbox_calls as calls
from .flow import Call
from .inbox_calls import Counts, Deletable, InboxItem, InboxPage, InboxState, Marked
from .paging import each, each_sync

PAGE = 100


class AsyncInbox:
    """Made by `AsyncClient.inbox(user)`."""

    def __init__(self, call: Callable[[Call[Any]], Awaitable[Any]], user: str) -> None:
        self._call = call
        self.user = user

    def __repr__(self) -> str:
        return f"AsyncInbox({self.user!r})"

    def items(self, states: Sequence[InboxState] = (), kinds: Sequence[str] = ()) -> AsyncIterator[InboxItem]:
        """All of it, newest first: `async for item in client.inbox("alice").items(): …`. `kinds`: types."""
        return each(
            self._call,
            lambda before: calls.page(self.user, before, PAGE, states, kinds),
            lambda page: page.notifications,
        )

    async def page(
        self,
        before: str = "",
        limit: int = 50,
        states: Sequence[InboxState] = (),
        kinds: Sequence[str] = (),
    ) -> InboxPage:
        """One page (`limit` 1 to 100) with the counters."""
        page: InboxPage = await self._call(calls.page(self.user, before, limit, states, kinds))
        return page

    async def counts(self, by_kind: bool = False) -> Counts:
        """How many are unread, and how many of these unseen."""
        counts: Counts = await self._call(calls.counts(self.user, by_kind))
        return counts

    async def mark_seen(self, ids: Iterable[str] | None = None) -> Marked:
        """Unseen → seen. None: all there are when the server gets to it. The user's devices are told."""
        return await self._mark("seen", ids)

    async def mark_read(self, ids: Iterable[str] | None = None) -> Marked:
        """Unseen or seen → read."""
        return await self._mark("read", ids)

    async def mark_unread(self, ids: Iterable[str] | None = None) -> Marked:
        """Read → seen again."""
        return await self._mark("unread", ids)

    async def archive(self, ids: Iterable[str] | None = None) -> Marked:
        """Any state → archived, for good."""
        return await self._mark("archive", ids)

    async def delete(self, ident: str) -> Marked:
        """Takes one out of this inbox. Raises `unknown-notification` when it is not there."""
        marked: Marked = await self._call(calls.delete(self.user, ident))
        return marked

    async def delete_all(self, which: Deletable) -> Marked:
        """Takes out what is read, archived, or all."""
        marked: Marked = await self._call(calls.delete_all(self.user, which))
        return marked

    async def _mark(self, verb: calls.Verb, ids: Iterable[str] | None) -> Marked:
        marked: Marked = await self._call(calls.mark(self.user, verb, ids))
        return marked


class Inbox:
    """AsyncInbox for threads, made by `Client.inbox(user)`."""

    def __init__(self, call: Callable[[Call[Any]], Any], user: str) -> None:
        self._call = call
        self.user = user

    def __repr__(self) -> str:
        return f"Inbox({self.user!r})"

    def items(self, states: Sequence[InboxState] = (), kinds: Sequence[str] = ()) -> Iterator[InboxItem]:
        """All of it, newest first. `kinds`: types."""
        return each_sync(
            self._call,
            lambda before: calls.page(self.user, before, PAGE, states, kinds),
            lambda page: page.notifications,
        )

    def page(
        self,
        before: str = "",
        limit: int = 50,
        states: Sequence[InboxState] = (),
        kinds: Sequence[str] = (),
    ) -> InboxPage:
        """One page (`limit` 1 to 100) with the counters."""
        page: InboxPage = self._call(calls.page(self.user, before, limit, states, kinds))
        return page

    def counts(self, by_kind: bool = False) -> Counts:
        """How many are unread, and how many of these unseen."""
        counts: Counts = self._call(calls.counts(self.user, by_kind))
        return counts

    def mark_seen(self, ids: Iterable[str] | None = None) -> Marked:
        """Unseen → seen. None: all there are when the server gets to it. The user's devices are told."""
        return self._mark("seen", ids)

    def mark_read(self, ids: Iterable[str] | None = None) -> Marked:
        """Unseen or seen → read."""
        return self._mark("read", ids)

    def mark_unread(self, ids: Iterable[str] | None = None) -> Marked:
        """Read → seen again."""
        return self._mark("unread", ids)

    def archive(self, ids: Iterable[str] | None = None) -> Marked:
        """Any state → archived, for good."""
        return self._mark("archive", ids)

    def delete(self, ident: str) -> Marked:
        """Takes one out of this inbox. Raises `unknown-notification` when it is not there."""
        marked: Marked = self._call(calls.delete(self.user, ident))
        return marked

    def delete_all(self, which: Deletable) -> Marked:
        """Takes out what is read, archived, or all."""
        marked: Marked = self._call(calls.delete_all(self.user, which))
        return marked

    def _mark(self, verb: calls.Verb, ids: Iterable[str] | None) -> Marked:
        marked: Marked = self._call(calls.mark(self.user, verb, ids))
        return marked
