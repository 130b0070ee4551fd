"""What backends say with the Python client arrives at the clients of each contract and at native sessions:
from the call to the frame, over real sockets, from asyncio and from threads.
"""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from typing import Any

import pytest

from support.client_package import conversations, package
from support.client_rig import END, TIME, Backend, Line, heard, say_end
from support.legacy_node import Socket
from support.node import Node, running_node

pytestmark = pytest.mark.anyio


@pytest.fixture(params=["memory", "redis"])
async def node(request: pytest.FixtureRequest) -> AsyncIterator[Node]:
    async with running_node(request.param) as running:
        yield running


@pytest.fixture(params=["asyncio", "threads"])
async def backend(request: pytest.FixtureRequest, node: Node) -> AsyncIterator[Backend]:
    made = Backend(request.param, node.base_url, node.token("backend", roles=["publisher"]))
    yield made
    await made.close()


@pytest.fixture
async def line() -> AsyncIterator[Line]:
    async with AsyncExitStack() as stack:
        yield Line(stack)


# ── rooms ──


@pytest.mark.covers("S0.14", "S0.15", "S0.16", "S0.17", "S0.18", "S0.73", "S0.74", "S4.16")
async def test_what_rooms_backends_call_arrives(node: Node, backend: Backend, line: Line) -> None:
    alice = await line.socket(node, "/api/v1/ws/alice", "alice", 2)
    bob = await line.socket(node, "/api/v1/ws/bob", "bob", 2)
    native = await line.native(node, "alice", "all", transport="sse")
    await bob.ask('{"type":"subscribe","room":"lobby"}')
    await backend.rooms.send_notification("alice", {"title": "T", "message": "M", "type": "info", "own": 1})
    await backend.rooms.send_sync_update("alice", {"device": "iPhone", "changes": 5})
    await backend.rooms.send_knowledge_update("alice", {"id": 7})
    await backend.rooms.send_system_message({"message": "to bob"}, target_users=["bob"])
    await backend.rooms.send_system_message({"message": "to nobody"}, target_users=[])
    await backend.rooms.send_system_message({"message": "to all"})
    await backend.rooms.send_to_room({"text": "hi"}, "lobby")
    await backend.rooms.send_system_message({"message": "end"})
    for client, due in ((alice, 5), (bob, 4)):
        frames = [json.loads(text) for text in await client.texts(due)]
        assert all(TIME.match(frame["timestamp"]) for frame in frames)
        assert frames.pop()["data"] == {"message": "end"}
        told = [(frame["type"], frame["data"]) for frame in frames]
        if client is bob:
            assert told == [
                ("system_message", {"message": "to bob"}),
                ("system_message", {"message": "to all"}),
                ("room_message", {"text": "hi"}),
            ]
            continue
        kind, data = told.pop(0)
        keep = {key: data[key] for key in ("title", "message", "notification_type", "type", "own")}
        assert kind == "notification"
        assert keep == {"title": "T", "message": "M", "notification_type": "info", "type": "info", "own": 1}
        assert told == [
            ("sync_update", {"device": "iPhone", "changes": 5}),
            ("knowledge_update", {"id": 7}),
            ("system_message", {"message": "to all"}),
        ]
    seen = [(await native.until("publication")).body["event"] for _ in range(5)]
    assert seen == ["notification", "sync_update", "knowledge_update", "system_message", "system_message"]


# ── topics ──


class Imports:
    """An older backend's import manager: it says what it knows through the calls of the contract."""

    def __init__(self, say: Any, task: str, numbers: dict[str, Any]) -> None:
        self._say = say
        self._task = task
        self._numbers = numbers

    def get_progress(self) -> dict[str, Any]:
        return dict(self._numbers)

    async def notify_progress(self) -> None:
        await self._say.send_import_progress(task_id=self._task, progress=self.get_progress())


@pytest.mark.covers("S2.35", "S2.36", "S2.37", "S2.38", "S2.39", "S2.47")
async def test_what_topics_backends_call_arrives(node: Node, backend: Backend, line: Line) -> None:
    await backend.notifications.register_task("t1", "alice")
    alice = await line.socket(node, "/api/ws", "alice")
    admin = await line.socket(node, "/api/ws", "admin")
    anonymous = await line.socket(node, "/api/ws", None)
    for topic in ("import:t1", "wallet_updates", "system_status", "custom_topic"):
        answer = json.loads(await alice.ask(json.dumps({"type": "subscribe", "topic": topic})))
        assert answer == {"type": "subscribed", "topic": topic, "success": True}
    say = backend.topics
    numbers = {"status": "processing", "progress": 50.0, "processed": 500, "total": 1000}
    manager = Imports(say, "t1", numbers)
    await manager.notify_progress()
    await say.send_wallet_update(wallet_address="0x1", data={"score": 85, "pnl": 12500.5})
    await say.send_system_status({"cpu": 45.2})
    await say.publish(topic="custom_topic", message={"data": {"k": 1}})
    await say.send_notification({"title": "all", "content": "C", "level": "success"})
    await say.send_notification(
        notification={"title": "two", "content": "C", "level": "info"}, target_users=["admin", "user123"]
    )
    await say.send_notification({"title": "nobody"}, target_users=[])
    await say.send_notification({"title": "end"})

    async def told(client: Socket) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = []
        while not found or found[-1]["data"].get("title") != "end":
            found.append(json.loads(await client.text()))
            assert TIME.match(found[-1].pop("timestamp"))
        return found[:-1]

    for client, titles in ((anonymous, ["all"]), (admin, ["all", "two"])):
        got = [(one["type"], one["topic"], one["data"]["title"]) for one in await told(client)]
        assert got == [("notification", "notifications", title) for title in titles]
    imported, wallet, status, custom, notice = await told(alice)
    assert (imported["type"], imported["task_id"], imported["topic"]) == (
        "import_progress",
        "t1",
        "import:t1",
    )
    assert len(imported["data"]) == 13 and numbers.items() <= imported["data"].items()
    assert wallet == {
        "type": "wallet_update",
        "wallet_address": "0x1",
        "topic": "wallet_updates",
        "data": {"score": 85, "pnl": 12500.5},
    }
    assert status == {"type": "system_status", "topic": "system_status", "data": {"cpu": 45.2}}
    assert custom == {"type": "message", "topic": "custom_topic", "data": {"k": 1}}
    assert (notice["data"]["content"], notice["data"]["level"]) == ("C", "success")


# ── conversations ──


@pytest.mark.covers("S3.22", "S3.47", "S3.48", "S3.49", "S3.50", "S3.51", "S3.52", "S3.53", "S3.54")
async def test_what_conversations_backends_call_arrives(node: Node, backend: Backend, line: Line) -> None:
    chat = await backend.chat(db=object(), participants=lambda _conversation: ["alice", "bob", "carol"])
    path = "/api/v1/ws"
    alice = await line.socket(node, path, "alice", deviceType="mobile", connectionId="phone")
    bob = await line.socket(node, path, "bob", deviceType="desktop", connectionId="desk")
    carol = await line.socket(node, path, "carol", deviceType="web")
    one = {"id": "m1", "content": "你好", "sender_id": "bob", "message_type": "text", "mood": "good"}
    await chat.broadcast_message("c", one, exclude_user_id="bob")
    await chat.broadcast_message("c", {**one, "id": "m2"}, exclude_connection_id="desk")
    await chat.broadcast_message("c", {**one, "id": "m3"})
    reply = {"content": "r", "consultant_name": "B", "reply_type": "consultation"}
    await chat.broadcast_consultation_reply("c", reply, consultant_id="bob")
    await chat.send_mobile_only_notification("c", {"title": "T", "content": "x", "action": "open"})
    await chat.broadcast_typing_status("c", "carol", True)
    await chat.broadcast_read_status("c", user_id="carol", message_ids=["m1"])
    targeted = {"title": "T", "message": "M", "type": "maintenance"}
    await chat.broadcast_system_notification("c", targeted, target_user_ids=[])
    await chat.send_direct_message("alice", {"title": "D", "content": "x", "type": "membership"})
    await say_end(chat)
    got = {
        name: await heard(client, "system_notification")
        for name, client in zip("abc", (alice, bob, carol), strict=True)
    }
    events = {name: [frame["event"] for frame in frames] for name, frames in got.items()}
    signals = ["typing_status", "read_status"]
    messages = ["new_message"]
    assert events == {
        "a": [*messages * 3, "consultation_reply", "mobile_notification", *signals, "direct_message"],
        "b": [*messages, *signals],
        "c": [*messages * 3, "consultation_reply"],
    }
    first = got["a"][0]
    assert first["conversation_id"] == "c" and first["data"]["mood"] == "good"
    assert {key: first["data"][key] for key in ("id", "content", "sender_id", "type")} == {
        "id": "m1",
        "content": "你好",
        "sender_id": "bob",
        "type": "text",
    }
    assert got["b"][0]["data"]["id"] == "m3"
    assert got["a"][3]["data"] == reply and got["a"][3]["consultant_id"] == "bob"
    assert got["a"][5]["data"] == {"user_id": "carol", "is_typing": True}
    assert got["b"][2]["data"] == {"user_id": "carol", "message_ids": ["m1"]}
    assert got["a"][7]["data"] == {"title": "D", "content": "x", "type": "membership"}


@pytest.mark.covers("S3.56")
async def test_device_info_names_connections_as_their_clients_do(node: Node, line: Line) -> None:
    await line.socket(node, "/api/v1/ws", "alice", deviceType="mobile", deviceId="d1", connectionId="phone")
    await line.native(node, "alice")
    async with package.AsyncClient(node.base_url, node.token("root", role="admin")) as client:
        chat = await conversations.create_broadcasting_service(client=client)
        async with asyncio.timeout(15):
            while len(found := await chat.get_user_device_info("alice")) < 2:
                await asyncio.sleep(0.02)
        assert await chat.get_user_device_info("nobody") == []
    by_id = {one["connection_id"]: one for one in found}
    phone = by_id.pop("phone")
    assert (phone["device_type"], phone["device_id"]) == ("mobile", "d1")
    assert phone["connected_at"].endswith("Z") and phone["instance_id"]
    ((ident, other),) = by_id.items()
    assert ident and other["device_type"] is None and set(other) == set(phone)


# ── progress ──


@pytest.mark.covers("S4.16")
async def test_what_progress_backends_call_arrives(node: Node, backend: Backend, line: Line) -> None:
    whole = await line.socket(node, "/ws/u1", "u1")
    tab = await line.socket(node, "/ws/u1:tab2", "u1")
    other = await line.socket(node, "/ws/u2", "u2")
    frame = {"type": "batch_report_progress", "batch_id": "b1", "status": "processing", "message": "m"}
    counted = {**frame, "progress": 1, "total": 3}
    await backend.progress.send_json_to_user(counted, "u1")
    await backend.progress.send_json_to_user({"type": "note", "n": 1}, "u1:tab2")
    await backend.progress.broadcast_json({"type": "note", "n": 2}, exclude_client="u2")
    await backend.progress.broadcast_json(END)
    full = {**counted, "percentage": 33.3}
    assert await heard(whole) == [full, {"type": "note", "n": 2}]
    assert await heard(tab) == [full, {"type": "note", "n": 1}, {"type": "note", "n": 2}]
    assert await heard(other) == []


async def test_a_client_id_with_a_suffix_is_left_out_alone(node: Node, backend: Backend, line: Line) -> None:
    whole = await line.socket(node, "/ws/u1", "u1")
    tab = await line.socket(node, "/ws/u1:tab2", "u1")
    await backend.progress.broadcast_json({"type": "note", "n": 1}, exclude_client="u1:tab2")
    await backend.progress.broadcast_json(END)
    assert await heard(whole) == [{"type": "note", "n": 1}]
    assert await heard(tab) == []


# ── notifications ──


@pytest.mark.covers("S1.39", "R36", "R7", "R13")
async def test_what_notifications_backends_call_arrives_on_both_transports(
    node: Node, backend: Backend, line: Line
) -> None:
    ws = await line.socket(node, "/api/ws/notifications", "alice")
    sse = await line.stream(node, "/api/notifications/stream", "alice")
    body = {
        "id": "n1",
        "type": "analysis",
        "title": "分析完成",
        "content": "000001 分析已完成",
        "link": "/stocks/000001",
        "source": "analysis",
        "status": "unread",
        "created_at": "2026-01-31T20:00:00+08:00",
    }
    receipt = await backend.notifications.publish_notification("alice", body)
    assert receipt.id == "n1" and receipt.cursor and not receipt.duplicate
    due = {**body, "created_at": "2026-01-31T12:00:00.000000Z"}
    assert json.loads(await ws.text()) == {"type": "notification", "data": due}
    block = await sse.block()
    assert "event: notification\n" in block
    assert json.loads(re.search("^data: (.*)$", block, re.MULTILINE)[1]) == due


async def test_a_task_reported_by_the_client_is_followed(node: Node, backend: Backend, line: Line) -> None:
    say = backend.notifications
    task = await say.task_progress("T/1", "start", step=1, total_steps=5, owner="alice")
    assert (task.owner, task.state, task.percent) == ("alice", "processing", 20.0)
    ws = await line.socket(node, "/api/ws/tasks/T%2F1", "alice", 2)
    await say.task_progress("T/1", "half", step=2)
    await say.task_progress("T/1", "done", status="completed", result={"n": 1})
    progress_frame, completed = (json.loads(text) for text in await ws.texts(2))
    assert progress_frame["type"] == "progress" and progress_frame["data"]["progress"] == 40.0
    assert completed["type"] == "completed" and completed["data"]["result"] == {"n": 1}
    again = await say.task_progress("T/1", "done", status="completed")
    assert again.revision == 3
    with pytest.raises(package.DualcastError) as caught:
        await say.task_progress("T/1", "more", step=3)
    assert (caught.value.code, caught.value.status) == ("task-finished", 409)
    with pytest.raises(package.DualcastError, match="404 unknown-task"):
        await say.task_progress("T2", "x")
