"""The bodies of `POST /v1/notifications`, its batch items and `POST /v1/publish`: what a publisher may say,
with its limits.

Unknown fields are refused. Lengths are characters here (msgspec counts those); byte limits are checked by
`payload`.
"""

from __future__ import annotations

from typing import Annotated, Literal

from msgspec import Meta, Raw, Struct

from dualcast.model.channel import MAX_CHANNEL_CHARACTERS
from dualcast.model.inbox import DEVICE_KINDS

MAX_TARGETS = 1000
MAX_TTL_S = 30 * 86_400

Name = Annotated[str, Meta(min_length=1, max_length=256)]
Names = Annotated[list[Name], Meta(max_length=MAX_TARGETS)]
ChannelName = Annotated[
    str,
    Meta(
        min_length=3, max_length=MAX_CHANNEL_CHARACTERS, description="`all`, or kind:id such as `user:alice`"
    ),
]
ChannelNames = Annotated[list[ChannelName], Meta(min_length=1, max_length=MAX_TARGETS)]
Id = Annotated[str, Meta(min_length=1, max_length=128, description="printable ASCII; unique in the tenant")]
Key = Annotated[str, Meta(min_length=1, max_length=128, description="printable ASCII")]
EventType = Annotated[str, Meta(min_length=1, max_length=128)]
Ttl = Annotated[int, Meta(ge=1, le=MAX_TTL_S, description="seconds until recovery leaves it out")]
Level = Literal["info", "success", "warning", "error"]
Priority = Literal["low", "normal", "high", "urgent"]
PushPolicy = Literal["never", "offline", "always"]
Devices = Annotated[list[Name], Meta(max_length=len(DEVICE_KINDS), description=" | ".join(DEVICE_KINDS))]
"""Device kinds; others are refused with a code of their own, so they are text here."""


class Target(Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """Whom a notification is for. Exactly one of the six is given; `all` is the whole tenant."""

    user: Name | None = None
    users: Annotated[list[Name], Meta(min_length=1, max_length=MAX_TARGETS)] | None = None
    channel: ChannelName | None = None
    channels: ChannelNames | None = None
    all: Literal[True] | None = None
    connection: Annotated[str, Meta(min_length=1, max_length=256, description="a live connection's id")] | (
        None
    ) = None
    """Only this connection, while it lives; never stored or pushed."""


class AudienceRequest(Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """Who, of the sessions reached, is due a copy (see `dualcast.model.publication.Audience`)."""

    users: Names | None = None
    """Only these users; an empty list reaches nobody."""
    devices: Devices = []
    roles: Names = []
    connections: Names = []
    exclude_users: Names = []
    exclude_connections: Names = []


class NotificationRequest(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    """A notification: something a person should see. It is delivered with event type `notification`."""

    to: Target
    title: Annotated[str, Meta(min_length=1, max_length=512)]
    type: EventType = "system"
    """The kind of notification (`system`, `analysis`, `alert` …); the set is open."""
    content: Annotated[str, Meta(max_length=16_384)] | None = None
    link: Annotated[str, Meta(min_length=1, max_length=2048)] | None = None
    level: Level = "info"
    source: Annotated[str, Meta(min_length=1, max_length=128)] | None = None
    priority: Priority = "normal"
    data: Raw = Raw(b"{}")
    """A JSON object of the publisher's own."""
    extra: Raw = Raw(b"{}")
    """Keys that only one older contract has: a JSON object with `rooms` and `topics`, each an object. Clients
    of that contract get them beside the others, clients of the rest do not."""
    created_at: (
        Annotated[str, Meta(min_length=10, max_length=64, description="RFC 3339; absent: now")] | None
    ) = None
    """What clients are shown; without an offset it is taken as UTC."""
    ttl_s: Ttl | None = None
    id: Id | None = None
    """Publication id; a UUIDv7 when absent. Clients drop duplicates by it."""
    idempotency_key: Key | None = None
    conflation_key: Key | None = None
    terminal: bool = False
    audience: AudienceRequest | None = None
    store: Annotated[
        bool | None,
        Meta(description="absent: stored where that can be (users, all); true: refused where it cannot"),
    ] = None
    """Keep it in the inboxes (`riders`)."""
    push: Annotated[PushPolicy | None, Meta(description="absent: the server's default; users only")] = None
    """When to send a device push: `offline` to whoever has no live connection."""
    push_devices: Devices = []
    """Only a live connection of one of these kinds makes a push needless; empty: any does."""


class GrantRequest(Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """Who may subscribe to the channel from now on, beside those who may already."""

    owner: Annotated[str, Meta(max_length=256)] = ""
    """The new owner; "": stays as it is."""
    members: Names = []
    """Added to the others."""


class PublishRequest(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    """A publication to any channels, of any event type, kept in history (or ephemeral) but never in an
    inbox.
    """

    channel: ChannelName | None = None
    channels: ChannelNames | None = None
    """Exactly one of `channel` and `channels`."""
    type: EventType
    data: Raw = Raw(b"{}")
    """Any JSON value."""
    ttl_s: Ttl | None = None
    id: Id | None = None
    idempotency_key: Key | None = None
    conflation_key: Key | None = None
    terminal: bool = False
    audience: AudienceRequest | None = None
    ephemeral: bool = False
    """Live only: no offset, no history, never recovered."""
    grant: GrantRequest | None = None
    """Recorded before the publication; needs `channel`."""


Request = NotificationRequest | PublishRequest
