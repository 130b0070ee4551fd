"""The contract `progress` as pure functions: every frame of section 7 byte for byte, and the rules around
them.
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

from dualcast.dialects.legacy import (
    Admission,
    Endpoint,
    Facts,
    Farewell,
    LegacySettings,
    Opening,
    Refusal,
    Reply,
)
from dualcast.dialects.progress import (
    Frames,
    admit,
    connected,
    decode,
    endpoints,
    full,
    left,
    percentage,
    ping,
    target_channel,
)
from dualcast.model.errors import BadChannel
from dualcast.model.publication import Entry, Publication

ROOT = Path(__file__).parents[2]
FILE = ROOT / "tests/conformance/vectors/legacy_progress.json"
VECTORS: list[dict[str, Any]] = json.loads(FILE.read_text(encoding="utf-8"))["vectors"]
NUMBERS = ("progress", "total", "percentage")


def having(key: str) -> list[Any]:
    return [pytest.param(vector, id=vector["name"]) for vector in VECTORS if key in vector]


def facts(**given: Any) -> Facts:
    one = Facts(tenant="default", user=given.pop("user", "u1"), admin=given.pop("admin", False))
    for name, value in given.items():
        setattr(one, name, value)
    return one


def entry(
    event: str,
    data_json: str,
    *,
    channel: str = "user:u1",
    tenant: str = "default",
    time_ms: int = 1_769_860_800_000,
    **_rest: Any,
) -> Entry:
    publication = Publication(
        tenant=tenant, epoch="e", offset=7, id="n1", type=event, data=data_json.encode(), time_ms=time_ms
    )
    return Entry(publication, channel)


def frame(frames: Frames, data: dict[str, Any], **where: Any) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(frames(entry("progress_frame", json.dumps(data), **where)))
    return found


def texts(found: Any) -> list[str]:
    return [one.decode() for one in ([found] if isinstance(found, bytes) else found) if one]


@pytest.mark.parametrize("vector", having("publication"))
def test_a_publication_is_this_message(vector: dict[str, Any]) -> None:
    assert texts(Frames()(entry(**vector["publication"]))) == vector["ws"]


@pytest.mark.parametrize("vector", having("client"))
def test_a_client_is_answered_with_this_message(vector: dict[str, Any]) -> None:
    actions = decode(vector["client"], facts(**vector["facts"]))
    assert [action.text.decode() for action in actions if isinstance(action, Reply)] == vector["ws"]
    assert len(actions) == len(vector["ws"])


def test_confirmation_ping_and_limit_are_these_bytes() -> None:
    seen = 0
    for vector in VECTORS:
        if "client" in vector:
            continue
        for key, make in (
            ("heartbeat", ping),
            ("full", full),
            ("facts", lambda one: connected(one, Opening())),
        ):
            if key in vector:
                assert texts(make(facts(**vector[key]))) == vector["ws"], vector["name"]
                seen += 1
    assert seen == 4


def test_every_frame_the_contract_prints_is_a_vector() -> None:
    section = (ROOT / "docs/contracts/legacy-wire.md").read_text(encoding="utf-8")
    printed = section.split("### 7.1 Frames")[1].split("```json\n")[1].split("```")[0].strip().splitlines()
    frames = {one for vector in VECTORS for one in vector["ws"]}
    assert len(printed) == 14
    assert [line for line in printed if line not in frames] == []


@pytest.mark.covers("R31", "S4.7", "S4.8", "S4.9")
def test_r31_every_frame_has_a_time_in_utc_with_z() -> None:
    frames = [json.loads(one) for vector in VECTORS for one in vector["ws"]]
    assert len(frames) > 30
    for one in frames:
        assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z", one["timestamp"]), one
        if one["type"] != "pong":
            assert list(one)[-1] == "timestamp"


@pytest.mark.covers("R33")
@pytest.mark.parametrize(
    ("kind", "subject"),
    [
        ("batch_report_progress", {"batch_id": "b1"}),
        ("data_import_progress", {"import_id": "i1"}),
        ("file_upload_progress", {"filename": "a.csv"}),
        ("multi_industry_progress", {}),
    ],
)
def test_r33_a_failure_without_numbers_repeats_the_last_known_ones(
    kind: str, subject: dict[str, str]
) -> None:
    frames = Frames()
    job = {"type": kind, **subject}
    frame(frames, {**job, "status": "processing", "message": "m", "progress": 2, "total": 8})
    # Another user's job of the same name, another tenant's, and another kind of job do not mix in.
    frame(frames, {**job, "status": "processing", "progress": 5, "total": 9}, channel="user:u2")
    frame(frames, {**job, "status": "processing", "progress": 5, "total": 9}, tenant="other")
    failed = frame(frames, {**job, "status": "failed", "message": "m", "error": "reason"})
    assert [failed[key] for key in NUMBERS] == [2, 8, 25.0]
    assert failed["error"] == "reason"


def test_r33_numbers_that_are_none_count_as_left_out() -> None:
    frames = Frames()
    job = {"type": "batch_report_progress", "batch_id": "b"}
    frame(frames, {**job, "progress": 1, "total": 3})
    for bad in (None, "2", True, [1], 10**400, -1e300):
        found = frame(frames, {**job, "status": "failed", "progress": bad, "total": bad})
        assert [found[key] for key in NUMBERS] == [1, 3, 33.3]


def test_what_is_remembered_is_bounded() -> None:
    frames = Frames(kept=2)
    for name in ("a", "b", "c"):
        frame(frames, {"type": "batch_report_progress", "batch_id": name, "progress": 1, "total": 2})
    numbers = {
        name: frame(frames, {"type": "batch_report_progress", "batch_id": name, "status": "failed"})["total"]
        for name in ("c", "b", "a")
    }
    assert numbers == {"c": 2, "b": 2, "a": 0}


@pytest.mark.parametrize(
    ("done", "total", "completed", "expected"),
    [
        (1, 3, False, 33.3),
        (2, 3, False, 66.7),
        (3, 3, True, 100.0),
        (0, 0, True, 100.0),
        (0, 0, False, 0.0),
        (5, 4, False, 125.0),
        (1e308, 1e-308, False, 0.0),
    ],
)
def test_the_percentage(done: float, total: float, completed: bool, expected: float) -> None:
    assert percentage(done, total, completed=completed) == expected


def admitted(client: str, user: str = "u1", **more: Any) -> Admission | Refusal:
    return admit(facts(user=user, params={"client_id": client}, **more))


@pytest.mark.parametrize("client", ["u1", "u1:", "u1:tab", "u1:a:b"])
def test_a_client_id_is_the_user_or_begins_with_it(client: str) -> None:
    found = admitted(client)
    assert isinstance(found, Admission)
    suffix = () if client == "u1" else ("topic:progress-client:" + client,)
    assert found.channels == ("user:u1", "all", *suffix)
    assert found.client_id == client, "several sockets may have the same one"


@pytest.mark.covers("R15")
@pytest.mark.parametrize("client", ["u2", "u11", "u", "", "U1", "u2:u1", ":u1", "u1x:tab"])
def test_r15_a_foreign_client_id_is_refused(client: str) -> None:
    found = admitted(client)
    assert isinstance(found, Refusal) and (found.code, found.reason) == (4003, "forbidden")


def test_an_administrator_may_take_any_client_id_and_gets_what_its_user_gets() -> None:
    found = admitted("u2:tab", user="root", admin=True)
    assert isinstance(found, Admission)
    assert found.channels == (
        "user:u2:tab",
        "user:u2",
        "all",
        "topic:progress-client:u2:tab",
        "topic:progress-clients",
    )
    plain = admitted("u2", user="root", admin=True)
    assert isinstance(plain, Admission) and plain.channels == ("user:u2", "all", "topic:progress-clients")
    for bad in ("", ":x", "a\nb", "x" * 300):
        assert isinstance(admitted(bad, user="root", admin=True), Refusal)


def test_a_user_id_with_a_colon_is_a_user() -> None:
    found = admitted("auth0:17", user="auth0:17")
    assert isinstance(found, Admission)
    assert found.channels == ("user:auth0:17", "all", target_channel("auth0:17"))


def test_a_target_with_a_suffix_is_that_client_alone() -> None:
    assert target_channel("u1") == "user:u1"
    assert target_channel("u1:tab2") == "topic:progress-client:u1:tab2"
    with pytest.raises(BadChannel):
        target_channel("")


def endpoint(**settings: Any) -> Endpoint:
    (only,) = endpoints(LegacySettings(**settings))
    return only


def test_the_endpoint_follows_the_settings() -> None:
    one = endpoint(progress_ping_s=7, progress_max_connections=3)
    assert (one.path, one.transport) == ("/ws/{client_id:str}", "ws")
    assert (one.heartbeat_s, one.heartbeat_always, one.max_connections) == (7, True, 3)
    for refusal in (one.missing, one.bad, one.malformed):
        assert (refusal.code, refusal.reason) == (1008, "Unauthorized")
    assert one.internal[0] == 1011


def test_r34_who_left_is_told_to_administrators_only() -> None:
    found = left(facts(params={"client_id": "u1:tab"}))
    assert isinstance(found, Farewell)
    assert (found.channel, found.event, found.roles) == (
        "topic:progress-clients",
        "progress_left",
        ("admin",),
    )
    assert json.loads(found.data) == {"client_id": "u1:tab"}


@pytest.mark.covers("R26")
@pytest.mark.parametrize(
    "text", ["{oops", "[]", "1", '{"type":"subscribe"}', '{"type":"subscribe","event_type":null}']
)
def test_r26_what_makes_no_sense_is_an_error_and_nothing_more(text: str) -> None:
    (action,) = decode(text, facts())
    assert isinstance(action, Reply)
    assert json.loads(action.text)["type"] == "error"


@pytest.mark.parametrize(
    "text",
    ["\x00", '{"a":"\\ud800"}', '{"a":99999999999999999999999999}', "{}", '{"type":{}}', "[" * 100_000],
)
def test_nothing_a_client_says_raises(text: str) -> None:
    (action,) = decode(text, facts())
    assert isinstance(action, Reply) and json.loads(action.text)["type"] in ("echo", "error")
