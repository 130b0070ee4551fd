"""Values in hashes of the older queue: bytes somebody else wrote, read as far as they make sense."""

from __future__ import annotations

import math
from datetime import UTC, datetime
from typing import Any

import msgspec

from dualcast.model.nesting import nests_deeper

from .model import MAX_DEPTH, MAX_MESSAGE, MAX_NUMBER, MAX_VALUE_BYTES

_NONE = frozenset({"", "None", "null"})


def text(raw: bytes | None) -> str:
    """At most MAX_MESSAGE characters; "" for nothing, None and null."""
    found = (raw or b"").decode("utf-8", "replace")[:MAX_MESSAGE]
    return "" if found in _NONE else found


def number(raw: bytes | None) -> int:
    """A count; 0 when it is none."""
    found = text(raw)
    return min(int(found), MAX_NUMBER) if found.isascii() and found.isdecimal() and len(found) < 17 else 0


def time_ms(raw: bytes | None) -> int:
    """Unix seconds (text of a number) or ISO 8601 (without an offset: UTC) as Unix milliseconds; 0 when it is
    neither."""
    found = text(raw)
    try:
        seconds = float(found)
    except ValueError:
        try:
            when = datetime.fromisoformat(found)
        except ValueError:
            return 0
        seconds = (when if when.tzinfo else when.replace(tzinfo=UTC)).timestamp()
    return int(seconds * 1000) if math.isfinite(seconds) and 0 <= seconds < 1e11 else 0


def value(raw: bytes | None) -> Any:
    """A result: JSON where it is, text where it is not; None when there is none, or it is too large or too
    deep to be shown."""
    if raw is None or len(raw) > MAX_VALUE_BYTES or text(raw) == "":
        return None
    try:
        found = msgspec.json.decode(raw)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return text(raw)
    return found if not nests_deeper(found, MAX_DEPTH) else None
