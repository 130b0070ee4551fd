"""What a user is due on each transport: pure functions of the tenant's stage record, the user and the time.

The policy governs the native endpoints and the two legacy ones that are each other's twin; it acts on
delivery, never on publishing.
"""

from __future__ import annotations

from msgspec import Struct

from dualcast.model.codes import Close

from .cohort import EVERYBODY, Cohort
from .stage import DEFAULT_STAGE, Stage


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

    def __post_init__(self) -> None:
        if self.deprecated_at < 0 or self.sunset_at < 0:
            raise ValueError("times are Unix seconds")
        if self.deprecated_at and self.sunset_at and self.sunset_at < self.deprecated_at:
            raise ValueError("the sunset must not come before the deprecation")
        if not self.link.isascii() or not self.link.isprintable() or set(self.link) & set(' <>"'):
            raise ValueError("link must be a URL: it goes into a header")


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
    return Decision(
        stage=stage,
        websocket=stage is not Stage.SSE,
        sse=not (last and record.sunset_at and now_s >= record.sunset_at),
        may_mute=stage in (Stage.FALLBACK, Stage.WEBSOCKET),
        compare=stage is Stage.SHADOW,
        deprecation=Deprecation(record.deprecated_at, record.sunset_at, record.link) if last else None,
    )
