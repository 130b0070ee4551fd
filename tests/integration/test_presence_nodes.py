"""Presence of whole servers: two nodes over one Redis, and each engine by itself."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import msgspec
import pytest

from dualcast.presence.tracker import Tracker
from support.clients import Client, open_client, open_socket, open_stream
from support.node import ENGINES, WAIT_S, Node, place, running_node
from support.redis_server import RedisServer
from support.server_process import ServerProcess, token

pytestmark = pytest.mark.anyio
LOBBY = "presence:lobby"
LEASE_S = 3
SLACK_S = 2.0
"""For a busy machine; a lease that was twice as long would still fail."""
MEMBER = {"channels": ["presence:*"]}


@asynccontextmanager
async def nodes(count: int) -> AsyncIterator[list[Node]]:
    async with place("redis") as where, AsyncExitStack() as stack:
        yield [await stack.enter_async_context(running_node(where)) for _ in range(count)]


async def changes(client: Client) -> dict[str, Any]:
    """The next join or leave the client is told of."""
    got = await client.until("publication", lambda got: got.body.get("event") == "presence")
    data: dict[str, Any] = got.data
    return data


async def ask(node: Node, path: str, *roles: str, sub: str = "root") -> dict[str, Any]:
    answer = await node.http.get(path, headers=node.auth(sub, *(roles or ("admin",))))
    assert answer.status_code == 200, answer.text
    found: dict[str, Any] = answer.json()
    return found


async def online(node: Node, user: str) -> bool:
    return bool((await ask(node, f"/v1/presence/{user}"))["online"])


async def becomes(node: Node, user: str, wanted: bool) -> None:
    async with asyncio.timeout(WAIT_S):
        while await online(node, user) is not wanted:
            await asyncio.sleep(0.02)


def quick(node: Node, lease_s: float) -> Tracker:
    """Gives a node's presence a short lease."""
    tracker = node.composition.node.presence
    assert isinstance(tracker, Tracker)
    tracker._settings = tracker._reaper._settings = msgspec.structs.replace(
        tracker._settings, lease_s=lease_s
    )
    return tracker


@pytest.mark.covers("S3.71", "S3.72")
async def test_a_phone_here_and_a_laptop_there_are_one_user() -> None:
    async with nodes(2) as (one, two):
        watcher = await open_socket(two.port, one.token("carl", **MEMBER), channels=[LOBBY])
        async with watcher:
            await watcher.welcome()
            assert (await changes(watcher))["joined"] == ["carl"]
            alice = one.token("alice", **MEMBER)
            phone = await open_socket(
                one.port, alice, channels=[LOBBY], device="mobile", device_id="p1", instance="app"
            )
            assert (await changes(watcher)) | {"revision": 0} == {
                "joined": ["alice"],
                "left": [],
                "count": 2,
                "revision": 0,
            }
            laptop = await open_stream(two.port, alice, channels=[LOBBY], device="web", device_id="l1")
            ids = {(await phone.welcome()).body["connection"], (await laptop.welcome()).body["connection"]}
            await becomes(one, "alice", True)
            for node in (one, two):
                async with asyncio.timeout(WAIT_S):
                    while len((await ask(node, "/v1/connections?user=alice"))["connections"]) < 2:
                        await asyncio.sleep(0.02)
                rows = (await ask(node, "/v1/connections?user=alice"))["connections"]
                assert {row["id"] for row in rows} == ids
                assert {(row["device"], row["device_id"]) for row in rows} == {
                    ("mobile", "p1"),
                    ("web", "l1"),
                }
                assert len({row["node"] for row in rows}) == 2
                known = await ask(node, "/v1/presence/alice")
                assert (known["devices"], known["connections"]) == (["mobile", "web"], 2)
                for ident in ids:
                    assert (await ask(node, f"/v1/connections/{ident}", sub="alice"))["user"] == "alice"
                devices = (await ask(node, "/v1/users/alice/devices"))["devices"]
                assert {row["id"]: row["connected"] for row in devices} == {"p1": True, "l1": True}
                page = await ask(node, f"/v1/presence?channel={LOBBY}")
                assert [member["user"] for member in page["members"]] == ["alice", "carl"]
            await phone.close()
            async with asyncio.timeout(WAIT_S):
                while (await ask(two, "/v1/presence/alice"))["connections"] != 1:
                    await asyncio.sleep(0.02)
            await laptop.close()
            last = await changes(watcher)
            assert (last["joined"], last["left"], last["count"]) == ([], ["alice"], 1), (
                "one device of two coming or going says nothing"
            )
            devices = (await ask(one, "/v1/users/alice/devices"))["devices"]
            assert {row["connected"] for row in devices} == {False}


async def test_a_dead_nodes_users_go_offline_within_the_lease() -> None:
    lease_s = 1.2
    async with nodes(2) as (dead, alive):
        quick(alive, lease_s)
        tracker = quick(dead, lease_s)
        watcher = await open_socket(alive.port, alive.token("carl", **MEMBER), channels=[LOBBY])
        gone = await open_stream(dead.port, dead.token("alice", **MEMBER), channels=[LOBBY])
        async with watcher, gone:
            await watcher.welcome()
            async with asyncio.timeout(WAIT_S):
                here: set[str] = set()
                while here != {"alice", "carl"}:
                    here.update((await changes(watcher))["joined"])
            tick, tracker.tick = tracker.tick, lambda: None  # type: ignore[method-assign]
            last = await changes(watcher)
            assert (last["left"], last["count"]) == (["alice"], 1)
            assert not await online(alive, "alice")
            # It was only paused: it finds its lease lost and registers everything again.
            tracker.tick = tick  # type: ignore[method-assign]
            again = await changes(watcher)
            assert (again["joined"], again["count"]) == (["alice"], 2)
            assert await online(alive, "alice")


async def test_kill_9_of_a_node_leaves_presence_right_within_the_lease(tmp_path: Path) -> None:
    settings = {"presence.lease_s": LEASE_S}
    with RedisServer() as redis:
        async with (
            ServerProcess("redis", tmp_path, redis_url=redis.url, settings=settings) as dies,
            ServerProcess("redis", tmp_path, redis_url=redis.url, settings=settings) as stays,
        ):
            member = {"channels": ["presence:*"]}
            watcher = await open_socket(stays.port, token("carl", **member), channels=[LOBBY])
            both = await open_stream(stays.port, token("bob", **member), channels=[LOBBY])
            doomed = [
                await open_socket(dies.port, token(user, **member), channels=[LOBBY], device="web")
                for user in ("alice", "bob")
            ]
            async with AsyncExitStack() as stack:
                for client in (watcher, both, *doomed):
                    await stack.enter_async_context(client)
                here: set[str] = set()
                while here != {"alice", "bob", "carl"}:
                    here.update((await changes(watcher))["joined"])
                dies.kill()
                killed_at = time.monotonic()
                last = await changes(watcher)
                took_s = time.monotonic() - killed_at
                assert (last["left"], last["count"]) == (["alice"], 2), "bob is on the other node as well"
                assert took_s < LEASE_S + SLACK_S
                async with httpx.AsyncClient(base_url=stays.base_url) as http:
                    auth = {"Authorization": "Bearer " + token("root", roles=["admin"])}
                    rows = (await http.get("/v1/connections", headers=auth)).json()["connections"]
                    assert {row["user"] for row in rows} == {"bob", "carl"}
                    page = (await http.get("/v1/presence", headers=auth)).json()
                    assert (page["count"], [one["devices"] for one in page["members"]]) == (2, [[], []])


@pytest.mark.parametrize("engine", ENGINES)
async def test_a_question_sees_what_its_own_node_let_in_and_saw_off(engine: str) -> None:
    async with running_node(engine) as node:
        for _ in range(3):
            client = await open_socket(node.port, node.token("alice"), device="desktop", device_id="d1")
            async with client:
                ident = (await client.welcome()).body["connection"]
                (row,) = (await ask(node, "/v1/connections", sub="alice"))["connections"]
                assert (row["id"], row["device"], row.get("live", True)) == (ident, "desktop", True)
                assert row["cursor"] and "user:alice" in row["channels"]
                assert await online(node, "alice")
            await node.until(lambda: not node.sessions, "it is gone")
            assert not await online(node, "alice")
            assert (await ask(node, "/v1/connections"))["connections"] == []


@pytest.mark.parametrize("transport", ["sse", "ws"])
async def test_subscribers_hear_of_joins_and_leaves_in_order(transport: str) -> None:
    async with (
        running_node("memory") as node,
        await open_client(transport, node.port, node.token("zoë", **MEMBER), channels=[LOBBY]) as me,
    ):
        await me.welcome()
        assert (await changes(me))["joined"] == ["zoë"]
        revisions = []
        for _ in range(3):
            other = await open_socket(node.port, node.token("bob", **MEMBER), channels=[LOBBY])
            came = await changes(me)
            await other.close()
            left = await changes(me)
            assert (came["joined"], came["count"], left["left"], left["count"]) == (
                ["bob"],
                2,
                ["bob"],
                1,
            )
            revisions += [came["revision"], left["revision"]]
        assert revisions == sorted(set(revisions))


async def test_devices_outlive_a_restart() -> None:
    for engine in ("sqlite", "redis"):
        async with place(engine) as where:
            async with running_node(where) as node:
                client = await open_socket(node.port, node.token("alice"), device="tablet", device_id="t1")
                async with client:
                    await client.welcome()
                    await becomes(node, "alice", True)
                    named = await node.http.put(
                        "/v1/users/alice/devices/t1", json={"name": "Tablet"}, headers=node.auth("alice")
                    )
                    assert named.status_code == 200, named.text
            async with running_node(where) as node:
                (row,) = (await ask(node, "/v1/users/alice/devices"))["devices"]
                assert (row["id"], row["kind"], row["name"], row["connected"]) == (
                    "t1",
                    "tablet",
                    "Tablet",
                    False,
                )
                assert not await online(node, "alice"), "a node that went down in order left nobody behind"


@pytest.mark.parametrize(
    ("parameters", "wrong"),
    [
        ({"device": "phone"}, "bad-device"),
        ({"device": "Web"}, "bad-device"),
        ({"device_id": "x" * 129}, "bad-id"),
    ],
)
async def test_unknown_devices_are_refused_in_clear_words(parameters: dict[str, str], wrong: str) -> None:
    async with running_node("memory") as node:
        answer = await node.http.get("/v1/stream", params=parameters, headers=node.auth("alice"))
        assert (answer.status_code, answer.json()["code"]) == (400, wrong)
        if wrong == "bad-device":
            assert "mobile, desktop, tablet, web" in answer.json()["detail"]
        async with await open_socket(node.port, node.token("alice"), **parameters) as socket:
            assert (await socket.end()).code == 4000
        assert not node.sessions


async def test_metrics_tell_users_and_devices() -> None:
    async with running_node("memory") as node:
        quick(node, 0.6)
        async with (
            await open_socket(node.port, node.token("alice"), device="mobile"),
            await open_socket(node.port, node.token("alice"), device="web"),
            await open_socket(node.port, node.token("bob"), device="web"),
        ):
            async with asyncio.timeout(WAIT_S):
                while await node.metric("dualcast_presence_users") != 2:
                    await asyncio.sleep(0.05)
            assert await node.metric("dualcast_presence_users_web") == 2
            assert await node.metric("dualcast_presence_users_mobile") == 1
            assert await node.metric("dualcast_presence_connections") == 3
