"""A page put in front of a ring: no entry stands in the ring twice, and all stand in order."""

from __future__ import annotations

from dualcast.hub.feed import ChannelFeed, Rings, TenantFeed
from dualcast.model.publication import Entry, Publication


def entry(offset: int) -> Entry:
    return Entry(Publication("t", "e", offset, f"p{offset}", "note", b"{}", 0), "all", offset - 1)


def test_entries_that_came_before_the_watch_was_confirmed_are_not_repeated() -> None:
    rings = Rings(entries_per_channel=100, total_bytes=1_000_000)
    feed = ChannelFeed(TenantFeed("t"), "all")
    for offset in (9, 10):
        rings.add(feed, entry(offset))
    feed.complete_from = 10
    rings.add(feed, entry(11))
    rings.prepend(feed, [entry(offset) for offset in (7, 8, 9, 10)], after=6)
    assert [found.offset for found in feed.after(6)] == [7, 8, 9, 10, 11]
    assert feed.complete_from == 6
