"""The contract `rooms` without a socket: every frame, every client text, who is let in."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dualcast.dialects import rooms
from dualcast.dialects.legacy import Admission, Facts, Join, LegacySettings, Refusal
from support.legacy_text_vectors import entry_of, expected, facts_of, opening_of, stats_of, told, vectors

(ENDPOINT,) = rooms.endpoints(LegacySettings())


@pytest.mark.parametrize("vector", vectors("rooms", "publication"))
def test_a_publication_is_this_frame(vector: dict[str, Any]) -> None:
    frame = ENDPOINT.encode(entry_of(vector))
    assert isinstance(frame, bytes)
    assert ([frame.decode()] if frame else []) == vector["ws"]


@pytest.mark.parametrize("vector", vectors("rooms", "opening"))
def test_first_frames(vector: dict[str, Any]) -> None:
    frames = ENDPOINT.first(facts_of(vector), opening_of(vector))
    assert [frame.decode() for frame in frames] == vector["ws"]


@pytest.mark.parametrize("vector", vectors("rooms", "client"))
def test_a_client_s_text(vector: dict[str, Any]) -> None:
    assert told(ENDPOINT.decode(vector["client"], facts_of(vector))) == expected(vector)


@pytest.mark.parametrize("vector", vectors("rooms", "stats"))
def test_statistics(vector: dict[str, Any]) -> None:
    assert [rooms.stats_frame(facts_of(vector), stats_of(vector)).decode()] == vector["ws"]


@given(st.text() | st.sampled_from(('{"type":"subscribe","room":"\\ud800"}', "[" * 2000)))
def test_no_text_of_a_client_raises(text: str) -> None:
    facts = Facts(tenant="default", user="u1")
    assert told(ENDPOINT.decode(text, facts))["action"] == "reply"


@given(st.text(min_size=1, max_size=60))
def test_a_room_is_a_channel_or_an_error(name: str) -> None:
    (action,) = ENDPOINT.decode(rooms.canonical({"type": "subscribe", "room": name}).decode(), FACTS)
    assert not isinstance(action, Join) or action.channel == "room:" + name


FACTS = Facts(tenant="default", user="u1")


def admitted(path: str, *, user: str = "u1", admin: bool = False) -> Admission | Refusal:
    facts = Facts(tenant="default", user=user, admin=admin)
    facts.params = {"user_id": path}
    return ENDPOINT.admit(facts)


def test_r15_the_path_does_not_decide_who_one_is() -> None:
    assert admitted("u1") == Admission(channels=("all",), stream="rooms")
    refusal = admitted("u2")
    assert isinstance(refusal, Refusal)
    assert (refusal.code, refusal.reason) == (4003, "forbidden")
    assert admitted("u2", admin=True) == Admission(channels=("all", "user:u2"), stream="rooms", inbox_of="u2")
    assert isinstance(admitted("\n", admin=True), Refusal)


def test_refusals_have_the_contract_s_words() -> None:
    said = [(one.code, one.reason) for one in (ENDPOINT.missing, ENDPOINT.bad, ENDPOINT.malformed)]
    assert said == [
        (4001, "Authentication required"),
        (4001, "Invalid credentials"),
        (4001, "Invalid credentials"),
    ]
    assert ENDPOINT.internal == (4000, "Internal error")
    assert not ENDPOINT.anonymous
