"""What is counted of a tenant's move, by name, and what follows from the sums of a window."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Mapping, Sequence

from msgspec import Struct

WS_OPENED = "ws_opened"
"""WebSockets that were welcomed."""
WS_REFUSED = "ws_refused"
"""WebSocket handshakes refused for a reason of the server's own."""
WS_FELL_BACK = "ws_fell_back"
"""Clients that opened SSE and said that their WebSocket could not be opened."""
WS_SHORT = "ws_short"
"""WebSockets that ended abnormally soon after their welcome; they are in `ws_opened` and `ws_abnormal`,
too."""
WS_CLOSED = "ws_closed"
"""All that ended."""
WS_ABNORMAL = "ws_abnormal"
"""Of them without a close handshake, silent, or for a violation."""
RECONNECTS = "ws_reconnects"
"""Of the opened: they came with a cursor."""
SSE_OPENED = "sse_opened"
SSE_CLOSED = "sse_closed"
COMPARED = "compared"
"""Publications compared between the two sessions of a pair."""
MISMATCHED = "mismatched"
CLIENT_COMPARED = "client_compared"
"""Publications that clients compared, as they report; the guard does not go by what clients say."""
CLIENT_MISMATCHED = "client_mismatched"
LAG_BOUNDS_MS = (1, 2, 5, 10, 20, 50, 100, 200, 500, 1_000, 5_000, 10_000, 30_000, 60_000)
"""Upper bounds of the lag buckets; one more has no bound."""
LAG_BUCKETS = len(LAG_BOUNDS_MS) + 1


def lag(transport: str, bucket: int) -> str:
    """The name of a lag bucket of `ws` or `sse`, from 0."""
    return f"{transport}_lag_{bucket}"


def client_lag(transport: str, bucket: int) -> str:
    """The name of a bucket of the lags that clients report of `ws` or `sse`, from 0."""
    return f"client_{transport}_lag_{bucket}"


class Window(Struct, frozen=True, omit_defaults=True):
    """The sums of the last `seconds` over all nodes."""

    seconds: int
    ws_opened: int = 0
    ws_refused: int = 0
    ws_fell_back: int = 0
    ws_short: int = 0
    ws_closed: int = 0
    ws_abnormal: int = 0
    ws_reconnects: int = 0
    sse_opened: int = 0
    sse_closed: int = 0
    compared: int = 0
    mismatched: int = 0
    users: int = 0
    """Different users who opened a WebSocket; approximate."""
    troubled: int = 0
    """Different users who could not open one, whose own ended abnormally, or who reconnected again and again;
    approximate."""
    ws_lag: tuple[int, ...] = (0,) * LAG_BUCKETS
    sse_lag: tuple[int, ...] = (0,) * LAG_BUCKETS
    client_compared: int = 0
    client_mismatched: int = 0
    client_ws_lag: tuple[int, ...] = (0,) * LAG_BUCKETS
    client_sse_lag: tuple[int, ...] = (0,) * LAG_BUCKETS

    @property
    def attempts(self) -> int:
        """To open a WebSocket."""
        return self.ws_opened + self.ws_refused + self.ws_fell_back

    @property
    def failed(self) -> int:
        """Of the attempts."""
        return self.ws_refused + self.ws_fell_back + self.ws_short

    @property
    def open_failure_percent(self) -> float:
        return percent(self.failed, self.attempts)

    @property
    def abnormal_close_percent(self) -> float:
        return percent(self.ws_abnormal, self.ws_closed)

    @property
    def reconnects_per_user(self) -> float:
        return self.ws_reconnects / self.users if self.users else 0.0

    @property
    def lag_p99_ms(self) -> float:
        """Of WebSocket deliveries."""
        return percentile_ms(self.ws_lag, 0.99)


def make_window(seconds: int, sums: Mapping[str, int], users: int, troubled: int) -> Window:
    """From what a store has summed up; names it does not know (of a newer node) are left out."""
    plain = {name: sums[name] for name in _PLAIN if name in sums}
    lags = {
        name(transport, 0).rpartition("_")[0]: tuple(
            sums.get(name(transport, at), 0) for at in range(LAG_BUCKETS)
        )
        for transport in ("ws", "sse")
        for name in (lag, client_lag)
    }
    return Window(seconds=seconds, users=users, troubled=troubled, **plain, **lags)  # type: ignore[arg-type]


def percent(part: int, whole: int) -> float:
    """0 to 100; 0 of nothing."""
    return min(100.0, 100 * part / whole) if whole else 0.0


def percentile_ms(buckets: Sequence[int], share: float) -> float:
    """What `share` of the samples stay at or below, in milliseconds, with even spread assumed inside a
    bucket; beyond the last bound the last bound. 0: no samples."""
    total = sum(buckets)
    if not total:
        return 0.0
    wanted, below = share * total, 0
    for at, count in enumerate(buckets):
        if count and below + count >= wanted:
            if at >= len(LAG_BOUNDS_MS):
                break
            low = LAG_BOUNDS_MS[at - 1] if at else 0
            return low + (LAG_BOUNDS_MS[at] - low) * (wanted - below) / count
        below += count
    return float(LAG_BOUNDS_MS[-1])


def lag_bucket(lag_ms: float) -> int:
    """The bucket of one sample."""
    return bisect_left(LAG_BOUNDS_MS, lag_ms)


_PLAIN = (
    WS_OPENED,
    WS_REFUSED,
    WS_FELL_BACK,
    WS_SHORT,
    WS_CLOSED,
    WS_ABNORMAL,
    RECONNECTS,
    SSE_OPENED,
    SSE_CLOSED,
    COMPARED,
    MISMATCHED,
    CLIENT_COMPARED,
    CLIENT_MISMATCHED,
)
