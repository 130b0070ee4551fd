"""Programs that read with the Python client on two nodes over one Redis: 10,000 publications while nodes are
killed, drained and started again, lines are cut, and the tenant's stage changes. None missing, none doubled,
each in order."""

from __future__ import annotations

import asyncio
import signal
from pathlib import Path
from typing import Any

import pytest

from support import redis_server
from support.blackhole import Blackhole
from support.client_package import package
from support.server_process import ServerProcess, token

pytestmark = pytest.mark.anyio
COUNT = 10_000
BATCH = 100
PATIENCE_S = 90.0
TOPIC = "topic:load"
RULES = package.Reconnects(base_s=0.1, cap_s=0.5, move_spread_s=0.2, probe_s=1.0)


def client_of(url: str, sub: str) -> package.AsyncClient:
    return package.AsyncClient(url, token(sub, channels=["topic:*"]))


async def collect(stream: package.Stream, into: list[int]) -> None:
    async for publication in stream:
        into.append(publication.data["data"]["n"])
        if into[-1] == COUNT - 1:
            return


def in_thread(url: str, into: list[int]) -> None:
    """Starts anew now and then, as a process would, and goes on where it was."""
    store = package.MemoryCursorStore()
    while not into or into[-1] != COUNT - 1:
        with (
            package.Client(url, token("thread", channels=["topic:*"])) as client,
            client.subscribe([TOPIC], store=store, ack="manual", reconnects=RULES) as stream,
        ):
            for publication in stream:
                into.append(publication.data["data"]["n"])
                stream.ack(publication)
                if into[-1] == COUNT - 1 or len(into) % 3000 == 0:
                    break


async def publish(backend: package.AsyncClient, first: int) -> None:
    notes = [
        package.Notification(
            to=package.Target(channel=TOPIC), title="n", data={"n": n}, id=f"note-{n}", store=False
        )
        for n in range(first, first + BATCH)
    ]
    for result in await backend.notify_many(notes):
        assert result.id, result


async def stage(backend: package.AsyncClient, name: str) -> None:
    await backend.admin.set_stage("default", name, "a test", force=True)  # type: ignore[arg-type]


@pytest.mark.timeout(150)
async def test_ten_thousand_publications_over_every_kind_of_break(tmp_path: Path) -> None:
    settings = {
        "server.drain_s": 1,
        "delivery.retry_min_ms": 100,
        "delivery.retry_max_ms": 400,
        "redis.key_prefix": "pytwo",
        "bus.history_entries": 20_000,
    }
    redis: Any = {"redis_url": redis_server.shared().url, "settings": settings}
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
    one, other = (ServerProcess("redis", tmp_path / name, **redis) for name in ("a", "b"))
    async with one, other, Blackhole(other.host, other.port) as line:
        far = f"http://127.0.0.1:{line.port}"
        backend = package.AsyncClient(
            other.base_url,
            token("backend", roles=["publisher", "admin"]),
            retries=package.Retries(count=50, cap_s=0.3),
        )
        clients = [client_of(one.base_url, "ann"), client_of(far, "bob"), client_of(far, "cleo")]
        streams = [
            clients[0].subscribe([TOPIC], reconnects=RULES),
            clients[1].subscribe([TOPIC], reconnects=RULES),
            clients[2].subscribe([TOPIC], reconnects=RULES, transport="sse"),
        ]
        found: list[list[int]] = [[] for _ in range(4)]
        thread = asyncio.create_task(asyncio.to_thread(in_thread, one.base_url, found[3]))
        async with (
            asyncio.timeout(PATIENCE_S),
            backend,
            clients[0],
            clients[1],
            clients[2],
            streams[0],
            streams[1],
            streams[2],
        ):
            await publish_marks(backend, thread, found)
            work = [asyncio.create_task(collect(*pair)) for pair in zip(streams, found[:3], strict=True)]
            for first in range(BATCH, COUNT, BATCH):
                if first == 1000:
                    one.kill()
                elif first == 2000:
                    await one.start()
                elif first == 3000:
                    line.cut()
                elif first == 4000:
                    await stage(backend, "sse")
                elif first == 5500:
                    await stage(backend, "shadow")
                    await stage(backend, "fallback")
                elif first == 7000:
                    one.signal(signal.SIGTERM)
                    await one.exited()
                    await one.start()
                elif first == 8000:
                    line.cut()
                await publish(backend, first)
            await asyncio.gather(*work, thread)
    for numbers in found:
        assert len(numbers) == len(set(numbers)), "doubled"
        assert numbers == list(range(COUNT)), "missing, or out of order"


async def publish_marks(
    backend: package.AsyncClient, thread: asyncio.Task[None], found: list[list[int]]
) -> None:
    """The first ones, until the thread has begun: what was published before it was there is not for it."""
    connections: list[Any] = []
    while not connections:
        assert not thread.done() or thread.result() is None
        connections = await backend.connections("thread")
        await asyncio.sleep(0.02)
    await publish(backend, 0)
