"""Connections whose other end fell silent without a word are found by the server, and their clients lose
nothing."""

from __future__ import annotations

from pathlib import Path

import pytest

from support.accounting import Changes, Publisher, account
from support.blackhole import Blackhole
from support.fleet import Fleet
from support.server_process import ServerProcess, token

pytestmark = pytest.mark.anyio

CLIENTS = 16
PUBLISHER = token("p", roles=["publisher"])


async def test_silent_sockets_are_closed_by_ping_and_silent_streams_by_lag(tmp_path: Path) -> None:
    """An idle WebSocket is found by its unanswered ping. A stream has no answer: what does not take its data
    is found by `lag_limit_s`. Both resume.
    """
    changes = Changes()
    settings = {
        "delivery.ws_heartbeat_s": 5,
        "delivery.dead_after_s": 1,
        "delivery.lag_limit_s": 1,
        "delivery.retry_min_ms": 100,
        "delivery.retry_max_ms": 300,
    }
    async with (
        ServerProcess("sqlite", tmp_path, settings=settings) as server,
        Blackhole(server.host, server.port) as hole,
        Publisher([server.base_url], PUBLISHER, ["topic:t"], changes, pad=48 * 1024) as publisher,
        Fleet(changes) as fleet,
    ):
        files = server.open_files()
        fleet.launch(CLIENTS, [(hole.host, hole.port)], users=["u"], topics=["topic:t"])
        await fleet.all_open()
        hole.swallow()
        await server.until_metric("dualcast_sessions_stale_closed_total", lambda value: value == CLIENTS / 2)
        assert await server.metric("dualcast_sessions") == CLIENTS / 2, "an idle stream cannot be found"
        await publisher.burst(120)
        await server.until_metric("dualcast_sessions_lag_closed_total", lambda value: value == CLIENTS / 2)
        assert await server.metric("dualcast_sessions") == 0
        await server.until_metric("dualcast_connections", lambda value: value == 0)
        await server.until_files(files + 2)  # the publisher's connection, and the last scrape's
        hole.cut()
        last = await publisher.publish("all")
        await fleet.all_have(last.id)
        found = account(fleet.clients, publisher.acknowledged.values())
    print("\nhalf-open connections\n" + found.table())
    assert found.faults == 0, found.table()
    assert not found.gaps
    assert {client.connection for client in fleet.clients} == {2}
