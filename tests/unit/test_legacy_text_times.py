"""R31 for `rooms` and `topics`: whatever a publisher writes, a textual time of a frame is UTC with `Z`."""

from __future__ import annotations

import json
import re
from typing import Any

import msgspec
import pytest

from dualcast.dialects import rooms, topics
from dualcast.gateway.legacy.notices import rooms_notification, topics_notification
from dualcast.model.principal import Principal
from dualcast.model.publication import Entry, Publication
from dualcast.publishing.drafts import Drafter
from dualcast.publishing.payload import decode
from dualcast.publishing.requests import NotificationRequest
from support.legacy_text_vectors import vectors

UTC = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z")
KEYS = ("timestamp", "created_at", "expires_at", "started_at", "completed_at", "connected_at")
DECODER = msgspec.json.Decoder(NotificationRequest)
NOW_MS = 1_769_860_800_000
NOW = "2026-01-31T12:00:00.000000Z"


def times(value: Any) -> list[str]:
    """Every text under a key that is a time, at any depth."""
    if isinstance(value, list):
        return [text for item in value for text in times(item)]
    if not isinstance(value, dict):
        return []
    own = [text for key, text in value.items() if key in KEYS and isinstance(text, str)]
    return own + [text for item in value.values() for text in times(item)]


def frame(contract: Any, event: str, channel: str, data: Any) -> dict[str, Any]:
    body = data if isinstance(data, bytes) else json.dumps(data).encode()
    publication = Publication("default", "e", 1, "p1", event, body, NOW_MS)
    found: dict[str, Any] = json.loads(contract.encode(Entry(publication, channel)))
    return found


@pytest.mark.covers("R31")
@pytest.mark.parametrize("dialect", ["rooms", "topics"])
def test_r31_every_time_of_every_golden_frame(dialect: str) -> None:
    found = []
    for key in ("publication", "opening", "client", "stats"):
        for parameter in vectors(dialect, key):
            (vector,) = parameter.values
            if vector.get("publication", {}).get("event") != "sync_update":  # the publisher's, unchanged
                found += [text for one in vector["ws"] for text in times(json.loads(one))]
    assert len(found) > 20
    assert [text for text in found if not UTC.fullmatch(text)] == []


@pytest.mark.covers("R31")
@pytest.mark.parametrize(
    ("said", "told"),
    [
        ("now", NOW),
        ("", NOW),
        (None, NOW),
        ("2026-01-31T20:00:01+08:00", "2026-01-31T12:00:01.000000Z"),
        ("2026-01-31 12:00:01", "2026-01-31T12:00:01.000000Z"),
        (1769860800.5, 1769860800.5),
    ],
)
def test_r31_a_publisher_that_writes_now_tells_the_time_of_the_publication(said: Any, told: Any) -> None:
    message = {"type": "x", "timestamp": said}
    assert frame(topics, "topic_message", "topic:a", message)["timestamp"] == told
    assert frame(rooms, "room_message", "room:a", message)["timestamp"] == told


@pytest.mark.covers("R31")
def test_r31_times_inside_of_messages() -> None:
    said = {"text": "hi", "created_at": "2026-01-31T13:00:00+01:00"}
    wanted = {"text": "hi", "created_at": NOW}
    assert frame(topics, "admin_broadcast", "all", {"data": said, "sender": "a"})["data"] == wanted
    assert frame(rooms, "room_message", "room:a", said)["data"] == wanted
    progress = {"type": "import_progress", "data": {"started_at": "now", "created_at": "2026-01-31T12:00:00"}}
    data = frame(topics, "topic_message", "topic:import:t1", progress)["data"]
    assert (data["created_at"], data["started_at"], data["completed_at"]) == (NOW, None, None)


@pytest.mark.covers("R31")
def test_r31_times_a_publisher_adds_to_a_notification() -> None:
    """`created_at` is no key of the table in `topics`, nor `timestamp` in `rooms`: kept, and made UTC."""
    own = {"created_at": "2026-01-31T12:00:00", "timestamp": "2026-01-31T12:00:00"}
    for make, contract, key in (
        (rooms_notification, rooms, "message"),
        (topics_notification, topics, "content"),
    ):
        asked = make({"title": "T", key: "M", "started_at": "2026-01-31T13:00:00+01:00", **own})
        request = decode(json.dumps({**asked, "to": {"user": "u1"}}).encode(), DECODER)
        data = Drafter(10_000).draft(Principal("default", "backend"), request, now_ms=NOW_MS).data
        told = frame(contract, "notification", "user:u1", data)
        assert len(times(told)) >= 4
        assert set(times(told)) == {NOW}


def test_progress_without_data_has_its_13_keys_and_no_more() -> None:
    message = {"type": "import_progress", "task_id": "t1", "data": None}
    assert len(frame(topics, "topic_message", "topic:import:t1", message)["data"]) == 13
