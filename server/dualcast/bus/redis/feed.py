"""What a node knows of each tenant's log and of each channel it watches, and what becomes of an arriving
message.

Pure of I/O. A message is handed over at once while the channel's chain of `prev` is whole; else the tenant
is in doubt: its delivery is held (bounded) until `repair` has read what is missing.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

from msgspec import MsgspecError

from dualcast.bus.port import Follower
from dualcast.bus.record import decode
from dualcast.model.publication import Entry, Publication

from .keys import meta
from .options import RedisSettings


class ChannelFeed:
    """A watched channel. Messages of it up to offset `last` are in the past; -1: not known yet."""

    __slots__ = ("announced", "channel", "confirmed", "feed", "gone", "last", "name")

    def __init__(self, feed: TenantFeed, channel: str, name: bytes) -> None:
        self.feed = feed
        self.channel = channel
        self.name = name
        self.last = -1
        self.confirmed = False
        """Redis has confirmed the subscription, on the present connection."""
        self.announced = False
        """`Follower.watched` was called."""
        self.gone = False
        """No longer watched."""


class Held:
    """A message that waits for repair."""

    __slots__ = ("channel", "entry", "epoch", "size")

    def __init__(self, channel: ChannelFeed, entry: Entry, epoch: bytes, size: int) -> None:
        self.channel = channel
        self.entry = entry
        self.epoch = epoch
        self.size = size


class TenantFeed:
    """A tenant's log as this node knows it."""

    __slots__ = (
        "batch",
        "channels",
        "complete",
        "earlier",
        "emitted",
        "epoch",
        "foreign",
        "fresh",
        "held",
        "held_bytes",
        "holding",
        "latest",
        "latest_body",
        "meta",
        "overflowed",
        "raw_epoch",
        "seen",
        "tenant",
    )

    def __init__(self, tenant: str, prefix: str) -> None:
        self.tenant = tenant
        self.meta = meta(prefix, tenant)
        self.epoch = ""
        """"": not known yet."""
        self.raw_epoch = b""
        self.seen = 0
        """The highest offset of the epoch seen in any way: the fence."""
        self.emitted = 0
        """The highest offset handed over."""
        self.complete = -1
        """No watched channel has anything undelivered up to here; -1: nothing was watched yet."""
        self.earlier: frozenset[str] = frozenset()
        self.channels: dict[bytes, ChannelFeed] = {}
        """By channel part."""
        self.fresh: list[ChannelFeed] = []
        """Confirmed, not announced."""
        self.foreign = False
        """A script named another epoch than ours; repair finds out."""
        self.holding = False
        self.held: list[Held] = []
        self.held_bytes = 0
        self.overflowed = False
        """Held messages were dropped: read again."""
        self.batch: list[Entry] = []
        self.latest: Publication | None = None
        self.latest_body = b""

    def rename(self, epoch: str) -> None:
        """The log's epoch is `epoch` from now on."""
        self.epoch = epoch
        self.raw_epoch = epoch.encode()
        self.latest = None


class Feeds:
    """All tenants and watched channels of a node. `doubt` is called, maybe often, when a tenant needs
    repair.
    """

    def __init__(self, settings: RedisSettings, doubt: Callable[[TenantFeed], None]) -> None:
        self._settings = settings
        self._doubt = doubt
        self._tenants: dict[str, TenantFeed] = {}
        self._touched: list[TenantFeed] = []
        self.follower: Follower | None = None
        self.names: dict[bytes, ChannelFeed] = {}
        """By pub/sub name."""
        self.received = 0
        self.malformed = 0
        self.mismatches = 0
        self.overflows = 0
        self.held_bytes = 0

    def __iter__(self) -> Iterator[TenantFeed]:
        return iter(list(self._tenants.values()))

    def of(self, tenant: str) -> TenantFeed:
        """The tenant's feed, made on first use."""
        feed = self._tenants.get(tenant)
        if feed is None:
            feed = self._tenants[tenant] = TenantFeed(tenant, self._settings.prefix)
        return feed

    def saw(self, feed: TenantFeed, epoch: str, top: int) -> None:
        """A script said that the tenant's counter is at `top` of `epoch`."""
        if epoch == feed.epoch:
            feed.seen = max(feed.seen, top)
        elif not feed.epoch:
            feed.rename(epoch)
            feed.seen = max(feed.seen, top)
        else:
            feed.foreign = True
            self.hold(feed)

    def hold(self, feed: TenantFeed) -> None:
        """Doubt: nothing of the tenant is handed over until it is repaired."""
        feed.holding = True
        self._doubt(feed)

    def arrive(self, name: bytes, payload: bytes) -> None:
        """Takes a live message `epoch offset prev time_ms body`; `flush` hands on what may go."""
        channel = self.names.get(name)
        if channel is None:
            return
        feed = channel.feed
        try:
            epoch, number, before, _, body = payload.split(b" ", 4)
            offset = int(number)
            prev = int(before)
            latest = feed.latest
            if (
                latest is None
                or latest.offset != offset
                or body != feed.latest_body
                or epoch != feed.raw_epoch
            ):
                known = feed.epoch if epoch == feed.raw_epoch else epoch.decode()
                latest = decode(feed.tenant, known, offset, body)
                if epoch == feed.raw_epoch:
                    feed.latest = latest
                    feed.latest_body = body
        except (ValueError, MsgspecError):
            # Not ours. Were it a damaged one of ours, the next message's `prev` or the probe would tell.
            self.malformed += 1
            return
        self.received += 1
        entry = Entry(latest, channel.channel, prev)
        if feed.holding or epoch != feed.raw_epoch:
            self._keep(feed, Held(channel, entry, epoch, len(payload)))
            return
        if offset:
            if offset <= channel.last:
                return
            if prev > channel.last >= 0:
                self.mismatches += 1
                self._keep(feed, Held(channel, entry, epoch, len(payload)))
                return
            channel.last = offset
            if offset > feed.emitted:
                feed.emitted = offset
                feed.seen = max(feed.seen, offset)
        if not feed.batch:
            self._touched.append(feed)
        feed.batch.append(entry)

    def flush(self) -> None:
        """Hands over what `arrive` let through since the last time."""
        touched, self._touched = self._touched, []
        for feed in touched:
            batch, feed.batch = feed.batch, []
            if self.follower is not None:
                self.follower.entries(feed.tenant, batch)

    def release(self, feed: TenantFeed) -> list[Held]:
        """Takes out what is held."""
        held, feed.held = feed.held, []
        self.held_bytes -= feed.held_bytes
        feed.held_bytes = 0
        return held

    def keep_again(self, feed: TenantFeed, held: list[Held]) -> None:
        """Puts `held` back in front."""
        size = sum(item.size for item in held)
        feed.held[:0] = held
        feed.held_bytes += size
        self.held_bytes += size

    def _keep(self, feed: TenantFeed, held: Held) -> None:
        if held.epoch == feed.raw_epoch:
            feed.seen = max(feed.seen, held.entry.offset)
        if feed.held_bytes + held.size > self._settings.held_bytes:
            self.overflows += 1
            feed.overflowed = True
            self.release(feed)
        feed.held.append(held)
        feed.held_bytes += held.size
        self.held_bytes += held.size
        self.hold(feed)
