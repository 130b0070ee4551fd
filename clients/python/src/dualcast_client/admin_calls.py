"""What operators and a tenant's admins ask of the REST interface, as values: a function per operation."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, Literal

import msgspec

from . import answers, calls, tenant_shapes
from .calls import encode, given, nothing, segment
from .flow import Call
from .tenant_shapes import NewKey, SettingsChange, StageName, StageRecord

RevocationKind = Literal["token", "user"]

_tenant = msgspec.json.Decoder(tenant_shapes.Tenant).decode
_tenants = msgspec.json.Decoder(tenant_shapes.TenantPage).decode
_migration = msgspec.json.Decoder(tenant_shapes.Migration).decode
_audit = msgspec.json.Decoder(tenant_shapes.AuditPage).decode
_census = msgspec.json.Decoder(tenant_shapes.Census).decode
_readiness = msgspec.json.Decoder(tenant_shapes.Readiness).decode
_parity = msgspec.json.Decoder(tenant_shapes.Parity).decode
_grant = msgspec.json.Decoder(tenant_shapes.GrantView).decode
_closing = msgspec.json.Decoder(tenant_shapes.Closing).decode
_revocations = msgspec.json.Decoder(tenant_shapes.RevocationPage).decode
_connection = msgspec.json.Decoder(answers.Connection).decode

connections = calls.connections


# ── tenants ──


def make_tenant(
    ident: str, settings: SettingsChange | None, keys: Sequence[NewKey], stage: StageName | None, why: str
) -> Call[tenant_shapes.Tenant]:
    body: dict[str, Any] = {"id": ident, "settings": settings or {}, "keys": list(keys)}
    body |= {"stage": stage} if stage else {}
    body |= {"why": why} if why else {}
    return Call("POST", "/v1/tenants", _tenant, encode(body), repeatable=False)


def tenants(after: str, limit: int = 100) -> Call[tenant_shapes.TenantPage]:
    return Call("GET", "/v1/tenants", _tenants, query=given(after=after, limit=limit))


def tenant(ident: str) -> Call[tenant_shapes.Tenant]:
    return Call("GET", _of(ident), _tenant)


def change_tenant(
    ident: str, settings: SettingsChange, expected: int | None, why: str = ""
) -> Call[tenant_shapes.Tenant]:
    body = encode({"settings": settings, "expected": expected} | given(why=why))
    return Call("PATCH", _of(ident), _tenant, body, repeatable=expected is None)


def add_key(ident: str, key: NewKey, expected: int | None, why: str = "") -> Call[tenant_shapes.Tenant]:
    headers, body = _if_match(expected), encode(msgspec.to_builtins(key) | given(why=why))
    return Call("POST", _of(ident, "/keys"), _tenant, body, repeatable=False, headers=headers)


def remove_key(
    ident: str, kid: str, position: int | None, expected: int | None, why: str = ""
) -> Call[tenant_shapes.Tenant]:
    query = given(kid=kid, why=why) | ({} if position is None else {"position": position})
    headers = _if_match(expected)
    return Call("DELETE", _of(ident, "/keys"), _tenant, query=query, repeatable=False, headers=headers)


# ── migration ──


def migration(ident: str) -> Call[tenant_shapes.Migration]:
    return Call("GET", _of(ident, "/migration"), _migration)


def change_migration(
    ident: str, record: StageRecord, why: str, expected: int | None, force: bool
) -> Call[tenant_shapes.Migration]:
    body = msgspec.structs.asdict(record)
    del body["held_until"]
    if not body["budgets"]:
        del body["budgets"]
    body |= {"why": why, "expected": expected, "force": force}
    headers = {"If-Match": "*"} if expected is None else {}
    path = _of(ident, "/migration")
    return Call("PUT", path, _migration, encode(body), repeatable=expected is None, headers=headers)


def roll_back(ident: str, why: str, expected: int | None, force: bool) -> Call[tenant_shapes.Migration]:
    # Twice it would be where it began.
    body = encode({"why": why, "expected": expected, "force": force})
    return Call("POST", _of(ident, "/migration/rollback"), _migration, body, repeatable=False)


def audit(ident: str, before: int, limit: int) -> Call[tenant_shapes.AuditPage]:
    return Call("GET", _of(ident, "/audit"), _audit, query={"before": before, "limit": limit})


def census(ident: str, transport: str, limit: int) -> Call[tenant_shapes.Census]:
    return Call("GET", _of(ident, "/census"), _census, query=given(transport=transport, limit=limit))


def readiness(ident: str) -> Call[tenant_shapes.Readiness]:
    return Call("GET", _of(ident, "/readiness"), _readiness)


def parity(ident: str, before: int, limit: int) -> Call[tenant_shapes.Parity]:
    return Call("GET", _of(ident, "/parity"), _parity, query={"before": before, "limit": limit})


# ── grants ──


def grant(channel: str) -> Call[tenant_shapes.GrantView]:
    return Call("GET", _grants(channel), _grant)


def set_grant(
    channel: str, owner: str, members: Iterable[str], version: int | None
) -> Call[tenant_shapes.GrantView]:
    body = encode({"owner": owner, "members": _list(members)})
    query = {} if version is None else {"version": version}
    return Call("PUT", _grants(channel), _grant, body, query=query, repeatable=version is None)


def change_grant(
    channel: str, add: Iterable[str], remove: Iterable[str], owner: str
) -> Call[tenant_shapes.GrantView]:
    body = encode({"owner": owner, "add": _list(add), "remove": _list(remove)})
    return Call("POST", _grants(channel), _grant, body)


def delete_grant(channel: str) -> Call[None]:
    return Call("DELETE", _grants(channel), nothing)


# ── connections and revocations ──


def connection(ident: str) -> Call[answers.Connection]:
    return Call("GET", "/v1/connections/" + segment(ident), _connection)


def close_connection(ident: str) -> Call[tenant_shapes.Closing]:
    return Call("DELETE", "/v1/connections/" + segment(ident), _closing)


def close_connections(user: str, token_id: str, revoke: bool) -> Call[tenant_shapes.Closing]:
    query = given(**_one(user, token_id)) | {"revoke": "true" if revoke else "false"}
    return Call("DELETE", "/v1/connections", _closing, query=query)


def revoke(
    user: str, token_id: str, expires_at: int | None, issued_before: int | None
) -> Call[tenant_shapes.Closing]:
    body = {**_one(user, token_id), "expires_at": expires_at, "issued_before": issued_before}
    return Call("PUT", "/v1/revocations", _closing, encode(body))


def revocations(kind: RevocationKind, after: str, limit: int = 100) -> Call[tenant_shapes.RevocationPage]:
    query = given(kind=kind, after=after, limit=limit)
    return Call("GET", "/v1/revocations", _revocations, query=query)


def take_back(user: str, token_id: str) -> Call[None]:
    query = given(**_one(user, token_id))
    return Call("DELETE", "/v1/revocations", nothing, query=query, repeatable=False)


def _one(user: str, token_id: str) -> dict[str, str]:
    if bool(user) == bool(token_id):
        raise ValueError("name exactly one of user and token_id")
    return {"user": user} if user else {"token_id": token_id}


def _of(ident: str, rest: str = "") -> str:
    return f"/v1/tenants/{segment(ident)}{rest}"


def _grants(channel: str) -> str:
    return f"/v1/channels/{segment(channel)}/grants"


def _if_match(expected: int | None) -> dict[str, str]:
    return {} if expected is None else {"If-Match": f'"{expected}"'}


def _list(users: Iterable[str]) -> list[str]:
    if isinstance(users, str):
        raise TypeError("users are a list")
    return list(users)
