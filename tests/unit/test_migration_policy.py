"""Stages, cohorts and decisions: every combination, and the properties of the hash."""

from __future__ import annotations

import itertools

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dualcast.gateway.sunset import deprecation_headers
from dualcast.model.codes import Close
from dualcast_migration.cohort import BUCKETS, Cohort, bucket
from dualcast_migration.policy import (
    MAX_AT_S,
    Brownout,
    Decision,
    Deprecation,
    StageRecord,
    decide,
    effective_stage,
)
from dualcast_migration.stage import DEFAULT_STAGE, IllegalMove, Stage, check_move, may_move

SSE, SHADOW, FALLBACK, WEBSOCKET = Stage
NOW = 1_700_000_000.0
INSIDE = Cohort(percent=0, allow=("u",))
OUTSIDE = Cohort(percent=100, deny=("u",))
tenants = st.from_regex(r"[a-z0-9-]{1,20}", fullmatch=True)
users = st.text(max_size=40)
percents = st.floats(0, 100)


def test_the_stages_in_order() -> None:
    assert [str(stage) for stage in Stage] == ["sse", "shadow", "fallback", "websocket"]
    assert [stage.rank for stage in Stage] == [0, 1, 2, 3]
    assert [stage.previous for stage in Stage] == [SSE, SSE, SHADOW, FALLBACK]
    assert DEFAULT_STAGE is FALLBACK
    assert StageRecord().stage is FALLBACK


LEGAL = {
    (SSE, SHADOW),
    (SHADOW, FALLBACK),
    (FALLBACK, WEBSOCKET),
    (SHADOW, SSE),
    (FALLBACK, SHADOW),
    (FALLBACK, SSE),
    (WEBSOCKET, FALLBACK),
    (WEBSOCKET, SHADOW),
    (WEBSOCKET, SSE),
    *zip(Stage, Stage, strict=True),
}


@pytest.mark.parametrize("now,to", list(itertools.product(Stage, Stage)))
def test_moves(now: Stage, to: Stage) -> None:
    assert may_move(now, to) is ((now, to) in LEGAL)
    if may_move(now, to):
        check_move(now, to)
    else:
        with pytest.raises(IllegalMove):
            check_move(now, to)


@pytest.mark.parametrize("stage,inside", list(itertools.product(Stage, [True, False])))
def test_outside_the_cohort_the_previous_stage_holds(stage: Stage, inside: bool) -> None:
    record = StageRecord(stage=stage, cohort=INSIDE if inside else OUTSIDE)
    assert effective_stage(record, "acme", "u") is (stage if inside else stage.previous)


# effective stage: websocket, sse before the sunset, sse after it, may mute, compare, announces the end
EXPECTED = {
    SSE: (False, True, True, False, False, False),
    SHADOW: (True, True, True, False, True, False),
    FALLBACK: (True, True, True, True, False, False),
    WEBSOCKET: (True, True, False, True, False, True),
}


@pytest.mark.parametrize(
    "stage,inside,sunset", list(itertools.product(Stage, [True, False], [-1, 0, 1, None]))
)
def test_every_decision(stage: Stage, inside: bool, sunset: int | None) -> None:
    sunset_at = 0 if sunset is None else int(NOW) - sunset
    record = StageRecord(
        stage=stage,
        cohort=INSIDE if inside else OUTSIDE,
        deprecated_at=1,
        sunset_at=sunset_at,
        link="https://e.org/move",
    )
    effective = stage if inside else stage.previous
    websocket, sse_before, sse_after, may_mute, compare, ends = EXPECTED[effective]
    over = sunset is not None and sunset >= 0
    assert decide(record, "acme", "u", NOW) == Decision(
        stage=effective,
        websocket=websocket,
        sse=sse_after if over else sse_before,
        may_mute=may_mute,
        compare=compare,
        deprecation=Deprecation(1, sunset_at, "https://e.org/move") if ends else None,
    )


@pytest.mark.parametrize("stage", Stage)
def test_a_refused_websocket_has_close_code_stage(stage: Stage) -> None:
    refusal = decide(StageRecord(stage=stage), "acme", "u", NOW).websocket_refusal
    assert refusal is (Close.STAGE if stage is SSE else None)
    assert int(Close.STAGE) == 4010


@given(tenants, users, percents)
def test_deny_wins_over_allow_and_both_over_the_percentage(tenant: str, user: str, percent: float) -> None:
    assert not Cohort(percent, allow=(user,), deny=(user,)).contains(tenant, user)
    assert not Cohort(percent, deny=(user,)).contains(tenant, user)
    assert Cohort(percent, allow=(user,)).contains(tenant, user)


@given(tenants, users)
def test_nobody_at_0_and_everybody_at_100(tenant: str, user: str) -> None:
    assert not Cohort(0).contains(tenant, user)
    assert Cohort(100).contains(tenant, user)
    assert 0 <= bucket(tenant, user) < BUCKETS


def test_the_smallest_share_is_not_nobody() -> None:
    first = next(f"u{n}" for n in range(100_000) if bucket("acme", f"u{n}") == 0)
    second = next(f"u{n}" for n in range(100_000) if bucket("acme", f"u{n}") == 1)
    for percent in (0.01, 0.001, 5e-324):
        assert Cohort(percent).contains("acme", first) and not Cohort(percent).contains("acme", second)


@given(tenants, users, percents, percents)
def test_raising_the_percentage_never_removes_anybody(tenant: str, user: str, a: float, b: float) -> None:
    low, high = sorted((a, b))
    assert Cohort(high).contains(tenant, user) >= Cohort(low).contains(tenant, user)


@pytest.mark.parametrize(
    "tenant,user,expected",
    [("default", "alice", 9807), ("acme", "alice", 8417), ("acme", "auth0|1", 2112), ("acme", "房间", 731)],
)
def test_the_hash_is_the_same_for_ever(tenant: str, user: str, expected: int) -> None:
    assert bucket(tenant, user) == expected


def test_a_percentage_takes_about_that_share_and_tenants_differ() -> None:
    people = [f"user-{n}" for n in range(4_000)]
    inside = {user for user in people if Cohort(25).contains("acme", user)}
    other = {user for user in people if Cohort(25).contains("globex", user)}
    assert 880 < len(inside) < 1_120
    assert 880 < len(other) < 1_120
    assert 180 < len(inside & other) < 320


@pytest.mark.parametrize(
    "text",
    [
        b'{"stage":"nowhere"}',
        b'{"cohort":{"percent":101}}',
        b'{"cohort":{"percent":-0.01}}',
        b'{"cohort":{"size":1}}',
        b'{"sunset_at":-1}',
        b'{"deprecated_at":20,"sunset_at":10}',
        b'{"link":"https://e.org/\\r\\nSet-Cookie: a"}',
        b'{"link":"https://e.org/>; rel=x"}',
    ],
)
def test_bad_records_are_refused(text: bytes) -> None:
    with pytest.raises(msgspec.ValidationError):
        msgspec.json.decode(text, type=StageRecord)


def test_bad_cohorts_are_refused() -> None:
    for percent in (-1, 100.5, float("nan")):
        with pytest.raises(ValueError, match="percent"):
            Cohort(percent)
    with pytest.raises(ValueError, match="1000 users"):
        Cohort(allow=tuple(map(str, range(1_001))))


def test_a_record_survives_json() -> None:
    record = StageRecord(stage=WEBSOCKET, cohort=Cohort(12.5, ("a",), ("b",)), sunset_at=5)
    assert msgspec.json.decode(msgspec.json.encode(record), type=StageRecord) == record


@pytest.mark.parametrize("at", [MAX_AT_S + 1, 2**40, 2**70])
def test_times_no_calendar_has_are_refused(at: int) -> None:
    with pytest.raises(ValueError, match="10000"):
        StageRecord(sunset_at=at)
    with pytest.raises(ValueError, match="10000"):
        StageRecord(deprecated_at=at)
    with pytest.raises(ValueError, match="10000"):
        Brownout(at, 5)
    told = Deprecation(MAX_AT_S, MAX_AT_S, "")
    assert dict(deprecation_headers(told, "/v1/socket"))[b"sunset"] == b"Fri, 31 Dec 9999 23:59:59 GMT"


def test_a_cohort_within_another() -> None:
    for inner, outer, inside in (
        (Cohort(5), Cohort(10), True),
        (Cohort(11), Cohort(10), False),
        (Cohort(10, ("a",)), Cohort(10), False),
        (Cohort(10, ("a",)), Cohort(), True),
        (Cohort(10), Cohort(10, ("a",), ("b",)), False),
        (Cohort(10, (), ("b",)), Cohort(10, ("a",), ("b",)), True),
    ):
        assert inner.within(outer) is inside, (inner, outer)
