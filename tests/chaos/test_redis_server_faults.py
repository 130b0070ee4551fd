"""The redis engine with a server that is killed, restored, flushed or frozen. Everything is accounted for."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Iterator

import pytest

from dualcast.bus.redis.scripts import fence, texts
from dualcast.model.errors import BusUnavailable
from support.bus_engines import draft, watch
from support.flaky_proxy import FlakyProxy
from support.redis_nodes import Node, insist, node
from support.redis_server import RedisServer

pytestmark = pytest.mark.anyio


@pytest.fixture
def tenant() -> str:
    return "t-" + secrets.token_hex(5)


@pytest.fixture
def server() -> Iterator[RedisServer]:
    """A server of the test's own that loses nothing it acknowledged."""
    with RedisServer(aof="always") as server:
        yield server


async def test_a_restart_that_lost_nothing_is_no_new_epoch(server: RedisServer, tenant: str) -> None:
    async with node(server.url) as a:
        await watch(a.bus, a.recorder, tenant, "all")
        first = [await a.bus.append(draft(tenant, id=str(n))) for n in range(5)]
        server.kill()
        await a.status(False)
        with pytest.raises(BusUnavailable):
            await a.bus.append(draft(tenant))
        with pytest.raises(BusUnavailable):
            await a.bus.read(tenant, ["all"], 0, 10)
        server.start()
        receipt = await insist(a, tenant, "all", ident="after")
        assert receipt.epoch == first[0].epoch
        assert receipt.offset > 5
        await a.status(True)
        await a.fed(tenant, ["0", "1", "2", "3", "4", "after"])
        page = await a.bus.read(tenant, ["all"], 0, 10)
        assert [entry.publication.id for entry in page.entries] == ["0", "1", "2", "3", "4", "after"]
        assert page.gaps == ()
        assert a.recorder.named("epoch") == []
        assert (await insist(a, tenant, "all", ident="3")).duplicate


async def test_a_lost_tail_is_a_new_epoch_above_it(server: RedisServer, tenant: str) -> None:
    async with node(server.url) as a:
        await watch(a.bus, a.recorder, tenant, "all")
        for n in range(5):
            old = await a.bus.append(draft(tenant, id=str(n)))
        copy = server.copy_data()
        for n in range(5, 9):
            old = await a.bus.append(draft(tenant, id=str(n)))
        await a.fed(tenant, [str(n) for n in range(9)])
        server.kill()
        server.restore_data(copy)
        server.start()
        await a.recorder.until(lambda: bool(a.recorder.named("epoch")))
        ((epoch, base),) = a.recorder.named("epoch", tenant)
        assert epoch != old.epoch and base >= old.offset
        receipt = await insist(a, tenant, "all", ident="after")
        assert receipt.epoch == epoch and receipt.offset > base
        await a.fed(tenant, [*map(str, range(9)), "after"])
        assert a.offsets(tenant) == sorted(a.offsets(tenant))
        assert await a.bus.known_epoch(tenant, old.epoch)
        assert await a.bus.known_epoch(tenant, epoch)
        assert not await a.bus.known_epoch(tenant, "zzzzzz")


async def test_a_lost_tail_is_found_even_when_others_append_first(server: RedisServer, tenant: str) -> None:
    """A node that saw nothing of the tail must not give its offsets away before one that did comes back."""
    proxy = FlakyProxy(server.socket)
    await proxy.start()
    async with node(proxy.url) as a:
        await watch(a.bus, a.recorder, tenant, "all")
        await a.bus.append(draft(tenant, id="kept"))
        copy = server.copy_data()
        old = [await a.bus.append(draft(tenant, id=f"lost-{n}")) for n in range(3)][-1]
        await a.fed(tenant, ["kept", "lost-0", "lost-1", "lost-2"])
        proxy.refuse = True
        server.kill()
        server.restore_data(copy)
        server.start()
        await a.status(False)
        async with node(server.url) as stranger:
            others = [await stranger.bus.append(draft(tenant, id=f"new-{n}")) for n in range(6)]
            assert min(receipt.offset for receipt in others) > old.offset
            proxy.refuse = False
            await a.recorder.until(lambda: bool(a.recorder.named("epoch")))
            ((epoch, base),) = a.recorder.named("epoch", tenant)
            assert epoch != old.epoch and base >= others[-1].offset
            await a.fed(tenant, ["kept", "lost-0", "lost-1", "lost-2", *(f"new-{n}" for n in range(6))])
            receipt = await insist(stranger, tenant, "all", ident="after")
            assert receipt.epoch == epoch
            await a.recorder.until(lambda: a.ids(tenant)[-1] == "after")
            assert a.offsets(tenant) == sorted(a.offsets(tenant))
    await proxy.close()


async def test_flushall_is_a_new_epoch(server: RedisServer, tenant: str) -> None:
    async with node(server.url) as a, node(server.url) as b:
        for each in (a, b):
            await watch(each.bus, each.recorder, tenant, "all", "user:a")
        for n in range(4):
            old = await a.bus.append(draft(tenant, "all", "user:a", id=str(n)))
        await b.recorder.until(lambda: len(b.recorder.of(tenant)) == 8)
        server.command("FLUSHALL")
        after = await a.bus.append(draft(tenant, "user:a", id="after"))
        assert after.epoch != old.epoch and after.offset > old.offset
        for each in (a, b):
            await each.recorder.until(lambda each=each: each.ids(tenant)[-1] == "after")  # type: ignore[misc]
            assert each.recorder.named("epoch", tenant) == [(after.epoch, old.offset)]
            assert each.recorder.named("gap") == []
            names = [call[0] for call in each.recorder.calls]
            assert names.index("epoch") < len(names) - 1 - names[::-1].index("entry")
            assert await each.bus.known_epoch(tenant, old.epoch)
        page = await b.bus.read(tenant, ["all", "user:a"], 1, 10)
        assert [gap.channel for gap in page.gaps] == ["all", "user:a"]
        assert [entry.publication.id for entry in page.entries] == ["after"]


async def test_a_flush_is_found_by_the_probe_of_a_quiet_tenant(server: RedisServer, tenant: str) -> None:
    async with node(server.url) as a:
        await watch(a.bus, a.recorder, tenant, "all")
        old = await a.bus.append(draft(tenant))
        server.command("FLUSHALL")
        await a.bus.probe()
        await a.recorder.until(lambda: bool(a.recorder.named("epoch")))
        assert a.recorder.named("epoch", tenant)[0][1] == old.offset


async def test_scripts_of_the_last_run_that_the_server_still_knows_are_not_called(
    server: RedisServer, tenant: str
) -> None:
    """Redis 6 writes SCRIPT LOAD into the append-only file and hands it on to replicas."""
    proxy = FlakyProxy(server.socket)
    await proxy.start()
    async with node(proxy.url) as a:
        await a.bus.append(draft(tenant, id="before"))
        prelude = fence(server.info("server")["run_id"])
        loaded = [prelude + text for text in texts([]).values()]
        proxy.refuse = True
        server.restart()
        for script in loaded:
            server.command("SCRIPT", "LOAD", script)
        proxy.refuse = False
        receipt = await insist(a, tenant, "all", ident="after")
        assert receipt.offset > 1 << 20, "a script of the last run has run"
    await proxy.close()


async def test_a_frozen_server_is_noticed_and_forgiven(server: RedisServer, tenant: str) -> None:
    async with node(server.url, command_s=0.5, probe_every_s=0.1) as a:
        await watch(a.bus, a.recorder, tenant, "all")
        await a.bus.append(draft(tenant, id="before"))
        server.freeze()
        try:
            results = await asyncio.gather(
                *(a.bus.append(draft(tenant, id=f"{n}")) for n in range(50)), return_exceptions=True
            )
            assert {type(result) for result in results} == {BusUnavailable}
            with pytest.raises(BusUnavailable):
                await a.bus.read(tenant, ["all"], 0, 1)
            await a.status(False)
            assert not (await a.bus.probe()).ok
        finally:
            server.thaw()
        await a.status(True)
        await insist(a, tenant, "all", ident="after")
        await a.recorder.until(lambda: "after" in a.ids(tenant))
        ids = a.ids(tenant)
        assert len(ids) == len(set(ids))
        assert a.offsets(tenant) == sorted(a.offsets(tenant))
        assert a.bus.stats()["pending_calls"] == 0


async def test_what_waits_for_a_frozen_server_is_bounded(server: RedisServer, tenant: str) -> None:
    async with node(server.url, pending_calls=10) as a:
        await a.bus.head(tenant)
        await a.bus.append(draft(tenant))
        server.freeze()
        try:
            waiting = [asyncio.ensure_future(a.bus.append(draft(f"{tenant}-{n}"))) for n in range(50)]
            done, pending = await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
            while len(done) < 40:
                more, pending = await asyncio.wait(pending, return_when=asyncio.FIRST_COMPLETED)
                done |= more
            assert a.bus.stats()["pending_calls"] <= 10
            results = await asyncio.gather(*waiting, return_exceptions=True)
            assert {type(result) for result in results} == {BusUnavailable}
        finally:
            server.thaw()


async def test_a_node_can_start_before_redis(tenant: str) -> None:
    server = RedisServer()
    try:
        async with node(server.url) as a:
            assert a.statuses == [False]
            a.bus.watch(tenant, "all")
            with pytest.raises(BusUnavailable):
                await a.bus.append(draft(tenant))
            assert not (await a.bus.probe()).ok
            server.start()
            await a.status(True)
            await a.recorder.until(lambda: bool(a.recorder.named("watched", tenant)))
            await insist(a, tenant, "all", ident="one")
            await a.fed(tenant, ["one"])
    finally:
        server.close()


async def test_storms_of_restarts_account_for_everything(server: RedisServer, tenant: str) -> None:
    channels = [f"user:{n}" for n in range(5)]
    async with node(server.url) as a, node(server.url) as b:
        for each in (a, b):
            await watch(each.bus, each.recorder, tenant, *channels)
        acknowledged: list[str] = []
        stop = False

        async def publish(name: str, by: Node) -> None:
            n = 0
            while not stop:
                receipt = await insist(by, tenant, channels[n % 5], ident=f"{name}-{n}")
                acknowledged.append(receipt.id)
                n += 1

        publishers = [asyncio.ensure_future(publish(f"p{n}", (a, b)[n % 2])) for n in range(4)]
        for _ in range(4):
            count = len(acknowledged)
            while len(acknowledged) < count + 100:
                await asyncio.sleep(0.001)
            await asyncio.to_thread(server.restart)
        await a.status(True)
        await b.status(True)
        stop = True
        await asyncio.gather(*publishers)
        last = await insist(a, tenant, *channels, ident="last")
        for each in (a, b):
            await each.recorder.until(lambda each=each: "last" in each.ids(tenant))  # type: ignore[misc]
            ids = each.ids(tenant)
            assert set(ids) == {*acknowledged, "last"}
            assert len([ident for ident in ids if ident != "last"]) == len(acknowledged)
            assert each.offsets(tenant) == sorted(each.offsets(tenant))
            assert each.recorder.named("gap") == each.recorder.named("epoch") == []
        assert last.offset
