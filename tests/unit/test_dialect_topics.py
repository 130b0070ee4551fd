"""The contract `topics` without a socket: every frame, every client text, who may subscribe."""

from __future__ import annotations

import json
from typing import Any
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dualcast.dialects import topics
from dualcast.dialects.legacy import Facts, LegacySettings, Reply
from dualcast.dialects.topics_messages import topic_frame
from support.legacy_text_vectors import entry_of, expected, facts_of, opening_of, stats_of, told, vectors

(ENDPOINT,) = topics.endpoints(LegacySettings(topics_public=("system_status", "import:t1"), topics_idle_s=7))
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=6,
)
KEYS = st.sampled_from(
    ("type", "topic", "timestamp", "task_id", "data", "created_at", "processed", "total", "progress", "x")
)


@pytest.mark.parametrize("vector", vectors("topics", "publication"))
def test_a_publication_is_this_frame(vector: dict[str, Any]) -> None:
    frame = ENDPOINT.encode(entry_of(vector))
    assert isinstance(frame, bytes)
    assert ([frame.decode()] if frame else []) == vector["ws"]


@pytest.mark.parametrize("vector", vectors("topics", "opening"))
def test_first_frames(vector: dict[str, Any]) -> None:
    frames = ENDPOINT.first(facts_of(vector), opening_of(vector))
    assert [frame.decode() for frame in frames] == vector["ws"]


@pytest.mark.parametrize("vector", vectors("topics", "client"))
def test_a_client_s_text(vector: dict[str, Any]) -> None:
    actions = ENDPOINT.decode(vector["client"], facts_of(vector))
    assert told(actions) == expected(vector)
    if "refused" in vector:
        assert actions[0].refused.decode() == vector["refused"]  # type: ignore[union-attr]


@pytest.mark.parametrize("vector", vectors("topics", "stats"))
def test_statistics(vector: dict[str, Any]) -> None:
    assert [topics.stats_frame(facts_of(vector), stats_of(vector)).decode()] == vector["ws"]


@given(st.text())
def test_no_text_of_a_client_raises(text: str) -> None:
    assert told(ENDPOINT.decode(text, Facts(tenant="default", user="u1")))["action"] == "reply"


@given(JSON | st.dictionaries(KEYS, JSON | st.dictionaries(KEYS, JSON, max_size=4), max_size=5))
def test_r29_whatever_is_published_has_topic_and_type(message: object) -> None:
    data = json.dumps(message, ensure_ascii=False).encode(errors="replace")
    frame = json.loads(topic_frame("topic:import:t1", data, 0))
    assert frame["topic"] == "import:t1"
    assert isinstance(frame["type"], str) and frame["type"]
    assert next(iter(frame)) == "type"
    assert frame["timestamp"] is not None
    if frame["type"] == "import_progress":
        assert len(frame["data"]) >= 13


def test_numbers_of_any_size_are_no_fault() -> None:
    big = "9" * 400
    data = f'{{"type":"import_progress","data":{{"processed":{big},"total":1}}}}'.encode()
    assert json.loads(topic_frame("topic:import:t1", data, 0))["data"]["progress"] == 0


def test_r17_even_a_public_import_is_not_for_everybody() -> None:
    anonymous = Facts(tenant="default", user="")
    (action,) = ENDPOINT.decode('{"type":"subscribe","topic":"import:t1"}', anonymous)
    assert action == Reply(b'{"type":"error","message":"Authentication required"}')


@pytest.mark.parametrize(
    ("asked", "given_id"), [("c1", "c1"), ("x" * 64, "x" * 64), ("x" * 65, ""), ("", "")]
)
def test_the_client_id_is_chosen_up_to_64_characters(asked: str, given_id: str) -> None:
    facts = Facts(tenant="default", user="u1")
    facts.query = {"client_id": asked}
    admission = topics.admit(facts)
    assert admission.client_id == given_id
    assert admission.channels == ("all",)
    assert ENDPOINT.fresh_id is not None
    first, second = ENDPOINT.fresh_id(facts), ENDPOINT.fresh_id(facts)
    assert UUID(first).version == 4 and first != second


def test_refusals_and_clocks() -> None:
    assert ENDPOINT.anonymous
    assert (ENDPOINT.bad.code, ENDPOINT.bad.reason) == (1008, "Unauthorized")
    assert ENDPOINT.silent_s == 7
