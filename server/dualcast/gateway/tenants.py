"""`/v1/tenants`: making tenants, their settings and quotas, and the keys their tokens are signed with.

For operators; a tenant's own admin may read it. Every change holds on this node at once, on the others within
a second.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Annotated

import structlog
from litestar import Response, delete, get, patch, post
from litestar.params import FromPath, JSONBody, QueryParameter
from msgspec import UNSET, Meta, Struct, UnsetType
from msgspec.structs import asdict, replace

from dualcast.model.channel import check_tenant
from dualcast.model.errors import BadRequest, DualcastError, NotFound
from dualcast.model.principal import Principal
from dualcast.state.port import VersionConflict
from dualcast.tenancy.audit import Note, check_why
from dualcast.tenancy.model import Algorithm, KeyView, Secret, SigningKey, Tenant, TenantSettings, public_view
from dualcast.tenancy.stages import UnknownTenant
from dualcast.tenancy.store import Stored
from dualcast.tenancy.validate import (
    MAX_KEY_CHARACTERS,
    MAX_KEYS,
    MAX_ORIGINS,
    MAX_PATTERNS,
    MAX_TEXT,
    BadTenant,
)
from dualcast_migration.policy import StageRecord
from dualcast_migration.stage import Stage

from .services import Caller, Injected, Services
from .tenant_access import (
    TENANT_OPT,
    IfMatch,
    VersionNeeded,
    any_tenant,
    etag,
    expected_version,
    own_or_any,
    precondition,
    require_operator,
    who,
)

log = structlog.get_logger("dualcast.tenants")
_ALL = "/v1/tenants"
_ONE = "/v1/tenants/{tenant:str}"
_KEYS = _ONE + "/keys"
_TAGS = ["tenants"]

TenantId = Annotated[str, Meta(pattern="^[a-z0-9-]{1,63}$")]
Text = Annotated[str, Meta(max_length=MAX_TEXT)]
KeyText = Annotated[str, Meta(max_length=MAX_KEY_CHARACTERS)]
Patterns = Annotated[tuple[Text, ...], Meta(max_length=MAX_PATTERNS)]
Origins = Annotated[tuple[Text, ...], Meta(max_length=MAX_ORIGINS)]
Rate = Annotated[float, Meta(gt=0)]
Number = Annotated[int, Meta(ge=1, le=2**31)]
Version = Annotated[int, Meta(ge=0)]
Why = Annotated[str, Meta(min_length=1, max_length=500)]
NOT_SAID = "not said"


class TenantExists(DualcastError):
    """A tenant is made once."""

    code = "tenant-exists"
    status = 409


class SettingsBody(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What a tenant has of its own. What is missing stays as it is; null is the server's default again."""

    public_channels: Patterns | UnsetType = UNSET
    """Patterns (`topic:news-*`) every user of the tenant may subscribe to."""
    origins: Origins | UnsetType = UNSET
    """`https://app.example.com`: pages that may connect, beside those of the server's own list."""
    publish_rate_per_s: Rate | UnsetType | None = UNSET
    """Publications per second over all nodes."""
    publish_burst: Number | UnsetType | None = UNSET
    """Publications at once; 4 seconds' worth of the rate by default."""
    max_connections: Number | UnsetType | None = UNSET
    """Connections on each node; a native one beyond is refused, 503 `connection-limit`."""
    max_connections_per_user: Number | UnsetType | None = UNSET
    """Native connections of one user on each node; the oldest is closed for a new one."""
    history_entries: Number | UnsetType | None = UNSET
    """Publications kept of each channel; at most the server's `bus.history_entries`."""
    history_s: Number | UnsetType | None = UNSET
    """Seconds for which they are given out; at most the server's `bus.history_s`."""


class SettingsView(Struct, frozen=True):
    """A tenant's settings and quotas. null: the server's default."""

    public_channels: tuple[str, ...]
    origins: tuple[str, ...]
    publish_rate_per_s: float | None
    publish_burst: int | None
    max_connections: int | None
    max_connections_per_user: int | None
    history_entries: int | None
    history_s: int | None


class KeyBody(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A key that signs the tenant's tokens: exactly one of `secret`, `public_key` and `jwks_url`."""

    algorithm: Algorithm
    kid: Text = ""
    """The `kid` header of its tokens; "": tried for every token of the tenant."""
    secret: KeyText | None = None
    """HS256: at least 32 bytes. It is never shown again."""
    public_key: KeyText = ""
    """PEM."""
    jwks_url: Text = ""
    issuer: Text = ""
    """Demanded `iss`; "": any."""
    audience: Text = ""
    """Demanded `aud`; "": none."""
    legacy_short_keys: bool = False
    """Accepts a shorter secret or RSA key than the standards allow, for a server that is being replaced."""

    def __repr__(self) -> str:
        return f"KeyBody({self.algorithm}, {self.kid!r})"  # the secret must not get into a log


class NewKeyBody(KeyBody, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A key to add, and why."""

    why: Why = NOT_SAID
    """For the audit."""


class TenantBody(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A new tenant."""

    id: TenantId
    settings: SettingsBody = SettingsBody()
    keys: Annotated[tuple[KeyBody, ...], Meta(max_length=MAX_KEYS)] = ()
    stage: Stage | None = None
    """Where it begins; the server's default (`tenancy.stage`) when missing."""
    why: Why = "a new tenant"
    """For the audit."""


class TenantChange(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Settings to change. `expected`: only if the tenant still has this version."""

    settings: SettingsBody
    expected: Version | None = None
    why: Why = NOT_SAID
    """For the audit."""


class TenantAnswer(Struct, frozen=True):
    """A tenant, without its secrets. `version` changes with every change of any part of it."""

    id: str
    version: int
    stage: Stage
    percent: float
    """Of its users who are in the stage; the others are in the one before."""
    settings: SettingsView
    keys: tuple[KeyView, ...]


class TenantPage(Struct, frozen=True):
    """Ask again with `after=next` until `next` is empty."""

    tenants: list[TenantAnswer]
    next: str


@post(_ALL, status_code=201, summary="Make a tenant", opt=TENANT_OPT, tags=_TAGS, operation_id="MakeTenant")
async def make_tenant(
    services: Injected, caller: Caller, data: JSONBody[TenantBody]
) -> Response[TenantAnswer]:
    """Its users can connect at once. 409 `tenant-exists`. For operators."""
    require_operator(services, caller)
    _check_history(services, data.settings)
    tenant = Tenant(
        id=check_tenant(data.id),
        keys=tuple(map(_signing_key, data.keys)),
        settings=_merged(TenantSettings(), data.settings),
        stage=StageRecord(stage=data.stage or services.settings.new_tenant_stage),
    )
    note = _note(caller, data.why)
    try:
        version = await services.tenants.put(tenant, expected=0, note=note)
    except VersionConflict:
        raise TenantExists("there is a tenant of this id already") from None
    log.info("tenant_made", tenant=tenant.id, by=note.who)
    answer = _answer(tenant, version)
    headers = {**etag(version), "Location": f"/v1/tenants/{tenant.id}"}
    return Response(answer, status_code=201, headers=headers)


@get(_ALL, summary="List tenants", opt=TENANT_OPT, tags=_TAGS, operation_id="Tenants")
async def list_tenants(
    services: Injected,
    caller: Caller,
    after: Annotated[str, QueryParameter(max_length=63)] = "",
    limit: Annotated[int, QueryParameter(ge=1, le=100)] = 100,
) -> TenantPage:
    """All tenants by id. For operators."""
    require_operator(services, caller)
    records = await services.tenants.list(after=after, limit=limit)
    found = [_answer(record.tenant, record.version) for record in records]
    return TenantPage(found, found[-1].id if len(found) == limit else "")


@get(_ONE, summary="Read a tenant", opt=TENANT_OPT, tags=_TAGS, operation_id="Tenant")
async def read_tenant(services: Injected, caller: Caller, tenant: FromPath[str]) -> Response[TenantAnswer]:
    """For operators, and the tenant's own admins."""
    record = await services.tenants.get(own_or_any(services, caller, tenant))
    if record is None:
        raise UnknownTenant
    return Response(_answer(record.tenant, record.version), headers=etag(record.version))


@patch(_ONE, summary="Change settings and quotas", opt=TENANT_OPT, tags=_TAGS, operation_id="ChangeTenant")
async def change_tenant(
    services: Injected,
    caller: Caller,
    tenant: FromPath[str],
    data: JSONBody[TenantChange],
    if_match: IfMatch = "",
) -> Response[TenantAnswer]:
    """They hold at once, for what is connected already as well. For operators."""

    def edit(old: Tenant) -> Tenant:
        return replace(old, settings=_merged(old.settings, data.settings))

    name = any_tenant(services, caller, tenant)
    _check_history(services, data.settings)
    answer = await _change(services, name, edit, _note(caller, data.why), if_match, data.expected)
    log.info("tenant_changed", tenant=tenant, by=who(caller))
    return answer


@post(
    _KEYS,
    status_code=201,
    summary="Add a signing key",
    opt=TENANT_OPT,
    tags=_TAGS,
    operation_id="AddTenantKey",
)
async def add_key(
    services: Injected,
    caller: Caller,
    tenant: FromPath[str],
    data: JSONBody[NewKeyBody],
    if_match: IfMatch = "",
) -> Response[TenantAnswer]:
    """Tokens it has signed are good from now on. 422 `bad-tenant` when another key has the same `kid`, or
    when there would be more than 16. For operators.
    """

    def edit(old: Tenant) -> Tenant:
        return replace(old, keys=(*old.keys, _signing_key(data)))

    note = _note(caller, data.why)
    answer = await _change(services, any_tenant(services, caller, tenant), edit, note, if_match)
    log.info("tenant_key_added", tenant=tenant, kid=data.kid, by=who(caller))
    return Response(answer.content, status_code=201, headers=answer.headers)


@delete(
    _KEYS,
    status_code=200,
    summary="Remove a signing key",
    opt=TENANT_OPT,
    tags=_TAGS,
    operation_id="RemoveTenantKey",
)
async def remove_key(
    services: Injected,
    caller: Caller,
    tenant: FromPath[str],
    kid: Annotated[str, QueryParameter(max_length=MAX_TEXT, description="The key of this `kid`")] = "",
    position: Annotated[
        int | None,
        QueryParameter(ge=0, lt=MAX_KEYS, description="The key at this place, from 0; needs If-Match"),
    ] = None,
    why: Annotated[str, QueryParameter(min_length=1, max_length=500, description="For the audit")] = NOT_SAID,
    if_match: IfMatch = "",
) -> Response[TenantAnswer]:
    """Tokens it has signed are no longer good, and connections that came with one are closed. 404
    `unknown-key`. For operators.
    """
    name = any_tenant(services, caller, tenant)
    if bool(kid) == (position is not None):
        raise BadRequest("name exactly one of kid and position", code="bad-key")
    if position is not None and if_match in ("", "*"):
        raise VersionNeeded  # places shift when keys come and go

    def edit(old: Tenant) -> Tenant:
        left = tuple(
            key
            for place, key in enumerate(old.keys)
            if not (key.kid == kid if position is None else place == position)
        )
        if len(left) == len(old.keys):
            raise NotFound("the tenant has no such key", code="unknown-key")
        return replace(old, keys=left)

    answer = await _change(services, name, edit, _note(caller, why), if_match)
    log.info("tenant_key_removed", tenant=tenant, kid=kid, by=who(caller))
    return answer


async def _change(
    services: Services,
    tenant: str,
    edit: Callable[[Tenant], Tenant],
    note: Note,
    if_match: str,
    expected: int | None = None,
) -> Response[TenantAnswer]:
    def whole(stored: Stored | None) -> Tenant:
        if stored is None:
            raise UnknownTenant
        return edit(stored.tenant)

    version = expected_version(if_match, expected)
    if version is not None and await services.tenants.get(tenant) is None:
        raise UnknownTenant  # not a conflict
    with precondition(if_match):
        stored, version = await services.tenants.change(tenant, whole, expected=version, note=note)
    return Response(_answer(stored.tenant, version), headers=etag(version))


def _note(caller: Principal, why: str) -> Note:
    return Note(who(caller), check_why(why), round(time.time() * 1000))


def _signing_key(body: KeyBody) -> SigningKey:
    fields = {name: getattr(body, name) for name in KeyBody.__struct_fields__}
    secret = fields.pop("secret")
    return SigningKey(**fields, secret=None if secret is None else Secret(secret))


def _check_history(services: Services, body: SettingsBody) -> None:
    """Raises BadTenant for more than the server keeps, which would come to nothing."""
    for name in ("history_entries", "history_s"):
        number, most = getattr(body, name), getattr(services.settings, name)
        if isinstance(number, int) and number > most:
            raise BadTenant(f"settings.{name}: at most what the server keeps, {most}")


def _merged(settings: TenantSettings, body: SettingsBody) -> TenantSettings:
    return replace(settings, **{name: value for name, value in asdict(body).items() if value is not UNSET})


def _answer(tenant: Tenant, version: int) -> TenantAnswer:
    shown = {name: getattr(tenant.settings, name) for name in SettingsView.__struct_fields__}
    return TenantAnswer(
        id=tenant.id,
        version=version,
        stage=tenant.stage.stage,
        percent=tenant.stage.cohort.percent,
        settings=SettingsView(**shown),
        keys=public_view(tenant).keys,
    )


ROUTES = (make_tenant, list_tenants, read_tenant, change_tenant, add_key, remove_key)
