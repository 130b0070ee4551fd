"""Interest in channels over the one subscriber connection, and its life: connect, subscribe all, repair,
lose, again.

In: watch, unwatch, doubts. Out: calls of the Follower. Reconnects for ever, with growing, jittered pauses.
"""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Callable
from typing import Any

from dualcast.bus.port import Follower
from dualcast.model.errors import BusUnavailable

from .dialing import Dialer
from .feed import ChannelFeed, Feeds, TenantFeed
from .keys import live, part
from .options import RedisSettings
from .repair import Repair
from .tap import Tap
from .wire import LinkLost

_log = logging.getLogger(__name__)

FLUSH_EVERY_S = 0.005
"""In a storm of connects the (un)subscriptions of so much time share one command; a lone one goes at once."""
RETRY_S = 0.1
"""Pause before a failed repair is tried again on a living subscription."""


class Following:
    """See the module docstring. `start` returns after the first attempt to connect."""

    def __init__(
        self,
        dialer: Dialer,
        feeds: Feeds,
        settings: RedisSettings,
        echo_name: bytes,
        echo: Callable[[bytes], None],
    ) -> None:
        self._dialer = dialer
        self._feeds = feeds
        self._settings = settings
        self._echo_name = echo_name
        self._echo = echo
        self._loop = asyncio.get_running_loop()
        self._repair: Repair | None = None
        self._follower: Follower | None = None
        self._tap: Tap | None = None
        self._wishes: dict[bytes, bool] = {}
        self._scheduled = False
        self._flushed_at = 0.0
        self._due: dict[bytes, int] = {}
        """SUBSCRIBEs of a name not confirmed yet; only the last confirmation counts."""
        self._all_confirmed = asyncio.Event()
        self._settling: dict[TenantFeed, asyncio.Task[bool]] = {}
        self._runner: asyncio.Task[None] | None = None
        self._attempted = asyncio.Event()
        self.available = True
        self.resubscribes = 0

    @property
    def tap(self) -> Tap | None:
        """The subscriber connection while it is up."""
        return self._tap if self._tap is not None and self._tap.up else None

    @property
    def echoing(self) -> bool:
        """Everything is subscribed; a probe's echo can come."""
        return self.tap is not None and self._all_confirmed.is_set()

    async def start(self, follower: Follower, repair: Repair) -> None:
        self._follower = follower
        self._repair = repair
        self._runner = self._loop.create_task(self._run())
        await self._attempted.wait()

    async def close(self) -> None:
        tasks: list[asyncio.Task[None] | asyncio.Task[bool]] = list(self._settling.values())
        if self._runner is not None:
            tasks.append(self._runner)
        self._runner = None
        for task in tasks:
            task.cancel()
        tap = self._tap
        await asyncio.gather(*tasks, return_exceptions=True)
        if tap is not None:
            await tap.ended()

    def watch(self, tenant: str, channel: str) -> None:
        name = live(self._settings.prefix, tenant, channel)
        if name in self._feeds.names:
            return
        feed = self._feeds.of(tenant)
        found = ChannelFeed(feed, channel, name)
        self._feeds.names[name] = found
        feed.channels[part(channel).encode()] = found
        self._wish(name, True)

    def unwatch(self, tenant: str, channel: str) -> None:
        name = live(self._settings.prefix, tenant, channel)
        found = self._feeds.names.pop(name, None)
        if found is not None:
            found.gone = True
            del found.feed.channels[part(channel).encode()]
            self._wish(name, False)

    def doubt(self, feed: TenantFeed) -> None:
        """Starts to settle the tenant, when the subscription is up and nobody does already."""
        if self.echoing and feed not in self._settling:
            self._settle(feed)

    def _wish(self, name: bytes, wanted: bool) -> None:
        self._wishes[name] = wanted
        if not self._scheduled:
            self._scheduled = True
            if self._loop.time() - self._flushed_at > FLUSH_EVERY_S:
                self._loop.call_soon(self._flush)
            else:
                self._loop.call_at(self._flushed_at + FLUSH_EVERY_S, self._flush)

    def _flush(self) -> None:
        self._scheduled = False
        self._flushed_at = self._loop.time()
        wishes, self._wishes = self._wishes, {}
        tap = self.tap
        if tap is None:
            return  # connecting subscribes to everything there is
        self._subscribe(tap, [name for name, wanted in wishes.items() if wanted])
        tap.unsubscribe([name for name, wanted in wishes.items() if not wanted])

    def _subscribe(self, tap: Tap, names: list[bytes]) -> None:
        for name in names:
            self._due[name] = self._due.get(name, 0) + 1
        tap.subscribe(names)

    def _confirmed(self, name: bytes) -> None:
        due = self._due.pop(name, 0) - 1
        if due > 0:
            self._due[name] = due
        channel = self._feeds.names.get(name)
        if due <= 0 and channel is not None and not channel.confirmed:
            channel.confirmed = True
            if not channel.announced:
                channel.feed.fresh.append(channel)
                self.doubt(channel.feed)
        if not self._due:
            self._all_confirmed.set()

    async def _run(self) -> None:
        pause = 0.0
        while True:
            try:
                tap = await self._dialer.dial(self._make_tap, "dualcast-tap", self._settings.connect_s)
                self._tap = tap
                try:
                    await self._attach(tap)
                    pause = 0.0
                    self._tell(True)
                    self._attempted.set()
                    await tap.ended()
                finally:
                    self._detach(tap)
            except (LinkLost, TimeoutError):
                pass
            self._tell(False)
            self._attempted.set()
            await asyncio.sleep(pause * (0.5 + random.random() / 2))  # noqa: S311 — jitter
            pause = min(self._settings.backoff_max_s, max(self._settings.backoff_min_s, pause * 2))

    def _make_tap(self) -> Tap:
        return Tap(self._feeds, self._echo_name, self._confirmed, self._echo)

    async def _attach(self, tap: Tap) -> None:
        """Subscribes to everything and repairs every tenant. Raises LinkLost or TimeoutError."""
        self.resubscribes += 1
        self._due.clear()
        self._wishes.clear()
        self._all_confirmed.clear()
        for feed in self._feeds:
            feed.fresh.clear()
            if feed.epoch:
                feed.holding = True
        names = [self._echo_name]
        for name, channel in self._feeds.names.items():
            channel.confirmed = False
            names.append(name)
        self._subscribe(tap, names)
        seen = -1
        while not self._all_confirmed.is_set():
            if not tap.up or seen == tap.received:
                raise LinkLost  # no progress within a command's time
            seen = tap.received
            try:
                async with asyncio.timeout(self._settings.command_s):
                    await self._all_confirmed.wait()
            except TimeoutError:
                continue
        for feed in self._feeds:
            self.doubt(feed)
        while tap.up:
            waits: list[asyncio.Future[Any]] = [t for feed, t in self._settling.items() if feed.holding]
            if not waits:
                break
            await asyncio.wait([tap.lost, *waits], return_when=asyncio.FIRST_COMPLETED)
        if not tap.up:
            raise LinkLost

    def _detach(self, tap: Tap) -> None:
        self._tap = None
        self._all_confirmed.clear()
        for feed in self._feeds:
            if feed.epoch:
                feed.holding = True
        tap.abort()

    def _settle(self, feed: TenantFeed) -> None:
        task = self._loop.create_task(self._settle_until_done(feed, self._tap))
        self._settling[feed] = task
        task.add_done_callback(lambda _: self._settled(feed))

    def _settled(self, feed: TenantFeed) -> None:
        del self._settling[feed]
        if self._runner is not None and (feed.fresh or feed.holding):
            self.doubt(feed)

    async def _settle_until_done(self, feed: TenantFeed, tap: Tap | None) -> bool:
        def steady() -> bool:
            return tap is not None and self._tap is tap and tap.up

        assert self._repair is not None
        while steady():
            try:
                return await self._repair.settle(feed, steady)
            except BusUnavailable:
                await asyncio.sleep(RETRY_S)
            except Exception:  # noqa: BLE001 — a task's edge: delivery of one tenant must not end for good
                _log.exception("repair of a tenant failed")
                await asyncio.sleep(RETRY_S * 10)
        return False

    def _tell(self, available: bool) -> None:
        if available != self.available:
            self.available = available
            if self._follower is not None:
                self._follower.status(available)
