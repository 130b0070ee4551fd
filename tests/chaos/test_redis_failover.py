"""Failovers by real sentinels, which ask for a password as the servers do. Everything is accounted for."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Iterator
from pathlib import Path

import pytest

from chaos.drill import Plan
from chaos.failover import failover_drill
from dualcast.model.errors import BusUnavailable
from dualcast.model.publication import Receipt
from dualcast.state.redis import RedisState
from support.bus_engines import draft, watch
from support.redis_nodes import Node, insist, node
from support.sentinel_set import SentinelSet

pytestmark = pytest.mark.anyio
PASSWORD = "of-the-servers"
SENTINEL_PASSWORD = "of-the-sentinels"


@pytest.fixture(scope="module")
def servers() -> Iterator[SentinelSet]:
    with SentinelSet(password=PASSWORD, sentinel_password=SENTINEL_PASSWORD) as servers:
        yield servers


def reach(servers: SentinelSet) -> dict[str, object]:
    """Settings of a bus."""
    return {
        "url": f"redis://:{PASSWORD}@ignored:1/0",
        "sentinels": servers.places,
        "sentinel_password": SENTINEL_PASSWORD,
    }


async def test_a_planned_failover_gives_no_offset_twice_and_tells_what_it_lost(servers: SentinelSet) -> None:
    """The old master takes writes until it is left: what it took last is lost."""
    tenant = "t-" + secrets.token_hex(5)
    channels = [f"user:{n}" for n in range(5)]
    acknowledged: list[Receipt] = []
    stop = False

    async def publish(name: str, by: Node) -> None:
        n = 0
        while not stop:
            acknowledged.append(await insist(by, tenant, channels[n % 5], ident=f"{name}-{n}"))
            n += 1
            await asyncio.sleep(0.005)

    async with node(**reach(servers)) as a, node(**reach(servers)) as b:
        for each in (a, b):
            await watch(each.bus, each.recorder, tenant, *channels)
        state = RedisState(a.bus.pool.client)
        await state.put("space", tenant, b"kept")
        publishers = [asyncio.ensure_future(publish(f"p{n}", (a, b)[n % 2])) for n in range(4)]
        new = await asyncio.to_thread(servers.fail_over)
        begin = len(acknowledged)
        while len(acknowledged) < begin + 200 or acknowledged[-1].offset < 1 << 20:
            await asyncio.sleep(0.01)
        stop = True
        await asyncio.gather(*publishers)
        last = await insist(a, tenant, *channels, ident="last")
        page = await a.bus.read(tenant, channels, 0, 10_000)
        kept = {entry.publication.id for entry in page.entries}
        lost = {receipt.id for receipt in acknowledged} - kept
        for each in (a, b):
            await each.recorder.until(lambda each=each: "last" in each.ids(tenant))  # type: ignore[misc]
            # What one node acknowledged last, another may not have heard before it left.
            assert {receipt.id for receipt in acknowledged} - set(each.ids(tenant)) <= lost
            assert each.offsets(tenant) == sorted(each.offsets(tenant))
            assert bool(each.recorder.named("epoch", tenant)) >= bool(lost)
            ids: dict[int, set[str]] = {}
            for entry in each.recorder.of(tenant):
                ids.setdefault(entry.offset, set()).add(entry.publication.id)
            assert max(map(len, ids.values())) == 1, "an offset was given twice"
            assert {row["name"] for row in new.clients("dualcast-tap")} == {"dualcast-tap"}
        assert last.offset > 1 << 20
        assert (await state.get("space", tenant)) is not None
        first = {row["name"] for row in new.clients()}
        assert first == {"dualcast-append", "dualcast-read", "dualcast-tap", "dualcast-pool"}


async def test_publishing_is_refused_while_there_is_no_master_and_goes_on_by_itself(
    servers: SentinelSet,
) -> None:
    tenant = "t-" + secrets.token_hex(5)
    await asyncio.to_thread(servers.settled)
    async with node(**reach(servers)) as a:
        await watch(a.bus, a.recorder, tenant, "all")
        await a.bus.append(draft(tenant, id="before"))
        old = await asyncio.to_thread(servers.kill_master)
        await a.status(False)
        with pytest.raises(BusUnavailable) as refused:
            await a.bus.append(draft(tenant))
        assert refused.value.code == "bus-unavailable"
        assert not (await a.bus.probe()).ok
        new = await asyncio.to_thread(servers.replaced, old)
        assert new is not old
        await insist(a, tenant, "all", ident="after")
        await a.recorder.until(lambda: a.ids(tenant)[-1:] == ["after"])
        await a.health(ok=True)
        old.start()
        await asyncio.to_thread(servers.settled)
        assert old.info("replication")["role"] == "slave"
        await a.bus.append(draft(tenant, id="with the old one back"))
        assert not old.clients()


async def test_clients_of_two_nodes_lose_nothing_unsaid_when_the_master_is_killed(tmp_path: Path) -> None:
    with SentinelSet() as servers:
        found, _ = await failover_drill(
            tmp_path, servers, Plan(clients=24, publications=40), "kill", 1, back=False
        )
    print(found.table())
    assert found.faults == 0, found.table()
    assert found.acknowledged > 100
    assert len(found.outages_s) == 1
    assert max(found.connections) <= 3 + 3 + 8, "append, read, tap; to sentinels; the pool"
