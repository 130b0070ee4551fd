"""Budgets, brownouts and the other fields of a stage record: what is refused, and what each decides."""

from __future__ import annotations

import itertools
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dualcast_migration.budgets import DEFAULT_BUDGETS, Budgets
from dualcast_migration.cohort import Cohort
from dualcast_migration.policy import MAX_BROWNOUTS, Brownout, StageRecord, decide
from dualcast_migration.stage import Stage

NOW = 1_700_000_000
OPTIONAL = (
    "websocket_open_failure_percent",
    "abnormal_close_percent",
    "parity_mismatches",
    "reconnects_per_user",
    "lag_p99_ms",
)


def test_the_defaults() -> None:
    assert msgspec.to_builtins(Budgets()) == {
        "websocket_open_failure_percent": 5.0,
        "abnormal_close_percent": 10.0,
        "parity_mismatches": 0,
        "reconnects_per_user": 5.0,
        "lag_p99_ms": 5000,
        "window_s": 60,
        "min_samples": 20,
        "hold_off_s": 900,
        "enabled": True,
    }
    assert StageRecord().budgets is DEFAULT_BUDGETS


BAD: list[tuple[str, Any]] = [
    ("websocket_open_failure_percent", -0.1),
    ("websocket_open_failure_percent", 100.1),
    ("abnormal_close_percent", float("nan")),
    ("parity_mismatches", -1),
    ("reconnects_per_user", float("inf")),
    ("reconnects_per_user", -1),
    ("lag_p99_ms", 0),
    ("window_s", 0),
    ("window_s", 3_601),
    ("min_samples", 0),
    ("hold_off_s", -1),
    ("hold_off_s", 7 * 86_400 + 1),
]


@pytest.mark.parametrize(("name", "value"), BAD)
def test_figures_out_of_range_are_refused(name: str, value: Any) -> None:
    with pytest.raises(ValueError, match=name):
        Budgets(**{name: value})
    with pytest.raises((msgspec.ValidationError, ValueError)):
        msgspec.convert({name: value}, Budgets)


@pytest.mark.parametrize("name", Budgets.__struct_fields__)
def test_what_can_be_switched_off(name: str) -> None:
    if name in OPTIONAL:
        off = Budgets(**{name: None})
        assert msgspec.json.decode(msgspec.json.encode(off), type=Budgets) == off
    elif name != "enabled":
        with pytest.raises(ValueError, match=name):
            Budgets(**{name: None})
    with pytest.raises(msgspec.ValidationError):
        msgspec.json.decode(b'{"%s":"x"}' % name.encode(), type=Budgets)


def test_records_of_before_are_readable_and_stay_as_they_were() -> None:
    """A record without the newer fields is stored as the same bytes: seeds are told apart by their digest."""
    old = b'{"stage":"shadow"}'
    record = msgspec.json.decode(old, type=StageRecord)
    assert record == StageRecord(stage=Stage.SHADOW)
    assert msgspec.json.encode(record) == old
    assert (record.brownouts, record.fallback_scope, record.held_until, record.mirror) == (
        (),
        "instance",
        0,
        None,
    )


def test_a_full_record_survives_json() -> None:
    record = StageRecord(
        stage=Stage.WEBSOCKET,
        cohort=Cohort(5.0),
        brownouts=(Brownout(5, 1.0), Brownout(9, 0.0)),
        fallback_scope="user",
        budgets=Budgets(lag_p99_ms=None, enabled=False),
        held_until=NOW,
        mirror="always",
    )
    text = msgspec.json.encode(record)
    assert msgspec.json.decode(text, type=StageRecord) == record
    assert msgspec.json.encode(msgspec.json.decode(text, type=StageRecord)) == text


@pytest.mark.parametrize(
    "text",
    [
        b'{"brownouts":[{"at":0,"percent":1}]}',
        b'{"brownouts":[{"at":-5,"percent":1}]}',
        b'{"brownouts":[{"at":5,"percent":100.5}]}',
        b'{"brownouts":[{"at":5}]}',
        b'{"brownouts":[{"at":5,"percent":1},{"at":5,"percent":2}]}',
        b'{"brownouts":[{"at":9,"percent":1},{"at":5,"percent":2}]}',
        b'{"fallback_scope":"tenant"}',
        b'{"mirror":"sometimes"}',
        b'{"held_until":-1}',
        b'{"budgets":{"window":5}}',
    ],
)
def test_bad_records_are_refused(text: bytes) -> None:
    with pytest.raises(msgspec.ValidationError):
        msgspec.json.decode(text, type=StageRecord)


def test_a_schedule_is_bounded() -> None:
    many = tuple(Brownout(at, 1) for at in range(1, MAX_BROWNOUTS + 2))
    assert StageRecord(brownouts=many[1:])
    with pytest.raises(ValueError, match="at most"):
        StageRecord(brownouts=many)


@pytest.mark.parametrize(("now", "share"), [(9, 0), (10, 5), (19, 5), (20, 50), (29, 50), (30, 0), (99, 0)])
def test_the_share_is_that_of_the_last_brownout_begun(now: float, share: float) -> None:
    record = StageRecord(brownouts=(Brownout(10, 5), Brownout(20, 50), Brownout(30, 0)))
    assert record.brownout_percent(now) == share


@given(
    st.lists(st.tuples(st.integers(1, 100), st.floats(0, 100)), max_size=8, unique_by=lambda item: item[0]),
    st.floats(0, 120),
)
def test_the_share_against_a_plain_search(pairs: list[tuple[int, float]], now: float) -> None:
    record = StageRecord(brownouts=tuple(Brownout(at, share) for at, share in sorted(pairs)))
    begun = [(at, share) for at, share in sorted(pairs) if at <= now]
    assert record.brownout_percent(now) == (begun[-1][1] if begun else 0)


@pytest.mark.parametrize(
    ("stage", "inside", "over"), list(itertools.product(Stage, [True, False], [True, False]))
)
def test_brownouts_only_in_the_last_stage_before_its_end(stage: Stage, inside: bool, over: bool) -> None:
    record = StageRecord(
        stage=stage,
        cohort=Cohort(100 if inside else 0),
        brownouts=(Brownout(NOW - 10, 25),),
        sunset_at=NOW if over else NOW + 10,
        fallback_scope="user",
        held_until=NOW + 99,
    )
    found = decide(record, "acme", "u", NOW)
    last = inside and stage is Stage.WEBSOCKET
    assert found.brownout_percent == (25 if last and not over else 0)
    assert found.sse is not (last and over)
    assert found.fallback_scope == "user"
    effective = stage if inside else stage.previous
    assert found.may_pair is (effective is not Stage.SSE) is (found.may_mute or found.compare)
