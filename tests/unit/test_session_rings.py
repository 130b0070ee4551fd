"""Rings of recent entries: bounded per channel and per node, and honest about where they begin."""

from __future__ import annotations

from dualcast.hub.feed import ENTRY_OVERHEAD_BYTES, ChannelFeed, Rings, TenantFeed
from dualcast.model.publication import Entry, Publication


def feed_of(name: str = "all", complete_from: int = 0) -> ChannelFeed:
    feed = ChannelFeed(TenantFeed("t"), name)
    feed.complete_from = complete_from
    return feed


def entry(offset: int, size: int = 2) -> Entry:
    return Entry(Publication("t", "e", offset, f"n{offset}", "e", b"x" * size, 0), "all")


def offsets(feed: ChannelFeed) -> list[int]:
    return [found.offset for found in feed.ring or ()]


def test_a_ring_keeps_the_newest_entries_and_knows_where_it_begins() -> None:
    rings, feed = Rings(entries_per_channel=3, total_bytes=1 << 20), feed_of()
    for offset in (2, 4, 6):
        rings.add(feed, entry(offset))
    assert (offsets(feed), feed.complete_from) == ([2, 4, 6], 0)
    rings.add(feed, entry(8))
    assert (offsets(feed), feed.complete_from) == ([4, 6, 8], 2)
    assert [found.offset for found in feed.after(4)] == [6, 8]
    assert [found.offset for found in feed.after(5)] == [6, 8]
    assert not list(feed.after(8))


def test_an_entry_seen_before_is_not_kept_twice() -> None:
    rings, feed = Rings(entries_per_channel=9, total_bytes=1 << 20), feed_of()
    for offset in (1, 3, 3, 2, 1, 4):
        rings.add(feed, entry(offset))
    assert offsets(feed) == [1, 3, 4]


def test_bytes_are_bounded_over_all_channels_oldest_first() -> None:
    size = ENTRY_OVERHEAD_BYTES + 3 * 100
    rings = Rings(entries_per_channel=100, total_bytes=5 * size)
    feeds = [feed_of("a"), feed_of("b")]
    for offset in range(1, 9):
        rings.add(feeds[offset % 2], entry(offset, 100))
        assert rings.bytes <= 5 * size
    assert sorted(offsets(feeds[0]) + offsets(feeds[1])) == [4, 5, 6, 7, 8]
    assert [feed.complete_from for feed in feeds] == [2, 3]


def test_an_entry_larger_than_all_room_is_not_kept() -> None:
    rings, feed = Rings(entries_per_channel=9, total_bytes=1000), feed_of()
    rings.add(feed, entry(1, 10_000))
    assert (offsets(feed), rings.bytes, feed.complete_from) == ([], 0, 1)


def test_trimmed_and_forgotten_rings_give_their_bytes_back() -> None:
    rings, feed, other = Rings(entries_per_channel=9, total_bytes=1 << 20), feed_of(), feed_of("b")
    for offset in range(1, 6):
        rings.add(feed, entry(offset))
    rings.add(other, entry(6))
    rings.trim(feed, 3)
    assert (offsets(feed), feed.complete_from) == ([4, 5], 3)
    rings.forget(feed)
    assert feed.ring is None
    assert rings.bytes == ENTRY_OVERHEAD_BYTES + 6
    rings.forget(other)
    assert rings.bytes == 0


def test_records_of_dropped_entries_are_compacted() -> None:
    rings, feed, quiet = Rings(entries_per_channel=4, total_bytes=1 << 30), feed_of(), feed_of("quiet")
    rings.add(quiet, entry(1))
    for offset in range(2, 20_000):
        rings.add(feed, entry(offset))
    assert len(rings._order) < 3_000
    # What is compacted is still found when the bytes run out.
    assert offsets(quiet) == [1]
    rings._limit = 0
    rings.add(feed, entry(20_000))
    assert rings.bytes == 0 and not offsets(quiet) and not offsets(feed)
    assert quiet.complete_from == 1


def test_a_forgotten_ring_that_starts_anew_is_bounded_as_before() -> None:
    rings, feed = Rings(entries_per_channel=100, total_bytes=3 * (ENTRY_OVERHEAD_BYTES + 6)), feed_of()
    for offset in range(1, 3):
        rings.add(feed, entry(offset))
    rings.forget(feed)
    for offset in range(3, 9):
        rings.add(feed, entry(offset))
    assert offsets(feed) == [6, 7, 8]
