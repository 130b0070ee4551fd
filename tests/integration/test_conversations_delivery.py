"""What is said in a conversation reaches the other participants' connections, on both transports and every
engine, each exactly once (contract 6.3; R37, and R28 for conversations).
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack
from typing import Any

import pytest

from support.clients import TRANSPORTS, Client, Got, open_client
from support.node import ENGINES, WAIT_S, Node, place, running_node

pytestmark = pytest.mark.anyio

C = "/v1/conversations/c"


@pytest.fixture(params=ENGINES)
async def node(request: pytest.FixtureRequest) -> AsyncIterator[Node]:
    async with running_node(request.param) as running:
        await make(running, "alice", "bob", "carol")
        yield running


async def make(node: Node, *users: str, tenant: str = "default") -> None:
    answer = await node.http.put(
        C + "/participants",
        json={"participants": list(users)},
        headers=node.auth("backend", "publisher", tenant=tenant),
    )
    assert answer.status_code == 200, answer.text


async def post(node: Node, user: str, what: str, **body: Any) -> Any:
    answer = await node.http.post(f"{C}/{what}", json=body, headers=node.auth(user))
    assert answer.status_code in (200, 201, 204), answer.text
    return answer.json() if answer.content else None


class Crowd:
    """Connections by name: `alice/ws/1` is Alice's on WebSocket."""

    def __init__(self, node: Node) -> None:
        self.node = node
        self.clients: dict[str, Client] = {}
        self.ids: dict[str, str] = {}
        self._stack = AsyncExitStack()

    async def join(self, name: str, *, channels: tuple[str, ...] = (), **how: Any) -> Client:
        user, transport, *_ = name.split("/")
        token = self.node.token(user, tenant=how.pop("tenant", "default"))
        client = await self._stack.enter_async_context(
            await open_client(transport, self.node.port, token, channels=channels, **how)
        )
        self.ids[name] = (await client.welcome()).body["connection"]
        self.clients[name] = client
        return client

    async def close(self) -> None:
        await self._stack.aclose()

    async def got(self, *names: str) -> dict[str, list[Got]]:
        """What everybody was given until now: a fence to all ends it. `names`: of these only."""
        await self.node.publish("all", {}, kind="fence")
        found: dict[str, list[Got]] = {}
        for name in names or self.clients:
            found[name] = []
            while (got := await self.clients[name].until("publication")).body["event"] != "fence":
                found[name].append(got)
        return found


@pytest.fixture
async def crowd(node: Node) -> AsyncIterator[Crowd]:
    one = Crowd(node)
    try:
        yield one
    finally:
        await one.close()


async def everybody(crowd: Crowd) -> None:
    for user in ("alice", "bob", "eve"):
        for transport in TRANSPORTS:
            await crowd.join(f"{user}/{transport}/1")
    await crowd.join("alice/ws/2")
    # By two ways: the own channel, and the conversation's.
    for transport in TRANSPORTS:
        await crowd.join(f"carol/{transport}/both", channels=("conversation:c",))


def events(got: dict[str, list[Got]]) -> dict[str, list[str]]:
    return {name: [one.body["event"] for one in list_] for name, list_ in got.items() if list_}


@pytest.mark.covers("S3.48")
async def test_a_message_reaches_the_others_once_each_and_no_device_of_the_sender(
    node: Node, crowd: Crowd
) -> None:
    await everybody(crowd)
    sent = await post(node, "alice", "messages", content="你好", id="m1")
    got = await crowd.got()
    assert events(got) == {
        name: ["conversation.message"] for name in crowd.clients if name.split("/")[0] in ("bob", "carol")
    }
    copies = [list_[0] for list_ in got.values() if list_]
    assert all(copy.data == sent for copy in copies)
    assert len({copy.cursor for copy in copies}) == 1 and len({copy.body["id"] for copy in copies}) == 1
    # The same again is no second broadcast.
    assert await post(node, "alice", "messages", content="你好", id="m1") == sent
    assert events(await crowd.got()) == {}


async def test_an_excluded_connection_is_the_only_one_without_a_copy(node: Node, crowd: Crowd) -> None:
    await everybody(crowd)
    await post(node, "alice", "messages", content="hi", exclude_connection=crowd.ids["alice/ws/1"])
    got = events(await crowd.got())
    assert set(got) == {
        name
        for name in crowd.clients
        if name != "alice/ws/1" and name.split("/")[0] in ("alice", "bob", "carol")
    }
    assert all(names == ["conversation.message"] for names in got.values())
    # Nobody keeps a message from somebody else.
    answer = await node.http.post(
        C + "/messages",
        json={"content": "hi", "exclude_connection": crowd.ids["bob/ws/1"]},
        headers=node.auth("alice"),
    )
    assert answer.status_code == 403
    assert events(await crowd.got()) == {}


@pytest.mark.covers("S3.51", "S3.52")
async def test_typing_and_read_reach_the_others_and_are_not_recovered(node: Node, crowd: Crowd) -> None:
    await everybody(crowd)
    await post(node, "alice", "messages", content="hi", id="m1")
    before = await crowd.got()
    cursor = before["bob/sse/1"][0].cursor
    await post(node, "bob", "typing", is_typing=True)
    await post(node, "bob", "read", message_ids=["m1"])
    got = await crowd.got()
    assert events(got) == {
        name: ["conversation.typing", "conversation.read"]
        for name in crowd.clients
        if name.split("/")[0] in ("alice", "carol")
    }
    typing, read = got["alice/sse/1"]
    assert typing.data == {"conversation_id": "c", "user_id": "bob", "is_typing": True}
    assert read.data == {"conversation_id": "c", "user_id": "bob", "message_ids": ["m1"]}
    for transport in TRANSPORTS:
        await crowd.join(f"alice/{transport}/late", cursor=cursor)
        await crowd.join(f"bob/{transport}/late", cursor=cursor)
        for user in ("alice", "bob"):
            client = crowd.clients[f"{user}/{transport}/late"]
            seen = [(await client.until("publication")).body["event"] for _ in range(2)]
            assert seen == ["fence", "fence"]


async def test_messages_missed_are_recovered_but_not_by_their_sender(node: Node, crowd: Crowd) -> None:
    await crowd.join("bob/ws/1")
    start = (await crowd.got("bob/ws/1")) and crowd.clients["bob/ws/1"].cursor
    for number in range(3):
        await post(node, "alice", "messages", content=f"{number}")
    await node.publish("all", {}, kind="end")
    for transport in TRANSPORTS:
        for user, expected in (("bob", ["0", "1", "2"]), ("alice", []), ("eve", [])):
            client = await crowd.join(f"{user}/{transport}/late", cursor=start)
            found = []
            while (got := await client.until("publication")).body["event"] != "end":
                found.append(got.data["content"])
            assert found == expected, user


async def test_who_left_gets_nothing_more_though_the_subscription_is_open(node: Node, crowd: Crowd) -> None:
    await everybody(crowd)
    await make(node, "alice", "bob")
    got = await crowd.got()
    for name in ("alice/ws/1", "bob/sse/1", "carol/ws/both", "carol/sse/both"):
        (told,) = got[name]
        assert told.body["event"] == "conversation.participants"
        assert told.data == {
            "conversation_id": "c",
            "joined": [],
            "left": ["carol"],
            "count": 2,
            "revision": 2,
        }
    await post(node, "alice", "messages", content="without carol")
    await post(node, "alice", "typing", is_typing=True)
    got = await crowd.got()
    assert {name.split("/")[0] for name in events(got)} == {"bob"}
    # And cannot come back.
    late = await open_client("ws", node.port, node.token("carol"), channels=("conversation:c",))
    async with late:
        ended = await late.end()
        assert ended.code == 4003


@pytest.mark.covers("S3.50", "S3.53", "S3.54")
async def test_broadcasts_of_backends(node: Node, crowd: Crowd) -> None:
    for name, device in (
        ("alice/ws/phone", "mobile"),
        ("alice/sse/desk", "desktop"),
        ("bob/ws/pad", "tablet"),
    ):
        await crowd.join(name, device=device)
    await crowd.join("eve/ws/phone", device="mobile")
    headers = node.auth("backend", "publisher")
    for body in (
        {"kind": "mobile", "data": {"title": "预约提醒"}},
        {"kind": "reply", "consultant_id": "bob", "data": {"content": "c"}},
        {"kind": "system", "data": {"title": "t"}},
        {"kind": "system", "data": {"title": "t"}, "targets": ["bob"]},
    ):
        answer = await node.http.post(C + "/broadcasts", json=body, headers=headers)
        assert answer.status_code == 201, answer.text
    direct = {"user": "eve", "data": {"title": "t"}}
    assert (await node.http.post("/v1/direct-messages", json=direct, headers=headers)).status_code == 201
    assert events(await crowd.got()) == {
        "alice/ws/phone": ["conversation.mobile", "conversation.reply", "conversation.system"],
        "alice/sse/desk": ["conversation.reply", "conversation.system"],
        "bob/ws/pad": ["conversation.system", "conversation.system"],
        "eve/ws/phone": ["conversation.direct"],
    }


async def test_participants_on_another_node_hear_it_once() -> None:
    async with (
        place("redis") as where,
        running_node(where) as here,
        running_node(where) as there,
    ):
        await make(here, "alice", "bob")
        crowd = Crowd(there)
        try:
            for name in ("alice/ws/1", "bob/ws/1", "bob/sse/1"):
                await crowd.join(name)
            await post(here, "alice", "messages", content="hi", id="m1")
            await post(there, "alice", "messages", content="hi", id="m1")
            await post(here, "alice", "typing", is_typing=True)
            got = events(await crowd.got())
            assert set(got) == {"bob/ws/1", "bob/sse/1"}
            # The signal takes its own way: no order between it and what is kept is promised over two nodes.
            assert all(
                sorted(names) == ["conversation.message", "conversation.typing"] for names in got.values()
            )
        finally:
            await crowd.close()


async def test_the_same_conversation_of_another_tenant_hears_nothing(node: Node, crowd: Crowd) -> None:
    await make(node, "alice", "bob", tenant="other")
    for transport in TRANSPORTS:
        await crowd.join(f"bob/{transport}/there", channels=("conversation:c",), tenant="other")
        await crowd.join(f"bob/{transport}/here")
    await post(node, "alice", "messages", content="hi")
    await post(node, "alice", "typing", is_typing=True)
    assert {len(list_) for list_ in (await crowd.got("bob/sse/here", "bob/ws/here")).values()} == {2}
    await node.publish("all", {}, kind="fence", tenant="other")
    for transport in TRANSPORTS:
        got = await crowd.clients[f"bob/{transport}/there"].until("publication")
        assert got.body["event"] == "fence"


@pytest.mark.covers("S3.49")
@pytest.mark.parametrize("engine", ENGINES)
async def test_who_is_away_gets_a_push_and_who_is_here_does_not(
    engine: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, logger="dualcast.push")

    def pushed() -> list[str]:
        return [text.rpartition(": ")[2] for text in caplog.messages if "推送通知" in text]

    async with running_node(engine, push={"provider": "log"}) as node:
        await make(node, "alice", "bob", "carol", "dave")
        crowd = Crowd(node)
        try:
            await crowd.join("bob/ws/1", device="desktop")
            await crowd.join("carol/ws/1", device="mobile")
            services = node.composition.app.state.services
            for user in ("bob", "carol"):
                await eventually(lambda user=user: services.presence.online("default", user))
            await post(node, "alice", "messages", content="hi")
            await node.until(lambda: len(pushed()) == 1, "a push of the message")
            # Mobile counts for a reply: bob at his desk gets both.
            reply = {"kind": "reply", "consultant_id": "alice", "data": {"content": "c"}}
            headers = node.auth("backend", "publisher")
            answer = await node.http.post(C + "/broadcasts", json=reply, headers=headers)
            assert answer.status_code == 201
            await node.until(lambda: len(pushed()) == 3, "pushes of the reply")
            got = events(await crowd.got())
            assert got == {name: ["conversation.message", "conversation.reply"] for name in crowd.clients}
        finally:
            await crowd.close()
    assert pushed()[0] == "dave" and sorted(pushed()[1:]) == ["bob", "dave"]
    assert "   [数据: {'conversation_id': 'c', 'action': 'open_conversation'}]" in caplog.messages


async def eventually(condition: Callable[[], Awaitable[bool]]) -> None:
    """Waits for what is told to no client."""
    async with asyncio.timeout(WAIT_S):
        while not await condition():
            await asyncio.sleep(0.02)
