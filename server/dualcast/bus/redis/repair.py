"""Bringing a tenant in order: announcing newly watched channels, and filling what a doubt may have lost.

In doubt the tenant's delivery is held. `heads` names the channels that moved after the point known complete;
only those are read, once per node, and handed over in order; then what was held goes on, without what was
already handed over.
"""

from __future__ import annotations

import time
from collections.abc import Callable

from dualcast.bus.port import Follower
from dualcast.model.publication import Entry, Gap

from .feed import ChannelFeed, Feeds, Held, TenantFeed
from .keys import part
from .reading import MAX_NAMES, Position, Reader

PAGE = 500
HEADS = 5_000
"""Heads per call."""
LATE = "late"
"""Reason of a gap for publications that are kept but were found only after later ones had been handed over.
"""


class Repair:
    """`settle` does whatever a tenant needs. `steady` says whether the subscription is still the one it
    began with.
    """

    def __init__(self, reader: Reader, feeds: Feeds, follower: Follower) -> None:
        self._reader = reader
        self._feeds = feeds
        self._follower = follower
        self.repairs = 0
        self.filled = 0
        self.gaps = 0
        self.epochs = 0
        self.stale = 0
        """Held messages of an epoch that is over."""

    async def settle(self, feed: TenantFeed, steady: Callable[[], bool]) -> bool:
        """Announces and repairs until nothing is left to do; False: `steady` ended. Raises BusUnavailable."""
        while steady() and (feed.fresh or feed.holding):
            fresh, feed.fresh = feed.fresh[:MAX_NAMES], feed.fresh[MAX_NAMES:]
            fresh = [channel for channel in fresh if not channel.gone]
            known = len(feed.held)
            feed.foreign = False
            try:
                position = await self._reader.position(
                    feed, feed.complete if feed.holding else -1, HEADS, [channel.channel for channel in fresh]
                )
                heads = dict(position.heads)
                last = position
                while len(last.heads) == HEADS:
                    last = await self._reader.position(feed, last.heads[-1][1] - 1, HEADS)
                    if last.heads[0][1] == last.heads[-1][1] and len(last.heads) == HEADS:
                        # More channels share one offset than a call gives: they cannot, at 1,000 targets.
                        break
                    heads.update(last.heads)
            except BaseException:
                feed.fresh[:0] = fresh
                raise
            if not steady():
                return False
            if feed.epoch == "":
                feed.rename(position.epoch)
            feed.earlier = position.earlier
            if position.epoch != feed.epoch and not feed.holding:
                # The doubt came with this very reply: what is asked for in doubt was not asked.
                feed.fresh[:0] = fresh
                self._feeds.hold(feed)
                continue
            if feed.complete < 0:
                feed.complete = position.top
            if position.epoch == feed.epoch:
                feed.seen = max(feed.seen, position.top)
            same = position.epoch == feed.epoch
            if same:
                self._announce(feed, fresh, position)
            if feed.holding and not await self._fill(feed, position, heads, known, steady):
                return False
            if not same:
                self._announce(feed, fresh, position)
        return steady()

    def _announce(self, feed: TenantFeed, fresh: list[ChannelFeed], position: Position) -> None:
        since = max(position.top, feed.emitted)
        for channel, head in zip(fresh, position.named, strict=True):
            if channel.gone or channel.announced:
                continue
            # Messages up to here may be missing (an earlier subscription of the name brought some): they are
            # in the past of everybody who is told of the watch.
            channel.last = max(channel.last, position.floor if head is None else head)
            channel.announced = True
            self._follower.watched(feed.tenant, channel.channel, feed.epoch, since)

    async def _fill(
        self,
        feed: TenantFeed,
        position: Position,
        heads: dict[bytes, int],
        known: int,
        steady: Callable[[], bool],
    ) -> bool:
        self.repairs += 1
        behind = {
            channel.channel: (channel, heads[name])
            for name, channel in feed.channels.items()
            if name in heads and channel.announced and channel.confirmed and heads[name] > channel.last
        }
        for name, (channel, head) in list(behind.items()):
            if head < feed.emitted:
                # Later offsets have gone out already, and order is a promise: clients are told to fetch
                # these.
                self._gap(feed, Gap(name, channel.last, head + 1, LATE))
                channel.last = head
                del behind[name]
        after = max(0, feed.emitted - 1)
        names = list(behind)
        while names:
            page = await self._reader.page(feed, names, after, PAGE, expired=True)
            if not steady():
                return False
            for gap in page.gaps:
                if not gap.oldest:
                    channel, head = behind[gap.channel]
                    if head > channel.last:
                        # Nothing is left of it: the hole ends with the last offset it is known to have had.
                        self._gap(feed, Gap(gap.channel, channel.last, head + 1))
                        channel.last = head
            self._emit(feed, page.entries, position)
            after = page.next
            if page.next >= min(page.top, position.top):
                break
        if position.epoch != feed.epoch:
            self._renew(feed, position)
        feed.emitted = max(feed.emitted, position.top)
        if feed.overflowed or feed.foreign:
            feed.overflowed = False
            feed.complete = position.top
            return True
        return self._resume(feed, position, known)

    def _emit(self, feed: TenantFeed, entries: tuple[Entry, ...], position: Position) -> None:
        """Hands over what was read, without what went out before; the new epoch is announced between its
        neighbours.
        """
        batch: list[Entry] = []
        now_ms = time.time() * 1000
        # As they come live (`rules.badges_first`): who follows several of its channels is given the first.
        for entry in sorted(entries, key=_badges_first):
            channel = feed.channels.get(part(entry.channel).encode())
            # What is beyond the position comes live, in order with channels that were not read here.
            if channel is None or not channel.last < entry.offset <= position.top:
                continue
            if position.epoch != feed.epoch and entry.offset > position.base:
                self._hand_over(feed, batch)
                batch = []
                self._renew(feed, position)
            if entry.prev > channel.last:
                self._hand_over(feed, batch)
                batch = []
                self._gap(feed, Gap(entry.channel, channel.last, entry.offset))
            channel.last = entry.offset
            feed.emitted = max(feed.emitted, entry.offset)
            if not 0 < entry.publication.expires_ms <= now_ms:
                self.filled += 1
                batch.append(entry)
        self._hand_over(feed, batch)

    def _resume(self, feed: TenantFeed, position: Position, known: int) -> bool:
        """Lets go what was held; the first `known` of it came before the log was looked at."""
        held = self._feeds.release(feed)
        batch: list[Entry] = []
        feed.complete = max(feed.complete, position.top)
        for index, item in enumerate(held):
            channel, entry = item.channel, item.entry
            if channel.gone or (entry.offset and entry.offset <= channel.last):
                continue
            whole = item.epoch == feed.raw_epoch and not (entry.offset and entry.prev > channel.last >= 0)
            if not whole and index >= known:
                # It came after we looked: look again.
                self._hand_over(feed, batch)
                self._feeds.keep_again(feed, held[index:])
                return True
            if item.epoch != feed.raw_epoch:
                self.stale += 1
                continue
            if not whole:
                self._hand_over(feed, batch)
                batch = []
                self._gap(feed, Gap(entry.channel, channel.last, entry.offset))
            self._note(feed, item)
            batch.append(entry)
        self._hand_over(feed, batch)
        feed.holding = False
        self._follower.advanced(feed.tenant, feed.epoch, feed.complete)
        return True

    @staticmethod
    def _note(feed: TenantFeed, item: Held) -> None:
        if item.entry.offset:
            item.channel.last = item.entry.offset
            feed.emitted = max(feed.emitted, item.entry.offset)
            feed.seen = max(feed.seen, item.entry.offset)

    def _hand_over(self, feed: TenantFeed, batch: list[Entry]) -> None:
        if batch:
            self._follower.entries(feed.tenant, batch)

    def _gap(self, feed: TenantFeed, gap: Gap) -> None:
        self.gaps += 1
        self._follower.gap(feed.tenant, gap)

    def _renew(self, feed: TenantFeed, position: Position) -> None:
        self.epochs += 1
        feed.rename(position.epoch)
        feed.seen = position.top
        feed.emitted = max(feed.emitted, position.base)
        feed.complete = max(feed.complete, position.base)
        for channel in feed.channels.values():
            if channel.last >= 0:
                # The news of the epoch covers whatever was lost below it.
                channel.last = max(channel.last, position.base)
        self._follower.epoch(feed.tenant, position.epoch, position.base)


def _badges_first(entry: Entry) -> tuple[int, bool]:
    return entry.offset, entry.publication.badge is None
