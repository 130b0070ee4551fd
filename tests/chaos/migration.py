"""The migration drill: `python -m chaos.migration` in `tests/`, or `make demo-migration`.

A tenant goes from SSE to WebSocket and back, on two nodes over a real Redis (appendfsync always), under a
constant load, while nodes and Redis are killed (-9) and sockets go silent. Every accepted publication is
accounted for at every client. The guard drill follows (`chaos.migration_guard`).
"""

from __future__ import annotations

import argparse
import asyncio
import tempfile
import time
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import uvloop

from chaos.migration_account import Ledger, Row, table
from chaos.migration_guard import GuardOutcome, guard_drill
from chaos.migration_pages import Instance
from chaos.migration_rig import TENANT, Plan, Rig, prepared
from dualcast_migration.cohort import Cohort

KINDS = ("instance", "plain", "second tab", "legacy")
UNGUARDED = {"enabled": False}
"""Killed nodes and silent sockets are what the guard steps back for; here it must not."""


@dataclass(kw_only=True)
class Outcome:
    """The account of a run."""

    ledger: Ledger
    faults: list[str] = field(default_factory=list)
    lines: list[str] = field(default_factory=list)
    seconds: float = 0.0

    def report(self) -> str:
        rows = self.ledger.rows
        notes = [f"  {row.name}: {note}" for row in rows for note in row.notes]
        verdict = [f"  WRONG {fault}" for fault in self.faults[:20]] or [
            "  missing 0, duplicates after id 0, no witness was ever silenced"
        ]
        took = f"  {self.seconds:.0f} s"
        return "\n".join([table(rows, KINDS), *notes, *self.lines, *verdict, took])


async def change(rig: Rig, row: Row, stage: str, percent: float = 100.0, *, wait: bool = True) -> None:
    """Changes the stage, and waits until everybody has been told and acts on it."""
    cohort = Cohort(percent=percent)
    before = {"fallback": "shadow", "websocket": "fallback"}.get(stage, stage)
    answer = await rig.change(stage, row.name, cohort={"percent": percent}, budgets=UNGUARDED)
    assert answer.status_code == 200, answer.text

    def wanted(one: Instance) -> str:
        return stage if cohort.contains(TENANT, one.user) else before

    if wait:
        took_s = await rig.settled(row, wanted)
        row.notes.append(f"everybody acts on it {took_s:.1f} s after the change")


async def parity(rig: Rig, row: Row) -> None:
    """Waits until the server has compared pairs in this stage; a mismatch is a fault."""
    found: dict[str, Any] = {}

    async def compared() -> str:
        found.update((await rig.get("parity"))["server"])
        return "" if found["compared"] else "no pair was compared"

    await rig.until(compared, row)
    row.notes.append(f"{found['compared']:,} publications compared, {found['mismatches']} mismatches")
    if found["mismatches"]:
        first = (await rig.get("parity"))["mismatches"][0]
        row.wrong.append(f"{found['mismatches']} mismatches, the last: {first}")


async def forth(rig: Rig) -> None:
    """sse → shadow → 10 % → 100 % → websocket."""
    seconds = rig.plan.seconds
    async with rig.step("sse") as row:
        await rig.settled(row)
        await rig.accepted(seconds)
    async with rig.step("shadow") as row:
        await change(rig, row, "shadow")
        await rig.accepted(seconds)
        await parity(rig, row)
    async with rig.step("fallback 10 %") as row:
        await change(rig, row, "fallback", 10)
        await rig.accepted(seconds)
        await rig.kill(0, row)
    async with rig.step("fallback 100 %") as row:
        await change(rig, row, "fallback")
        await rig.accepted(seconds)
        await rig.blackhole(row)
    async with rig.step("… node killed") as row:
        await rig.kill(1, row)
        await rig.accepted(seconds)
    async with rig.step("websocket") as row:
        await change(rig, row, "websocket")
        await rig.accepted(seconds)
        await rig.restart_redis(row)


async def back(rig: Rig) -> None:
    """websocket → fallback → sse."""
    seconds = rig.plan.seconds
    async with rig.step("back to fallback") as row:
        await change(rig, row, "fallback")
        await rig.blackhole(row)
        await rig.kill(0, row)
    async with rig.step("back to sse") as row:
        await change(rig, row, "sse", wait=False)
        await rig.accepted(seconds)
        await rig.kill(1, row, moving=True)
        took_s = await rig.settled(row, lambda _: "sse")
        row.notes.append(f"the last socket left {took_s:.1f} s later")


async def small(rig: Rig) -> None:
    """The way in short, with one kill."""
    seconds = rig.plan.seconds
    async with rig.step("sse") as row:
        await rig.settled(row)
        await rig.accepted(seconds)
    async with rig.step("shadow") as row:
        await change(rig, row, "shadow")
    async with rig.step("fallback") as row:
        await change(rig, row, "fallback")
        await rig.accepted(seconds)
        await rig.kill(0, row)
    async with rig.step("back to sse") as row:
        await change(rig, row, "sse")
        await rig.accepted(seconds)


async def migration_drill(folder: Path, plan: Plan, *, whole: bool = True) -> Outcome:
    """The drill, `whole` or in short."""
    begin = time.monotonic()
    async with prepared(folder, plan) as rig:
        if whole:
            await forth(rig)
            await back(rig)
        else:
            await small(rig)
        rig.ledger.close()
        outcome = Outcome(ledger=rig.ledger, faults=[*rig.crew.faults, *rig.ledger.faults])
        outcome.lines = facts(rig)
    for row in rig.ledger.rows:
        if row.muted != row.covered:
            outcome.faults.append(f"{row.name}: {row.muted} streams were muted, not {row.covered}")
    outcome.seconds = time.monotonic() - begin
    return outcome


def facts(rig: Rig) -> list[str]:
    """What else there is to know of a run."""
    instances = rig.instances
    crossed = sum(one.places[0][0] != one.sockets[0][0] for one in instances)
    missed = ", ".join(f"{kind} {rig.ledger.missed[kind]}" for kind in KINDS)
    publisher = rig.publisher
    early = sum(one.refusals for one in instances)
    return [
        f"  {len(instances)} pages with both transports, {crossed} of them at two nodes; "
        + f"{len(rig.crew.clients) - len(instances)} witnesses; missed: {missed}",
        f"  publishing: {publisher.failures} attempts failed, "
        + f"{publisher.repeats} had been appended all the same",
        f"  sockets refused with 4010 by a node that had not heard of the stage yet: {early}",
    ]


def report(title: str, outcome: Outcome | GuardOutcome) -> bool:
    """Prints it; whether all is well."""
    print(f"\n{title}\n{outcome.report()}", flush=True)
    return not outcome.faults


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--clients", type=int, default=Plan.clients, help="pages with both transports")
    parser.add_argument("--rate", type=float, default=Plan.rate, help="publications a second to everybody")
    parser.add_argument("--seconds", type=float, default=Plan.seconds, help="of load after each event")
    parser.add_argument("--engine", choices=("redis",), default="redis", help="two nodes need Redis")
    parser.add_argument("--seed", type=int, default=Plan.seed)
    parser.add_argument("--guard", action="store_true", help="the guard drill only")
    parser.add_argument(
        "--broken-from-the-start",
        action="store_true",
        help="guard drill: upgrades fail before the tenant comes into the stage",
    )
    parser.add_argument("--no-guard", action="store_true", help="without the guard drill")
    given = parser.parse_args()
    plan = Plan(clients=given.clients, rate=given.rate, seconds=given.seconds, seed=given.seed)

    async def both(folder: Path) -> bool:
        well = True
        if not given.guard:
            title = "two nodes, one Redis (appendfsync always): sse, shadow, fallback, websocket and back"
            well = report(title, await migration_drill(folder / "drill", plan))
        if not given.no_guard:
            small_plan = replace(plan, clients=max(24, plan.clients // 4))
            title = "the guard: every WebSocket upgrade fails"
            well = (
                report(
                    title,
                    await guard_drill(
                        folder / "guard", small_plan, from_the_start=given.broken_from_the_start
                    ),
                )
                and well
            )
        return well

    with (
        tempfile.TemporaryDirectory() as folder,
        asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner,
    ):
        well: Any = runner.run(both(Path(folder)))
    raise SystemExit(not well)


if __name__ == "__main__":
    main()
