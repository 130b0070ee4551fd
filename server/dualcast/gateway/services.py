"""Everything handlers need, put together once by the composition root. Ports that other rooms fill are
Protocols here.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, MutableMapping
from dataclasses import dataclass, field
from typing import Any, Protocol

from litestar.di import NamedDependency
from litestar.params import SkipValidation
from msgspec import Struct

from dualcast.bus.port import EventBus
from dualcast.conversations.service import ConversationService
from dualcast.dialects.legacy import Facts, LegacySettings, Stats
from dualcast.identity.authenticator import Authenticated
from dualcast.identity.credentials import Kind
from dualcast.identity.tickets import Transport
from dualcast.inbox.service import InboxService
from dualcast.model.principal import Principal
from dualcast.presence.service import PresenceService
from dualcast.publishing.service import Publisher
from dualcast.push.service import PushService
from dualcast.session.node import Evidence, Unrecorded
from dualcast.state.port import StateStore
from dualcast.tasks.service import TaskService
from dualcast.telemetry.counters import Counters
from dualcast.tenancy.grants import Grants
from dualcast.tenancy.stages import StageControl
from dualcast.tenancy.store import SharedTenants
from dualcast_migration.evidence.port import EvidenceStore
from dualcast_migration.stage import Stage

from .limits import RateLimits


class GatewaySettings(Struct, frozen=True):
    """Bounds of the HTTP edge."""

    max_body_bytes: int = 65_536
    max_batch_bytes: int = 4 * 1024 * 1024
    max_batch_items: int = 1000
    body_deadline_s: float = 10.0
    """From the end of the request header to the end of the body."""
    metrics_token: str = ""
    """Bearer token that `/metrics` asks for; "": none."""
    ticket_s: float = 30.0
    """Told to clients with a ticket; the same as `identity.tickets.TicketSettings.life_s`."""
    probe_cache_s: float = 0.25
    """Readiness probes within this time share one probe of the bus, so that polling cannot load it."""
    version: str = "0.1.0"
    operator_tenant: str = "default"
    """Whose principals with the role `operator` may do everything to every tenant."""
    legacy_tenant: str = "default"
    """Whose are the channels of old servers."""
    new_tenant_stage: Stage = Stage.FALLBACK
    """Of a tenant made without one."""
    history_entries: int = 1_000
    """What the server keeps of a channel: a tenant may have less."""
    history_s: int = 86_400

    def __repr__(self) -> str:
        return f"GatewaySettings(max_body_bytes={self.max_body_bytes})"


class ConnectionInfo(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One live connection, as `GET /v1/connections` lists it."""

    id: str
    user: str
    transport: str
    """`sse` or `ws`."""
    dialect: str
    channels: tuple[str, ...]
    connected_at: str
    """RFC 3339, UTC."""
    token_id: str = ""
    device: str = ""
    device_id: str = ""
    instance: str = ""
    cursor: str = ""
    live: bool = True
    """False: it is behind and catching up."""
    node: str = ""


class ConnectionDirectory(Protocol):
    """The live connections of this node."""

    def list(
        self, tenant: str, user: str | None = None, after: str = "", limit: int = 100
    ) -> list[ConnectionInfo]:
        """In order of connection id, ids > `after` only."""
        ...

    def find(self, tenant: str, connection: str) -> ConnectionInfo | None:
        """None: the tenant has no such connection here."""
        ...


class Authenticator(Protocol):
    """Request → caller; `identity.authenticator.Authenticator` is one."""

    def try_cached(
        self, scope: MutableMapping[str, Any], *, kind: Kind, native: bool
    ) -> Authenticated | None:
        """Without waiting; None: it has to be awaited."""
        ...

    async def authenticate(
        self, scope: MutableMapping[str, Any], *, kind: Kind, native: bool
    ) -> Authenticated:
        """Raises Unauthorized, TokenExpired, Forbidden (Origin), BadRequest, BusUnavailable."""
        ...


class Access(Protocol):
    """Who may read a channel; fails closed."""

    async def may_subscribe(self, principal: Principal, channel: str) -> bool: ...


class TicketOffice(Protocol):
    """Connect tickets; `identity.tickets.Tickets` is one."""

    async def issue(self, principal: Principal, transport: Transport) -> str: ...


class Revocation(Protocol):
    """Revoked tokens and users; `identity.revocation.Revocations` is one."""

    def is_revoked(self, principal: Principal) -> bool:
        """Whether its token or its user has been revoked, as far as this node knows."""
        ...

    async def revoke_token(self, tenant: str, token_id: str, *, expires_at: int | None = None) -> None: ...

    async def revoke_user(self, tenant: str, sub: str, *, issued_before: int | None = None) -> int: ...

    async def changed(self, key: str) -> None:
        """The stored record of `key` is another one, or gone."""
        ...


class RedisFacts(Protocol):
    """What operators ask of Redis; `bus.redis.plain.PlainKeys` is one. Raises BusUnavailable."""

    def pool(self) -> Struct:
        """The shared connection pool, in the keys of contract section 3.9."""
        ...

    async def server(self) -> Struct:
        """What Redis says of its clients, in the same keys."""
        ...

    async def channels(self, pattern: str) -> list[str]:
        """Channels that have subscribers."""
        ...


def _never() -> bool:
    return False


def _no_facts(tenant: str, dialect: str) -> Iterable[Facts]:
    return ()


def _no_origin(origin: str, cookie: bool) -> bool:
    return False


@dataclass(frozen=True, slots=True, kw_only=True)
class Services:
    """What the composition root hands to every handler."""

    bus: EventBus
    publisher: Publisher
    authenticator: Authenticator
    tickets: TicketOffice
    access: Access
    grants: Grants
    state: StateStore
    tenants: SharedTenants
    stages: StageControl
    evidence: EvidenceStore
    noting: Evidence = field(default_factory=Unrecorded)
    """Where this node notes what it sees of a tenant's move."""
    revocations: Revocation
    counters: Counters
    directory: ConnectionDirectory
    inbox: InboxService
    conversations: ConversationService
    push: PushService
    presence: PresenceService
    tasks: TaskService
    metrics: Callable[[], bytes]
    """The Prometheus text of this node."""
    redis: RedisFacts | None = None
    """Of the engine's shared pool; None: the engine is not Redis."""
    legacy: LegacySettings = field(default_factory=LegacySettings)
    """Settings of the older contracts."""
    legacy_stats: Callable[[str, str], Awaitable[Stats]] | None = None
    """(tenant, kind of channel) → live connections of all dialects on all nodes; None: asked of
    `presence`."""
    legacy_facts: Callable[[str, str], Iterable[Facts]] = _no_facts
    """(tenant, dialect) → the live connections of a contract on this node."""
    limits: RateLimits = field(default_factory=RateLimits)
    settings: GatewaySettings = field(default_factory=GatewaySettings)
    origin_allowed: Callable[[str, bool], bool] = _no_origin
    """(Origin, whether with cookies) → whether its pages may read answers (CORS). Default: deny."""
    draining: Callable[[], bool] = _never


Injected = NamedDependency[SkipValidation[Services]]
Caller = NamedDependency[SkipValidation[Principal]]
