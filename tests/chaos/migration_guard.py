"""The guard drill: a proxy in front of both nodes stops passing WebSocket upgrades on, and the tenant must be
back one stage within the guard's window, once, with nobody missing anything."""

from __future__ import annotations

import time
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

from chaos.migration_account import Ledger, table
from chaos.migration_rig import Plan, Rig, prepared

WINDOW_S = 10
PATIENCE_S = 3.0 * WINDOW_S
"""What has not come by then does not come."""
SURE_S = 6
"""Longer than a bucket of the guard's evidence (5 s): what is told from now on counts as a whole."""
BUDGETS: dict[str, Any] = {
    "window_s": WINDOW_S,
    "min_samples": 10,
    # The front's end of the sockets is no matter of theirs here: only what cannot be opened counts.
    "abnormal_close_percent": None,
    "reconnects_per_user": None,
    "lag_p99_ms": None,
}


@dataclass(kw_only=True)
class GuardOutcome:
    """The account of the guard drill."""

    ledger: Ledger
    stepped_s: float = 0.0
    """From the first failing upgrade to the stage before; 0: it did not come."""
    why: str = ""
    audited: int = 0
    """Entries of the guard."""
    faults: list[str] = field(default_factory=list)

    def report(self) -> str:
        lines = [table(self.ledger.rows, ("instance", "plain", "second tab", "legacy"))]
        took = f"{self.stepped_s:.1f} s" if self.stepped_s else "not"
        lines.append(f"  back in shadow: {took} after upgrades began to fail (window {WINDOW_S} s)")
        lines.append(f"  audited by the guard {self.audited} time(s): {self.why}")
        lines += [f"  WRONG {fault}" for fault in self.faults[:20]] or ["  nobody missed anything"]
        return "\n".join(lines)


async def guard_drill(folder: Path, plan: Plan, *, from_the_start: bool = False) -> GuardOutcome:
    """Over nodes, Redis and clients of its own. `from_the_start`: upgrades fail before the tenant comes into
    the stage, so each client reports it right after the change, and only then."""
    first = "shadow" if from_the_start else "fallback"
    async with prepared(folder, replace(plan, fronts=True, stage=first)) as rig:
        outcome = GuardOutcome(ledger=rig.ledger)
        unguarded = {"enabled": False}
        answer = await rig.change(first, "before the drill", budgets=unguarded if from_the_start else BUDGETS)
        assert answer.status_code == 200, answer.text
        async with rig.step("upgrades pass") as row:
            await rig.settled(row, lambda _: first)
            if not from_the_start:
                await rig.until(partial(watched, rig), row)
        async with rig.step("upgrades fail") as row:
            for front in rig.fronts:
                front.sockets = False
            rig.cut()
            begin = time.monotonic()
            if from_the_start:
                answer = await rig.change("fallback", "the guard drill", budgets=BUDGETS)
                assert answer.status_code == 200, answer.text
            await stepped_back(rig, outcome, begin)
            await rig.accepted(plan.seconds)
            await judge(rig, outcome)
            # The front is mended: sockets come back, now in stage shadow, where they silence nobody.
            for front in rig.fronts:
                front.sockets = True
            for one in rig.instances:
                one.retry()
        rig.ledger.close()
        outcome.faults += [*rig.crew.faults, *rig.ledger.faults]
    return outcome


async def watched(rig: Rig) -> str:
    """ "" when the guard looks at this stage: the first seconds after a change are not counted."""
    seconds = (await rig.get("readiness"))["window"]["seconds"]
    return "" if seconds >= SURE_S else "the guard does not look at this stage yet"


async def stepped_back(rig: Rig, outcome: GuardOutcome, begin: float) -> None:
    """Waits until the tenant is in the stage before."""

    async def back() -> str:
        stage = (await rig.get("migration"))["record"]["stage"]
        return "" if stage == "shadow" else f"the tenant is still in {stage}"

    row = rig.ledger.rows[-1]
    await rig.until(back, row, PATIENCE_S)
    if not row.wrong:
        outcome.stepped_s = time.monotonic() - begin
        if outcome.stepped_s > WINDOW_S:
            outcome.faults.append(f"it took {outcome.stepped_s:.1f} s, longer than the window")


async def judge(rig: Rig, outcome: GuardOutcome) -> None:
    """Both nodes have looked several times since, and upgrades still fail: it must have stepped once, and
    hold."""
    entries = (await rig.get("audit"))["entries"]
    steps = [entry for entry in entries if entry["who"] == "guard"]
    outcome.audited = len(steps)
    outcome.why = steps[0]["why"] if steps else "never"
    if len(steps) != 1:
        outcome.faults.append(f"the guard is in the audit {len(steps)} times")
    elif (steps[0]["from"]["stage"], steps[0]["to"]["stage"]) != ("fallback", "shadow"):
        outcome.faults.append(f"it stepped from {steps[0]['from']} to {steps[0]['to']}")
    again = await rig.change("fallback", "too early", budgets=BUDGETS)
    if again.status_code != 409 or again.json()["code"] != "guard-hold":
        outcome.faults.append(f"going on at once was not refused: {again.status_code}")
