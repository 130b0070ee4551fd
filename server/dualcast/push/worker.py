"""The worker of a node: claims due jobs, tenant by tenant in turn, and hands them to the provider.

Nothing here is waited for by a publisher. A poked tenant is looked at once; every tenant that may have jobs
is looked at every `scan_s`, which finds the jobs of nodes that died.
"""

from __future__ import annotations

import asyncio
import heapq
import logging
import random
import secrets
from collections import OrderedDict
from collections.abc import Callable
from functools import partial
from typing import NoReturn

import msgspec

from dualcast.model.errors import BusUnavailable
from dualcast.model.push import decode_push

from .port import (
    ATTEMPTS,
    DEADLINE,
    MALFORMED,
    Claimed,
    Facts,
    Provider,
    PushJob,
    PushQueue,
    PushSettings,
    Refused,
    TryLater,
)

log = logging.getLogger("dualcast.push")
CLAIMED_AT_ONCE = 4
"""Jobs of one tenant before the next one has its turn."""
TIDY_S = 600.0
SETTLE_WAITS_S = (0.2, 1.0, 5.0)
"""A job that was sent but cannot be marked so would be sent again."""


class PushCounters:
    """What this node's worker did since its start."""

    __slots__ = ("dead", "failed", "lost", "retried", "sent")

    def __init__(self) -> None:
        self.sent = 0
        self.failed = 0
        """Attempts that failed, whatever became of the job."""
        self.retried = 0
        self.dead = 0
        self.lost = 0
        """Jobs whose end could not be stored, or whose lease had run out: sent again, by whoever."""

    @property
    def success_ratio(self) -> float:
        """Of the pushes that came to an end here, the part that was sent; 1.0 while there are none."""
        ended = self.sent + self.dead
        return self.sent / ended if ended else 1.0


class PushWorker:
    """One per node. `run` never returns; cancelling it gives calls under way `drain_s`, then their leases run
    out and another node sends again. `jitter` gives a random number below its argument.
    """

    def __init__(
        self,
        queue: PushQueue,
        provider: Provider,
        settings: PushSettings | None = None,
        *,
        jitter: Callable[[float], float] = lambda bound: random.uniform(0, bound),  # noqa: S311 - no secret
    ) -> None:
        self.settings = settings or PushSettings()
        if self.settings.lease_s <= self.settings.timeout_s:
            raise ValueError("push: lease_s must be more than timeout_s")
        self.counters = PushCounters()
        self._queue = queue
        self._provider = provider
        self._jitter = jitter
        self._ready: OrderedDict[str, None] = OrderedDict()
        self._looks: list[tuple[float, str]] = []
        self._planned: dict[str, float] = {}
        self._paused: dict[str, float] = {}
        self._busy: dict[str, int] = {}
        self._facts: dict[str, Facts] = {}
        self._flights: set[asyncio.Task[None]] = set()
        self._wake = asyncio.Event()

    def poke(self, tenant: str) -> None:
        """The tenant may have a due job. Does not wait; call it on the event loop."""
        self._ready[tenant] = None
        self._wake.set()

    async def run(self) -> NoReturn:
        """Works until it is cancelled. Failures of the engine are waited out."""
        loop = asyncio.get_running_loop()
        scan_at = tidy_at = loop.time()
        try:
            while True:
                self._wake.clear()
                now = loop.time()
                if now >= scan_at:
                    scan_at = now + self.settings.scan_s
                    tidy = now >= tidy_at
                    await self._scan(tidy=tidy)
                    tidy_at = now + TIDY_S if tidy else tidy_at
                tenant = self._next(loop.time())
                if tenant is not None:
                    await self._look_at(tenant)
                    continue
                until = min(scan_at, self._looks[0][0]) if self._looks else scan_at
                try:
                    async with asyncio.timeout_at(until):
                        await self._wake.wait()
                except TimeoutError:
                    pass
        finally:
            await self._drain()

    def gauges(self) -> dict[str, float]:
        """Plain numbers for `/metrics`. `queued`, `oldest_age_s` and the totals `accepted` and
        `skipped_online` are those of the shared queues, about the same on every node: take their maximum, not
        their sum."""
        c, facts = self.counters, list(self._facts.values())
        return {
            "push_sent": c.sent,
            "push_failed": c.failed,
            "push_retried": c.retried,
            "push_dead": c.dead,
            "push_lost": c.lost,
            "push_success_ratio": c.success_ratio,
            "push_in_flight": len(self._flights),
            "push_queued": sum(f.queued for f in facts),
            "push_accepted": sum(f.counts.get("queued", 0) for f in facts),
            "push_skipped_online": sum(f.counts.get("skipped", 0) for f in facts),
            "push_dead_letters": sum(f.dead for f in facts),
            "push_oldest_age_s": max(
                ((f.now_ms - f.oldest_ms) / 1000 for f in facts if f.oldest_ms), default=0.0
            ),
        }

    def _next(self, now: float) -> str | None:
        """The tenant whose turn it is, taken out of the line; None: nobody's."""
        while self._looks and self._looks[0][0] <= now:
            at, tenant = heapq.heappop(self._looks)
            if self._planned.get(tenant) == at:
                del self._planned[tenant]
                self._ready.setdefault(tenant, None)
        if len(self._flights) >= self.settings.concurrency:
            return None
        for tenant in list(self._ready):
            if self._paused.get(tenant, 0.0) > now:
                del self._ready[tenant]
                self._plan(tenant, self._paused[tenant])
            elif self._busy.get(tenant, 0) < self.settings.tenant_concurrency:
                del self._ready[tenant]
                self._paused.pop(tenant, None)
                return tenant
        return None

    def _plan(self, tenant: str, at: float) -> None:
        """Looks at the tenant at loop time `at`, at the latest."""
        if at < self._planned.get(tenant, float("inf")):
            self._planned[tenant] = at
            heapq.heappush(self._looks, (at, tenant))

    async def _scan(self, *, tidy: bool) -> None:
        try:
            if tidy:
                await self._queue.tidy()
            known = set(await self._queue.tenants())
            empty = [name for name, facts in self._facts.items() if name in known and not facts.queued]
            if empty:
                await self._queue.forget(empty)
        except BusUnavailable:
            return
        for tenant in list(self._facts):
            if tenant not in known and not self._busy.get(tenant):
                self._facts[tenant] = msgspec.structs.replace(self._facts[tenant], queued=0, oldest_ms=0)
        for tenant in sorted(known):
            self._ready.setdefault(tenant, None)

    async def _look_at(self, tenant: str) -> None:
        s = self.settings
        room = min(s.concurrency - len(self._flights), s.tenant_concurrency - self._busy.get(tenant, 0))
        limit = min(room, CLAIMED_AT_ONCE)
        try:
            claim = await self._queue.claim(tenant, limit, s.lease_s, secrets.token_hex(8))
        except BusUnavailable:
            self._plan(tenant, asyncio.get_running_loop().time() + s.scan_s)
            return
        self._facts[tenant] = claim.facts
        for job in claim.jobs:
            self._busy[tenant] = self._busy.get(tenant, 0) + 1
            flight = asyncio.create_task(self._fly(job, claim.facts.now_ms), name="push")
            self._flights.add(flight)
            flight.add_done_callback(partial(self._landed, tenant))
        wait_s = max(0.0, (claim.next_due_ms - claim.facts.now_ms) / 1000)
        if claim.next_due_ms:
            if wait_s == 0.0 or len(claim.jobs) == limit:
                self._ready.setdefault(tenant, None)
            else:
                self._plan(tenant, asyncio.get_running_loop().time() + min(wait_s, s.lease_s) + 0.001)

    async def _fly(self, job: Claimed, now_ms: int) -> None:
        """One job from its claim to its end; raises nothing."""
        started = asyncio.get_running_loop().time()
        try:
            await self._deliver(job, now_ms, started)
        except BusUnavailable:
            self.counters.lost += 1
        except Exception:
            self.counters.lost += 1
            log.exception("a push job failed unexpectedly")

    def _landed(self, tenant: str, flight: asyncio.Task[None]) -> None:
        """The flight has ended: its place is free before the worker looks again."""
        self._flights.discard(flight)
        self._busy[tenant] -= 1
        if not self._busy[tenant]:
            # One more look, for what came meanwhile and for figures that are right.
            del self._busy[tenant]
            self._ready.setdefault(tenant, None)
        self._wake.set()

    async def _deliver(self, job: Claimed, now_ms: int, started: float) -> None:
        if job.deadline_ms <= now_ms:
            return await self._bury(job, DEADLINE)
        if job.attempt > self.settings.max_attempts:
            return await self._bury(job, ATTEMPTS)
        try:
            message = decode_push(job.message)
        except msgspec.MsgspecError:
            return await self._bury(job, MALFORMED)
        push = PushJob(
            tenant=job.tenant,
            id=job.id,
            user=job.user,
            message=message,
            attempt=job.attempt,
            queued_ms=job.queued_ms,
            deadline_ms=job.deadline_ms,
        )
        try:
            await self._send(push)
        except Refused as refused:
            self.counters.failed += 1
            await self._bury(job, refused.reason)
        except TryLater as later:
            self.counters.failed += 1
            elapsed_s = asyncio.get_running_loop().time() - started
            await self._later(job, later, (job.deadline_ms - now_ms) / 1000 - elapsed_s)
        else:
            self.counters.sent += 1
            if not await self._sent(job):
                self.counters.lost += 1

    async def _send(self, push: PushJob) -> None:
        """Calls the provider. Raises Refused, TryLater, nothing else."""
        try:
            async with asyncio.timeout(self.settings.timeout_s):
                await self._provider.send(push)
        except (Refused, TryLater):
            raise
        except TimeoutError:
            raise TryLater("timeout") from None
        except asyncio.CancelledError:
            task = asyncio.current_task()
            if task is None or task.cancelling():
                raise
            # Not of ours: something inside of the provider was cancelled.
            raise TryLater("provider-error") from None
        except Exception as error:  # noqa: BLE001 - a provider may be anybody's code
            # Its message may hold what was pushed, so only the type is told.
            log.warning("push provider %s failed: %s", self._provider.name, type(error).__name__)
            raise TryLater("provider-error") from None

    async def _later(self, job: Claimed, later: TryLater, left_s: float) -> None:
        """Puts the job back, or buries it when no attempt is left, or no time."""
        s = self.settings
        if job.attempt >= s.max_attempts:
            return await self._bury(job, ATTEMPTS, later.reason)
        ceiling_s = min(s.backoff_max_s, s.backoff_min_s * 2.0 ** (job.attempt - 1))
        delay_s = self._jitter(min(ceiling_s, max(left_s, 0.0)))
        if later.retry_after_s is not None:
            # Not before, but later if need be: "0" again and again would be the end of all attempts at once.
            asked_s = min(max(later.retry_after_s, 0.0), s.backoff_max_s)
            self._pause(job.tenant, asked_s)
            delay_s = max(asked_s, delay_s)
        if delay_s >= left_s:
            return await self._bury(job, DEADLINE, later.reason)
        if await self._queue.retry(job, delay_s):
            self.counters.retried += 1
            self._plan(job.tenant, asyncio.get_running_loop().time() + delay_s + 0.001)
        else:
            self.counters.lost += 1

    def _pause(self, tenant: str, delay_s: float) -> None:
        until = asyncio.get_running_loop().time() + delay_s
        self._paused[tenant] = max(until, self._paused.get(tenant, 0.0))

    async def _bury(self, job: Claimed, reason: str, error: str = "") -> None:
        if not await self._queue.bury(job, reason, error):
            self.counters.lost += 1
            return
        self.counters.dead += 1
        log.warning(
            "push given up: tenant=%s id=%s reason=%s error=%s attempts=%d",
            job.tenant,
            job.id,
            reason,
            error or "-",
            job.attempt,
        )

    async def _sent(self, job: Claimed) -> bool:
        for wait_s in SETTLE_WAITS_S:
            try:
                return await self._queue.done(job)
            except BusUnavailable:
                await asyncio.sleep(wait_s)
        return await self._queue.done(job)

    async def _drain(self) -> None:
        if self._flights:
            await asyncio.wait(set(self._flights), timeout=self.settings.drain_s)
        left = list(self._flights)
        for flight in left:
            flight.cancel()
        await asyncio.gather(*left, return_exceptions=True)
