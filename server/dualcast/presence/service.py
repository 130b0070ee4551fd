"""Questions about presence, from any room or protocol."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence

import msgspec
from msgspec import Struct

from dualcast.model.errors import BadChannel, NotFound

from .devices import Device, check_device_id, check_kind, check_name
from .port import EVERYBODY, PREFIX, ConnectionFacts, Member, Members, Online, PresenceStore

MAX_STATE = 200
"""Members named in a state."""
MAX_PAGE = 1000
_encode = msgspec.json.Encoder().encode


class State(Struct, frozen=True):
    """What a client is told first of a presence channel. Changes up to `revision` are in it."""

    members: tuple[Member, ...]
    """At most MAX_STATE, in order of their ids."""
    count: int
    revision: int
    more: bool
    """There are more members than named."""


class DeviceView(Struct, frozen=True):
    """A registered device, and whether it is connected now."""

    device: Device
    connected: bool


class PresenceService:
    """Every method takes the tenant from its caller's principal and raises BusUnavailable, unless it says
    otherwise. `settle` is `Tracker.settle`: what lists people and connections sees what the same node has let
    in or seen off before."""

    def __init__(self, store: PresenceStore, settle: Callable[[str], Awaitable[None]] | None = None) -> None:
        self._store = store
        self._settle = settle or _settled

    async def online(self, tenant: str, user: str, devices: Sequence[str] = ()) -> bool:
        """Whether the user has a live connection, on one of these device kinds (() any)."""
        found = await self._store.online(tenant, user)
        return found.connections > 0 and (not devices or any(kind in devices for kind in found.devices))

    async def presence_of(self, tenant: str, user: str) -> Online:
        """The user's number of connections, and the device kinds they are of."""
        await self._settle(tenant)
        return await self._store.online(tenant, user)

    def is_online_now(self, tenant: str, user: str, devices: Sequence[str] = ()) -> bool:
        """`online` from memory: does not wait, may be called in any thread. Only with engines of one process
        (memory, sqlite); NotImplementedError with others."""
        return self._store.is_online_now(tenant, user, devices)

    async def users(
        self, tenant: str, channel: str = EVERYBODY, after: str = "", limit: int = 100
    ) -> Members:
        """A page of a presence channel, or of everybody online. In order of the ids' percent-encoded form,
        users after `after` only. `limit`: 0 to MAX_PAGE. Raises BadChannel."""
        group = _group(channel)
        await self._settle(tenant)
        return await self._store.members(tenant, group, after, min(limit, MAX_PAGE))

    async def count(self, tenant: str, channel: str = EVERYBODY) -> int:
        """How many users; costs the same for any number. Raises BadChannel."""
        return (await self._store.members(tenant, _group(channel), "", 0)).count

    async def state(self, tenant: str, channel: str) -> bytes | None:
        """The `State` of a presence channel as JSON; None: the channel is of another kind."""
        if not channel.startswith(PREFIX):
            return None
        page = await self._store.members(tenant, channel, "", MAX_STATE)
        return _encode(State(page.members, page.count, page.revision, page.count > len(page.members)))

    async def connections(
        self, tenant: str, user: str | None = None, after: str = "", limit: int = 100
    ) -> list[ConnectionFacts]:
        """Live connections on all nodes by id, those after `after` only. `limit`: to MAX_PAGE."""
        await self._settle(tenant)
        return await self._store.connections(tenant, user, after, min(limit, MAX_PAGE))

    async def connection(self, tenant: str, connection: str) -> ConnectionFacts | None:
        """A live connection on any node; None: the tenant has no such."""
        await self._settle(tenant)
        return await self._store.connection(tenant, connection)

    async def connection_user(self, tenant: str, connection: str) -> str | None:
        """Whose connection it is; None: the tenant has no such."""
        found = await self._store.connection(tenant, connection)
        return found.user if found is not None else None

    # ── devices ──

    async def devices(self, tenant: str, user: str) -> list[DeviceView]:
        """The user's registered devices, last seen first."""
        await self._settle(tenant)
        rows = await self._store.devices(tenant, user)
        live = await self._store.connections(tenant, user, "", MAX_PAGE) if rows else []
        connected = {facts.device_id for facts in live}
        return [DeviceView(row, row.id in connected) for row in rows]

    async def name_device(
        self, tenant: str, user: str, device: str, name: str = "", kind: str = ""
    ) -> DeviceView:
        """Names a device; with `kind`, one that is not known yet is registered. Raises BadRequest
        `bad-device`, `bad-id`, NotFound `unknown-device`."""
        check_device_id(device)
        check_name(name)
        row = await self._store.name_device(tenant, user, device, name, check_kind(kind) if kind else "")
        if row is None:
            raise _unknown()
        live = await self._store.connections(tenant, user, "", MAX_PAGE)
        return DeviceView(row, any(facts.device_id == device for facts in live))

    async def forget_device(self, tenant: str, user: str, device: str) -> None:
        """Takes a device out of the registry. Connections of it stay, and register it again when they come
        and go. Raises BadRequest `bad-id`, NotFound `unknown-device`."""
        check_device_id(device)
        if not await self._store.forget_device(tenant, user, device):
            raise _unknown()


def _group(channel: str) -> str:
    if channel != EVERYBODY and not channel.startswith(PREFIX):
        raise BadChannel("presence is kept of channels presence:<id>")
    return channel


async def _settled(tenant: str) -> None: ...


def _unknown() -> NotFound:
    return NotFound("the user has no such device", code="unknown-device")
