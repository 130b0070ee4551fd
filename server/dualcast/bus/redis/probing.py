"""The probe: a command's round trip, an echo on the live path, and no head ahead of what was handed over.

Positions of all watched tenants and then PUBLISH of a token go down one connection. When the token comes
back on the subscriber connection, everything up to those positions has come there too. So a head beyond what
came is a lost message, even the last one of a quiet channel; and if there is none, the tenant is complete up
to its position. A small SET tells whether it takes writes: one whose memory or disk is full, and a replica,
still answer and echo.
"""

from __future__ import annotations

import asyncio
import secrets
from functools import partial
from typing import Any

from dualcast.bus.port import Follower, Health
from dualcast.model.errors import BusUnavailable

from .calls import Calls
from .feed import Feeds, TenantFeed
from .following import Following
from .options import RedisSettings
from .reading import Position, Reader, position_of
from .wire import pack, resolve

HEADS = 5_000
PROBE_KEY_MS = 60_000
"""Life of the key a probe writes, one per node."""


class Probe:
    """Runs in the background while started, and on demand; one run at a time, a fresh result is shared."""

    def __init__(
        self,
        calls: Calls,
        reader: Reader,
        feeds: Feeds,
        following: Following,
        settings: RedisSettings,
        echo_name: bytes,
    ) -> None:
        self._calls = calls
        self._reader = reader
        self._feeds = feeds
        self._following = following
        self._settings = settings
        self._echo_name = echo_name
        self._loop = asyncio.get_running_loop()
        self._echoes: dict[bytes, asyncio.Future[float]] = {}
        self._follower: Follower | None = None
        self._running: asyncio.Task[Health] | None = None
        self._beat: asyncio.Task[None] | None = None
        self._last: tuple[float, Health] | None = None
        self.probes = 0
        self.found = 0
        """Tenants in which a probe found something lost."""

    @property
    def last(self) -> Health | None:
        return None if self._last is None else self._last[1]

    def start(self, follower: Follower) -> None:
        self._follower = follower
        self._beat = self._loop.create_task(self._every())

    async def close(self) -> None:
        tasks = [task for task in (self._beat, self._running) if task is not None]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def echo(self, token: bytes) -> None:
        """A message on this node's echo name came."""
        future = self._echoes.pop(token, None)
        if future is not None and not future.done():
            future.set_result(self._loop.time())

    async def check(self, *, fresh: bool = False) -> Health:
        """The health now, or of at most `fresh_s` ago unless `fresh`. Never raises."""
        if (
            not fresh
            and self._last is not None
            and self._loop.time() - self._last[0] < self._settings.fresh_s
        ):
            return self._last[1]
        if self._running is None:
            self._running = self._loop.create_task(self._once())
        return await asyncio.shield(self._running)

    async def _every(self) -> None:
        while True:
            await asyncio.sleep(self._settings.probe_every_s)
            await self.check(fresh=True)

    async def _once(self) -> Health:
        try:
            health = await self._measure()
        finally:
            self._running = None
        self._last = (self._loop.time(), health)
        return health

    async def _measure(self) -> Health:
        self.probes += 1
        tap = self._following.tap
        token = secrets.token_hex(8).encode()
        began = self._loop.time()
        received = tap.received if tap is not None else 0
        echo: asyncio.Future[float] = self._loop.create_future()
        self._echoes[token] = echo
        asked = [feed for feed in self._feeds if feed.channels and feed.epoch and not feed.holding]
        replies: list[asyncio.Future[Any]] = []
        for feed in asked:
            replies.append(future := self._loop.create_future())
            blob = self._reader.pack_position(feed, feed.complete, HEADS)
            self._calls.submit("position", feed.meta, (blob,), partial(resolve, future))
        replies.append(published := self._loop.create_future())
        self._calls.command(pack(b"PUBLISH", self._echo_name, token), partial(resolve, published))
        written: asyncio.Future[Any] = self._loop.create_future()
        self._calls.command(
            pack(b"SET", self._echo_name, b"", b"PX", PROBE_KEY_MS), partial(resolve, written)
        )
        try:
            await asyncio.wait(replies)
            if any(isinstance(reply.result(), BusUnavailable) for reply in replies):
                # Nothing known about the live path, unless nothing at all came there: then it is dead, too.
                waited = self._loop.time() - began >= self._settings.command_s / 2
                if waited and tap is not None and tap.received == received:
                    tap.abort()
                return Health(False, "redis", detail="command")
            command_s = self._loop.time() - began
            if tap is None or not self._following.echoing:
                return Health(False, "redis", command_s=command_s, detail="subscriber")
            try:
                async with asyncio.timeout(self._settings.echo_s):
                    echo_s = await echo - began
            except TimeoutError:
                # Commands work and the live path is silent: a dead line, or a server that is no longer the
                # one.
                tap.abort()
                return Health(False, "redis", command_s=command_s, detail="echo")
        finally:
            self._echoes.pop(token, None)
        for feed, reply in zip(asked, replies, strict=False):
            if self._following.tap is tap and not feed.holding:
                await self._compare(feed, position_of(reply.result()))
        if isinstance(await written, BusUnavailable):
            return Health(False, "redis", command_s, echo_s, "append")
        available = self._following.available
        return Health(available, "redis", command_s, echo_s, "" if available else "repair")

    async def _compare(self, feed: TenantFeed, position: Position) -> None:
        """Doubt the tenant when a head is ahead of what came, else say how far it is complete."""
        if position.epoch != feed.epoch:
            self._feeds.hold(feed)
            return
        top, upto, heads = position.top, position.top, position.heads
        while True:
            for name, head in heads:
                channel = feed.channels.get(name)
                if channel is not None and channel.announced and channel.last < head <= top:
                    self.found += 1
                    self._feeds.hold(feed)
                    return
            if len(heads) < HEADS or heads[-1][1] >= top:
                break
            upto = heads[-1][1] - 1
            try:
                more = await self._reader.position(feed, upto, HEADS)
            except BusUnavailable:
                break
            if feed.holding or more.epoch != feed.epoch:
                return
            heads, upto = more.heads, top
        feed.seen = max(feed.seen, top)
        if upto > feed.complete or feed.complete < 0:
            feed.complete = upto
            if self._follower is not None:
                self._follower.advanced(feed.tenant, feed.epoch, upto)
