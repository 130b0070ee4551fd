"""The way from where a tenant is to where it shall be, step by step: pure.

Each step says what to look at before it is taken, and the command that takes it.
"""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime

from msgspec import Struct

from .policy import Brownout, StageRecord
from .stage import Stage

LADDER = (1.0, 10.0, 50.0, 100.0)
"""Percent of the users, step by step, in the stage where the WebSocket comes to count."""
NOTICE_DAYS = 90
BROWNOUTS = ((14, 5.0), (7, 25.0), (3, 50.0), (1, 90.0))
"""(days before the sunset, percent)"""
_DAY_S = 86_400

_CHECKS: dict[Stage, tuple[str, ...]] = {
    Stage.SHADOW: (
        "clients open a WebSocket beside their stream and name their `instance` on both",
        "proxies let the Upgrade through and do not buffer (docs/deploy)",
        "publishers publish here, or old backends are taken in and mirrored",
    ),
    Stage.FALLBACK: (
        "the parity of this stage shows no mismatch over a typical day",
        "clients drop equal ids",
    ),
    Stage.WEBSOCKET: (
        "everybody is in fallback and the guard had no reason to step back for a week",
        "the census shows no client on SSE that you do not know",
    ),
}
_GATES: dict[Stage, tuple[str, ...]] = {
    Stage.SHADOW: ("reconnects and p99 lag are as before",),
    Stage.FALLBACK: (
        "failed WebSocket opens and abnormal closes are within the budgets",
        "no user complains of a silence",
    ),
    Stage.WEBSOCKET: ("the census shrinks from week to week",),
}


class Step(Struct, frozen=True):
    """One step. `stage` and `percent`: where the tenant is after it."""

    number: int
    title: str
    stage: Stage
    percent: float
    checks: tuple[str, ...]
    """To be looked at before."""
    command: str
    """"": nothing but to wait."""


class _Draft(Struct, frozen=True):
    title: str
    stage: Stage
    percent: float
    checks: tuple[str, ...]
    command: str


def plan(
    tenant: str,
    record: StageRecord,
    wanted: Stage,
    now_s: float,
    *,
    ladder: Sequence[float] = LADDER,
    notice_days: int = NOTICE_DAYS,
) -> tuple[Step, ...]:
    """The steps from `record` to `wanted` for everybody; empty when the tenant is there.

    `ladder`: ascending percents that end in 100. `notice_days`: from now to the sunset that is proposed where
    none is set. Raises ValueError for a ladder that is none.
    """
    if not ladder or ladder[-1] != 100 or any(not 0 < share <= 100 for share in ladder):
        raise ValueError("a ladder is percents above 0 that end in 100")
    if list(ladder) != sorted(set(ladder)):
        raise ValueError("a ladder ascends")
    drafts = _drafts(tenant, record, wanted, now_s, ladder, notice_days)
    return tuple(
        Step(number, draft.title, draft.stage, draft.percent, draft.checks, draft.command)
        for number, draft in enumerate(drafts, 1)
    )


def _drafts(
    tenant: str, record: StageRecord, wanted: Stage, now_s: float, ladder: Sequence[float], notice_days: int
) -> Iterator[_Draft]:
    stage, percent = record.stage, record.cohort.percent
    if wanted.rank < stage.rank:
        yield _Draft(
            f"back to {wanted} for everybody",
            wanted,
            100.0,
            (f"every client of the tenant still has what it needs for {wanted}",),
            _set(tenant, wanted, 100),
        )
        return
    if wanted is stage and (percent == 100 or stage is Stage.SSE):
        return
    if record.held_until > now_s:
        yield _Draft(
            f"wait until {_text(record.held_until)}: the guard holds",
            stage,
            percent,
            ("what `dualcast migrate status` says the guard saw is understood and gone",),
            "",
        )
    if stage is not Stage.SSE:
        yield from _widen(tenant, stage, percent, ladder)
    for following in list(Stage)[stage.rank + 1 : wanted.rank + 1]:
        if following is Stage.WEBSOCKET:
            yield from _announce(tenant, record, now_s, notice_days)
        first = ladder[0] if following in (Stage.FALLBACK, Stage.WEBSOCKET) else 100.0
        ready = shlex.join(["dualcast", "migrate", "readiness", tenant])
        before = (f"`{ready}` says yes",) if following is not Stage.SHADOW else ()
        yield _Draft(
            f"{following} for {_share(first)}",
            following,
            first,
            (*before, *_CHECKS[following]),
            _set(tenant, following, first),
        )
        yield from _widen(tenant, following, first, ladder)


def _widen(tenant: str, stage: Stage, percent: float, ladder: Sequence[float]) -> Iterator[_Draft]:
    for share in ladder:
        if share > percent:
            yield _Draft(
                f"{stage} for {_share(share)}", stage, share, _GATES[stage], _set(tenant, stage, share)
            )


def _announce(tenant: str, record: StageRecord, now_s: float, notice_days: int) -> Iterator[_Draft]:
    """The schedule, where none is set that lies ahead: it counts from the next stage on."""
    if record.sunset_at > now_s:
        return
    deprecated_at = int(now_s) // _DAY_S * _DAY_S
    sunset_at = deprecated_at + notice_days * _DAY_S
    brownouts = [
        Brownout(sunset_at - days * _DAY_S, share) for days, share in BROWNOUTS if days < notice_days
    ]
    words = ["dualcast", "migrate", "schedule", tenant]
    words += ["--deprecated", _text(deprecated_at), "--sunset", _text(sunset_at)]
    for brownout in brownouts:
        words += ["--brownout", f"{_text(brownout.at)}={brownout.percent:g}"]
    yield _Draft(
        f"announce the end of SSE for {_text(sunset_at)[:10]}",
        Stage.FALLBACK,
        100.0,
        ("owners of every client in the census know the date",),
        shlex.join([*words, "--why", "the end of SSE"]),
    )


def _set(tenant: str, stage: Stage, percent: float) -> str:
    words = ["dualcast", "migrate", "set", tenant, "--stage", str(stage), "--percent", f"{percent:g}"]
    return shlex.join([*words, "--why", f"{stage} for {_share(percent)}"])


def _share(percent: float) -> str:
    return "everybody" if percent == 100 else f"{percent:g} % of the users"


def _text(at_s: int) -> str:
    return datetime.fromtimestamp(at_s, UTC).strftime("%Y-%m-%dT%H:%MZ")
