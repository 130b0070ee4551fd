"""Grants: who, besides the token's own claims, may subscribe to a channel.

A grant belongs to one channel of one tenant and names an owner and members. Checks of people who are in
answer from memory; a "no" is never believed from memory but read from the store, so a grant recorded on one
node opens the channel on all of them at once. A withdrawn one closes it on the others within the follower's
interval.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Callable, Iterable

import msgspec
from msgspec import Struct

from dualcast.model.channel import ALL, check_channel, check_id, check_tenant
from dualcast.model.errors import BadChannel, LimitExceeded
from dualcast.state.follow import StateFollower
from dualcast.state.limits import MAX_VALUE_BYTES
from dualcast.state.port import StateStore, Value, VersionConflict

SPACE = "grants"
MAX_MEMBERS = 1_000
MAX_CACHED_NAMES = 200_000
"""Members of all cached grants together; one grant counts one more."""
MAX_ATTEMPTS = 16
EMPTY_TTL_S = 60.0
"""An emptied grant stays this long, so that its version still protects it, and then vanishes by itself."""


class Grant(Struct, frozen=True, omit_defaults=True):
    """Who may subscribe to one channel. `members`: distinct user ids in order; `owner` "": nobody."""

    owner: str = ""
    members: tuple[str, ...] = ()


class GrantRecord(Struct, frozen=True):
    """A stored grant and its version (0: nothing stored)."""

    grant: Grant
    version: int


NO_GRANT = Grant()
_decoder = msgspec.json.Decoder(Grant)


def make_grant(owner: str = "", members: Iterable[str] = ()) -> Grant:
    """A checked grant. Raises BadChannel (an id), LimitExceeded (more than 1,000 members, or 64 KiB in
    all)."""
    distinct = tuple(sorted(set(members)))
    if len(distinct) > MAX_MEMBERS:
        raise LimitExceeded(f"a channel has at most {MAX_MEMBERS} granted members", code="too-many-members")
    for user in (*distinct, owner) if owner else distinct:
        check_id(user)
    grant = Grant(owner, distinct)
    if len(msgspec.json.encode(grant)) > MAX_VALUE_BYTES:
        raise LimitExceeded("the granted members' ids are too long together", code="too-many-members")
    return grant


def _key(tenant: str, channel: str) -> str:
    # A tenant id holds no '/': the first one divides, whatever the channel's id is.
    check_tenant(tenant)
    if check_channel(channel) == ALL:
        raise BadChannel("'all' is open to everybody of the tenant and takes no grants")
    return f"{tenant}/{channel}"


class Grants:
    """Grants over the state store with a bounded cache. Subscribes to `follower` when made.

    All waiting methods raise BusUnavailable when the store is away (who is known to be in stays in), and
    BadChannel for names that are none.
    """

    def __init__(
        self, store: StateStore, follower: StateFollower, *, max_cached_names: int = MAX_CACHED_NAMES
    ) -> None:
        self._store = store
        self._max_names = max_cached_names
        self._names = 0
        self._cache: OrderedDict[str, frozenset[str]] = OrderedDict()
        self._reading: dict[str, asyncio.Future[None]] = {}
        follower.on(SPACE, self._forget, self._forget_all)

    def known(self, tenant: str, channel: str, sub: str) -> bool:
        """Whether this node already knows that `sub` is in; False means "ask `allows`". Never waits."""
        key = f"{tenant}/{channel}"
        cached = self._cache.get(key)
        if cached is None or sub not in cached:
            return False
        self._cache.move_to_end(key)
        return True

    async def allows(self, tenant: str, channel: str, sub: str) -> bool:
        """Whether the channel's grant names `sub` as owner or member."""
        if self.known(tenant, channel, sub):
            return True
        if channel == ALL or not sub:
            return False
        key = _key(tenant, channel)
        reading = self._reading.get(key)
        if reading is not None:  # a room full of reconnecting members costs one read
            await asyncio.shield(reading)
            if self.known(tenant, channel, sub):
                return True
        return sub in await self._read(key)

    async def get(self, tenant: str, channel: str) -> GrantRecord:
        """The stored grant; an empty one of version 0 when there is none."""
        value = await self._store.get(SPACE, _key(tenant, channel))
        return (
            GrantRecord(NO_GRANT, 0)
            if value is None
            else GrantRecord(_decoder.decode(value.data), value.version)
        )

    async def set(self, tenant: str, channel: str, grant: Grant, *, expected: int | None = None) -> int:
        """Replaces the channel's grant and returns its version.

        `expected`: the version it must have now (0: none stored), else VersionConflict. LimitExceeded as
        `make_grant`.
        """
        checked = make_grant(grant.owner, grant.members)
        return await self._change(tenant, channel, lambda _: checked, expected)

    async def add(self, tenant: str, channel: str, members: Iterable[str] = (), *, owner: str = "") -> int:
        """Adds members; `owner` replaces the owner unless it is "". Returns the version. LimitExceeded adds
        nobody."""
        more = tuple(members)
        return await self._change(
            tenant, channel, lambda old: make_grant(owner or old.owner, (*old.members, *more)), None
        )

    async def remove(self, tenant: str, channel: str, users: Iterable[str]) -> int:
        """Takes users off the members, and the owner when named. Returns the version."""
        gone = frozenset(users)

        def without(old: Grant) -> Grant:
            owner = "" if old.owner in gone else old.owner
            return Grant(owner, tuple(user for user in old.members if user not in gone))

        return await self._change(tenant, channel, without, None)

    async def _change(
        self, tenant: str, channel: str, change: Callable[[Grant], Grant], expected: int | None
    ) -> int:
        key = _key(tenant, channel)
        for _ in range(MAX_ATTEMPTS):
            old = await self.get(tenant, channel)
            if expected is not None and old.version != expected:
                break
            new = change(old.grant)
            if new == old.grant:
                return old.version
            try:
                version = await self._store.put(
                    SPACE,
                    key,
                    msgspec.json.encode(new),
                    expected=old.version,
                    ttl_s=EMPTY_TTL_S if new == NO_GRANT else None,
                )
            except VersionConflict:
                continue
            finally:
                self._drop(key)  # also when the outcome is unknown
            return version
        raise VersionConflict("the grant was changed by somebody else; read it again")

    async def _read(self, key: str) -> frozenset[str]:
        """Everybody `key` names, read now. The first of several reads at a time is the one whose answer is
        kept."""
        reading: asyncio.Future[None] | None = None
        if key not in self._reading:
            reading = self._reading[key] = asyncio.get_running_loop().create_future()
        try:
            names = _names_of(await self._store.get(SPACE, key))
            # A change that came meanwhile has taken our place away: the answer is as good as when we asked,
            # no better.
            if reading is not None and self._reading.get(key) is reading:
                self._keep(key, names)
            return names
        finally:
            if reading is not None:
                if self._reading.get(key) is reading:
                    del self._reading[key]
                reading.set_result(None)

    def _keep(self, key: str, names: frozenset[str]) -> None:
        self._drop(key)
        if not names:
            return
        self._cache[key] = names
        self._names += len(names) + 1
        while self._names > self._max_names:
            _, dropped = self._cache.popitem(last=False)
            self._names -= len(dropped) + 1

    def _drop(self, key: str) -> None:
        self._reading.pop(key, None)
        dropped = self._cache.pop(key, None)
        if dropped is not None:
            self._names -= len(dropped) + 1

    async def _forget(self, key: str) -> None:
        self._drop(key)

    async def _forget_all(self) -> None:
        self._reading.clear()
        self._cache.clear()
        self._names = 0


def _names_of(value: Value | None) -> frozenset[str]:
    if value is None:
        return frozenset()
    grant = _decoder.decode(value.data)
    return frozenset((*grant.members, grant.owner)) - {""}
