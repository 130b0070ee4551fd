"""Times as the contracts write them: UTC, RFC 3339, microseconds, `Z` (contract section 1.5)."""

from __future__ import annotations

import re
from datetime import UTC, datetime
from functools import lru_cache
from time import gmtime, strftime

_DATE_AND_TIME = re.compile(r"\d{4}-\d\d-\d\d[Tt ]\d\d:\d\d")


@lru_cache(64)
def utc_text(time_ms: int) -> str:
    """Unix milliseconds as the contract's time text (section 1.5)."""
    seconds, ms = divmod(time_ms, 1000)
    return f"{_second_text(seconds)}.{ms:03d}000Z"


@lru_cache(256)
def _second_text(seconds: int) -> str:
    return strftime("%Y-%m-%dT%H:%M:%S", gmtime(seconds))


def to_utc(text: str) -> str | None:
    """Somebody else's time text (ISO 8601, any offset; none is taken as UTC) in the contract's form; None: it
    is none."""
    if not _DATE_AND_TIME.match(text):
        return None
    try:
        moment = datetime.fromisoformat(text)
        moment = moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment.astimezone(UTC)
    except (ValueError, OverflowError):
        return None
    return moment.isoformat(timespec="microseconds").replace("+00:00", "Z")
