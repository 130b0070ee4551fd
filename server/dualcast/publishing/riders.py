"""What is stored with a notification (the inbox), and who is pushed when away: the rules, without I/O.

| | inbox (`store` absent) | `store: true` | push |
|---|---|---|---|
| users, `user:` channels | one item for each user | the same | yes |
| `all` | once for the tenant | the same | no |
| other channels, one connection | no | refused | no |
| audience with roles or connections | no | refused | no |
| audience with users or exclude_users | those it leaves; of `all` nothing | those; of `all` refused | those |
| audience with devices, exclude_connections | yes: an inbox is the person's | yes | of those devices |

A push that is asked for where the column says no is refused; the server's default is not applied there.
"""

from __future__ import annotations

import msgspec
from msgspec import Raw, Struct

from dualcast.model.inbox import InboxRider, PushRider
from dualcast.model.publication import Audience
from dualcast.model.push import PushMessage, cut, encode_push

from .payload import invalid
from .requests import NotificationRequest, PushPolicy

MAX_PUSH_DATA_BYTES = 2048
"""The publisher's own data goes into a push up to this size: device push services carry 4 KiB in all."""


class Aim(Struct, frozen=True, gc=False):
    """Whom a notification is for, in the words of channels."""

    channels: tuple[str, ...]
    users: tuple[str, ...] = ()
    """Of the `user:` channels among them."""
    wide: bool = False
    """`all` is among them."""
    others: bool = False
    """So are channels that belong to no person."""
    connection: str = ""
    """One connection of the only user; "": all of them."""


class _PushData(Struct, frozen=True, omit_defaults=True):
    type: str
    link: str | None = None
    data: Raw | msgspec.UnsetType = msgspec.UNSET
    """Of the publisher."""


_encode = msgspec.json.Encoder().encode


def inbox_rider(request: NotificationRequest, aim: Aim, audience: Audience | None) -> InboxRider | None:
    """What of `request` is kept in inboxes; None: nothing. Raises Invalid `bad-store` where `store` is true
    and that cannot be."""
    if request.store is False:
        return None
    if audience is None and not aim.connection:
        hindrance = None
    else:
        hindrance = _unknown_people(aim, audience) or _narrowed(aim, audience)
    if request.store:
        if hindrance is None and aim.others:
            hindrance = ("$.to", "only users and `all` have an inbox")
        if hindrance is not None:
            path, text = hindrance
            raise invalid(path, f"it cannot be stored: {text}", code="bad-store")
    elif hindrance is not None:
        return None
    if aim.wide:
        return InboxRider((), True, request.type)
    users = aim.users if audience is None else _due(aim.users, audience)
    return InboxRider(users, False, request.type) if users else None


def push_rider(
    request: NotificationRequest,
    aim: Aim,
    audience: Audience | None,
    *,
    default: PushPolicy,
    ident: str,
    data: bytes,
    expires_ms: int,
) -> PushRider | None:
    """The device push of `request`; None: none. `data`: its minified `data`. Raises Invalid `bad-push` where
    one is demanded and cannot be."""
    policy = request.push or default
    if policy == "never":
        return None
    hindrance = _unknown_people(aim, audience)
    if hindrance is None and (aim.wide or not aim.users or (aim.others and request.push)):
        hindrance = ("$.to", "only users have devices to push to")
    if hindrance is not None:
        if request.push is None:
            return None
        path, text = hindrance
        raise invalid(path, f"it cannot be pushed: {text}", code="bad-push")
    users = aim.users if audience is None else _due(aim.users, audience)
    meant = () if audience is None else audience.devices
    if not users:
        return None
    fits = len(data) <= MAX_PUSH_DATA_BYTES and data != b"{}"
    own = _PushData(request.type, request.link, Raw(data) if fits else msgspec.UNSET)
    message = PushMessage(
        id=ident,
        title=request.title,
        text=cut(request.content or ""),
        priority=request.priority,
        data=Raw(_encode(own)),
        devices=meant,
    )
    # A connection the live copy is not meant for does not make the push needless either.
    devices = tuple(dict.fromkeys(request.push_devices)) or meant
    return PushRider(users, encode_push(message), policy == "always", devices, expires_ms)


def _unknown_people(aim: Aim, audience: Audience | None) -> tuple[str, str] | None:
    """Why it cannot be known whom it is for, beyond who is connected: JSON path and words."""
    if aim.connection:
        return ("$.to.connection", "one connection is not a person")
    if audience is not None:
        if audience.connections:
            return ("$.audience.connections", "a connection is not a person")
        if audience.roles:
            return ("$.audience.roles", "who has a role is known of connected people only")
    return None


def _narrowed(aim: Aim, audience: Audience | None) -> tuple[str, str] | None:
    if not aim.wide or audience is None:
        return None
    text = "a tenant-wide notification is stored once, for everybody"
    if audience.users is not None:
        return ("$.audience.users", text)
    return ("$.audience.exclude_users", text) if audience.exclude_users else None


def _due(users: tuple[str, ...], audience: Audience) -> tuple[str, ...]:
    only, without = audience.users, audience.exclude_users
    if only is not None:
        named = frozenset(only)
        users = tuple(user for user in users if user in named)
    if without:
        named = frozenset(without)
        users = tuple(user for user in users if user not in named)
    return users
