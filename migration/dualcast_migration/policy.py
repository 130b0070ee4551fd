"""What a user is due on each transport: pure functions of the tenant's stage record, the user and the time.

The policy governs the native endpoints and the two legacy ones that are each other's twin; it acts on
delivery, never on publishing.
"""

from __future__ import annotations

from itertools import pairwise
from typing import Literal

from msgspec import Struct

from dualcast.model.codes import Close

from .budgets import DEFAULT_BUDGETS, Budgets
from .cohort import EVERYBODY, Cohort, Percent
from .stage import DEFAULT_STAGE, Stage

FallbackScope = Literal["instance", "user"]
MirrorMode = Literal["off", "fallback", "always"]
MAX_BROWNOUTS = 50
MAX_AT_S = 253_402_300_799
"""The end of the year 9999: what a calendar, and so an HTTP date, can say."""


class Brownout(Struct, frozen=True, forbid_unknown_fields=True):
    """From Unix second `at` on, `percent` of the SSE connects are sent away for a while (0: the brownout is
    over)."""

    at: int
    percent: Percent

    def __post_init__(self) -> None:
        if not 0 < self.at <= MAX_AT_S:
            raise ValueError("a brownout begins at a Unix second above 0, before the year 10000")
        if not 0 <= self.percent <= 100:
            raise ValueError("percent is 0 to 100")


class StageRecord(Struct, frozen=True, omit_defaults=True, forbid_unknown_fields=True):
    """A tenant's stage. Times are Unix seconds, 0: not set; they count in stage `websocket` only."""

    stage: Stage = DEFAULT_STAGE
    cohort: Cohort = EVERYBODY
    deprecated_at: int = 0
    """Since when SSE is deprecated (`Deprecation` header)."""
    sunset_at: int = 0
    """From then on SSE connects are answered 204 (`Sunset` header before)."""
    link: str = ""
    """Where the move is described (`Link` header)."""
    brownouts: tuple[Brownout, ...] = ()
    """Ascending by `at`; they count in stage `websocket` only. The share is that of the last one begun."""
    fallback_scope: FallbackScope = "instance"
    """Whose SSE a live WebSocket silences: that of its own instance, or that of every instance of the user
    ("one device at a time")."""
    budgets: Budgets = DEFAULT_BUDGETS
    held_until: int = 0
    """The guard stepped back: until this Unix second going on to a later stage is refused."""
    mirror: MirrorMode | None = None
    """What is copied to the channels of old servers; None: the node's own setting."""

    def __post_init__(self) -> None:
        if not all(0 <= at <= MAX_AT_S for at in (self.deprecated_at, self.sunset_at, self.held_until)):
            raise ValueError("times are Unix seconds before the year 10000")
        if self.deprecated_at and self.sunset_at and self.sunset_at < self.deprecated_at:
            raise ValueError("the sunset must not come before the deprecation")
        if not self.link.isascii() or not self.link.isprintable() or set(self.link) & set(' <>"'):
            raise ValueError("link must be a URL: it goes into a header")
        if len(self.brownouts) > MAX_BROWNOUTS:
            raise ValueError(f"a schedule has at most {MAX_BROWNOUTS} brownouts")
        starts = [brownout.at for brownout in self.brownouts]
        if any(later <= earlier for earlier, later in pairwise(starts)):
            raise ValueError("brownouts are in ascending order of `at`, no two at the same time")

    def brownout_percent(self, now_s: float) -> float:
        """The share of SSE connects to send away at `now_s`: that of the last brownout begun, 0 before the
        first."""
        share = 0.0
        for brownout in self.brownouts:
            if brownout.at > now_s:
                break
            share = brownout.percent
        return share


class Deprecation(Struct, frozen=True):
    """What SSE responses of a user in stage `websocket` announce. Unix seconds, 0: not set."""

    deprecated_at: int
    sunset_at: int
    link: str


class Decision(Struct, frozen=True):
    """What one user of one tenant may do now."""

    stage: Stage
    """The effective stage of this user."""
    websocket: bool
    """A WebSocket connect is accepted."""
    sse: bool
    """An SSE connect is served. False: answer 204, which ends an `EventSource` for good."""
    may_mute: bool
    """SSE of an instance with a covering live WebSocket is muted."""
    compare: bool
    """Both transports deliver, and the pair is compared."""
    deprecation: Deprecation | None = None
    brownout_percent: float = 0.0
    """Of the SSE connects that are served, the share to be sent away for a while, 0 to 100."""
    fallback_scope: FallbackScope = "instance"
    """Whose SSE sessions a WebSocket of this user may silence."""

    @property
    def may_pair(self) -> bool:
        """The SSE and WebSocket sessions of one instance are brought together, to mute or to compare."""
        return self.may_mute or self.compare

    def serves(self, transport: str) -> bool:
        """Whether a connect on `sse`, or on a WebSocket by whatever name, is let in."""
        return self.sse if transport == "sse" else self.websocket

    @property
    def websocket_refusal(self) -> Close | None:
        """The close code of a refused WebSocket, None when it is accepted."""
        return None if self.websocket else Close.STAGE


def effective_stage(record: StageRecord, tenant: str, user: str) -> Stage:
    """The stage of `user`: the record's inside its cohort, the previous one outside."""
    return record.stage if record.cohort.contains(tenant, user) else record.stage.previous


def decide(record: StageRecord, tenant: str, user: str, now_s: float) -> Decision:
    """The decision for `user` of `tenant` at Unix time `now_s`."""
    stage = effective_stage(record, tenant, user)
    last = stage is Stage.WEBSOCKET
    over = bool(record.sunset_at) and now_s >= record.sunset_at
    return Decision(
        stage=stage,
        websocket=stage is not Stage.SSE,
        sse=not (last and over),
        may_mute=stage in (Stage.FALLBACK, Stage.WEBSOCKET),
        compare=stage is Stage.SHADOW,
        deprecation=Deprecation(record.deprecated_at, record.sunset_at, record.link) if last else None,
        brownout_percent=record.brownout_percent(now_s) if last and not over else 0.0,
        fallback_scope=record.fallback_scope,
    )
