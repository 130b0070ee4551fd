"""Grants and the subscribe rule: sizes, versions, what the cache may answer, and that tenants stay apart."""

from __future__ import annotations

import asyncio

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dualcast.model.channel import ALL, KINDS, matches
from dualcast.model.errors import BadChannel, BusUnavailable, LimitExceeded
from dualcast.model.principal import ADMIN, Principal
from dualcast.state.follow import StateFollower
from dualcast.state.memory import MemoryState
from dualcast.state.port import Value, VersionConflict
from dualcast.tenancy.access import Access
from dualcast.tenancy.grants import MAX_MEMBERS, NO_GRANT, SPACE, Grant, Grants, make_grant
from dualcast.tenancy.model import Tenant, TenantSettings
from dualcast.tenancy.store import SharedTenants

pytestmark = pytest.mark.anyio


class Counting(MemoryState):
    """A memory store that counts reads, can hold them, and can be away."""

    def __init__(self) -> None:
        super().__init__()
        self.reads = 0
        self.away = False
        self.gate = asyncio.Event()
        self.gate.set()
        self.waiting = asyncio.Event()

    async def get(self, space: str, key: str) -> Value | None:
        self.reads += 1
        if self.away:
            raise BusUnavailable("away")
        value = await super().get(space, key)
        self.waiting.set()
        await self.gate.wait()
        return value


class Node:
    def __init__(self, store: MemoryState, **options: int) -> None:
        self.follower = StateFollower(store)
        self.tenants = SharedTenants(store, self.follower)
        self.grants = Grants(store, self.follower, **options)
        self.access = Access(self.tenants, self.grants)


@pytest.fixture
def store() -> Counting:
    return Counting()


@pytest.fixture
async def node(store: Counting) -> Node:
    made = Node(store)
    await made.follower.refresh()
    return made


async def test_owner_and_members_are_in_and_nobody_else(node: Node) -> None:
    await node.grants.set("acme", "room:1", Grant("olga", ("bob", "ann")))
    for user in ("olga", "bob", "ann"):
        assert await node.grants.allows("acme", "room:1", user)
    for tenant, channel, user in [
        ("acme", "room:1", "eve"),
        ("acme", "room:2", "bob"),
        ("globex", "room:1", "bob"),
        ("acme", "room:1", ""),
        ("acme", ALL, "bob"),
    ]:
        assert not await node.grants.allows(tenant, channel, user)


async def test_set_add_and_remove(node: Node) -> None:
    grants = node.grants
    assert (await grants.get("acme", "room:1")).version == 0
    await grants.add("acme", "room:1", ["b", "a", "b"])
    record = await grants.get("acme", "room:1")
    assert record.grant == Grant("", ("a", "b"))
    assert await grants.add("acme", "room:1", ["a"]) == record.version
    await grants.add("acme", "room:1", owner="o")
    assert (await grants.get("acme", "room:1")).grant == Grant("o", ("a", "b"))
    await grants.add("acme", "room:1", ["c"])
    assert (await grants.get("acme", "room:1")).grant == Grant("o", ("a", "b", "c"))
    await grants.remove("acme", "room:1", ["o", "b", "nobody"])
    assert (await grants.get("acme", "room:1")).grant == Grant("", ("a", "c"))
    version = (await grants.get("acme", "room:1")).version
    with pytest.raises(VersionConflict):
        await grants.set("acme", "room:1", Grant("x"), expected=version - 1)
    await grants.set("acme", "room:1", Grant("x", ("z", "y", "z")), expected=version)
    assert (await grants.get("acme", "room:1")).grant == Grant("x", ("y", "z"))


async def test_an_emptied_grant_still_has_a_version_and_vanishes_by_itself() -> None:
    now = 0.0
    store = MemoryState(clock=lambda: now)
    grants = Grants(store, StateFollower(store))
    first = await grants.set("acme", "room:1", Grant("", ("a",)))
    emptied = await grants.set("acme", "room:1", NO_GRANT)
    assert emptied > first
    with pytest.raises(VersionConflict):
        await grants.set("acme", "room:1", Grant("x"), expected=first)
    now = 3_600.0
    assert await store.list(SPACE) == []
    assert await grants.get("acme", "room:1") == await grants.get("acme", "room:2")


async def test_concurrent_additions_all_count(node: Node) -> None:
    await asyncio.gather(*(node.grants.add("acme", "room:1", [f"u{n}"]) for n in range(10)))
    assert (await node.grants.get("acme", "room:1")).grant.members == tuple(f"u{n}" for n in range(10))


async def test_sizes_are_bounded(node: Node) -> None:
    members = [f"u{n}" for n in range(MAX_MEMBERS)]
    await node.grants.set("acme", "room:1", make_grant("", members))
    with pytest.raises(LimitExceeded):
        await node.grants.add("acme", "room:1", ["one-more"])
    with pytest.raises(LimitExceeded):
        make_grant("", ["é" * 120 + str(n) for n in range(500)])
    for bad in ("", "a\nb", "x" * 257):
        with pytest.raises(BadChannel):
            make_grant("", [bad])
    with pytest.raises(BadChannel):
        make_grant("a\nb")
    assert len((await node.grants.get("acme", "room:1")).grant.members) == MAX_MEMBERS


async def test_names_are_checked(node: Node) -> None:
    for tenant, channel in [("acme", ALL), ("acme", "nope:1"), ("Acme", "room:1"), ("", "room:1")]:
        with pytest.raises(BadChannel):
            await node.grants.add(tenant, channel, ["a"])


async def test_who_is_known_to_be_in_costs_no_read(node: Node, store: Counting) -> None:
    await node.grants.set("acme", "room:1", Grant("o", ("a",)))
    assert not node.grants.known("acme", "room:1", "a")
    assert await node.grants.allows("acme", "room:1", "a")
    store.reads = 0
    assert node.grants.known("acme", "room:1", "a") and node.grants.known("acme", "room:1", "o")
    assert await node.grants.allows("acme", "room:1", "o")
    assert store.reads == 0
    store.away = True
    assert await node.grants.allows("acme", "room:1", "a")
    with pytest.raises(BusUnavailable):
        await node.grants.allows("acme", "room:1", "b")


async def test_a_grant_opens_on_every_node_at_once_and_closes_after_a_poll(
    node: Node, store: Counting
) -> None:
    other = Node(store)
    await other.follower.refresh()
    assert not await other.grants.allows("acme", "room:1", "a")
    await node.grants.add("acme", "room:1", ["b"])
    assert await other.grants.allows("acme", "room:1", "b")
    await node.grants.add("acme", "room:1", ["a"])
    assert await other.grants.allows("acme", "room:1", "a")
    await node.grants.remove("acme", "room:1", ["a"])
    assert not await node.grants.allows("acme", "room:1", "a")
    await other.follower.refresh()
    assert not await other.grants.allows("acme", "room:1", "a")
    assert await other.grants.allows("acme", "room:1", "b")


async def test_own_changes_count_at_once(node: Node) -> None:
    await node.grants.add("acme", "room:1", ["a", "b"])
    assert await node.grants.allows("acme", "room:1", "a")
    await node.grants.remove("acme", "room:1", ["a"])
    assert not await node.grants.allows("acme", "room:1", "a")
    assert await node.grants.allows("acme", "room:1", "b")


async def test_a_room_of_members_shares_one_read(node: Node, store: Counting) -> None:
    members = [f"u{n}" for n in range(50)]
    await node.grants.set("acme", "room:1", make_grant("", members))
    store.reads = 0
    store.gate.clear()
    tasks = [asyncio.ensure_future(node.grants.allows("acme", "room:1", user)) for user in members]
    for _ in range(3):
        await asyncio.sleep(0)
    store.gate.set()
    assert all(await asyncio.gather(*tasks))
    assert store.reads == 1


async def test_a_withdrawal_during_a_read_is_not_cached_over(node: Node, store: Counting) -> None:
    await node.grants.add("acme", "room:1", ["a", "b"])
    await node.follower.refresh()
    store.waiting.clear()
    store.gate.clear()
    slow = asyncio.ensure_future(node.grants.allows("acme", "room:1", "a"))
    await store.waiting.wait()
    await store.put(SPACE, "acme/room:1", b'{"members":["b"]}')  # another node's doing
    await node.follower.refresh()
    store.gate.set()
    await slow
    assert not await node.grants.allows("acme", "room:1", "a")
    assert await node.grants.allows("acme", "room:1", "b")


async def test_a_cancelled_reader_leaves_the_others_alone(node: Node, store: Counting) -> None:
    await node.grants.add("acme", "room:1", ["a", "b"])
    store.waiting.clear()
    store.gate.clear()
    first = asyncio.ensure_future(node.grants.allows("acme", "room:1", "a"))
    await store.waiting.wait()
    second = asyncio.ensure_future(node.grants.allows("acme", "room:1", "b"))
    third = asyncio.ensure_future(node.grants.allows("acme", "room:1", "a"))
    await asyncio.sleep(0)
    first.cancel()
    third.cancel()
    store.gate.set()
    assert await second
    assert first.cancelled() or first.cancelling()


async def test_the_cache_is_bounded_by_names(store: Counting) -> None:
    node = Node(store, max_cached_names=30)
    await node.follower.refresh()
    for n in range(20):
        await node.grants.add("acme", f"room:{n}", [f"u{m}" for m in range(4)])
        assert await node.grants.allows("acme", f"room:{n}", "u0")
    held = [n for n in range(20) if node.grants.known("acme", f"room:{n}", "u0")]
    assert held == list(range(14, 20))
    assert node.grants._names == 30
    await node.grants.add("acme", "room:huge", [f"u{m}" for m in range(100)])
    assert await node.grants.allows("acme", "room:huge", "u99")
    assert node.grants._names <= 30
    await node.grants.set("acme", "room:19", NO_GRANT)
    await node.follower.refresh()
    assert node.grants._names == sum(len(names) + 1 for names in node.grants._cache.values())


async def test_the_subscribe_rule(node: Node) -> None:
    await node.tenants.put(
        Tenant(id="acme", settings=TenantSettings(public_channels=("topic:*", "room:lobby")))
    )
    await node.grants.add("acme", "task:7", ["ann"], owner="bob")
    ann = Principal("acme", "ann", channels=("conversation:c*",))
    for channel, expected in {
        "all": True,
        "user:ann": True,
        "user:bob": False,
        "conversation:c1": True,
        "conversation:d1": False,
        "topic:news": True,
        "room:lobby": True,
        "room:other": False,
        "task:7": True,
        "task:8": False,
        "presence:x": False,
    }.items():
        assert await node.access.may_subscribe(ann, channel) is expected, channel
    assert await node.access.may_subscribe(Principal("acme", "bob"), "task:7")
    assert not await node.access.may_subscribe(Principal("acme", "eve"), "task:7")
    assert await node.access.may_subscribe(Principal("acme", "eve", frozenset({ADMIN})), "task:8")
    assert node.access.known(ann, "task:7") and node.access.known(ann, "topic:news")
    assert not node.access.known(ann, "task:8")


async def test_nobody_of_an_unknown_tenant_may_anything(node: Node) -> None:
    await node.grants.add("ghost", "room:1", ["ann"])
    for roles in (frozenset[str](), frozenset({ADMIN})):
        for channel in ("all", "user:ann", "room:1"):
            assert not await node.access.may_subscribe(Principal("ghost", "ann", roles), channel)


TENANTS = ("acme", "acme-2", "globex")
# Ids made to collide if keys were joined carelessly.
ids = st.text(alphabet="ab/:-*? %{}房", min_size=1, max_size=6) | st.sampled_from(
    ["acme", "acme/room:a", "globex/task:b"]
)
channels = st.builds("{}:{}".format, st.sampled_from(sorted(KINDS)), ids)
tenants = st.sampled_from(TENANTS)
grants_made = st.lists(st.tuples(tenants, channels, ids, st.booleans()), max_size=8)
public = st.dictionaries(tenants, st.sampled_from(["topic:*", "room:a*", "task:?"]), max_size=3)


@settings(max_examples=150, deadline=None)
@given(made=grants_made, open_to_all=public, probes=st.lists(st.tuples(tenants, channels, ids), max_size=20))
def test_tenants_never_see_each_other(
    made: list[tuple[str, str, str, bool]],
    open_to_all: dict[str, str],
    probes: list[tuple[str, str, str]],
) -> None:
    async def scenario() -> None:
        store = MemoryState()
        node = Node(store)
        await node.follower.refresh()
        for tenant in TENANTS:
            patterns = (open_to_all[tenant],) if tenant in open_to_all else ()
            await node.tenants.put(Tenant(id=tenant, settings=TenantSettings(public_channels=patterns)))
        for tenant, channel, user, as_owner in made:
            await node.grants.add(tenant, channel, [] if as_owner else [user], owner=user if as_owner else "")
        granted: set[tuple[str, str, str]] = set()
        owners: dict[tuple[str, str], str] = {}
        for tenant, channel, user, as_owner in made:
            if as_owner:
                owners[tenant, channel] = user
            else:
                granted.add((tenant, channel, user))
        granted |= {(*place, user) for place, user in owners.items()}
        everything = probes + [(tenant, channel, user) for _, channel, user, _ in made for tenant in TENANTS]
        for tenant, channel, user in everything * 2:  # the second time from the cache
            expected = (
                channel == f"user:{user}"
                or (tenant in open_to_all and matches(open_to_all[tenant], channel))
                or (tenant, channel, user) in granted
            )
            assert await node.access.may_subscribe(Principal(tenant, user), channel) is expected

    asyncio.run(scenario())
