"""The Python client reads the older contracts' bodies as the server's older endpoints do."""

from __future__ import annotations

import json
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dualcast.gateway.legacy import conversations as legacy_chat
from dualcast.gateway.legacy import notices
from dualcast.publishing.payload import Invalid
from dualcast.publishing.requests import NotificationRequest
from support.client_package import bodies, shapes

ALICE = bodies.Target(user="alice")

NEW = {"id": st.sampled_from(["n1", 7]), "title": st.sampled_from(["T", "系统通知"])}
TIMES = st.sampled_from(["2026-01-31T12:00:00", "2026-01-31T12:00:00.5+02:00", "2026-01-31T12:00:00Z"])
VALUES = st.sampled_from(["x", "", None, 3, True, {"k": [1]}])
TEXT = st.sampled_from(["x", "", None])
LEVEL = st.sampled_from(["info", "success", "error", "fatal", "", None])
OBJECT = st.sampled_from([{}, {"n": 1}, None])
ROOMS = st.fixed_dictionaries(
    {"title": NEW["title"]},
    optional={
        "id": NEW["id"],
        "message": TEXT,
        "type": LEVEL,
        "notification_type": LEVEL,
        "category": TEXT,
        "priority": st.sampled_from(["low", "urgent", "extreme", None]),
        "action_url": TEXT,
        "action_data": OBJECT,
        "created_at": TIMES,
        "expires_at": TIMES,
        "own": VALUES,
        "read": VALUES,
    },
)
TOPICS = st.fixed_dictionaries(
    {"title": NEW["title"]},
    optional={
        "id": NEW["id"],
        "content": TEXT,
        "level": LEVEL,
        "data": OBJECT,
        "timestamp": TIMES,
        "own": VALUES,
        "type": VALUES,
    },
)


def as_request(found: Any) -> NotificationRequest:
    """As the server reads it."""
    return msgspec.json.decode(msgspec.json.encode(found), type=NotificationRequest)


def as_the_server_says(asked: dict[str, Any]) -> NotificationRequest:
    return as_request({**asked, "to": {"user": "alice"}})


@given(ROOMS)
def test_a_rooms_notification_is_read_as_the_older_endpoint_reads_it(body: dict[str, Any]) -> None:
    now_s = 1_769_860_000.0
    found = as_request(shapes.rooms_notification(ALICE, body, now_s))
    assert found == as_the_server_says(notices.rooms_notification(body, now_s))


@given(TOPICS)
def test_a_topics_notification_is_read_as_the_older_endpoint_reads_it(body: dict[str, Any]) -> None:
    found = as_request(shapes.topics_notification(ALICE, body))
    assert found == as_the_server_says(notices.topics_notification(body))


@pytest.mark.parametrize("body", [{}, {"title": ""}, {"title": " "}, {"title": None}, {"title": 3}])
def test_a_notification_without_a_title_is_refused_on_both_sides(body: dict[str, Any]) -> None:
    for ours, theirs in (
        (shapes.rooms_notification, notices.rooms_notification),
        (shapes.topics_notification, notices.topics_notification),
    ):
        with pytest.raises(ValueError, match="title"):
            ours(ALICE, body)
        with pytest.raises(Invalid):
            theirs(body)


def test_the_eight_keys_become_a_notification_and_others_are_left_out() -> None:
    body = {
        "id": 7,
        "type": "analysis",
        "title": "分析完成",
        "content": "000001",
        "link": "/stocks/000001",
        "source": "analysis",
        "status": "read",
        "created_at": "2026-01-31T12:00:00",
        "severity": "high",
    }
    found = json.loads(msgspec.json.encode(shapes.plain_notification(ALICE, body)))
    kept = {key: body[key] for key in ("type", "title", "content", "link", "source", "created_at")}
    assert found == {"to": {"user": "alice"}, "id": "7", **kept}
    as_request(found)


def test_a_message_keeps_what_the_publisher_says() -> None:
    body = {
        "id": "m1",
        "content": "你好",
        "sender_id": 5,
        "type": "image",
        "time": "x",
        "mood": "good",
        "is_read": True,
        "reply_to_message_id": "m0",
        "conversation_id": "other",
    }
    found = shapes.message(body)
    assert (found.id, found.sender_id, found.message_type, found.reply_to) == ("m1", "5", "image", "m0")
    assert found.extra == legacy_chat._own(body)
    assert shapes.message({"content": {"text": "x"}}).content == {"text": "x"}
    assert shapes.message({"sender_id": "u"}).content == ""


def test_users_are_texts_each_once_and_a_text_is_no_list() -> None:
    assert shapes.user_ids([1, "1", "b", 2]) == ["1", "b", "2"]
    with pytest.raises(TypeError):
        shapes.user_ids("alice")
