"""The master as the sentinels name it, and the links to it.

In: addresses of sentinels, the name of the service. Out: links to the server that is master, found anew for
each connection; links to a master that was replaced are ended. One connection per sentinel, kept.

A replaced master may go on as master for ten seconds, until the sentinels demote it: what it takes then is
lost. So `run` asks them all the time.

All sentinels are asked at once, and of what more than half of them say the newest counts (`config-epoch`):
one that was cut off from the others still names the old master.
"""

from __future__ import annotations

import asyncio
import logging
import re
import time
from collections.abc import Callable
from functools import partial
from typing import NoReturn

from msgspec import Struct
from msgspec.structs import replace

from .options import RedisSettings
from .wire import Address, L, Link, LinkLost, open_link, parse_address

_log = logging.getLogger(__name__)
NAME = "dualcast-sentinel"
"""In CLIENT LIST of a sentinel."""
PORT = 26_379
WATCH_EVERY_S = 0.5
ASK_EVERY_S = 0.2
"""An answer so young is given to whoever asks next: all links of a node break at once."""
_PLACE = re.compile(r"^(?:\[([0-9A-Fa-f:.]+)\]|([^\[\]:]+))(?::(\d{1,5}))?$")


class Named(Struct, frozen=True):
    """What a sentinel says."""

    host: str
    port: int
    epoch: int = 0
    """Of the configuration; every failover has a higher one."""
    sentinels: int = 1
    """How many there are, as far as this one knows."""


def parse_place(text: str) -> tuple[str, int]:
    """Host and port of `host`, `host:port` or `[v6]:port`. Raises ValueError."""
    found = _PLACE.match(text)
    if found is None or int(found[3] or 0) > 65_535:
        raise ValueError(f"a sentinel is host:port, not {text!r}")
    return found[1] or found[2], int(found[3] or PORT)


class Sentinels:
    """A `Dialer`. Of the URL count user, password, database and TLS, which is for the sentinels, too. Raises
    ValueError for settings that cannot be."""

    def __init__(self, settings: RedisSettings) -> None:
        self._template = parse_address(settings.url)
        if self._template.path:
            raise ValueError("sentinels name hosts: the url cannot be a unix socket")
        self._service = settings.service
        self._timeout_s = settings.connect_s
        self.places = tuple(
            Address(
                host=host,
                port=port,
                username=settings.sentinel_username,
                password=settings.sentinel_password,
                tls=self._template.tls,
            )
            for host, port in map(parse_place, settings.sentinels)
        )
        self._asking = asyncio.Lock()
        self._asked_at = -ASK_EVERY_S
        self._master: Named | None = None
        """By the last answer; None: there was none."""
        self._links: dict[Link, Named] = {}
        self._lines: dict[Address, Link] = {}
        """To sentinels."""
        self._asks: dict[Address, asyncio.Task[Named]] = {}
        """Questions without an answer yet; one at a time per sentinel."""
        self._closed = False

    async def dial(self, factory: Callable[[], L], name: str, timeout_s: float) -> L:
        master = await self.master()
        address = replace(self._template, host=master.host, port=master.port)
        link = await open_link(address, factory, name, timeout_s)
        try:
            async with asyncio.timeout(timeout_s):
                role = await link.ask("ROLE")
            if role[0] != b"master":
                raise LinkLost  # sentinels have not heard of it yet, or it has not heard of them
        except BaseException:
            link.abort()
            raise
        self._links[link] = master
        link.lost.add_done_callback(lambda _: self._links.pop(link, None))
        return link

    @property
    def connections(self) -> int:
        return sum(line.up for line in self._lines.values())

    def is_demoted(self, error: str) -> bool:
        # Redis 6 wraps the error of a command in one of the script.
        return "READONLY " in error or "MASTERDOWN " in error

    async def run(self) -> NoReturn:
        while True:
            await asyncio.sleep(WATCH_EVERY_S)
            try:
                await self.master()
            except LinkLost:
                continue  # without sentinels the master may be well

    async def close(self) -> None:
        self._closed = True
        for task in self._asks.values():
            task.cancel()
        await asyncio.gather(*self._asks.values(), return_exceptions=True)
        for line in self._lines.values():
            line.abort()

    async def master(self) -> Named:
        """The master now, or by an answer just given. Raises LinkLost when no sentinel names one."""
        async with self._asking:
            if time.monotonic() - self._asked_at >= ASK_EVERY_S:
                self._master = await self._newest()
                self._asked_at = time.monotonic()
                self._leave()
        if self._master is None:
            raise LinkLost
        return self._master

    def is_left(self, master: Named) -> bool:
        """Whether a failover later than `master` is known of."""
        known = self._master
        return known is not None and known.epoch > master.epoch and _place(known) != _place(master)

    async def ask(self, sentinel: Address) -> Named:
        """What one of `places` says. Raises LinkLost, also when it knows no such service."""
        line = self._lines.get(sentinel)
        if line is None or not line.up:
            line = self._lines[sentinel] = await open_link(sentinel, Link, NAME, self._timeout_s / 2)
        try:
            async with asyncio.timeout(self._timeout_s / 2):
                # The promoted replica is named here a moment before MASTER shows it.
                place = await line.ask("SENTINEL", "GET-MASTER-ADDR-BY-NAME", self._service)
                flat = await line.ask("SENTINEL", "MASTER", self._service)
            facts = dict(zip(flat[::2], flat[1::2], strict=True))
            return Named(
                place[0].decode(),
                int(place[1]),
                int(facts[b"config-epoch"]),
                int(facts[b"num-other-sentinels"]) + 1,
            )
        except (TimeoutError, TypeError, ValueError, IndexError, KeyError, AttributeError):
            line.abort()
            raise LinkLost from None
        except asyncio.CancelledError:
            line.abort()  # its answer would be the next one's
            raise

    def _leave(self) -> None:
        for link, master in list(self._links.items()):
            if self.is_left(master):
                link.abort()

    def _answered(self, place: Address, task: asyncio.Task[Named]) -> None:
        del self._asks[place]
        if not task.cancelled() and not isinstance(task.exception(), LinkLost | None):
            _log.error("a sentinel's answer is not understood", exc_info=task.exception())

    async def _newest(self) -> Named | None:
        if self._closed:
            return None
        for place in self.places:
            if place not in self._asks:
                # The late ones go on: a question that is broken off costs its connection.
                task = self._asks[place] = asyncio.create_task(self.ask(place))
                task.add_done_callback(partial(self._answered, place))
        found: list[Named] = []
        pending: set[asyncio.Task[Named]] = set(self._asks.values())
        while pending and len(found) * 2 <= len(self.places):
            done, pending = await asyncio.wait(pending, return_when=asyncio.FIRST_COMPLETED)
            found += [task.result() for task in done if not task.cancelled() and task.exception() is None]
        return max(found, key=lambda named: named.epoch, default=None)


def _place(named: Named) -> tuple[str, int]:
    return named.host, named.port
