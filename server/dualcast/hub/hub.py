"""The hub: follows the bus, keeps feeds and rings, and runs fan-outs first-in-first-out per tenant."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from itertools import groupby, pairwise

from msgspec import Struct

from dualcast.bus.port import SKIP, EventBus
from dualcast.model.publication import Entry, Gap, Page

from .fan_out import (
    FRAMES_PER_WRITE,
    dominant,
    fan_out_around,
    fan_out_mixed,
    fan_out_run,
    session_counts,
    weight,
)
from .feed import ChannelFeed, Rings, TenantFeed
from .subscriber import Subscriber


class HubSettings(Struct, frozen=True, kw_only=True):
    """Bounds of a node's hub."""

    ring_entries: int = 256
    """Recent entries kept per watched channel."""
    ring_bytes: int = 64 * 1024 * 1024
    """Recent entries kept per node, in bytes."""
    large_fan_out: int = 4_096
    """A fan-out to more sessions than this, or a batch or backlog of many, yields to the loop after about as
    many writes: nobody else waits longer for a tenant's."""
    backlog_bytes: int = 8 * 1024 * 1024
    """Per tenant, what may wait behind a large fan-out; beyond it sessions fall behind and catch up from the
    ring."""
    idle_sweeps: int = 3
    """A channel without sessions stays watched for so many sweeps: a reconnect finds its ring."""


class Hub:
    """Implements `bus.port.Follower`. All methods run on the event loop."""

    def __init__(self, bus: EventBus, settings: HubSettings) -> None:
        self._bus = bus
        self._settings = settings
        self._loop = asyncio.get_running_loop()
        self._waiting: dict[tuple[str, str], dict[Callable[[], None], Sequence[ChannelFeed]]] = {}
        """Channel not watched yet → who waits for it, and for which others with it."""
        self.rings = Rings(entries_per_channel=settings.ring_entries, total_bytes=settings.ring_bytes)
        self.tenants: dict[str, TenantFeed] = {}
        self.sessions: dict[str, Subscriber] = {}
        """Attached sessions by connection id, oldest first."""
        self.available = True
        self.overflows = 0
        self.ephemeral_shed = 0
        """Ephemeral entries dropped with a backlog that overflowed."""

    # ── subscriptions ──

    def known(self, tenant: str, channel: str) -> ChannelFeed | None:
        """The feed of a channel, if this node has one. Makes nothing."""
        found = self.tenants.get(tenant)
        return found.channels.get(channel) if found is not None else None

    def channel(self, tenant: str, name: str) -> ChannelFeed:
        """The feed of a channel; starts watching it when this node does not yet."""
        feed = self.tenants.get(tenant)
        if feed is None:
            feed = self.tenants[tenant] = TenantFeed(tenant)
        found = feed.channels.get(name)
        if found is None:
            found = feed.channels[name] = ChannelFeed(feed, name)
            self._bus.watch(tenant, name)
        found.idle_sweeps = 0
        return found

    def when_watched(self, feeds: Sequence[ChannelFeed], then: Callable[[], None]) -> bool:
        """True when every feed is watched now; otherwise `then` is called once, when the last of them is.

        Equal callbacks wait once. Who gives up calls `stop_waiting`.
        """
        missing = [feed for feed in feeds if feed.complete_from < 0]
        for feed in missing:
            self._waiting.setdefault((feed.tenant.name, feed.name), {})[then] = feeds
        return not missing

    def stop_waiting(self, feeds: Sequence[ChannelFeed], then: Callable[[], None]) -> None:
        """Forgets what `when_watched` was asked with these arguments; unknown ones are ignored."""
        if not self._waiting:
            return
        for feed in feeds:
            key = (feed.tenant.name, feed.name)
            waiting = self._waiting.get(key)
            if waiting is not None and waiting.pop(then, None) is not None and not waiting:
                del self._waiting[key]

    def backfill(self, feeds: Sequence[ChannelFeed], page: Page, after: int) -> bool:
        """Puts a page of `feeds`, read after offset `after`, in front of their rings. True: every ring
        reaches back to `after`.

        False, and nothing changed, when the page does not join them: it is truncated or has gaps, a ring
        would outgrow its bound, or the log skipped offsets on the way (`bus.port.SKIP`).
        """
        if page.gaps or after > page.top or any(feed.complete_from > page.next for feed in feeds):
            return False
        offsets = [after, *(entry.offset for entry in page.entries), page.next]
        if any(later - earlier >= SKIP for earlier, later in pairwise(offsets)):
            return False
        older: dict[str, list[Entry]] = {feed.name: [] for feed in feeds}
        for entry in page.entries:
            older[entry.channel].append(entry)
        pairs = []
        for feed in feeds:
            # What the ring holds already came live meanwhile; a ring another session has filled back further
            # stays.
            entries = [entry for entry in older[feed.name] if entry.offset <= feed.complete_from]
            if len(entries) + len(feed.ring or ()) > self._settings.ring_entries:
                return False
            if entries and entries[-1].offset > max(feed.tenant.head, feed.tenant.tail):
                # Older entries of other channels are still on their way to this node: whoever was given these
                # from a ring would pass them over.
                return False
            pairs.append((feed, entries))
        if not self.rings.fit([entry for _, entries in pairs for entry in entries]):
            return False
        for feed, entries in pairs:
            if feed.complete_from > after:
                self.rings.prepend(feed, entries, after)
        return True

    def sweep(self) -> None:
        """Stops watching channels that have had no session for a while. Called every few seconds."""
        for tenant in list(self.tenants.values()):
            for feed in list(tenant.channels.values()):
                if feed.sessions or (tenant.name, feed.name) in self._waiting:
                    feed.idle_sweeps = 0
                    continue
                feed.idle_sweeps += 1
                if feed.idle_sweeps > self._settings.idle_sweeps:
                    del tenant.channels[feed.name]
                    self.rings.forget(feed)
                    self._bus.unwatch(tenant.name, feed.name)
            if not tenant.channels and not tenant.running:
                del self.tenants[tenant.name]

    def sessions_of(self, tenant: str) -> list[Subscriber]:
        """Every session of a tenant, each once."""
        feed = self.tenants.get(tenant)
        if feed is None:
            return []
        found: dict[Subscriber, None] = {}
        for channel in feed.channels.values():
            found.update(channel.sessions)
        return list(found)

    # ── Follower ──

    def entries(self, tenant: str, batch: Sequence[Entry]) -> None:
        """Live entries: into the rings at once, to the sessions in order."""
        feed = self.tenants.get(tenant)
        if feed is None or not batch:
            return
        channels = feed.channels
        # What comes before its watch is confirmed is in the past of everybody who will be told of the watch.
        known = [
            entry
            for entry in batch
            if (found := channels.get(entry.channel)) is not None and found.complete_from >= 0
        ]
        if not known:
            return
        for entry in known:
            if entry.offset:
                self.rings.add(channels[entry.channel], entry)
        feed.tail = max(feed.tail, max(entry.offset for entry in known))
        if feed.running:
            self._defer(feed, known)
        else:
            self._deliver(feed, known)

    def watched(self, tenant: str, channel: str, epoch: str, offset: int) -> None:
        feed = self.tenants.get(tenant)
        found = feed.channels.get(channel) if feed else None
        if feed is None or found is None:
            return
        if not feed.epoch:
            feed.epoch, feed.head = epoch, offset
        if found.complete_from < 0:
            found.complete_from = offset
        for then, feeds in self._waiting.pop((tenant, channel), {}).items():
            if all(one.complete_from >= 0 for one in feeds):
                then()

    def advanced(self, tenant: str, epoch: str, offset: int) -> None:
        feed = self.tenants.get(tenant)
        if feed is None or epoch != feed.epoch:
            return
        if feed.running:
            self._defer(feed, lambda: self._advance(feed, offset))
        else:
            self._advance(feed, offset)

    def gap(self, tenant: str, gap: Gap) -> None:
        feed = self.tenants.get(tenant)
        if feed is not None:
            # Not deferred behind a fan-out: nobody may be given what follows the hole and leave untold of it.
            self._gap(feed, gap)

    def epoch(self, tenant: str, epoch: str, offset: int) -> None:
        feed = self.tenants.get(tenant)
        if feed is None:
            return
        if feed.running:
            # Not deferred: nobody may read entries of the new epoch from a ring before hearing of it.
            self._shed(feed)
        self._epoch(feed, epoch, offset)

    def status(self, available: bool) -> None:
        self.available = available
        for session in list(self.sessions.values()):
            session.bus_status(available)

    # ── delivery ──

    def _advance(self, feed: TenantFeed, offset: int) -> None:
        feed.head = max(feed.head, offset)

    def _gap(self, feed: TenantFeed, gap: Gap) -> None:
        found = feed.channels.get(gap.channel)
        if found is None:
            return
        # What the ring holds below the hole is no longer joined to what comes after it.
        self.rings.trim(found, gap.after)
        found.complete_from = max(found.complete_from, gap.oldest - 1, gap.after)
        for session in list(found.sessions):
            session.gap(gap)

    def _epoch(self, feed: TenantFeed, epoch: str, offset: int) -> None:
        # What each session has really been given, before the new epoch moves everybody's position.
        reached = [(session, session.offset) for session in self.sessions_of(feed.name)]
        feed.epoch = epoch
        feed.head = max(feed.head, offset)
        for session, after in reached:
            session.epoch_changed(epoch, after)

    def _deliver(self, feed: TenantFeed, batch: Sequence[Entry]) -> int:
        """Writes a batch, or begins to; about how many writes it took."""
        channels = feed.channels
        first = batch[0].channel
        simple = True
        limit = self._settings.large_fan_out
        for entry in batch:
            if entry.channel != first or not entry.offset or entry.publication.audience is not None:
                simple = False
            target = channels.get(entry.channel)
            if target is not None and len(target.sessions) > limit:
                self._begin(feed, self._steps(feed, batch))
                return 0
        if simple:
            found = channels.get(first)
            writes = len(found.sessions) * weight(batch) if found is not None else 0
            if writes > limit:
                self._begin(feed, self._steps(feed, batch))
                return 0
            if found is not None and writes:
                fan_out_run(found, batch, found.sessions)
        else:
            sizes = session_counts(channels, batch)
            writes = sum(sizes.values())
            if (large := dominant(channels, batch, sizes)) is not None:
                fan_out_around(channels, large, batch)
            elif writes > limit or sum([sizes[e.channel] for e in batch]) > limit * FRAMES_PER_WRITE:
                self._begin(feed, self._pieces(feed, batch))
                return 0
            else:
                fan_out_mixed(channels, batch)
        self._done(feed, batch)
        return writes

    def _done(self, feed: TenantFeed, batch: Sequence[Entry]) -> None:
        # Only `advanced` may count the last offset itself: another watched target of it may still be on its
        # way.
        feed.head = max(feed.head, max(entry.offset for entry in batch) - 1)

    # ── large fan-outs ──

    def _begin(self, feed: TenantFeed, steps: Iterator[None]) -> None:
        """One step in each turn of the loop, the first in the next one; what comes meanwhile waits."""
        feed.running = True
        self._loop.call_soon(self._step, feed, steps)

    def _pieces(self, feed: TenantFeed, batch: Sequence[Entry]) -> Iterator[None]:
        """A batch over many channels in pieces of its order, none of which writes to very many sessions."""
        limit = self._settings.large_fan_out
        given: dict[int, set[Subscriber]] = {}
        piece: list[Entry] = []
        names: set[str] = set()
        writes = frames = 0
        for entry in batch:
            found = feed.channels.get(entry.channel)
            size = len(found.sessions) if found is not None else 0
            more = 0 if entry.channel in names else size
            if piece and (writes + more > limit or frames + size > limit * FRAMES_PER_WRITE):
                fan_out_mixed(feed.channels, piece, None, given)
                yield
                piece, names, writes, frames, more = [], set(), 0, 0, size
            piece.append(entry)
            names.add(entry.channel)
            writes += more
            frames += size
        fan_out_mixed(feed.channels, piece, None, given)
        yield
        self._done(feed, batch)

    def _steps(self, feed: TenantFeed, batch: Sequence[Entry]) -> Iterator[None]:
        size = self._settings.large_fan_out
        given: dict[int, set[Subscriber]] = {}
        for name, group in groupby(batch, key=lambda entry: entry.channel):
            run = list(group)
            found = feed.channels.get(name)
            if found is None:
                continue
            simple = all(entry.offset and entry.publication.audience is None for entry in run)
            everybody = list(found.sessions)
            many = max(1, size // weight(run))
            for start in range(0, len(everybody), many):
                members = found.sessions
                part = [session for session in everybody[start : start + many] if session in members]
                if simple:
                    fan_out_run(found, run, part)
                else:
                    for entry in run:
                        fan_out_mixed(feed.channels, (entry,), part, given)
                yield
        self._done(feed, batch)

    def _step(self, feed: TenantFeed, steps: Iterator[None]) -> None:
        try:
            next(steps)
        except StopIteration:
            feed.running = False
            self._drain_backlog(feed)
        else:
            self._loop.call_soon(self._step, feed, steps)

    def _defer(self, feed: TenantFeed, item: Sequence[Entry] | Callable[[], None]) -> None:
        size = 0 if callable(item) else sum(len(entry.publication.data) + 200 for entry in item)
        if feed.backlog_bytes + size > self._settings.backlog_bytes and not callable(item):
            # The rings have it all: sessions catch up from there, in order, at their own pace.
            self.overflows += 1
            self.ephemeral_shed += sum(not entry.offset for entry in item)
            self._shed(feed)
            return
        feed.backlog_bytes += size
        feed.backlog.append((size, item))

    def _shed(self, feed: TenantFeed) -> None:
        """Drops the entries of the backlog; every session falls behind where it really stands."""
        kept: deque[tuple[int, Sequence[Entry] | Callable[[], None]]] = deque()
        for size, item in feed.backlog:
            if callable(item):
                kept.append((size, item))
            else:  # no history has these
                self.ephemeral_shed += sum(not entry.offset for entry in item)
        feed.backlog, feed.backlog_bytes = kept, 0
        for session in self.sessions_of(feed.name):
            session.fall_behind()

    def _drain_backlog(self, feed: TenantFeed) -> None:
        writes = 0
        while feed.backlog and not feed.running:
            if writes > self._settings.large_fan_out:
                self._begin(feed, iter(()))  # many small ones are as long as a large one
                return
            size, item = feed.backlog.popleft()
            feed.backlog_bytes -= size
            if callable(item):
                item()
            else:
                writes += len(item) + self._deliver(feed, item)
