"""What every engine of the store checks before it writes, so that all engines refuse the same things."""

from __future__ import annotations

import re

from dualcast.model.errors import BadRequest, LimitExceeded

MAX_VALUE_BYTES = 96 * 1024
MAX_KEY_BYTES = 1280
"""Enough for a tenant and the longest channel: grants are kept under both."""
LOG_SIZE = 4096
"""Keys the change log names. A key written twice stands in it once, at its last revision, so the log reaches
back over at least this many writes."""
MIN_LOG_SIZE = 1000
_SPACE = re.compile(r"[a-z][a-z0-9-]{0,31}\Z")


def check_name(space: str, key: str) -> None:
    """Raises BadRequest unless `space` is a short word and `key` UTF-8 of 1 to MAX_KEY_BYTES without NUL."""
    if not _SPACE.match(space):
        raise BadRequest("a state space is 1 to 32 characters of a-z, 0-9 and '-'", code="bad-key")
    try:
        size = len(key.encode())
    except UnicodeEncodeError:
        raise BadRequest("a state key must be valid UTF-8", code="bad-key") from None
    if not 1 <= size <= MAX_KEY_BYTES or "\0" in key:
        raise BadRequest(f"a state key has 1 to {MAX_KEY_BYTES} bytes and no NUL", code="bad-key")


def check_write(space: str, key: str, data: bytes, ttl_s: float | None) -> None:
    """`check_name`, and LimitExceeded for a value above MAX_VALUE_BYTES; a lifetime must be positive."""
    check_name(space, key)
    if len(data) > MAX_VALUE_BYTES:
        raise LimitExceeded(f"a stored value has at most {MAX_VALUE_BYTES} bytes", code="value-too-big")
    if ttl_s is not None and not ttl_s > 0:
        raise BadRequest("a lifetime must be positive", code="bad-ttl")


def check_log_size(log_size: int) -> int:
    """`log_size`, if it keeps the port's promise of 1,000 changes; raises ValueError otherwise."""
    if log_size < MIN_LOG_SIZE:
        raise ValueError(f"the change log keeps at least {MIN_LOG_SIZE} changes")
    return log_size
