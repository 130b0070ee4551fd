"""The state follower: what it calls when, and what it does when the store is away or a callback fails."""

from __future__ import annotations

import asyncio
import logging

import pytest

from dualcast.model.errors import BusUnavailable
from dualcast.state.follow import StateFollower
from dualcast.state.memory import MemoryState
from dualcast.state.port import Changes

pytestmark = pytest.mark.anyio


class Flaky(MemoryState):
    """A memory store that can be away."""

    away = False

    async def changes(self, after: int) -> Changes:
        if self.away:
            raise BusUnavailable("away")
        return await super().changes(after)


class Calls:
    def __init__(self) -> None:
        self.made: list[str] = []
        self.fails: type[Exception] | None = None
        self.seen = asyncio.Event()

    async def changed(self, key: str) -> None:
        self._note(key)

    async def resync(self) -> None:
        self._note("*")

    def _note(self, call: str) -> None:
        self.made.append(call)
        self.seen.set()
        if self.fails is not None:
            raise self.fails("no")

    def take(self) -> list[str]:
        made, self.made = self.made, []
        return made


async def test_first_everything_then_each_changed_key_of_the_space() -> None:
    store, calls = MemoryState(), Calls()
    await store.put("s", "before", b"")
    follower = StateFollower(store)
    follower.on("s", calls.changed, calls.resync)
    assert follower.age_s == float("inf")
    await follower.refresh()
    assert calls.take() == ["*"]
    assert follower.age_s < 60
    await store.put("s", "a", b"")
    await store.put("other", "x", b"")
    await store.put("s", "b", b"", quiet=True)
    await store.delete("s", "before")
    await follower.refresh()
    assert calls.take() == ["a", "before"]
    await follower.refresh()
    assert calls.take() == []


async def test_a_late_subscriber_reads_everything_first() -> None:
    store, early, late = MemoryState(), Calls(), Calls()
    follower = StateFollower(store)
    follower.on("s", early.changed, early.resync)
    await follower.refresh()
    follower.on("s", late.changed, late.resync)
    await store.put("s", "a", b"")
    await follower.refresh()
    assert early.take() == ["*", "a"]
    assert late.take() == ["*"]


async def test_a_log_that_forgot_means_reading_everything() -> None:
    store, calls = MemoryState(log_size=1000), Calls()
    follower = StateFollower(store)
    follower.on("s", calls.changed, calls.resync)
    await follower.refresh()
    for n in range(1_002):
        await store.put("s", f"k{n}", b"")
    await follower.refresh()
    assert calls.take() == ["*", "*"]
    await store.put("s", "a", b"")
    await follower.refresh()
    assert calls.take() == ["a"]


async def test_after_an_outage_everything_is_read() -> None:
    store, calls = Flaky(), Calls()
    follower = StateFollower(store)
    follower.on("s", calls.changed, calls.resync)
    await follower.refresh()
    store.away = True
    with pytest.raises(BusUnavailable):
        await follower.refresh()
    store.away = False
    await store.put("s", "a", b"")
    await follower.refresh()
    assert calls.take() == ["*", "*"]


@pytest.mark.parametrize("error", [BusUnavailable, ZeroDivisionError])
async def test_a_failing_callback_is_repeated_and_hinders_nobody(
    error: type[Exception], caplog: pytest.LogCaptureFixture
) -> None:
    store, broken, sound = MemoryState(), Calls(), Calls()
    follower = StateFollower(store)
    follower.on("s", broken.changed, broken.resync)
    follower.on("s", sound.changed, sound.resync)
    await follower.refresh()
    broken.fails = error
    await store.put("s", "a", b"")
    with caplog.at_level(logging.CRITICAL), pytest.raises(BusUnavailable):
        await follower.refresh()
    broken.fails = None
    await follower.refresh()
    assert broken.take() == ["*", "a", "*"]
    assert sound.take() == ["*", "a"]


async def test_run_polls_through_an_outage_until_cancelled() -> None:
    store, calls = Flaky(), Calls()
    follower = StateFollower(store, interval_s=0.001)
    follower.on("s", calls.changed, calls.resync)
    async with asyncio.timeout(10), asyncio.TaskGroup() as group:
        task = group.create_task(follower.run())
        await calls.seen.wait()
        calls.seen.clear()
        await store.put("s", "a", b"")
        await calls.seen.wait()
        assert calls.take() == ["*", "a"]
        calls.seen.clear()
        store.away = True
        with pytest.raises(BusUnavailable):
            await follower.refresh()
        store.away = False
        await calls.seen.wait()
        assert calls.take() == ["*"]
        task.cancel()
