"""Copies of what dualcast publishes, on the names of older backends: said once, by the node that appended.

`CopyingBus` stands in front of the bus. Why here: a follower sees only channels somebody watches on its node,
and the user a copy is for is connected nowhere here; and of all nodes exactly one gets a receipt that is no
duplicate. What comes in from older backends is appended to the bus behind it, so nothing of theirs is ever
said again.

A copy is never awaited by a publisher and never fails a publication. Like everything on these names it may be
lost: with its node, or when Redis stays away.
"""

from __future__ import annotations

import asyncio
import logging
import secrets
from collections import deque
from collections.abc import Callable, Sequence
from typing import NoReturn, Protocol

from msgspec import Struct

from dualcast.bus.port import EventBus, Follower, Health
from dualcast.model.cursor import Cursor
from dualcast.model.errors import BusUnavailable, DualcastError
from dualcast.model.publication import Draft, Page, Quota, Receipt

from .legacy_redis import Copy, OlderRedis, Publish
from .quiet import Quiet

_log = logging.getLogger(__name__)
AT_ONCE = 200
"""Copies in one call of Redis."""
AT_ONCE_BYTES = 512 * 1024
TOGETHER = 50
"""Targets of publications whose copies are made and said together."""


class CopySettings(Struct, frozen=True, kw_only=True):
    """Bounds of what waits to be said."""

    max_waiting: int = 50_000
    """Publications; beyond, the oldest are dropped and counted."""
    max_bytes: int = 16 * 1024 * 1024
    patience_s: float = 10.0
    """How long a copy waits for Redis to come back; later it would be no news."""
    retry_s: float = 0.2
    close_s: float = 3.0
    """How long closing may take to say what waits."""


class CopySource(Protocol):
    """Which copies a publication has."""

    types: frozenset[str]
    """Event types it looks at."""

    def wants(self) -> bool:
        """Whether it copies anything now. Never waits."""
        ...

    async def copies(self, draft: Draft) -> Sequence[Copy]:
        """Raises BusUnavailable: tried again."""
        ...


class Outbox:
    """What waits to be said, and the loop that says it. `sources` may be added until `run` begins."""

    def __init__(
        self, redis: OlderRedis, settings: CopySettings | None = None, *, sources: Sequence[CopySource] = ()
    ) -> None:
        self._redis = redis
        self._settings = settings or CopySettings()
        self._sources: dict[str, list[CopySource]] = {}
        self._waiting: deque[Draft | Sequence[Copy]] = deque()
        self._saying: tuple[list[Draft | Sequence[Copy]], str] | None = None
        """What is being said, and its token."""
        self._bytes = 0
        self._changed = asyncio.Event()
        self._may_log = Quiet()
        self.said = 0
        """Copies published."""
        self.dropped = 0
        """Publications without their copies: too many waited, or Redis stayed away."""
        for source in sources:
            self.add(source)

    @property
    def waiting(self) -> int:
        return len(self._waiting)

    def add(self, source: CopySource) -> None:
        """`source` is asked about every publication of its types."""
        for kind in source.types:
            self._sources.setdefault(kind, []).append(source)

    def appended(self, draft: Draft) -> None:
        """Takes a publication that is new in the log; never waits or raises."""
        if any(source.wants() for source in self._sources.get(draft.type, ())):
            self._put(draft)

    def put(self, copies: Sequence[Copy]) -> None:
        """Takes copies as they are; never waits or raises."""
        if copies:
            self._put(copies)

    def _put(self, item: Draft | Sequence[Copy]) -> None:
        self._waiting.append(item)
        self._bytes += _size(item)
        while len(self._waiting) > self._settings.max_waiting or self._bytes > self._settings.max_bytes:
            self._bytes -= _size(self._waiting.popleft())
            self.dropped += 1
            if self._may_log():
                _log.warning("more is published than can be copied: %d copies dropped so far", self.dropped)
        self._changed.set()

    async def run(self) -> NoReturn:
        """Says what waits, oldest first, until cancelled."""
        while True:
            if self._saying is None and not self._waiting:
                self._changed.clear()
                await self._changed.wait()
            await self._next()

    async def close(self) -> None:
        """Says what waits, within `close_s`; `run` must have been cancelled."""
        try:
            async with asyncio.timeout(self._settings.close_s):
                while self._saying is not None or self._waiting:
                    await self._next()
        except TimeoutError:
            left = len(self._waiting) + len(self._saying[0] if self._saying else ())
            self.dropped += left
            _log.warning("%d publications were not copied to older backends: the server stops", left)

    async def _next(self) -> None:
        """Says some of what waits. Cancelled, it is begun again by the next call, under its token."""
        if self._saying is None:
            self._saying = (self._take(), secrets.token_hex(12))
        items, token = self._saying
        until = asyncio.get_running_loop().time() + self._settings.patience_s
        while True:
            try:
                await self._say(await self._copies(items), token)
                break
            except BusUnavailable:
                if asyncio.get_running_loop().time() > until:
                    self._give_up(len(items))
                    break
                await asyncio.sleep(self._settings.retry_s)
            except Exception:  # noqa: BLE001 — a loop's edge: one odd call must not end all copies
                _log.exception("copies for older backends could not be made")
                self.dropped += len(items)
                break
        self._saying = None

    def _take(self) -> list[Draft | Sequence[Copy]]:
        """The oldest that wait, about TOGETHER targets: a call for each would be slower than publishing."""
        items: list[Draft | Sequence[Copy]] = []
        targets = 0
        while self._waiting and targets < TOGETHER:
            item = self._waiting.popleft()
            self._bytes -= _size(item)
            targets += len(item.channels) if isinstance(item, Draft) else len(item)
            items.append(item)
        return items

    async def _copies(self, items: Sequence[Draft | Sequence[Copy]]) -> list[Copy]:
        """In order. Raises BusUnavailable."""
        copies: list[Copy] = []
        made = await asyncio.gather(*map(self._copies_of, items), return_exceptions=True)
        for one in made:
            if isinstance(one, BaseException):
                raise one
            copies += one
        return copies

    async def _copies_of(self, item: Draft | Sequence[Copy]) -> Sequence[Copy]:
        if not isinstance(item, Draft):
            return item
        try:
            return [copy for source in self._sources[item.type] for copy in await source.copies(item)]
        except BusUnavailable:
            raise
        except Exception:  # noqa: BLE001 — one odd publication must not take others with it
            _log.exception("a copy for older backends could not be made")
            self.dropped += 1
            return ()

    async def _say(self, copies: Sequence[Copy], token: str) -> None:
        part: list[Copy] = []
        size = number = 0
        for copy in copies:
            part.append(copy)
            size += len(copy.payload) if isinstance(copy, Publish) else 200
            if len(part) >= AT_ONCE or size >= AT_ONCE_BYTES:
                await self._say_part(part, f"{token}-{number}")
                part, size, number = [], 0, number + 1
        if part:
            await self._say_part(part, f"{token}-{number}")

    async def _say_part(self, part: Sequence[Copy], token: str) -> None:
        """One call under one token: that it comes again is no second copy."""
        loop = asyncio.get_running_loop()
        until = loop.time() + self._settings.patience_s
        while True:
            try:
                await self._redis.say(part, token)
            except BusUnavailable:
                if loop.time() > until:
                    self._give_up()
                    return
                await asyncio.sleep(self._settings.retry_s)
            else:
                self.said += len(part)
                return

    def _give_up(self, count: int = 1) -> None:
        self.dropped += count
        if self._may_log():
            _log.warning("no Redis for copies to older backends: %d dropped so far", self.dropped)


def _size(item: Draft | Sequence[Copy]) -> int:
    if isinstance(item, Draft):
        return len(item.data) + 200
    return sum(len(copy.payload) if isinstance(copy, Publish) else 200 for copy in item)


class CopyingBus:
    """An EventBus that tells `appended` of every publication of `tenant` that is new in the log."""

    def __init__(self, bus: EventBus, tenant: str, appended: Callable[[Draft], None]) -> None:
        self._bus = bus
        self._tenant = tenant
        self._appended = appended

    async def start(self, follower: Follower) -> None:
        await self._bus.start(follower)

    async def close(self) -> None:
        await self._bus.close()

    async def append(self, draft: Draft, quota: Quota | None = None) -> Receipt:
        receipt = await self._bus.append(draft, quota)
        if not receipt.duplicate and draft.tenant == self._tenant:
            self._appended(draft)
        return receipt

    async def append_many(
        self, drafts: Sequence[Draft], quota: Quota | None = None
    ) -> list[Receipt | DualcastError]:
        results = await self._bus.append_many(drafts, quota)
        for draft, result in zip(drafts, results, strict=True):
            if (
                draft.tenant == self._tenant
                and not isinstance(result, DualcastError)
                and not result.duplicate
            ):
                self._appended(draft)
        return results

    async def read(self, tenant: str, channels: Sequence[str], after: int, limit: int) -> Page:
        return await self._bus.read(tenant, channels, after, limit)

    async def head(self, tenant: str) -> Cursor:
        return await self._bus.head(tenant)

    async def known_epoch(self, tenant: str, epoch: str) -> bool:
        return await self._bus.known_epoch(tenant, epoch)

    def watch(self, tenant: str, channel: str) -> None:
        self._bus.watch(tenant, channel)

    def unwatch(self, tenant: str, channel: str) -> None:
        self._bus.unwatch(tenant, channel)

    async def probe(self) -> Health:
        return await self._bus.probe()

    def stats(self) -> dict[str, float]:
        return self._bus.stats()
