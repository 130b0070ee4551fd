"""What was published to a topic, completed (contract section 5.2): every frame has `type`, `topic` and
`timestamp`, and an import's progress all of its 13 keys."""

from __future__ import annotations

from typing import Any

import msgspec
from msgspec import Raw

from dualcast.model.times import to_utc

from .legacy_text import canonical, contract_times, frame_time, with_utc_times

IMPORT_PROGRESS = "import_progress"
FRONT = ("task_id", "wallet_address")
"""Keys that stand between `type` and `topic`."""
COUNTS = ("total", "processed", "success", "failed", "skipped")

_decode = msgspec.json.Decoder().decode
_members = msgspec.json.Decoder(dict[str, Raw]).decode


def topic_frame(channel: str, data: bytes, time_ms: int) -> bytes:
    """The frame of a message. `channel`: the one it came by; who follows the topic and is a target user
    besides gets one copy, by either, so a message to both says its `topic` itself. `data`: the JSON it was
    published as; what is no object becomes the `data` of one. `time_ms`: its publication."""
    message: dict[str, Any] = dict(_members(data)) if data.startswith(b"{") else {"data": Raw(data)}
    said = _text(message.pop("topic", None))
    topic = channel.removeprefix("topic:") if channel.startswith("topic:") else said or channel
    kind = _text(message.pop("type", None)) or "message"
    frame: dict[str, Any] = {"type": kind}
    if kind == IMPORT_PROGRESS:
        task = _text(message.get("task_id")) or topic.removeprefix("import:")
        frame["task_id"] = task
        message.pop("task_id", None)
        message["data"] = import_progress(message.get("data"), task)
    elif "data" in message:
        message["data"] = with_utc_times(message["data"])
    for key in FRONT:
        if key in message:
            frame[key] = message.pop(key)
    frame["topic"] = topic
    said_time = message.pop("timestamp", None)
    frame |= message
    frame["timestamp"] = frame_time(said_time, time_ms)
    frame = contract_times(frame)
    return canonical(frame)


def import_progress(given: Raw | None, task: str) -> dict[str, Any]:
    """`data` of an `import_progress` frame: always the 13 keys, in order, then any others of the publisher.
    `progress` is computed from `processed` and `total` when it is missing."""
    own: dict[str, Any] = {}
    if given is not None:
        found = _decode(given)
        if isinstance(found, dict):
            own = contract_times(found)
        elif found is not None:
            own = {"value": found}
    data: dict[str, Any] = {
        "task_id": _or(own.get("task_id"), task),
        "status": _or(own.get("status"), "processing"),
    }
    for key in COUNTS:
        data[key] = _or(own.get(key), 0)
    data["progress"] = _or(own.get("progress"), _percent(data["processed"], data["total"]))
    data["elapsed_time"] = own.get("elapsed_time")
    data["eta"] = own.get("eta")
    for key in ("created_at", "started_at", "completed_at"):
        time = own.get(key)
        data[key] = None if isinstance(time, str) and to_utc(time) is None else time
    for key, value in own.items():
        data.setdefault(key, value)
    return data


def _percent(processed: object, total: object) -> float:
    if not isinstance(processed, int | float) or not isinstance(total, int | float) or total <= 0:
        return 0.0
    try:
        return round(processed / total * 100, 2)
    except OverflowError:  # integers of any size are JSON
        return 0.0


def _or(value: object, otherwise: object) -> object:
    return otherwise if value is None else value


def _text(value: Raw | None) -> str:
    """A non-empty text, or a number as text; "" for anything else."""
    found = None if value is None else _decode(value)
    if isinstance(found, bool) or not isinstance(found, str | int):
        return ""
    return str(found)
