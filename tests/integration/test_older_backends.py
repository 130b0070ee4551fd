"""Living next to older backends: what they publish arrives once, on every transport, whatever the number of
nodes, and what dualcast says is heard there once (contract sections 6.6 and 10).
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

import pytest

from support.clients import Client, Got, open_socket, open_stream
from support.node import place
from support.older_backend import OlderBackend, OlderNode, OlderProcess, older_node
from support.redis_server import RedisServer

pytestmark = pytest.mark.anyio
GROUP = "presence:conversations"
MEMBER = {"channels": ["presence:*"]}


@pytest.fixture
def redis() -> Iterator[RedisServer]:
    with RedisServer() as server:
        yield server


@asynccontextmanager
async def nodes(redis: RedisServer, count: int = 3, **settings: Any) -> AsyncIterator[list[OlderNode]]:
    async with place("redis", redis_url=redis.url) as where, AsyncExitStack() as stack:
        yield [await stack.enter_async_context(older_node(where, **settings)) for _ in range(count)]


def sums(cluster: list[OlderNode], name: str) -> float:
    return sum(node.gauge(name) for node in cluster)


async def settled(cluster: list[OlderNode], heard: int) -> None:
    """Every node has heard and dealt with `heard` messages."""
    for node in cluster:
        await node.until(
            lambda node=node: node.gauge("heard") >= heard and not node.gauge("waiting"),  # type: ignore[misc]
            f"{heard} messages heard",
        )
    fates = ("taken", "repeated", "own", "unreadable", "unknown", "refused", "dropped")
    for node in cluster:
        await node.until(
            lambda node=node: sum(node.gauge(name) for name in fates) >= heard,  # type: ignore[misc]
            "every message dealt with",
        )


def notifications(client: Client) -> list[dict[str, Any]]:
    return [
        got.data
        for got in client.history
        if got.kind == "publication" and got.body["event"] == "notification"
    ]


def event(name: str) -> Any:
    def matches(got: Got) -> bool:
        return got.body.get("event") == name

    return matches


async def last(node: OlderNode, client: Client, user: str) -> None:
    """Reads on until a publication made now arrives: whatever was to come before it has come."""
    marker = (await node.publish(f"user:{user}", kind="marker"))["id"]
    await client.until("publication", lambda got: got.body["id"] == marker)


async def unread(node: OlderNode, user: str) -> int:
    answer = await node.http.get(f"/v1/users/{user}/unread-count", headers=node.auth(user))
    assert answer.status_code == 200, answer.text
    return int(answer.json()["unread"])


# ── notifications ──


@pytest.mark.covers("S1.39", "S1.45", "R7", "R45")
async def test_a_notification_of_an_older_backend_arrives_once_on_each_connection(redis: RedisServer) -> None:
    async with nodes(redis) as cluster, OlderBackend(redis.url) as old:
        one, two, three = cluster
        sse_only = await open_stream(one.port, one.token("carol"))
        socket = await open_socket(two.port, two.token("alice"))
        stream = await open_stream(three.port, three.token("alice"))
        async with sse_only, socket, stream:
            for client in (sse_only, socket, stream):
                await client.welcome()
            for number in range(5):
                await old.notify("alice", f"a{number}")
                await old.notify("carol", f"c{number}")
            await settled(cluster, 10)
            for client, user, node in (
                (sse_only, "carol", one),
                (socket, "alice", two),
                (stream, "alice", three),
            ):
                await last(node, client, user)
                found = notifications(client)
                assert [data["id"] for data in found] == [f"{user[0]}{number}" for number in range(5)]
                assert found[0]["created_at"] == "2026-01-31T12:00:00.123456Z"
                assert found[0]["title"] == "分析完成"
        assert sums(cluster, "taken") == 10
        assert sums(cluster, "repeated") == 20
        assert await unread(one, "alice") == 5  # kept in the inbox, once


async def test_messages_without_an_id_are_told_apart_by_their_occurrence(redis: RedisServer) -> None:
    async with AsyncExitStack() as later, OlderBackend(redis.url) as old:
        where = await later.enter_async_context(place("redis", redis_url=redis.url))
        one = await later.enter_async_context(older_node(where))
        socket = await open_socket(one.port, one.token("alice"))
        async with socket:
            await socket.welcome()
            same = {"title": "again", "type": "alert"}
            for _ in range(3):
                await old.say("notifications:alice", same)
            await settled([one], 3)
            # Who comes later has not heard the first three, and makes no fourth of the third.
            more = [await later.enter_async_context(older_node(where)) for _ in range(2)]
            for _ in range(2):
                await old.say("notifications:alice", same)
            await settled(more, 2)
            await settled([one], 5)
            await last(one, socket, "alice")
            assert [data["title"] for data in notifications(socket)] == ["again"] * 5
            assert sums([one, *more], "taken") == 5


async def test_one_id_for_two_users_is_two_notifications_and_for_one_user_one(redis: RedisServer) -> None:
    async with nodes(redis, 2) as cluster, OlderBackend(redis.url) as old:
        one, two = cluster
        alice = await open_socket(one.port, one.token("alice"))
        bob = await open_stream(two.port, two.token("bob"))
        async with alice, bob:
            await alice.welcome()
            await bob.welcome()
            for title in ("first", "said again"):
                for user in ("alice", "bob"):
                    await old.notify(user, "same", title=title)
            await settled(cluster, 4)
            for client, user in ((alice, "alice"), (bob, "bob")):
                await last(one, client, user)
                assert [(data["id"], data["title"]) for data in notifications(client)] == [("same", "first")]
                assert await unread(one, user) == 1


async def test_what_is_missing_is_filled_and_what_is_no_json_is_dropped(redis: RedisServer) -> None:
    async with nodes(redis, 1) as (node,), OlderBackend(redis.url) as old:
        socket = await open_socket(node.port, node.token("alice"))
        async with socket:
            await socket.welcome()
            await old.redis.publish("notifications:alice", "{broken")
            await old.redis.publish("notifications:alice", b"\xff\xfe")
            await old.redis.publish("notifications:alice", json.dumps(["no", "object"]))
            await old.redis.publish("notifications:", json.dumps({"title": "for nobody"}))
            await old.redis.publish("notifications:alice", json.dumps({"id": "x", "content": "x" * 70_000}))
            await old.redis.publish("notifications:alice", json.dumps({"id": 7, "content": "text"}))
            await settled([node], 6)
            await last(node, socket, "alice")
            (found,) = notifications(socket)
            assert (found["id"], found["title"], found["type"]) == ("7", "Notification", "system")
            assert found["created_at"].endswith("Z")
        assert node.gauge("unreadable") == 5


@pytest.mark.covers("R45")
async def test_r45_a_killed_node_doubles_and_loses_nothing(redis: RedisServer) -> None:
    async with AsyncExitStack() as stack, OlderBackend(redis.url) as old:
        where = await stack.enter_async_context(place("redis", redis_url=redis.url))
        one, two = [await stack.enter_async_context(older_node(where)) for _ in range(2)]
        victim = OlderProcess(where)
        await victim.start()
        socket = await open_socket(one.port, one.token("alice"))
        stream = await open_stream(two.port, two.token("alice"))
        try:
            async with socket, stream:
                await socket.welcome()
                await stream.welcome()
                assert len(redis.clients("dualcast-older")) == 3
                for number in range(300):
                    await old.notify("alice", f"n{number}")
                    await old.say("notifications:alice", {"title": f"no id {number // 2}"})
                    if number == 150:
                        victim.kill()
                await settled([one, two], 600)
                for node, client in ((one, socket), (two, stream)):
                    await last(node, client, "alice")
                    got = notifications(client)
                    named = [data["id"] for data in got if data["id"].startswith("n")]
                    assert named == [f"n{number}" for number in range(300)]
                    rest = Counter(data["title"] for data in got if not data["id"].startswith("n"))
                    assert rest == {f"no id {number}": 2 for number in range(150)}
                assert await unread(one, "alice") == 600
        finally:
            victim.kill()


@pytest.mark.covers("R2", "R3")
async def test_r3_the_older_names_are_heard_again_after_an_outage(redis: RedisServer) -> None:
    async with nodes(redis, 2) as cluster:
        one, two = cluster
        socket = await open_socket(one.port, one.token("alice"))
        async with socket:
            await socket.welcome()
            before = len(redis.clients("dualcast-older"))
            redis.restart()
            for node in cluster:
                await node.until(lambda node=node: node.gauge("resubscribes") == 2, "it is back")  # type: ignore[misc]
                await node.until(lambda node=node: node.composition.hub.available, "the bus")  # type: ignore[misc]
            async with OlderBackend(redis.url) as old:
                await old.notify("alice", "after")
                got = await socket.until("publication", event("notification"))
                assert got.data["id"] == "after"
                await settled(cluster, 1)
                await last(two, socket, "alice")
            assert len(notifications(socket)) == 1
            assert len(redis.clients("dualcast-older")) == before == 2
            assert min(node.gauge("connection_failures") for node in cluster) >= 1


@pytest.mark.covers("R1")
async def test_r1_one_connection_more_whatever_the_number_of_clients(redis: RedisServer) -> None:
    async with nodes(redis, 1) as (node,):

        def rows() -> list[tuple[str, str, str]]:
            found = redis.clients("dualcast-older")
            return [(row["name"], row["sub"], row["psub"]) for row in found]

        assert rows() == [("dualcast-older", "2", "2")]
        clients = [await open_stream(node.port, node.token(f"u{number}")) for number in range(40)]
        for client in clients:
            await client.welcome()
        assert rows() == [("dualcast-older", "2", "2")]
        for client in clients:
            client.wire.reset()
        assert rows() == [("dualcast-older", "2", "2")]
    assert rows() == []


# ── tasks ──


async def task_of(node: OlderNode, ident: str) -> dict[str, Any]:
    answer = await node.http.get(f"/v1/tasks/{ident}", headers=node.auth("backend", "publisher"))
    assert answer.status_code == 200, answer.text
    found: dict[str, Any] = answer.json()
    return found


async def register(node: OlderNode, ident: str, owner: str) -> None:
    answer = await node.http.put(
        f"/v1/tasks/{ident}", json={"owner": owner}, headers=node.auth("backend", "publisher")
    )
    assert answer.status_code in (200, 201), answer.text


async def test_progress_of_a_registered_task_becomes_a_report_once(redis: RedisServer) -> None:
    async with nodes(redis) as cluster, OlderBackend(redis.url) as old:
        one, two, _ = cluster
        await register(one, "T1", "alice")
        socket = await open_socket(two.port, two.token("alice"), channels=["task:T1"])
        async with socket:
            await socket.welcome()
            for step in range(1, 6):
                await old.progress(
                    "T1",
                    task_id="T1",
                    message="正在分析...",
                    step=step,
                    total_steps=5,
                    timestamp="2026-01-31T12:00:00",
                )
            await old.progress("T1", message="🎉 任务成功完成: 000001", result={"score": 1})
            await settled(cluster, 6)
            await socket.until("publication", lambda got: got.data.get("state") == "completed")
            told = [got.data for got in socket.history if got.kind == "publication"]
            assert [data["step"] for data in told] == [1, 2, 3, 4, 5, 5]
            revisions = [data["revision"] for data in told]
            assert revisions == [2, 3, 4, 5, 6, 7]
        task = await task_of(one, "T1")
        assert (task["state"], task["percent"], task["revision"]) == ("completed", 100.0, 7)


async def test_progress_of_the_older_queue_is_published_and_of_nobody_is_not(redis: RedisServer) -> None:
    async with nodes(redis) as cluster, OlderBackend(redis.url) as old:
        one, two, _ = cluster
        await old.redis.hset("qa:task:Q1", mapping={"id": "Q1", "user": "alice"})  # type: ignore[misc]
        socket = await open_socket(
            two.port, two.token("alice", channels=["task:*"]), channels=["task:Q1", "task:Q2"]
        )
        async with socket:
            await socket.welcome()
            await old.progress("Q2", message="whose?", step=1, total_steps=2)
            await old.progress("Q1", message="half", step=1, total_steps=2)
            await old.progress("Q1", message="❌ 任务失败: 超时")
            await settled(cluster, 3)
            await last(one, socket, "alice")
            told = [
                got.data
                for got in socket.history
                if got.kind == "publication" and got.body["event"] == "task"
            ]
        assert [(data["id"], data["state"], data["owner"]) for data in told] == [
            ("Q1", "processing", "alice"),
            ("Q1", "failed", "alice"),
        ]
        assert told[0]["percent"] == 50.0
        assert told[1]["error"] == "❌ 任务失败: 超时"
        assert sums(cluster, "unknown") == 3


# ── mirror ──


@pytest.mark.covers("S1.39", "S1.45")
@pytest.mark.parametrize("mirror", ["off", "fallback", "always"])
async def test_the_mirror_keeps_clients_of_old_servers_supplied(redis: RedisServer, mirror: str) -> None:
    async with (
        nodes(redis, 3, mirror=mirror) as cluster,
        OlderBackend(redis.url, sse={"alice", "bob", "T1"}) as old,
    ):
        one, two, three = cluster
        socket = await open_socket(two.port, two.token("bob"))
        stream = await open_stream(three.port, three.token("alice"))
        async with socket, stream:
            await socket.welcome()
            await stream.welcome()
            await two.composition.features.tracker.flush()
            await three.composition.features.tracker.flush()
            for number in range(3):
                body = {"to": {"users": ["alice", "bob"]}, "title": f"t{number}", "id": f"n{number}"}
                answer = await one.http.post(
                    "/v1/notifications", json=body, headers=one.auth("backend", "publisher")
                )
                assert answer.status_code == 201, answer.text
                repeated = await two.http.post(
                    "/v1/notifications", json=body, headers=one.auth("backend", "publisher")
                )
                assert repeated.json()["duplicate"]
            await register(three, "T1", "alice")
            headers = one.auth("backend", "publisher")
            answer = await one.http.post(
                "/v1/tasks/T1", json={"step": 1, "total_steps": 2, "message": "m"}, headers=headers
            )
            assert answer.status_code == 200, answer.text
            expected = {"off": 0, "fallback": 4, "always": 7}[mirror]
            if expected:
                await old.until(lambda: len(old.delivered) >= expected, f"{expected} copies")
                await settled(cluster, expected)
            # What comes last comes behind every copy there is.
            await last(one, socket, "bob")
            await last(one, stream, "alice")
            assert len(old.delivered) == expected
            assert [data["id"] for data in notifications(socket)] == ["n0", "n1", "n2"]
            assert [data["id"] for data in notifications(stream)] == ["n0", "n1", "n2"]
        if mirror != "off":
            ids = Counter(user for user, _ in old.delivered)
            assert ids == ({"alice": 3, "T1": 1} if mirror == "fallback" else {"alice": 3, "bob": 3, "T1": 1})
            told = next(said for user, said in old.delivered if user == "alice")
            assert list(told) == ["id", "type", "title", "content", "link", "source", "status", "created_at"]
            (progress,) = (said for user, said in old.delivered if user == "T1")
            assert (progress["progress"], progress["message"]) == (50.0, "m")
        assert sums(cluster, "taken") == 0  # no loop: nothing of dualcast's own came in again
        assert await unread(one, "alice") == 3


async def test_what_came_in_from_an_older_backend_is_not_mirrored(redis: RedisServer) -> None:
    async with (
        nodes(redis, 3, mirror="always") as cluster,
        OlderBackend(redis.url, sse={"alice", "T1"}) as old,
    ):
        one = cluster[0]
        await register(one, "T1", "alice")
        await old.notify("alice", "n1")
        await old.progress("T1", message="m", step=1, total_steps=2)
        await settled(cluster, 2)
        answer = await one.http.post(
            "/v1/notifications",
            json={"to": {"user": "alice"}, "title": "own"},
            headers=one.auth("backend", "publisher"),
        )
        assert answer.status_code == 201
        await old.until(lambda: len(old.delivered) >= 3, "the own one")
        assert [(user, said.get("title")) for user, said in old.delivered] == [
            ("alice", "分析完成"),
            ("T1", None),
            ("alice", "own"),
        ]
