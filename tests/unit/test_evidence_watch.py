"""The guard's loop: what it looks at, when it steps back, and what it never does."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from typing import Any

import pytest
from msgspec.structs import replace

from dualcast.model.errors import BusUnavailable, DualcastError
from dualcast.state.follow import StateFollower
from dualcast.state.memory import MemoryState
from dualcast.telemetry.counters import Counters
from dualcast.tenancy.model import Tenant
from dualcast.tenancy.stages import StageControl
from dualcast.tenancy.store import SharedTenants
from dualcast_migration.cohort import Cohort
from dualcast_migration.evidence.metrics import guard_families
from dualcast_migration.evidence.since import Since, staged_since
from dualcast_migration.evidence.watch import Watch
from dualcast_migration.figures import Window
from dualcast_migration.guard import BUCKET_S, SETTLE_S
from dualcast_migration.policy import StageRecord
from dualcast_migration.stage import Stage

pytestmark = pytest.mark.anyio
BAD = Window(60, ws_opened=10, ws_fell_back=30, troubled=30)


@dataclass
class Rig:
    """A tenant, what is known of it, and the control."""

    record: StageRecord = field(default_factory=lambda: StageRecord(stage=Stage.FALLBACK))
    found: Window = BAD
    now: float = 10_000.0
    changed: float = 0.0
    wins: bool = True
    error: DualcastError | None = None
    asked: list[int] = field(default_factory=list)
    steps: list[dict[str, Any]] = field(default_factory=list)
    active: dict[str, float] = field(default_factory=lambda: {"t": 0.0})
    suspects: dict[str, float] = field(default_factory=lambda: {"t": 0.0})

    def __post_init__(self) -> None:
        self.watch = Watch(
            self,  # type: ignore[arg-type]
            self,
            lambda tenant: self.record if tenant == "t" else None,
            self.changed_at,
            self.step_back,
            clock=lambda: self.now,
        )

    async def window(self, tenant: str, seconds: int) -> Window:
        if self.error is not None:
            raise self.error
        self.asked.append(seconds)
        return replace(self.found, seconds=seconds)

    async def changed_at(self, tenant: str) -> float:
        return self.changed

    async def step_back(self, tenant: str, **fields: Any) -> bool:
        self.steps.append({"tenant": tenant, **fields})
        if self.wins:
            self.record = replace(
                self.record,
                stage=self.record.stage.previous,
                held_until=int(fields["now_s"] + fields["hold_off_s"]),
            )
            self.changed = self.now
        return self.wins


async def test_a_broken_budget_steps_back_once_and_is_told() -> None:
    rig = Rig()
    breach = await rig.watch.look("t")
    assert breach is not None and breach.budget == "websocket_open_failure_percent"
    (step,) = rig.steps
    assert step["tenant"] == "t" and step["who"] == "guard" and step["hold_off_s"] == 900
    assert step["now_s"] == rig.now and "30 of 40 WebSocket opens failed" in step["why"]
    assert rig.record.stage is Stage.SHADOW
    for _ in range(299):
        rig.now += 3
        await rig.watch.tick()
    assert len(rig.steps) == 1, "held off for 900 s"
    assert rig.watch.breaches == {("t", "websocket_open_failure_percent"): 1}
    rig.now += 60
    await rig.watch.tick()
    assert rig.record.stage is Stage.SSE, "still as bad after the hold-off"
    for _ in range(10):
        rig.now += 1_000
        await rig.watch.tick()
    assert len(rig.steps) == 2 and rig.record.stage is Stage.SSE, "it never goes on by itself"


async def test_the_window_begins_where_figures_belong_to_the_stage() -> None:
    rig = Rig(found=Window(60))
    rig.changed = rig.now - 20
    await rig.watch.tick()
    rig.now += 100
    await rig.watch.tick()
    assert rig.asked == [20, 60]
    rig.record = replace(rig.record, cohort=Cohort(percent=10))
    rig.changed = rig.now + 4
    await rig.watch.tick()
    assert rig.asked == [20, 60], "nothing to go by yet"
    rig.now += 10
    await rig.watch.tick()
    assert rig.asked == [20, 60, 6]


async def test_a_node_that_was_slower_says_nothing() -> None:
    rig = Rig(wins=False)
    assert await rig.watch.look("t") is None
    assert len(rig.steps) == 1 and not rig.watch.breaches


async def test_of_many_nodes_that_judge_at_once_exactly_one_acts() -> None:
    state = MemoryState()
    await state.start()
    rigs, controls = [], []
    for _ in range(8):
        tenants = SharedTenants(state, follower := StateFollower(state))
        if not controls:
            await tenants.put(Tenant(id="t", stage=StageRecord(stage=Stage.WEBSOCKET)))
        await follower.refresh()
        controls.append(StageControl(tenants, lambda: 10_000.0))
        rig = Rig(record=StageRecord(stage=Stage.WEBSOCKET))
        rig.step_back = controls[-1].step_back  # type: ignore[method-assign]
        rig.__post_init__()
        rigs.append(rig)
    breaches = await asyncio.gather(*(rig.watch.look("t") for rig in rigs))
    assert sum(breach is not None for breach in breaches) == 1
    view = await controls[0].read("t")
    assert view.record.stage is Stage.FALLBACK
    entries = (await controls[0].history("t")).entries
    assert [entry.action for entry in entries].count("step-back") == 1
    await state.close()


async def test_calm_tenants_are_looked_at_seldom_and_others_never() -> None:
    rig = Rig(found=Window(60))
    rig.suspects.clear()
    for _ in range(16):
        await rig.watch.tick()
    assert len(rig.asked) == 2
    assert set(rig.watch.windows) == {"t"}
    rig.active.clear()
    await rig.watch.tick()
    assert not rig.watch.windows


@pytest.mark.parametrize("stage", [Stage.SSE])
async def test_there_is_no_way_back_from_the_first_stage(stage: Stage) -> None:
    rig = Rig(record=StageRecord(stage=stage))
    await rig.watch.tick()
    assert not rig.asked and not rig.steps


async def test_a_store_that_is_away_is_asked_again() -> None:
    rig = Rig(error=BusUnavailable("away"))
    await rig.watch.tick()
    rig.error = None
    await rig.watch.tick()
    assert len(rig.steps) == 1


async def test_metrics_name_tenants_and_budgets() -> None:
    rig = Rig()
    await rig.watch.look("t")
    found = {
        (family.name, *sample.labels.values()): sample.value
        for family in guard_families(rig.watch, Counters().label)
        for sample in family.samples
    }
    assert found["dualcast_guard_websocket_opens", "t"] == 40
    assert found["dualcast_guard_websocket_open_failures", "t"] == 30
    assert found["dualcast_guard_steps_back", "t", "websocket_open_failure_percent"] == 1


@dataclass
class Entry:
    at_ms: int
    before: StageRecord | None
    after: StageRecord


@dataclass
class Page:
    entries: list[Entry]
    next: int


async def test_since_when_is_told_by_the_last_change_of_stage_or_cohort() -> None:
    fallback, shadow = StageRecord(stage=Stage.FALLBACK), StageRecord(stage=Stage.SHADOW)
    later = replace(fallback, link="https://example.com")

    class History:
        def __init__(self) -> None:
            self.pages = {0: Page([Entry(9_000, fallback, later), Entry(8_000, shadow, fallback)], 0)}

        async def history(self, tenant: str, *, before: int = 0, limit: int = 50) -> Page:
            return self.pages[before]

    history = History()
    assert await staged_since(history, "t") == Since(8.0)
    history.pages = {0: Page([Entry(9_000, fallback, later)], 7), 7: Page([Entry(1_000, None, fallback)], 0)}
    assert await staged_since(history, "t") == Since(1.0)
    history.pages = {0: Page([], 0)}
    assert await staged_since(history, "t") == Since()
    history.pages = {0: Page([Entry(9_000, fallback, shadow)], 0)}
    assert await staged_since(history, "t") == Since(9.0, back=True)
    fewer = replace(fallback, cohort=Cohort(percent=10))
    history.pages = {0: Page([Entry(9_000, fallback, fewer)], 0)}
    assert await staged_since(history, "t") == Since(9.0, back=True)
    history.pages = {0: Page([Entry(9_000, fewer, fallback)], 0)}
    assert await staged_since(history, "t") == Since(9.0)


async def test_who_undoes_a_step_back_at_once_is_not_sent_back_for_the_same_trouble() -> None:
    """The guard stepped back; an operator undid it 2 s later and took everybody in after one more."""
    fallback, shadow = StageRecord(stage=Stage.FALLBACK), StageRecord(stage=Stage.SHADOW)
    fewer = replace(fallback, cohort=Cohort(percent=10))
    undone = [Entry(63_000, fewer, fallback), Entry(62_000, shadow, fewer), Entry(60_000, fewer, shadow)]
    long_ago = [Entry(1_000, None, fewer)]

    class History:
        def __init__(self) -> None:
            self.pages = {0: Page([*undone, *long_ago], 0)}

        async def history(self, tenant: str, *, before: int = 0, limit: int = 50) -> Page:
            return self.pages[before]

    history = History()
    assert (await staged_since(history, "t")).counted_s == 60 + SETTLE_S
    history.pages = {0: Page(undone[:2], 7), 7: Page([undone[2], *long_ago], 0)}
    assert (await staged_since(history, "t")).counted_s == 60 + SETTLE_S
    settled = 60_000 + (SETTLE_S + BUCKET_S) * 1_000
    history.pages = {0: Page([Entry(settled, shadow, fewer), undone[2]], 0)}
    assert (await staged_since(history, "t")).counted_s == settled / 1_000 - BUCKET_S == 60 + SETTLE_S
    history.pages = {0: Page([Entry(settled - 1_000, shadow, fewer), undone[2]], 0)}
    assert (await staged_since(history, "t")).counted_s == 60 + SETTLE_S
