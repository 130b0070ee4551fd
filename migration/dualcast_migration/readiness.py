"""May a tenant go on to its next stage, and each reason why not: pure."""

from __future__ import annotations

from collections.abc import Iterator

from msgspec import Struct

from .census import Census
from .figures import Window
from .guard import Breach, breaches
from .policy import StageRecord
from .stage import Stage

YOUNG_S = 3_600
"""A stage that was left sooner has not seen a typical hour."""


class Reason(Struct, frozen=True):
    """Something that stands in the way, or that one should know."""

    code: str
    """What programs compare."""
    text: str
    """A sentence for people."""
    figure: float = 0
    limit: float = 0


class Readiness(Struct, frozen=True):
    """The answer. `ready` is True when there is no reason against going on."""

    stage: str
    next: str
    """The stage after this one; "": it is the last."""
    ready: bool
    reasons: tuple[Reason, ...]
    warnings: tuple[Reason, ...]


class Evidence(Struct, frozen=True, kw_only=True):
    """What is known of a tenant."""

    window: Window
    """The guard's."""
    totals: Window
    """Since the last change of the stage, three days at most."""
    census: Census
    changed_s: float = 0
    """Unix time of the last change of the stage or the cohort; 0: not known."""


def readiness(record: StageRecord, evidence: Evidence, now_s: float) -> Readiness:
    """May a tenant with `record` go on, at Unix time `now_s`?"""
    stage = record.stage
    following = list(Stage)[stage.rank + 1 : stage.rank + 2]
    reasons = tuple(_against(record, evidence, now_s, last=not following))
    return Readiness(
        stage=str(stage),
        next=str(following[0]) if following else "",
        ready=not reasons,
        reasons=reasons,
        warnings=tuple(_warnings(record, evidence, now_s)),
    )


def _against(record: StageRecord, evidence: Evidence, now_s: float, *, last: bool) -> Iterator[Reason]:
    if last:
        yield Reason("last-stage", "websocket is the last stage: what is left is the sunset of SSE")
        return
    if record.held_until > now_s:
        left = record.held_until - now_s
        text = f"the guard stepped back: going on is refused for {left:.0f} s more"
        yield Reason("held", text, round(left), record.budgets.hold_off_s)
    if record.cohort.percent < 100 and record.stage is not Stage.SSE:  # before it there is no other stage
        text = f"the stage applies to {record.cohort.percent:g} % of the users, not to all"
        yield Reason("cohort-not-everybody", text, record.cohort.percent, 100)
    for breach in breaches(record, evidence.window):
        yield _broken(breach)
    least = record.budgets.min_samples
    totals = evidence.totals
    if record.stage in (Stage.SHADOW, Stage.FALLBACK) and totals.attempts < least:
        text = f"too few WebSockets were opened in this stage: {totals.attempts} of {least}"
        yield Reason("too-few-sockets", text, totals.attempts, least)
    if record.stage is Stage.SHADOW:
        yield from _unproven(record, totals)
    elif record.stage is Stage.FALLBACK:
        limit = record.budgets.websocket_open_failure_percent
        if limit is not None and totals.attempts >= least and totals.open_failure_percent > limit:
            text = f"{totals.open_failure_percent:.1f} % of the WebSocket opens in this stage failed"
            yield Reason("open-failures", text, round(totals.open_failure_percent, 2), limit)


def _unproven(record: StageRecord, totals: Window) -> Iterator[Reason]:
    least, limit = record.budgets.min_samples, record.budgets.parity_mismatches
    if totals.compared < least:
        text = f"too few publications were compared: {totals.compared} of {least}"
        yield Reason("too-few-compared", text, totals.compared, least)
    if limit is not None and totals.mismatched > limit:
        text = f"{totals.mismatched} of {totals.compared} compared publications did not match"
        yield Reason("mismatches", text, totals.mismatched, limit)


def _broken(breach: Breach) -> Reason:
    code = "budget-" + breach.budget.replace("_", "-")
    text = f"a budget is broken now: {breach.words} in the last {breach.window_s} s"
    return Reason(code, text, breach.figure, breach.limit)


def _warnings(record: StageRecord, evidence: Evidence, now_s: float) -> Iterator[Reason]:
    if not record.budgets.enabled:
        yield Reason("guard-off", "the guard is switched off for this tenant")
    if record.cohort.deny:
        count = len(record.cohort.deny)
        yield Reason("denied-users", f"users kept out of the stage by name: {count}", count)
    age = max(0.0, now_s - evidence.changed_s)  # the node that changed it may be ahead
    if evidence.changed_s and age < YOUNG_S and record.stage is not Stage.SSE:
        yield Reason("young-stage", f"the stage was changed only {age:.0f} s ago", round(age), YOUNG_S)
    left = sum(row.live for row in evidence.census.behind)
    if left:
        kinds = len(evidence.census.behind)
        text = f"live streams that name no instance and stay on SSE: {left} (kinds of clients: {kinds})"
        yield Reason("still-on-sse", text, left)
    if record.stage is Stage.WEBSOCKET:
        streams = evidence.census.live("sse")
        if not record.sunset_at:
            yield Reason("no-sunset", "no sunset is set: SSE is served for ever")
        elif streams:
            text = f"live streams that are answered 204 from the sunset on: {streams}"
            yield Reason("streams-at-sunset", text, streams)
