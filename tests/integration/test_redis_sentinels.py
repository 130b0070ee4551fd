"""Who a node takes for the master: two servers, and sentinels that say what the test wants."""

from __future__ import annotations

import asyncio
import secrets
import ssl
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AsyncExitStack
from pathlib import Path

import pytest

from dualcast.bus.redis.listening import Listening
from dualcast.model.errors import BusUnavailable
from dualcast.state.redis import RedisState
from support.bus_engines import WAIT_S, draft, watch
from support.certificate import self_signed
from support.fake_sentinel import FakeSentinel
from support.ports import free_port
from support.redis_nodes import insist, node, settings
from support.redis_server import RedisServer

pytestmark = pytest.mark.anyio


@pytest.fixture
def tenant() -> str:
    return "t-" + secrets.token_hex(5)


@pytest.fixture(scope="module")
def pair() -> Iterator[tuple[RedisServer, RedisServer]]:
    at_once = ("--repl-diskless-sync-delay", "0")
    with RedisServer(tcp=True, options=at_once) as one, RedisServer(tcp=True, options=at_once) as other:
        yield one, other


@pytest.fixture
def servers(pair: tuple[RedisServer, RedisServer]) -> tuple[RedisServer, RedisServer]:
    """Both are masters."""
    for server in pair:
        server.command("REPLICAOF", "NO", "ONE")
    return pair


@pytest.fixture
async def sentinels(servers: tuple[RedisServer, RedisServer]) -> AsyncIterator[list[FakeSentinel]]:
    """Three that name the first server."""
    async with AsyncExitStack() as stack:
        yield [await stack.enter_async_context(FakeSentinel(servers[0].port, 1)) for _ in range(3)]


def places(sentinels: list[FakeSentinel]) -> tuple[str, ...]:
    return tuple(sentinel.place for sentinel in sentinels)


async def becomes(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(WAIT_S):
        while not condition():
            await asyncio.sleep(0.01)


async def test_every_connection_leaves_a_master_that_was_replaced_but_goes_on(
    servers: tuple[RedisServer, RedisServer], sentinels: list[FakeSentinel], tenant: str
) -> None:
    """A master that was replaced stays one until the sentinels demote it, some ten seconds later."""
    old, new = servers
    async with node(sentinels=places(sentinels)) as a:
        await watch(a.bus, a.recorder, tenant, "all")
        await a.bus.append(draft(tenant, id="before"))
        state = RedisState(a.bus.pool.client)
        await state.put("space", tenant, b"at the old")
        heard: list[bytes] = []
        listening = Listening(settings(), channels=["older"], dialer=a.bus.dialer)
        ear = asyncio.create_task(listening.run(lambda _, data: heard.append(data), lambda _: None))
        await becomes(lambda: listening.up)
        names = {row["name"] for row in old.clients()}
        assert names == {
            "dualcast-append",
            "dualcast-read",
            "dualcast-tap",
            "dualcast-older",
            "dualcast-pool",
        }
        for sentinel in sentinels:
            sentinel.name(new.port, 2)
        await becomes(lambda: listening.resubscribes == 2 and listening.up)
        await a.recorder.until(lambda: a.statuses == [False, True])
        receipt = await insist(a, tenant, "all", ident="after")
        assert await state.get("space", tenant) is None, "the pool went on at the old master"
        assert {row["name"] for row in old.clients()} == set()
        assert {row["name"] for row in new.clients()} == names
        assert (await a.bus.read(tenant, ["all"], 0, 10)).entries[-1].offset == receipt.offset
        await a.fed(tenant, ["before", "after"])
        assert a.recorder.named("epoch", tenant), "the new master knows nothing of what the old one took"
        new.command("PUBLISH", "older", "hello")
        await becomes(lambda: heard == [b"hello"])
        ear.cancel()
        await asyncio.gather(ear, return_exceptions=True)


async def test_a_server_that_is_no_master_is_not_used(
    servers: tuple[RedisServer, RedisServer], sentinels: list[FakeSentinel], tenant: str
) -> None:
    master, replica = servers
    replica.command("REPLICAOF", "127.0.0.1", master.port)
    for sentinel in sentinels:
        sentinel.name(replica.port, 2)
    async with node(sentinels=places(sentinels)) as a:
        assert a.statuses == [False]
        with pytest.raises(BusUnavailable):
            await a.bus.append(draft(tenant))
        with pytest.raises(BusUnavailable):
            await RedisState(a.bus.pool.client).get("space", tenant)
        assert replica.clients() == []
        replica.command("REPLICAOF", "NO", "ONE")
        await a.status(True)
        assert (await insist(a, tenant, "all", ident="first")).offset == 1


async def test_a_master_demoted_under_open_connections_is_left(
    servers: tuple[RedisServer, RedisServer], sentinels: list[FakeSentinel], tenant: str
) -> None:
    """REPLICAOF by hand: no connection is cut, and the epoch of the sentinels does not rise."""
    old, new = servers
    new.command("REPLICAOF", "127.0.0.1", old.port)
    await becomes(lambda: new.info("replication").get("master_link_status") == "up")
    async with node(sentinels=places(sentinels)) as a:
        state = RedisState(a.bus.pool.client)
        await a.bus.append(draft(tenant, id="before"))
        await state.put("space", tenant, b"before")
        await becomes(
            lambda: (
                new.info("replication")["slave_repl_offset"] == old.info("replication")["master_repl_offset"]
            )
        )
        new.command("REPLICAOF", "NO", "ONE")
        old.command("REPLICAOF", "127.0.0.1", new.port)
        for sentinel in sentinels:
            sentinel.name(new.port, 1)
        receipt = await insist(a, tenant, "all", ident="after")
        assert receipt.offset > 1 << 20, "another run of the server: its offsets jump"
        assert [row["name"] for row in new.clients("dualcast-append")] == ["dualcast-append"]
        with pytest.raises(BusUnavailable):
            await state.put("space", tenant, b"refused")
        await state.put("space", tenant, b"after")
        assert new.clients("dualcast-pool") and not old.clients("dualcast-pool")


@pytest.mark.parametrize(
    ("said", "expected"),
    [
        pytest.param([(0, 1), (1, 2), (1, 2)], 1, id="one that was cut off names the old one"),
        pytest.param([(0, 1), (None, 0), (1, 2)], 1, id="one knows nothing"),
        pytest.param([(None, 0), (None, 0), (1, 2)], 1, id="two know nothing"),
    ],
)
async def test_the_newest_of_what_most_sentinels_say_counts(
    servers: tuple[RedisServer, RedisServer],
    sentinels: list[FakeSentinel],
    tenant: str,
    said: list[tuple[int | None, int]],
    expected: int,
) -> None:
    for sentinel, (number, epoch) in zip(sentinels, said, strict=True):
        sentinel.name(0 if number is None else servers[number].port, epoch)
        sentinel.slow_s = 0.02 * epoch  # who answers first is not right for that
    async with node(sentinels=places(sentinels), connect_s=5.0) as a:
        await a.bus.append(draft(tenant))
        assert servers[expected].clients("dualcast-append")


async def test_sentinels_and_master_over_tls(tenant: str, tmp_path: Path) -> None:
    certificate, key = self_signed(tmp_path)
    tls = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    tls.load_cert_chain(certificate, key)
    port = free_port()
    options = ("--tls-port", str(port), "--tls-cert-file", certificate, "--tls-key-file", key)
    with RedisServer(options=(*options, "--tls-auth-clients", "no")) as server:
        async with FakeSentinel(port, 1, tls=tls) as sentinel:
            trusting = f"rediss://nobody?ssl_ca_certs={certificate}"
            async with node(trusting, sentinels=(sentinel.place,)) as a:
                await a.bus.append(draft(tenant))
                await RedisState(a.bus.pool.client).put("space", tenant, b"x")
                names = {row["name"] for row in server.clients()}
                assert names == {"dualcast-append", "dualcast-tap", "dualcast-pool"}
            async with node("rediss://nobody", sentinels=(sentinel.place,)) as a:
                assert a.statuses == [False], "a certificate nobody signed"


async def test_sentinels_are_asked_over_one_connection_each_and_not_without_end(
    sentinels: list[FakeSentinel], tenant: str
) -> None:
    sentinels[2].slow_s = 0.02
    async with node(sentinels=places(sentinels), connect_s=5.0) as a:
        first = sentinels[0].asked
        await asyncio.gather(*(a.bus.append(draft(f"{tenant}-{n}")) for n in range(50)))
        await becomes(lambda: sentinels[0].asked >= first + 2)
        assert [sentinel.open for sentinel in sentinels] == [1, 1, 1]
        assert [sentinel.connected for sentinel in sentinels] == [1, 1, 1]
    await becomes(lambda: not any(sentinel.open for sentinel in sentinels))


async def test_a_living_master_is_kept_while_no_sentinel_answers(
    sentinels: list[FakeSentinel], tenant: str
) -> None:
    async with node(sentinels=places(sentinels)) as a:
        await a.bus.append(draft(tenant))
        for sentinel in sentinels:
            sentinel.name(0, 0)
        asked = sentinels[0].asked
        await becomes(lambda: sentinels[0].asked >= asked + 2)
        await a.bus.append(draft(tenant))
        assert a.statuses == []
