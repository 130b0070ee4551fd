"""Presence of the contract `conversations` (docs/contracts/legacy-wire.md section 6.5): who is told of whom,
over devices and nodes.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack

import msgspec
import pytest

from dualcast.presence.tracker import Tracker
from support.chat_crowd import Crowd, devices, make, registered, two_nodes
from support.node import ENGINES, Node, place, running_node
from support.text_socket import TextSocket, open_text

pytestmark = pytest.mark.anyio


@pytest.fixture(params=ENGINES)
async def node(request: pytest.FixtureRequest) -> AsyncIterator[Node]:
    async with running_node(request.param) as running:
        await make(running)
        yield running


@pytest.fixture
async def crowd() -> AsyncIterator[Crowd]:
    async with AsyncExitStack() as stack:
        yield Crowd(stack)


class Watcher:
    """A socket that only listens for presence."""

    def __init__(self, socket: TextSocket) -> None:
        self._socket = socket

    async def next(self) -> tuple[str, str]:
        while True:
            frame = await self._socket.frame()
            if frame["event"] == "presence_update":
                data = frame["data"]
                assert data["timestamp"] == frame["timestamp"]
                return data["user_id"], data["status"]


async def watcher(node: Node, crowd: Crowd) -> Watcher:
    one = Watcher(await crowd.join(node, "watcher/x"))
    assert await one.next() == ("watcher", "online")
    return one


@pytest.mark.covers("R40", "S3.28")
async def test_r40_a_second_device_announces_nothing(node: Node, crowd: Crowd) -> None:
    seen = await watcher(node, crowd)
    first = await crowd.join(node, "u1/phone", deviceType="mobile")
    assert await seen.next() == ("u1", "online")
    second = await crowd.join(node, "u1/desk", deviceType="desktop")
    await registered(node, "u1", 2)
    await crowd.join(node, "u2/x")
    assert await seen.next() == ("u2", "online"), "nothing of the second device's coming"
    await second.close()
    await registered(node, "u1", 1)
    await crowd.join(node, "u3/x")
    assert await seen.next() == ("u3", "online"), "nor of its going"
    await first.close()
    assert await seen.next() == ("u1", "offline")
    await crowd.join(node, "u1/again")
    assert await seen.next() == ("u1", "online")


async def test_a_connection_of_another_contract_is_no_presence_here(node: Node, crowd: Crowd) -> None:
    seen = await watcher(node, crowd)
    async with await open_text(node.port, "/ws/u9", node.token("u9")) as other:
        assert (await other.frame())["type"] == "connection"
        await registered(node, "u9", 1)
        await crowd.join(node, "u1/x")
        assert await seen.next() == ("u1", "online"), "u9 was not told of"


@pytest.mark.covers("R38", "R41", "S3.25", "S3.39", "S3.56", "S3.69", "S3.70")
async def test_r38_r41_a_user_on_two_nodes_stays_online_and_all_devices_are_seen(crowd: Crowd) -> None:
    async with two_nodes() as (one, two):
        seen = await watcher(two, crowd)
        here = await crowd.join(one, "u1/here", deviceType="mobile", deviceId="p1", connectionId="c1")
        assert await seen.next() == ("u1", "online")
        there = await crowd.join(two, "u1/there", deviceType="desktop", deviceId="l1", connectionId="c2")
        for node in (one, two):
            await registered(node, "u1", 2)
            rows = {row["instance"]: row for row in await devices(node, "u1")}
            assert {name: (row["device"], row["device_id"]) for name, row in rows.items()} == {
                "c1": ("mobile", "p1"),
                "c2": ("desktop", "l1"),
            }
            assert rows["c1"]["node"] != rows["c2"]["node"]
            assert all(row["connected_at"].endswith("Z") for row in rows.values())
        await here.close()
        await registered(two, "u1", 1)
        await crowd.join(one, "u2/x")
        assert await seen.next() == ("u2", "online"), "u1 is on the other node still"
        await there.close()
        assert await seen.next() == ("u1", "offline")


@pytest.mark.covers("R39")
async def test_r39_users_of_a_node_that_died_go_offline_after_the_expiry(crowd: Crowd) -> None:
    async with place("redis") as where, running_node(where) as two:
        tracker = two.composition.node.presence
        assert isinstance(tracker, Tracker)
        seen = await watcher(two, crowd)
        async with running_node(where) as one:
            short(one)
            short(two)
            await crowd.join(one, "u1/x")
            assert await seen.next() == ("u1", "online")
            # Dead: it renews nothing and takes nothing off.
            dead = one.composition.node.presence
            assert isinstance(dead, Tracker)
            dead.tick = lambda: None  # type: ignore[method-assign]
            assert await seen.next() == ("u1", "offline")


def short(node: Node) -> None:
    tracker = node.composition.node.presence
    assert isinstance(tracker, Tracker)
    tracker._settings = tracker._reaper._settings = msgspec.structs.replace(tracker._settings, lease_s=2.0)
