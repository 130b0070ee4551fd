"""The contract `notifications` as pure functions: every frame of section 3 byte for byte, and the rules
around them.
"""

from __future__ import annotations

import json
import re
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dualcast.dialects.legacy import Admission, Endpoint, Facts, LegacySettings, Opening, Refusal
from dualcast.dialects.notifications import endpoints, shown, stored
from dualcast.model.publication import Entry, Publication

ROOT = Path(__file__).parents[2]
FILE = ROOT / "tests/conformance/vectors/legacy_notifications.json"
VECTORS: list[dict[str, Any]] = json.loads(FILE.read_text(encoding="utf-8"))["vectors"]
SOCKET = "/api/ws/notifications"
STREAM = "/api/notifications/stream"
TASK_SOCKET = "/api/ws/tasks/{task_id:str}"
FLAT_SOCKET = "/api/analysis/ws/task/{task_id:str}"
TASK_STREAM = "/api/stream/tasks/{task_id:str}"
BATCH_STREAM = "/api/stream/batches/{batch_id:str}"
NUMBERS = ("step", "total_steps", "progress")
TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z")


def having(key: str) -> list[Any]:
    return [pytest.param(vector, id=vector["name"]) for vector in VECTORS if key in vector]


def endpoint(path: str, **settings: Any) -> Endpoint:
    found = endpoints(LegacySettings(**settings), lambda: 12345.678)
    return next(one for one in found if one.path == path)


def facts(given: dict[str, Any]) -> Facts:
    one = Facts(tenant="default", user=given.get("user", "u1"))
    for name in ("params", "now_ms"):
        setattr(one, name, given.get(name, getattr(one, name)))
    return one


def entry(given: dict[str, Any]) -> Entry:
    publication = Publication(
        tenant="default",
        epoch=given["epoch"],
        offset=given["offset"],
        id=given["id"],
        type=given["event"],
        data=given["data_json"].encode(),
        time_ms=given["time_ms"],
    )
    return Entry(publication, given["channel"])


def texts(found: Any) -> list[str]:
    """What goes out, as the framework takes it: b"" and () are nothing."""
    frames = [found] if isinstance(found, bytes) else list(found)
    return [frame.decode() for frame in frames if frame]


def note(**changed: Any) -> bytes:
    record = {"id": "n1", "type": "alert", "title": "T", "content": None, "link": None, "source": None}
    return json.dumps(
        {**record, "status": "unread", "created_at": "2026-01-31T12:00:00Z", **changed}
    ).encode()


def data_of(block: str) -> Any:
    """The data of a block, checked to be what section 1.10 says of blocks."""
    assert block.endswith("\n\n") and "\r" not in block
    lines = block[:-2].split("\n")
    names = [line.partition(": ")[0] for line in lines]
    assert names == [name for name in ("id", "event", "data", "retry") if name in names], "one line each"
    return json.loads(next(line for line in lines if line.startswith("data: "))[6:])


# ── the vectors ──


@pytest.mark.parametrize("vector", having("publication"))
def test_a_publication_is_these_frames(vector: dict[str, Any]) -> None:
    one = endpoint(vector["path"])
    assert texts(one.encode(entry(vector["publication"]))) == vector.get("sse", vector.get("ws"))
    if "sse" in vector:
        plain = endpoint(vector["path"], stream_ids=False)
        assert texts(plain.encode(entry(vector["publication"]))) == vector["sse_without_id"]
    if "ends" in vector:
        assert one.ends is not None and one.ends(entry(vector["publication"])) is vector["ends"]


@pytest.mark.parametrize("vector", having("facts"))
def test_the_first_frames_are_these(vector: dict[str, Any]) -> None:
    one = endpoint(vector["path"])
    opening = Opening(state=vector.get("state"), resumed=vector.get("resumed", False))
    assert texts(one.first(facts(vector["facts"]), opening)) == vector.get("sse", vector.get("ws"))
    if "ended" in vector:
        assert one.ended is not None and one.ended(opening) is vector["ended"]


@pytest.mark.parametrize("vector", having("heartbeat"))
def test_a_heartbeat_is_these_bytes(vector: dict[str, Any]) -> None:
    one = endpoint(vector["path"])
    assert one.heartbeat is not None
    assert texts(one.heartbeat(facts(vector["heartbeat"]))) == vector.get("sse", vector.get("ws"))


@pytest.mark.parametrize("vector", having("replaced"))
def test_a_replaced_stream_says_so(vector: dict[str, Any]) -> None:
    replaced = endpoint(vector["path"]).replaced
    assert replaced is not None and texts(replaced(vector["replaced"])) == vector["sse"]


# ── endpoints ──


def test_there_are_these_endpoints() -> None:
    found = {(one.transport, one.path) for one in endpoints(LegacySettings())}
    assert found == {
        ("ws", SOCKET),
        ("sse", STREAM),
        ("ws", TASK_SOCKET),
        ("ws", FLAT_SOCKET),
        ("sse", TASK_STREAM),
        ("sse", BATCH_STREAM),
    }
    assert {one.dialect for one in endpoints(LegacySettings())} == {"notifications"}


def test_sockets_and_streams_of_notifications_count_together() -> None:
    streams = set()
    for path in (SOCKET, STREAM):
        admission = endpoint(path).admit(facts({}))
        assert isinstance(admission, Admission) and admission.channels == ("all",)
        streams.add(admission.stream)
    assert len(streams) == 1


@pytest.mark.parametrize("path", [TASK_SOCKET, FLAT_SOCKET, TASK_STREAM, BATCH_STREAM])
def test_what_is_asked_for_must_be_the_users(path: str) -> None:
    name, kind = ("batch_id", "batch") if path == BATCH_STREAM else ("task_id", "task")
    streams = set()
    for ident in ("T1", "ä/ %"):
        admission = endpoint(path).admit(facts({"params": {name: ident}}))
        assert isinstance(admission, Admission)
        channel = f"{kind}:{ident}"
        assert (admission.channels, admission.owner_of, admission.state_of) == ((channel,), channel, channel)
        streams.add(admission.stream)
    assert len(streams) == 2, "each counts for itself"
    for ident in ("", "a\nb", "x" * 257):
        refused = endpoint(path).admit(facts({"params": {name: ident}}))
        assert refused == endpoint(path).not_found
    assert endpoint(path).wants == {"state"}


def test_refusals_in_the_words_that_clients_know() -> None:
    for path in (SOCKET, STREAM):
        one = endpoint(path)
        assert one.missing == one.malformed == one.bad == Refusal()
        assert (one.bad.code, one.bad.reason, one.bad.status, one.bad.detail) == (
            1008,
            "Unauthorized",
            401,
            "Unauthorized",
        )
    for path in (TASK_STREAM, BATCH_STREAM):
        one = endpoint(path)
        assert [refusal.detail for refusal in (one.missing, one.malformed, one.bad)] == [
            "No authorization header",
            "Invalid authorization format",
            "Invalid token",
        ]
    for path in (TASK_SOCKET, FLAT_SOCKET):
        one = endpoint(path)
        assert (one.not_found.code, one.not_found.reason) == (4004, "task not found")
        assert (one.bad.code, one.bad.reason, one.internal[0]) == (1008, "Unauthorized", 1011)
    assert endpoint(TASK_STREAM).not_found.detail == "Task not found"
    assert endpoint(BATCH_STREAM).not_found.detail == "Batch not found"


def test_only_dev_opens_the_older_socket_to_anonymous_callers() -> None:
    assert not any(one.anonymous for one in endpoints(LegacySettings()))
    (only,) = (one for one in endpoints(LegacySettings(dev=True)) if one.anonymous)
    assert only.path == FLAT_SOCKET
    anonymous = only.admit(facts({"user": "", "params": {"task_id": "T1"}}))
    assert isinstance(anonymous, Admission) and not anonymous.owner_of and anonymous.channels == ("task:T1",)
    known = only.admit(facts({"user": "u1", "params": {"task_id": "T1"}}))
    assert isinstance(known, Admission) and known.owner_of == "task:T1"


def test_who_beats_and_how_often() -> None:
    beats = {one.path: one.heartbeat_s for one in endpoints(LegacySettings()) if one.heartbeat}
    assert beats == {SOCKET: 30.0, STREAM: 30.0, TASK_SOCKET: 30.0, TASK_STREAM: 10.0}
    slower = LegacySettings(ws_heartbeat_s=45.0, task_heartbeat_s=7.0)
    beats = {one.path: one.heartbeat_s for one in endpoints(slower) if one.heartbeat}
    assert beats == {SOCKET: 45.0, STREAM: 45.0, TASK_SOCKET: 45.0, TASK_STREAM: 7.0}


def test_when_streams_end() -> None:
    silent = {one.path: one.silent_s for one in endpoints(LegacySettings(task_idle_s=3, batch_idle_s=4))}
    assert {path: after for path, after in silent.items() if after} == {TASK_STREAM: 3, BATCH_STREAM: 4}
    assert endpoint(TASK_STREAM).ends is None, "after a terminal event the task stream goes on"


@pytest.mark.parametrize("path", [SOCKET, TASK_SOCKET, FLAT_SOCKET])
def test_what_clients_say_is_ignored(path: str) -> None:
    for text in ("ping", '{"type":"ping"}', "{", "[]", ""):
        assert not endpoint(path).decode(text, facts({}))


# ── notifications ──


@given(title=st.text(min_size=1), content=st.text(), ident=st.text(min_size=1))
@pytest.mark.covers("R10")
def test_r10_every_data_line_parses(title: str, content: str, ident: str) -> None:
    data = note(title=title, content=content, id=ident)
    given = {"epoch": "e", "offset": 1, "id": "n1", "event": "notification", "time_ms": 1, "channel": "all"}
    one = entry({**given, "data_json": data.decode()})
    (block,) = texts(endpoint(STREAM).encode(one))
    found = data_of(block)
    assert (found["title"], found["content"], found["id"]) == (title, content, ident)
    (text,) = texts(endpoint(SOCKET).encode(one))
    assert json.loads(text) == {"type": "notification", "data": found}


def test_exactly_eight_keys_whatever_a_publisher_added() -> None:
    keys = ["id", "type", "title", "content", "link", "source", "status", "created_at"]
    assert list(shown(note(level="error", user_id="u1", metadata={}, extra={"rooms": {"a": 1}}))) == keys


def test_a_notification_without_title_and_type_is_not_dropped_by_clients() -> None:
    found = shown(note(title="", type=""))
    assert (found["title"], found["type"]) == ("Notification", "system")


def test_a_stored_one_has_the_status_of_now() -> None:
    assert json.loads(stored(note(), "read"))["status"] == "read"
    assert json.loads(stored(note(status="read"), "unread"))["status"] == "unread"


def test_a_publication_that_is_no_notification_is_left_out() -> None:
    given = {"epoch": "e", "offset": 1, "id": "n", "event": "notification", "time_ms": 1, "channel": "all"}
    for path in (SOCKET, STREAM):
        assert not texts(endpoint(path).encode(entry({**given, "data_json": '{"a":1}'})))
        assert not texts(endpoint(path).encode(entry({**given, "data_json": "1"})))


# ── rules over all vectors ──


def every(kind: str) -> list[tuple[str, list[str]]]:
    return [(vector["path"], vector[kind]) for vector in VECTORS if kind in vector]


@pytest.mark.covers("R8")
def test_r8_an_error_event_is_the_last_one_and_never_of_notifications() -> None:
    seen = 0
    for path, blocks in every("sse") + every("sse_without_id"):
        for block, after in pairwise([*blocks, ""]):
            data_of(block)
            if "event: error\n" in block:
                seen += 1
                assert path in (TASK_STREAM, BATCH_STREAM) and not after
    assert seen, "one was looked at"


@pytest.mark.covers("R33")
def test_r33_a_failure_has_the_numbers_that_are_known() -> None:
    failed = next(v for v in VECTORS if v["path"] == TASK_SOCKET and v["name"] == "failed")
    data = json.loads(failed["ws"][0])["data"]
    assert all(name in data for name in NUMBERS) and data["status"] == "failed"
    for path, frames in every("ws"):
        for frame in frames:
            told = [name in json.loads(frame).get("data", {}) for name in NUMBERS]
            assert all(told) or not any(told), (path, frame)


@pytest.mark.covers("R31")
def test_r31_every_time_text_is_utc() -> None:
    numbers = {"12345.678"}
    for kind in ("ws", "sse", "sse_without_id"):
        for _path, frames in every(kind):
            for frame in frames:
                found = json.loads(frame) if kind == "ws" else data_of(frame)
                inner = found.get("data")
                for one in (found, inner if isinstance(inner, dict) else {}):
                    for key in ("timestamp", "created_at"):
                        if isinstance(one.get(key), str) and one[key] not in numbers:
                            assert TIME.fullmatch(one[key]), frame


def test_only_last_words_set_a_retry_time() -> None:
    for _path, blocks in every("sse"):
        for block in blocks:
            assert ("\nretry: " in block) == ("event: finished\n" in block or "event: replaced\n" in block)
