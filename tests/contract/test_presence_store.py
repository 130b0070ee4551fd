"""Every engine of presence: users join and leave groups as their connections come and go."""

from __future__ import annotations

import secrets
from collections.abc import AsyncIterator

import pytest

from dualcast.presence.port import Delta, Join, Member, PresenceStore
from support.presence import ENGINES, HOLD_MS, batch, facts, join, store

pytestmark = pytest.mark.anyio
LOBBY = "presence:lobby"


@pytest.fixture(params=ENGINES)
async def presence(request: pytest.FixtureRequest) -> AsyncIterator[PresenceStore]:
    async with store(request.param) as made:
        yield made


@pytest.fixture
def tenant() -> str:
    return "t-" + secrets.token_hex(5)


async def tell(
    presence: PresenceStore, tenant: str, *joins: Join, leaves: tuple[str, ...] = (), node: str = "n1"
) -> dict[str, Delta]:
    """One batch; deltas by group."""
    done = await presence.change(tenant, node, batch(*joins, leaves=leaves), hold_ms=HOLD_MS, claim=True)
    assert not done.lost
    return {delta.group: delta for delta in done.deltas}


async def test_a_user_joins_with_the_first_connection_and_leaves_with_the_last(
    presence: PresenceStore, tenant: str
) -> None:
    first = await tell(presence, tenant, join("n1-1", "alice", LOBBY, device="mobile"))
    assert {group: (d.count, d.joined, d.left) for group, d in first.items()} == {
        "": (1, ("alice",), ()),
        LOBBY: (1, ("alice",), ()),
    }
    assert await tell(presence, tenant, join("n1-2", "alice", LOBBY, device="web")) == {}
    page = await presence.members(tenant, LOBBY, "", 10)
    assert page.members == (Member("alice", ("mobile", "web")),) and page.count == 1
    assert page.revision == first[LOBBY].revision
    assert await tell(presence, tenant, leaves=("n1-1",)) == {}
    assert (await presence.online(tenant, "alice")).connections == 1
    assert (await presence.online(tenant, "alice")).devices == ("web",)
    last = await tell(presence, tenant, leaves=("n1-2",))
    assert (last[LOBBY].count, last[LOBBY].left) == (0, ("alice",))
    assert last[LOBBY].revision > first[LOBBY].revision
    assert (await presence.online(tenant, "alice")).connections == 0
    gone = await presence.members(tenant, LOBBY, "", 10)
    assert (gone.members, gone.count, gone.revision) == ((), 0, last[LOBBY].revision)


async def test_groups_change_with_subscriptions(presence: PresenceStore, tenant: str) -> None:
    await tell(presence, tenant, join("n1-1", "alice", "presence:a", "presence:b"))
    moved = await tell(presence, tenant, join("n1-1", "alice", "presence:b", "presence:c"))
    assert {group: (d.joined, d.left) for group, d in moved.items()} == {
        "presence:a": ((), ("alice",)),
        "presence:c": (("alice",), ()),
    }
    assert (await presence.members(tenant, "", "", 10)).count == 1


async def test_coming_back_within_a_batch_is_no_change(presence: PresenceStore, tenant: str) -> None:
    await tell(presence, tenant, join("n1-1", "alice", LOBBY, device="web"))
    again = await tell(presence, tenant, join("n1-2", "alice", LOBBY, device="web"), leaves=("n1-1",))
    assert again == {}
    assert [one.id for one in await presence.connections(tenant, None, "", 10)] == ["n1-2"]


async def test_repeating_a_batch_is_harmless_and_gives_the_first_answer(
    presence: PresenceStore, tenant: str
) -> None:
    same = batch(join("n1-1", "alice", LOBBY), join("n1-2", "bob", LOBBY), token="same")
    first = await presence.change(tenant, "n1", same, hold_ms=HOLD_MS, claim=True)
    assert await presence.change(tenant, "n1", same, hold_ms=HOLD_MS, claim=True) == first
    assert first.deltas
    # The same connections told anew, under another token: nothing changes.
    assert await tell(presence, tenant, *same.joins) == {}
    assert await tell(presence, tenant, leaves=("n1-9",)) == {}
    assert (await presence.members(tenant, LOBBY, "", 10)).count == 2


async def test_pages_are_in_order_and_any_id_is_carried(presence: PresenceStore, tenant: str) -> None:
    users = ["zoë|1", "a b", "b%20", "李雷", "x@y.example", "..", "user:a", '"q"\\', "é" * 128]
    joins = [join(f"n1-{n:04x}", user, LOBBY, instance=user) for n, user in enumerate(users)]
    await tell(presence, tenant, *joins)
    found: list[str] = []
    after = ""
    while page := (await presence.members(tenant, LOBBY, after, 2)).members:
        found += [member.user for member in page]
        after = found[-1]
    assert sorted(found) == sorted(users)
    whole = await presence.members(tenant, LOBBY, "", 100)
    assert [member.user for member in whole.members] == found
    for one in joins:
        assert await presence.connections(tenant, one.facts.user, "", 10) == [one.facts]
        assert await presence.connection(tenant, one.facts.id) == one.facts


async def test_connections_are_listed_by_id(presence: PresenceStore, tenant: str) -> None:
    full = facts(
        "n1-0001",
        "alice",
        device="mobile",
        device_id="phone 1",
        instance="i",
        transport="sse",
        dialect="native",
        connected_ms=1_700_000_000_123,
        token_id="t",
    )
    await tell(presence, tenant, Join(full), *(join(f"n1-000{n}", "bob") for n in range(2, 6)))
    await tell(presence, tenant, join("n0-0001", "alice"), node="n0")
    ids = [one.id for one in await presence.connections(tenant, None, "", 3)]
    assert ids == ["n0-0001", "n1-0001", "n1-0002"]
    ids = [one.id for one in await presence.connections(tenant, None, ids[-1], 10)]
    assert ids == ["n1-0003", "n1-0004", "n1-0005"]
    assert [one.id for one in await presence.connections(tenant, "alice", "", 10)] == ["n0-0001", "n1-0001"]
    assert [one.id for one in await presence.connections(tenant, "alice", "n0-0001", 1)] == ["n1-0001"]
    assert await presence.connection(tenant, "n1-0001") == full
    for unknown in ("n1-0009", "n1-000", "", "n1-0001 user:alice", "[n1"):
        assert await presence.connection(tenant, unknown) is None


async def test_tenants_do_not_see_each_other(presence: PresenceStore, tenant: str) -> None:
    other = tenant + "-2"
    await tell(presence, tenant, join("n1-1", "alice", LOBBY, device="web", device_id="d1"))
    await tell(presence, other, join("n1-2", "bob"))
    assert (await presence.members(other, LOBBY, "", 10)).count == 0
    assert (await presence.online(other, "alice")).connections == 0
    assert await presence.connection(other, "n1-1") is None
    assert [one.id for one in await presence.connections(other, None, "", 10)] == ["n1-2"]
    assert await presence.connections(other, "alice", "", 10) == []
    assert await presence.devices(other, "alice") == []
    assert await presence.name_device(other, "alice", "d1", "stolen", "") is None
    assert await presence.forget_device(other, "alice", "d1") is False
    assert await tell(presence, other, leaves=("n1-1",)) == {}
    assert (await presence.online(tenant, "alice")).connections == 1
    assert [one.id for one in await presence.devices(tenant, "alice")] == ["d1"]


async def test_devices_are_registered_by_their_connections(presence: PresenceStore, tenant: str) -> None:
    await tell(presence, tenant, join("n1-1", "alice", device="mobile", device_id="phone"))
    await tell(presence, tenant, join("n1-2", "alice", device_id="what"))
    (one,) = [one for one in await presence.devices(tenant, "alice") if one.id == "phone"]
    assert (one.kind, one.name) == ("mobile", "") and 0 < one.first_seen_ms <= one.last_seen_ms
    named = await presence.name_device(tenant, "alice", "phone", "My phone 📱", "")
    assert named is not None and (named.name, named.kind) == ("My phone 📱", "mobile")
    assert await presence.name_device(tenant, "alice", "nope", "x", "") is None
    made = await presence.name_device(tenant, "alice", "tablet-1", "T", "tablet")
    assert made is not None and made.kind == "tablet"
    await tell(presence, tenant, leaves=("n1-1", "n1-2"))
    # A connection that does not say its kind takes nothing away.
    await tell(presence, tenant, join("n1-3", "alice", device_id="phone"))
    rows = {row.id: row for row in await presence.devices(tenant, "alice")}
    assert {ident: row.kind for ident, row in rows.items()} == {
        "phone": "mobile",
        "what": "",
        "tablet-1": "tablet",
    }
    assert rows["phone"].name == "My phone 📱" and rows["phone"].first_seen_ms == one.first_seen_ms
    assert await presence.forget_device(tenant, "alice", "what") is True
    assert await presence.forget_device(tenant, "alice", "what") is False
    assert {row.id for row in await presence.devices(tenant, "alice")} == {"phone", "tablet-1"}


async def test_a_user_has_at_most_fifty_devices(presence: PresenceStore, tenant: str) -> None:
    for n in range(53):
        await tell(presence, tenant, join(f"n1-{n:04x}", "alice", device="web", device_id=f"d{n}"))
    rows = await presence.devices(tenant, "alice")
    assert len(rows) == 50 and "d52" in {row.id for row in rows}
    assert [row.last_seen_ms for row in rows] == sorted((row.last_seen_ms for row in rows), reverse=True)


async def test_renewal_tells_the_numbers_and_idle_gives_the_lease_up(
    presence: PresenceStore, tenant: str
) -> None:
    await tell(
        presence,
        tenant,
        join("n1-1", "alice", device="web"),
        join("n1-2", "alice", device="mobile"),
        join("n1-3", "bob", device="web"),
        join("n1-4", "carl"),
    )
    renewed = await presence.renew(tenant, "n1", hold_ms=HOLD_MS)
    assert (renewed.lost, renewed.expired, renewed.users) == (False, (), 3)
    assert renewed.devices == {"mobile": 1, "desktop": 0, "tablet": 0, "web": 2}
    cursor, held = await presence.held(tenant, "n1", "0")
    assert (cursor, sorted(held)) == ("0", ["n1-1", "n1-2", "n1-3", "n1-4"])
    await tell(presence, tenant, leaves=("n1-1", "n1-2", "n1-3", "n1-4"))
    idle = await presence.renew(tenant, "n1", hold_ms=HOLD_MS, idle=True)
    assert (idle.lost, idle.users) == (False, 0)
    assert (await presence.held(tenant, "n1", "0"))[1] == []
