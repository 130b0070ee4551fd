"""Redis dies, hangs or forgets under load, seen from the clients of a running server."""

from __future__ import annotations

from pathlib import Path

import pytest

from chaos.drill import SETTINGS, Drill, Plan, run
from support.accounting import split
from support.redis_server import RedisServer
from support.server_process import ServerProcess

pytestmark = pytest.mark.anyio

QUICK: dict[str, object] = {
    **SETTINGS,
    "redis.command_timeout_s": 1,
    "redis.connect_timeout_s": 1,
    "bus.probe_interval_s": 1,
}
PLAN = Plan(clients=24, publications=60, rate=100)


def everybody_was_told(drill: Drill, bus: str) -> bool:
    """Whether the last `status` of every client says so."""
    return all(
        (client.named("status") or [{"bus": "ok"}])[-1]["bus"] == bus for client in drill.fleet.clients
    )


async def test_redis_killed_with_appendfsync_always_loses_nothing(tmp_path: Path) -> None:
    with RedisServer(aof="always") as redis:

        async def disturb(drill: Drill) -> None:
            for _ in range(2):
                await drill.published()
                await drill.struck(redis.kill)
                await drill.fleet.until(lambda: everybody_was_told(drill, "away"))
                await drill.refused()
                redis.start()
                await drill.fleet.until(lambda: everybody_was_told(drill, "ok"))

        async with ServerProcess("redis", tmp_path, redis_url=redis.url, settings=QUICK) as server:
            outcome = await run([server], PLAN, disturb)
    print(outcome.report("kill -9 of Redis (appendfsync always), twice"))
    assert outcome.account.faults == 0, outcome.account.table()
    assert not outcome.account.gaps
    assert {client.connection for client in outcome.drill.fleet.clients} == {1}, "nobody is thrown out"
    assert outcome.drill.publisher.refusals["bus-unavailable"] > 0


async def test_redis_that_hangs_holds_delivery_and_loses_nothing(tmp_path: Path) -> None:
    with RedisServer() as redis:

        async def disturb(drill: Drill) -> None:
            await drill.published()
            redis.freeze()
            try:
                await drill.fleet.until(lambda: everybody_was_told(drill, "away"))
                await drill.refused()
                before = [len(client.arrivals) for client in drill.fleet.clients]
                await drill.refused()
                assert before == [len(client.arrivals) for client in drill.fleet.clients]
            finally:
                redis.thaw()
            await drill.fleet.until(lambda: everybody_was_told(drill, "ok"))

        async with ServerProcess("redis", tmp_path, redis_url=redis.url, settings=QUICK) as server:
            outcome = await run([server], PLAN, disturb)
    print(outcome.report("Redis hangs (SIGSTOP)"))
    assert outcome.account.faults == 0, outcome.account.table()
    assert not outcome.account.gaps
    assert {client.connection for client in outcome.drill.fleet.clients} == {1}


async def test_redis_that_forgets_everything_is_announced_and_delivery_goes_on(tmp_path: Path) -> None:
    lost: set[str] = set()
    with RedisServer() as redis:

        async def disturb(drill: Drill) -> None:
            await drill.published()
            await drill.struck(redis.kill)
            await drill.fleet.until(lambda: everybody_was_told(drill, "away"))
            await drill.refused()
            lost.update(drill.publisher.acknowledged)
            redis.start()
            await drill.fleet.until(lambda: everybody_was_told(drill, "ok"))

        async with ServerProcess("redis", tmp_path, redis_url=redis.url, settings=QUICK) as server:
            outcome = await run([server], PLAN, disturb)
    print(outcome.report("Redis without persistence restarts: its log is gone"))
    clients = outcome.drill.fleet.clients
    later = {p.id: p for p in outcome.drill.publisher.acknowledged.values() if p.id not in lost}
    assert later
    for client in clients:
        gaps = client.named("gap")
        assert {gap["channel"] for gap in gaps} == client.channels, client.name
        assert {gap["reason"] for gap in gaps} <= {"epoch", "unknown"}
        assert client.ids >= {p.id for p in later.values() if p.channels & client.channels}, client.name
        offsets = [split(arrival.cursor)[1] for arrival in client.arrivals if arrival.cursor]
        assert offsets == sorted(set(offsets)), f"{client.name}: offsets do not ascend"
    epochs = {split(arrival.cursor)[0] for client in clients for arrival in client.arrivals if arrival.cursor}
    assert len(epochs) == 2
    assert outcome.account.strangers == outcome.account.wrong_cursor == 0
