"""What the memory engine forgets, and when."""

from __future__ import annotations

import pytest

from dualcast.bus.memory import YIELD_DEPTH, MemoryBus
from dualcast.bus.port import Retention
from dualcast.bus.record import decode, encode_body, publication_of
from dualcast.model.publication import Audience, Gap
from support.bus_engines import Recorder, draft

pytestmark = pytest.mark.anyio


class Clock:
    def __init__(self) -> None:
        self.now = 1_700_000_000.0

    def __call__(self) -> float:
        return self.now


async def started(**options: object) -> tuple[MemoryBus, Clock, Recorder]:
    clock, recorder = Clock(), Recorder()
    bus = MemoryBus(clock=clock, **options)  # type: ignore[arg-type]
    await bus.start(recorder)
    return bus, clock, recorder


async def test_ids_are_remembered_for_the_window_and_no_longer() -> None:
    bus, clock, _ = await started(retention=Retention(idempotency_s=60))
    await bus.append(draft("t", id="a"))
    clock.now += 59
    assert (await bus.append(draft("t", id="a"))).duplicate
    clock.now += 2
    assert not (await bus.append(draft("t", id="a"))).duplicate
    for n in range(100):
        await bus.append(draft("t", id=str(n)))
    clock.now += 61
    for n in range(60):
        await bus.append(draft("t", id=f"x{n}"))
    assert bus.stats()["remembered"] == 60
    await bus.close()


async def test_remembered_ids_are_bounded() -> None:
    bus, _, _ = await started(max_remembered=50)
    for n in range(200):
        await bus.append(draft("t", id=str(n)))
    assert bus.stats()["remembered"] == 50
    assert (await bus.append(draft("t", id="199"))).duplicate
    await bus.close()


async def test_forgotten_heads_leave_a_floor_that_makes_honest_gaps() -> None:
    bus, clock, _ = await started(retention=Retention(entries=10, seconds=10))
    await bus.append(draft("t", "user:old"))  # 1
    clock.now += 11
    await bus.append(draft("t", "user:new"))  # 2
    assert (await bus.read("t", ["user:old"], 0, 10)).gaps == (Gap("user:old", 0, 0),)
    assert (await bus.read("t", ["user:old"], 1, 10)).gaps == ()
    clock.now += 11
    bus._tidy()
    assert bus.stats()["channels"] == 1
    clock.now += 11
    bus._tidy()
    assert bus.stats()["channels"] == 0
    # Nothing is known any more of offsets up to 2: a reader from before gets a gap, others do not.
    for channel in ("user:old", "user:new", "user:never"):
        assert (await bus.read("t", [channel], 1, 10)).gaps == (Gap(channel, 1, 0),)
        assert (await bus.read("t", [channel], 2, 10)).gaps == ()
    await bus.append(draft("t", "user:old"))  # 3
    page = await bus.read("t", ["user:old"], 0, 10)
    assert page.gaps == (Gap("user:old", 0, 3),)
    assert (await bus.read("t", ["user:old"], 2, 10)).gaps == ()
    await bus.close()


async def test_channels_are_bounded() -> None:
    bus, _, _ = await started(max_heads=20)
    for n in range(200):
        await bus.append(draft("t", f"user:{n}"))
    assert bus.stats()["channels"] <= 20
    assert (await bus.read("t", ["user:199"], 0, 10)).gaps == (Gap("user:199", 0, 200),)
    assert (await bus.read("t", ["user:199"], 199, 10)).gaps == ()
    assert (await bus.read("t", ["user:5"], 5, 10)).gaps == (Gap("user:5", 5, 0),)
    await bus.close()


async def test_a_publisher_that_never_pauses_does_not_pile_up_entries() -> None:
    bus, _, recorder = await started()
    bus.watch("t", "all")
    await bus.probe()
    for _ in range(5 * YIELD_DEPTH):
        await bus.append(draft("t"))
        assert bus.stats()["held_entries"] <= YIELD_DEPTH
    assert len(recorder.of("t")) >= 4 * YIELD_DEPTH
    await bus.close()
    assert len(recorder.of("t")) == 5 * YIELD_DEPTH


async def test_advanced_follows_the_entries_of_its_tenant() -> None:
    bus, _, recorder = await started()
    bus.watch("t", "all")
    await bus.probe()
    await bus.append(draft("t"))
    await bus.append(draft("t", "user:unwatched"))
    await bus.probe()
    epoch = (await bus.head("t")).epoch
    assert [call[0] for call in recorder.calls] == ["watched", "entry", "advanced"]
    assert recorder.named("advanced", "t") == [(epoch, 2)]
    await bus.close()


def test_records_are_the_same_with_and_without_the_detour() -> None:
    full = draft("t", expires_ms=5, conflation_key="k", terminal=True, audience=Audience(users=()))
    for sent in (full, draft("t", data="日本".encode())):
        assert decode("t", "abc", 7, encode_body(sent)) == publication_of(sent, "abc", 7)
