"""Two nodes over one Redis: the clients of a dead node go on at the other, by cursor."""

from __future__ import annotations

from pathlib import Path

import pytest

from chaos.drill import SETTINGS, Drill, Plan, run
from support.redis_server import RedisServer
from support.server_process import ServerProcess

pytestmark = pytest.mark.anyio


async def test_clients_of_a_killed_node_go_on_at_the_other(tmp_path: Path) -> None:
    plan = Plan(clients=40, publications=80, rate=100)
    with RedisServer() as redis:
        folders = [tmp_path / "a", tmp_path / "b"]
        for folder in folders:
            folder.mkdir()
        nodes = [ServerProcess("redis", folder, redis_url=redis.url, settings=SETTINGS) for folder in folders]
        async with nodes[0] as doomed, nodes[1]:

            async def disturb(drill: Drill) -> None:
                await drill.published()
                await drill.struck(doomed.kill)
                await drill.refused(1)
                await drill.fleet.all_open()

            outcome = await run(nodes, plan, disturb)
    print(outcome.report("two nodes over one Redis, kill -9 of one"))
    assert outcome.account.faults == 0, outcome.account.table()
    assert not outcome.account.gaps
    moved = [client for client in outcome.drill.fleet.clients if client.connection > 1]
    assert len(moved) == plan.clients // 2, "the clients were not spread over both"
    assert {client.transport_name for client in moved} == {"sse", "ws"}
