"""Presence of engines with one process: plain dictionaries; devices go to a `DeviceStore`.

There is one node, so no lease ends: what the node says is the truth.
"""

from __future__ import annotations

import time
from bisect import bisect_right, insort
from collections.abc import Awaitable, Callable, Sequence
from itertools import islice
from typing import NamedTuple

import structlog

from dualcast.model.channel import key_part
from dualcast.model.errors import BusUnavailable

from .devices import KINDS, Device, DeviceStore, Sighting
from .port import (
    EVERYBODY,
    Batch,
    Changed,
    ConnectionFacts,
    Delta,
    Join,
    Member,
    Members,
    Online,
    Reaped,
    Renewed,
)

log = structlog.get_logger("dualcast.presence")
MAX_UNWRITTEN = 10_000
"""Sightings of devices that wait for the database, per tenant."""


class _Order:
    """Names in order of their percent-encoded form, as in Redis. Memory per name: two references."""

    __slots__ = ("parts",)

    def __init__(self) -> None:
        self.parts: list[tuple[str, str]] = []

    def add(self, name: str) -> None:
        insort(self.parts, (key_part(name), name))

    def discard(self, name: str) -> None:
        at = bisect_right(self.parts, (key_part(name), name)) - 1
        if at >= 0 and self.parts[at][1] == name:
            del self.parts[at]

    def after(self, name: str, limit: int) -> list[str]:
        start = bisect_right(self.parts, (key_part(name), name)) if name else 0
        return [found for _, found in islice(self.parts, start, start + limit)]


class _Group:
    __slots__ = ("order", "users")

    def __init__(self) -> None:
        self.users: dict[str, int] = {}
        self.order = _Order()


class _Held(NamedTuple):
    facts: ConnectionFacts
    groups: tuple[str, ...]


class _Tenant:
    """What is known of one tenant. Changed on the loop, read in any thread by `kinds` and `users`."""

    def __init__(self) -> None:
        self.held: dict[str, _Held] = {}
        self.ids: list[str] = []
        self.users: dict[str, dict[str, None]] = {}
        self.kinds: dict[str, dict[str, int]] = {kind: {} for kind in KINDS}
        self.groups: dict[str, _Group] = {}
        self.revision = 0
        self.net: dict[str, dict[str, int]] = {}
        self.unwritten: dict[tuple[str, str], Sighting] = {}
        self.unseen = 0
        """Sightings that were dropped because too many waited."""

    def join(self, join: Join) -> None:
        facts = join.facts
        old = self.held.get(facts.id)
        if old is not None and (old.facts.user, old.facts.device) != (facts.user, facts.device):
            self.leave(facts.id)
            old = None
        self.held[facts.id] = _Held(facts, join.groups)
        if old is None:
            insort(self.ids, facts.id)
            self.users.setdefault(facts.user, {})[facts.id] = None
            self._kind(facts, 1)
            self._member(EVERYBODY, facts.user, 1)
            self._seen(facts)
        before = old.groups if old is not None else ()
        for group in join.groups:
            if group not in before:
                self._member(group, facts.user, 1)
        for group in before:
            if group not in join.groups:
                self._member(group, facts.user, -1)

    def leave(self, connection: str) -> None:
        old = self.held.pop(connection, None)
        if old is None:
            return
        facts = old.facts
        del self.ids[bisect_right(self.ids, connection) - 1]
        own = self.users[facts.user]
        del own[connection]
        if not own:
            del self.users[facts.user]
        self._kind(facts, -1)
        self._member(EVERYBODY, facts.user, -1)
        for group in old.groups:
            self._member(group, facts.user, -1)
        self._seen(facts)

    def deltas(self, now_ms: int) -> tuple[Delta, ...]:
        """What changed since the last call."""
        found: list[Delta] = []
        net, self.net = self.net, {}
        for group, users in net.items():
            joined = sorted((user for user, by in users.items() if by > 0), key=key_part)
            left = sorted((user for user, by in users.items() if by < 0), key=key_part)
            if joined or left:
                if not found:
                    # At least the clock, so that it also grows across a restart.
                    self.revision = max(self.revision + 1, now_ms)
                found.append(Delta(group, self.count(group), self.revision, tuple(joined), tuple(left)))
        return tuple(found)

    def count(self, group: str) -> int:
        found = self.groups.get(group)
        return len(found.users) if found is not None else 0

    def devices(self, user: str) -> tuple[str, ...]:
        return tuple(kind for kind, users in self.kinds.items() if user in users)

    def _member(self, name: str, user: str, by: int) -> None:
        group = self.groups.get(name)
        if group is None:
            group = self.groups[name] = _Group()
        number = group.users.get(user, 0) + by
        if number > 0:
            group.users[user] = number
        else:
            group.users.pop(user, None)
        if by > 0 and number == 1:
            group.order.add(user)
        elif by < 0 and number <= 0:
            group.order.discard(user)
            if not group.users:
                del self.groups[name]
        else:
            return
        users = self.net.setdefault(name, {})
        users[user] = users.get(user, 0) + by

    def _kind(self, facts: ConnectionFacts, by: int) -> None:
        users = self.kinds.get(facts.device)
        if users is None:
            return
        number = users.get(facts.user, 0) + by
        if number > 0:
            users[facts.user] = number
        else:
            users.pop(facts.user, None)

    def _seen(self, facts: ConnectionFacts) -> None:
        if not facts.device_id:
            return
        if len(self.unwritten) >= MAX_UNWRITTEN and (facts.user, facts.device_id) not in self.unwritten:
            # Only while the database is away; the device is seen again with its next connection.
            self.unseen += 1
            return
        self.unwritten[facts.user, facts.device_id] = Sighting(facts.user, facts.device_id, facts.device)


class LocalPresence:
    """A `PresenceStore` of one process. `clock` gives Unix seconds."""

    def __init__(self, devices: DeviceStore, *, clock: Callable[[], float] = time.time) -> None:
        self._devices = devices
        self._clock = clock
        self._tenants: dict[str, _Tenant] = {}
        self._answered: dict[str, tuple[str, Changed]] = {}
        self._writable = True
        self.on_expired: Callable[[str], Awaitable[None]] = _nobody
        """Never called."""

    async def change(
        self, tenant: str, node: str, batch: Batch, *, hold_ms: int, claim: bool = False
    ) -> Changed:
        token, answer = self._answered.get(tenant, ("", None))
        known = self._tenants.setdefault(tenant, _Tenant())
        if answer is None or token != batch.token:
            for join in batch.joins:
                known.join(join)
            for connection in batch.leaves:
                known.leave(connection)
            answer = Changed(known.deltas(int(self._clock() * 1000)))
            self._answered[tenant] = batch.token, answer
        await self._write(tenant, known)
        return answer

    async def renew(self, tenant: str, node: str, *, hold_ms: int, idle: bool = False) -> Renewed:
        known = self._tenants.get(tenant)
        if known is None:
            return Renewed()
        await self._write(tenant, known)
        devices = {kind: len(users) for kind, users in known.kinds.items()}
        return Renewed(users=known.count(EVERYBODY), devices=devices)

    async def reap(self, tenant: str, reaper: str, token: str, node: str, limit: int) -> Reaped:
        return Reaped()

    async def expired(self, tenant: str) -> tuple[str, ...]:
        return ()

    async def held(self, tenant: str, node: str, cursor: str) -> tuple[str, list[str]]:
        known = self._tenants.get(tenant)
        return "0", list(known.held) if known is not None else []

    async def overdue(
        self, node: str, tenants: Sequence[str], *, hold_ms: int
    ) -> tuple[tuple[str, str], ...]:
        return ()

    async def settled(self, tenant: str, node: str) -> None: ...

    async def members(self, tenant: str, group: str, after: str, limit: int) -> Members:
        known = self._tenants.get(tenant)
        if known is None:
            return Members((), 0, 0)
        found = known.groups.get(group)
        users = found.order.after(after, limit) if found is not None else []
        members = tuple(Member(user, known.devices(user)) for user in users)
        return Members(members, known.count(group), known.revision)

    async def online(self, tenant: str, user: str) -> Online:
        known = self._tenants.get(tenant)
        if known is None:
            return Online()
        return Online(len(known.users.get(user, ())), known.devices(user))

    async def connections(
        self, tenant: str, user: str | None, after: str, limit: int
    ) -> list[ConnectionFacts]:
        known = self._tenants.get(tenant)
        if known is None:
            return []
        ids = known.ids if user is None else sorted(known.users.get(user, ()))
        start = bisect_right(ids, after)
        return [known.held[one].facts for one in ids[start : start + limit]]

    async def connection(self, tenant: str, connection: str) -> ConnectionFacts | None:
        known = self._tenants.get(tenant)
        held = known.held.get(connection) if known is not None else None
        return held.facts if held is not None else None

    def is_online_now(self, tenant: str, user: str, devices: Sequence[str]) -> bool:
        known = self._tenants.get(tenant)
        if known is None:
            return False
        if not devices:
            return user in known.users
        return any(user in known.kinds.get(kind, ()) for kind in devices)

    # ── devices ──

    async def seen(self, tenant: str, sightings: Sequence[Sighting]) -> None:
        await self._devices.seen(tenant, sightings)

    async def devices(self, tenant: str, user: str) -> list[Device]:
        return await self._devices.devices(tenant, user)

    async def name_device(self, tenant: str, user: str, device: str, name: str, kind: str) -> Device | None:
        return await self._devices.name_device(tenant, user, device, name, kind)

    async def forget_device(self, tenant: str, user: str, device: str) -> bool:
        return await self._devices.forget_device(tenant, user, device)

    async def _write(self, tenant: str, known: _Tenant) -> None:
        """Tells the registry which devices were seen. Who is online does not wait for a database that is
        away: the sightings are kept for the next time."""
        sightings, known.unwritten = known.unwritten, {}
        if not sightings:
            return
        try:
            await self._devices.seen(tenant, list(sightings.values()))
        except BusUnavailable:
            known.unwritten = {**sightings, **known.unwritten}
            if self._writable:
                self._writable = False
                log.warning("seen devices cannot be stored now", tenant=tenant, waiting=len(sightings))
        else:
            self._writable = True
            if known.unseen:
                log.warning("seen devices were not stored", tenant=tenant, dropped=known.unseen)
                known.unseen = 0


async def _nobody(tenant: str) -> None: ...
