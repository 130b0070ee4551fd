"""Tenants, their keys and settings, and how far their migration is: what is sent and what comes back. Fields
a newer server adds are ignored."""

from __future__ import annotations

from typing import Any, Literal

from msgspec import UNSET, Struct, UnsetType

StageName = Literal["sse", "shadow", "fallback", "websocket"]


class TenantSettings(Struct, frozen=True, kw_only=True):
    """A tenant's settings and quotas; None: the server's default."""

    public_channels: tuple[str, ...] = ()
    origins: tuple[str, ...] = ()
    publish_rate_per_s: float | None = None
    publish_burst: int | None = None
    max_connections: int | None = None
    max_connections_per_user: int | None = None
    history_entries: int | None = None
    history_s: int | None = None


class SettingsChange(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What is left out stays as it is; None is the server's default again."""

    public_channels: tuple[str, ...] | UnsetType = UNSET
    origins: tuple[str, ...] | UnsetType = UNSET
    publish_rate_per_s: float | UnsetType | None = UNSET
    publish_burst: int | UnsetType | None = UNSET
    max_connections: int | UnsetType | None = UNSET
    max_connections_per_user: int | UnsetType | None = UNSET
    history_entries: int | UnsetType | None = UNSET
    history_s: int | UnsetType | None = UNSET


class NewKey(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A key that signs the tenant's tokens: exactly one of `secret`, `public_key` (PEM) and `jwks_url`."""

    algorithm: str
    kid: str = ""
    secret: str | None = None
    public_key: str = ""
    jwks_url: str = ""
    issuer: str = ""
    audience: str = ""
    legacy_short_keys: bool = False

    def __repr__(self) -> str:
        return f"NewKey({self.algorithm}, {self.kid!r})"  # the secret must not get into a log


class Key(Struct, frozen=True, kw_only=True):
    """A signing key, without its secret."""

    algorithm: str
    kid: str = ""
    source: str = ""
    issuer: str = ""
    audience: str = ""
    jwks_url: str = ""
    fingerprint: str = ""


class Tenant(Struct, frozen=True, kw_only=True):
    """A tenant. `version` changes with every change of any part of it."""

    id: str
    version: int
    stage: str
    percent: float
    settings: TenantSettings
    keys: tuple[Key, ...]


class TenantPage(Struct, frozen=True):
    tenants: list[Tenant]
    next: str


class Brownout(Struct, frozen=True):
    """From Unix second `at` on, `percent` of the SSE connects are sent away for a while."""

    at: int
    percent: float


class Cohort(Struct, frozen=True):
    """Who is in the stage; the others are in the one before."""

    percent: float = 100.0
    allow: tuple[str, ...] = ()
    deny: tuple[str, ...] = ()


class StageRecord(Struct, frozen=True, kw_only=True):
    """Where a tenant's migration is. To change it take what was read: `msgspec.structs.replace(record, …)`;
    what is left out is the default, not what it was."""

    stage: StageName
    cohort: Cohort = Cohort()
    deprecated_at: int = 0
    """Unix seconds, 0: not set."""
    sunset_at: int = 0
    link: str = ""
    brownouts: tuple[Brownout, ...] = ()
    fallback_scope: str = "instance"
    budgets: dict[str, Any] = {}
    """What the guard goes by; empty: the defaults."""
    mirror: str | None = None
    held_until: int = 0
    """The guard stepped back: going on is refused until this Unix second. Never sent."""


class FieldChange(Struct, frozen=True, rename={"before": "from", "after": "to"}):
    """A setting, quota or key (`keys`, without its secret) before and after; None: there was none."""

    field: str
    before: Any = None
    after: Any = None


class AuditEntry(Struct, frozen=True, kw_only=True, rename={"before": "from", "after": "to"}):
    """One change: who made it, when (RFC 3339), from what to what, and why. Where `action` is `settings` or
    `keys` the stage was left alone."""

    number: int
    version: int
    at: str
    who: str
    action: str
    why: str
    before: StageRecord | None = None
    after: StageRecord
    changes: list[FieldChange] = []
    """Beside the stage."""


class Migration(Struct, frozen=True, kw_only=True):
    """`version` is what a change has to expect."""

    tenant: str
    version: int
    record: StageRecord
    last: AuditEntry | None = None


class AuditPage(Struct, frozen=True):
    entries: list[AuditEntry]
    next: int


class CensusRow(Struct, frozen=True, kw_only=True):
    """A kind of client, over all nodes."""

    transport: str
    dialect: str
    agent: str = ""
    app: str = ""
    origin: str = ""
    instance: bool = False
    connects: int = 0
    live: int = 0
    users: int = 0
    first_seen: str = ""
    last_seen: str = ""


class Census(Struct, frozen=True, kw_only=True):
    """Who connects how, of the last 30 days."""

    tenant: str
    at: str
    live_sse: int
    live_ws: int
    live_left: int
    kinds: int
    rows: list[CensusRow]


class Reason(Struct, frozen=True, kw_only=True):
    """Something that stands in the way; programs compare `code`."""

    code: str
    text: str
    figure: float = 0
    limit: float = 0


class Readiness(Struct, frozen=True, kw_only=True):
    """May the tenant go on to its next stage? The figures of `window` and `totals` are those of
    `GET /v1/tenants/{t}/readiness`."""

    tenant: str
    version: int
    stage: str
    next: str
    ready: bool
    reasons: tuple[Reason, ...]
    warnings: tuple[Reason, ...]
    since: str
    window: dict[str, float]
    totals: dict[str, float]


class ParityMismatch(Struct, frozen=True, kw_only=True):
    """A comparison of both transports that found something."""

    number: int
    at: str
    source: str
    user: str
    instance: str = ""
    compared: int
    mismatches: int
    differences: tuple[dict[str, Any], ...] = ()


class Parity(Struct, frozen=True, kw_only=True):
    """How the two transports compare, as the server and as the clients say. `next` goes into `before`; 0:
    there is no more."""

    tenant: str
    stage: str
    seconds: int
    server: dict[str, Any]
    clients: dict[str, Any]
    mismatches: list[ParityMismatch]
    next: int = 0


class GrantView(Struct, frozen=True, kw_only=True):
    """Who may subscribe to a channel beside those whose token says so. `version` 0: nothing is stored."""

    channel: str
    owner: str = ""
    members: tuple[str, ...] = ()
    version: int = 0


class Closing(Struct, frozen=True, kw_only=True):
    """The command is written; every node acts on it within a second."""

    closing: bool = True
    revoked: bool = False


class Revocation(Struct, frozen=True, kw_only=True):
    """Of one token, or of every token of `user` issued before `issued_before`. Unix seconds."""

    expires_at: int
    token_id: str = ""
    user: str = ""
    issued_before: int = 0


class RevocationPage(Struct, frozen=True):
    revocations: list[Revocation]
    next: str
