"""The canonical notification in the shapes of the older contracts (contract section 8, "One notification,
three shapes").

`parse` reads the `data` of a publication of event type `notification`; `for_notifications`, `for_rooms` and
`for_topics` give the object that stands in the contract's frame, keys in the printed order. What a publisher
added in one contract's own words is under `extra` and comes back in that contract only.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec
from msgspec import Raw, Struct

from .legacy_text import contract_times

EVENT = "notification"
LEVELS = ("info", "success", "warning", "error")


class Extra(Struct, frozen=True, omit_defaults=True):
    """Keys beyond the table, by the contract they were published in; values are the publisher's JSON."""

    rooms: Mapping[str, Raw] = {}
    topics: Mapping[str, Raw] = {}


class Canonical(Struct, frozen=True, kw_only=True):
    """A notification as `publishing.notification` writes it; times are the contract's time text."""

    id: str
    type: str = "system"
    """The kind."""
    title: str
    content: str | None = None
    link: str | None = None
    level: str = "info"
    source: str | None = None
    priority: str = "normal"
    status: str = "unread"
    created_at: str
    expires_at: str | None = None
    data: Raw = Raw(b"{}")
    """A JSON object."""
    extra: Extra = Extra()


_parse = msgspec.json.Decoder(Canonical).decode


def parse(data: bytes) -> Canonical:
    """The notification in a publication's `data`. Raises msgspec.DecodeError where it is none; publishing
    writes no such."""
    return _parse(data)


def for_notifications(note: Canonical) -> dict[str, Any]:
    """Exactly the eight keys of section 3.1; `content`, `link` and `source` may be None."""
    return {
        "id": note.id,
        "type": note.type,
        "title": note.title,
        "content": note.content,
        "link": note.link,
        "source": note.source,
        "status": note.status,
        "created_at": note.created_at,
    }


def for_rooms(note: Canonical) -> dict[str, Any]:
    """The eleven keys of section 4.1, then what was published in rooms beyond them. `notification_type` and
    `type` are one value. A publisher's `notification_type`, `priority` or `expires_at` that the canonical
    notification cannot hold is given back as it was said."""
    extra = note.extra.rooms
    level = extra.get("notification_type", note.level)
    shape: dict[str, Any] = {
        "id": note.id,
        "title": note.title,
        "message": note.content or "",
        "notification_type": level,
        "type": level,
        "category": note.type,
        "priority": extra.get("priority", note.priority),
        "action_url": note.link,
        "action_data": note.data,
        "created_at": note.created_at,
        "expires_at": extra.get("expires_at", note.expires_at),
    }
    return _with(shape, extra)


def for_topics(note: Canonical) -> dict[str, Any]:
    """The six keys of section 5.2, then what was published in topics beyond them."""
    extra = note.extra.topics
    shape: dict[str, Any] = {
        "id": note.id,
        "title": note.title,
        "content": note.content or "",
        "level": extra.get("level", note.level),
        "data": note.data,
        "timestamp": note.created_at,
    }
    return _with(shape, extra)


def _with(shape: dict[str, Any], extra: Mapping[str, Raw]) -> dict[str, Any]:
    """A publisher's own keys never take the place of the table's."""
    for key, value in contract_times(extra).items():
        shape.setdefault(key, value)
    return shape
