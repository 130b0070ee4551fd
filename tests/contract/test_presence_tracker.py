"""The node's side on every engine: sessions come and go, batches are told, members hear of it."""

from __future__ import annotations

import asyncio
import json
import secrets
from collections.abc import AsyncIterator
from typing import Any

import pytest

from dualcast.model.errors import BusUnavailable
from dualcast.presence.port import Batch, Changed, PresenceStore
from dualcast.presence.service import PresenceService
from support.presence import ENGINES, FakeNode, store, until

pytestmark = pytest.mark.anyio
LOBBY = "presence:lobby"


@pytest.fixture(params=ENGINES)
async def presence(request: pytest.FixtureRequest) -> AsyncIterator[PresenceStore]:
    async with store(request.param) as made:
        yield made


@pytest.fixture
async def node(presence: PresenceStore) -> FakeNode:
    return FakeNode(presence, "n1", "t-" + secrets.token_hex(5))


class Counting:
    """Counts the calls of `change`, and lets them fail before or after they were done."""

    def __init__(self, store: PresenceStore) -> None:
        self._store = store
        self.batches: list[Batch] = []
        self.fail_before = self.fail_after = 0
        self._change = store.change
        store.change = self.change  # type: ignore[method-assign]

    async def change(self, tenant: str, node: str, batch: Batch, **how: Any) -> Changed:
        self.batches.append(batch)
        if self.fail_before:
            self.fail_before -= 1
            raise BusUnavailable("away")
        done = await self._change(tenant, node, batch, **how)
        if self.fail_after:
            self.fail_after -= 1
            raise BusUnavailable("the answer was lost")
        return done


async def test_joins_and_leaves_are_announced_once_per_user(node: FakeNode) -> None:
    phone = node.open("alice", LOBBY, device="mobile")
    bob = node.open("bob", LOBBY)
    node.open("carl")
    await node.flush()
    assert node.announced.take() == [(["alice", "bob"], [], 2)]
    laptop = node.open("alice", LOBBY, device="web")
    await node.flush()
    node.close(phone)
    await node.flush()
    assert node.announced.take() == [], "another device of a member announces nothing"
    node.close(laptop, bob)
    await node.flush()
    assert node.announced.take() == [([], ["alice", "bob"], 0)]


async def test_what_comes_and_goes_within_a_flush_is_never_told(node: FakeNode) -> None:
    calls = Counting(node.store)
    brief = node.open("alice", LOBBY)
    node.close(brief)
    await node.flush()
    assert calls.batches == []
    first = node.open("bob", LOBBY)
    await node.flush()
    node.announced.take()
    node.close(first)
    node.open("bob", LOBBY)
    await node.flush()
    assert len(calls.batches) == 2 and node.announced.take() == []


async def test_a_reconnect_spread_over_chunks_announces_nothing(presence: PresenceStore) -> None:
    node = FakeNode(presence, "n1", "t-" + secrets.token_hex(5), batch=3)
    calls = Counting(presence)
    before = [node.open(f"u{n}", LOBBY) for n in range(10)]
    await node.flush()
    assert [len(one.joins) for one in calls.batches] == [3, 3, 3, 1]
    node.announced.take()
    node.close(*before)
    for n in range(10):
        node.open(f"u{n}", LOBBY)
    await node.flush()
    assert node.announced.take() == []
    assert (await presence.members(node.tenant, LOBBY, "", 0)).count == 10


async def test_subscribing_and_unsubscribing_moves_between_groups(node: FakeNode) -> None:
    calls = Counting(node.store)
    session = node.open("alice")
    await node.flush()
    session.subscribe("topic:x")
    node.tracker.changed(session)
    await node.flush()
    assert len(calls.batches) == 1, "channels that are no groups are nobody's business"
    session.subscribe(LOBBY)
    node.tracker.changed(session)
    await node.flush()
    assert node.announced.take() == [(["alice"], [], 1)]
    session.unsubscribe(LOBBY)
    node.tracker.changed(session)
    await node.flush()
    assert node.announced.take() == [([], ["alice"], 0)]
    assert (await node.store.online(node.tenant, "alice")).connections == 1


@pytest.mark.parametrize("when", ["fail_before", "fail_after"])
async def test_a_store_that_fails_loses_no_change_and_no_announcement(node: FakeNode, when: str) -> None:
    calls = Counting(node.store)
    setattr(calls, when, 2)
    alice = node.open("alice", LOBBY)
    await node.flush()
    assert node.announced.take() == [] and node.tracker.failures == 1
    node.open("bob", LOBBY)
    async with node.running():
        await until(lambda: len(node.announced.events) == 2, "both are announced")
        assert node.announced.take() == [(["alice"], [], 1), (["bob"], [], 2)]
        assert len({one.token for one in calls.batches[:3]}) == 1, "an unknown outcome is asked for again"
        node.close(alice)
        await until(lambda: node.announced.events, "the leave")
    assert node.announced.take() == [([], ["alice"], 1)]


async def test_closed_connections_do_not_pile_up_while_the_store_is_away(node: FakeNode) -> None:
    calls = Counting(node.store)
    calls.fail_before = 1_000
    for n in range(50):
        session = node.open(f"u{n}", LOBBY)
        await node.flush()
        node.close(session)
        await node.flush()
    assert node.tracker.gauges()["presence_pending"] <= 2
    calls.fail_before = 0
    node.open("last", LOBBY)
    async with node.running():
        await until(lambda: any(data["joined"] == ["last"] for _, data in node.announced.events.values()))

        async def only_last() -> bool:
            page = await node.store.members(node.tenant, LOBBY, "", 10)
            return [member.user for member in page.members] == ["last"]

        await until(only_last, "nobody else is left")


async def test_a_bus_that_is_away_keeps_announcements_waiting_and_presence_going(node: FakeNode) -> None:
    node.announced.away = True
    node.open("alice", LOBBY)
    await node.flush()
    node.open("bob", LOBBY)
    await node.flush()
    assert (await node.store.members(node.tenant, LOBBY, "", 10)).count == 2
    assert node.tracker.gauges()["presence_unannounced"] == 2
    node.announced.away = False
    node.open("carl", LOBBY)
    await node.flush()
    assert node.announced.take() == [(["alice"], [], 1), (["bob"], [], 2), (["carl"], [], 3)]
    assert node.tracker.gauges()["presence_unannounced"] == 0


async def test_announcements_that_wait_are_bounded(presence: PresenceStore) -> None:
    node = FakeNode(presence, "n1", "t-" + secrets.token_hex(5), max_unannounced=2)
    node.announced.away = True
    for name in "abcd":
        node.open(name, LOBBY)
        await node.flush()
    gauges = node.tracker.gauges()
    assert (gauges["presence_unannounced"], gauges["presence_dropped"]) == (2, 2)


async def test_large_changes_are_told_in_several_events(presence: PresenceStore) -> None:
    node = FakeNode(presence, "n1", "t-" + secrets.token_hex(5), batch=500)
    for n in range(450):
        node.open(f"u{n:04}-" + "x" * 100, LOBBY)
    await node.flush()
    events = [data for _, data in node.announced.events.values()]
    assert len(events) > 1
    assert len({(data["count"], data["revision"]) for data in events}) == 1
    assert events[0]["count"] == 450
    names = [name for data in events for name in data["joined"]]
    assert len(names) == len(set(names)) == 450


async def test_closing_takes_everything_off(node: FakeNode) -> None:
    for n in range(5):
        node.open(f"u{n}", LOBBY)
    await node.flush()
    node.announced.take()
    node.open("late", LOBBY)
    await node.tracker.close()
    assert (await node.store.members(node.tenant, "", "", 10)).count == 0
    ((joined, left, count),) = node.announced.take()
    assert (joined, len(left), count) == ([], 5, 0)


async def test_closing_ends_although_the_store_does_not_answer(presence: PresenceStore) -> None:
    node = FakeNode(presence, "n1", "t-" + secrets.token_hex(5), close_s=0.05)
    node.open("alice", LOBBY)
    await node.flush()

    async def never(*args: Any, **how: Any) -> Changed:
        await asyncio.Event().wait()
        raise AssertionError

    presence.change = never  # type: ignore[method-assign]
    await node.tracker.close()
    assert (await presence.online(node.tenant, "alice")).connections == 1


async def test_gauges_tell_users_and_devices(node: FakeNode) -> None:
    node.open("alice", device="mobile")
    node.open("alice", device="web")
    node.open("bob", device="web")
    async with node.running():
        await node.flush()
        node.tracker._ledgers[node.tenant].renew_at = 0.0
        await until(lambda: node.tracker.gauges()["presence_users"] == 2)
    gauges = node.tracker.gauges()
    assert (gauges["presence_users_web"], gauges["presence_users_mobile"]) == (2, 1)
    assert gauges["presence_connections"] == 3


async def test_state_first_names_members_and_its_revision_covers_what_was_announced(
    node: FakeNode,
) -> None:
    service = PresenceService(node.store)
    assert json.loads(await service.state(node.tenant, LOBBY) or b"") == {
        "members": [],
        "count": 0,
        "revision": 0,
        "more": False,
    }
    node.open("alice", LOBBY, device="mobile")
    node.open("bob", LOBBY)
    await node.flush()
    state = json.loads(await service.state(node.tenant, LOBBY) or b"")
    ((_, change),) = node.announced.events.values()
    assert state == {
        "members": [{"user": "alice", "devices": ["mobile"]}, {"user": "bob", "devices": []}],
        "count": 2,
        "revision": change["revision"],
        "more": False,
    }
    for n in range(200):
        node.open(f"u{n}", LOBBY)
    await node.flush()
    state = json.loads(await service.state(node.tenant, LOBBY) or b"")
    assert (len(state["members"]), state["count"], state["more"]) == (200, 202, True)
    assert await service.state(node.tenant, "room:x") is None


async def test_the_service_answers_what_routing_asks(node: FakeNode) -> None:
    service = PresenceService(node.store)
    phone = node.open("alice", LOBBY, device="mobile", device_id="p1")
    await node.flush()
    tenant = node.tenant
    assert await service.online(tenant, "alice") and await service.online(tenant, "alice", ("mobile", "web"))
    assert not await service.online(tenant, "alice", ("web",)) and not await service.online(tenant, "bob")
    assert await service.connection_user(tenant, phone.id) == "alice"
    assert await service.connection_user(tenant + "x", phone.id) is None
    assert (await service.count(tenant), await service.count(tenant, LOBBY)) == (1, 1)
    (device,) = await service.devices(tenant, "alice")
    assert device.connected and device.device.id == "p1"
    node.close(phone)
    await node.flush()
    (device,) = await service.devices(tenant, "alice")
    assert not device.connected
