"""Requests become drafts: every check that needs no I/O, in one place for single requests and batches."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from hashlib import blake2b

import msgspec

from dualcast.model.channel import ALL, check_channel, check_id, user_channel
from dualcast.model.inbox import DEVICE_KINDS, InboxRider, PushRider
from dualcast.model.principal import Principal
from dualcast.model.publication import Audience, Draft
from dualcast.model.times import to_utc
from dualcast.model.uuid7 import Uuid7

from .notification import NOTIFICATION, check_extra, encode_notification
from .payload import Invalid, check_kind, check_line, check_token, check_type, invalid, minify
from .requests import AudienceRequest, NotificationRequest, PublishRequest, PushPolicy, Request, Target
from .riders import Aim, inbox_rider, push_rider

_canonical = msgspec.msgpack.Encoder().encode
# A character neither user ids nor keys may have: (principal, key) → dedupe key is injective and never equals
# an id.
_SEPARATOR = "\x1f"


class Drafter:
    """Makes drafts. `max_data_bytes` limits the publisher's `data` after minifying; `default_push` is the
    policy of notifications to users that name none."""

    def __init__(
        self,
        max_data_bytes: int,
        *,
        default_push: PushPolicy = "never",
        new_id: Callable[[], str] | None = None,
    ) -> None:
        self._max_data_bytes = max_data_bytes
        self._default_push = default_push
        self._new_id = new_id or Uuid7()

    def draft(
        self,
        principal: Principal,
        request: Request,
        *,
        now_ms: int = 0,
        idempotency_key: str = "",
        connection_user: str = "",
    ) -> Draft:
        """The draft of `request` in the tenant of `principal`.

        `idempotency_key`: of the HTTP header; must equal the body's when both are given. `connection_user`:
        whose the connection in `to` is. `now_ms`: Unix milliseconds, 0: now. Raises Invalid, BadChannel,
        LimitExceeded.
        """
        time_ms = now_ms or int(time.time() * 1000)
        aim = None
        if isinstance(request, NotificationRequest):
            aim = _aim(request.to, connection_user)
            channels = aim.channels
        else:
            channels = _channels(request)
        data = minify(request.data, limit=self._max_data_bytes)
        ident = self._new_id() if request.id is None else check_token(request.id, "$.id", "bad-id")
        key = ""
        if idempotency_key or request.idempotency_key is not None:
            key = _key(request.idempotency_key, idempotency_key)
        if request.conflation_key is not None:
            check_token(request.conflation_key, "$.conflation_key", "bad-key")
        ttl_s = request.ttl_s or 0
        expires_ms = time_ms + ttl_s * 1000 if ttl_s else 0
        audience = None if request.audience is None else _audience(request.audience)
        extra = b""
        if isinstance(request, NotificationRequest) and bytes(request.extra) != b"{}":
            extra = minify(request.extra, "$.extra", limit=self._max_data_bytes)
            check_extra(extra)
        fingerprint = ""
        if key or request.id is not None:
            fingerprint = _fingerprint(request, channels, data + extra, aim.connection if aim else "")
        ephemeral = False
        inbox: InboxRider | None = None
        push: PushRider | None = None
        if isinstance(request, NotificationRequest):
            assert aim is not None
            event = NOTIFICATION
            check_kind(request.type)
            if not check_line(request.title, "$.title") or not request.title.strip():
                raise invalid("$.title", "must not be blank")
            if request.link is not None:
                check_line(request.link, "$.link")
            if request.source is not None:
                check_line(request.source, "$.source")
            if data[:1] != b"{":
                raise invalid("$.data", "the data of a notification is a JSON object")
            if request.push_devices:
                _check_devices(request.push_devices, "$.push_devices")
            if aim.connection:
                audience = _only_connection(audience, aim.connection)
            inbox = inbox_rider(request, aim, audience)
            if (request.push or self._default_push) != "never":
                push = push_rider(
                    request,
                    aim,
                    audience,
                    default=self._default_push,
                    ident=ident,
                    data=data,
                    expires_ms=expires_ms,
                )
            data = encode_notification(
                request,
                data,
                ident=ident,
                time_ms=time_ms,
                expires_ms=expires_ms,
                extra=extra,
                created_at="" if request.created_at is None else _time(request.created_at, "$.created_at"),
            )
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
            inbox=inbox,
            push=push,
        )


def _channels(request: PublishRequest) -> tuple[str, ...]:
    if (request.channel is None) == (request.channels is None):
        raise invalid("$", "give exactly one of channel and channels", code="bad-target")
    if request.grant is not None and request.channel is None:
        raise invalid("$.grant", "a grant needs exactly one channel, given as channel", code="bad-target")
    if request.channel is not None:
        return (check_channel(request.channel),)
    return tuple(dict.fromkeys(check_channel(name) for name in request.channels or ()))


def _aim(to: Target, connection_user: str) -> Aim:
    given = (
        (to.user is not None)
        + (to.users is not None)
        + (to.channel is not None)
        + (to.channels is not None)
        + (to.all is not None)
        + (to.connection is not None)
    )
    if given != 1:
        text = "give exactly one of user, users, channel, channels, all and connection"
        raise invalid("$.to", text, code="bad-target")
    if to.user is not None:
        return Aim((user_channel(to.user),), (to.user,))
    if to.users is not None:
        users = tuple(dict.fromkeys(to.users))
        return Aim(tuple([user_channel(user) for user in users]), users)
    if to.all is not None:
        return Aim((ALL,), (), True)
    if to.connection is not None:
        return Aim((user_channel(connection_user),), (connection_user,), False, False, to.connection)
    return _aim_at([to.channel] if to.channel is not None else to.channels or ())


def _aim_at(names: Sequence[str]) -> Aim:
    channels = list(dict.fromkeys([check_channel(name) for name in names]))
    users = tuple([name[5:] for name in channels if name.startswith("user:")])
    wide = ALL in channels
    if wide:
        # First, so that whoever is reached twice has the copy that tells of the inbox.
        channels.sort(key=lambda name: name != ALL)
    return Aim(tuple(channels), users, wide, len(channels) > len(users) + wide)


def _key(body: str | None, header: str) -> str:
    if body is not None and header and body != header:
        raise Invalid("the Idempotency-Key header and idempotency_key differ", code="bad-idempotency-key")
    key = body if body is not None else header
    return check_token(key, "$.idempotency_key", "bad-idempotency-key") if key else ""


def _audience(asked: AudienceRequest) -> Audience:
    for names in (asked.users or (), asked.exclude_users):
        for name in names:
            if name or names is not asked.exclude_users:  # "": anonymous connections of older contracts
                check_id(name)
    _check_devices(asked.devices, "$.audience.devices")
    return Audience(
        users=None if asked.users is None else tuple(asked.users),
        devices=tuple(asked.devices),
        roles=tuple(asked.roles),
        connections=tuple(asked.connections),
        exclude_users=tuple(asked.exclude_users),
        exclude_connections=tuple(asked.exclude_connections),
    )


def _only_connection(audience: Audience | None, connection: str) -> Audience:
    if audience is None:
        return Audience(connections=(connection,))
    if audience.connections:
        text = "not beside to.connection: it names the only one"
        raise invalid("$.audience.connections", text, code="bad-target")
    return msgspec.structs.replace(audience, connections=(connection,))


def _time(text: str, path: str) -> str:
    found = to_utc(text)
    if found is None:
        raise invalid(path, "must be a date and time of RFC 3339")
    return found


def _check_devices(kinds: Sequence[str], path: str) -> None:
    for number, kind in enumerate(kinds):
        if kind not in DEVICE_KINDS:
            text = "a device is one of " + ", ".join(DEVICE_KINDS)
            raise invalid(f"{path}[{number}]", text, code="bad-device")


def _fingerprint(request: Request, channels: tuple[str, ...], data: bytes, connection: str) -> str:
    """A hash of what the publisher asked for; equal requests in other whitespace or target order of spelling
    are equal.
    """
    asked = {
        name: getattr(request, name)
        for name in request.__struct_fields__
        if name not in ("data", "extra", "idempotency_key", "to", "channel", "channels")
    }
    digest = blake2b(digest_size=16)
    digest.update(_canonical((type(request).__name__, channels, connection, asked)))
    digest.update(data)
    return digest.hexdigest()
