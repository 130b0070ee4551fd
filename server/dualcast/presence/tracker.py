"""The node's side of presence: sessions say that they changed, a loop tells the store in batches, keeps the
leases and takes dead nodes off.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Coroutine
from typing import Any, NoReturn

import structlog

from dualcast.bus.announcing import Announcer
from dualcast.model.errors import BusUnavailable

from .announcing import Announcements
from .devices import KINDS
from .ledger import Ledger, Tracked
from .port import Batch, PresenceSettings, PresenceStore
from .reaping import Reaper

log = structlog.get_logger("dualcast.presence")


class Tracker:
    """One per node. `changed` is called by sessions, `run` is the loop, `close` takes everything off.

    `node`: the node's id, which begins the ids of its connections. `clock` gives Unix seconds,
    `monotonic` seconds. Must be made on the running loop.
    """

    def __init__(
        self,
        store: PresenceStore,
        announcer: Announcer,
        settings: PresenceSettings | None = None,
        *,
        node: str,
        clock: Callable[[], float] = time.time,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._store = store
        self._settings = settings or PresenceSettings()
        self._announcements = Announcements(announcer, self._settings)
        self._node = node
        self._clock = clock
        self._now = monotonic
        self._loop = asyncio.get_running_loop()
        self._dirty: dict[Tracked, None] = {}
        self._ledgers: dict[str, Ledger] = {}
        self._reaping: set[str] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        self._overdue_at = 0.0
        self._looking = False
        self._away = False
        self.told: Callable[[str, Batch], None] = _nothing
        """Called with every (tenant, batch) the store has taken; must not wait or raise."""
        self.failures = 0
        """Calls of the store that failed."""
        self.lost = 0
        """Leases that were lost: the node was paused too long, or Redis was restarted or flushed."""
        self._reaper = Reaper(store, self._announcements, self._settings, node=node, now=monotonic)

    def changed(self, session: Tracked) -> None:
        """A session came, went, or changed its channels. Looked at with the next flush. Nobody is present by
        an anonymous connection (of a legacy contract)."""
        if session.principal.sub:
            self._dirty[session] = None

    async def run(self) -> NoReturn:
        """Flushes, renews and reaps, for ever."""
        try:
            while True:
                await asyncio.sleep(self._settings.flush_s)
                self.tick()
        finally:
            for task in self._tasks:
                task.cancel()

    def tick(self) -> None:
        """Begins whatever is due now; tenants do not wait for one another."""
        self._collect()
        now = self._now()
        for ledger in list(self._ledgers.values()):
            if not ledger.busy and now >= ledger.retry_at and (ledger.pending or now >= ledger.renew_at):
                self._begin(ledger)
        if now >= self._overdue_at and not self._looking:
            self._overdue_at = now + self._settings.renew_s
            self._looking = True
            self._spawn(self._look())

    async def settle(self, tenant: str) -> None:
        """Tells what this node knows of a tenant, so that a question that follows sees it; takes at most
        about `settle_s`, and nothing when there is nothing to tell."""
        self._collect()
        ledger = self._ledgers.get(tenant)
        for _ in range(2):  # a round that is under way may be past the telling
            if ledger is None or not ledger.pending:
                return
            if not ledger.busy:
                if self._now() < ledger.retry_at:
                    return
                self._begin(ledger)
            if ledger.round is not None:
                await asyncio.wait({ledger.round}, timeout=self._settings.settle_s)

    async def flush(self) -> None:
        """Tells everything there is to tell; what the store does not take is told later by `run`."""
        self._collect()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        for ledger in list(self._ledgers.values()):
            if not ledger.busy and (ledger.pending or ledger.idle):
                self._begin(ledger)
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def close(self) -> None:
        """Takes everything of this node off, within `close_s`; `run` must have been cancelled."""
        self._collect()
        try:
            async with asyncio.timeout(self._settings.close_s):
                for task in self._tasks:
                    task.cancel()
                await asyncio.gather(*self._tasks, return_exceptions=True)
                for ledger in self._ledgers.values():
                    ledger.busy = False
                    ledger.mark_all_gone()
                await self.flush()
        except TimeoutError:
            for task in self._tasks:
                task.cancel()
        left = sum(ledger.pending for ledger in self._ledgers.values())
        if left:
            log.warning("presence was not taken off; it ends with the lease", changes=left)

    def gauges(self) -> dict[str, float]:
        """For `/metrics`. `presence_users` and `presence_users_<kind>` are of all nodes, summed over the
        tenants this node serves, as of the last renewal; the rest is of this node."""
        ledgers = self._ledgers.values()
        kinds = {
            f"presence_users_{kind}": float(sum(ledger.devices.get(kind, 0) for ledger in ledgers))
            for kind in KINDS
        }
        return {
            "presence_users": float(sum(ledger.users for ledger in ledgers)),
            **kinds,
            "presence_connections": float(sum(len(ledger.held) for ledger in ledgers)),
            "presence_pending": float(len(self._dirty) + sum(ledger.pending for ledger in ledgers)),
            "presence_unannounced": float(self._announcements.waiting),
            "presence_dropped": float(self._announcements.dropped),
            "presence_failures": float(self.failures),
            "presence_leases_lost": float(self.lost),
            "presence_nodes_reaped": float(self._reaper.reaped),
        }

    # ── one tenant ──

    def _collect(self) -> None:
        dirty, self._dirty = self._dirty, {}
        for session in dirty:
            tenant = session.principal.tenant
            ledger = self._ledgers.get(tenant)
            if ledger is None:
                if session.closed:
                    continue
                ledger = self._ledgers[tenant] = Ledger(tenant)
            ledger.mark(session)

    def _begin(self, ledger: Ledger) -> None:
        ledger.busy = True
        ledger.round = self._spawn(self._work(ledger))

    def _spawn(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        task = self._loop.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._finished)
        return task

    def _finished(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            log.error("presence failed", exc_info=error)

    async def _work(self, ledger: Ledger) -> None:
        """One round of a tenant: changes, strays, lease."""
        ledger.retry_at = self._now() + self._settings.retry_s
        try:
            await self._tell(ledger)
            while ledger.strays:
                await self._find_strays(ledger)
                await self._tell(ledger)
            if ledger.idle or self._now() >= ledger.renew_at:
                await self._renew(ledger)
            ledger.retry_at = 0.0
            self._away = False
        except BusUnavailable:
            self.failures += 1
            if not self._away:
                self._away = True
                log.warning("presence cannot be stored now", tenant=ledger.tenant)
        finally:
            ledger.busy = False
        await self._announce(ledger.tenant)

    async def _tell(self, ledger: Ledger) -> None:
        settings, tenant = self._settings, ledger.tenant
        started_s = self._clock() - self._loop.time()
        while True:
            if ledger.batch is None:
                ledger.batch = ledger.next_batch(settings, self._node, started_s)
            if ledger.batch is None:
                return
            outcome = await self._store.change(
                tenant, self._node, ledger.batch, hold_ms=settings.hold_ms, claim=ledger.claim
            )
            self._reaper.reached()
            if outcome.lost:
                self._lost(ledger)
                continue
            if ledger.claim:
                ledger.renew_at = self._now() + settings.renew_s
            batch, ledger.batch = ledger.batch, None
            ledger.claim = False
            self.told(tenant, batch)
            self._announcements.add(tenant, outcome.deltas)
            await self._announce(tenant)

    async def _find_strays(self, ledger: Ledger) -> None:
        cursor = "0"
        while True:
            cursor, found = await self._store.held(ledger.tenant, self._node, cursor)
            ledger.leave_strays(found)
            if cursor == "0":
                break
        ledger.strays = False

    async def _renew(self, ledger: Ledger) -> None:
        settings = self._settings
        idle = ledger.idle
        renewed = await self._store.renew(ledger.tenant, self._node, hold_ms=settings.hold_ms, idle=idle)
        self._reaper.reached()
        ledger.renew_at = self._now() + settings.renew_s
        ledger.users, ledger.devices = renewed.users, renewed.devices
        if renewed.lost:
            self._lost(ledger)
            await self._tell(ledger)
        elif idle:
            ledger.claim = True
            if ledger.idle:
                self._ledgers.pop(ledger.tenant, None)
        if renewed.expired and ledger.tenant not in self._reaping:
            # Beside the round: this node's own lease must not wait for it.
            self._reaping.add(ledger.tenant)
            self._spawn(self._reap(ledger.tenant))

    def _lost(self, ledger: Ledger) -> None:
        self.lost += 1
        log.warning("the presence lease was lost; registering again", tenant=ledger.tenant)
        ledger.lost()

    async def _announce(self, tenant: str) -> None:
        try:
            await self._announcements.send(tenant)
        except BusUnavailable:
            self.failures += 1  # they wait; the next round tries again

    # ── dead nodes ──

    async def _look(self) -> None:
        try:
            await self._reaper.look([ledger.tenant for ledger in self._ledgers.values() if ledger.held])
            for tenant in self._announcements.tenants:
                await self._announce(tenant)
        except BusUnavailable:
            self.failures += 1
        finally:
            self._looking = False

    async def _reap(self, tenant: str) -> None:
        try:
            await self._reaper.reap(tenant)
        except BusUnavailable:
            self.failures += 1
        finally:
            self._reaping.discard(tenant)


def _nothing(tenant: str, batch: Batch) -> None: ...
