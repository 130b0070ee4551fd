"""Dead nodes: who finds one takes its connections off, in batches, and says who left."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Callable, Sequence
from contextlib import suppress

import structlog

from dualcast.model.errors import BusUnavailable

from .announcing import Announcements
from .port import PresenceSettings, PresenceStore

log = structlog.get_logger("dualcast.presence")
QUERY_CHUNKS = 100
"""A query that finds a dead node takes off at most so many batches of it before it answers."""


class Reaper:
    """One per node (`node`: its id). `now` gives monotonic seconds."""

    def __init__(
        self,
        store: PresenceStore,
        announcements: Announcements,
        settings: PresenceSettings,
        *,
        node: str,
        now: Callable[[], float],
    ) -> None:
        self._store = store
        self._announcements = announcements
        self._settings = settings
        self._node = node
        self._now = now
        self._locks: dict[str, asyncio.Lock] = {}
        self._unanswered: dict[str, tuple[str, str]] = {}
        """Tenant → (node, token) of a call whose outcome is not known; at most one per tenant."""
        self._reached_at = now()
        self._begins_at = 0.0
        self.reaped = 0
        """Dead nodes taken off, per tenant."""
        store.on_expired = self._for_query

    def reached(self) -> None:
        """The store answered. When it had not for long, all leases may be over although their nodes live:
        they get time to renew them before anybody is taken off."""
        now, patience_s = self._now(), 2 * self._settings.renew_s
        if now - self._reached_at > patience_s:
            self._begins_at = now + patience_s
        self._reached_at = now

    async def look(self, tenants: Sequence[str]) -> None:
        """Says that this node serves `tenants`, and takes off nodes that were the last to serve a tenant.
        Raises BusUnavailable."""
        overdue = await self._store.overdue(self._node, tenants, hold_ms=self._settings.hold_ms)
        self.reached()
        for tenant, node in overdue:
            await self.reap(tenant)
            # Its lease may end a little later than its promise: then it is looked at again.
            if await self._store.held(tenant, node, "0") == ("0", []):
                await self._store.settled(tenant, node)
        for tenant in list(self._unanswered):
            await self.reap(tenant)

    async def reap(self, tenant: str, chunks: int | None = None) -> None:
        """Takes the tenant's dead nodes off, at most `chunks` batches of connections; one call at a time per
        tenant. Raises BusUnavailable."""
        if self._now() < self._begins_at:
            return
        async with self._locks.setdefault(tenant, asyncio.Lock()):
            if unanswered := self._unanswered.get(tenant):
                await self._chunk(tenant, *unanswered)
            for node in await self._store.expired(tenant):
                more = True
                while more and chunks != 0:
                    more = await self._chunk(tenant, node, secrets.token_hex(8))
                    chunks = None if chunks is None else chunks - 1

    async def _for_query(self, tenant: str) -> None:
        await self.reap(tenant, QUERY_CHUNKS)

    async def _chunk(self, tenant: str, node: str, token: str) -> bool:
        self._unanswered[tenant] = node, token
        reaped = await self._store.reap(tenant, self._node, token, node, self._settings.batch)
        del self._unanswered[tenant]
        self.reached()
        self._announcements.add(tenant, reaped.deltas)
        with suppress(BusUnavailable):  # it is announced later
            await self._announcements.send(tenant)
        if not reaped.more:
            self.reaped += 1
            log.warning("a dead node was taken off presence", tenant=tenant, node=node)
        return reaped.more
