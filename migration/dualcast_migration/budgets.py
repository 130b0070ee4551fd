"""How much may go wrong in a stage before the guard steps a tenant back: frozen settings of one tenant."""

from __future__ import annotations

from math import inf
from typing import Annotated

from msgspec import Meta, Struct

MAX_WINDOW_S = 3_600
MAX_HOLD_OFF_S = 7 * 86_400

Share = Annotated[float, Meta(ge=0, le=100)]
Count = Annotated[int, Meta(ge=0)]

_RANGES: dict[str, tuple[float, float]] = {
    "websocket_open_failure_percent": (0, 100),
    "abnormal_close_percent": (0, 100),
    "parity_mismatches": (0, 2**53),
    "reconnects_per_user": (0, 1e9),
    "lag_p99_ms": (1, 2**53),
    "window_s": (1, MAX_WINDOW_S),
    "min_samples": (1, 1_000_000),
    "hold_off_s": (0, MAX_HOLD_OFF_S),
}
_OPTIONAL = frozenset(
    {
        "websocket_open_failure_percent",
        "abnormal_close_percent",
        "parity_mismatches",
        "reconnects_per_user",
        "lag_p99_ms",
    }
)


class Budgets(Struct, frozen=True, forbid_unknown_fields=True):
    """A budget is broken when what was measured over the window is *above* it; None switches it off.

    Raises ValueError (in decoding: ValidationError) naming the field that is out of range.
    """

    websocket_open_failure_percent: Share | None = 5.0
    """Of the attempts to open a WebSocket, those that failed."""
    abnormal_close_percent: Share | None = 10.0
    """Of the WebSockets that ended, those that ended without a close handshake."""
    parity_mismatches: Count | None = 0
    """Publications that only one session of a compared pair got."""
    reconnects_per_user: Annotated[float, Meta(ge=0)] | None = 5.0
    """Mean over the users seen in the window."""
    lag_p99_ms: Annotated[int, Meta(ge=1)] | None = 5_000
    """From the append to the write, the 99th percentile."""
    window_s: Annotated[int, Meta(ge=1, le=MAX_WINDOW_S)] = 60
    """The sliding window all budgets are measured over."""
    min_samples: Annotated[int, Meta(ge=1, le=1_000_000)] = 20
    """Fewer samples of a kind than this in the window prove nothing."""
    hold_off_s: Annotated[int, Meta(ge=0, le=MAX_HOLD_OFF_S)] = 900
    """How long after a step back nobody goes on again without force."""
    enabled: bool = True
    """False: the guard leaves this tenant alone."""

    def __post_init__(self) -> None:
        for name, (low, high) in _RANGES.items():
            number = getattr(self, name)
            if number is None and name in _OPTIONAL:
                continue
            # Written so that NaN is refused as well.
            if number is None or not low <= number <= high or number == inf:
                raise ValueError(f"budgets.{name} is {low:g} to {high:g}")


DEFAULT_BUDGETS = Budgets()
