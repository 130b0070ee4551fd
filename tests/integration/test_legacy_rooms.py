"""The contract `rooms` on the wire of a running server: from publishing calls to frames, rooms, refusals."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from dualcast.model.codes import RESERVED_TYPES
from support.legacy_sockets import BINARY, LegacySocket, legacy_socket
from support.legacy_text_vectors import posted, timeless, vectors
from support.node import ENGINES, Node, place, running_node

pytestmark = pytest.mark.anyio


@asynccontextmanager
async def opened(
    node: Node, user: str = "u1", *, path: str = "", **claims: Any
) -> AsyncIterator[LegacySocket]:
    """A user's socket, its two first frames read."""
    token = node.token(user, **claims)
    async with legacy_socket(node, "/api/v1/ws/" + (path or user), token) as socket:
        assert (await socket.json())["type"] == "connection_established"
        assert (await socket.json())["type"] == "notification_stats"
        yield socket


async def post(node: Node, path: str, body: Any) -> Any:
    answer = await node.http.post(path, json=body, headers=node.auth("root", "admin"))
    assert answer.status_code == 200, answer.text
    return answer.json()


async def join(socket: LegacySocket, room: str) -> None:
    answer = await socket.ask({"type": "subscribe", "room": room})
    assert (answer["type"], answer["room"]) == ("room_subscribed", room)


@pytest.mark.covers(
    *("S0.1", "S0.8", "S0.9", "S0.10", "S0.19", "S0.30", "S0.35", "S0.36", "S0.38", "S0.46", "S0.78", "R36")
)
@pytest.mark.parametrize("engine", ENGINES)
async def test_r36_from_the_publishing_call_to_the_frame(engine: str) -> None:
    async with running_node(engine) as node, opened(node) as socket:
        await post(
            node, "/api/v1/ws/notify/u1", {"title": "T", "message": "M", "type": "warning", "icon": "i"}
        )
        frame = await socket.json()
        data = frame["data"]
        assert (frame["type"], frame["timestamp"]) == ("notification", data["created_at"])
        assert data == {
            "id": data["id"],
            "title": "T",
            "message": "M",
            "notification_type": "warning",
            "type": "warning",
            "category": "system",
            "priority": "normal",
            "action_url": None,
            "action_data": {},
            "created_at": data["created_at"],
            "expires_at": None,
            "icon": "i",
        }
        await post(node, "/api/v1/ws/sync-update/u1", {"device": "iPhone", "changes": 5})
        frame = await socket.json()
        assert (frame["type"], frame["data"]) == ("sync_update", {"device": "iPhone", "changes": 5})
        await post(node, "/api/v1/ws/broadcast", {"message": "hello"})
        frame = await socket.json()
        assert (frame["type"], frame["data"]) == ("system_message", {"message": "hello"})
        assert frame["timestamp"].endswith("Z")
        await socket.quiet()


@pytest.mark.covers("S0.17", "S0.37", "S0.57", "S0.63")
@pytest.mark.parametrize("engine", ENGINES)
async def test_the_golden_frames_on_the_wire(engine: str) -> None:
    """Every publication a backend can make, byte for byte but for its time."""
    async with running_node(engine) as node, opened(node) as socket:
        await join(socket, "news")
        await join(socket, "新闻")
        for parameter in vectors("rooms", "publication"):
            (vector,) = parameter.values
            given = vector["publication"]
            if given["event"] in RESERVED_TYPES or 'expires_at":"' in given["data_json"]:
                continue
            path, body = posted(vector)
            headers = {**node.auth("backend", "publisher"), "Content-Type": "application/json"}
            answer = await node.http.post(path, content=body, headers=headers)
            assert answer.status_code == 201, answer.text
            for wanted in vector["ws"]:
                came = await socket.text()
                exact = given["event"] == "notification" or '"timestamp":"' in given["data_json"]
                assert came == wanted if exact else timeless(came) == timeless(wanted)
        await socket.quiet()


@pytest.mark.covers("S0.3", "S0.40", "S0.61", "S0.65")
async def test_a_user_has_several_connections_and_nobody_else_s_messages() -> None:
    async with (
        running_node("memory") as node,
        opened(node, "u1") as one,
        opened(node, "u1") as two,
        opened(node, "u2") as other,
    ):
        await post(node, "/api/v1/ws/broadcast", {"message": {"n": 1}, "target_users": ["u1"]})
        assert (await one.json())["data"] == (await two.json())["data"] == {"n": 1}
        await other.quiet()


@pytest.mark.covers("S0.62")
async def test_a_broadcast_reaches_everybody_once() -> None:
    async with running_node("memory") as node, opened(node, "u1") as one, opened(node, "u2") as two:
        await post(node, "/api/v1/ws/broadcast", {"message": {"n": 1}})
        for socket in (one, two):
            assert (await socket.json())["data"] == {"n": 1}
            await socket.quiet()


@pytest.mark.covers("R20")
async def test_r20_nobody_gets_what_is_for_nobody() -> None:
    async with running_node("memory") as node, opened(node) as socket:
        await post(node, "/api/v1/ws/broadcast", {"message": {"n": 1}, "target_users": []})
        await socket.quiet()


@pytest.mark.covers("S0.4", "S0.11", "S0.42", "S0.60", "R28")
@pytest.mark.parametrize("engine", ENGINES)
async def test_r28_members_of_a_room_get_its_messages_once(engine: str) -> None:
    async with running_node(engine) as node, opened(node, "u1") as member, opened(node, "u2") as stranger:
        await join(member, "news")
        await join(member, "other")
        message = {"type": "announcement", "data": {"text": "hi"}}
        for channels in (
            ["room:news"],
            ["room:news", "user:u1"],
            ["user:u1", "room:news"],
            ["room:other", "room:news"],
        ):
            await node.publish(channels, message, kind="room_message")
            frame = await member.json()
            assert (frame["type"], frame["data"]) == ("announcement", {"text": "hi"})
            await member.quiet()
        await stranger.quiet()
        left = await member.ask({"type": "unsubscribe", "room": "news"})
        assert (left["type"], left["room"]) == ("room_unsubscribed", "news")
        await node.publish("room:news", message, kind="room_message")
        await member.quiet()


async def test_rooms_reach_over_nodes() -> None:
    async with (
        place("redis") as where,
        running_node(where) as near,
        running_node(where) as far,
        opened(near, "u1") as one,
        opened(far, "u2") as two,
    ):
        await join(one, "新闻")
        await join(two, "新闻")
        await near.publish("room:新闻", {"type": "x", "n": 1}, kind="room_message")
        for socket in (one, two):
            assert (await socket.json())["n"] == 1
            await socket.quiet()


@pytest.mark.covers("S0.6", "S0.54", "S0.69")
async def test_membership_ends_with_the_connection() -> None:
    async with running_node("memory") as node:
        async with opened(node) as socket:
            await join(socket, "news")
            assert "room:news" in node.composition.hub.tenants["default"].channels
        await node.until(lambda: not node.sessions, "the session's end")
        feed = node.composition.hub.tenants["default"].channels.get("room:news")
        assert feed is None or not feed.sessions
        async with opened(node) as socket:
            await node.publish("room:news", {"type": "x"}, kind="room_message")
            await socket.quiet()
            stats = await socket.ask({"type": "get_stats"})
            assert (stats["data"]["total_rooms"], stats["data"]["total_connections"]) == (0, 1)


@pytest.mark.covers("S0.7", "S0.12", "S0.13", "S0.34", "S0.41", "S0.43", "S0.59")
async def test_what_clients_ask_for() -> None:
    async with running_node("memory") as node, opened(node) as socket:
        assert list(await socket.ask({"type": "ping"})) == ["type", "timestamp"]
        await join(socket, "news")
        stats = await socket.ask({"type": "get_stats"})
        assert stats["data"] == {
            "total_connections": 1,
            "total_users": 1,
            "total_rooms": 1,
            "rooms": {"news": 1},
            "users": {"u1": 1},
        }
        error = await socket.ask({"type": "x"})
        assert (error["type"], error["message"]) == ("error", "Unknown message type: x")
        assert error["timestamp"].endswith("Z")


@pytest.mark.covers("S0.44", "S0.67", "S0.68", "R26")
@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "Invalid JSON format"),
        ("", "Invalid JSON format"),
        ("[" * 5000, "Invalid JSON format"),
        ("[]", "Message must be a JSON object"),
        ('{"type":"subscribe"}', "Missing room"),
        ('{"type":"unsubscribe","topic":"a"}', "Missing room"),
        ('{"type":"subscribe","room":"\\n"}', "Message handling error"),
    ],
)
async def test_r26_bad_input_is_an_error_and_the_connection_goes_on(text: str, message: str) -> None:
    async with running_node("memory") as node, opened(node) as socket:
        error = await socket.ask(text)
        assert (error["type"], error["message"]) == ("error", message)
        socket.wire.send(BINARY, b"\x00\xff")
        await socket.quiet()


@pytest.mark.covers("S0.2", "S0.5", "R34")
async def test_r34_others_are_an_administrator_s_business() -> None:
    async with (
        running_node("memory") as node,
        opened(node, "u1") as one,
        opened(node, "u2") as two,
        opened(node, "root", roles=["admin"]) as root,
    ):
        await join(two, "secret")
        mine = (await one.ask({"type": "get_stats"}))["data"]
        assert mine == {
            "total_connections": 3,
            "total_users": 3,
            "total_rooms": 1,
            "rooms": {},
            "users": {"u1": 1},
        }
        everything = (await root.ask({"type": "get_stats"}))["data"]
        assert everything["rooms"] == {"secret": 1}
        assert everything["users"] == {"root": 1, "u1": 1, "u2": 1}


@pytest.mark.covers("S0.64", "R15", "R21")
async def test_r15_a_foreign_path_is_refused() -> None:
    async with running_node("memory") as node:
        async with legacy_socket(node, "/api/v1/ws/u2", node.token("u1")) as socket:
            assert await socket.closed() == (4003, "forbidden")
        async with legacy_socket(node, "/api/v1/ws/u1") as socket:
            assert await socket.closed() == (4001, "Authentication required")
        for bad in ("x.y.z", node.token("u1", life_s=-60), node.token("u1", type="refresh"), "demo-token"):
            async with legacy_socket(node, "/api/v1/ws/u1", bad) as socket:
                assert await socket.closed() == (4001, "Invalid credentials")


async def test_bug_an_admin_on_a_user_s_path_was_told_of_the_admin_s_own_inbox() -> None:
    async with running_node("memory") as node:
        await post(node, "/api/v1/ws/notify/u2", {"title": "T", "category": "sync"})
        token = node.token("root", roles=["admin"])
        async with legacy_socket(node, "/api/v1/ws/u2", token) as socket:
            assert (await socket.json())["user_id"] == "u2"
            data = (await socket.json())["data"]
            assert (data["total"], data["unread"], data["categories"]["sync"]) == (1, 1, 1)


async def test_an_admin_may_take_a_user_s_path_and_sees_what_is_for_that_user() -> None:
    async with (
        running_node("memory") as node,
        opened(node, "root", path="u2", roles=["admin"]) as root,
        opened(node, "u1") as other,
    ):
        await post(node, "/api/v1/ws/sync-update/u2", {"n": 1})
        assert (await root.json())["data"] == {"n": 1}
        await other.quiet()


async def test_ids_of_any_characters() -> None:
    async with running_node("memory") as node:
        for user, path in (("张三@例子", "%E5%BC%A0%E4%B8%89@%E4%BE%8B%E5%AD%90"), ("a/b", "a%2Fb")):
            async with opened(node, user, path=path) as socket:
                await node.publish("user:" + user, {"n": 1}, kind="sync_update")
                assert (await socket.json())["data"] == {"n": 1}


async def test_the_header_will_do_for_a_token() -> None:
    async with running_node("memory") as node:
        header = f"Bearer {node.token('u1')}"
        async with legacy_socket(node, "/api/v1/ws/u1", authorization=header) as socket:
            frame = await socket.json()
            assert (frame["type"], frame["user_id"]) == ("connection_established", "u1")


async def test_the_inbox_is_counted_at_the_door() -> None:
    async with running_node("memory") as node:
        for category in ("import", "import", "sync", "other"):
            await post(node, "/api/v1/ws/notify/u1", {"title": "T", "category": category})
        async with legacy_socket(node, "/api/v1/ws/u1", node.token("u1")) as socket:
            await socket.text()
            data = (await socket.json())["data"]
            assert data == {
                "total": 4,
                "unread": 4,
                "categories": {"sync": 1, "knowledge": 0, "system": 0, "import": 2},
            }


@pytest.mark.covers("S0.31", "S0.45", "S0.77")
async def test_the_demo_notification_arrives() -> None:
    async with running_node("memory") as node, opened(node) as socket:
        answer = await node.http.post("/api/v1/notifications/demo", headers=node.auth("u1"))
        told = answer.json()
        data = (await socket.json())["data"]
        assert (data["id"], data["created_at"]) == (told["id"], told["created_at"])
        assert told["websocket_sent"] is True


@pytest.mark.covers("S0.20", "S0.24")
async def test_connections_over_rest() -> None:
    async with running_node("memory") as node, opened(node), opened(node):
        answer = await node.http.get("/api/v1/ws/connections/u1", headers=node.auth("u1"))
        assert answer.json() == {"user_id": "u1", "connections": 2, "is_online": True}
        answer = await node.http.get("/api/v1/ws/stats", headers=node.auth("root", "admin"))
        assert answer.json()["stats"]["users"] == {"u1": 2}


async def test_a_notification_of_another_way_in_arrives_too() -> None:
    async with running_node("memory") as node, opened(node) as socket:
        body = {"to": {"user": "u1"}, "title": "T", "content": "C", "link": "/a", "type": "analysis"}
        headers = node.auth("backend", "publisher")
        assert (await node.http.post("/v1/notifications", json=body, headers=headers)).status_code == 201
        data = (await socket.json())["data"]
        assert (data["message"], data["category"], data["action_url"]) == ("C", "analysis", "/a")
        note = {"notification": {"title": "T2", "sound": "ding"}, "target_users": ["u1"]}
        await post(node, "/api/ws/notify", note)
        data = (await socket.json())["data"]
        assert data["title"] == "T2" and "sound" not in data
        await post(node, "/api/ws/notify", {"title": "for all"})
        assert (await socket.json())["data"]["title"] == "for all"
        await socket.quiet()
