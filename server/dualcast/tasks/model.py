"""A task and a batch as frozen values: stored, announced and answered in one and the same JSON shape."""

from __future__ import annotations

from typing import Any, Literal

import msgspec
from msgspec import Struct

State = Literal["queued", "processing", "completed", "failed", "cancelled"]
BatchState = Literal["processing", "completed", "failed", "partial"]
STATES: tuple[State, ...] = ("queued", "processing", "completed", "failed", "cancelled")
FINISHED: frozenset[str] = frozenset({"completed", "failed", "cancelled"})
MAX_DEPTH = 64
"""Of `result` and `data`; the same as of everything that is published."""
MAX_KIND = 128
MAX_TITLE = 512
MAX_MESSAGE = 4_096
MAX_VALUE_BYTES = 16 * 1024
"""Of `result`, and of `data` after merging, as JSON."""
MAX_NUMBER = 2**53 - 1
"""Steps, totals and sequences: what JavaScript reads exactly."""


class Task(Struct, frozen=True, kw_only=True):
    """The last known state of a task. Times are Unix milliseconds of the engine's clock and never run
    backwards; which of two states is the later one is decided by `revision` alone.
    """

    id: str
    owner: str
    """User id; may subscribe to `task:<id>`."""
    batch: str = ""
    kind: str = ""
    """Free text of the publisher (`analysis`, `import`, `batch_report` …)."""
    title: str = ""
    state: State = "queued"
    step: int | None = None
    total_steps: int | None = None
    percent: float | None = None
    """0 to 100; `round(step / total_steps * 100, 1)` when both are known, unless the publisher gave it."""
    message: str = ""
    result: Any = None
    """Any JSON value; of a finished task."""
    error: str = ""
    """Why it failed or was cancelled."""
    data: dict[str, Any] = {}
    """The publisher's own keys, merged from every report."""
    sequence: int | None = None
    """Of the last report that had one."""
    created_ms: int = 0
    started_ms: int | None = None
    updated_ms: int = 0
    completed_ms: int | None = None
    """When it finished, in whichever state."""
    revision: int = 0
    """One more with each accepted report; registration is 1."""

    @property
    def finished(self) -> bool:
        return self.state in FINISHED


class Batch(Struct, frozen=True, kw_only=True):
    """A batch and the exact counters of its tasks. A task nobody reported for the whole retention counts as
    failed.
    """

    id: str
    owner: str
    title: str = ""
    state: BatchState = "processing"
    """`completed`: all tasks did; `failed`: none did; `partial`: some. `processing` before all have ended."""
    declared: bool = False
    """The publisher said how many tasks there will be: then an ended batch has ended for good."""
    total: int = 0
    """Declared, else registered so far. 0: empty."""
    queued: int = 0
    processing: int = 0
    completed: int = 0
    failed: int = 0
    cancelled: int = 0
    progress: float = 0.0
    """Ended of total, percent with one decimal."""
    data: dict[str, Any] = {}
    created_ms: int = 0
    updated_ms: int = 0
    completed_ms: int | None = None
    """When the last task ended."""
    revision: int = 0

    @property
    def finished(self) -> bool:
        """Ended for good: no task can join any more."""
        return self.declared and self.state != "processing"


class Counts(Struct, frozen=True, array_like=True):
    """Tasks of a batch by state."""

    queued: int = 0
    processing: int = 0
    completed: int = 0
    failed: int = 0
    cancelled: int = 0

    @property
    def joined(self) -> int:
        return self.queued + self.processing + self.ended

    @property
    def ended(self) -> int:
        return self.completed + self.failed + self.cancelled


def batch_state(counts: Counts, total: int) -> BatchState:
    """The state of a batch of `total` tasks."""
    if not total or counts.ended < total:
        return "processing"
    if counts.completed == total:
        return "completed"
    return "partial" if counts.completed else "failed"


def share(part: int, whole: int) -> float:
    """`part` of `whole` in percent with one decimal, 0 of nothing."""
    return round(part / whole * 100, 1) if whole else 0.0


class BatchFacts(Struct, frozen=True):
    """What is stored of a batch that does not follow from its tasks."""

    id: str
    owner: str
    title: str = ""
    data: dict[str, Any] = {}


def make_batch(
    facts: BatchFacts,
    counts: Counts,
    declared: int,
    *,
    created_ms: int,
    updated_ms: int,
    completed_ms: int,
    revision: int,
) -> Batch:
    """A batch out of its stored parts. `declared` 0: the publisher did not say how many; `completed_ms` 0:
    not ended.
    """
    total = max(declared, counts.joined)
    return Batch(
        id=facts.id,
        owner=facts.owner,
        title=facts.title,
        state=batch_state(counts, total),
        declared=declared > 0,
        total=total,
        queued=counts.queued,
        processing=counts.processing,
        completed=counts.completed,
        failed=counts.failed,
        cancelled=counts.cancelled,
        progress=share(counts.ended, total),
        data=facts.data,
        created_ms=created_ms,
        updated_ms=updated_ms,
        completed_ms=completed_ms or None,
        revision=revision,
    )


encode = msgspec.json.Encoder().encode
"""A Task, Batch or BatchFacts as minified JSON: what is stored, announced and shown."""
decode_task = msgspec.json.Decoder(Task).decode
decode_facts = msgspec.json.Decoder(BatchFacts).decode
