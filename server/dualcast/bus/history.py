"""Pure pieces of history that the engines in one process share: the gap rule, page merging, and
history in memory.
"""

from __future__ import annotations

import heapq
from bisect import bisect_right
from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator, Sequence
from operator import itemgetter
from typing import NamedTuple, TypeVar

from dualcast.model.publication import Entry, Gap, Page

from .port import Retention

T = TypeVar("T")
_offset = itemgetter(0)
COMPACT_AT = 256


def gap_of(channel: str, after: int, *, head: int | None, floor: int, oldest: int, prev: int) -> Gap | None:
    """The gap of `channel` for a reader at `after`, or None.

    `head`: the channel's last offset (None: forgotten or never there); `floor`: heads up to this offset may
    have been forgotten; `oldest` and `prev`: the oldest entry kept and the offset before it in the channel
    (0: nothing kept).
    """
    if head is None:
        return Gap(channel, after, 0) if after < floor else None
    if head <= after:
        return None
    if not oldest:
        return Gap(channel, after, 0)
    return Gap(channel, after, oldest) if prev > after else None


def merge_page(
    epoch: str,
    top: int,
    limit: int,
    runs: Sequence[Iterable[tuple[int, int, T]]],
    gaps: Sequence[Gap],
    load: Callable[[tuple[int, int, T]], Entry],
    *,
    now_ms: int,
    max_bytes: int,
) -> Page:
    """Merges the channels' runs of (offset, number of the run, item), each ascending, into a page of ≤
    `limit` offsets.

    It also ends when its data exceed `max_bytes`, but never before one offset. Runs are consumed only as
    far as needed. Offsets of expired publications count towards the limit, so a page's work is bounded.
    """
    entries: list[Entry] = []
    last = taken = size = 0
    for item in heapq.merge(*runs):
        offset = item[0]
        if offset != last:
            if taken == limit or size > max_bytes:
                return Page(epoch, top, last, tuple(entries), tuple(gaps))
            last = offset
            taken += 1
        entry = load(item)
        size += len(entry.publication.data)
        if not 0 < entry.publication.expires_ms <= now_ms:
            entries.append(entry)
    return Page(epoch, top, top, tuple(entries), tuple(gaps))


class Stored(NamedTuple):
    offset: int
    at_ms: int
    entry: Entry


class ChannelLog:
    """The history of one channel: appended at the end, trimmed at the front."""

    __slots__ = ("_items", "_start", "head", "head_ms")

    def __init__(self) -> None:
        self._items: list[Stored | None] = []
        self._start = 0
        self.head = 0
        self.head_ms = 0

    def __len__(self) -> int:
        return len(self._items) - self._start

    def append(self, entry: Entry, at_ms: int, keep: int) -> None:
        self._items.append(Stored(entry.offset, at_ms, entry))
        self.head = entry.offset
        self.head_ms = at_ms
        while len(self) > keep:
            self._drop()

    def trim(self, before_ms: int) -> None:
        """Drops entries appended before `before_ms`."""
        while (oldest := self.oldest) is not None and oldest.at_ms < before_ms:
            self._drop()

    def _drop(self) -> None:
        self._items[self._start] = None
        self._start += 1
        if self._start == len(self._items) or (
            self._start > COMPACT_AT and self._start * 2 > len(self._items)
        ):
            del self._items[: self._start]
            self._start = 0

    @property
    def oldest(self) -> Stored | None:
        return self._items[self._start] if self._start < len(self._items) else None

    def after(self, offset: int) -> Iterator[Entry]:
        """The entries with a higher offset, ascending."""
        at = bisect_right(self._items, offset, lo=self._start, key=_offset)  # type: ignore[arg-type]
        for index in range(at, len(self._items)):
            stored = self._items[index]
            if stored is not None:
                yield stored.entry


class TenantLog:
    """One tenant's counter and channels, in the order of their last append, so forgetting is cheap."""

    __slots__ = ("_channels", "_max_heads", "_silent", "epoch", "floor", "retention", "top")

    def __init__(self, epoch: str, retention: Retention, max_heads: int) -> None:
        self.epoch = epoch
        self.top = 0
        self.floor = 0
        """Heads up to this offset may have been forgotten."""
        self.retention = retention
        """May be another one from one call to the next."""
        self._max_heads = max_heads
        self._channels: OrderedDict[str, ChannelLog] = OrderedDict()
        self._silent: OrderedDict[str, tuple[int, int]] = OrderedDict()
        """Channels whose history has aged away: (head, its time in ms)."""

    def __len__(self) -> int:
        return len(self._channels) + len(self._silent)

    def prev(self, channel: str) -> int:
        """The offset before the next entry of `channel`; of a forgotten channel the highest possible."""
        log = self._channels.get(channel)
        if log is not None:
            return log.head
        silent = self._silent.get(channel)
        return self.floor if silent is None else silent[0]

    def append(self, entry: Entry, at_ms: int) -> None:
        log = self._channels.get(entry.channel)
        if log is None:
            log = self._channels[entry.channel] = ChannelLog()
            self._silent.pop(entry.channel, None)
        else:
            self._channels.move_to_end(entry.channel)
        log.append(entry, at_ms, self.retention.entries)
        log.trim(at_ms - self.retention.seconds * 1000)

    def forget(self, now_ms: int, most: int = 2) -> None:
        """Drops the history of channels silent for the retention, and the heads of those silent for twice
        that.

        Also the oldest heads over the bound. Does at most `most` channels, so every append can call it.
        """
        stale_ms = now_ms - self.retention.seconds * 1000
        for _ in range(most):
            if not self._channels:
                break
            channel, log = next(iter(self._channels.items()))
            if log.head_ms >= stale_ms and (self._silent or len(self) <= self._max_heads):
                break
            del self._channels[channel]
            self._silent[channel] = log.head, log.head_ms
        for _ in range(most):
            if not self._silent:
                break
            channel, (head, head_ms) = next(iter(self._silent.items()))
            if head_ms >= stale_ms - self.retention.seconds * 1000 and len(self) <= self._max_heads:
                break
            del self._silent[channel]
            self.floor = max(self.floor, head)

    def read(self, channels: Sequence[str], after: int, limit: int, now_ms: int, max_bytes: int) -> Page:
        """A page as the port says. An `after` beyond the counter gives an empty page at the counter."""
        gaps: list[Gap] = []
        runs: list[Iterable[tuple[int, int, Entry]]] = []
        stale_ms = now_ms - self.retention.seconds * 1000
        for number, channel in enumerate(dict.fromkeys(channels)):
            head: int | None = None
            oldest: Stored | None = None
            log = self._channels.get(channel)
            if log is not None:
                log.trim(stale_ms)
                head, oldest = log.head, log.oldest
                if oldest is not None and head > after:
                    runs.append(_numbered(log.after(after), number))
            elif channel in self._silent:
                head = self._silent[channel][0]
            gap = gap_of(
                channel,
                after,
                head=head,
                floor=self.floor,
                oldest=0 if oldest is None else oldest.offset,
                prev=0 if oldest is None else oldest.entry.prev,
            )
            if gap is not None:
                gaps.append(gap)
        return merge_page(
            self.epoch, self.top, limit, runs, gaps, itemgetter(2), now_ms=now_ms, max_bytes=max_bytes
        )


def _numbered(entries: Iterable[Entry], number: int) -> Iterator[tuple[int, int, Entry]]:
    for entry in entries:
        yield entry.offset, number, entry
