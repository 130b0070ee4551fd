"""Times as the contracts write them: UTC, RFC 3339, microseconds, `Z` (contract section 1.5)."""

from __future__ import annotations

from functools import lru_cache
from time import gmtime, strftime


@lru_cache(64)
def utc_text(time_ms: int) -> str:
    """Unix milliseconds as the contract's time text (section 1.5)."""
    seconds, ms = divmod(time_ms, 1000)
    return f"{_second_text(seconds)}.{ms:03d}000Z"


@lru_cache(256)
def _second_text(seconds: int) -> str:
    return strftime("%Y-%m-%dT%H:%M:%S", gmtime(seconds))
