"""The leak this project exists to remove: connections to Redis do not grow with clients, and nothing is left
behind."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from support.accounting import Changes, Publisher
from support.fleet import Client, Fleet, SocketClient, StreamClient
from support.redis_server import RedisServer
from support.server_process import ServerProcess, token

pytestmark = pytest.mark.anyio

PUBLISHER = token("publisher", roles=["publisher"])
MOST = 12
SETTLE_S = 90.0


@pytest.fixture
def redis() -> Iterator[RedisServer]:
    with RedisServer() as server:
        yield server


def names(redis: RedisServer) -> Counter[str]:
    """Open connections of the server process by name."""
    return Counter(row["name"] for row in redis.clients())


def anonymous(redis: RedisServer) -> int:
    """Connections that have no name of ours: `RedisServer.command` makes one."""
    return len(redis.clients("")) - len(redis.clients()) - 1


def subscriptions(redis: RedisServer) -> tuple[int, int, int]:
    """Channels, patterns and shard channels somebody is subscribed to, by Redis's own count of its
    clients."""
    rows = redis.clients()
    sums = [sum(int(row[kind]) for row in rows) for kind in ("sub", "psub", "ssub")]
    return sums[0], sums[1], sums[2]


async def becomes(read: Callable[[], Any], wanted: object) -> None:
    """Waits until `read()` gives `wanted` (an idle channel is let go after some sweeps); raises
    AssertionError with the last value if it never does."""
    deadline = asyncio.get_running_loop().time() + SETTLE_S
    while (found := read()) != wanted:
        assert asyncio.get_running_loop().time() < deadline, f"{found} does not become {wanted}"
        await asyncio.sleep(0.1)


async def connected(
    fleet: Fleet, server: ServerProcess, publisher: Publisher, count: int, *kinds: type[Client]
) -> None:
    """Brings the fleet to `count` clients, all connected, all having received a publication."""
    topics = [f"topic:{number}" for number in range(20)]
    users = [f"u{number}" for number in range(50)]
    while len(fleet.clients) < count:
        step = min(200, count - len(fleet.clients))
        fleet.launch(step, [(server.host, server.port)], users=users, topics=topics, kinds=kinds)
        await fleet.all_open()
    made = await publisher.publish("all")
    await fleet.all_have(made.id)


def live(redis: RedisServer) -> set[bytes]:
    """Channels that have subscribers."""
    found = redis.command("PUBSUB", "CHANNELS")
    assert isinstance(found, list)
    return set(found)


@pytest.mark.covers("S1.1", "S1.2", "S1.6")
async def test_2000_streams_need_as_many_redis_connections_as_10(redis: RedisServer, tmp_path: Path) -> None:
    changes = Changes()
    async with (
        ServerProcess("redis", tmp_path, redis_url=redis.url) as server,
        Publisher([server.base_url], PUBLISHER, ["all"], changes) as publisher,
    ):
        await publisher.publish("all")
        idle, idle_files = names(redis), server.open_files()
        async with Fleet(changes) as fleet:
            await connected(fleet, server, publisher, 10, StreamClient)
            few = names(redis)
            await connected(fleet, server, publisher, 2_000, StreamClient)
            many = names(redis)
            await connected(fleet, server, publisher, 2_200, SocketClient)
            both = names(redis)
            assert server.open_files() >= 2_200, "the clients are not really connected"
        print(f"\nRedis connections: idle {dict(idle)}, 10 streams {dict(few)}, 2,000 streams {dict(many)}")
        assert many == both == few
        assert 0 < many.total() <= MOST
        assert anonymous(redis) == 0, "a connection without a name is not counted above"
        await becomes(lambda: names(redis), idle)
        await becomes(server.open_files, idle_files)


async def test_aborted_refused_and_reloaded_streams_leave_no_subscription_and_no_file(
    redis: RedisServer, tmp_path: Path
) -> None:
    """The channels of each stream are its own, so every abort must release some."""
    async with (
        ServerProcess("redis", tmp_path, redis_url=redis.url) as server,
        Publisher([server.base_url], PUBLISHER, ["all"], Changes()) as publisher,
    ):
        await publisher.publish("all")
        before, channels, patterns = subscriptions(redis), live(redis), redis.command("PUBSUB", "NUMPAT")
        connections, files = names(redis), server.open_files()

        async def abort(number: int) -> None:
            reader, writer = await asyncio.open_connection(server.host, server.port)
            credential = token(f"gone{number}", channels=["topic:*"])
            path = f"/v1/stream?channels=topic:gone-{number}"
            head = f"GET {path} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {credential}\r\n\r\n"
            writer.write(head.encode())
            if number % 4:  # a quarter goes before it is answered
                await reader.readuntil(b"event: welcome")
            writer.transport.abort()

        async def refuse(number: int) -> None:
            """A subscription that fails: the topic is not the user's."""
            reader, writer = await asyncio.open_connection(server.host, server.port)
            head = f"GET /v1/stream?channels=topic:not-mine-{number} HTTP/1.1\r\nHost: x\r\n"
            writer.write(f"{head}Authorization: Bearer {token(f'refused{number}')}\r\n\r\n".encode())
            assert b" 403 " in await reader.readline()
            writer.transport.abort()

        for first in range(0, 200, 50):
            async with asyncio.TaskGroup() as group:
                for number in range(first, first + 50):
                    group.create_task(abort(number))
                    group.create_task(abort(number % 10 + 1000))  # a page that is loaded again and again
                    group.create_task(refuse(number))
        during = subscriptions(redis)
        assert sum(during) > sum(before) + 200, "the streams were not subscribed"
        print(f"\nsubscriptions: before {before}, after 200 aborts {during}")
        await becomes(lambda: subscriptions(redis), before)
        await becomes(lambda: live(redis), channels)
        await becomes(lambda: redis.command("PUBSUB", "NUMPAT"), patterns)
        # Refusals look grants up through the pool: it keeps what it opened, and opens no more than its bound.
        after = names(redis)
        assert after.total() <= MOST
        assert after - Counter({"dualcast-pool": after["dualcast-pool"]}) == connections - Counter(
            {"dualcast-pool": connections["dualcast-pool"]}
        )
        opened = after["dualcast-pool"] - connections["dualcast-pool"]
        await becomes(server.open_files, files + opened)
