"""Statistics of rooms and topics are those of all nodes (contract 3.6: summed over all instances)."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest

from support.legacy_node import Socket, socket
from support.node import Node, place, running_node

pytestmark = [pytest.mark.anyio, pytest.mark.covers("S1.14")]


async def joined(client: Socket, kind: str, **fields: str) -> None:
    await client.say(json.dumps({"type": "subscribe", **fields}))
    while kind not in await client.text():
        pass


async def told(*nodes: Node) -> None:
    for node in nodes:
        legacy = node.composition.contracts._legacy
        assert legacy is not None
        await legacy.stats.tell()


async def stats(node: Node, path: str, part: str) -> dict[str, Any]:
    answer = await node.http.get(path, headers=node.auth("root", "admin"))
    found: dict[str, Any] = answer.json()[part]
    return found


async def test_rooms_and_topics_of_the_other_nodes_are_counted() -> None:
    async with place("redis") as where, running_node(where) as one, running_node(where) as two:
        async with (
            await socket(one, "/api/v1/ws/ann", "ann") as ann,
            await socket(two, "/api/v1/ws/bob", "bob") as bob,
            await socket(two, "/api/ws", "bob") as topics,
        ):
            await joined(ann, "subscribed", room="news")
            await joined(bob, "subscribed", room="news")
            await joined(bob, "subscribed", room="sport")
            await joined(topics, "subscribed", topic="prices")
            await told(one, two)
            found = (await one.http.get("/api/v1/ws/stats", headers=one.auth("root", "admin"))).json()[
                "stats"
            ]
            assert found["rooms"] == {"news": 2, "sport": 1}
            assert found["total_rooms"] == 2
            both = await stats(one, "/api/ws/stats", "data")
            assert (both["topics"], both["total_subscriptions"]) == (["prices"], 1)
        await two.until(lambda: not two.sessions, "all left")
        await told(one, two)
        async with asyncio.timeout(10):  # an answer is shared for a while
            while (await stats(one, "/api/v1/ws/stats", "stats"))["rooms"]:
                await asyncio.sleep(0.02)
