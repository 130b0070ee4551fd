"""Conversations over two nodes and one Redis: live where somebody is, pushed where nobody is, and what the
metrics say of it (docs/contracts/legacy-wire.md sections 6.4 and 6.5).
"""

from __future__ import annotations

import asyncio
import logging
from contextlib import AsyncExitStack

import pytest

from support.chat_crowd import Crowd, chat, make, names, registered
from support.node import WAIT_S, Node, place, running_node

pytestmark = pytest.mark.anyio


async def metric(node: Node, name: str, least: float) -> float:
    """A metric once it has come to `least`."""
    async with asyncio.timeout(WAIT_S):
        while (found := await node.metric(name)) < least:
            await asyncio.sleep(0.05)
    return found


@pytest.mark.covers("S3.3", "S3.26", "S3.41", "S3.43", "S3.58", "S3.95")
async def test_a_message_is_live_on_the_other_node_and_pushed_to_who_is_nowhere(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.INFO)
    push = {"provider": "log"}
    async with AsyncExitStack() as stack:
        where = await stack.enter_async_context(place("redis"))
        one = await stack.enter_async_context(running_node(where, push=push))
        two = await stack.enter_async_context(running_node(where, push=push))
        crowd = Crowd(stack)
        await make(one, "u1", "u2", "u3")
        await crowd.join(one, "u1/a")
        await crowd.join(two, "u2/a", deviceType="desktop")
        await registered(one, "u2", 1)
        await chat(one, "send", "u1", content="你好", message_type="text")
        assert names(await crowd.got()) == {"u2/a": ["new_message"]}
        await one.until(lambda: bool(pushes(caplog)), "a push")
        assert pushes(caplog) == ["📱 推送通知 [mobile] [优先级: normal]: u3"], "nobody who was told live"
        connections = [await node.metric("dualcast_bus_connections") for node in (one, two)]
        assert all(connections), "the pool is counted"
        for number in range(20):
            await crowd.join(two, f"u2/{number}")
        assert [await node.metric("dualcast_bus_connections") for node in (one, two)] == connections


def pushes(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [text for record in caplog.records if (text := record.getMessage()).startswith("📱")]


@pytest.mark.covers("S3.77", "S3.78", "S3.80", "S3.81")
async def test_metrics_say_who_is_online_on_what_and_how_fast_broadcasts_are() -> None:
    async with AsyncExitStack() as stack:
        node = await stack.enter_async_context(running_node("redis"))
        crowd = Crowd(stack)
        await make(node)
        for name, kind in (("u1/a", "mobile"), ("u1/b", "desktop"), ("u2/a", "mobile"), ("u3/a", "")):
            await crowd.join(node, name, **({"deviceType": kind} if kind else {}))
        tracker = node.composition.node.presence
        await registered(node, "u1", 2)
        for ledger in tracker._ledgers.values():  # type: ignore[union-attr]
            ledger.renew_at = 0.0  # the next renewal brings the numbers
        assert await metric(node, "dualcast_presence_users", 3) == 3
        assert await metric(node, "dualcast_presence_users_mobile", 2) == 2
        assert await metric(node, "dualcast_presence_users_desktop", 1) == 1
        before = await node.metric("dualcast_delivery_latency_seconds_count")
        await chat(node, "send", "u1", content="c")
        await crowd.got()
        assert await node.metric("dualcast_delivery_latency_seconds_count") > before
        assert await node.metric("dualcast_delivery_latency_seconds_sum") > 0
        assert await node.metric("dualcast_bus_appended_total") > 0
