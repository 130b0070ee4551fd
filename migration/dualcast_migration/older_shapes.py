"""What older backends put on their names, and how it is said in dualcast's words. Pure.

In: payloads (contract sections 3.1, 3.4, 6.6). Out: values, publication data and frames; times in UTC with
`Z` (section 1.5).
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import msgspec
from msgspec import Struct

from dualcast.model.channel import check_id
from dualcast.model.errors import BadChannel
from dualcast.model.nesting import nests_deeper
from dualcast.model.times import to_utc, utc_text

from .legacy_redis import BROADCAST, INSTANCE, NOTIFICATIONS, PRESENCE, PROGRESS

MAX_TITLE = 512
MAX_TEXT = 16_384
MAX_LINE = 2_048
MAX_KIND_BYTES = 128
MAX_MESSAGE = 4_096
MAX_VALUE_BYTES = 16 * 1024
MAX_STEPS = 2**53 - 1
MAX_DEPTH = 60
"""A little less than what publishers may: a frame is put around it."""
TIMES = ("timestamp", "created_at", "expires_at", "started_at", "completed_at", "connected_at")
ENDS = {"completed": "completed", "failed": "failed", "cancelled": "cancelled"}
SUCCESS, FAILURE = "🎉 任务成功完成", "❌ 任务失败"
TYPING = "typing_status"
_ID = re.compile(r"[\x21-\x7e]{1,128}\Z")
_CONTROL = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029]")
_decode = msgspec.json.Decoder(dict[str, Any]).decode
encode = msgspec.json.Encoder().encode


class Unreadable(Exception):
    """The payload is not what its channel carries."""


class Notification(Struct, frozen=True):
    """Of `notifications:{user}`. `id` "": it has none that could be one."""

    user: str
    id: str
    fields: Mapping[str, Any]


class Progress(Struct, frozen=True):
    """Of `task_progress:{task}`. `state`: `processing`, or how the task ended."""

    task: str
    state: str
    message: str | None = None
    step: int | None = None
    total_steps: int | None = None
    percent: float | None = None
    result: Any = None
    error: str | None = None


class Broadcast(Struct, frozen=True):
    """Of `ws:broadcast`: a frame of the contract `conversations`, for one connection (of `user`, where both
    are given), or one user."""

    user: str
    connection: str
    device: str
    payload: dict[str, Any]
    timestamp: str


class Presence(Struct, frozen=True):
    """Of `ws:presence`: a user of another backend's instance."""

    user: str
    instance: str
    online: bool


Message = Notification | Progress | Broadcast | Presence


def read(channel: str, payload: bytes) -> Message | None:
    """What a message says; None: dualcast itself or a device says it. Raises Unreadable."""
    try:
        said = _decode(payload)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        raise Unreadable("it is not a JSON object") from None
    if nests_deeper(said, MAX_DEPTH - 1):
        raise Unreadable("it nests too deep")
    if channel.startswith(NOTIFICATIONS):
        return _notification(_id(channel[len(NOTIFICATIONS) :]), said)
    if channel.startswith(PROGRESS):
        return _progress(_id(channel[len(PROGRESS) :]), said)
    instance = said.get("instance_id")
    if isinstance(instance, str) and instance.startswith(INSTANCE):
        return None
    if channel == BROADCAST:
        return _broadcast(said)
    if channel == PRESENCE:
        kind = said.get("event_type")
        if kind not in ("user_online", "user_offline"):
            return None
        return Presence(_id(said.get("user_id")), str(instance or "")[:128], kind == "user_online")
    return None


# ── notifications ──


def _notification(user: str, said: Mapping[str, Any]) -> Notification:
    ident = said.get("id")
    ident = str(ident) if isinstance(ident, int) and not isinstance(ident, bool) else ident
    return Notification(user, ident if isinstance(ident, str) and _ID.match(ident) else "", said)


def notification_data(found: Notification, ident: str, now_ms: int) -> tuple[bytes, str]:
    """Publication data of event type `notification` (`publishing.notification.Notification`), and its kind.
    A missing title or type is filled (section 3.7)."""
    said = found.fields
    kind = _line(said.get("type"), MAX_KIND_BYTES) or "system"
    if len(kind.encode()) > MAX_KIND_BYTES:
        kind = "system"
    data: dict[str, Any] = {
        "id": ident,
        "type": kind,
        "title": _line(said.get("title"), MAX_TITLE) or "Notification",
        "content": _text(said.get("content"), MAX_TEXT),
        "link": _line(said.get("link"), MAX_LINE) or None,
        "level": "info",
        "source": _line(said.get("source"), 128) or None,
        "priority": "normal",
        "status": "read" if said.get("status") == "read" else "unread",
        "created_at": _time(said.get("created_at")) or utc_text(now_ms),
        "expires_at": None,
        "data": {},
    }
    return encode(data), kind


EIGHT = ("id", "type", "title", "content", "link", "source", "status", "created_at")


def eight_keys(data: bytes) -> bytes:
    """A notification's publication data as older backends say it."""
    said = _decode(data)
    return encode({key: said.get(key) for key in EIGHT})


# ── progress ──


def _progress(task: str, said: Mapping[str, Any]) -> Progress:
    message = _text(said.get("message"), MAX_MESSAGE)
    state = ENDS.get(str(said.get("status")), "processing")
    if state == "processing" and message is not None:
        if message.startswith(SUCCESS):
            state = "completed"
        elif message.startswith(FAILURE):
            state = "failed"
    step, total = _count(said.get("step")), _count(said.get("total_steps"))
    if step is not None and total is not None and step > total:
        step = total = None
    percent = said.get("progress")
    good = isinstance(percent, int | float) and not isinstance(percent, bool) and 0 <= percent <= 100
    result = said.get("result") if state == "completed" else None
    if result is not None and len(encode(result)) > MAX_VALUE_BYTES:
        result = None
    failed = state in ("failed", "cancelled")
    return Progress(
        task,
        state,
        message,
        step,
        total,
        float(percent) if good and percent is not None else None,
        result,
        (_text(said.get("error"), MAX_MESSAGE) or message) if failed else None,
    )


def task_data(found: Progress, owner: str, sequence: int, now_ms: int) -> bytes:
    """Publication data of event type `task` (`tasks.model.Task`), as far as one message tells it."""
    ended = found.state != "processing"
    step, total, percent = found.step, found.total_steps, found.percent
    if percent is None and step is not None and total:
        percent = round(step / total * 100, 1)
    return encode(
        {
            "id": found.task,
            "owner": owner,
            "state": found.state,
            "step": step,
            "total_steps": total,
            "percent": 100.0 if found.state == "completed" else percent,
            "message": found.message or "",
            "result": found.result,
            "error": found.error or "",
            "sequence": sequence,
            "updated_ms": now_ms,
            "completed_ms": now_ms if ended else None,
            "revision": sequence,
        }
    )


def progress_data(task: Mapping[str, Any]) -> bytes:
    """A task's publication data as older backends say it (section 3.4)."""
    found: dict[str, Any] = {
        "task_id": task["id"],
        "message": task["message"],
        "timestamp": utc_text(task["updated_ms"]),
    }
    step, total = task["step"], task["total_steps"]
    if step is not None and total:
        found |= {"step": step, "total_steps": total, "progress": round(step / total * 100, 1)}
    if task["state"] == "completed":
        found |= {"status": "completed", "result": task["result"]}
    elif task["state"] in ENDS:
        found |= {"status": task["state"], "error": task["error"] or task["message"]}
    return encode(found)


# ── conversations ──


def _broadcast(said: Mapping[str, Any]) -> Broadcast:
    payload = said.get("payload")
    if not isinstance(payload, dict):
        raise Unreadable("payload is not an object")
    connection, user, device = (
        said.get(key) or "" for key in ("target_connection_id", "target_user_id", "target_device_type")
    )
    if isinstance(user, int) and not isinstance(user, bool):
        user = str(user)
    if connection:
        whose = _id(user) if user else ""
        return Broadcast(whose, _id(connection), "", payload, _time(said.get("timestamp")) or "")
    return Broadcast(
        _id(user), "", device if isinstance(device, str) else "", payload, _time(said.get("timestamp")) or ""
    )


def frame(found: Broadcast, now_ms: int) -> tuple[str, bytes]:
    """The name and the frame of a broadcast: with `event`, `action`, `event_type`, `data` and a proper
    `timestamp` (section 6.6). Raises Unreadable when nothing names it."""
    rest = {key: _utc(key, value) for key, value in found.payload.items()}
    names = [rest.pop(key, None) for key in ("event", "action", "event_type")]
    given = [name for name in names if isinstance(name, str) and name]
    kind = rest.get("type")
    if not given:
        if not isinstance(kind, str) or not kind:
            raise Unreadable("nothing names the frame")
        given = [kind]
    event, action, event_type = (name if isinstance(name, str) and name else "" for name in names)
    name = event or action or event_type or given[0]
    if name == "typing_update":
        name = TYPING
    data = rest.pop("data", None)
    if isinstance(data, dict):
        data = {key: _utc(key, value) for key, value in data.items()}
    time = _time(rest.pop("timestamp", None)) or found.timestamp or utc_text(now_ms)
    typing = name == TYPING
    body = {
        "event": event or name,
        "action": action or name,
        "event_type": event_type or ("typing_update" if typing else name),
        "data": {} if data is None else data,
        **rest,
        "timestamp": time,
    }
    return name, encode(body)


# ── pieces ──


def _id(value: Any) -> str:
    """`value` if it is an id. Raises Unreadable."""
    try:
        return check_id(str(value) if isinstance(value, int) else value)
    except (BadChannel, AttributeError, TypeError):
        raise Unreadable("its id is none") from None


def _text(value: Any, limit: int) -> str | None:
    if value is None or isinstance(value, str):
        return value[:limit] if value else value
    return encode(value).decode()[:limit]


def _line(value: Any, limit: int) -> str:
    return _CONTROL.sub(" ", value).strip()[:limit] if isinstance(value, str) else ""


def _time(value: Any) -> str | None:
    return to_utc(value) if isinstance(value, str) else None


def _utc(key: str, value: Any) -> Any:
    return (_time(value) or value) if key in TIMES else value


def _count(value: Any) -> int | None:
    whole = isinstance(value, int) and not isinstance(value, bool)
    return value if whole and 0 <= value <= MAX_STEPS else None
