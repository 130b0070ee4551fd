"""The promises of `dualcast.bus.port` about live follow, one test each, over every engine."""

from __future__ import annotations

import asyncio
import secrets
import threading

import pytest

from dualcast.bus.port import EventBus
from dualcast.model.publication import Receipt
from support.bus_engines import ENGINES, TOPOLOGIES, Factory, Recorder, draft, watch

pytestmark = pytest.mark.anyio
EVERYWHERE = ENGINES | TOPOLOGIES


@pytest.fixture(params=sorted(EVERYWHERE))
def engine(request: pytest.FixtureRequest) -> Factory:
    return EVERYWHERE[request.param]


async def test_concurrent_appends_are_fed_in_offset_order(
    bus: EventBus, tenant: str, recorder: Recorder
) -> None:
    other = tenant + "-x"
    channels = [f"user:{n}" for n in range(5)]
    for name in (tenant, other):
        await watch(bus, recorder, name, *channels)

    async def publisher(name: str) -> list[Receipt]:
        return [await bus.append(draft(name, *secrets.SystemRandom().sample(channels, 2))) for _ in range(20)]

    receipts = await asyncio.gather(*(publisher(name) for name in (tenant, other) for _ in range(10)))
    for receipts_of_one in receipts:
        assert sorted(r.offset for r in receipts_of_one) == [r.offset for r in receipts_of_one]
    for name in (tenant, other):
        await recorder.until(lambda name=name: len(recorder.of(name)) == 400)  # type: ignore[misc]
        fed = [entry.offset for entry in recorder.of(name)]
        assert fed == sorted(fed)
        assert sorted(set(fed)) == list(range(1, 201))
        for channel in channels:
            prev = 0
            for entry in recorder.of(name, channel):
                assert entry.prev in (prev, -1)
                prev = entry.offset
        page = await bus.read(name, channels, 0, 1000)
        assert [entry.offset for entry in page.entries] == fed


async def test_advanced_is_told_after_the_entries_it_speaks_of(
    bus: EventBus, tenant: str, recorder: Recorder
) -> None:
    await watch(bus, recorder, tenant, "user:a", "user:b", "user:c")
    sent: dict[int, int] = {}
    for n in range(40):
        channels = [name for name in ("user:a", "user:b", "user:c", "user:d") if secrets.randbelow(2)] or [
            "user:a"
        ]
        sent[(await bus.append(draft(tenant, *channels))).offset] = len({*channels} - {"user:d"})
        if n % 8 == 0:
            await asyncio.sleep(0.001)
    last = (await bus.append(draft(tenant, "user:a"))).offset
    sent[last] = 1
    await recorder.until(lambda: any(call[1] >= last for call in recorder.named("advanced", tenant)))
    epoch = (await bus.head(tenant)).epoch
    fed = 0
    before = -1
    for call in recorder.calls:
        if call[0] == "entry":
            fed += 1
        elif call[0] == "advanced":
            assert call[2] == epoch
            assert fed >= sum(count for offset, count in sent.items() if offset <= call[3])
            assert call[3] >= before
            before = call[3]
    assert recorder.threads == {threading.get_ident()}


async def test_only_watched_channels_are_fed(bus: EventBus, tenant: str, recorder: Recorder) -> None:
    await watch(bus, recorder, tenant, "user:a")
    for channel in ("user:b", "user:a", "user:c", "user:a"):
        await bus.append(draft(tenant, channel))
    await recorder.until(lambda: len(recorder.of(tenant)) >= 2)
    assert [(entry.channel, entry.offset) for entry in recorder.of(tenant)] == [("user:a", 2), ("user:a", 4)]


async def test_watched_names_the_place_from_which_all_is_fed(
    bus: EventBus, tenant: str, recorder: Recorder
) -> None:
    await bus.append(draft(tenant))
    epoch = (await bus.head(tenant)).epoch
    assert await watch(bus, recorder, tenant, "all") == 1
    assert recorder.named("watched", tenant) == [("all", epoch, 1)]
    await bus.append(draft(tenant))
    await recorder.until(lambda: bool(recorder.of(tenant)))
    assert [(entry.offset, entry.prev) for entry in recorder.of(tenant)] == [(2, 1)]


async def test_nothing_is_missed_when_interest_races_with_publishing(
    bus: EventBus, tenant: str, recorder: Recorder
) -> None:
    channels = [f"user:{n}" for n in range(8)]
    running = True

    async def publisher() -> list[tuple[str, int]]:
        done = []
        for n in range(300):
            channel = channels[n % len(channels)]
            done.append((channel, (await bus.append(draft(tenant, channel))).offset))
            await asyncio.sleep(0)
        return done

    async def restless() -> None:
        while running:
            for channel in channels:
                bus.unwatch(tenant, channel)
                bus.watch(tenant, channel)
                await asyncio.sleep(0.001)
                bus.watch(tenant, channel)

    async with asyncio.TaskGroup() as group:
        task = group.create_task(publisher())
        group.create_task(restless())
        published = await task
        running = False
    last = dict(published)
    since = await watch(bus, recorder, tenant, "all")
    assert since == 300
    marker = await bus.append(draft(tenant, "all"))
    await recorder.until(lambda: bool(recorder.of(tenant, "all")))
    assert recorder.of(tenant, "all")[-1].offset == marker.offset
    for channel in channels:
        told = [
            call[4] if call[0] == "watched" else None
            for call in recorder.calls
            if call[0] == "watched" and call[2] == channel
        ]
        assert told, "interest was announced at least once"
        at = max(n for n in told if n is not None)
        fed = {entry.offset for entry in recorder.of(tenant, channel)}
        due = {offset for name, offset in published if name == channel and offset > at}
        assert due <= fed, (channel, at, last[channel])


async def test_unwatched_channels_fall_silent(bus: EventBus, tenant: str, recorder: Recorder) -> None:
    await watch(bus, recorder, tenant, "user:a", "user:b")
    bus.unwatch(tenant, "user:a")
    bus.unwatch(tenant, "user:a")
    bus.unwatch(tenant, "user:never")
    await watch(bus, recorder, tenant, "user:c")
    await bus.append(draft(tenant, "user:a", "user:b"))
    await recorder.until(lambda: bool(recorder.of(tenant, "user:b")))
    assert recorder.of(tenant, "user:a") == []


async def test_watch_after_unwatch_in_one_turn_is_announced_again(
    bus: EventBus, tenant: str, recorder: Recorder
) -> None:
    await watch(bus, recorder, tenant, "all")
    await bus.append(draft(tenant))
    await recorder.until(lambda: len(recorder.of(tenant)) == 1)
    bus.unwatch(tenant, "all")
    assert await watch(bus, recorder, tenant, "all") == 1
    await bus.append(draft(tenant))
    await recorder.until(lambda: len(recorder.of(tenant)) == 2)


async def test_watching_twice_feeds_once(bus: EventBus, tenant: str, recorder: Recorder) -> None:
    bus.watch(tenant, "all")
    await watch(bus, recorder, tenant, "all")
    bus.watch(tenant, "all")
    await bus.append(draft(tenant))
    await bus.append(draft(tenant))
    await recorder.until(lambda: len(recorder.of(tenant)) >= 2)
    assert [entry.offset for entry in recorder.of(tenant)] == [1, 2]


async def test_appends_of_one_turn_come_in_few_batches(
    bus: EventBus, tenant: str, recorder: Recorder
) -> None:
    await watch(bus, recorder, tenant, "all")
    await bus.append_many([draft(tenant) for _ in range(100)])
    await recorder.until(lambda: len(recorder.of(tenant)) == 100)
    assert len(recorder.batches) < 50
    assert all(name == tenant for name, _ in recorder.batches)


async def test_ephemeral_publications_are_fed_in_place_and_never_kept(
    bus: EventBus, tenant: str, recorder: Recorder
) -> None:
    await watch(bus, recorder, tenant, "all")
    for n in range(10):
        receipt = await bus.append(draft(tenant, id=str(n), ephemeral=bool(n % 2)))
        assert receipt.offset == (0 if n % 2 else n // 2 + 1)
        assert bool(receipt.cursor) == (not n % 2)
    await recorder.until(lambda: len(recorder.of(tenant)) == 10)
    assert [entry.publication.id for entry in recorder.of(tenant)] == [str(n) for n in range(10)]
    assert [entry.offset for entry in recorder.of(tenant)] == [1, 0, 2, 0, 3, 0, 4, 0, 5, 0]
    page = await bus.read(tenant, ["all"], 0, 100)
    assert [entry.offset for entry in page.entries] == [1, 2, 3, 4, 5]
