"""The guard's verdict and readiness: pure functions of budgets, figures and time."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from dualcast_migration.budgets import Budgets
from dualcast_migration.census import Census, CensusRow, Row
from dualcast_migration.cohort import Cohort
from dualcast_migration.figures import LAG_BOUNDS_MS, LAG_BUCKETS, Window, lag_bucket, percentile_ms
from dualcast_migration.guard import BUCKET_S, SETTLE_S, breaches, counted_from, judge, watches, window_s
from dualcast_migration.policy import StageRecord
from dualcast_migration.readiness import Evidence, readiness
from dualcast_migration.sketch import Sketch, cut, estimate, mark, packed, unpacked
from dualcast_migration.stage import Stage

NOW = 1_000_000.0
GUARDED = (Stage.SHADOW, Stage.FALLBACK, Stage.WEBSOCKET)
STAGES = st.sampled_from(list(Stage))
COUNT = st.integers(0, 10_000)


def lags(**counts: int) -> tuple[int, ...]:
    """Lag buckets: `ms_<lag>=count`."""
    found = [0] * LAG_BUCKETS
    for name, count in counts.items():
        found[lag_bucket(float(name.removeprefix("ms_")))] += count
    return tuple(found)


def broken(window: Window, **budgets: Any) -> list[str]:
    record = StageRecord(stage=Stage.FALLBACK, budgets=Budgets(**budgets))
    return [one.budget for one in breaches(record, window)]


GOOD = Window(60, ws_opened=100, ws_closed=100, users=50, troubled=3, ws_lag=lags(ms_3=1_000))


@pytest.mark.parametrize(
    ("window", "budget"),
    [
        (replace(GOOD, ws_fell_back=6), "websocket_open_failure_percent"),
        (replace(GOOD, ws_refused=6), "websocket_open_failure_percent"),
        (replace(GOOD, ws_short=6), "websocket_open_failure_percent"),
        (replace(GOOD, ws_abnormal=11), "abnormal_close_percent"),
        (replace(GOOD, mismatched=1, compared=1), "parity_mismatches"),
        (replace(GOOD, ws_reconnects=251), "reconnects_per_user"),
        (replace(GOOD, ws_lag=lags(ms_3=980, ms_9000=20)), "lag_p99_ms"),
    ],
)
def test_each_budget_is_broken_above_it_and_can_be_switched_off(window: Window, budget: str) -> None:
    assert broken(GOOD) == []
    assert broken(window) == [budget]
    assert broken(window, **{budget: None}) == []


def test_at_the_budget_nothing_is_broken() -> None:
    at = Window(60, ws_opened=95, ws_fell_back=5, ws_closed=100, ws_abnormal=10, users=20, ws_reconnects=100)
    assert broken(replace(at, troubled=20)) == []


def test_too_few_samples_prove_nothing() -> None:
    few = Window(60, ws_fell_back=19, ws_closed=19, ws_abnormal=19, ws_reconnects=30, users=4, troubled=4)
    assert broken(replace(few, ws_lag=lags(ms_60000=19))) == []
    assert broken(replace(few, ws_fell_back=20)) == ["websocket_open_failure_percent"]
    assert broken(few, min_samples=19) == ["websocket_open_failure_percent", "abnormal_close_percent"]
    assert broken(Window(60, ws_reconnects=26, users=5, troubled=5)) == ["reconnects_per_user"]


def test_the_trouble_of_one_or_two_users_moves_nobody() -> None:
    bad = Window(60, ws_opened=40, ws_fell_back=40, ws_closed=40, ws_abnormal=40, ws_reconnects=500, users=9)
    assert broken(replace(bad, troubled=2)) == []
    assert len(broken(replace(bad, troubled=3))) == 3


def test_why_holds_the_figures() -> None:
    record = StageRecord(stage=Stage.FALLBACK)
    breach = judge(record, replace(GOOD, ws_fell_back=20, ws_refused=5), NOW)
    assert breach is not None
    assert breach.why == (
        "25 of 125 WebSocket opens failed (20.0 %: 5 refused, 20 fell back, 0 ended at once) "
        "in the last 60 s; the budget websocket_open_failure_percent is 5"
    )
    assert (breach.figure, breach.limit, breach.samples) == (20.0, 5.0, 125)


@given(STAGES, COUNT, COUNT, COUNT, st.integers(-100, 100), st.booleans())
def test_the_guard_acts_only_where_it_may(
    stage: Stage, opened: int, failed: int, closed: int, held: int, enabled: bool
) -> None:
    record = StageRecord(stage=stage, held_until=int(NOW) + held, budgets=Budgets(enabled=enabled))
    window = Window(
        60, ws_opened=opened, ws_fell_back=failed, ws_closed=closed, ws_abnormal=closed, troubled=failed
    )
    breach = judge(record, window, NOW)
    if stage is Stage.SSE or held > 0 or not enabled:
        assert breach is None
    elif breach is not None:
        assert breach.figure > breach.limit and breach.samples >= record.budgets.min_samples
        assert 0 < len(breach.why) <= 500
    assert watches(record) == (stage in GUARDED and enabled)


@given(st.floats(0, 2e6), st.integers(1, 3_600))
def test_the_window_never_reaches_back_before_the_change(changed: float, size: int) -> None:
    record = StageRecord(stage=Stage.FALLBACK, budgets=Budgets(window_s=size))
    for back in (False, True):
        counted = counted_from(changed, back=back)
        reach = window_s(record, counted, NOW)
        assert 0 <= reach <= size
        assert reach == 0 or NOW - reach >= counted
        if counted + size <= NOW:
            assert reach == size


def test_going_on_the_first_seconds_count_and_going_back_they_do_not() -> None:
    assert counted_from(NOW, back=False) == NOW - BUCKET_S
    assert counted_from(NOW, back=True) == NOW + SETTLE_S
    assert counted_from(0.0, back=True) == 0.0


# ── percentiles and sketches ──


@given(st.lists(st.integers(0, 59_999), min_size=1, max_size=300), st.floats(0.01, 1))
def test_percentiles_lie_in_the_right_bucket(samples: list[int], share: float) -> None:
    buckets = [0] * LAG_BUCKETS
    for sample in samples:
        buckets[lag_bucket(sample)] += 1
    exact = sorted(samples)[min(len(samples) - 1, max(0, -int(-share * len(samples) // 1) - 1))]
    found = percentile_ms(buckets, share)
    at = lag_bucket(exact)
    assert (LAG_BOUNDS_MS[at - 1] if at else 0) <= found <= LAG_BOUNDS_MS[at]


def test_percentiles_of_nothing_and_beyond_the_last_bound() -> None:
    assert percentile_ms([0] * LAG_BUCKETS, 0.99) == 0
    assert percentile_ms([0] * (LAG_BUCKETS - 1) + [5], 0.99) == LAG_BOUNDS_MS[-1]


@given(st.sets(st.text(min_size=1), max_size=40), st.sets(st.text(min_size=1), max_size=40))
def test_small_sketches_are_exact_and_merge(one: set[str], two: set[str]) -> None:
    marks = [mark("t", user) for user in [*one, *two]]
    merged = cut(marks, 256)
    assert estimate(merged, 256) == len(one | two)
    assert unpacked(packed(merged)) == merged


def test_a_growing_sketch_stays_small_and_about_right() -> None:
    sketch = Sketch(64)
    for n in range(10_000):
        sketch.add(mark("t", f"u{n % 5_000}"))
    assert len(sketch.marks) == 64
    assert 2_500 < estimate(sketch.marks, 64) < 8_000


def test_marks_are_no_names_and_differ_by_tenant() -> None:
    assert mark("a", "alice") != mark("b", "alice")
    assert mark("a", "alice") == mark("a", "alice")
    assert len(mark("a", "用户\udcff")) == 12


# ── readiness ──


def census_row(live: int, *, instance: bool) -> CensusRow:
    row = Row("sse", "native", instance=instance)
    return CensusRow(row=row, connects=1, live=live, users=1, first_ms=0, last_ms=0)


def ready(record: StageRecord, **fields: Any) -> tuple[list[str], list[str]]:
    """Codes of reasons and warnings."""
    evidence = Evidence(
        window=fields.pop("window", GOOD),
        totals=fields.pop("totals", replace(GOOD, compared=100)),
        census=Census(fields.pop("rows", ()), 0),
        **fields,
    )
    found = readiness(record, evidence, NOW)
    assert found.ready == (not found.reasons)
    assert all(one.text and one.code for one in (*found.reasons, *found.warnings))
    return [one.code for one in found.reasons], [one.code for one in found.warnings]


@pytest.mark.parametrize("stage", [Stage.SSE, Stage.SHADOW, Stage.FALLBACK])
def test_a_healthy_tenant_may_go_on(stage: Stage) -> None:
    assert ready(StageRecord(stage=stage)) == ([], [])
    assert readiness(
        StageRecord(stage=stage), Evidence(window=GOOD, totals=GOOD, census=Census((), 0)), NOW
    ).next == str(list(Stage)[stage.rank + 1])


def test_the_first_stage_needs_no_sockets() -> None:
    empty = Window(0)
    assert ready(StageRecord(stage=Stage.SSE), window=empty, totals=empty) == ([], [])


def test_a_cohort_of_the_first_stage_keeps_nobody_from_the_second() -> None:
    """Users outside the cohort are in the stage before, and before the first there is none."""
    assert ready(StageRecord(stage=Stage.SSE, cohort=Cohort(percent=10)))[0] == []


def test_the_last_stage_has_none_after_it() -> None:
    reasons, warnings = ready(StageRecord(stage=Stage.WEBSOCKET), rows=(census_row(4, instance=True),))
    assert reasons == ["last-stage"] and warnings == ["no-sunset"]
    scheduled = StageRecord(stage=Stage.WEBSOCKET, sunset_at=int(NOW) + 100)
    assert ready(scheduled, rows=(census_row(4, instance=True),))[1] == ["streams-at-sunset"]


def test_every_reason_has_its_code() -> None:
    held = StageRecord(stage=Stage.SSE, held_until=int(NOW) + 60)
    assert ready(held)[0] == ["held"]
    part = StageRecord(stage=Stage.SHADOW, cohort=Cohort(percent=10))
    assert ready(part)[0] == ["cohort-not-everybody"]
    shadow = StageRecord(stage=Stage.SHADOW)
    nothing = Window(0)
    assert ready(shadow, window=nothing, totals=nothing)[0] == ["too-few-sockets", "too-few-compared"]
    wrong = replace(GOOD, compared=100, mismatched=2)
    assert ready(shadow, totals=wrong)[0] == ["mismatches"]
    assert ready(shadow, window=wrong)[0] == ["budget-parity-mismatches"]
    fallback = StageRecord(stage=Stage.FALLBACK)
    assert ready(fallback, totals=replace(GOOD, ws_fell_back=50))[0] == ["open-failures"]
    assert ready(fallback, window=replace(GOOD, ws_abnormal=50))[0] == ["budget-abnormal-close-percent"]


def test_warnings_do_not_stand_in_the_way() -> None:
    record = StageRecord(stage=Stage.FALLBACK, cohort=Cohort(deny=("bob",)), budgets=Budgets(enabled=False))
    reasons, warnings = ready(record, rows=(census_row(3, instance=False),), changed_s=NOW - 60)
    assert reasons == []
    assert warnings == ["guard-off", "denied-users", "young-stage", "still-on-sse"]
