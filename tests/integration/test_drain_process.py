"""SIGTERM: everybody is told when to come back, the process ends by itself, nothing is lost over the
restart."""

from __future__ import annotations

import asyncio
import signal
from pathlib import Path

import pytest

from support.accounting import Changes, Publisher, account
from support.fleet import Fleet, SocketClient, StreamClient
from support.server_process import ServerProcess, token

pytestmark = pytest.mark.anyio

CLIENTS = 200
PUBLISHER = token("publisher", roles=["publisher"])
MIN_MS, MAX_MS = 1_000, 2_000


async def test_sigterm_tells_everybody_and_the_next_process_goes_on(tmp_path: Path) -> None:
    settings = {
        "server.drain_s": 3,
        "delivery.retry_min_ms": MIN_MS,
        "delivery.retry_max_ms": MAX_MS,
    }
    changes = Changes()
    topics = ["topic:a", "topic:b"]
    async with (
        ServerProcess("sqlite", tmp_path, settings=settings) as server,
        Publisher([server.base_url], PUBLISHER, [*topics, "all", "user:u1"], changes) as publisher,
        Fleet(changes) as fleet,
    ):
        fleet.launch(CLIENTS, [(server.host, server.port)], users=["u0", "u1", "u2", "u3"], topics=topics)
        await fleet.all_open()
        stop = asyncio.Event()
        load = asyncio.create_task(publisher.run(stop, rate=40))
        await fleet.until(lambda: len(publisher.acknowledged) >= 20)
        server.signal(signal.SIGTERM)
        assert await server.exited() == 0
        await fleet.until(lambda: not any(client.open for client in fleet.clients), "a client hangs on")
        await server.start()
        stop.set()
        await load
        fence = await publisher.publish("all")
        await fleet.all_have(fence.id)
        found = account(fleet.clients, publisher.acknowledged.values())
    print("\nSIGTERM with 200 clients\n" + found.table())
    assert found.faults == 0, found.table()
    assert not found.gaps
    delays = []
    for client in fleet.clients:
        assert not client.over
        if isinstance(client, SocketClient):
            (bye,) = client.named("bye")
            assert (bye["code"], bye["reason"]) == (4100, "drain")
            assert client.codes[4100] == 1
        else:
            assert isinstance(client, StreamClient)
            assert len(client.named("drain")) == 1
            assert client.ends["ended"] == 1, "the stream ends as HTTP demands, it is not cut off"
        delays += client.told_retry_ms
    assert len(delays) == CLIENTS
    assert all(MIN_MS <= delay <= MAX_MS for delay in delays)
    assert len(set(delays)) > CLIENTS // 2, "everybody would come back at the same moment"
    assert "Traceback" not in server.log(), server.log()


async def test_sigterm_is_not_held_up_by_clients_that_read_nothing(tmp_path: Path) -> None:
    changes = Changes()
    settings = {"server.drain_s": 2}
    async with (
        ServerProcess("memory", tmp_path, settings=settings) as server,
        Publisher([server.base_url], PUBLISHER, ["all"], changes, pad=50_000) as publisher,
        Fleet(changes) as fleet,
    ):
        fleet.launch(6, [(server.host, server.port)], users=["u"], topics=[])
        for client in fleet.clients:
            client.receive_buffer = 128 * 1024
        await fleet.all_open()
        for client in fleet.clients:
            client.stop_reading()
        await publisher.burst(160)
        server.signal(signal.SIGTERM)
        assert await server.exited() == 0
