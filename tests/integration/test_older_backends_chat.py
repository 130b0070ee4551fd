"""The contract `conversations` next to older backends: `ws:broadcast`, `ws:presence`, `ws:online_users`
(contract section 6.6).
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

import pytest

from support.clients import Client, WsClient, open_socket
from support.node import WAIT_S, place
from support.older_backend import LEASE_S, OlderBackend, OlderNode, OlderProcess, older_node
from support.redis_server import RedisServer

pytestmark = pytest.mark.anyio
GROUP = "presence:conversations"


@pytest.fixture
def redis() -> Iterator[RedisServer]:
    with RedisServer() as server:
        yield server


@asynccontextmanager
async def nodes(redis: RedisServer, count: int = 3, **settings: Any) -> AsyncIterator[list[OlderNode]]:
    async with place("redis", redis_url=redis.url) as where, AsyncExitStack() as stack:
        yield [await stack.enter_async_context(older_node(where, **settings)) for _ in range(count)]


async def chat(node: OlderNode, user: str, **fields: str) -> WsClient:
    """A connection that counts for the contract: it is in its presence channel."""
    bearer = node.token(user, channels=["presence:*"])
    socket = await open_socket(node.port, bearer, channels=[GROUP], **fields)
    await socket.welcome()
    await node.session_of(user)
    await node.composition.features.tracker.flush()
    return socket


async def last(node: OlderNode, client: Client, user: str) -> None:
    """Reads on until a publication made now arrives: whatever was to come before it has come."""
    marker = (await node.publish(f"user:{user}", kind="marker"))["id"]
    await client.until("publication", lambda got: got.body["id"] == marker)


def events(client: Client, name: str) -> list[dict[str, Any]]:
    found = (got for got in client.history if got.kind == "publication")
    return [got.data for got in found if got.body["event"] == name]


async def settled(cluster: list[OlderNode], old: OlderBackend) -> None:
    """Every node has heard and dealt with everything that was published so far."""
    fates = ("taken", "repeated", "own", "unreadable", "unknown", "refused", "dropped")
    before = {node: node.gauge("unreadable") for node in cluster}
    await old.say("notifications:nobody", "the end, and no JSON")

    def done(node: OlderNode) -> bool:
        heard = node.gauge("unreadable") > before[node]
        return heard and sum(node.gauge(name) for name in fates) >= node.gauge("heard")

    for node in cluster:
        await node.until(lambda node=node: done(node), "everything dealt with")  # type: ignore[misc]


def presence_of(old: OlderBackend, user: str) -> list[str]:
    """What was said about a user by others than this backend."""
    said = old.on("ws:presence")
    return [
        one["event_type"] for one in said if one["user_id"] == user and one["instance_id"] != old.instance
    ]


# ── ws:broadcast ──


@pytest.mark.covers("S3.69", "R45")
async def test_r45_a_broadcast_of_an_older_backend_arrives_once_where_it_belongs(redis: RedisServer) -> None:
    async with (
        nodes(redis) as (one, two, three),
        OlderBackend(redis.url) as old,
        OlderBackend(redis.url, sockets={"alice", "bob"}) as other,
    ):
        phone = await chat(one, "alice", device="mobile", device_id="p", instance="alice_mobile_1")
        laptop = await chat(two, "alice", device="desktop", device_id="l", instance="alice_desktop_1")
        third = await chat(three, "bob", device="web")
        async with phone, laptop, third:
            await old.broadcast({"action": "new_message", "data": {"id": "m1"}}, target_user_id="alice")
            await old.broadcast(
                {"event": "mobile_notification", "data": {"title": "t"}, "timestamp": "now"},
                target_user_id="alice",
                target_device_type="mobile",
            )
            await old.broadcast(
                {"event_type": "typing_update", "data": {"is_typing": True}, "conversation_id": "c"},
                target_connection_id="alice_desktop_1",
            )
            await old.broadcast({"event": "x", "data": {}}, target_connection_id="somewhere else")
            await old.say("ws:broadcast", "no json")
            await old.broadcast({"data": "nothing names it"}, target_user_id="alice")
            await settled([one, two, three], old)
            for node, client, user in ((one, phone, "alice"), (two, laptop, "alice"), (three, third, "bob")):
                await last(node, client, user)
            time = "2026-01-31T12:00:00.000000Z"
            new = {
                "event": "new_message",
                "action": "new_message",
                "event_type": "new_message",
                "data": {"id": "m1"},
                "timestamp": time,
            }
            typing = {
                "event": "typing_status",
                "action": "typing_status",
                "event_type": "typing_update",
                "data": {"is_typing": True},
                "conversation_id": "c",
                "timestamp": time,
            }
            on_phone = events(phone, "conversation.frame")
            assert [frame["event"] for frame in on_phone] == ["new_message", "mobile_notification"]
            assert on_phone[0] == new
            assert on_phone[1]["timestamp"] == time
            assert events(laptop, "conversation.frame") == [new, typing]
            assert events(third, "conversation.frame") == []
            # The other older backend heard each from the first one, and none of them from dualcast.
            assert [said["event_type"] for _, said in other.delivered if "event_type" in said] == []
            assert len(other.on("ws:broadcast")) == 5


@pytest.mark.covers("R19")
async def test_r19_a_frame_for_a_name_that_is_on_two_nodes_reaches_both_once(redis: RedisServer) -> None:
    """A client that comes back to another node has its name there, while its first connection, half open, is
    not given up yet: that one must not take away what is said to the client."""
    async with nodes(redis) as cluster, OlderBackend(redis.url) as old:
        one, two, _ = cluster
        async with (
            await chat(one, "alice", instance="alice_1") as first,
            await chat(two, "alice", instance="alice_1") as second,
            await chat(two, "alice", instance="alice_2") as other,
        ):
            frame = {"event": "system_notification", "data": {"title": "t"}}
            for _ in range(2):
                await old.broadcast(frame, target_connection_id="alice_1")
            await settled(cluster, old)
            for node, client in ((one, first), (two, second), (two, other)):
                await last(node, client, "alice")
            got = [len(events(client, "conversation.frame")) for client in (first, second, other)]
            assert got == [2, 2, 0]


@pytest.mark.covers("R45")
async def test_r45_what_is_of_use_now_only_arrives_once_too(redis: RedisServer) -> None:
    async with nodes(redis) as cluster, OlderBackend(redis.url) as old:
        one, two, _ = cluster
        async with await chat(two, "alice") as alice:
            typing = {"event": "typing_status", "data": {"is_typing": True}}
            for _ in range(3):
                await old.broadcast(typing, target_user_id="alice")
            await settled(cluster, old)
            await last(one, alice, "alice")
            assert sum(node.gauge("taken") for node in cluster) == 3
            assert len(events(alice, "conversation.frame")) == 3, alice.history
            assert [got.cursor for got in alice.history if got.body.get("event") == "conversation.frame"] == [
                None
            ] * 3


async def participants(node: OlderNode, conversation: str, *users: str) -> None:
    answer = await node.http.put(
        f"/v1/conversations/{conversation}/participants",
        json={"participants": list(users)},
        headers=node.auth("backend", "publisher"),
    )
    assert answer.status_code in (200, 201), answer.text


async def post(node: OlderNode, path: str, body: dict[str, Any], sub: str = "backend", *roles: str) -> None:
    answer = await node.http.post(path, json=body, headers=node.auth(sub, *roles))
    assert answer.status_code in (200, 201, 204), answer.text


@pytest.mark.covers("S3.69", "R45")
async def test_deliveries_are_copied_once_cluster_wide_and_come_back_to_nobody(redis: RedisServer) -> None:
    async with nodes(redis) as cluster, OlderBackend(redis.url, sockets={"alice", "carol"}) as old:
        one, two, three = cluster
        await participants(one, "c1", "alice", "bob", "carol")
        bob = await chat(two, "bob")
        async with bob:
            message = {"content": "你好", "id": "m1"}
            for node in (one, two):  # the second is the same message again
                await post(node, "/v1/conversations/c1/messages", message, "alice")
            mobile = {"kind": "mobile", "data": {"title": "t", "content": "c"}, "exclude_user": "alice"}
            await post(three, "/v1/conversations/c1/broadcasts", mobile, "backend", "publisher")
            await post(three, "/v1/conversations/c1/typing", {"is_typing": True}, "bob")
            await old.until(lambda: len(old.on("ws:broadcast")) >= 6, "six copies")
            await settled(cluster, old)
            await last(one, bob, "bob")
            copies = old.on("ws:broadcast")
            assert sorted((one["payload"]["event"], one["target_user_id"]) for one in copies) == [
                ("mobile_notification", "bob"),
                ("mobile_notification", "carol"),
                ("new_message", "bob"),
                ("new_message", "carol"),
                ("typing_status", "alice"),
                ("typing_status", "carol"),
            ]
            assert [user for user, said in old.delivered if said["event"] == "new_message"] == ["carol"]
            by_event = {one["payload"]["event"]: one for one in copies}
            assert by_event["mobile_notification"]["target_device_type"] == "mobile"
            assert by_event["new_message"]["payload"]["data"]["content"] == "你好"
            assert all(one["instance_id"].startswith("dualcast-") for one in copies)
            assert all(one["timestamp"].endswith("Z") for one in copies)
            assert len(events(bob, "conversation.message")) == 1
            assert events(bob, "conversation.frame") == []
        assert sum(node.gauge("taken") for node in cluster) == 0


# ── ws:presence and ws:online_users ──


@pytest.mark.covers("S3.68", "S3.70", "R38")
async def test_r38_presence_is_told_once_while_any_connection_lives(redis: RedisServer) -> None:
    async with nodes(redis) as (one, two, _), OlderBackend(redis.url) as old:
        phone = await chat(one, "alice", device="mobile", device_id="p1", instance="alice_mobile_1")
        await old.until_listed(lambda users: users == {"alice"})
        laptop = await chat(two, "alice", device="desktop")
        await old.until(lambda: len(old.on("ws:presence")) >= 3, "online, and both devices")
        await phone.close()
        await one.until(lambda: not one.sessions, "the phone is gone")
        await one.composition.features.tracker.flush()
        await old.until(lambda: len(old.on("ws:presence")) >= 4, "the phone's disconnect")
        assert await old.listed() == {"alice"}
        await laptop.close()
        await old.until_listed(lambda users: not users)
        await old.until(lambda: len(old.on("ws:presence")) >= 6, "offline, and the laptop's disconnect")
        assert presence_of(old, "alice").count("user_online") == 1
        assert presence_of(old, "alice").count("user_offline") == 1
        devices = [
            (said["event_type"], said["connection_id"], said["device_type"], said["device_id"])
            for said in old.on("ws:presence")
            if said["event_type"].startswith("device_") and said["device_type"] == "mobile"
        ]
        assert devices == [
            ("device_connected", "alice_mobile_1", "mobile", "p1"),
            ("device_disconnected", "alice_mobile_1", "mobile", "p1"),
        ]
        assert {said["instance_id"] for said in old.on("ws:presence")} == {
            "dualcast-" + node.composition.node.id for node in (one, two)
        }


@pytest.mark.covers("S3.70", "R38")
async def test_a_user_of_an_older_backend_counts_like_one_of_another_instance(redis: RedisServer) -> None:
    async with nodes(redis) as cluster, OlderBackend(redis.url) as old:
        one, two, three = cluster
        watcher = await chat(one, "watcher")
        async with watcher:
            await old.online("alice")
            got = await watcher.until("publication", lambda got: got.data.get("joined") == ["alice"])
            assert got.data["count"] == 2
            own = await chat(two, "alice")
            await own.close()
            await two.until(lambda: not two.sessions, "alice's own connection is gone")
            await two.composition.features.tracker.flush()
            assert (
                await three.composition.features.presence.presence_of("default", "alice")
            ).connections == 1
            assert "alice" in await old.listed()
            await old.offline("alice")
            await watcher.until("publication", lambda got: got.data.get("left") == ["alice"])
            await settled(cluster, old)
            await last(one, watcher, "watcher")
            changes = events(watcher, "presence")
            assert [data["joined"] for data in changes if "alice" in data["joined"]] == [["alice"]]
            assert [data["left"] for data in changes if "alice" in data["left"]] == [["alice"]]
        # Nothing of it was said again: only what the older backend said itself, and alice's own device.
        assert presence_of(old, "alice") == ["device_connected", "device_disconnected"]


@pytest.mark.covers("S3.68", "R38")
async def test_who_is_still_connected_here_is_put_back_and_nothing_is_announced(redis: RedisServer) -> None:
    async with nodes(redis, tidy_s=3600) as cluster, OlderBackend(redis.url) as old:
        socket = await chat(cluster[0], "alice")
        async with socket:
            await old.until_listed(lambda users: users == {"alice"})
            await old.online("alice")
            await old.offline("alice")  # takes her out of the set, as older backends do
            await old.until_listed(lambda users: users == {"alice"})
            await settled(cluster, old)
            await last(cluster[0], socket, "alice")
            assert presence_of(old, "alice").count("user_online") == 1
            assert "user_offline" not in presence_of(old, "alice")
            assert [data["left"] for data in events(socket, "presence") if data["left"]] == []


@pytest.mark.covers("S3.68")
async def test_the_set_is_put_in_order_without_a_word(redis: RedisServer) -> None:
    async with nodes(redis, 2, tidy_s=0.1) as cluster, OlderBackend(redis.url) as old:
        one, two = cluster
        socket = await chat(one, "alice")
        async with socket:
            await old.until_listed(lambda users: users == {"alice"})
            await old.redis.srem("ws:online_users", "alice")  # type: ignore[misc]
            await old.until_listed(lambda users: users == {"alice"})
            # Somebody of an older backend who left unheard: only the set says so.
            await old.online("bob")
            await socket.until("publication", lambda got: got.data.get("joined") == ["bob"])
            await old.redis.srem("ws:online_users", "bob")  # type: ignore[misc]
            await socket.until("publication", lambda got: got.data.get("left") == ["bob"])
            assert await old.listed() == {"alice"}
            assert presence_of(old, "bob") == []
        assert two.gauge("refused") == 0


@pytest.mark.covers("S3.70", "R39")
async def test_r39_users_of_a_killed_node_are_told_offline_once(redis: RedisServer) -> None:
    async with AsyncExitStack() as stack, OlderBackend(redis.url) as old:
        where = await stack.enter_async_context(place("redis", redis_url=redis.url))
        lease = {"lease_s": LEASE_S}
        one, two = [await stack.enter_async_context(older_node(where, presence=lease)) for _ in range(2)]
        victim = OlderProcess(where)
        await victim.start()
        try:
            bearer = one.token("alice", channels=["presence:*"])
            socket = await open_socket(victim.port, bearer, channels=[GROUP])
            async with socket, await chat(one, "bob") as bob, await chat(two, "carol"):
                await socket.welcome()
                await old.until_listed(lambda users: users == {"alice", "bob", "carol"})
                victim.kill()
                await bob.until("publication", lambda got: got.data.get("left") == ["alice"])
                await old.until_listed(lambda users: users == {"bob", "carol"})
                await old.until(lambda: "user_offline" in presence_of(old, "alice"), "alice went")
                await last(one, bob, "bob")
                assert presence_of(old, "alice").count("user_offline") == 1
        finally:
            victim.kill()


@pytest.mark.covers("S3.70", "R45")
async def test_r45_two_older_backends_and_three_nodes_do_not_echo(redis: RedisServer) -> None:
    async with (
        nodes(redis, mirror="always") as cluster,
        OlderBackend(redis.url) as old,
        OlderBackend(redis.url) as other,
    ):
        await old.online("carol")
        await other.online("carol")
        await old.broadcast({"event": "direct_message", "data": {}}, target_user_id="carol")
        await old.notify("carol", "n1")
        socket = await chat(cluster[1], "dora")
        async with socket:
            await settled(cluster, old)
            await old.offline("carol")
            await settled(cluster, old)
            await old.until_listed(lambda users: users == {"carol", "dora"})  # she is on the other one still
            await other.offline("carol")
            await old.until_listed(lambda users: users == {"dora"})
            await old.until(lambda: len(presence_of(old, "dora")) == 2, "dora and her device")
            await settled(cluster, old)
            await last(cluster[1], socket, "dora")
        said = [(channel, one.get("instance_id")) for channel, one in old.heard]
        theirs = {old.instance, other.instance, None}
        assert [one for one in said if one[1] in theirs] == [
            ("ws:presence", old.instance),
            ("ws:presence", other.instance),
            ("ws:broadcast", old.instance),
            ("notifications:carol", None),
            ("ws:presence", old.instance),
            ("ws:presence", other.instance),
        ]
        assert len([one for one in said if one[1] not in theirs]) == 2


@pytest.mark.covers("R45")
async def test_r45_broadcasts_while_a_node_is_killed_arrive_once(redis: RedisServer) -> None:
    async with AsyncExitStack() as stack, OlderBackend(redis.url) as old:
        where = await stack.enter_async_context(place("redis", redis_url=redis.url))
        one, two = [await stack.enter_async_context(older_node(where)) for _ in range(2)]
        victim = OlderProcess(where)
        await victim.start()
        try:
            socket = await chat(two, "alice")
            async with socket, asyncio.timeout(WAIT_S * 3):
                for number in range(200):
                    frame = {"event": "new_message", "data": {"id": f"m{number}"}}
                    await old.broadcast(frame, target_user_id="alice")
                    if number == 100:
                        victim.kill()
                await settled([one, two], old)
                await last(one, socket, "alice")
                got = [data["data"]["id"] for data in events(socket, "conversation.frame")]
                assert got == [f"m{number}" for number in range(200)]
        finally:
            victim.kill()
