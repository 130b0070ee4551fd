"""Many presence channels at once: nobody's leave or join stays untold because too many came together."""

from __future__ import annotations

import asyncio
import secrets
from typing import Any

import pytest

from support.presence import FakeNode, store, until

pytestmark = pytest.mark.anyio


def left(node: FakeNode) -> set[str]:
    return {channel for channel, data in node.announced.events.values() if data["left"]}


async def test_a_dead_node_with_more_channels_than_may_wait_leaves_all_of_them() -> None:
    async with store("redis", prefix="p" + secrets.token_hex(5)) as presence:
        tenant = "t-" + secrets.token_hex(5)
        dead = FakeNode(presence, "n1", tenant, lease_s=0.3)
        for n in range(60):
            dead.open(f"u{n}", f"presence:{n}")
        await dead.flush()
        node = FakeNode(presence, "n2", tenant, lease_s=0.3, batch=10, max_unannounced=20)
        node.open("bob")
        async with node.running():
            await until(lambda: node.tracker.gauges()["presence_nodes_reaped"] == 1, "the reaping")
            await until(lambda: node.tracker.gauges()["presence_unannounced"] == 0, "the announcing")
        assert node.tracker.gauges()["presence_dropped"] == 0
        assert left(node) == {f"presence:{n}" for n in range(60)}


async def test_changes_wait_for_an_announcing_that_is_under_way() -> None:
    async with store("memory") as presence:
        node = FakeNode(presence, "n1", "t-" + secrets.token_hex(5), batch=10, max_unannounced=20)
        slow = asyncio.Event()
        announce = node.announced.announce

        async def later(*args: Any, **how: Any) -> None:
            await slow.wait()
            await announce(*args, **how)

        node.announced.announce = later  # type: ignore[method-assign]
        node.open("first", "presence:first")
        node.tracker.tick()
        await until(lambda: node.tracker.gauges()["presence_unannounced"] == 1)
        node.tracker._ledgers[node.tenant].busy = False  # as when the reaper announces
        for n in range(60):
            node.open(f"u{n}", f"presence:{n}")
        node.tracker.tick()
        await asyncio.sleep(0.05)
        slow.set()
        await node.flush()
        assert node.tracker.gauges()["presence_dropped"] == 0
        assert len(node.announced.events) == 61
