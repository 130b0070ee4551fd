"""One publication has one time, written the same way over REST, SSE and WebSocket."""

from __future__ import annotations

import re

import pytest

from support.clients import open_client
from support.node import running_node

pytestmark = pytest.mark.anyio


async def test_history_streams_and_sockets_write_the_same_time() -> None:
    async with running_node("memory") as node:
        bearer = node.token("alice")
        times = set()
        sse = await open_client("sse", node.port, bearer)
        socket = await open_client("websocket", node.port, bearer)
        async with sse, socket:
            for client in (sse, socket):
                await client.welcome()
            await node.publish("user:alice")
            for client in (sse, socket):
                times.add((await client.publications(1))[0].body["time"])
        page = await node.http.get("/v1/channels/user:alice/history", headers=node.auth("alice"))
        times.add(page.json()["publications"][0]["time"])
        (time,) = times
        assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", time)
