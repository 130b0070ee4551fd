"""What older backends say, read and said again: every shape of contract sections 3.1, 3.4 and 6.6, and
whatever else may come."""

from __future__ import annotations

import contextlib
import json
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dualcast.dialects.conversations import Frames
from dualcast.model.publication import Entry, Publication
from dualcast.publishing.notification import Notification as Canonical
from dualcast.tasks.model import Task
from dualcast_migration.older_shapes import (
    Broadcast,
    Notification,
    Presence,
    Progress,
    Unreadable,
    eight_keys,
    frame,
    notification_data,
    progress_data,
    read,
    task_data,
)

NOW_MS = 1_769_860_800_000
NOW = "2026-01-31T12:00:00.000000Z"
EIGHT = {
    "id": "n1",
    "type": "analysis",
    "title": "分析完成",
    "content": "000001 分析已完成",
    "link": "/stocks/000001",
    "source": "analysis",
    "status": "unread",
    "created_at": "2026-01-31T12:00:00",
}


def said(channel: str, body: Any) -> Any:
    return read(channel, json.dumps(body).encode())


def notified(**fields: Any) -> dict[str, Any]:
    found = said("notifications:u1", fields)
    assert isinstance(found, Notification)
    data, kind = notification_data(found, found.id or "made", NOW_MS)
    decoded: dict[str, Any] = json.loads(data)
    assert decoded["type"] == kind
    # The very bytes publishing would have made: every dialect relies on that shape.
    canonical = msgspec.json.decode(data, type=Canonical)
    assert msgspec.json.encode(canonical) == data
    return decoded


def test_the_eight_keys_become_the_canonical_notification_and_come_back() -> None:
    data = notified(**EIGHT)
    assert {key: data[key] for key in EIGHT} == {**EIGHT, "created_at": NOW}
    assert (data["level"], data["priority"], data["data"]) == ("info", "normal", {})
    assert json.loads(eight_keys(json.dumps(data).encode())) == {**EIGHT, "created_at": NOW}


@pytest.mark.parametrize("title", [None, "", "   ", 7, ["x"]])
def test_a_missing_title_and_type_are_filled(title: Any) -> None:
    data = notified(id="n1", title=title, type=title)
    assert (data["title"], data["type"]) == ("Notification", "system")


@pytest.mark.parametrize(
    ("given_", "found"),
    [
        ("2026-01-31T12:00:00", NOW),
        ("2026-01-31T20:00:00+08:00", NOW),
        ("2026-01-31 12:00:00", NOW),
        ("now", NOW),
        (None, NOW),
        (1_769_860_800, NOW),
    ],
)
def test_times_are_utc(given_: Any, found: str) -> None:
    assert notified(**{**EIGHT, "created_at": given_})["created_at"] == found


def test_odd_values_are_made_to_fit() -> None:
    data = notified(
        id=42, title="a\nb\u2028c", content={"k": 1}, link="", source=None, status="gone", type="t\x00y"
    )
    assert (data["id"], data["title"], data["content"]) == ("42", "a b c", '{"k":1}')
    assert (data["link"], data["source"], data["status"], data["type"]) == (None, None, "unread", "t y")
    assert len(notified(id="n", title="x" * 9999)["title"]) == 512
    assert notified(id="with space", title="t")["id"] == "made"
    assert notified(id=True, title="t")["id"] == "made"
    assert notified(id="n", title="t", status="read")["status"] == "read"


@pytest.mark.parametrize(
    ("fields", "state", "error"),
    [
        ({"message": "正在分析..."}, "processing", None),
        ({"message": "x", "status": "completed"}, "completed", None),
        ({"message": "x", "status": "failed", "error": "why"}, "failed", "why"),
        ({"message": "x", "status": "cancelled"}, "cancelled", "x"),
        ({"message": "🎉 任务成功完成: 000001"}, "completed", None),
        ({"message": "❌ 任务失败: 超时"}, "failed", "❌ 任务失败: 超时"),
        ({"message": "not 🎉 任务成功完成"}, "processing", None),
        ({"status": ["completed"]}, "processing", None),
    ],
)
def test_how_a_task_ends(fields: dict[str, Any], state: str, error: str | None) -> None:
    found = said("task_progress:T1", fields)
    assert isinstance(found, Progress)
    assert (found.task, found.state, found.error) == ("T1", state, error)
    task = msgspec.json.decode(task_data(found, "alice", 7, NOW_MS), type=Task)
    assert (task.id, task.owner, task.state, task.revision) == ("T1", "alice", state, 7)
    assert task.finished == (state != "processing")


def test_numbers_of_progress() -> None:
    def numbers(**fields: Any) -> tuple[Any, ...]:
        found = said("task_progress:T1", fields)
        return found.step, found.total_steps, found.percent

    assert numbers(step=1, total_steps=5, progress=20.0) == (1, 5, 20.0)
    assert numbers(step=6, total_steps=5) == (None, None, None)
    assert numbers(step=-1, total_steps="5", progress=120) == (None, None, None)
    assert numbers(step=True, progress=True) == (None, None, None)
    big = said("task_progress:T1", {"status": "completed", "result": "x" * 20_000})
    assert big.result is None


def test_a_task_as_older_backends_say_it() -> None:
    task = msgspec.to_builtins(
        Task(id="T1", owner="u", state="failed", step=2, total_steps=5, message="m", updated_ms=NOW_MS)
    )
    assert json.loads(progress_data(task)) == {
        "task_id": "T1",
        "message": "m",
        "timestamp": NOW,
        "step": 2,
        "total_steps": 5,
        "progress": 40.0,
        "status": "failed",
        "error": "m",
    }
    # And that is read as what it was.
    again = read("task_progress:T1", progress_data(task))
    assert isinstance(again, Progress)
    assert (again.state, again.step, again.percent) == ("failed", 2, 40.0)


def broadcast(payload: Any, **fields: Any) -> Broadcast:
    body = {
        "target_user_id": "u1",
        "payload": payload,
        "instance_id": "x",
        "timestamp": "2026-01-31T12:00:00",
    }
    found = said("ws:broadcast", {**body, **fields})
    assert isinstance(found, Broadcast)
    return found


@pytest.mark.covers("R30", "R31")
@pytest.mark.parametrize("key", ["event", "action", "event_type", "type"])
def test_a_frame_gets_the_names_it_lacks(key: str) -> None:
    name, data = frame(broadcast({key: "new_message", "data": {"timestamp": "2026-01-31T12:00:00"}}), NOW_MS)
    found = json.loads(data)
    assert name == "new_message"
    assert (found["event"], found["action"], found["event_type"]) == ("new_message",) * 3
    assert found["timestamp"] == found["data"]["timestamp"] == NOW
    assert list(found)[:4] == ["event", "action", "event_type", "data"]
    assert list(found)[-1] == "timestamp"
    publication = Publication("t", "e", 1, "i", "conversation.frame", data, NOW_MS)
    assert Frames()(Entry(publication, "user:u1")) == data


@pytest.mark.parametrize("given_", [{"event": "typing_status"}, {"event_type": "typing_update"}])
def test_typing_has_its_own_event_type(given_: dict[str, str]) -> None:
    name, data = frame(broadcast(given_), NOW_MS)
    found = json.loads(data)
    assert name == found["event"] == "typing_status"
    assert found["event_type"] == "typing_update"


@pytest.mark.covers("R31")
@pytest.mark.parametrize("time", ["now", None, "", 12, "2026-01-31T20:00:00+08:00"])
def test_a_frame_has_a_proper_time(time: Any) -> None:
    _, data = frame(broadcast({"event": "e", "timestamp": time}), NOW_MS)
    assert json.loads(data)["timestamp"] == NOW
    _, data = frame(broadcast({"event": "e"}, timestamp=None), NOW_MS)
    assert json.loads(data)["timestamp"] == NOW


def test_a_frame_without_a_name_is_none() -> None:
    with pytest.raises(Unreadable):
        frame(broadcast({"data": {}}), NOW_MS)


def test_whom_a_broadcast_is_for() -> None:
    found = broadcast({}, target_connection_id="c1", target_device_type="mobile")
    assert (found.user, found.connection, found.device) == ("u1", "c1", "")
    assert broadcast({}, target_user_id=None, target_connection_id="c1").user == ""
    found = broadcast({}, target_device_type="mobile")
    assert (found.user, found.connection, found.device) == ("u1", "", "mobile")
    assert broadcast({}, target_user_id=7).user == "7"


def test_presence_and_what_dualcast_says_itself() -> None:
    body = {"event_type": "user_online", "user_id": "u1", "instance_id": "i1"}
    assert said("ws:presence", body) == Presence("u1", "i1", True)
    assert said("ws:presence", {**body, "event_type": "user_offline"}) == Presence("u1", "i1", False)
    assert said("ws:presence", {**body, "event_type": "device_connected"}) is None
    own = {**body, "instance_id": "dualcast-n1"}
    assert said("ws:presence", own) is None
    assert said("ws:broadcast", {**own, "target_user_id": "u1", "payload": {}}) is None


@pytest.mark.parametrize(
    ("channel", "payload"),
    [
        ("notifications:u1", b"{"),
        ("notifications:u1", b"[]"),
        ("notifications:u1", b'"text"'),
        ("notifications:u1", b'{"a":"\xff"}'),
        ("notifications:", b"{}"),
        ("notifications:" + "x" * 300, b"{}"),
        ("notifications:a\nb", b"{}"),
        ("task_progress:", b"{}"),
        ("ws:broadcast", b"{}"),
        ("ws:broadcast", b'{"payload":{}}'),
        ("ws:broadcast", b'{"payload":[],"target_user_id":"u"}'),
        ("ws:broadcast", b'{"payload":{},"target_user_id":{}}'),
        ("ws:presence", b'{"event_type":"user_online"}'),
        ("ws:broadcast", b'{"payload":' + b'{"a":' * 200 + b"1" + b"}" * 201),
        ("notifications:u1", b"[" * 100_000),
    ],
)
def test_what_is_none_of_it_is_unreadable(channel: str, payload: bytes) -> None:
    with pytest.raises(Unreadable):
        read(channel, payload)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)
KEYS = [*EIGHT, "message", "status", "step", "total_steps", "progress", "result", "error", "payload", "event"]
KEYS += [
    "target_user_id",
    "target_connection_id",
    "target_device_type",
    "event_type",
    "user_id",
    "instance_id",
]
CHANNELS = ["notifications:u1", "task_progress:T1", "ws:broadcast", "ws:presence"]


@given(st.sampled_from(CHANNELS), st.dictionaries(st.sampled_from(KEYS), JSON))
def test_whatever_comes_is_read_or_refused(channel: str, body: dict[str, Any]) -> None:
    try:
        found = read(channel, json.dumps(body).encode())
        if isinstance(found, Notification):
            data, _ = notification_data(found, "i", NOW_MS)
            assert msgspec.json.encode(msgspec.json.decode(data, type=Canonical)) == data
        elif isinstance(found, Progress):
            msgspec.json.decode(task_data(found, "o", 1, NOW_MS), type=Task)
        elif isinstance(found, Broadcast):
            _, data = frame(found, NOW_MS)
            assert b"\n" not in data
            assert {"event", "action", "event_type", "data", "timestamp"} <= set(json.loads(data))
    except Unreadable:
        pass


@given(st.sampled_from(CHANNELS), st.binary(max_size=60))
def test_any_bytes_are_read_or_refused(channel: str, payload: bytes) -> None:
    with contextlib.suppress(Unreadable):
        read(channel, payload)
