"""The port of presence: connections of nodes in, members of groups out.

A group is the tenant itself ("") or a `presence:<id>` channel. A user is a member while any connection of
theirs, on any node, is in the group; the user's second connection changes nothing. A node's connections count
while its lease does.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import Protocol

from msgspec import Struct

from .devices import DeviceStore

EVERYBODY = ""
"""The group of everybody who is online in the tenant."""
PREFIX = "presence:"
"""Channels that are groups."""


class PresenceSettings(Struct, frozen=True, kw_only=True):
    """Clocks and bounds."""

    lease_s: float = 30.0
    """A node that died is gone from presence within this time."""
    flush_s: float = 0.1
    """Changes of a node are told together, so often."""
    batch: int = 100
    """Connections per call of the store, and connections of a dead node taken off per call: some milliseconds
    in which Redis does nothing else."""
    batch_groups: int = 1_000
    """Memberships in `presence:` groups per call."""
    retry_s: float = 1.0
    """How long a tenant waits after its store was away."""
    settle_s: float = 0.5
    """How long a question may wait for what its own node has yet to tell."""
    close_s: float = 5.0
    """How long closing may take to take everything off; what is left ends with the lease."""
    ttl_s: int = 60
    """Life of a published join or leave."""
    max_unannounced: int = 1_000
    """Changes of groups per tenant that wait while the bus is away; beyond it the oldest are dropped and
    counted."""

    @property
    def renew_s(self) -> float:
        """Leases are renewed, and dead nodes looked for, so often."""
        return self.lease_s / 6

    @property
    def hold_ms(self) -> int:
        """A lease ends so long after its renewal. Whoever looks every `renew_s` finds it by then, and has as
        long again for taking off what the dead node held."""
        return int((self.lease_s - 2 * self.renew_s) * 1000)


class ConnectionFacts(Struct, frozen=True, array_like=True, gc=False):
    """One live connection, wherever it is."""

    id: str
    user: str
    node: str
    device: str = ""
    """Kind."""
    device_id: str = ""
    instance: str = ""
    transport: str = ""
    dialect: str = ""
    connected_ms: int = 0
    """Unix milliseconds."""
    token_id: str = ""


class Join(Struct, frozen=True, gc=False):
    """A connection as it is now: new, or in other groups than before. `groups`: without EVERYBODY."""

    facts: ConnectionFacts
    groups: tuple[str, ...] = ()


class Batch(Struct, frozen=True):
    """Changes of one node in one tenant. The same `token` names the same batch: its repetition gives the
    first answer again."""

    token: str
    joins: tuple[Join, ...] = ()
    leaves: tuple[str, ...] = ()
    """Connection ids; unknown ones are ignored."""


class Delta(Struct, frozen=True):
    """What changed in one group: users, not connections."""

    group: str
    count: int
    """Members afterwards."""
    revision: int
    """Grows with every change in the tenant, also across a loss of the store."""
    joined: tuple[str, ...] = ()
    left: tuple[str, ...] = ()


class Changed(Struct, frozen=True):
    """`lost`: nothing was done, for the node's lease is not what it was: it must claim a new one and register
    everything again."""

    deltas: tuple[Delta, ...] = ()
    lost: bool = False


class Renewed(Struct, frozen=True):
    """`expired`: nodes whose lease is over and whose connections wait to be taken off."""

    lost: bool = False
    expired: tuple[str, ...] = ()
    users: int = 0
    """Online in the tenant."""
    devices: dict[str, int] = {}
    """Device kind → users online on such a device."""


class Reaped(Struct, frozen=True):
    """`more`: the node has further connections to take off."""

    deltas: tuple[Delta, ...] = ()
    more: bool = False


class Member(Struct, frozen=True):
    """A user who is online, and on what kinds of device (anywhere in the tenant)."""

    user: str
    devices: tuple[str, ...] = ()


class Members(Struct, frozen=True):
    """A page of a group."""

    members: tuple[Member, ...]
    count: int
    """Of the whole group."""
    revision: int
    """Every change up to here is in it."""


class Online(Struct, frozen=True):
    """One user. `connections` 0: offline."""

    connections: int = 0
    devices: tuple[str, ...] = ()


class PresenceStore(DeviceStore, Protocol):
    """What engines do. Every async method raises BusUnavailable. Writes bear repetition.

    Queries see no connection of a node whose lease is over: they call `on_expired(tenant)` first, which takes
    the dead node off.
    """

    on_expired: Callable[[str], Awaitable[None]]

    async def change(
        self, tenant: str, node: str, batch: Batch, *, hold_ms: int, claim: bool = False
    ) -> Changed:
        """Registers and takes off connections of `node`. `claim`: the node says it has registered nothing it
        relies on; without it a lease that was lost changes nothing. The lease then lasts `hold_ms`."""
        ...

    async def renew(self, tenant: str, node: str, *, hold_ms: int, idle: bool = False) -> Renewed:
        """The lease lasts `hold_ms` from now. `idle`: the node has nothing registered, and its lease is given
        up instead."""
        ...

    async def reap(self, tenant: str, reaper: str, token: str, node: str, limit: int) -> Reaped:
        """Takes at most `limit` connections of `node` off, if its lease is over. Includes what the dead node
        itself may not have announced any more."""
        ...

    async def expired(self, tenant: str) -> tuple[str, ...]:
        """Nodes whose lease is over and who are not all taken off."""
        ...

    async def held(self, tenant: str, node: str, cursor: str) -> tuple[str, list[str]]:
        """Connections registered for `node`: the next cursor ("0": that was all) and ids. Begins with
        "0"."""
        ...

    async def overdue(
        self, node: str, tenants: Sequence[str], *, hold_ms: int
    ) -> tuple[tuple[str, str], ...]:
        """Says that `node` serves `tenants`; gives (tenant, node) of nodes that have not said so for longer
        than they promised, at most 100."""
        ...

    async def settled(self, tenant: str, node: str) -> None:
        """`node` is not overdue any more: it was taken off."""
        ...

    async def members(self, tenant: str, group: str, after: str, limit: int) -> Members:
        """At most `limit` members in order of their percent-encoded ids, those after user `after` only."""
        ...

    async def online(self, tenant: str, user: str) -> Online: ...

    async def connections(
        self, tenant: str, user: str | None, after: str, limit: int
    ) -> list[ConnectionFacts]:
        """In order of connection id, ids > `after` only. `user` None: everybody's."""
        ...

    async def connection(self, tenant: str, connection: str) -> ConnectionFacts | None: ...

    def is_online_now(self, tenant: str, user: str, devices: Sequence[str]) -> bool:
        """Whether the user has a connection of one of these kinds (() any), from memory, in any thread. Only
        of one-process engines; others raise NotImplementedError."""
        ...
