"""Clients that do not read cost no memory, hold up nobody and lose nothing: they catch up, or are sent away
and resume."""

from __future__ import annotations

from pathlib import Path

import pytest

from support.accounting import Changes, Publisher, account
from support.fleet import Fleet, SocketClient
from support.server_process import ServerProcess, token

pytestmark = pytest.mark.anyio

PUBLISHER = token("p", roles=["publisher"])
PAD = 48 * 1024
SLOW = 24
PUBLICATIONS = 400
MAX_GROWTH = 64 * 1024 * 1024
"""Of the server's RSS. Buffering for the slow clients would take SLOW x PUBLICATIONS x PAD = 450 MiB."""
MAX_CATCH_UP = 200 * 1024 * 1024
"""While all catch up at once: 16 recovery workers, each with a page of at most 4 MiB as data, JSON and
frames. The same for any number of clients.
"""
SETTINGS: dict[str, object] = {
    "delivery.ring_entries": 16,
    "delivery.retry_min_ms": 100,
    "delivery.retry_max_ms": 300,
}


async def stalled_fleet(fleet: Fleet, server: ServerProcess) -> None:
    """SLOW clients that stop reading, and as many that go on; connected, all in `topic:big`."""
    users = [f"u{number}" for number in range(8)]
    fleet.launch(2 * SLOW, [(server.host, server.port)], users=users, topics=["topic:big"])
    for client in fleet.clients[:SLOW]:
        client.receive_buffer = 128 * 1024
    await fleet.all_open()
    for client in fleet.clients[:SLOW]:
        client.stop_reading()


async def test_slow_readers_hold_up_nobody_and_catch_up_when_they_read(tmp_path: Path) -> None:
    changes = Changes()
    settings = {**SETTINGS, "delivery.lag_limit_s": 300}
    async with (
        ServerProcess("sqlite", tmp_path, settings=settings) as server,
        Publisher([server.base_url], PUBLISHER, ["topic:big"], changes, pad=PAD) as publisher,
        Fleet(changes) as fleet,
    ):
        await stalled_fleet(fleet, server)
        slow, quick = fleet.clients[:SLOW], fleet.clients[SLOW:]
        before = server.rss_bytes()
        sent = await publisher.burst(PUBLICATIONS)
        await fleet.until(lambda: all(sent[-1].id in client.ids for client in quick), "the quick ones wait")
        assert await server.metric("dualcast_sessions_behind") == SLOW
        growth = server.rss_bytes() - before
        print(f"\n{SLOW} slow clients, {PUBLICATIONS} x {PAD} bytes: RSS grew by {growth / 2**20:.1f} MiB")
        assert growth < MAX_GROWTH
        assert not any(sent[-1].id in client.ids for client in slow)
        for client in slow:
            client.read_again()
        await fleet.all_have(sent[-1].id)
        growth = server.rss_bytes() - before
        print(f"all caught up: RSS grew by {growth / 2**20:.1f} MiB")
        assert growth < MAX_CATCH_UP
        assert await server.metric("dualcast_sessions_behind") == 0
        found = account(fleet.clients, publisher.acknowledged.values())
    print(found.table())
    assert found.faults == 0, found.table()
    assert not found.gaps
    assert {client.connection for client in fleet.clients} == {1}


async def test_a_reader_that_stays_slow_is_sent_away_and_resumes_by_cursor(tmp_path: Path) -> None:
    changes = Changes()
    settings = {**SETTINGS, "delivery.lag_limit_s": 4}
    async with (
        ServerProcess("sqlite", tmp_path, settings=settings) as server,
        Publisher([server.base_url], PUBLISHER, ["topic:big"], changes, pad=PAD) as publisher,
        Fleet(changes) as fleet,
    ):
        await stalled_fleet(fleet, server)
        slow, quick = fleet.clients[:SLOW], fleet.clients[SLOW:]
        await publisher.burst(160)
        await server.until_metric("dualcast_sessions_lag_closed_total", lambda value: value == SLOW)
        later = await publisher.publish("topic:big")
        for client in slow:
            client.read_again()
        await fleet.all_have(later.id)
        found = account(fleet.clients, publisher.acknowledged.values())
    print("\nclosed for lagging\n" + found.table())
    assert found.faults == 0, found.table()
    assert not found.gaps
    assert {client.connection for client in quick} == {1}
    assert {client.connection for client in slow} == {2}
    for client in slow:
        (bye,) = client.named("bye")
        assert (bye["code"], bye["reason"]) == (4200, "lagging")
        if isinstance(client, SocketClient):
            assert client.codes == {4200: 1}
