"""Notifications and messages that backends publish in the words of the contracts `rooms` and `topics`: their
bodies as requests of our own, and publishing to some users or to all.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from http import HTTPStatus
from typing import Any

import msgspec
from litestar import Request, Response
from msgspec import Raw

from dualcast.dialects.legacy_notification import LEVELS
from dualcast.gateway.problems import exception_handler
from dualcast.gateway.services import Services
from dualcast.model.errors import Forbidden, Unauthorized
from dualcast.model.principal import Principal
from dualcast.model.times import to_utc
from dualcast.publishing.payload import decode, invalid
from dualcast.publishing.requests import (
    MAX_TARGETS,
    MAX_TTL_S,
    AudienceRequest,
    NotificationRequest,
    PublishRequest,
)
from dualcast.publishing.requests import (
    Request as Publication,
)

PRIORITIES = ("low", "normal", "high", "urgent")
ANONYMOUS = ""
"""The user id of anonymous `topics` connections."""

_encode = msgspec.json.Encoder().encode
_request = msgspec.json.Decoder(NotificationRequest)
Body = Mapping[str, Any]


# ── bodies ──


def rooms_notification(body: Body, now_s: float | None = None) -> dict[str, Any]:
    """Members of a NotificationRequest (all but `to`) from a notification as `rooms` says it (section 4.4).
    `now_s`: Unix seconds. Raises Invalid."""
    rest = dict(body)
    extra: dict[str, Any] = {}
    level = rest.pop("type", None)
    level = _or(rest.pop("notification_type", None), level)
    asked = {
        "title": rest.pop("title", None),
        "content": rest.pop("message", None),
        "type": _or(rest.pop("category", None), "system"),
        "level": _one_of(level, LEVELS, "notification_type", extra),
        "priority": _one_of(rest.pop("priority", None), PRIORITIES, "priority", extra),
        "link": rest.pop("action_url", None) or None,
        "data": rest.pop("action_data", None),
        "id": rest.pop("id", None),
        "created_at": rest.pop("created_at", None),
    }
    expires = rest.pop("expires_at", None)
    if expires is not None:
        text = to_utc(expires) if isinstance(expires, str) else None
        if text is None:
            raise invalid("$.expires_at", "must be a date and time of RFC 3339")
        left_s = math.ceil(datetime.fromisoformat(text).timestamp() - (now_s or time.time()))
        if left_s <= MAX_TTL_S:
            asked["ttl_s"] = max(1, left_s)
        extra["expires_at"] = text
    return _asked(asked, "rooms", extra | rest)


def topics_notification(body: Body) -> dict[str, Any]:
    """The same from a notification as `topics` says it (section 5.5). Raises Invalid."""
    rest = dict(body)
    extra: dict[str, Any] = {}
    asked = {
        "title": rest.pop("title", None),
        "content": rest.pop("content", None),
        "level": _one_of(rest.pop("level", None), LEVELS, "level", extra),
        "data": rest.pop("data", None),
        "id": rest.pop("id", None),
        "created_at": rest.pop("timestamp", None),
    }
    return _asked(asked, "topics", extra | rest)


def _asked(asked: dict[str, Any], contract: str, extra: dict[str, Any]) -> dict[str, Any]:
    title = asked["title"]
    if not isinstance(title, str) or not title.strip():
        raise invalid("$.title", "a notification has a title")
    if isinstance(asked["id"], int):
        asked["id"] = str(asked["id"])
    if extra:
        asked["extra"] = {contract: extra}
    return {key: value for key, value in asked.items() if value is not None}


def _one_of(value: object, known: Sequence[str], key: str, extra: dict[str, Any]) -> str | None:
    """`value` if it is known; None: the default. One that is not known stays a key of its own contract."""
    if value is None or value == "":
        return None
    if value in known:
        return str(value)
    extra[key] = value
    return None


def _or(value: object, otherwise: object) -> object:
    return otherwise if value is None or value == "" else value


def split(body: Body, key: str) -> tuple[dict[str, Any], list[str] | None]:
    """What a body publishes, and the users it is for (None: all). The object stands under `key`, or is the
    body itself without `target_users`. Raises Invalid."""
    inner = body.get(key)
    if not isinstance(inner, dict):
        inner = {name: value for name, value in body.items() if name != "target_users"}
    return inner, targets(body.get("target_users"))


def targets(named: object) -> list[str] | None:
    """User ids, each once (an integer is taken as text); None: all; []: nobody. Raises Invalid."""
    if named is None:
        return None
    if not isinstance(named, list):
        raise invalid("$.target_users", "a list of user ids, or null for all")
    users: dict[str, None] = {}
    for number, user in enumerate(named):
        if isinstance(user, bool) or not isinstance(user, str | int) or user == "":
            raise invalid(f"$.target_users[{number}]", "a user id is a non-empty text")
        users[str(user)] = None
    return list(users)


# ── publishing ──


async def notify(
    services: Services,
    caller: Principal,
    asked: Mapping[str, Any],
    users: Sequence[str] | None,
    key: str = "",
) -> None:
    """Publishes a notification to `users` (None: to all, in nobody's inbox; (): to nobody). `key`: of the
    Idempotency-Key header. Raises what `Publisher.publish` raises."""

    def to(target: dict[str, Any], **more: Any) -> Publication:
        return decode(_encode({**asked, **more, "to": target}), _request)

    if users is None:
        await services.publisher.publish(caller, to({"all": True}, store=False), idempotency_key=key)
        return
    if not users:
        to({"all": True}, store=False)  # checked all the same
        return
    await _in_parts(services, caller, users, lambda part: to({"users": part}), key)


async def tell(
    services: Services,
    caller: Principal,
    event: str,
    data: object,
    users: Sequence[str] | None,
    key: str = "",
    *,
    authenticated_only: bool = False,
) -> None:
    """Publishes `data` as event `event` to `users` (None: to all; (): to nobody)."""
    raw = Raw(_encode(data))
    if users is None:
        audience = AudienceRequest(exclude_users=[ANONYMOUS]) if authenticated_only else None
        request = PublishRequest(channel="all", type=event, data=raw, audience=audience)
        await services.publisher.publish(caller, request, idempotency_key=key)
        return

    def to(part: list[str]) -> Publication:
        return PublishRequest(channels=["user:" + user for user in part], type=event, data=raw)

    await _in_parts(services, caller, users, to, key)


async def _in_parts(
    services: Services,
    caller: Principal,
    users: Sequence[str],
    to: Callable[[list[str]], Publication],
    key: str,
) -> None:
    """As many users as one publication may have at a time; nobody is in two parts."""
    for start in range(0, len(users), MAX_TARGETS):
        part_key = f"{key}.{start}" if key and start else key
        request = to(list(users[start : start + MAX_TARGETS]))
        if start:
            # One id names one publication; the parts beyond the first have their own.
            request = msgspec.structs.replace(request, id=None)
        await services.publisher.publish(caller, request, idempotency_key=part_key)


# ── refusals ──


def refusals(unauthorized: str, forbidden: str) -> dict[Any, Any]:
    """Litestar exception handlers that say 401 and 403 in the words older clients know, in the form of
    section 1.3; `code` and `retryable` are added, as in every problem of ours."""

    def handler(request: Request[Any, Any, Any], error: Exception) -> Response[bytes]:
        if isinstance(error, Unauthorized):
            error = Unauthorized(unauthorized, code=error.code)
        elif isinstance(error, Forbidden) and forbidden:
            error = Forbidden(forbidden, code=error.code)
        answer = exception_handler(request, error)
        told = msgspec.json.decode(answer.content)
        told |= {"type": "about:blank", "title": HTTPStatus(told["status"]).phrase}
        answer.content = _encode(told)
        return answer

    return {Exception: handler}
