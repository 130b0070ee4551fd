"""Regression: shutdown hung for ever when the follower was cancelled while its store was timing out."""

from __future__ import annotations

import asyncio

import pytest

from dualcast.model.errors import BusUnavailable
from dualcast.state.follow import StateFollower
from dualcast.state.memory import MemoryState
from dualcast.state.port import Changes

pytestmark = pytest.mark.anyio


class SwallowingStore(MemoryState):
    """Turns a cancellation into BusUnavailable, as a client library does whose time-out is due at once."""

    def __init__(self) -> None:
        super().__init__()
        self.asked = asyncio.Event()

    async def changes(self, after: int) -> Changes:
        self.asked.set()
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            raise BusUnavailable("timed out") from None
        raise AssertionError


async def test_a_cancellation_the_store_swallowed_still_ends_the_follower() -> None:
    store = SwallowingStore()
    task = asyncio.create_task(StateFollower(store, interval_s=3600).run())
    await store.asked.wait()
    task.cancel()
    async with asyncio.timeout(5):
        with pytest.raises(asyncio.CancelledError):
            await task
