"""Live connections of all dialects and nodes, as the contracts' statistics want them.

The presence store knows every authenticated connection; anonymous ones are counted per node and told to the
others through the state store. Listing all connections is the cost of an answer, so answers are shared: one
reading at a time per tenant, and the longer it took the longer it is good.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from typing import Any, NoReturn

import structlog
from msgspec import Struct

from dualcast.dialects.legacy import Stats
from dualcast.gateway.services import Services
from dualcast.model.errors import BusUnavailable
from dualcast.session.legacy_registry import Registry
from dualcast.session.node import Node

log = structlog.get_logger("dualcast.gateway")

PAGE = 1000
KEEP = 20.0
"""A reading is good for so many times what it took."""
SMALL_S = 0.02
"""Whoever came after a reading that took no longer than this gets a new one."""
SPACE = "legacy-anonymous"
TELL_S = 5.0
AGAIN_S = 20.0
"""A number that has not changed is told again so often: every telling is an entry of the change log."""
TOLD_S = 60.0
"""A node that died counts so long."""


class _Reading(Struct, frozen=True):
    total: int
    users: dict[str, int]
    began: float
    good_until: float
    took_s: float


class StatsReader:
    """One per node."""

    def __init__(self, node: Node, services: Services, registry: Registry) -> None:
        self._node = node
        self._services = services
        self._registry = registry
        self._readings: dict[str, _Reading] = {}
        self._turns: dict[str, asyncio.Lock] = {}
        self._groups: dict[tuple[str, str], tuple[float, dict[str, int]]] = {}
        self._told: dict[str, tuple[int, float]] = {}

    async def read(self, tenant: str, *, kind: str = "", session: Any = None) -> Stats:
        """Of a tenant. `kind`: of the channels in `groups` (`room:`, `topic:`); `session`: who asks. Raises
        BusUnavailable."""
        asked = self._node.loop.time()
        found = self._good(tenant, asked, session)
        if found is None:
            async with self._turns.setdefault(tenant, asyncio.Lock()):
                found = self._good(tenant, asked, session)
                if found is None:
                    found = self._readings[tenant] = await self._read(tenant)
        groups = self._groups_of(tenant, kind)
        own: list[str] = []
        for feed in session.channels if session is not None else ():
            if kind and feed.name.startswith(kind):
                own.append(feed.name)
                groups[feed.name] = len(feed.sessions)
        return Stats(total_connections=found.total, users=found.users, groups=groups, own_groups=own)

    def _good(self, tenant: str, asked: float, session: Any) -> _Reading | None:
        found = self._readings.get(tenant)
        if found is None:
            return None
        if found.began >= asked:
            return found
        came_before = session is None or session.attached_at <= found.began or found.took_s > SMALL_S
        return found if came_before and self._node.loop.time() < found.good_until else None

    async def _read(self, tenant: str) -> _Reading:
        loop, services = self._node.loop, self._services
        began = loop.time()
        users: Counter[str] = Counter()
        after = ""
        while page := await services.presence.connections(tenant, None, after, PAGE):
            users.update(facts.user for facts in page)
            after = page[-1].id
            if len(page) < PAGE:
                break
        total = users.total() + await self._anonymous(tenant)
        took_s = loop.time() - began
        return _Reading(total, dict(users), began, loop.time() + KEEP * took_s, took_s)

    async def _anonymous(self, tenant: str) -> int:
        own = f"{tenant}/{self._node.id}"
        others = await self._services.state.list(SPACE, prefix=tenant + "/", limit=PAGE)
        return self._registry.anonymous[tenant] + sum(int(row.data) for row in others if row.key != own)

    def _groups_of(self, tenant: str, kind: str) -> dict[str, int]:
        feed = self._node.hub.tenants.get(tenant)
        if feed is None or not kind:
            return {}
        now = self._node.loop.time()
        known = self._groups.get((tenant, kind))
        if known is not None and now < known[0]:
            return dict(known[1])
        counts = {
            name: len(channel.sessions)
            for name, channel in feed.channels.items()
            if channel.sessions and name.startswith(kind)
        }
        self._groups[tenant, kind] = (now + KEEP * (self._node.loop.time() - now), counts)
        return dict(counts)

    async def run(self) -> NoReturn:
        """Tells the other nodes how many anonymous connections there are here, for ever."""
        while True:
            await self.tell()
            await asyncio.sleep(TELL_S)

    async def tell(self) -> None:
        """Tells them now."""
        now = self._node.loop.time()
        try:
            for tenant in {*self._registry.anonymous, *self._told}:
                count = self._registry.anonymous[tenant]
                told, at = self._told.get(tenant, (0, 0.0))
                key = f"{tenant}/{self._node.id}"
                if not count:
                    await self._services.state.delete(SPACE, key)
                    del self._told[tenant]
                elif count != told or now - at >= AGAIN_S:
                    await self._services.state.put(SPACE, key, b"%d" % count, ttl_s=TOLD_S)
                    self._told[tenant] = (count, now)
        except BusUnavailable:
            log.warning("anonymous connections cannot be told to the other nodes now")
