"""The rules of muting, one fact changed at a time."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dualcast_migration.muting import (
    Pairs,
    SocketFacts,
    StreamFacts,
    covers,
    may_mute,
    may_stay,
    moved,
    pair_key,
    pairs_of,
)
from dualcast_migration.policy import StageRecord, decide
from dualcast_migration.stage import Stage


def socket(**fields: Any) -> SocketFacts:
    facts: dict[str, Any] = {
        "id": "w",
        "epoch": "e1",
        "start": 10,
        "life": 2,
        "confirmed": 12,
        "channels": frozenset({"all", "user:u"}),
        "roles": frozenset({"a"}),
        "device": "web",
        "stands_for": frozenset({"s"}),
    }
    return SocketFacts(**{**facts, **fields})


def stream(**fields: Any) -> StreamFacts:
    facts: dict[str, Any] = {
        "id": "s",
        "epoch": "e1",
        "offset": 10,
        "channels": frozenset({"all", "user:u"}),
        "roles": frozenset({"a"}),
        "device": "web",
    }
    return StreamFacts(**{**facts, **fields})


def test_all_conditions_together_mute() -> None:
    assert may_mute(socket(), stream()) and may_stay(socket(), stream(), 2)


@pytest.mark.parametrize(
    "fields",
    [
        {"epoch": "e2"},
        {"channels": frozenset({"all"})},
        {"roles": frozenset()},
        {"device": ""},
        {"device": "mobile"},
        {"stands_for": frozenset()},
        {"confirmed": -1},
    ],
)
def test_each_condition_of_the_socket_is_needed_at_the_beginning_and_later(fields: dict[str, Any]) -> None:
    assert not may_mute(socket(**fields), stream())
    assert not may_stay(socket(**fields), stream(), 2)


def test_the_beginning_needs_more() -> None:
    assert not may_mute(socket(start=11), stream()), "the stream has not got as far"
    assert not may_mute(socket(start=-1), stream()), "where the socket begins is not known"
    assert not may_mute(socket(), stream(offset=-1)), "nor where the stream is"
    assert may_stay(socket(start=99), stream(), 2), "a channel more changes nothing for those muted"
    assert not may_stay(socket(), stream(), 1), "a hole does"


def test_no_epoch_is_no_epoch() -> None:
    assert not covers(socket(epoch=""), stream(epoch=""))


def test_a_socket_may_have_more_and_a_stream_of_no_device_fits_any() -> None:
    more = socket(channels=frozenset({"all", "user:u", "topic:x"}), roles=frozenset({"a", "b"}))
    assert may_mute(more, stream()) and may_mute(socket(), stream(device=""))


@given(st.integers(0, 100), st.integers(-1, 100))
def test_a_position_never_goes_back(position: int, confirmed: int) -> None:
    assert moved(position, socket(confirmed=confirmed)) == max(position, confirmed)


@pytest.mark.parametrize(
    ("stage", "pairs"),
    [
        (Stage.SSE, None),
        (Stage.SHADOW, Pairs(False)),
        (Stage.FALLBACK, Pairs(True)),
        (Stage.WEBSOCKET, Pairs(True)),
    ],
)
def test_who_pairs_in_which_stage(stage: Stage, pairs: Pairs | None) -> None:
    assert pairs_of(decide(StageRecord(stage), "t", "u", 0)) == pairs


def test_scope_user() -> None:
    assert pairs_of(decide(StageRecord(fallback_scope="user"), "t", "u", 0)) == Pairs(True, by_user=True)


NAMES = st.text(min_size=1, max_size=5)


@given(st.lists(st.tuples(st.sampled_from(["t", "t2"]), NAMES, NAMES), min_size=2, max_size=2, unique=True))
def test_no_two_instances_have_the_same_key(both: list[tuple[str, str, str]]) -> None:
    try:
        keys = [pair_key(*one, Pairs(True)) for one in both]
    except UnicodeEncodeError:
        return  # no id is like this
    assert keys[0] != keys[1] and not any(sign.isspace() for sign in "".join(keys))


def test_who_has_no_key() -> None:
    assert pair_key("t", "u", "tab", None) == ""
    assert pair_key("t", "", "tab", Pairs(True)) == ""
    assert pair_key("t", "u", "", Pairs(True)) == ""
    assert pair_key("t", "u", "tab", Pairs(True, by_user=True)) == pair_key("t", "u", "", Pairs(True, True))
