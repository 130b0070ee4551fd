"""One more subscriber connection, for names that are not dualcast's own: channels and patterns other programs
publish to.

In: names, fixed for its life. Out: every message to one callback, on the event loop, in the order they come.
Reconnects for ever; what is published while it is away is lost to this process, as with all of Redis's
pub/sub.
"""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Callable, Sequence
from typing import NoReturn

import hiredis

from .dialing import Dialer, open_dialer
from .options import RedisSettings
from .wire import Link, LinkLost, pack

_log = logging.getLogger(__name__)
NAME = "dualcast-older"
"""In CLIENT LIST."""
PING_EVERY_S = 5.0
Heard = Callable[[bytes, bytes], None]
"""(channel, payload); must not raise."""


class _Ear(Link):
    """A link that, once `hear` was called, takes everything as pushes."""

    def __init__(self, heard: Heard, stale_s: float) -> None:
        super().__init__()
        self._heard = heard
        self._stale_s = stale_s
        self._loop = asyncio.get_running_loop()
        self._read_at = self._loop.time()
        self._due = 0
        self._hearing = False
        self.all_confirmed: asyncio.Future[None] = self._loop.create_future()
        self.stale = False

    def hear(self, channels: Sequence[str], patterns: Sequence[str]) -> None:
        """Subscribes. Raises LinkLost."""
        self._hearing = True
        self._due = len(channels) + len(patterns)
        if channels:
            self.send(pack("SUBSCRIBE", *channels))
        if patterns:
            self.send(pack("PSUBSCRIBE", *patterns))

    def data_received(self, data: bytes) -> None:
        now = self._loop.time()
        if now - self._read_at > self._stale_s:
            # A ping is answered every few seconds: the process stood still. What waited in the socket so long
            # may have been forgotten by those who know what was taken in.
            self.stale = True
            self.abort()
            return
        self._read_at = now
        if not self._hearing:
            super().data_received(data)
            return
        self.received += 1
        try:
            self._feed(data)
            while (reply := self._gets()) is not False:
                kind = reply[0]
                if kind == b"pmessage":
                    self._heard(reply[2], reply[3])
                elif kind == b"message":
                    self._heard(reply[1], reply[2])
                elif kind in (b"subscribe", b"psubscribe"):
                    self._due -= 1
                    if not self._due and not self.all_confirmed.done():
                        self.all_confirmed.set_result(None)
        except (hiredis.HiredisError, TypeError, IndexError):
            self.abort()


class Listening:
    """See the module docstring. `run` is owned by the application, one at a time. `dialer`: the bus's.

    `stale_s`: what waited longer than this in a process that stood still is left to others.
    """

    def __init__(
        self,
        settings: RedisSettings,
        *,
        channels: Sequence[str] = (),
        patterns: Sequence[str] = (),
        stale_s: float = 40.0,
        dialer: Dialer | None = None,
    ) -> None:
        self._settings = settings
        self._dialer = dialer or open_dialer(settings)
        self._channels = tuple(channels)
        self._patterns = tuple(patterns)
        self._stale_s = stale_s
        self._ear: _Ear | None = None
        self.resubscribes = 0
        """Times everything was subscribed to."""
        self.failures = 0
        """Connections that could not be made or subscribed, and those that ended."""
        self.stale = 0
        """Connections given up because the process had stood still."""

    @property
    def up(self) -> bool:
        """Everything is subscribed to."""
        return self._ear is not None and self._ear.up

    async def run(self, heard: Heard, opened: Callable[[int], None]) -> NoReturn:
        """Hears until cancelled. `opened` is called before the first message of each subscription with the
        server's time (Unix microseconds) just before it began."""
        settings = self._settings
        pause = 0.0
        away = False
        while True:
            ear: _Ear | None = None
            try:
                ear = await self._dialer.dial(lambda: _Ear(heard, self._stale_s), NAME, settings.connect_s)
                async with asyncio.timeout(settings.command_s):
                    seconds, micros = await ear.ask("TIME")
                    opened(int(seconds) * 1_000_000 + int(micros))
                    ear.hear(self._channels, self._patterns)
                    await asyncio.wait({ear.all_confirmed, ear.lost}, return_when=asyncio.FIRST_COMPLETED)
                if not ear.up:
                    raise LinkLost
                self._ear = ear
                self.resubscribes += 1
                pause = 0.0
                if away:
                    away = False
                    _log.info("the names of older backends are heard again")
                await self._until_lost(ear)
            except (LinkLost, TimeoutError, ValueError):
                pass
            finally:
                self._ear = None
                if ear is not None:
                    self.stale += ear.stale
                    ear.abort()
            self.failures += 1
            if not away:
                away = True
                _log.warning("the names of older backends are not heard now: what they publish may be lost")
            await asyncio.sleep(pause * (0.5 + random.random() / 2))  # noqa: S311 — jitter
            pause = min(settings.backoff_max_s, max(settings.backoff_min_s, pause * 2))

    async def _until_lost(self, ear: _Ear) -> None:
        """Until the connection ends, or has brought nothing, not even the answer to a ping, for two pings."""
        silent = 0
        while ear.up:
            seen = ear.received
            ear.send(pack("PING"))
            await asyncio.wait({ear.lost}, timeout=PING_EVERY_S)
            silent = silent + 1 if ear.received == seen else 0
            if silent >= 2:
                return
