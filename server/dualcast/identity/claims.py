"""Claims of a verified payload → Principal. Pure: the clock is an argument.

Accepted claims: `exp` and `sub` (required; an integer `sub` is taken as its decimal text), `nbf`, `iat`,
`jti`, `iss`, `aud`, `tenant`, `role`, `roles`, `channels`. Anything of a wrong type makes the whole token
bad: a claim that was meant to restrict must not be dropped in silence.
"""

from __future__ import annotations

from typing import Any

from msgspec import Struct

from dualcast.model.channel import check_channel, check_id, check_tenant
from dualcast.model.errors import BadChannel, TokenExpired, Unauthorized
from dualcast.model.principal import Principal

from .keys import VerificationKey

MAX_TIME = 253_402_300_799
"""End of the year 9999; also keeps infinities out."""
_TYPE_CLAIMS = ("type", "token_type", "token_use", "typ")


class TokenSettings(Struct, frozen=True):
    """How tokens are judged."""

    default_tenant: str = "default"
    """Tenant of a token without a `tenant` claim whose issuer names no tenant either."""
    leeway_s: int = 30
    """Allowed difference between the issuer's clock and ours."""
    strict_audience: bool = True
    """`aud` must be the one audience as text; a list that contains it is refused."""
    max_token_bytes: int = 8192
    max_life_s: int = 366 * 86_400
    """A token that expires later than this from now is refused: revocations are kept as long and no longer.
    """
    max_channels: int = 128
    max_wildcards: int = 4
    """`*` and `?` in one pattern."""
    max_roles: int = 64
    cache_entries: int = 20_000
    """Verified tokens remembered; the least recently used is forgotten first."""
    max_candidate_keys: int = 8
    """Keys tried for one token."""


def bad_token() -> Unauthorized:
    """The one answer to every token that does not verify."""
    return Unauthorized("bad token")


def token_expired() -> TokenExpired:
    """The answer to a token of which only the time is over."""
    return TokenExpired("token expired")


def principal_from(
    claims: dict[str, Any], key: VerificationKey, settings: TokenSettings, *, now: float, fallback_id: str
) -> Principal:
    """The principal that `claims`, signed by `key`, stand for at Unix time `now`.

    `fallback_id` is the token id when there is no `jti`. Raises TokenExpired when nothing but the time is
    wrong, Unauthorized for anything else.
    """
    if claims.get("tenant", key.tenant) != key.tenant:
        raise bad_token()
    if any(str(claims.get(name)).lower() == "refresh" for name in _TYPE_CLAIMS):
        raise bad_token()
    if key.issuer and claims.get("iss") != key.issuer:
        raise bad_token()
    _check_audience(claims, key.audience, settings.strict_audience)
    expires_at = _time(claims, "exp", required=True) + settings.leeway_s
    issued_at = _time(claims, "iat")
    if max(issued_at, _time(claims, "nbf")) > now + settings.leeway_s:
        raise bad_token()
    if expires_at > now + settings.max_life_s + settings.leeway_s:
        raise bad_token()
    said = _texts(claims, "role", settings)
    principal = Principal(
        tenant=key.tenant,
        sub=_ident(claims.get("sub")),
        roles=frozenset((*said, *_texts(claims, "roles", settings))),
        channels=_patterns(claims, settings),
        expires_at=expires_at,
        token_id=_ident(claims["jti"]) if claims.get("jti") is not None else fallback_id,
        issued_at=issued_at,
        key_id=key.fingerprint,
        role=said[0] if said else "",
    )
    if now >= expires_at:
        raise token_expired()
    return principal


def _check_audience(claims: dict[str, Any], audience: str, strict: bool) -> None:
    found = claims.get("aud")
    if found is None and not audience:
        return
    accepted = found if isinstance(found, list) and not strict else [found]
    if not audience or audience not in accepted:
        raise bad_token()


def _time(claims: dict[str, Any], name: str, *, required: bool = False) -> int:
    value = claims.get(name)
    if value is None and not required:
        return 0
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= MAX_TIME:
        raise bad_token()
    return int(value)


def _ident(value: object) -> str:
    """A user or token id: text, or an integer taken as text."""
    if isinstance(value, int) and not isinstance(value, bool):
        value = str(value) if abs(value) < 2**63 else None
    if not isinstance(value, str) or not _valid(check_id, value):
        raise bad_token()
    return value


def _texts(claims: dict[str, Any], name: str, settings: TokenSettings) -> tuple[str, ...]:
    value = claims.get(name)
    if value is None:
        return ()
    items = [value] if isinstance(value, str) else value
    if not isinstance(items, list) or len(items) > settings.max_roles:
        raise bad_token()
    if not all(isinstance(item, str) and _valid(check_id, item) for item in items):
        raise bad_token()
    return tuple(items)


def _patterns(claims: dict[str, Any], settings: TokenSettings) -> tuple[str, ...]:
    items = claims.get("channels")
    if items is None:
        return ()
    if not isinstance(items, list) or len(items) > settings.max_channels:
        raise bad_token()
    for item in items:
        if not isinstance(item, str) or not _valid(check_channel, item):
            raise bad_token()
        if item.count("*") + item.count("?") > settings.max_wildcards:
            raise bad_token()
    return tuple(dict.fromkeys(items))


def is_tenant(text: str) -> bool:
    """Whether `text` is written like a tenant id."""
    return _valid(check_tenant, text)


def _valid(check: Any, text: str) -> bool:
    try:
        check(text)
    except BadChannel:
        return False
    return True
