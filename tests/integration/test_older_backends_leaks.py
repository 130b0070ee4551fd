"""The leak that older systems had, tried on their own streams: nothing of a stream stays counted anywhere,
however it ends, and what Redis sees does not grow with clients (regressions R1 to R3).
"""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from dualcast.bus.announcing import Announcer
from dualcast.model.codes import Close
from support.legacy_node import Stream, stream
from support.node import WAIT_S, place
from support.older_backend import OlderBackend, OlderNode, older_node
from support.raw_http import connect
from support.redis_server import RedisServer

pytestmark = pytest.mark.anyio
PATH = "/api/notifications/stream"


@pytest.fixture
def redis() -> Iterator[RedisServer]:
    with RedisServer() as server:
        yield server


@asynccontextmanager
async def one_node(redis: RedisServer) -> AsyncIterator[OlderNode]:
    async with (
        place("redis", redis_url=redis.url) as where,
        older_node(where, dialects=("notifications",), limits={"connections_per_user": 0}) as node,
    ):
        # Connections that are opened when they are needed first.
        await Announcer(node.older.behind).announce("default", ["topic:x"], "note", b"{}")
        await node.composition.bus.head("default")
        yield node


def seen_by_redis(redis: RedisServer) -> tuple[Counter[str], int, int]:
    """Connections by name but those of the pool (opened when needed, at most so many), and all
    subscriptions."""
    rows = [row for row in redis.clients() if row["name"] != "dualcast-pool"]
    names = Counter(row["name"] for row in rows)
    return names, sum(int(row["sub"]) for row in rows), sum(int(row["psub"]) for row in rows)


def pool_in_use(node: OlderNode) -> int:
    bus: Any = node.older.behind
    return len(bus.pool._pool._in_use_connections)


async def becomes_calm(node: OlderNode, redis: RedisServer, calm: tuple[Counter[str], int, int]) -> None:
    """No session, no connection, no watched channel, no presence, nothing but what Redis saw at first."""
    await node.until(lambda: not node.sessions and not node.live.connections, "no connection is left")
    node.sweep(6)
    async with asyncio.timeout(WAIT_S):
        while seen_by_redis(redis) != calm or pool_in_use(node):
            node.sweep()
            await asyncio.sleep(0.05)
    await node.composition.features.tracker.flush()
    assert await node.composition.features.presence.count("default") == 0
    assert node.composition.hub.tenants == {}


async def open_and_abort(node: OlderNode, number: int, turns: int) -> None:
    """Asks for a stream and goes away after so many turns of the loop: before it is answered, while it
    subscribes, or later."""
    wire = await connect(node.port)
    token = node.token(f"u{number % 50}")
    wire.write(f"GET {PATH}?token={token} HTTP/1.1\r\nhost: test\r\n\r\n".encode())
    for _ in range(turns):
        await asyncio.sleep(0)
    wire.reset()


@pytest.mark.covers("R1")
async def test_r1_two_hundred_streams_aborted_at_any_moment_leave_nothing(redis: RedisServer) -> None:
    async with one_node(redis) as node:
        calm = seen_by_redis(redis)
        assert calm[0]["dualcast-older"] == 1
        for start in range(0, 200, 50):
            await asyncio.gather(
                *(
                    open_and_abort(node, number, turns=random.randint(0, 60))
                    for number in range(start, start + 50)
                )
            )
        await becomes_calm(node, redis, calm)
        # Reloads: a new stream before the old one is gone; connections to Redis stay what they were.
        before: list[Stream] = []
        for _ in range(4):
            streams = [await stream(node, PATH, f"u{number}") for number in range(50)]
            assert {one.status for one in streams} == {200}
            assert seen_by_redis(redis)[0] == calm[0]
            for one in before:
                one.wire.reset()
            before = streams
        for one in before:
            one.wire.reset()
        await becomes_calm(node, redis, calm)


@pytest.mark.covers("R2")
async def test_r2_streams_aborted_while_they_are_being_closed_leave_nothing(redis: RedisServer) -> None:
    async with one_node(redis) as node:
        calm = seen_by_redis(redis)
        for round_ in range(5):
            streams = [await stream(node, PATH, f"u{number}") for number in range(20)]
            sessions = node.sessions
            assert len(sessions) == 20
            for number, (one, session) in enumerate(zip(streams, sessions, strict=True)):
                # The server hangs up and the client resets, one first or the other, or some turns apart.
                if number % 2:
                    session.close(Close.DRAIN)
                for _ in range(number % 5 * round_):
                    await asyncio.sleep(0)
                one.wire.reset()
                if not number % 2:
                    session.close(Close.DRAIN)
            await becomes_calm(node, redis, calm)


@pytest.mark.covers("R3", "R8")
async def test_r3_streams_opened_while_redis_is_away_make_no_storm(redis: RedisServer) -> None:
    async with one_node(redis) as node:
        calm = seen_by_redis(redis)
        steady = await stream(node, PATH, "alice")
        async with steady:
            assert "event: connected" in await steady.block()
            redis.kill()
            await node.until(lambda: not node.composition.hub.available, "the loss is noticed")
            tried = await asyncio.gather(*(stream(node, PATH, f"u{number}") for number in range(10)))
            refused = [one for one in tried if one.status != 200]
            assert {one.status for one in refused} <= {503}
            assert all("retry-after" in one.headers for one in refused)
            redis.start()
            await node.until(lambda: node.composition.hub.available, "it is back")
            await node.until(lambda: bool(node.gauge("connected")), "the older names are heard again")
            async with OlderBackend(redis.url) as old:
                await old.notify("alice", "after")
                while "event: notification" not in (block := await steady.block()):
                    assert "event: error" not in block
                assert '"id":"after"' in block.replace(" ", "")
            assert len(node.sessions) == 1 + len(tried) - len(refused)
            for one in tried:
                await one.close()
        await becomes_calm(node, redis, calm)
