"""The four stages of a tenant's way from SSE to WebSocket, and the moves between them."""

from __future__ import annotations

from enum import Enum

from dualcast.model.errors import DualcastError


class IllegalMove(DualcastError):
    """The stage cannot be reached from the present one in one move."""

    code = "illegal-stage-move"
    status = 409


class Stage(Enum):
    """In order. Not a `str`: strings would compare by alphabet; use `rank`."""

    SSE = "sse"
    """SSE only; WebSocket connects are refused."""
    SHADOW = "shadow"
    """Both receive, SSE stays the truth, the pair is compared."""
    FALLBACK = "fallback"
    """WebSocket first; SSE is the fallback."""
    WEBSOCKET = "websocket"
    """As fallback until the sunset date, then WebSocket only."""

    def __str__(self) -> str:
        return self.value

    @property
    def rank(self) -> int:
        """0 for the first stage."""
        return _ORDER.index(self)

    @property
    def previous(self) -> Stage:
        """The stage before this one; the first stage is its own."""
        return _ORDER[max(0, self.rank - 1)]


_ORDER = (Stage.SSE, Stage.SHADOW, Stage.FALLBACK, Stage.WEBSOCKET)
DEFAULT_STAGE = Stage.FALLBACK


def may_move(now: Stage, to: Stage) -> bool:
    """Whether one move leads from `now` to `to`: one stage on, or back to any earlier one. Staying is always
    legal."""
    return to.rank <= now.rank + 1


def check_move(now: Stage, to: Stage) -> None:
    """Raises IllegalMove unless `may_move(now, to)`."""
    if not may_move(now, to):
        raise IllegalMove(f"a tenant moves on one stage at a time: from {now} not straight to {to}")
