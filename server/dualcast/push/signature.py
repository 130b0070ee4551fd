"""Signatures of webhook calls: HMAC-SHA256 (RFC 2104) over `<timestamp>.<body>`.

Only the standard library is used: a receiver in Python may copy this module.
"""

from __future__ import annotations

import hashlib
import hmac
import re

VERSION = "v1"
TOLERANCE_S = 300
_TIMESTAMP = re.compile(r"[0-9]{1,12}\Z")


def sign(secret: bytes, timestamp: int, body: bytes) -> str:
    """The value of `X-Dualcast-Signature`. `timestamp`: Unix seconds, that of `X-Dualcast-Timestamp`."""
    digest = hmac.new(secret, b"%d.%s" % (timestamp, body), hashlib.sha256).hexdigest()
    return f"{VERSION}={digest}"


def verify(
    secret: bytes, timestamp: str, signature: str, body: bytes, *, now: float, tolerance_s: int = TOLERANCE_S
) -> bool:
    """Whether the call is from whoever has `secret`, and not older (or newer) than `tolerance_s`.

    `timestamp`, `signature`: the header fields as they came. `body`: the bytes as they came, before any
    parsing. `now`: Unix seconds.
    """
    if not _TIMESTAMP.match(timestamp) or abs(now - int(timestamp)) > tolerance_s:
        return False
    expected = sign(secret, int(timestamp), body)
    return hmac.compare_digest(expected.encode(), signature.encode("utf-8", "replace"))
