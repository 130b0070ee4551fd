"""The contract `conversations` as pure functions: every frame of section 6 byte for byte, and the rules about
them.
"""

from __future__ import annotations

import json
import logging
import re
from pathlib import Path
from typing import Any

import pytest

from dualcast.dialects.conversations import (
    PRESENCE,
    Frames,
    FreshIds,
    admit,
    client_config,
    connected,
    decode,
    endpoints,
)
from dualcast.dialects.legacy import (
    Action,
    Admission,
    Call,
    Endpoint,
    Facts,
    LegacySettings,
    Opening,
    Refusal,
    Reply,
)
from dualcast.mapping import push_provider_settings
from dualcast.model.publication import Entry, Publication
from dualcast.push.port import ProviderUnusable
from dualcast.push.providers.finding import find_provider
from dualcast.settings import load

ROOT = Path(__file__).parents[2]
FILE = ROOT / "tests/conformance/vectors/legacy_conversations.json"
VECTORS: list[dict[str, Any]] = json.loads(FILE.read_text(encoding="utf-8"))["vectors"]


def having(key: str) -> list[Any]:
    return [pytest.param(vector, id=vector["name"]) for vector in VECTORS if key in vector]


def facts(**given: Any) -> Facts:
    one = Facts(tenant="default", user=given.pop("user", "u1"), role=given.pop("role", ""))
    for name, value in given.items():
        setattr(one, name, value)
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


def endpoint(**settings: Any) -> Endpoint:
    (only,) = endpoints(LegacySettings(**settings))
    return only


@pytest.mark.parametrize("vector", having("publication"))
def test_a_publication_is_these_messages(vector: dict[str, Any]) -> None:
    assert texts(Frames()(entry(vector["publication"]))) == vector["ws"]


@pytest.mark.parametrize("vector", having("client"))
def test_a_client_is_answered_with_these_messages(vector: dict[str, Any]) -> None:
    actions = decode(vector["client"], facts(**vector["facts"]))
    if "call" not in vector:
        assert [action.text.decode() for action in actions if isinstance(action, Reply)] == vector["ws"]
        assert len(actions) == len(vector["ws"])
        return
    call = called(actions)
    assert {"name": call.name, "arguments": dict(call.arguments)} == vector["call"]
    assert [call.done.decode()] == vector["ws"]
    assert [call.failed("not-a-participant").decode()] == vector["failed"]


def called(actions: Any) -> Call:
    (action,) = actions
    assert isinstance(action, Call)
    return action


@pytest.mark.parametrize("vector", [one for one in having("facts") if not {"client"} & one.values[0].keys()])
def test_the_confirmation_is_these_bytes(vector: dict[str, Any]) -> None:
    assert texts(connected(facts(**vector["facts"]), Opening())) == vector["ws"]


def test_every_frame_the_contract_prints_is_a_vector() -> None:
    section = (ROOT / "docs/contracts/legacy-wire.md").read_text(encoding="utf-8")
    printed = section.split("### 6.1 Frames")[1].split("```json\n")[1].split("```")[0].strip().splitlines()
    frames = {frame for vector in VECTORS for frame in (*vector["ws"], *vector.get("failed", ()))}
    assert len(printed) == 12
    assert [line for line in printed if line not in frames] == []


@pytest.mark.covers("R30")
def test_r30_every_frame_has_its_name_three_times() -> None:
    frames = [json.loads(one) for vector in VECTORS for one in vector["ws"] if one.startswith('{"event"')]
    assert len(frames) > 20
    for frame in frames:
        name = "typing_update" if frame["event"] == "typing_status" else frame["event"]
        assert (frame["action"], frame["event_type"]) == (frame["event"], name)
        assert "data" in frame
        assert list(frame)[:4] == ["event", "action", "event_type", "data"] and list(frame)[-1] == "timestamp"


def times(value: Any) -> list[str]:
    """Every text under a key that is a time, at any depth."""
    if isinstance(value, list):
        return [text for item in value for text in times(item)]
    if not isinstance(value, dict):
        return []
    own = [text for key, text in value.items() if key in ("timestamp", "created_at")]
    return [text for text in own if isinstance(text, str)] + [
        text for item in value.values() for text in times(item)
    ]


@pytest.mark.covers("R31")
def test_r31_every_time_is_utc_with_z() -> None:
    found = [
        text
        for vector in VECTORS
        for frame in vector["ws"]
        if frame != "pong"
        for text in times(json.loads(frame))
    ]
    assert len(found) > 30
    assert [text for text in found if not re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z", text)] == []


def test_r31_a_message_whose_publisher_writes_now_gets_the_time_it_was_kept() -> None:
    vector = next(one for one in VECTORS if one["name"] == "new_message")
    given = json.loads(vector["publication"]["data_json"])
    given["extra"] = {"timestamp": "now"}
    frame = json.loads(texts(Frames()(entry({**vector["publication"], "data_json": json.dumps(given)})))[0])
    assert frame["data"]["timestamp"] == "2026-01-31T12:00:02.000000Z"


def test_r38_an_older_change_of_a_user_that_comes_late_is_not_told() -> None:
    frames = Frames(kept=2)

    def told(revision: int, joined: list[str], left: list[str], **where: str) -> list[tuple[str, str]]:
        data = json.dumps({"joined": joined, "left": left, "count": 1, "revision": revision})
        given = {"epoch": "e", "offset": 1, "id": "x", "event": "presence", "time_ms": 0, "data_json": data}
        found = texts(frames(entry({**given, "channel": where.get("channel", PRESENCE)})))
        return [(one["data"]["user_id"], one["data"]["status"]) for one in map(json.loads, found)]

    assert told(6, [], ["u1"]) == [("u1", "offline")]
    assert told(5, ["u1", "u2"], []) == [("u2", "online")]
    assert told(6, [], ["u1"]) == [("u1", "offline")], "the same again, of a session that catches up"
    assert told(7, ["u1"], []) == [("u1", "online")]
    assert told(9, ["a", "b"], []) == [("a", "online"), ("b", "online")]
    assert told(1, ["u1"], []) == [("u1", "online")], "what is remembered is bounded"


@pytest.mark.covers("R32")
def test_r32_the_text_ping_and_the_heartbeat_are_both_answered() -> None:
    assert decode("ping", facts()) == (Reply(b"pong"),)
    (action,) = decode('{"type":"heartbeat","timestamp":1769860800123}', facts())
    assert action == Reply(b'{"type":"heartbeat","timestamp":1769860800123}')


def test_what_is_ignored_is_logged_at_debug_without_its_contents(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.DEBUG, "dualcast.dialects.conversations"):
        assert decode('{"action":"send","secret":"hunter2"}', facts()) == ()
    (record,) = caplog.records
    assert record.levelname == "DEBUG" and "hunter2" not in record.getMessage()


def test_refusals_are_those_of_the_contract() -> None:
    one = endpoint()
    assert (one.path, one.transport, one.anonymous) == ("/api/v1/ws", "ws", False)
    assert (one.missing.code, one.missing.reason) == (4001, "Authentication required")
    for refusal in (one.bad, one.malformed):
        assert (refusal.code, refusal.reason) == (4001, "Invalid credentials")
    assert one.internal == (4000, "Internal error")
    assert one.heartbeat is None


def admitted(**query: str) -> Admission:
    found = admit(facts(query=query))
    assert not isinstance(found, Refusal)
    return found


def test_every_connection_is_a_member_of_the_contracts_presence() -> None:
    assert admitted().channels == (PRESENCE,)


@pytest.mark.parametrize(
    ("given", "kind"),
    [
        ("mobile", "mobile"),
        ("desktop", "desktop"),
        ("tablet", "tablet"),
        ("web", "web"),
        ("Mobile", ""),
        ("tv", ""),
        ("", ""),
    ],
)
def test_the_device_kind_is_one_of_four(given: str, kind: str) -> None:
    assert admitted(deviceType=given).device == kind


@pytest.mark.parametrize("bad", ["", "a\nb", "x" * 300, "\u2028", "é" * 200])
def test_ids_that_are_none_count_as_not_given(bad: str) -> None:
    found = admitted(connectionId=bad, deviceId=bad)
    assert (found.client_id, found.device_id) == ("", "")


def test_a_fresh_id_has_user_device_and_milliseconds_and_is_never_given_twice() -> None:
    fresh = FreshIds()
    phone, other = facts(now_ms=1000, device="mobile"), facts(now_ms=1000)
    assert [fresh(phone), fresh(other), fresh(phone)] == [
        "u1_mobile_1000",
        "u1_unknown_1001",
        "u1_mobile_1002",
    ]
    phone.now_ms = 5000
    assert fresh(phone) == "u1_mobile_5000"


@pytest.mark.covers("S3.89", "S3.90", "S3.91")
def test_the_client_configuration_follows_the_settings() -> None:
    assert client_config(LegacySettings()) == {
        "heartbeatInterval": 45_000,
        "connectionTimeout": 20_000,
        "reconnectInterval": 2000,
        "maxReconnectDelay": 30_000,
        "maxReconnectAttempts": 15,
    }
    other = client_config(
        LegacySettings(ws_heartbeat_s=30, connection_timeout_ms=5000, max_reconnect_attempts=3)
    )
    assert (other["heartbeatInterval"], other["connectionTimeout"], other["maxReconnectAttempts"]) == (
        30_000,
        5000,
        3,
    )


@pytest.mark.parametrize(
    "text",
    [
        '{"action":"typing"' * 50,
        "\x00",
        "{}" * 3,
        '{"type":"heartbeat","timestamp":true}',
        '{"action":"read","data":{"message_ids":["\\ud800"]},"conversation_id":"c"}',
    ],
)
def test_nothing_a_client_says_raises(text: str) -> None:
    for action in decode(text, facts()):
        assert isinstance(action, Action)


@pytest.mark.covers("S3.85", "S3.86", "S3.87")
def test_names_of_older_deployments_choose_redis_and_the_push_provider() -> None:
    environ = {
        "REDIS_HOST": "cache",
        "REDIS_PASSWORD": "p",
        "NOTIFICATION_PROVIDER": "logging",
        "FIREBASE_CREDENTIALS_PATH": "/etc/firebase.json",
    }
    found = load(environ=environ).settings
    assert (found.engine, found.redis.url) == ("redis", "redis://:p@cache:6379/0")
    assert found.push.options == ("credentials_path=/etc/firebase.json",)
    assert find_provider(found.push.provider, push_provider_settings(found)).name == "log"
    assert (
        load(environ={"REDIS_URL": "redis://localhost:6379"}).settings.redis.url == "redis://localhost:6379"
    )
    with pytest.raises(ProviderUnusable):
        firebase = load(environ={**environ, "NOTIFICATION_PROVIDER": "firebase"}).settings
        find_provider(firebase.push.provider, push_provider_settings(firebase))
