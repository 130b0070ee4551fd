"""Watching a Redis channel anew while messages of an earlier subscription are on their way."""

from __future__ import annotations

import asyncio
from typing import Any, cast

import pytest

from dualcast.bus.record import encode_body
from dualcast.bus.redis.feed import ChannelFeed, Feeds, TenantFeed
from dualcast.bus.redis.options import RedisSettings
from dualcast.bus.redis.reading import Position
from dualcast.bus.redis.repair import Repair
from dualcast.model.publication import Draft, Entry, Gap

pytestmark = pytest.mark.anyio


class Told:
    """A follower that remembers."""

    def __init__(self) -> None:
        self.entered: list[int] = []
        self.since: list[int] = []
        self.gaps: list[Gap] = []

    def entries(self, tenant: str, batch: list[Entry]) -> None:
        self.entered += [entry.offset for entry in batch]

    def watched(self, tenant: str, channel: str, epoch: str, offset: int) -> None:
        self.since.append(offset)

    def gap(self, tenant: str, gap: Gap) -> None:
        self.gaps.append(gap)

    def advanced(self, tenant: str, epoch: str, offset: int) -> None: ...


class Answers:
    """A reader whose log stands at 11."""

    async def position(self, feed: TenantFeed, *_: Any) -> Position:
        await asyncio.sleep(0)
        return Position("e", 11, 0, 0, frozenset(), (), (11,))


def message(offset: int, prev: int) -> bytes:
    draft = Draft(tenant="t", channels=("all",), id=f"n{offset}", type="e", data=b"{}", time_ms=1)
    return b"e %d %d 1 %b" % (offset, prev, encode_body(draft))


async def test_what_was_missed_between_two_subscriptions_is_no_gap_of_the_second() -> None:
    doubts: list[TenantFeed] = []
    feeds = Feeds(RedisSettings(), doubts.append)
    told = Told()
    feeds.follower = cast(Any, told)
    feed = feeds.of("t")
    feed.rename("e")
    channel = ChannelFeed(feed, "all", b"name")
    feeds.names[b"name"] = feed.channels[b"all"] = channel
    feeds.arrive(b"name", message(10, 9))  # of the subscription that has just been given up
    feeds.flush()
    feed.fresh.append(channel)
    repair = Repair(cast(Any, Answers()), feeds, cast(Any, told))
    assert await repair.settle(feed, lambda: True)
    assert told.since == [11]
    feeds.arrive(b"name", message(12, 11))
    feeds.flush()
    assert (told.entered, told.gaps, doubts) == ([10, 12], [], [])
