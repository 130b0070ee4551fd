"""The registry of devices where engines could differ: what naming changes, and who makes room for whom."""

from __future__ import annotations

import secrets
from collections.abc import AsyncIterator

import pytest

from dualcast.presence.devices import MAX_DEVICES, Sighting
from dualcast.presence.port import PresenceStore
from support.presence import ENGINES, HOLD_MS, batch, join, store

pytestmark = pytest.mark.anyio


@pytest.fixture(params=ENGINES)
async def presence(request: pytest.FixtureRequest) -> AsyncIterator[PresenceStore]:
    async with store(request.param, prefix="p" + secrets.token_hex(5)) as made:
        yield made


async def test_naming_a_device_is_not_seeing_it(presence: PresenceStore) -> None:
    await presence.change("t", "n1", batch(join("n1-1", "u", device_id="d1")), hold_ms=HOLD_MS, claim=True)
    (before,) = await presence.devices("t", "u")
    again = await presence.name_device("t", "u", "d1", "Work", "mobile")
    assert again is not None and (again.name, again.kind) == ("Work", "mobile")
    assert (again.first_seen_ms, again.last_seen_ms) == (before.first_seen_ms, before.last_seen_ms)


async def test_of_devices_that_come_together_the_last_one_stays(presence: PresenceStore) -> None:
    many = [join(f"n1-{n:03}", "u", device_id=f"d{n:03}") for n in range(MAX_DEVICES + 10)]
    await presence.change("t", "n1", batch(*many), hold_ms=HOLD_MS, claim=True)
    ids = [device.id for device in await presence.devices("t", "u")]
    assert len(ids) == MAX_DEVICES and f"d{MAX_DEVICES + 9:03}" in ids


@pytest.mark.parametrize("engine", ["memory", "sqlite"])
async def test_a_new_device_stays_although_the_clock_was_set_back(engine: str) -> None:
    async with store(engine) as presence:
        devices = presence._devices  # type: ignore[attr-defined]
        devices._clock = lambda: 2_000.0
        await presence.seen("t", [Sighting("u", f"d{n:03}", "web") for n in range(MAX_DEVICES)])
        devices._clock = lambda: 1_000.0
        assert await presence.name_device("t", "u", "new", "Phone", "mobile") is not None
        await presence.seen("t", [Sighting("u", "newer", "web")])
        ids = {device.id for device in await presence.devices("t", "u")}
        assert len(ids) == MAX_DEVICES and "newer" in ids
