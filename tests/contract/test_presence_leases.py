"""Leases in Redis: nodes that die, pause, come back, and a Redis that forgets."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest

from dualcast.model.errors import BusUnavailable
from dualcast.presence.port import PresenceStore, Reaped
from support import redis_server
from support.presence import Announced, FakeNode, batch, join, store, until
from support.redis_server import RedisServer

pytestmark = pytest.mark.anyio
LOBBY = "presence:lobby"
LEASE_S = 0.6
"""Of tests that wait for its end."""


@pytest.fixture
async def presence() -> AsyncIterator[PresenceStore]:
    async with store("redis", prefix="p" + secrets.token_hex(5)) as made:
        yield made


@pytest.fixture
def told() -> Announced:
    """The bus all nodes of a test announce on."""
    return Announced()


@pytest.fixture
def own_server(request: pytest.FixtureRequest) -> Iterator[RedisServer]:
    with RedisServer(aof=getattr(request, "param", "")) as server:
        yield server


@pytest.fixture
def tenant() -> str:
    return "t-" + secrets.token_hex(5)


async def users(presence: PresenceStore, tenant: str, group: str = LOBBY) -> list[str]:
    return [member.user for member in (await presence.members(tenant, group, "", 1000)).members]


def deaf(presence: PresenceStore) -> None:
    """Queries do not take dead nodes off: what they show is what there is."""

    async def nobody(tenant: str) -> None: ...

    presence.on_expired = nobody


async def test_a_dead_nodes_users_leave_within_the_lease(
    presence: PresenceStore, tenant: str, told: Announced
) -> None:
    dead = FakeNode(presence, "dead", tenant, lease_s=LEASE_S, announced=told)
    alive = FakeNode(presence, "alive", tenant, lease_s=LEASE_S, announced=told)
    deaf(presence)
    dead.open("alice", LOBBY, device="web")
    dead.open("bob", LOBBY)
    await dead.flush()  # and never again
    assert told.take() == [(["alice", "bob"], [], 2)]
    alive.open("bob", LOBBY)
    began = asyncio.get_running_loop().time()
    async with alive.running():
        await until(lambda: any(data["left"] for _, data in told.events.values()))
        took = asyncio.get_running_loop().time() - began
    assert told.take() == [([], ["alice"], 1)], "bob is here as well"
    assert took > LEASE_S / 2, "not before its lease was over"
    assert await users(presence, tenant) == ["bob"]
    assert (await presence.online(tenant, "alice")).devices == ()
    assert [one.node for one in await presence.connections(tenant, None, "", 10)] == ["alive"]
    assert alive.tracker._reaper.reaped == 1


async def test_a_query_never_shows_a_node_whose_lease_is_over(
    presence: PresenceStore, tenant: str, told: Announced
) -> None:
    dead = FakeNode(presence, "dead", tenant, announced=told)
    dead.open("alice", LOBBY)
    await dead.flush()
    await presence.renew(tenant, "dead", hold_ms=-1)
    FakeNode(presence, "asking", tenant, announced=told)
    assert told.take() == [(["alice"], [], 1)]
    assert await users(presence, tenant) == []
    assert told.take() == [([], ["alice"], 0)], "who found it says it"
    assert (await presence.online(tenant, "alice")).connections == 0
    assert await presence.connections(tenant, None, "", 10) == []


async def test_a_dead_node_is_taken_off_in_chunks(presence: PresenceStore, tenant: str) -> None:
    dead = FakeNode(presence, "dead", tenant)
    for n in range(35):
        dead.open(f"u{n:02}", LOBBY)
    await dead.flush()
    await presence.renew(tenant, "dead", hold_ms=-1)
    left: set[str] = set()
    sizes = []
    for n in range(10):
        done = await presence.reap(tenant, "reaper", f"token{n}", "dead", 10)
        again = await presence.reap(tenant, "reaper", f"token{n}", "dead", 10)
        assert again == done, "a repeated call gives the first answer"
        found = {user for delta in done.deltas if delta.group == LOBBY for user in delta.left}
        assert not left & found
        left |= found
        sizes.append(len(found))
        if not done.more:
            break
    assert (sizes, len(left)) == ([10, 10, 10, 5], 35)
    assert await presence.expired(tenant) == ()
    assert await presence.reap(tenant, "reaper", "more", "dead", 10) == Reaped()
    assert await users(presence, tenant) == []


async def test_two_reapers_at_once_take_each_connection_off_once(
    presence: PresenceStore, tenant: str, told: Announced
) -> None:
    dead = FakeNode(presence, "dead", tenant, batch=7, announced=told)
    nodes = [FakeNode(presence, f"r{n}", tenant, batch=7, announced=told) for n in range(3)]
    for n in range(50):
        dead.open(f"u{n:02}", LOBBY)
    await dead.flush()
    told.take()
    await presence.renew(tenant, "dead", hold_ms=-1)
    await asyncio.gather(*(node.tracker._reaper.reap(tenant) for node in nodes))
    gone = [user for _, left, _ in told.take() for user in left]
    assert sorted(gone) == [f"u{n:02}" for n in range(50)]
    assert await users(presence, tenant) == []


async def test_a_paused_node_registers_everything_again(
    presence: PresenceStore, tenant: str, told: Announced
) -> None:
    paused = FakeNode(presence, "paused", tenant, batch=4, announced=told)
    sessions = [paused.open(f"u{n}", LOBBY) for n in range(10)]
    await paused.flush()
    told.take()
    await presence.renew(tenant, "paused", hold_ms=-1)
    reaper = FakeNode(presence, "reaper", tenant, batch=4, announced=told)
    await presence.reap(tenant, "reaper", "t1", "paused", 4)  # a part of it, when it comes back
    paused.close(sessions[0])
    paused.open("new", LOBBY)
    await paused.flush()
    assert paused.tracker.lost == 1
    assert await users(presence, tenant) == ["new", *(f"u{n}" for n in range(1, 10))]
    assert (await presence.reap(tenant, "reaper", "t2", "paused", 4)).deltas == ()
    await reaper.flush()
    # What the reaper had not taken off was never away.
    joined = {user for found, _, _ in told.take() for user in found}
    assert "new" in joined and len(joined) <= 5
    sessions[1].closed = True
    paused.tracker.changed(sessions[1])
    await paused.flush()
    assert "u1" not in await users(presence, tenant)


async def test_a_renewal_finds_the_lease_lost(presence: PresenceStore, tenant: str) -> None:
    node = FakeNode(presence, "node", tenant, lease_s=LEASE_S)
    node.open("alice", LOBBY)
    async with node.running():
        await until(lambda: node.announced.events)
        redis_server.shared().command("FLUSHALL")
        await until(lambda: node.tracker.lost == 1)

        async def back() -> bool:
            return await users(presence, tenant) == ["alice"]

        await until(back)


async def test_a_node_that_missed_its_lease_but_was_not_reaped_goes_on(
    presence: PresenceStore, tenant: str
) -> None:
    node = FakeNode(presence, "node", tenant)
    node.open("alice", LOBBY)
    await node.flush()
    await presence.renew(tenant, "node", hold_ms=-1)
    deaf(presence)
    node.open("bob", LOBBY)
    await node.flush()
    assert node.tracker.lost == 0
    assert await presence.expired(tenant) == ()
    assert await users(presence, tenant) == ["alice", "bob"]


async def test_what_a_dead_node_did_not_announce_its_reaper_does(
    presence: PresenceStore, tenant: str
) -> None:
    dead = FakeNode(presence, "dead", tenant)
    dead.announced.away = True
    dead.open("alice", LOBBY)
    stayed = FakeNode(presence, "other", tenant)
    stayed.open("alice")
    await stayed.flush()
    await dead.flush()
    assert dead.announced.take() == []
    await presence.renew(tenant, "dead", hold_ms=-1)
    await users(presence, tenant)
    assert stayed.announced.take() == [(["alice"], [], 1), ([], ["alice"], 0)]


async def test_a_tenant_nobody_serves_any_more_is_looked_after(
    presence: PresenceStore, tenant: str, told: Announced
) -> None:
    dead = FakeNode(presence, "dead", tenant, lease_s=LEASE_S, announced=told)
    deaf(presence)
    dead.open("alice", LOBBY)
    async with dead.running():
        await until(told.take)
        before = dead.tracker._overdue_at
        await until(lambda: dead.tracker._overdue_at > before + LEASE_S / 10, "it said whom it serves")
        await dead.flush()
    other = FakeNode(presence, "other", "t-elsewhere", lease_s=LEASE_S, announced=told)
    deaf(presence)
    async with other.running():

        async def gone() -> bool:
            return await users(presence, tenant) == []

        await until(gone)
        await until(lambda: told.events)
    assert told.take() == [([], ["alice"], 0)]


@pytest.mark.parametrize("own_server", ["", "always"], indirect=True, ids=["nothing kept", "aof"])
async def test_redis_restarts(own_server: RedisServer, tenant: str) -> None:
    async with store("redis", url=own_server.url) as presence:
        node = FakeNode(presence, "node", tenant, lease_s=LEASE_S)
        staying = node.open("alice", LOBBY)
        going = node.open("bob", LOBBY)
        async with node.running():
            await until(lambda: node.announced.events)
            before = (await presence.members(tenant, LOBBY, "", 1)).revision
            own_server.kill()
            node.close(going)
            node.open("carl", LOBBY)
            await until(lambda: node.tracker.failures > 1)
            own_server.start()

            async def settled() -> bool:
                try:
                    return await users(presence, tenant) == ["alice", "carl"]
                except BusUnavailable:
                    return False

            await until(settled)
            assert node.tracker.lost >= 1
            assert (await presence.members(tenant, LOBBY, "", 1)).revision > before
            assert await presence.connection(tenant, staying.id) is not None
            assert await presence.connection(tenant, going.id) is None


async def test_an_outage_longer_than_the_lease_takes_nobody_off(
    presence: PresenceStore, tenant: str, told: Announced
) -> None:
    one = FakeNode(presence, "one", tenant, announced=told)
    await presence.change(tenant, "two", batch(join("two-1", "bob", LOBBY)), hold_ms=-1, claim=True)
    one.tracker._reaper._begins_at = 1e9  # queries of this test do not reap
    one.open("alice", LOBBY)
    await one.flush()
    one.tracker._reaper._begins_at = 0.0
    # Redis does not answer for longer than all leases last; `one` is the first to be answered again.
    one.ahead_s += 60
    await one.tracker._renew(one.tracker._ledgers[tenant])
    assert one.tracker._reaper.reaped == 0
    assert await users(presence, tenant) == ["alice", "bob"], "nor does a query"
    # `two` never comes back: its time is over a little later.
    for _ in range(2):
        assert one.tracker._reaper.reaped == 0
        one.ahead_s += 6
        await one.tracker._renew(one.tracker._ledgers[tenant])
    await one.flush()
    assert one.tracker._reaper.reaped == 1
    assert await users(presence, tenant) == ["alice"]


async def test_the_last_seconds_of_redis_are_lost(own_server: RedisServer, tenant: str) -> None:
    """What was restored lacks connections that are here and has some that are gone: both are put right."""
    async with store("redis", url=own_server.url) as presence:
        node = FakeNode(presence, "node", tenant)
        node.open("alice", LOBBY)
        await node.flush()
        # As if an older state had been restored: another server run, a connection that is gone, one missing.
        await presence.change(
            tenant,
            "node",
            batch(join("node-old", "ghost", LOBBY), leaves=(next(iter(node.tracker._ledgers[tenant].held)),)),
            hold_ms=60_000,
        )
        own_server.command("HSET", f"dc:{{{tenant}}}:w:d:node", "run", "another")
        node.open("bob", LOBBY)
        await node.flush()
        assert node.tracker.lost == 1
        assert await users(presence, tenant) == ["alice", "bob"]


async def test_counting_a_hundred_thousand_members_costs_as_much_as_counting_none(
    own_server: RedisServer, tenant: str
) -> None:
    fill = (
        "for i = 1, tonumber(ARGV[1]) do redis.call('HSET', KEYS[1], 'user:u' .. i, 1)"
        " redis.call('ZADD', KEYS[2], 0, 'user:u' .. i) end"
    )
    async with store("redis", url=own_server.url) as presence:
        FakeNode(presence, "node", tenant)

        async def cost(ask: Any) -> tuple[Any, dict[str, int]]:
            own_server.command("CONFIG", "RESETSTAT")
            found = await ask
            stats = own_server.command("INFO", "commandstats")
            assert isinstance(stats, bytes)
            rows = [line.split(":") for line in stats.decode().split() if line.startswith("cmdstat_")]
            calls = {
                name.removeprefix("cmdstat_"): int(rest.split("=")[1].split(",")[0]) for name, rest in rows
            }
            return found, {name: number for name, number in calls.items() if name in COUNTING}

        empty, cheap = await cost(presence.members(tenant, LOBBY, "", 0))
        key = f"dc:{{{tenant}}}:w:"
        own_server.command("EVAL", fill, 2, f"{key}g:{LOBBY}", f"{key}s:{LOBBY}", 100_000)
        full, same = await cost(presence.members(tenant, LOBBY, "", 0))
        assert (empty.count, full.count) == (0, 100_000)
        assert cheap == same and sum(same.values()) <= 5
        page, _ = await cost(presence.members(tenant, LOBBY, "u5", 200))
        assert len(page.members) == 200 and page.count == 100_000
        (changed,) = (
            delta
            for delta in (
                await presence.change(
                    tenant, "node", batch(join("node-1", "new", LOBBY)), hold_ms=60_000, claim=True
                )
            ).deltas
            if delta.group == LOBBY
        )
        assert changed.count == 100_001


COUNTING = {"hlen", "zrangebylex", "zrangebyscore", "get", "hmget", "hgetall", "hkeys", "zcard", "hscan"}
