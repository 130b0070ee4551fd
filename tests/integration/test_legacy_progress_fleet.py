"""Many sockets of the contract `progress`: speed, memory, faults, several nodes, pages of other origins
(docs/contracts/checklist.md S4.40 to S4.64).
"""

from __future__ import annotations

import asyncio
import os
import time
from contextlib import AsyncExitStack
from statistics import median
from typing import Any

import psutil  # type: ignore[import-untyped]
import pytest
from websockets.asyncio.client import connect as websocket_connect

from support.node import ENGINES, Node, place, running_node
from support.raw_http import open_websocket
from support.text_socket import TextSocket, open_text

pytestmark = pytest.mark.anyio
ROUNDS = 5
"""Of a measurement that another program may have disturbed; the best counts."""


async def tell(node: Node, user: str, **frame: Any) -> None:
    await node.publish(f"user:{user}", {"type": "custom", **frame}, kind="progress_frame")


async def opened(node: Node, client: str) -> TextSocket:
    socket = await open_text(node.port, "/ws/" + client, node.token(client.partition(":")[0]))
    assert (await socket.frame())["type"] == "connection"
    return socket


@pytest.mark.covers("S4.39", "S4.58", "S4.59", "S4.60", "S4.61", "S4.64")
async def test_a_hundred_sockets_are_fast_and_small() -> None:
    """Client and server share this process, so both sides' memory is in the measure."""
    async with running_node("memory") as node, AsyncExitStack() as stack:
        before = psutil.Process(os.getpid()).memory_info().rss
        took: list[float] = []
        sockets: list[TextSocket] = []
        for number in range(120):
            began = time.perf_counter()
            socket = await opened(node, f"u{number % 10}:{number}")
            took.append(time.perf_counter() - began)
            sockets.append(await stack.enter_async_context(socket))
        grown = psutil.Process(os.getpid()).memory_info().rss - before
        assert len(node.sessions) == 120
        assert await node.metric("dualcast_connections_refused_total") == 0
        assert grown / 120 < 1024 * 1024
        assert min(median(took[part::ROUNDS]) for part in range(ROUNDS)) < 0.1
        delivered = []
        for _ in range(ROUNDS):
            began = time.perf_counter()
            await tell(node, "u1")
            found = await asyncio.gather(*(socket.frame() for socket in sockets[1::10]))
            delivered.append(time.perf_counter() - began)
            assert [frame["type"] for frame in found] == ["custom"] * 12
        assert min(delivered) < 0.05


@pytest.mark.covers("S4.40", "S4.47", "S4.48")
@pytest.mark.parametrize("engine", ENGINES)
async def test_broken_connections_are_cleaned_up_and_cost_nobody_anything(engine: str) -> None:
    async with running_node(engine) as node, AsyncExitStack() as stack:
        good = await stack.enter_async_context(await opened(node, "u1"))
        broken = [
            await open_websocket(node.port, f"/ws/u1:{number}?token={node.token('u1')}")
            for number in range(5)
        ]
        await node.until(lambda: len(node.sessions) == 6, "six sessions")
        for number, wire in enumerate(broken):
            wire.reset()
            await tell(node, "u1", n=number)
        assert [(await good.frame())["n"] for _ in range(5)] == [0, 1, 2, 3, 4]
        await node.until(lambda: len(node.sessions) == 1, "the broken are gone")
        again = await stack.enter_async_context(await opened(node, "u1:0"))
        await tell(node, "u1", n=9)
        assert (await again.frame())["n"] == (await good.frame())["n"] == 9


@pytest.mark.covers("S4.49", "S4.50")
async def test_a_job_on_one_node_is_seen_on_all_and_nothing_of_a_burst_is_lost() -> None:
    async with AsyncExitStack() as stack:
        where = await stack.enter_async_context(place("redis"))
        nodes = [await stack.enter_async_context(running_node(where)) for _ in range(2)]
        sockets = [await stack.enter_async_context(await opened(node, "u1")) for node in nodes]
        await asyncio.gather(*(tell(nodes[number % 2], "u1", n=number) for number in range(100)))
        found = [[(await socket.frame())["n"] for _ in range(100)] for socket in sockets]
        assert found[0] == found[1], "in one order"
        assert sorted(found[0]) == list(range(100))


@pytest.mark.covers("S4.62", "S4.63", "S4.64")
async def test_metrics_count_connections_messages_and_refusals() -> None:
    async with running_node("memory") as node, AsyncExitStack() as stack:
        for number in range(3):
            await stack.enter_async_context(await opened(node, f"u1:{number}"))
        await tell(node, "u1")
        refused = await stack.enter_async_context(await open_text(node.port, "/ws/u1"))
        await refused.end()
        opened_, failed = "dualcast_connections_opened_total", "dualcast_connections_refused_total"
        assert (await node.metric(opened_), await node.metric(failed)) == (3, 1)
        assert await node.metric("dualcast_connections") == 3
        assert await node.metric("dualcast_deliveries_total") == 3


@pytest.mark.covers("S4.57")
async def test_pages_of_any_origin_may_open_a_socket_and_read_answers_if_they_are_named() -> None:
    address = "ws://127.0.0.1:{}/ws/u1?token={}"
    async with running_node("memory") as node:
        where = address.format(node.port, node.token("u1"))
        async with websocket_connect(where, origin="https://pages.example") as socket:  # type: ignore[arg-type]
            assert "connection" in str(await socket.recv())
        headers = {**node.auth("root", "admin"), "Origin": "https://pages.example"}
        answer = await node.http.get("/api/websocket/stats", headers=headers)
        assert "access-control-allow-origin" not in answer.headers
    async with running_node("memory", identity={"origins": ("https://pages.example",)}) as node:
        headers = {**node.auth("root", "admin"), "Origin": "https://pages.example"}
        answer = await node.http.get("/api/websocket/stats", headers=headers)
        assert answer.headers["access-control-allow-origin"] == "https://pages.example"
