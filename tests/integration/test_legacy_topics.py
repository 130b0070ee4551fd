"""The contract `topics` on the wire of a running server: topics, anonymous connections, silence."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any
from uuid import UUID

import pytest

from support.legacy_sockets import BINARY, LegacySocket, legacy_socket
from support.legacy_text_vectors import posted, timeless, vectors
from support.node import ENGINES, Node, running_node

pytestmark = pytest.mark.anyio


@asynccontextmanager
async def opened(
    node: Node, user: str = "u1", *, query: str = "", **claims: Any
) -> AsyncIterator[LegacySocket]:
    """A socket with its first frame read; user "": without a token."""
    token = node.token(user, **claims) if user else ""
    async with legacy_socket(node, "/api/ws" + query, token) as socket:
        frame = await socket.json()
        assert (frame["type"], frame["status"]) == ("connection", "connected")
        yield socket


async def post(node: Node, path: str, body: Any) -> Any:
    answer = await node.http.post(path, json=body, headers=node.auth("root", "admin"))
    assert answer.status_code == 200, answer.text
    return answer.json()


async def follow(socket: LegacySocket, topic: str) -> None:
    answer = await socket.ask({"type": "subscribe", "topic": topic})
    assert answer == {"type": "subscribed", "topic": topic, "success": True}


@pytest.mark.covers(
    *("S2.1", "S2.9", "S2.10", "S2.12", "S2.13", "S2.21", "S2.23", "S2.26", "S2.40", "S2.42", "S2.48", "R36")
)
@pytest.mark.parametrize("engine", ENGINES)
async def test_r36_from_the_publishing_call_to_the_frame(engine: str) -> None:
    async with running_node(engine) as node, opened(node) as socket:
        await follow(socket, "import:t1")
        progress = {"status": "processing", "processed": 1, "total": 3}
        message = {"type": "import_progress", "task_id": "t1", "data": progress}
        await node.publish("topic:import:t1", message, kind="topic_message")
        frame = await socket.json()
        assert list(frame) == ["type", "task_id", "topic", "data", "timestamp"]
        assert (frame["type"], frame["task_id"], frame["topic"]) == ("import_progress", "t1", "import:t1")
        assert len(frame["data"]) == 13 and frame["data"]["progress"] == 33.33
        await post(node, "/api/ws/notify", {"notification": {"title": "T", "content": "C", "level": "error"}})
        frame = await socket.json()
        assert (frame["topic"], frame["data"]["level"]) == ("notifications", "error")
        await post(node, "/api/ws/broadcast", {"text": "hello"})
        assert await socket.text() == '{"type":"admin_broadcast","data":{"text":"hello"},"sender":"root"}'
        await socket.quiet()


@pytest.mark.covers("S2.22", "S2.24", "S2.27", "S2.28", "R29")
@pytest.mark.parametrize("engine", ENGINES)
async def test_r29_the_golden_frames_on_the_wire(engine: str) -> None:
    """Every message a backend can publish, byte for byte but for its time."""
    async with running_node(engine) as node, opened(node) as socket:
        for parameter in vectors("topics", "publication"):
            (vector,) = parameter.values
            given = vector["publication"]
            if given["channel"].startswith("topic:"):
                await follow(socket, given["channel"][6:])
            path, body = posted(vector)
            headers = {**node.auth("backend", "publisher"), "Content-Type": "application/json"}
            answer = await node.http.post(path, content=body, headers=headers)
            assert answer.status_code == 201, answer.text
            for wanted in vector["ws"]:
                came = await socket.text()
                exact = given["event"] == "notification" or '"timestamp":"' in given["data_json"]
                assert came == wanted if exact else timeless(came) == timeless(wanted)
        await socket.quiet()


@pytest.mark.covers("S2.5", "S2.14", "S2.15", "S2.19", "S2.45", "S2.77")
async def test_subscribing_and_unsubscribing() -> None:
    async with running_node("memory") as node, opened(node) as one, opened(node, "u2") as two:
        await follow(one, "wallet_updates")
        update = {"type": "wallet_update", "wallet_address": "0x1", "data": {"score": 85}}
        await node.publish("topic:wallet_updates", update, kind="topic_message")
        assert (await one.json())["wallet_address"] == "0x1"
        await two.quiet()
        left = await one.ask({"type": "unsubscribe", "topic": "wallet_updates"})
        assert left == {"type": "unsubscribed", "topic": "wallet_updates", "success": True}
        await node.publish("topic:wallet_updates", update, kind="topic_message")
        await one.quiet()
        await follow(one, "Wallet_Updates")
        await node.publish("topic:wallet_updates", update, kind="topic_message")
        await one.quiet()


async def test_there_is_no_replay() -> None:
    async with running_node("memory") as node, opened(node) as socket:
        await node.publish("topic:import:t1", {"type": "import_progress"}, kind="topic_message")
        await follow(socket, "import:t1")
        await socket.quiet()


@pytest.mark.covers("S2.6", "S2.29", "S2.43", "S2.54")
async def test_who_is_a_target_and_a_subscriber_gets_one_copy() -> None:
    async with running_node("memory") as node, opened(node) as one, opened(node, "u2") as two:
        await follow(one, "notifications")
        await follow(one, "a")
        await post(node, "/api/ws/notify", {"notification": {"title": "T"}, "target_users": ["u1"]})
        assert (await one.json())["data"]["title"] == "T"
        await one.quiet()
        for channels in (["user:u1", "topic:a"], ["topic:a", "user:u1"]):
            await node.publish(channels, {"type": "x", "topic": "a"}, kind="topic_message")
            frame = await one.json()
            assert (frame["type"], frame["topic"]) == ("x", "a")
            await one.quiet()
        await two.quiet()


@pytest.mark.covers("R20")
async def test_r20_nobody_gets_what_is_for_nobody() -> None:
    async with running_node("memory") as node, opened(node) as socket, opened(node, "") as anonymous:
        await post(node, "/api/ws/notify", {"notification": {"title": "T"}, "target_users": []})
        await socket.quiet()
        await anonymous.quiet()


@pytest.mark.covers("S2.46", "S2.51", "R17")
async def test_r17_what_anonymous_connections_may() -> None:
    async with (
        running_node("memory", legacy={"topics_public": ["system_status"]}) as node,
        opened(node, "") as anonymous,
        opened(node, "u1") as known,
    ):
        refused = {"type": "error", "message": "Authentication required"}
        for asked in (
            {"type": "subscribe", "topic": "import:t1"},
            {"type": "subscribe", "topic": "wallet_updates"},
            {"type": "subscribe", "topic": "user:u1"},
            {"type": "get_stats"},
        ):
            assert await anonymous.ask(asked) == refused
        for topic in ("import:t1", "wallet_updates"):
            await node.publish("topic:" + topic, {"type": "x"}, kind="topic_message")
        await post(node, "/api/ws/notify", {"notification": {"title": "T"}, "target_users": ["u1"]})
        await anonymous.quiet()
        await follow(anonymous, "system_status")
        await node.publish("topic:system_status", {"type": "system_status"}, kind="topic_message")
        assert (await anonymous.json())["type"] == "system_status"
        await follow(anonymous, "notifications")
        await post(node, "/api/ws/broadcast", {"text": "for those we know"})
        await anonymous.quiet()
        await post(node, "/api/ws/notify", {"title": "for all"})
        assert (await anonymous.json())["data"]["title"] == "for all"
        await known.json()  # the notification for u1
        assert (await known.json())["type"] == "admin_broadcast"
        assert (await known.json())["data"]["title"] == "for all"


@pytest.mark.covers("S2.49", "S2.50", "R14")
async def test_a_bad_token_is_no_anonymous_connection() -> None:
    async with running_node("memory") as node:
        for bad in ("x.y.z", node.token("u1", life_s=-60), node.token("u1", type="refresh")):
            async with legacy_socket(node, "/api/ws", bad) as socket:
                assert await socket.closed() == (1008, "Unauthorized")


@pytest.mark.covers("R18")
async def test_r18_an_import_of_somebody_else() -> None:
    async with running_node("memory") as node:
        made = await node.http.put(
            "/v1/tasks/t1", json={"owner": "u1"}, headers=node.auth("backend", "publisher")
        )
        assert made.status_code in (200, 201), made.text
        async with opened(node, "u2") as stranger:
            answer = await stranger.ask({"type": "subscribe", "topic": "import:t1"})
            assert answer == {"type": "error", "message": "Not allowed: import:t1"}
            await node.publish("topic:import:t1", {"type": "import_progress"}, kind="topic_message")
            await stranger.quiet()
            await follow(stranger, "import:unknown")
        async with opened(node, "u1") as owner, opened(node, "root", roles=["admin"]) as root:
            await follow(owner, "import:t1")
            await follow(root, "import:t1")


@pytest.mark.covers("S2.18", "R19")
async def test_r19_a_taken_client_id() -> None:
    async with running_node("memory") as node:
        async with legacy_socket(node, "/api/ws?client_id=c1", node.token("u1")) as first:
            frame = await first.json()
            assert list(frame) == ["type", "status", "client_id", "timestamp"]
            assert frame["client_id"] == "c1"
            async with legacy_socket(node, "/api/ws?client_id=c1", node.token("u2")) as second:
                fresh = (await second.json())["client_id"]
                assert UUID(fresh).version == 4
                await post(node, "/api/ws/notify", {"title": "for all"})
                for socket in (first, second):
                    assert (await socket.json())["data"]["title"] == "for all"
                    await socket.quiet()
        for none in ("x" * 65, "a%0Ab", "%00", "%E2%80%A8", ""):
            async with legacy_socket(node, "/api/ws?client_id=" + none) as socket:
                assert UUID((await socket.json())["client_id"]).version == 4
        async with legacy_socket(node, "/api/ws?client_id=" + "%F0%9F%98%80" * 64) as socket:
            assert (await socket.json())["client_id"] == "😀" * 64


@pytest.mark.covers("S2.8", "S2.16", "S2.17", "S2.20", "S2.25", "S2.41", "S2.44")
async def test_what_clients_ask_for() -> None:
    async with running_node("memory") as node, opened(node) as socket:
        assert list(await socket.ask({"type": "ping"})) == ["type", "timestamp"]
        await follow(socket, "a")
        await follow(socket, "a")
        assert await socket.ask({"type": "get_stats"}) == {
            "type": "stats",
            "data": {
                "total_connections": 1,
                "total_users": 1,
                "total_subscriptions": 1,
                "topics": ["a"],
                "users": ["u1"],
            },
        }
        assert await socket.ask({"type": "x"}) == {"type": "error", "message": "未知消息类型: x"}


@pytest.mark.covers("S2.2", "S2.3", "S2.4", "S2.7", "R34")
async def test_r34_others_are_an_administrator_s_business() -> None:
    async with (
        running_node("memory") as node,
        opened(node, "u1") as one,
        opened(node, "u2") as two,
        opened(node, "") as anonymous,
        opened(node, "root", roles=["admin"]) as root,
    ):
        await follow(two, "secret")
        await anonymous.quiet()
        mine = (await one.ask({"type": "get_stats"}))["data"]
        assert mine == {
            "total_connections": 4,
            "total_users": 3,
            "total_subscriptions": 1,
            "topics": [],
            "users": ["u1"],
        }
        everything = (await root.ask({"type": "get_stats"}))["data"]
        assert (everything["topics"], everything["users"]) == (["secret"], ["root", "u1", "u2"])


@pytest.mark.covers("S2.54", "S2.56", "R26")
@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "Invalid JSON"),
        ("[" * 5000, "Invalid JSON"),
        ("1", "Message must be a JSON object"),
        ('{"type":"subscribe"}', "Missing topic"),
        ('{"type":"unsubscribe","room":"a"}', "Missing topic"),
        ('{"type":"publish","topic":"a","data":{}}', "未知消息类型: publish"),
    ],
)
async def test_r26_bad_input_is_an_error_and_the_connection_goes_on(text: str, message: str) -> None:
    async with running_node("memory") as node, opened(node) as socket:
        assert await socket.ask(text) == {"type": "error", "message": message}
        socket.wire.send(BINARY, b"\x00\xff")
        await socket.quiet()


@pytest.mark.covers("S2.63", "S2.64", "S2.71", "S2.74", "R46")
async def test_r46_a_silent_connection_is_closed() -> None:
    async with (
        running_node("memory", legacy={"topics_idle_s": 1.0}) as node,
        opened(node) as silent,
        opened(node, "u2") as lively,
    ):
        await follow(silent, "a")
        end = asyncio.create_task(silent.closed())
        while not end.done():
            await lively.quiet()
            await asyncio.sleep(0.05)
        assert await end == (4408, "idle timeout")
        await node.until(lambda: len(node.sessions) == 1, "the end of the silent session")
        feed = node.composition.hub.tenants["default"].channels.get("topic:a")
        assert feed is None or not feed.sessions
        await lively.quiet()


async def test_silence_may_be_allowed() -> None:
    async with running_node("memory", legacy={"topics_idle_s": 0}) as node, opened(node) as socket:
        inner = node.composition.node
        inner.wheel.turn(inner.loop.time() + 3600)
        await socket.quiet()


@pytest.mark.covers("S2.73")
async def test_what_is_abnormal_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    async with running_node("memory", legacy={"connections_per_user": 1}) as node, AsyncExitStack() as stack:
        for _ in range(13):
            await stack.enter_async_context(opened(node))
        await node.until(lambda: len(node.sessions) == 1, "the others' end")
    assert any("were replaced within a minute" in record.getMessage() for record in caplog.records)
