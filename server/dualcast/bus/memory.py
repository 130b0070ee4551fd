"""The memory engine: one process, nothing kept. For tests and `serve --ephemeral`.

Durability: none, a restart is a new epoch. Order, idempotency, history, gaps and quotas as every engine has
them.
"""

from __future__ import annotations

import asyncio
import time
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

from msgspec.structs import replace

from dualcast.model.cursor import Cursor
from dualcast.model.errors import BusUnavailable, DualcastError
from dualcast.model.inbox import Badge
from dualcast.model.publication import Draft, Entry, Page, Quota, Receipt

from .history import TenantLog
from .keeping import Keeping, keeping
from .live import LiveFeed
from .memory_database import MemoryDatabase
from .port import Follower, Health, Retention
from .quota import Quotas
from .record import publication_of
from .rules import badges_first, check_draft, check_repeat, is_remembered, new_epoch, remember_key
from .storage import SqlPart

MAX_PAGE_BYTES = 4 * 1024 * 1024
YIELD_DEPTH = 512
"""An append lets the loop run when this many entries wait for the follower, so a busy publisher cannot
pile them up.
"""
SWEEP_S = 10.0


class _Remembered(NamedTuple):
    offset: int
    id: str
    fingerprint: str
    until_s: float


class MemoryBus:
    """`EventBus` in this process. `max_heads` bounds the channels remembered per tenant, `max_remembered`
    the ids of all.

    When more than `max_remembered` ids come within the idempotency window, the oldest are forgotten early.
    `parts`: what other rooms keep beside the log, in `database`. `clock` gives Unix seconds.
    """

    def __init__(
        self,
        retention: Retention | Keeping | None = None,
        *,
        max_heads: int = 100_000,
        max_remembered: int = 500_000,
        parts: Sequence[SqlPart] = (),
        clock: Callable[[], float] = time.time,
    ) -> None:
        self.database = MemoryDatabase(parts)
        self._keeping = keeping(retention)
        self._max_heads = max_heads
        self._max_remembered = max_remembered
        self._clock = clock
        self._tenants: dict[str, TenantLog] = {}
        self._remembered: OrderedDict[tuple[str, str], _Remembered] = OrderedDict()
        self._quotas = Quotas(clock)
        self._feed = LiveFeed(self._position)
        self._sweep: asyncio.TimerHandle | None = None
        self._open = False
        self._appended = 0
        self._duplicates = 0

    async def start(self, follower: Follower) -> None:
        self.database.open()
        self._open = True
        self._feed.start(follower)
        self._sweep = asyncio.get_running_loop().call_later(SWEEP_S, self._tidy)

    async def close(self) -> None:
        if self._sweep is not None:
            self._sweep.cancel()
            self._sweep = None
        if self._open:
            self._feed.stop()
            self._open = False
            self.database.close()

    async def append(self, draft: Draft, quota: Quota | None = None) -> Receipt:
        self._check_open()
        receipt = self._append(draft, quota)
        if self._feed.depth >= YIELD_DEPTH:
            await asyncio.sleep(0)
        return receipt

    async def append_many(
        self, drafts: Sequence[Draft], quota: Quota | None = None
    ) -> list[Receipt | DualcastError]:
        results: list[Receipt | DualcastError] = []
        for draft in drafts:
            try:
                results.append(await self.append(draft, quota))
            except DualcastError as error:
                results.append(error)
        return results

    async def read(self, tenant: str, channels: Sequence[str], after: int, limit: int) -> Page:
        self._check_open()
        now_ms = int(self._clock() * 1000)
        return self._log(tenant).read(channels, after, limit, now_ms, MAX_PAGE_BYTES)

    async def head(self, tenant: str) -> Cursor:
        self._check_open()
        return self._position(tenant)

    async def known_epoch(self, tenant: str, epoch: str) -> bool:
        log = self._tenants.get(tenant)
        return log is not None and log.epoch == epoch

    def watch(self, tenant: str, channel: str) -> None:
        self._feed.watch(tenant, channel)

    def unwatch(self, tenant: str, channel: str) -> None:
        self._feed.unwatch(tenant, channel)

    async def probe(self) -> Health:
        if not self._open:
            return Health(False, "memory", detail="closed")
        echo_s = await self._feed.echo()
        return Health(echo_s is not None, "memory", command_s=0.0, echo_s=echo_s)

    def stats(self) -> dict[str, float]:
        return {
            "appended": self._appended,
            "duplicates": self._duplicates,
            "watched_channels": self._feed.watched,
            "held_entries": self._feed.depth,
            "tenants": len(self._tenants),
            "channels": sum(map(len, self._tenants.values())),
            "remembered": len(self._remembered),
        }

    def _check_open(self) -> None:
        if not self._open:
            raise BusUnavailable("the bus is closed")

    def _log(self, tenant: str) -> TenantLog:
        log = self._tenants.get(tenant)
        if log is None:
            log = self._tenants[tenant] = TenantLog(new_epoch(), self._keeping.most, self._max_heads)
        log.retention = self._keeping.of(tenant)
        return log

    def _position(self, tenant: str) -> Cursor:
        log = self._log(tenant)
        return Cursor(log.epoch, log.top)

    def _append(self, draft: Draft, quota: Quota | None) -> Receipt:
        check_draft(draft)
        tenant = draft.tenant
        log = self._log(tenant)
        now = self._clock()
        key = (tenant, remember_key(draft))
        known = self._remembered.get(key)
        if known is not None and known.until_s > now:
            receipt = check_repeat(draft, known.fingerprint, log.epoch, known.offset, known.id)
            self._duplicates += 1
            return receipt
        refused = self._quotas.take(tenant, quota)
        if refused is not None:
            raise refused
        offset = 0 if draft.ephemeral else log.top + 1
        badges: Mapping[str, Badge] | None = None
        if draft.inbox is not None or draft.push is not None:
            badges = self.database.ride(draft, offset, int(now * 1000))
        entries: list[Entry]
        if draft.ephemeral:
            publication = publication_of(draft, log.epoch, 0)
            entries = [Entry(publication, channel, 0) for channel in draft.channels]
        else:
            log.top = offset
            publication = publication_of(draft, log.epoch, offset)
            channels = draft.channels if not badges else badges_first(draft)
            entries = [Entry(publication, channel, log.prev(channel)) for channel in channels]
            if badges:
                for entry in entries:
                    if (badge := badges.get(entry.channel)) is not None:
                        entry.publication = replace(publication, badge=badge)
            at_ms = int(now * 1000)
            for entry in entries:
                log.append(entry, at_ms)
            log.forget(at_ms)
        if is_remembered(draft):
            self._remember(
                key, _Remembered(offset, draft.id, draft.fingerprint, now + self._keeping.most.idempotency_s)
            )
        self._appended += 1
        watched = self._feed.channels(tenant)
        if watched:
            self._feed.add(tenant, [entry for entry in entries if entry.channel in watched])
        return Receipt(log.epoch, offset, draft.id)

    def _remember(self, key: tuple[str, str], value: _Remembered) -> None:
        remembered = self._remembered
        remembered.pop(key, None)
        remembered[key] = value
        self._forget(value.until_s - self._keeping.most.idempotency_s, 2)

    def _forget(self, now_s: float, most: int) -> None:
        remembered = self._remembered
        for _ in range(most):
            if not remembered:
                return
            oldest = next(iter(remembered.values()))
            if oldest.until_s > now_s and len(remembered) <= self._max_remembered:
                return
            remembered.popitem(last=False)

    def _tidy(self) -> None:
        """Forgets what aged away while nobody appended."""
        now = self._clock()
        for log in map(self._log, self._tenants):
            log.forget(int(now * 1000), 1000)
        self._forget(now, 10_000)
        self._sweep = asyncio.get_running_loop().call_later(SWEEP_S, self._tidy)
