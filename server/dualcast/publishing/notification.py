"""The canonical notification: one shape from which every dialect encodes (contract section 8, "One
notification, three shapes").

A publication of event type `notification` has, as `data`, the JSON of `Notification`, written by this module
only: `POST /v1/publish` refuses that event type, so a dialect may rely on the shape. Key order is stable.
Which dialect takes what:

| key | notifications | rooms | topics |
|---|---|---|---|
| id | id | id | id |
| title | title | title | title |
| content | content | message | content |
| type (the kind, default `system`) | type | category | |
| level | | notification_type, type | level |
| priority | | priority | |
| link | link | action_url | |
| source | source | | |
| data | | action_data | data |
| status | status | | |
| created_at | created_at | created_at | timestamp |
| expires_at | | expires_at | |
| extra.rooms, extra.topics | | each key | each key |

`extra` is what a publisher said in one contract's own words beyond the table: it comes back in that contract
(`dialects.legacy_notification`).
"""

from __future__ import annotations

import msgspec
from msgspec import Raw, Struct

from dualcast.model.times import utc_text

from .payload import NOTIFICATION, invalid
from .requests import Level, NotificationRequest, Priority

__all__ = ["NOTIFICATION", "Notification", "encode_notification", "utc_text"]


class Notification(Struct, frozen=True, kw_only=True):
    """What a person should see. `content`, `link`, `source` and `expires_at` may be null, everything else is
    never empty.
    """

    id: str
    """Equal to the publication id."""
    type: str
    """The kind: `system`, `analysis`, `alert` …"""
    title: str
    content: str | None
    link: str | None
    level: Level
    source: str | None
    priority: Priority
    status: str = "unread"
    created_at: str
    """`2026-01-31T12:00:00.000000Z`"""
    expires_at: str | None
    data: Raw
    """A JSON object of the publisher's own, `{}` when absent."""
    extra: Raw | msgspec.UnsetType = msgspec.UNSET
    """A JSON object with `rooms` and `topics`, each an object; only where a publisher gave it."""


class _Extra(Struct, forbid_unknown_fields=True):
    rooms: dict[str, Raw] = {}
    topics: dict[str, Raw] = {}


_decode_extra = msgspec.json.Decoder(_Extra).decode


_encode = msgspec.json.Encoder().encode


def check_extra(extra: bytes) -> None:
    """Raises Invalid unless the minified JSON is an object of nothing but `rooms` and `topics`, both
    objects."""
    try:
        _decode_extra(extra)
    except msgspec.ValidationError:
        raise invalid("$.extra", "it holds rooms and topics, each a JSON object") from None


def encode_notification(
    request: NotificationRequest,
    data: bytes,
    *,
    ident: str,
    time_ms: int,
    expires_ms: int,
    extra: bytes = b"",
    created_at: str = "",
) -> bytes:
    """The publication data of a checked request. `data`, `extra`: its own, minified, b"": none. Times in Unix
    milliseconds, 0: never. `created_at`: time text in place of `time_ms`.
    """
    return _encode(
        Notification(
            id=ident,
            type=request.type,
            title=request.title,
            content=request.content,
            link=request.link,
            level=request.level,
            source=request.source,
            priority=request.priority,
            created_at=created_at or utc_text(time_ms),
            expires_at=utc_text(expires_ms) if expires_ms else None,
            data=Raw(data),
            extra=Raw(extra) if extra else msgspec.UNSET,
        )
    )
