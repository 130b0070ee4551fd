"""Live connections of all dialects and nodes, as the contracts' statistics want them.

The presence store knows every authenticated connection. Anonymous ones, and who is in which room or topic,
are counted per node and told to the others through the state store, a few seconds late. Listing all
connections is the cost of an answer, so answers are shared: one reading at a time per tenant, and the longer
it took the longer it is good.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from typing import Any, NoReturn

import msgspec
import structlog
from msgspec import Struct

from dualcast.dialects.legacy import Stats
from dualcast.dialects.progress import CHANNELS
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
SPACE = "legacy-stats"
TELL_S = 5.0
AGAIN_S = 20.0
"""What has not changed is told again so often."""
GROUPS = ("room:", "topic:")
MAX_TOLD_BYTES = 48 * 1024
"""Of the groups of a tenant on a node; beyond it the smallest are not told."""
TOLD_S = 60.0
"""A node that died counts so long."""


class _Reading(Struct, frozen=True):
    total: int
    users: dict[str, int]
    groups: dict[str, int]
    """On the other nodes."""
    began: float
    good_until: float
    took_s: float


class Told(Struct, frozen=True, array_like=True):
    """What a node tells the others of a tenant."""

    anonymous: int = 0
    groups: dict[str, int] = {}
    """Channel → sessions on that node."""


_encode = msgspec.msgpack.Encoder(order="deterministic").encode
_decode = msgspec.msgpack.Decoder(Told).decode


class StatsReader:
    """One per node. `tenant`: told of even where it has no older connections (the legacy tenant)."""

    def __init__(self, node: Node, services: Services, registry: Registry, tenant: str) -> None:
        self._node = node
        self._services = services
        self._registry = registry
        self._readings: dict[str, _Reading] = {}
        self._turns: dict[str, asyncio.Lock] = {}
        self._groups: dict[tuple[str, str], tuple[float, dict[str, int]]] = {}
        self._tenant = tenant
        self._told: dict[str, tuple[bytes, float]] = {}

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
        groups = Counter(self._groups_of(tenant, kind))
        own: list[str] = []
        for feed in session.channels if session is not None else ():
            if kind and feed.name.startswith(kind):
                own.append(feed.name)
                groups[feed.name] = len(feed.sessions)
        if kind:
            groups.update({name: count for name, count in found.groups.items() if name.startswith(kind)})
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
        others = await self._others(tenant)
        total = users.total() + self._registry.anonymous[tenant] + sum(one.anonymous for one in others)
        groups: Counter[str] = Counter()
        for one in others:
            groups.update(one.groups)
        took_s = loop.time() - began
        return _Reading(total, dict(users), dict(groups), began, loop.time() + KEEP * took_s, took_s)

    async def _others(self, tenant: str) -> list[Told]:
        own = f"{tenant}/{self._node.id}"
        rows = await self._services.state.list(SPACE, prefix=tenant + "/", limit=PAGE)
        return [_decode(row.data) for row in rows if row.key != own]

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
            if channel.sessions and name.startswith(kind) and not name.startswith(CHANNELS)
        }
        self._groups[tenant, kind] = (now + KEEP * (self._node.loop.time() - now), counts)
        return dict(counts)

    async def run(self) -> NoReturn:
        """Tells the other nodes what they cannot know, for ever."""
        while True:
            await self.tell()
            await asyncio.sleep(TELL_S)

    async def tell(self) -> None:
        """Tells them now."""
        now = self._node.loop.time()
        try:
            for tenant in {self._tenant, *self._registry.tenants, *self._told}:
                said = self._to_tell(tenant)
                told, at = self._told.get(tenant, (b"", 0.0))
                key = f"{tenant}/{self._node.id}"
                if said == _NOTHING:
                    if tenant in self._told:
                        await self._services.state.delete(SPACE, key)
                        self._told.pop(tenant, None)
                elif said != told or now - at >= AGAIN_S:
                    await self._services.state.put(SPACE, key, said, ttl_s=TOLD_S, quiet=True)
                    self._told[tenant] = (said, now)
        except BusUnavailable:
            log.warning("statistics cannot be told to the other nodes now")

    def _to_tell(self, tenant: str) -> bytes:
        groups = {name: n for kind in GROUPS for name, n in self._groups_of(tenant, kind).items()}
        said = _encode(Told(self._registry.anonymous[tenant], groups))
        while len(said) > MAX_TOLD_BYTES:
            largest = sorted(groups, key=groups.__getitem__, reverse=True)
            groups = {name: groups[name] for name in largest[: len(largest) * 3 // 4]}
            said = _encode(Told(self._registry.anonymous[tenant], groups))
        return said


_NOTHING = _encode(Told())
