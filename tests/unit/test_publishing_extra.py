"""Keys of one older contract (`extra`) and a publisher's own time, on their way into the notification."""

from __future__ import annotations

import json
from typing import Any

import msgspec
import pytest

from dualcast.dialects.legacy_notification import for_notifications, for_rooms, for_topics, parse
from dualcast.model.errors import LimitExceeded
from dualcast.model.principal import Principal
from dualcast.model.publication import Draft
from dualcast.model.times import to_utc
from dualcast.publishing.drafts import Drafter
from dualcast.publishing.payload import Invalid
from dualcast.publishing.requests import NotificationRequest

BACKEND = Principal("default", "backend", frozenset({"publisher"}))


def draft(**fields: Any) -> Draft:
    body = json.dumps({"to": {"user": "u1"}, "title": "T", **fields}).encode()
    request = msgspec.json.decode(body, type=NotificationRequest)
    return Drafter(1000).draft(BACKEND, request, now_ms=1_769_860_800_000)


def test_without_extra_there_is_no_key() -> None:
    for fields in ({}, {"extra": {}}):
        assert list(json.loads(draft(**fields).data))[-1] == "data"


def test_extra_is_the_last_key_and_comes_back_in_its_contract_only() -> None:
    data = draft(extra={"rooms": {"icon": " bell "}, "topics": {"sound": 1}}).data
    assert data.endswith(b'"data":{},"extra":{"rooms":{"icon":" bell "},"topics":{"sound":1}}}')
    note = parse(data)
    assert "icon" in for_rooms(note) and "sound" not in for_rooms(note)
    assert "sound" in for_topics(note) and "icon" not in for_topics(note)
    assert list(for_notifications(note)) == [
        *("id", "type", "title", "content", "link", "source", "status", "created_at")
    ]


def test_extra_never_takes_the_place_of_the_table() -> None:
    own = {"id": "x", "title": "x", "message": "x", "content": "x", "data": "x", "created_at": "x"}
    note = parse(draft(id="n1", content="C", extra={"rooms": own, "topics": own}).data)
    assert (for_rooms(note)["id"], for_rooms(note)["message"]) == ("n1", "C")
    assert (for_topics(note)["id"], for_topics(note)["content"]) == ("n1", "C")
    assert for_rooms(note)["created_at"] == "2026-01-31T12:00:00.000000Z"


@pytest.mark.parametrize("extra", [None, 1, [], {"rooms": 1}, {"rooms": []}, {"other": {}}])
def test_extra_of_another_shape(extra: Any) -> None:
    with pytest.raises(Invalid):
        draft(extra=extra)


def test_extra_is_bounded() -> None:
    with pytest.raises(LimitExceeded):
        draft(extra={"rooms": {"x": "x" * 1000}})


def test_extra_is_part_of_what_an_id_stands_for() -> None:
    one, same, other = (draft(id="n1", extra={"rooms": {"x": x}}).fingerprint for x in (1, 1, 2))
    assert one == same != other


def test_a_time_of_the_publisher_s_own() -> None:
    data = json.loads(draft(created_at="2026-01-30T13:00:00+01:00").data)
    assert data["created_at"] == "2026-01-30T12:00:00.000000Z"
    for bad in ("yesterday..", "2026-01-30 ", "2026-13-30T00:00:00"):
        with pytest.raises(Invalid):
            draft(created_at=bad)


@pytest.mark.covers("R31")
@pytest.mark.parametrize(
    ("text", "utc"),
    [
        ("2026-01-31T12:00:00", "2026-01-31T12:00:00.000000Z"),
        ("2026-01-31 12:00:00.5", "2026-01-31T12:00:00.500000Z"),
        ("2026-01-31T12:00:00Z", "2026-01-31T12:00:00.000000Z"),
        ("2026-01-31T12:00:00.123456Z", "2026-01-31T12:00:00.123456Z"),
        ("2026-01-31T20:00:00+08:00", "2026-01-31T12:00:00.000000Z"),
        ("2026-01-31T12:00", "2026-01-31T12:00:00.000000Z"),
        ("0001-01-01T00:00:00+08:00", None),
        ("2026-01-31", None),
        ("now", None),
        ("12345.678", None),
        ("2026-01-31T25:00:00", None),
        ("", None),
    ],
)
def test_times_are_utc(text: str, utc: str | None) -> None:
    assert to_utc(text) == utc
