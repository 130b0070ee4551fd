"""What every frame of the contract `notifications` is made of (section 3)."""

from __future__ import annotations

from typing import Any

from dualcast.model.publication import Entry
from dualcast.model.times import utc_text

from .legacy import Facts, LegacySettings
from .legacy_text import canonical, cursor_of, sse_block

DIALECT = "notifications"
HEARTBEAT_S = 30.0
"""Of both sockets and the notification stream, when no setting says otherwise."""
RETRY_MS = 300_000
"""In `finished` and `replaced`: keeps an `EventSource` that is not closed from coming back every three
seconds."""


def frame(kind: str, data: Any) -> bytes:
    """One socket message: `{"type":…,"data":…}`."""
    return b'{"type":"%b","data":%b}' % (kind.encode(), canonical(data))


def block(event: str, data: Any, cursor: str = "", *, retry: bool = False) -> bytes:
    """One SSE block. `cursor` "": without `id:`."""
    return sse_block(event, canonical(data), cursor=cursor, retry_ms=RETRY_MS if retry else None)


def stream_id(entry: Entry, settings: LegacySettings) -> str:
    """The cursor for the `id:` line, "" when there is none to have (section 1.6)."""
    return cursor_of(entry) if settings.stream_ids else ""


def replaced(limit: int) -> bytes:
    """The last block of a stream whose place a newer one takes."""
    return block("replaced", {"reason": "connection limit", "limit": limit}, retry=True)


def socket_beat(facts: Facts) -> bytes:
    """The heartbeat of both sockets."""
    return frame("heartbeat", {"timestamp": utc_text(facts.now_ms)})
