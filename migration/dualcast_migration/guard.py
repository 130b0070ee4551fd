"""When a tenant must go back one stage: a pure function of its budgets, the sums of a window and the time.

The guard only ever steps back, and never twice within the hold-off.
"""

from __future__ import annotations

from collections.abc import Iterator

from msgspec import Struct

from .figures import Window
from .policy import StageRecord
from .stage import Stage

SETTLE_S = 5
"""What is counted within so many seconds after a step back belongs to the stage before: nodes tell the store
every second or two, and a change takes a second to reach them. Trouble that was the reason to go back must
not be the reason to go back once more."""
BUCKET_S = 5
"""Going on, the bucket in which it was done counts as a whole: clients say only once that they fell back, and
most of them right then."""

MIN_USERS = 5
"""A mean over fewer users is the doing of one of them."""

MIN_TROUBLED = 3
"""What happens to fewer users is their own doing, or bad luck: a tenant must not be moved by one broken
client, however many connections it makes on however many nodes."""


class Breach(Struct, frozen=True):
    """A budget that is broken."""

    budget: str
    """Its name in `Budgets`."""
    figure: float
    """What was measured."""
    limit: float
    samples: int
    window_s: int
    words: str
    """What was measured, in words with its unit."""

    @property
    def why(self) -> str:
        """For the audit: the budget and every figure."""
        return f"{self.words} in the last {self.window_s} s; the budget {self.budget} is {self.limit:g}"


def watches(record: StageRecord) -> bool:
    """Whether there is anything to step back from."""
    return record.budgets.enabled and record.stage is not Stage.SSE


def counted_from(changed_s: float, *, back: bool) -> float:
    """Unix time from which on figures belong to the stage and cohort entered at `changed_s`; `back`: by a
    step back, or to fewer users. 0: always."""
    if not changed_s:
        return 0.0
    return changed_s + SETTLE_S if back else changed_s - BUCKET_S


def window_s(record: StageRecord, counted_s: float, now_s: float) -> int:
    """How far the window may reach back, in seconds: never to before `counted_s` (`counted_from`). 0: not at
    all."""
    return max(0, min(record.budgets.window_s, int(now_s - counted_s)))


def judge(record: StageRecord, window: Window, now_s: float) -> Breach | None:
    """The first broken budget, if the guard is to act on it now; None: it is not."""
    if not watches(record) or record.held_until > now_s:
        return None
    return next(breaches(record, window), None)


def breaches(record: StageRecord, window: Window) -> Iterator[Breach]:
    """Every broken budget, whether the guard acts or not. Figures with too few samples, or of too few users,
    prove nothing; a counted mismatch is a fact by itself."""
    budgets, w = record.budgets, window
    least = budgets.min_samples
    common = w.troubled >= MIN_TROUBLED
    limit: float | None = budgets.websocket_open_failure_percent
    if limit is not None and common and w.attempts >= least and w.open_failure_percent > limit:
        words = (
            f"{w.failed} of {w.attempts} WebSocket opens failed ({w.open_failure_percent:.1f} %: "
            f"{w.ws_refused} refused, {w.ws_fell_back} fell back, {w.ws_short} ended at once)"
        )
        yield _breach("websocket_open_failure_percent", w.open_failure_percent, limit, w.attempts, w, words)
    limit = budgets.abnormal_close_percent
    if limit is not None and common and w.ws_closed >= least and w.abnormal_close_percent > limit:
        words = (
            f"{w.ws_abnormal} of {w.ws_closed} WebSocket closes were abnormal "
            f"({w.abnormal_close_percent:.1f} %)"
        )
        yield _breach("abnormal_close_percent", w.abnormal_close_percent, limit, w.ws_closed, w, words)
    limit = budgets.parity_mismatches
    if limit is not None and w.mismatched > limit:
        words = f"{w.mismatched} of {w.compared} compared publications did not match"
        yield _breach("parity_mismatches", w.mismatched, limit, w.compared, w, words)
    limit = budgets.reconnects_per_user
    several = common and w.users >= MIN_USERS and w.ws_reconnects >= least
    if limit is not None and several and w.reconnects_per_user > limit:
        words = (
            f"{w.ws_reconnects} WebSocket reconnects of about {w.users} users "
            f"({w.reconnects_per_user:.1f} each)"
        )
        yield _breach("reconnects_per_user", w.reconnects_per_user, limit, w.ws_reconnects, w, words)
    limit = budgets.lag_p99_ms
    delivered = sum(w.ws_lag)
    if limit is not None and delivered >= least and w.lag_p99_ms > limit:
        words = (
            f"the 99th percentile of the lag of {delivered} WebSocket deliveries was {w.lag_p99_ms:.0f} ms"
        )
        yield _breach("lag_p99_ms", w.lag_p99_ms, limit, delivered, w, words)


def _breach(budget: str, figure: float, limit: float, samples: int, window: Window, words: str) -> Breach:
    return Breach(budget, round(figure, 2), limit, samples, window.seconds, words)
