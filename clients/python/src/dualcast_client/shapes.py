"""The words of the older contracts in those of the native interface (docs/contracts/legacy-wire.md sections
3.1, 4.4, 5.5, 6.1, 8). Pure, and the same as what the server's older REST endpoints do with a body.

What a publisher says beyond the contract's table is kept for the clients of that contract: under `extra`.
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, get_args

from .bodies import Level, Message, Notification, Priority, Target

LEVELS: tuple[str, ...] = get_args(Level)
PRIORITIES: tuple[str, ...] = get_args(Priority)
MAX_TTL_S = 30 * 86_400
COLLIDING = "publisher_keys"
"""Key in a message's `extra`: an object of keys that have the name of one of the stored message's own."""
_STORED = frozenset({"conversation_id", "seq", "reply_to", "extra", "time"})
_MEANT = frozenset(
    {
        "content",
        "conversation_id",
        "exclude_connection_id",
        "id",
        "is_important",
        "message_type",
        "participants",
        "reply_to_message_id",
        "sender_avatar",
        "sender_id",
        "sender_name",
        "sender_type",
        "type",
    }
)

Body = Mapping[str, Any]


def user_ids(users: Iterable[str | int]) -> list[str]:
    """Each once, in order; an integer is taken as text. A text in place of a list is refused: it would be
    taken for a list of letters."""
    if isinstance(users, str | bytes):
        raise TypeError("ids are given as a list")
    return list(dict.fromkeys(str(user) for user in users))


def plain_notification(to: Target, body: Body) -> Notification:
    """Of contract `notifications`: its eight keys, and `level`, `priority`, `data` where a caller knows them.
    `status` and keys beyond these are not kept: the contract has exactly eight."""
    return _notification(
        to,
        body.get("title"),
        content=_text(body.get("content")),
        type=_text(body.get("type")) or "system",
        link=_text(body.get("link")) or None,
        source=_text(body.get("source")) or None,
        level=_one_of(body.get("level"), LEVELS, "level", {}),
        priority=_one_of(body.get("priority"), PRIORITIES, "priority", {}),
        data=body.get("data"),
        id=_text(body.get("id")) or None,
        created_at=_time(body.get("created_at")),
    )


def rooms_notification(to: Target, body: Body, now_s: float | None = None) -> Notification:
    """Of contract `rooms`. `now_s`: Unix seconds."""
    rest = dict(body)
    extra: dict[str, Any] = {}
    level = rest.pop("type", None)
    level = _or(rest.pop("notification_type", None), level)
    fields: dict[str, Any] = {
        "content": _text(rest.pop("message", None)),
        "type": _text(_or(rest.pop("category", None), "system")),
        "level": _one_of(level, LEVELS, "notification_type", extra),
        "priority": _one_of(rest.pop("priority", None), PRIORITIES, "priority", extra),
        "link": _text(rest.pop("action_url", None)) or None,
        "data": rest.pop("action_data", None),
        "id": _text(rest.pop("id", None)) or None,
        "created_at": _time(rest.pop("created_at", None)),
    }
    title = rest.pop("title", None)
    expires = _moment(rest.pop("expires_at", None))
    if expires is not None:
        left_s = math.ceil(expires.timestamp() - (time.time() if now_s is None else now_s))
        if left_s <= MAX_TTL_S:
            fields["ttl_s"] = max(1, left_s)
        extra["expires_at"] = utc_text(expires)
    return _notification(to, title, **fields, extra=_extra("rooms", extra | rest))


def topics_notification(to: Target, body: Body) -> Notification:
    """Of contract `topics`."""
    rest = dict(body)
    extra: dict[str, Any] = {}
    title = rest.pop("title", None)
    fields: dict[str, Any] = {
        "content": _text(rest.pop("content", None)),
        "level": _one_of(rest.pop("level", None), LEVELS, "level", extra),
        "data": rest.pop("data", None),
        "id": _text(rest.pop("id", None)) or None,
        "created_at": _time(rest.pop("timestamp", None)),
    }
    return _notification(to, title, **fields, extra=_extra("topics", extra | rest))


def message(body: Body) -> Message:
    """Of contract `conversations`: `id`, `content`, `sender_id`, `message_type` …; other keys travel with
    it."""
    own = {key: value for key, value in body.items() if key not in _MEANT}
    colliding = {key: own.pop(key) for key in sorted(_STORED.intersection(own))}
    content = body.get("content")
    return Message(
        content=content if isinstance(content, Mapping) else _text(content) or "",
        id=_text(body.get("id")) or None,
        message_type=_text(_or(body.get("message_type"), body.get("type"))) or "text",
        sender_id=_text(body.get("sender_id")) or None,
        sender_type=_text(body.get("sender_type")),
        sender_name=_text(body.get("sender_name")),
        sender_avatar=_text(body.get("sender_avatar")),
        is_important=bool(body.get("is_important")),
        reply_to=_text(body.get("reply_to_message_id")) or None,
        extra={**own, COLLIDING: colliding} if colliding else own,
    )


def utc_text(moment: datetime) -> str:
    """RFC 3339, UTC, `Z`; a time without an offset is taken as UTC."""
    moment = moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment.astimezone(UTC)
    return moment.isoformat(timespec="microseconds").replace("+00:00", "Z")


# ── pieces ──


def _notification(to: Target, title: object, **fields: Any) -> Notification:
    if not isinstance(title, str) or not title.strip():
        raise ValueError("a notification has a title")
    return Notification(
        to=to, title=title, **{key: value for key, value in fields.items() if value is not None}
    )


def _extra(contract: str, keys: Body) -> Body | None:
    return {contract: keys} if keys else None


def _one_of(value: object, known: Sequence[str], key: str, extra: dict[str, Any]) -> str | None:
    """`value` if it is known; one that is not stays a key of its own contract."""
    if value is None or value == "":
        return None
    if value in known:
        return str(value)
    extra[key] = value
    return None


def _or(value: object, otherwise: object) -> object:
    return otherwise if value is None or value == "" else value


def _text(value: object) -> str | None:
    return None if value is None else str(value)


def _time(value: object) -> str | None:
    if value is None or value == "":
        return None
    return utc_text(value) if isinstance(value, datetime) else str(value)


def _moment(value: object) -> datetime | None:
    if value is None or value == "":
        return None
    moment = value if isinstance(value, datetime) else datetime.fromisoformat(str(value))
    return moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment
