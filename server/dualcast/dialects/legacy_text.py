"""Text that all contracts share: canonical JSON, SSE blocks, and times as section 1.5 wants them. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec

from dualcast.model.channel import check_id
from dualcast.model.errors import BadChannel
from dualcast.model.publication import Entry
from dualcast.model.times import to_utc, utc_text

TIME_KEYS = frozenset({"timestamp", "created_at", "expires_at", "started_at", "completed_at", "connected_at"})
"""Keys whose text is a time (section 1.5)."""

_members = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode
canonical = msgspec.json.Encoder().encode
"""Any value as compact JSON, raw UTF-8, keys in the order they were put in. `msgspec.Raw` is spliced as it
is."""


def contract_times(found: Mapping[str, Any]) -> dict[str, Any]:
    """`found` with the times of its own members (TIME_KEYS) in UTC with `Z`: text without an offset is taken
    as UTC, another offset is converted. What is no time, or no text, stays as it is. Values may be
    `msgspec.Raw`; nested objects are the publisher's and are left alone."""
    return {key: _utc(value) if key in TIME_KEYS else value for key, value in found.items()}


def _utc(value: Any) -> Any:
    if isinstance(value, msgspec.Raw):
        text = bytes(value)
        if not text.startswith(b'"'):
            return value
        said = msgspec.json.decode(text)
        return to_utc(said) or said
    return to_utc(value) or value if isinstance(value, str) else value


def with_utc_times(raw: msgspec.Raw) -> msgspec.Raw | dict[str, Any]:
    """A JSON object with its times rewritten; anything else as it is."""
    if not bytes(raw).startswith(b"{"):
        return raw
    members = _members(raw)
    return raw if TIME_KEYS.isdisjoint(members) else contract_times(members)


def frame_time(said: msgspec.Raw | None, time_ms: int) -> Any:
    """The `timestamp` of a frame: the publisher's own where it is one (a number is kept), else the time of
    the publication; `now` and the like are none (R31). To be followed by `contract_times`."""
    value = None if said is None else msgspec.json.decode(said)
    if value is None or (isinstance(value, str) and to_utc(value) is None):
        return utc_text(time_ms)
    return said


def chosen_id(text: str, limit: int) -> str:
    """An id that a client chose, of at most `limit` characters; "" when it cannot be one."""
    try:
        return check_id(text) if len(text) <= limit else ""
    except BadChannel:
        return ""


def cursor_of(entry: Entry) -> str:
    """The cursor for the `id:` line of a publication; "" for an ephemeral one, which cannot be resumed
    from. A publication of several blocks has it on the last: what was cut off before it comes again."""
    return f"{entry.publication.epoch}-{entry.offset}" if entry.offset else ""


def sse_block(event: str, data: bytes, *, cursor: str = "", retry_ms: int | None = None) -> bytes:
    """One event: `id:` (with a cursor), `event:`, one `data:` line, `retry:` (with a delay), blank line.
    `data`: JSON without line ends."""
    head = f"id: {cursor}\nevent: {event}\n" if cursor else f"event: {event}\n"
    tail = "\n\n" if retry_ms is None else f"\nretry: {retry_ms}\n\n"
    return b"%bdata: %b%b" % (head.encode(), data, tail.encode())
