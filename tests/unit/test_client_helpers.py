"""The Python client: the older contracts' publishing calls, by name, argument and meaning."""

from __future__ import annotations

import asyncio
import inspect
import json
import re
import tomllib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import msgspec
import pytest

from dualcast.publishing.requests import NotificationRequest, PublishRequest
from dualcast_client.admin import AsyncAdmin
from dualcast_client.admin_sync import Admin
from dualcast_client.inbox import AsyncInbox, Inbox
from support.client_package import (
    FOLDER,
    bodies,
    conversations,
    default,
    ids,
    notifications,
    package,
    progress,
    rooms,
    topics,
)

CONTRACT = (Path(__file__).parents[2] / "docs/contracts/legacy-wire.md").read_text()
CLASSES = {
    "4.4": (rooms.NotificationBroadcaster, rooms.SyncNotificationBroadcaster),
    "5.5": (topics.WebSocketManager, topics.SyncWebSocketManager),
    "6.4": (conversations.BroadcastingService, conversations.SyncBroadcastingService),
    "7.3": (progress.ConnectionManager, progress.SyncConnectionManager),
}
CALL = re.compile(r"`(\w+)\(([^)`]*)\)`")


def promised(section: str) -> dict[str, str]:
    """Name → arguments of the calls a section of the contract names."""
    text = CONTRACT.split(f"\n### {section} ")[1].split("\n### ")[0]
    if section != "6.4":
        text = next(line for line in text.splitlines() if "Python calls:" in line)
    return dict(CALL.findall(text))


def arguments(method: Callable[..., Any]) -> str:
    found = list(inspect.signature(method).parameters.values())[1:]
    return ", ".join(
        one.name if one.default is inspect.Parameter.empty else f"{one.name}={one.default!r}" for one in found
    )


@pytest.mark.parametrize("section", CLASSES)
def test_the_calls_are_exactly_those_the_contract_names(section: str) -> None:
    calls = promised(section)
    assert len(calls) >= 2
    for kind in CLASSES[section]:
        named = {name for name in vars(kind) if not name.startswith("_")} - {"client"}
        assert named == set(calls)
        assert {name: arguments(getattr(kind, name)) for name in calls} == calls


def public(kind: type) -> Iterator[tuple[str, Any]]:
    for name, member in vars(kind).items():
        if callable(member) and (not name.startswith("_") or name == "__init__"):
            yield name, member


NEEDED = {"httpx", "msgspec", "websockets"}
TOLD_LATER = {"__init__", "subscribe", "inbox", "items", "tenants", "audit", "connections", "revocations"}
TOLD_LATER |= {"use_token"}
"""Calls that give something to be iterated or entered, or do nothing yet."""
TWINS = [
    *CLASSES.values(),
    (notifications.NotificationPublisher, notifications.SyncNotificationPublisher),
    (package.AsyncClient, package.Client),
    (AsyncInbox, Inbox),
    (AsyncAdmin, Admin),
]


@pytest.mark.parametrize("twins", TWINS, ids=lambda pair: pair[0].__name__)
def test_the_twin_for_threads_has_the_same_calls(twins: tuple[type, type]) -> None:
    first, second = (dict(public(kind)) for kind in twins)
    assert {"close" if name == "aclose" else name for name in first} == set(second)
    for name, member in first.items():
        other = second["close" if name == "aclose" else name]
        assert list(inspect.signature(member).parameters) == list(inspect.signature(other).parameters), name
        later = name in TOLD_LATER and (name, twins[0]) != ("connections", package.AsyncClient)
        assert inspect.iscoroutinefunction(member) != later, name
        assert not inspect.iscoroutinefunction(other), name


def test_the_subscription_for_threads_has_the_same_calls() -> None:
    def names(kind: type) -> set[str]:
        return {"close" if name == "aclose" else name for name in dir(kind) if not name.startswith("_")}

    assert names(package.Stream) - {"check"} == names(package.SyncStream)
    for name in ("ack", "subscribe", "unsubscribe", "authenticate", "backfill", "call"):
        first, second = (inspect.signature(getattr(k, name)) for k in (package.Stream, package.SyncStream))
        assert first == second, name


# ── what is sent ──


class Recorder:
    """A server that accepts everything."""

    def __init__(self) -> None:
        self.seen: list[tuple[str, str, Any]] = []

    def __call__(self, request: httpx.Request) -> httpx.Response:
        body = json.loads(request.content) if request.content else None
        self.seen.append((request.method, request.url.raw_path.decode(), body))
        return httpx.Response(201, json={"id": "n1", "cursor": "e-1"})

    def sent(self) -> tuple[str, Any]:
        """Path and body of the only request; its id is there, and is left out here."""
        ((_, path, body),) = self.seen
        self.seen.clear()
        assert body.pop("id")
        return path, body


@pytest.fixture
def recorder() -> Recorder:
    return Recorder()


@pytest.fixture
def client(recorder: Recorder) -> Iterator[Any]:
    with package.Client("http://n/prefix/", "t", transport=httpx.MockTransport(recorder)) as made:
        yield made


def checked(path: str, body: Any) -> tuple[str, Any]:
    """`body`, which the server's own type takes."""
    kind = {"/prefix/v1/publish": PublishRequest, "/prefix/v1/notifications": NotificationRequest}[path]
    msgspec.json.decode(msgspec.json.encode(body), type=kind)
    return path.removeprefix("/prefix/v1/"), body


def test_every_call_is_published_as_the_contracts_agree(client: Any, recorder: Recorder) -> None:
    room, topic = rooms.SyncNotificationBroadcaster(client), topics.SyncWebSocketManager(client)
    bars = progress.SyncConnectionManager(client)

    def one(channel: str, kind: str, data: Any, **more: Any) -> tuple[str, Any]:
        return "publish", {"channel": channel, "type": kind, "data": data, **more}

    data = {"k": 1}
    room.send_sync_update(7, data)
    assert checked(*recorder.sent()) == one("user:7", "sync_update", data)
    room.send_knowledge_update("u", data)
    assert checked(*recorder.sent()) == one("user:u", "knowledge_update", data)
    room.send_system_message(data)
    assert checked(*recorder.sent()) == one("all", "system_message", data)
    room.send_system_message(data, ["u", 7])
    assert checked(*recorder.sent()) == (
        "publish",
        {"channels": ["user:u", "user:7"], "type": "system_message", "data": data},
    )
    room.send_to_room(data, "lobby")
    assert checked(*recorder.sent()) == one("room:lobby", "room_message", data)
    room.send_notification("u", {"title": "T", "message": "M", "type": "info", "own": 1})
    assert checked(*recorder.sent()) == (
        "notifications",
        {"to": {"user": "u"}, "title": "T", "content": "M", "extra": {"rooms": {"own": 1}}},
    )
    topic.send_import_progress("t1", data)
    message = {"type": "import_progress", "task_id": "t1", "topic": "import:t1", "data": data}
    assert checked(*recorder.sent()) == one("topic:import:t1", "topic_message", message)
    topic.send_wallet_update("0x1", data)
    message = {"type": "wallet_update", "wallet_address": "0x1", "topic": "wallet_updates", "data": data}
    assert checked(*recorder.sent()) == one("topic:wallet_updates", "topic_message", message)
    topic.send_system_status(data)
    message = {"type": "system_status", "topic": "system_status", "data": data}
    assert checked(*recorder.sent()) == one("topic:system_status", "topic_message", message)
    topic.publish("custom_topic", data)
    assert checked(*recorder.sent()) == one("topic:custom_topic", "topic_message", data)
    topic.send_notification({"title": "T", "content": "C", "level": "success"})
    asked = {"to": {"all": True}, "title": "T", "content": "C", "level": "success", "store": False}
    assert checked(*recorder.sent()) == ("notifications", asked)
    topic.send_notification({"title": "T"}, ["admin", "user123"])
    assert checked(*recorder.sent()) == (
        "notifications",
        {"to": {"users": ["admin", "user123"]}, "title": "T"},
    )
    bars.send_json_to_user(data, "u1")
    assert checked(*recorder.sent()) == one("user:u1", "progress_frame", data)
    bars.send_json_to_user(data, "u1:tab2")
    assert checked(*recorder.sent()) == one("topic:progress-client:u1:tab2", "progress_frame", data)
    bars.broadcast_json(data)
    assert checked(*recorder.sent()) == one("all", "progress_frame", data)
    bars.broadcast_json(data, exclude_client="u1")
    assert checked(*recorder.sent()) == one("all", "progress_frame", data, audience={"exclude_users": ["u1"]})


def test_r20_an_empty_list_became_a_broadcast(client: Any, recorder: Recorder) -> None:
    assert rooms.SyncNotificationBroadcaster(client).send_system_message({}, target_users=[]) == ()
    assert topics.SyncWebSocketManager(client).send_notification({"title": "T"}, target_users=[]) == ()
    chat = conversations.SyncBroadcastingService(client)
    assert chat.broadcast_system_notification("c", {"title": "T"}, target_user_ids=[]) is None
    assert recorder.seen == []


def test_more_users_than_one_publication_may_have_are_told_in_parts(client: Any, recorder: Recorder) -> None:
    users = [f"u{number}" for number in range(2001)]
    body = {"id": "mine", "title": "T"}
    assert len(topics.SyncWebSocketManager(client).send_notification(body, users)) == 3
    sent = [body for _, _, body in recorder.seen]
    assert [name for one in sent for name in one["to"]["users"]] == users
    assert sent[0]["id"] == "mine" and len({one["id"] for one in sent}) == 3


def test_ids_in_paths_are_encoded(client: Any, recorder: Recorder) -> None:
    for name, path in (("a/b?c#d é", "a%2Fb%3Fc%23d%20%C3%A9"), ("..", "%2E%2E"), ("a.b:c", "a.b%3Ac")):
        client.direct_message("u", {})
        client.broadcast(name, bodies.Broadcast(kind="system", data={}))
        assert recorder.seen[-1][1] == f"/prefix/v1/conversations/{path}/broadcasts"
    for ask in (client.task, client.devices, client.connections):
        with pytest.raises(ValueError, match="empty"):
            ask("")


# ── the rest ──


def test_ids_are_uuids_of_version_7_and_sequences_grow() -> None:
    made = [ids.new_id() for _ in range(1000)]
    assert len(set(made)) == 1000
    assert all(
        re.fullmatch(r"[0-9a-f]{8}-[0-9a-f]{4}-7[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}", one)
        for one in made
    )
    numbers = [ids.next_sequence() for _ in range(1000)]
    assert numbers == sorted(set(numbers)) and numbers[-1] < 2**53


def test_helpers_without_a_client_speak_through_the_configured_one(monkeypatch: Any) -> None:
    monkeypatch.setattr(default, "_default", default._Default())
    monkeypatch.delenv("DUALCAST_URL", raising=False)
    with pytest.raises(package.DualcastError, match="not-configured"):
        rooms.SyncNotificationBroadcaster().send_sync_update("u", {})
    monkeypatch.setenv("DUALCAST_URL", "http://from-environment")
    monkeypatch.setenv("DUALCAST_TOKEN", "t")
    found = rooms.SyncNotificationBroadcaster().client
    assert found.base_url == "http://from-environment" and topics.SyncWebSocketManager().client is found
    found.close()
    package.configure("http://configured", "t")
    again = package.create_sync_broadcasting_service(db=object()).client
    assert again.base_url == "http://configured"
    again.close()


@pytest.mark.anyio
async def test_each_loop_has_its_own_default_client_and_services_share_it(monkeypatch: Any) -> None:
    monkeypatch.setattr(default, "_default", default._Default())
    package.configure("http://configured", "t")
    first = await conversations.get_broadcasting_service_dependency(db=object())
    second = await package.create_broadcasting_service(db=object())
    assert first is not second and first.client is second.client is package.ws_manager.client

    async def elsewhere() -> Any:
        found = package.ws_manager.client
        await package.close_default()
        return found

    assert await asyncio.to_thread(asyncio.run, elsewhere()) is not first.client
    own = await package.create_broadcasting_service("http://own", "t", retries=0)
    assert own.client.base_url == "http://own" and own.client.retries.count == 0
    await own.client.aclose()


@pytest.mark.parametrize(
    "url", ["", "node:8000", "ftp://node", "http://", "http://user:pw@node", "http://node?token=x"]
)
def test_addresses_that_are_none_or_hold_credentials_are_refused(url: str) -> None:
    with pytest.raises(ValueError, match="base_url"):
        package.Client(url, "t")


@pytest.mark.parametrize("token", ["", "a b", "a\r\nX: y", "ключ"])
def test_a_token_no_header_may_hold_is_refused_and_not_told(token: str) -> None:
    with pytest.raises(package.DualcastError, match="bad-token") as caught:
        package.Client("http://n", token)
    assert not token or token not in str(caught.value)


def test_the_package_needs_three_others_only() -> None:
    project = tomllib.loads((FOLDER / "pyproject.toml").read_text())["project"]
    assert {re.split(r"[<>=]", name)[0] for name in project["dependencies"]} == NEEDED
    assert (FOLDER / "src/dualcast_client/py.typed").is_file()
    sources = "\n".join(path.read_text() for path in (FOLDER / "src/dualcast_client").glob("*.py"))
    assert not re.search(r"^\s*(from|import) dualcast\b", sources, re.MULTILINE)
    imported = set(re.findall(r"^(?:from|import) (\w+)", sources, re.MULTILINE)) - {"__future__"}
    assert imported - set(__import__("sys").stdlib_module_names) == NEEDED
