"""What a node knows of a tenant and its channels: position, sessions, and the ring of recent entries.

A ring entry is per channel; `complete_from` says since which offset the ring holds everything of the channel.
Rings are bounded per channel (entries) and per node (bytes, oldest first).
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Sequence

from dualcast.model.publication import Entry

from .subscriber import Subscriber

ENTRY_OVERHEAD_BYTES = 700
"""Python objects around an entry's data, counted against the ring bound (measured with sys.getsizeof, rounded
up)."""


class ChannelFeed:
    """One channel on this node."""

    __slots__ = ("complete_from", "idle_sweeps", "name", "ring", "sessions", "tenant")

    def __init__(self, tenant: TenantFeed, name: str) -> None:
        self.tenant = tenant
        self.name = name
        self.sessions: dict[Subscriber, None] = {}
        self.ring: deque[Entry] | None = None
        self.complete_from = -1
        """Everything with a greater offset is in the ring; -1: not watched yet."""
        self.idle_sweeps = 0
        """Sweeps without any session; the hub stops watching after a few."""

    def after(self, offset: int) -> Iterator[Entry]:
        """Ring entries with an offset greater than `offset`, in order."""
        ring = self.ring
        if not ring or ring[-1].offset <= offset:
            return
        found: list[Entry] = []
        for entry in reversed(ring):
            if entry.offset <= offset:
                break
            found.append(entry)
        yield from reversed(found)


class TenantFeed:
    """One tenant on this node. `head`: no watched channel has anything unfanned up to here."""

    __slots__ = ("backlog", "backlog_bytes", "channels", "epoch", "head", "name", "running", "tail")

    def __init__(self, name: str) -> None:
        self.name = name
        self.epoch = ""
        """Empty until the first channel is watched."""
        self.head = 0
        self.tail = 0
        """Highest offset seen live. Another watched target of it may still come, so it is nobody's position
        yet;
        a session that starts from now starts here."""
        self.channels: dict[str, ChannelFeed] = {}
        self.running = False
        """A large fan-out is under way and has yielded to the loop; what comes meanwhile waits in
        `backlog`."""
        self.backlog: deque[tuple[int, Sequence[Entry] | Callable[[], None]]] = deque()
        self.backlog_bytes = 0


class Rings:
    """Keeps all rings of a node inside their bounds: entries per channel, bytes per node (oldest entry of all
    first)."""

    def __init__(self, *, entries_per_channel: int, total_bytes: int) -> None:
        self._entries = entries_per_channel
        self._limit = total_bytes
        self._order: deque[tuple[ChannelFeed, int]] = deque()
        """Channel and offset, oldest first. Not the entries: a record may outlive its entry for a while, and
        must not keep
        its bytes."""
        self._live = 0
        self.bytes = 0

    def add(self, feed: ChannelFeed, entry: Entry) -> None:
        """Appends a live entry to the channel's ring; evicts the oldest where a bound is reached."""
        ring = feed.ring
        if entry.offset <= feed.complete_from:
            return  # on its way when the watch was confirmed, or below a hole
        if ring is None:
            ring = feed.ring = deque()
        elif ring and entry.offset <= ring[-1].offset:
            return  # seen already: repair and live overlap
        size = self._size(entry)
        ring.append(entry)
        self._order.append((feed, entry.offset))
        self.bytes += size
        self._live += 1
        if len(ring) > self._entries:
            self._drop(feed)
        self._shrink()
        if len(self._order) > 2 * self._live + 1024:
            self._compact()

    def fit(self, entries: Sequence[Entry]) -> bool:
        """Whether `entries` can be added without evicting anything."""
        return self.bytes + sum(map(self._size, entries)) <= self._limit

    def prepend(self, feed: ChannelFeed, entries: Sequence[Entry], after: int) -> None:
        """Puts what the bus has of (`after`, `complete_from`] in front of the ring, which is complete since
        `after` then.

        The caller has checked that they fit. They are the first to be evicted again.
        """
        # Live entries may have come before the watch was confirmed: the page has those again, all of them.
        self.trim(feed, feed.complete_from)
        feed.complete_from = after
        if not entries:
            return
        if feed.ring is None:
            feed.ring = deque()
        for entry in reversed(entries):
            feed.ring.appendleft(entry)
            self._order.appendleft((feed, entry.offset))
            self.bytes += self._size(entry)
        self._live += len(entries)
        self._shrink()

    def trim(self, feed: ChannelFeed, through: int) -> None:
        """Drops the ring entries of a channel up to offset `through`: below a hole the ring is no longer
        joined."""
        while feed.ring and feed.ring[0].offset <= through:
            self._drop(feed)

    def forget(self, feed: ChannelFeed) -> None:
        """Drops the whole ring of a channel that is no longer watched."""
        while feed.ring:
            self._drop(feed)
        feed.ring = None

    def _drop(self, feed: ChannelFeed) -> None:
        assert feed.ring
        gone = feed.ring.popleft()
        self.bytes -= self._size(gone)
        self._live -= 1
        feed.complete_from = max(feed.complete_from, gone.offset)

    def _compact(self) -> None:
        # Entries dropped by the per-channel bound leave stale records behind; amortised over at least 1,024
        # additions.
        first = {id(feed): feed.ring[0].offset for feed, _ in self._order if feed.ring}
        never = 1 << 62
        self._order = deque(r for r in self._order if r[1] >= first.get(id(r[0]), never))

    def _shrink(self) -> None:
        while self.bytes > self._limit and self._order:
            oldest, old = self._order.popleft()
            if oldest.ring and oldest.ring[0].offset == old:
                self._drop(oldest)

    @staticmethod
    def _size(entry: Entry) -> int:
        return ENTRY_OVERHEAD_BYTES + 3 * len(entry.publication.data)
