"""Names of topics and rooms may have 200 characters of any script (legacy-wire section 5.4), on every engine,
by every way in; ids in paths are percent-encoded and may hold `/`."""

from __future__ import annotations

from collections.abc import AsyncIterator
from urllib.parse import quote

import pytest

from support.clients import open_socket
from support.legacy_sockets import legacy_socket
from support.node import ENGINES, Node, place, running_node

pytestmark = pytest.mark.anyio
NAME = "名😀" * 100
assert len(NAME) == 200 and len(NAME.encode()) == 700


@pytest.fixture(params=ENGINES)
async def node(request: pytest.FixtureRequest) -> AsyncIterator[Node]:
    async with running_node(request.param) as running:
        yield running


async def test_a_topic_and_a_room_of_200_characters_arrive(node: Node) -> None:
    async with (
        legacy_socket(node, "/api/ws", node.token("u1")) as topics,
        legacy_socket(node, "/api/v1/ws/u1", node.token("u1")) as rooms,
    ):
        await topics.json()
        await rooms.json(), await rooms.json()
        for name in (NAME, "import:" + NAME[:193]):
            answer = await topics.ask({"type": "subscribe", "topic": name})
            assert answer == {"type": "subscribed", "topic": name, "success": True}
            await node.publish("topic:" + name, {"n": 1}, kind="topic_message")
            frame = await topics.json()
            assert (frame["topic"], frame["n"]) == (name, 1)
            answer = await topics.ask({"type": "unsubscribe", "topic": name})
            assert answer == {"type": "unsubscribed", "topic": name, "success": True}
            await node.publish("topic:" + name, {"n": 2}, kind="topic_message")
            await topics.quiet()
        refused = {"type": "error", "message": "Not allowed: " + NAME}
        assert await topics.ask({"type": "subscribe", "topic": NAME + "x"}) == refused
        assert (await rooms.ask({"type": "subscribe", "room": NAME}))["room"] == NAME
        await node.publish("room:" + NAME, {"type": "x", "n": 3}, kind="room_message")
        assert (await rooms.json())["n"] == 3
        await rooms.quiet()


async def test_native_clients_follow_it_by_claim_and_by_grant(node: Node) -> None:
    channel = "topic:" + NAME
    async with await open_socket(node.port, node.token("u1", channels=["topic:*"])) as socket:
        await socket.welcome()
        assert (await socket.ask("subscribe", channels=[channel])).kind == "subscribed"
    async with await open_socket(node.port, node.token("u2")) as socket:
        await socket.welcome()
        assert (await socket.ask("subscribe", channels=[channel])).body["code"] == "forbidden-channel"
        await node.grant(quote(channel, safe=""), "u2")
        assert (await socket.ask("subscribe", channels=[channel])).kind == "subscribed"
        await node.publish(channel, "hello")
        assert [got.data for got in await socket.publications(1)] == ["hello"]
    path = f"/v1/channels/{quote(channel, safe='')}/history"
    history = await node.http.get(path, headers=node.auth("root", "admin"))
    assert [one["data"] for one in history.json()["publications"]] == ["hello"]


async def test_it_reaches_over_nodes() -> None:
    async with (
        place("redis") as where,
        running_node(where) as near,
        running_node(where) as far,
        legacy_socket(far, "/api/ws", far.token("u1")) as socket,
    ):
        await socket.json()
        assert (await socket.ask({"type": "subscribe", "topic": NAME}))["success"]
        await near.publish("topic:" + NAME, {"n": 1}, kind="topic_message")
        assert (await socket.json())["topic"] == NAME
        await socket.quiet()


@pytest.mark.parametrize("user", ["a/b", "https://id.example/u?x=1", "100%", "张三"])
async def test_bug_a_user_id_with_a_slash_was_no_user_for_the_endpoints(user: str) -> None:
    path = quote(user, safe="")
    async with running_node("memory") as node:
        root = node.auth("root", "admin")
        async with legacy_socket(node, "/api/v1/ws/" + path, node.token(user)) as socket:
            await socket.json(), await socket.json()
            answer = await node.http.post("/api/v1/ws/notify/" + path, json={"title": "T"}, headers=root)
            assert (answer.status_code, answer.json()["user_id"]) == (200, user)
            assert (await socket.json())["data"]["title"] == "T"
            answer = await node.http.post("/api/v1/ws/sync-update/" + path, json={"n": 1}, headers=root)
            assert (answer.status_code, answer.json()["user_id"]) == (200, user)
            assert (await socket.json())["data"] == {"n": 1}
            answer = await node.http.get("/api/v1/ws/connections/" + path, headers=node.auth(user))
            assert answer.json() == {"user_id": user, "connections": 1, "is_online": True}
        chat = f"/api/v1/chat/{path}"
        body = {"content": "c", "id": "m1", "participants": [user]}
        assert (await node.http.post(chat + "/send", json=body, headers=root)).status_code == 200
        own = node.auth(user)
        typing = await node.http.post(chat + "/typing", json={"is_typing": True}, headers=own)
        read = await node.http.post(chat + "/read", json={"message_ids": ["m1"]}, headers=own)
        assert (typing.status_code, read.status_code) == (200, 200)
        mine = (await node.http.get("/v1/conversations", headers=own)).json()["conversations"]
        assert [one["id"] for one in mine] == [user]
