"""How a WebSocket ended."""

from __future__ import annotations

from typing import Any

from dualcast.model.codes import Close

ABNORMAL = frozenset(
    {
        1002,
        1003,
        1006,
        1007,
        1009,
        1010,
        1011,
        1015,
        Close.FRAME_TOO_BIG,
        Close.INTERNAL,
        Close.LAGGING,
        Close.PROTOCOL_ERROR,
        Close.STALE,
    }
)
"""Codes of RFC 6455 section 7.4.1 and of ours that say that something went wrong."""


def ended_abnormally(session: Any) -> bool:
    """Whether a WebSocket session ended without a close frame (`ended` 0, none said), silent, or for a
    violation."""
    if session.ended:
        return session.ended in ABNORMAL
    return not session.said_close
