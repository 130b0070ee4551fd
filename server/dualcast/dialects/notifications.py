"""The contract `notifications` (docs/contracts/legacy-wire.md section 3): a user's notifications over
WebSocket and SSE. Tasks and batches are in `notifications_tasks`.

In: publications of type `notification` on `user:<id>` and `all`. Out: exactly the eight keys of section 3.1.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Any

import msgspec

from dualcast.model.publication import Entry
from dualcast.model.times import utc_text

from .legacy import Admission, Endpoint, Facts, LegacySettings, Opening
from .legacy_notification import EVENT, for_notifications, parse
from .legacy_text import canonical
from .notifications_base import DIALECT, HEARTBEAT_S, block, frame, replaced, socket_beat, stream_id
from .notifications_tasks import task_endpoints

STREAM = "notifications"
"""Sockets and streams of a user count together (section 1.7)."""


def shown(record: bytes) -> dict[str, Any]:
    """The eight keys of a canonical notification (JSON). Raises msgspec.DecodeError when it is none."""
    found = for_notifications(parse(record))
    # Clients drop a notification without them (section 3.7).
    found["title"] = found["title"] or "Notification"
    found["type"] = found["type"] or "system"
    return found


def endpoints(settings: LegacySettings, clock: Callable[[], float] = time.monotonic) -> Sequence[Endpoint]:
    """The six sockets and streams. `clock`: monotonic seconds, shown in the streams' heartbeats."""
    beat_s = HEARTBEAT_S if settings.ws_heartbeat_s is None else settings.ws_heartbeat_s

    def admit(facts: Facts) -> Admission:
        return Admission(channels=("all",), stream=STREAM)

    def socket_first(facts: Facts, opening: Opening) -> Sequence[bytes]:
        data = {
            "user_id": facts.user,
            "timestamp": utc_text(facts.now_ms),
            "message": "WebSocket 连接成功",
        }
        return (frame("connected", data),)

    def stream_first(facts: Facts, opening: Opening) -> Sequence[bytes]:
        return (block("connected", {"channel": "notifications:" + facts.user}),)

    def stream_notification(entry: Entry) -> bytes:
        found = _of(entry)
        return b"" if found is None else block("notification", found, stream_id(entry, settings))

    def stream_beat(facts: Facts) -> bytes:
        return block("heartbeat", {"ts": round(clock(), 3)})

    return (
        Endpoint(
            dialect=DIALECT,
            path="/api/ws/notifications",
            transport="ws",
            admit=admit,
            encode=socket_notification,
            everywhere=True,
            first=socket_first,
            heartbeat=socket_beat,
            heartbeat_s=beat_s,
            heartbeat_always=True,
        ),
        Endpoint(
            dialect=DIALECT,
            path="/api/notifications/stream",
            transport="sse",
            admit=admit,
            encode=stream_notification,
            everywhere=True,
            first=stream_first,
            heartbeat=stream_beat,
            heartbeat_s=beat_s,
            heartbeat_always=True,
            replaced=replaced,
            view="notifications",
        ),
        *task_endpoints(settings, beat_s, clock),
    )


def socket_notification(entry: Entry) -> bytes:
    """`{"type":"notification","data":{…}}`, or b"" when the publication is no notification."""
    found = _of(entry)
    return b"" if found is None else frame("notification", found)


def stored(record: bytes, status: str) -> bytes:
    """A notification of the inbox as JSON: the eight keys, `status` as it is now. Raises
    msgspec.DecodeError."""
    return canonical({**shown(record), "status": status})


def _of(entry: Entry) -> dict[str, Any] | None:
    publication = entry.publication
    if publication.type != EVENT:
        return None
    try:
        return shown(publication.data)
    except msgspec.DecodeError:
        return None
