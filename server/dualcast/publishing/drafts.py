"""Requests become drafts: every check that needs no I/O, in one place for single requests and batches."""

from __future__ import annotations

import time
from collections.abc import Callable
from hashlib import blake2b

import msgspec

from dualcast.model.channel import ALL, check_channel, check_id, user_channel
from dualcast.model.principal import Principal
from dualcast.model.publication import Audience, Draft
from dualcast.model.uuid7 import Uuid7

from .notification import NOTIFICATION, encode_notification
from .payload import Invalid, check_kind, check_line, check_token, check_type, invalid, minify
from .requests import AudienceRequest, NotificationRequest, Request, Target

_canonical = msgspec.msgpack.Encoder().encode
# A character neither user ids nor keys may have: (principal, key) → dedupe key is injective and never equals
# an id.
_SEPARATOR = "\x1f"


class Drafter:
    """Makes drafts. `max_data_bytes` limits the publisher's `data` after minifying."""

    def __init__(self, max_data_bytes: int, *, new_id: Callable[[], str] | None = None) -> None:
        self._max_data_bytes = max_data_bytes
        self._new_id = new_id or Uuid7()

    def draft(
        self, principal: Principal, request: Request, *, now_ms: int = 0, idempotency_key: str = ""
    ) -> Draft:
        """The draft of `request` in the tenant of `principal`.

        `idempotency_key`: of the HTTP header; must equal the body's when both are given. `now_ms`: Unix
        milliseconds, 0: now. Raises Invalid, BadChannel, LimitExceeded.
        """
        time_ms = now_ms or int(time.time() * 1000)
        channels = self._channels(request)
        data = minify(request.data, limit=self._max_data_bytes)
        ident = self._new_id() if request.id is None else check_token(request.id, "$.id", "bad-id")
        key = _key(request.idempotency_key, idempotency_key)
        if request.conflation_key is not None:
            check_token(request.conflation_key, "$.conflation_key", "bad-key")
        ttl_s = request.ttl_s or 0
        expires_ms = time_ms + ttl_s * 1000 if ttl_s else 0
        audience = None if request.audience is None else _audience(request.audience)
        fingerprint = ""
        if key or request.id is not None:
            fingerprint = _fingerprint(request, channels, data)
        ephemeral = False
        if isinstance(request, NotificationRequest):
            event = NOTIFICATION
            check_kind(request.type)
            if not check_line(request.title, "$.title") or not request.title.strip():
                raise invalid("$.title", "must not be blank")
            check_line(request.link, "$.link")
            check_line(request.source, "$.source")
            if data[:1] != b"{":
                raise invalid("$.data", "the data of a notification is a JSON object")
            data = encode_notification(request, data, ident=ident, time_ms=time_ms, expires_ms=expires_ms)
        else:
            event = check_type(request.type)
            ephemeral = request.ephemeral
        return Draft(
            tenant=principal.tenant,
            channels=channels,
            id=ident,
            type=event,
            data=data,
            time_ms=time_ms,
            expires_ms=expires_ms,
            conflation_key=request.conflation_key or "",
            terminal=request.terminal,
            audience=audience,
            ephemeral=ephemeral,
            dedupe_key=f"{principal.sub}{_SEPARATOR}{key}" if key else "",
            fingerprint=fingerprint,
        )

    def _channels(self, request: Request) -> tuple[str, ...]:
        if isinstance(request, NotificationRequest):
            return _targets(request.to)
        if (request.channel is None) == (request.channels is None):
            raise invalid("$", "give exactly one of channel and channels", code="bad-target")
        if request.channel is not None:
            return (check_channel(request.channel),)
        return tuple(dict.fromkeys(check_channel(name) for name in request.channels or ()))


def _targets(to: Target) -> tuple[str, ...]:
    given = (
        (to.user is not None)
        + (to.users is not None)
        + (to.channel is not None)
        + (to.channels is not None)
        + (to.all is not None)
    )
    if given != 1:
        raise invalid("$.to", "give exactly one of user, users, channel, channels and all", code="bad-target")
    if to.user is not None:
        return (user_channel(to.user),)
    if to.users is not None:
        return tuple(dict.fromkeys([user_channel(user) for user in to.users]))
    if to.channel is not None:
        return (check_channel(to.channel),)
    if to.channels is not None:
        return tuple(dict.fromkeys([check_channel(name) for name in to.channels]))
    return (ALL,)


def _key(body: str | None, header: str) -> str:
    if body is not None and header and body != header:
        raise Invalid("the Idempotency-Key header and idempotency_key differ", code="bad-idempotency-key")
    key = body if body is not None else header
    return check_token(key, "$.idempotency_key", "bad-idempotency-key") if key else ""


def _audience(asked: AudienceRequest) -> Audience:
    for names in (asked.users or (), asked.exclude_users):
        for name in names:
            check_id(name)
    return Audience(
        users=None if asked.users is None else tuple(asked.users),
        devices=tuple(asked.devices),
        roles=tuple(asked.roles),
        connections=tuple(asked.connections),
        exclude_users=tuple(asked.exclude_users),
        exclude_connections=tuple(asked.exclude_connections),
    )


def _fingerprint(request: Request, channels: tuple[str, ...], data: bytes) -> str:
    """A hash of what the publisher asked for; equal requests in other whitespace or target order of spelling
    are equal.
    """
    asked = {
        name: getattr(request, name)
        for name in request.__struct_fields__
        if name not in ("data", "idempotency_key", "to", "channel", "channels")
    }
    digest = blake2b(digest_size=16)
    digest.update(_canonical((type(request).__name__, channels, asked)))
    digest.update(data)
    return digest.hexdigest()
