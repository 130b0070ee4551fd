"""Presence of one process: who is online does not depend on the database of the devices."""

from __future__ import annotations

import threading
from collections.abc import Sequence

import pytest

from dualcast.model.errors import BusUnavailable
from dualcast.presence.devices import Device, Sighting
from dualcast.presence.local import LocalPresence
from dualcast.presence.service import PresenceService
from support.presence import HOLD_MS, batch, join

pytestmark = pytest.mark.anyio


class Registry:
    """A DeviceStore that can be away."""

    def __init__(self) -> None:
        self.away = False
        self.told: list[Sighting] = []

    async def seen(self, tenant: str, sightings: Sequence[Sighting]) -> None:
        if self.away:
            raise BusUnavailable("away")
        self.told += sightings

    async def devices(self, tenant: str, user: str) -> list[Device]:
        return []

    async def name_device(self, tenant: str, user: str, device: str, name: str, kind: str) -> Device | None:
        return None

    async def forget_device(self, tenant: str, user: str, device: str) -> bool:
        return False


async def test_devices_seen_while_the_database_is_away_are_written_later() -> None:
    registry = Registry()
    presence = LocalPresence(registry)
    registry.away = True
    for n in range(3):
        one = join(f"n-{n}", "alice", device="web", device_id=f"d{n % 2}")
        done = await presence.change("t", "n", batch(one), hold_ms=HOLD_MS)
        assert bool(done.deltas) == (n == 0)
    assert presence.is_online_now("t", "alice", ())
    registry.away = False
    await presence.renew("t", "n", hold_ms=HOLD_MS)
    assert sorted(registry.told) == [Sighting("alice", "d0", "web"), Sighting("alice", "d1", "web")]
    registry.told.clear()
    await presence.renew("t", "n", hold_ms=HOLD_MS)
    assert registry.told == []


async def test_online_now_is_answered_in_any_thread() -> None:
    presence = LocalPresence(Registry())
    service = PresenceService(presence)
    await presence.change("t", "n", batch(join("n-1", "alice", device="mobile")), hold_ms=HOLD_MS)
    found: list[bool] = []

    def ask() -> None:
        asked = (("t", "alice", ()), ("t", "alice", ("web",)), ("t", "alice", ("web", "mobile")))
        found.extend(service.is_online_now(*one) for one in asked)
        found.append(service.is_online_now("t", "bob"))
        found.append(service.is_online_now("other", "alice"))

    thread = threading.Thread(target=ask)
    thread.start()
    thread.join()
    assert found == [True, False, True, False, False]
    await presence.change("t", "n", batch(leaves=("n-1",)), hold_ms=HOLD_MS)
    assert not service.is_online_now("t", "alice")


async def test_revisions_go_on_above_those_of_an_earlier_process() -> None:
    now = [1_000.0]
    first = LocalPresence(Registry(), clock=lambda: now[0])
    done = await first.change("t", "n", batch(join("n-1", "alice")), hold_ms=HOLD_MS)
    now[0] += 5
    second = LocalPresence(Registry(), clock=lambda: now[0])
    later = await second.change("t", "m", batch(join("m-1", "alice")), hold_ms=HOLD_MS)
    assert later.deltas[0].revision > done.deltas[0].revision
    now[0] -= 1_000
    back = await second.change("t", "m", batch(join("m-2", "bob")), hold_ms=HOLD_MS)
    assert back.deltas[0].revision > later.deltas[0].revision, "also when the clock goes back"
