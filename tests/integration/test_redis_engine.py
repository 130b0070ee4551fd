"""The redis engine on a real server, in good weather: connections, keys, several nodes, logging in."""

from __future__ import annotations

import asyncio
import secrets
from pathlib import Path

import pytest

from dualcast.bus.port import Retention
from dualcast.model.errors import BusUnavailable
from dualcast.model.publication import Receipt
from support.bus_engines import draft, watch
from support.certificate import self_signed
from support.ports import free_port
from support.redis_nodes import node
from support.redis_server import RedisServer, shared

pytestmark = pytest.mark.anyio


@pytest.fixture
def tenant() -> str:
    return "t-" + secrets.token_hex(5)


async def test_every_node_gets_everything_once_and_in_order(tenant: str) -> None:
    url = shared().url
    async with node(url) as a, node(url) as b, node(url) as c:
        for each in (a, b, c):
            await watch(each.bus, each.recorder, tenant, "all", "user:a")
        results = await asyncio.gather(
            *(
                each.bus.append_many([draft(tenant, "all" if n % 2 else "user:a") for n in range(50)])
                for each in (a, b, c)
            )
        )
        order = sorted(
            (receipt.offset, receipt.id)
            for many in results
            for receipt in many
            if isinstance(receipt, Receipt)
        )
        assert [offset for offset, _ in order] == list(range(1, 151))
        for each in (a, b, c):
            await each.fed(tenant, [ident for _, ident in order])


async def test_what_comes_live_is_in_history_already(tenant: str) -> None:
    async with node(shared().url) as a:
        await watch(a.bus, a.recorder, tenant, "all")
        for n in range(20):
            appending = asyncio.ensure_future(a.bus.append(draft(tenant, id=str(n))))
            await a.recorder.until(lambda n=n: len(a.recorder.of(tenant)) == n + 1)  # type: ignore[misc]
            page = await a.bus.read(tenant, ["all"], n, 10)
            assert [entry.publication for entry in page.entries] == [a.recorder.of(tenant)[-1].publication]
            assert page.entries[0].prev == a.recorder.of(tenant)[-1].prev == n
            await appending


async def test_connections_do_not_grow_with_channels(tenant: str) -> None:
    with RedisServer() as server:
        async with node(server.url) as a:
            await watch(a.bus, a.recorder, tenant, *(f"user:{n}" for n in range(10)))
            await a.bus.append(draft(tenant, "user:1"))
            await a.bus.probe()
            ten = len(server.clients())
            await watch(a.bus, a.recorder, tenant, *(f"user:{n}" for n in range(10, 2000)))
            await asyncio.gather(*(a.bus.append(draft(tenant, f"user:{n}")) for n in range(2000)))
            await asyncio.gather(*(a.bus.read(tenant, [f"user:{n}"], 0, 10) for n in range(2000)))
            await a.recorder.until(lambda: len(a.recorder.of(tenant)) == 2001)
            await a.bus.checks()
            assert len(server.clients("dualcast-")) - a.bus.pool.connections == ten == 3
            assert a.bus.stats()["connections"] == len(server.clients()) <= 12
            for n in range(2000):
                a.bus.unwatch(tenant, f"user:{n}")
            await watch(a.bus, a.recorder, tenant, "all")
            async with asyncio.timeout(30):
                while len(server.command("PUBSUB", "CHANNELS")) != 2:  # type: ignore[arg-type]
                    await asyncio.sleep(0.01)


async def test_all_thousand_targets_arrive_as_one_offset(tenant: str) -> None:
    channels = [f"user:{n}" for n in range(1000)]
    async with node(shared().url) as a:
        await watch(a.bus, a.recorder, tenant, *channels)
        receipt = await a.bus.append(draft(tenant, *channels))
        await a.recorder.until(lambda: len(a.recorder.of(tenant)) == 1000)
        assert {entry.channel for entry in a.recorder.of(tenant)} == set(channels)
        assert {entry.offset for entry in a.recorder.of(tenant)} == {receipt.offset}
        assert len({id(entry.publication) for entry in a.recorder.of(tenant)}) == 1
        assert (await a.bus.probe()).ok
        assert a.recorder.named("advanced", tenant)[-1] == (receipt.epoch, receipt.offset)
        assert a.recorder.named("gap") == []


async def test_keys_share_the_hash_tag_and_vanish(tenant: str) -> None:
    with RedisServer() as server:
        async with node(server.url, Retention(entries=3, seconds=100, idempotency_s=70)) as a:
            for n in range(5):
                await a.bus.append(draft(tenant, "room:日本 {x}", id=str(n)))
        keys = server.command("KEYS", "*")
        assert isinstance(keys, list)
        assert keys and all(key.startswith(b"dc:{%s}:" % tenant.encode()) for key in keys)
        (stream,) = (key for key in keys if b":s:" in key)
        assert server.command("XLEN", stream) == 3
        assert 0 < int(server.command("TTL", stream)) <= 100  # type: ignore[call-overload]
        assert 60 < int(server.command("TTL", b"dc:{%s}:ii0" % tenant.encode())) <= 70  # type: ignore[call-overload]


async def test_heads_are_bounded_and_what_is_forgotten_is_a_gap(tenant: str) -> None:
    with RedisServer() as server:
        async with node(server.url, max_heads=500) as a:
            for start in range(0, 3000, 250):
                await a.bus.append_many([draft(tenant, f"user:{start + n}") for n in range(250)])
            heads = int(server.command("ZCARD", f"dc:{{{tenant}}}:h"))  # type: ignore[call-overload]
            assert heads <= 500 + 1024
            page = await a.bus.read(tenant, ["user:0"], 0, 10)
            assert [(gap.channel, gap.oldest) for gap in page.gaps] == [("user:0", 0)]
            assert (await a.bus.read(tenant, ["user:2999"], 2998, 10)).gaps == ()


async def test_the_position_of_a_quiet_tenant_advances_by_the_probe(tenant: str) -> None:
    async with node(shared().url) as a:
        await watch(a.bus, a.recorder, tenant, "user:a")
        receipt = await a.bus.append(draft(tenant, "user:b"))
        assert (await a.bus.probe()).ok
        assert a.recorder.named("advanced", tenant)[-1] == (receipt.epoch, receipt.offset)
        assert a.bus.stats()["repairs"] == 0


async def test_password_acl_user_and_database(tenant: str) -> None:
    with RedisServer(tcp=True) as server:
        server.command("ACL", "SETUSER", "bus", "on", ">s3", "~dc:*", "&dc:*", "+@all")
        server.command("ACL", "SETUSER", "default", "resetpass", ">secret")
        urls = (
            f"redis://:secret@127.0.0.1:{server.port}/0",
            f"redis://bus:s3@127.0.0.1:{server.port}/3",
            f"unix://bus:s3@{server.socket}?db=4",
        )
        for number, url in enumerate(urls):
            name = f"{tenant}-{number}"
            async with node(url) as a:
                await watch(a.bus, a.recorder, name, "all")
                assert (await a.bus.append(draft(name, id="one"))).offset == 1
                await a.fed(name, ["one"])
                assert (await a.bus.probe()).ok
        async with node(f"redis://bus:wrong@127.0.0.1:{server.port}/0") as a:
            assert a.statuses == [False]
            assert not (await a.bus.probe()).ok
            with pytest.raises(BusUnavailable):
                await a.bus.append(draft(tenant))
            assert [check.name for check in await a.bus.checks()] == ["reachable"]


async def test_tls(tenant: str, tmp_path: Path) -> None:
    certificate, key = self_signed(tmp_path)
    port = free_port()
    options = ("--tls-port", str(port), "--tls-cert-file", certificate, "--tls-key-file", key)
    with RedisServer(options=(*options, "--tls-auth-clients", "no")) as server:
        assert server.command("PING") == b"PONG"
        async with node(f"rediss://localhost:{port}/0?ssl_ca_certs={certificate}") as a:
            await watch(a.bus, a.recorder, tenant, "all")
            await a.bus.append(draft(tenant, id="one"))
            await a.fed(tenant, ["one"])
            assert (await a.bus.checks())[0].ok
        loop = asyncio.get_running_loop()
        handler = loop.get_exception_handler()
        loop.set_exception_handler(lambda *_: None)  # uvloop reports the refused certificate there, too
        try:
            async with node(f"rediss://localhost:{port}/0") as stranger:
                assert stranger.statuses == [False]
        finally:
            loop.set_exception_handler(handler)


async def test_doctor_finds_what_would_lose_data() -> None:
    with RedisServer(aof="always") as good, RedisServer() as bad:
        bad.command("CONFIG", "SET", "maxmemory", "100mb", "maxmemory-policy", "allkeys-lru")
        bad.command("CONFIG", "SET", "client-output-buffer-limit", "pubsub 1mb 1mb 60")
        async with node(good.url) as a, node(bad.url) as b:
            good_checks = {check.name: check for check in await a.bus.checks()}
            assert {name: check.ok for name, check in good_checks.items() if name != "latency"} == {
                "reachable": True,
                "version": True,
                "aof": True,
                "eviction": True,
                "pubsub-buffer": True,
            }
            wrong = {check.name for check in await b.bus.checks() if not check.ok and check.name != "latency"}
            assert wrong == {"aof", "eviction", "pubsub-buffer"}


async def test_out_of_memory_refuses_and_appends_nothing(tenant: str) -> None:
    with RedisServer() as server:
        async with node(server.url) as a:
            first = await a.bus.append(draft(tenant, id="one"))
            server.command("CONFIG", "SET", "maxmemory", "1")
            with pytest.raises(BusUnavailable):
                await a.bus.append(draft(tenant, id="two"))
            server.command("CONFIG", "SET", "maxmemory", "0")
            again = await a.bus.append(draft(tenant, id="two"))
            assert (again.offset, again.duplicate) == (first.offset + 1, False)


async def test_a_probe_says_when_redis_takes_no_writes(tenant: str, caplog: pytest.LogCaptureFixture) -> None:
    """`/readyz` said ready while every publication was refused, and each refusal was a line in the log."""
    with RedisServer() as server:
        async with node(server.url) as a:
            assert (await a.bus.probe()).ok
            server.command("CONFIG", "SET", "maxmemory", "1")
            for _ in range(20):
                with pytest.raises(BusUnavailable):
                    await a.bus.append(draft(tenant))
            assert await a.health(ok=False) == "append"
            server.command("CONFIG", "SET", "maxmemory", "0")
            assert await a.health(ok=True) == ""
    assert sum("refused append: OOM" in record.getMessage() for record in caplog.records) == 1
