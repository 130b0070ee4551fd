"""The worker by itself: turns of tenants, hostile providers, outages of the engine, shutdown."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest

from dualcast.model.errors import BusUnavailable
from dualcast.push.port import PushJob, PushSettings, TryLater
from dualcast.push.service import PushService
from dualcast.push.worker import PushWorker
from support.push_rig import memory

pytestmark = pytest.mark.anyio
WAIT_S = 10.0


class Gated:
    """A provider whose calls for one tenant hang until the gate opens."""

    name = "gated"

    def __init__(self, slow: str = "") -> None:
        self.slow = slow
        self.gate = asyncio.Event()
        self.jobs: list[PushJob] = []
        self.under_way = self.most = 0
        self.changed = asyncio.Event()

    async def check(self) -> None: ...
    async def close(self) -> None: ...

    async def send(self, job: PushJob) -> None:
        self.jobs.append(job)
        self.under_way += 1
        self.most = max(self.most, self.under_way)
        self.changed.set()
        try:
            if job.tenant == self.slow:
                await self.gate.wait()
        finally:
            self.under_way -= 1
            self.changed.set()

    async def until(self, condition: Callable[[], bool]) -> None:
        async with asyncio.timeout(WAIT_S):
            while not condition():
                self.changed.clear()
                await self.changed.wait()


class Raising(Gated):
    def __init__(self, error: BaseException) -> None:
        super().__init__()
        self.error = error

    async def send(self, job: PushJob) -> None:
        await super().send(job)
        raise self.error


class Flaky:
    """A queue whose engine is away as often as told, by method."""

    def __init__(self, queue: Any, **away: int) -> None:
        self.queue, self.away = queue, away

    def __getattr__(self, name: str) -> Any:
        if self.away.get(name, 0) > 0:
            self.away[name] -= 1

            async def unavailable(*_: Any) -> None:
                raise BusUnavailable("away")

            return unavailable
        return getattr(self.queue, name)


@asynccontextmanager
async def working(worker: PushWorker) -> AsyncIterator[asyncio.Task[Any]]:
    task = asyncio.create_task(worker.run())
    try:
        yield task
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def queued(rig: Any, count: int, tenant: str = "") -> None:
    async with asyncio.timeout(WAIT_S):
        while await rig.waiting(tenant) != count:
            await asyncio.sleep(0.002)


def options(**more: Any) -> PushSettings:
    return PushSettings(**{"scan_s": 0.02, "drain_s": 0.0, **more})


async def test_a_slow_tenant_does_not_starve_another() -> None:
    async with memory() as rig:
        provider = Gated(slow="slow")
        for number in range(50):
            await rig.push("alice", ident=f"s{number}", tenant="slow")
        async with working(PushWorker(rig.queue, provider, options())):
            await provider.until(lambda: provider.under_way == 4)
            for number in range(10):
                await rig.push("bob", ident=f"q{number}", tenant="quick")
            await queued(rig, 0, "quick")
            assert sum(job.tenant == "slow" for job in provider.jobs) == 4
            assert provider.under_way == 4
            provider.gate.set()
            await queued(rig, 0, "slow")
            assert provider.most <= 8


async def test_tenants_take_turns() -> None:
    async with memory() as rig:
        provider = Gated()
        for tenant in ("a", "b", "c"):
            await rig.push(*(f"u{n}" for n in range(12)), tenant=tenant)
        async with working(PushWorker(rig.queue, provider, options(concurrency=1, tenant_concurrency=1))):
            await provider.until(lambda: len(provider.jobs) == 36)
        turns = [job.tenant for job in provider.jobs]
        for tenant in ("a", "b", "c"):
            assert 11 <= sum(one == tenant for one in turns[:33]) + 1 <= 13, turns


@pytest.mark.parametrize("places", [1, 2, 8])
async def test_a_place_that_becomes_free_is_used_without_waiting_for_a_scan(places: int) -> None:
    """All places taken by one tenant, and all of its calls ending at once."""
    provider = Gated()
    async with memory() as rig:
        worker = PushWorker(
            rig.queue, provider, options(scan_s=3600.0, concurrency=places, tenant_concurrency=places)
        )
        async with working(worker):
            await rig.push(*(f"u{number}" for number in range(40)))
            worker.poke(rig.tenant)
            await queued(rig, 0)
        assert len(provider.jobs) == 40


async def test_a_provider_that_hangs_is_given_up_after_the_timeout() -> None:
    async with memory() as rig:
        provider = Gated(slow=rig.tenant)
        worker = PushWorker(
            rig.queue, provider, options(timeout_s=0.01, max_attempts=2), jitter=lambda bound: 0.0
        )
        async with working(worker):
            await rig.push("alice")
            await queued(rig, 0)
        (letter,) = await rig.queue.dead(rig.tenant, 0, 10)
        assert (letter.reason, letter.error, letter.attempts) == ("attempts", "timeout", 2)


async def test_an_error_of_a_provider_is_tried_again_and_its_words_stay_out_of_the_log(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async with memory() as rig:
        provider = Raising(ValueError("secret content"))
        worker = PushWorker(rig.queue, provider, options(max_attempts=2), jitter=lambda bound: 0.0)
        with caplog.at_level(logging.DEBUG, "dualcast"):
            async with working(worker):
                await rig.push("alice")
                await queued(rig, 0)
        (letter,) = await rig.queue.dead(rig.tenant, 0, 10)
        assert (letter.error, letter.attempts) == ("provider-error", 2)
        assert "ValueError" in caplog.text and "secret content" not in caplog.text


async def test_a_provider_that_was_cancelled_inside_is_tried_again_at_once() -> None:
    """Not only when the lease has run out, and not without being counted."""
    provider = Raising(asyncio.CancelledError())
    async with memory() as rig:
        worker = PushWorker(rig.queue, provider, options(max_attempts=3), jitter=lambda bound: 0.0)
        async with working(worker):
            await rig.push("alice")
            worker.poke(rig.tenant)
            await queued(rig, 0)
        (letter,) = await rig.queue.dead(rig.tenant, 0, 10)
        assert (letter.reason, letter.error, len(provider.jobs)) == ("attempts", "provider-error", 3)
        assert (worker.counters.failed, worker.counters.lost) == (3, 0)


@pytest.mark.covers("S3.76")
async def test_a_push_that_is_given_up_is_a_warning(caplog: pytest.LogCaptureFixture) -> None:
    async with memory() as rig:
        worker = PushWorker(rig.queue, Raising(TryLater("http-500")), options(max_attempts=1))
        with caplog.at_level(logging.DEBUG, "dualcast.push"):
            async with working(worker):
                await rig.push("alice", ident="n1")
                await queued(rig, 0)
        (record,) = caplog.records
        assert record.levelname == "WARNING"
        assert "id=n1 reason=attempts error=http-500 attempts=1" in record.getMessage()


async def test_a_retry_after_holds_the_tenants_other_jobs_too_but_nobody_elses() -> None:
    async with memory() as rig:

        class Busy(Gated):
            async def send(self, job: PushJob) -> None:
                await super().send(job)
                if job.tenant == "busy":
                    raise TryLater("http-429", retry_after_s=100.0)

        provider = Busy()
        worker = PushWorker(rig.queue, provider, options(concurrency=1, tenant_concurrency=1))
        async with working(worker):
            await rig.push("alice", "bob", "carol", tenant="busy")
            await provider.until(lambda: bool(provider.jobs))
            for number in range(5):
                await rig.push("dave", ident=f"q{number}", tenant="quiet")
                worker.poke("busy")
            await queued(rig, 0, "quiet")
            assert [job.tenant for job in provider.jobs].count("busy") == 1
            assert await rig.waiting("busy") == 3


async def test_a_retry_after_of_nothing_does_not_use_up_all_attempts_at_once() -> None:
    """A receiver that restarts behind a proxy says 503 and "Retry-After: 0" for a while."""
    async with memory() as rig:
        waits: list[float] = []

        def jitter(bound: float) -> float:
            waits.append(bound)
            return bound

        provider = Raising(TryLater("http-503", retry_after_s=0.0))
        async with working(PushWorker(rig.queue, provider, options(), jitter=jitter)):
            await rig.push("alice")
            for attempt in range(1, 4):
                await provider.until(lambda: len(provider.jobs) == attempt)  # noqa: B023 - waited for here
                async with asyncio.timeout(WAIT_S):
                    while (await rig.queue.facts(rig.tenant)).counts.get("retried", 0) < attempt:
                        await asyncio.sleep(0.002)
                assert not (await rig.queue.claim(rig.tenant, 1, 60.0, "t")).jobs, "it waits its time"
                await rig.elapse(2.0 ** (attempt - 1) + 0.1)
            await provider.until(lambda: len(provider.jobs) == 4)
        assert waits[:3] == [1.0, 2.0, 4.0]


async def test_an_engine_that_is_away_is_waited_out() -> None:
    async with memory() as rig:
        provider = Gated()
        queue = Flaky(rig.queue, tenants=2, claim=2, tidy=1)
        async with working(PushWorker(queue, provider, options())):  # type: ignore[arg-type]
            await rig.push("alice")
            await queued(rig, 0)
        assert len(provider.jobs) == 1


async def test_what_was_sent_is_marked_so_even_when_the_engine_was_away(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("dualcast.push.worker.SETTLE_WAITS_S", (0.0, 0.0, 0.0))
    async with memory() as rig:
        provider = Gated()
        worker = PushWorker(Flaky(rig.queue, done=3), provider, options())  # type: ignore[arg-type]
        async with working(worker):
            await rig.push("alice")
            await queued(rig, 0)
        assert len(provider.jobs) == 1
        assert (worker.counters.sent, worker.counters.lost) == (1, 0)


async def test_what_cannot_be_marked_keeps_its_lease_and_is_counted() -> None:
    async with memory() as rig:
        provider = Raising(TryLater("http-500"))
        worker = PushWorker(Flaky(rig.queue, retry=1), provider, options())  # type: ignore[arg-type]
        async with working(worker):
            await rig.push("alice")
            await provider.until(lambda: provider.jobs != [] and not provider.under_way)
            await asyncio.sleep(0)
            async with asyncio.timeout(WAIT_S):
                while not worker.counters.lost:
                    await asyncio.sleep(0.002)
            assert await rig.waiting() == 1


async def test_shutdown_gives_calls_under_way_their_time() -> None:
    async with memory() as rig:
        provider = Gated(slow=rig.tenant)
        worker = PushWorker(rig.queue, provider, options(drain_s=WAIT_S))
        async with working(worker) as task:
            await rig.push("alice")
            await provider.until(lambda: provider.under_way == 1)
            task.cancel()
            await asyncio.sleep(0)
            assert not task.done()
            provider.gate.set()
            await asyncio.wait((task,), timeout=WAIT_S)
            assert task.cancelled()
        assert await rig.waiting() == 0


async def test_shutdown_does_not_wait_for_ever() -> None:
    async with memory() as rig:
        provider = Gated(slow=rig.tenant)
        async with working(PushWorker(rig.queue, provider, options(drain_s=0.01))):
            await rig.push("alice")
            await provider.until(lambda: provider.under_way == 1)
        assert provider.under_way == 0
        assert await rig.waiting() == 1, "its lease runs out, and another node sends it"


async def test_the_lease_is_longer_than_a_call() -> None:
    async with memory() as rig:
        with pytest.raises(ValueError, match="lease_s"):
            PushWorker(rig.queue, Gated(), PushSettings(lease_s=5, timeout_s=10))


async def test_figures_follow_the_queue() -> None:
    async with memory() as rig:
        provider = Gated(slow=rig.tenant)
        worker = PushWorker(rig.queue, provider, options())
        await rig.online("bob", "web")
        async with working(worker):
            await rig.push("alice", "bob")
            await provider.until(lambda: provider.under_way == 1)
            rig.now += 5
            await rig.push("carol")
            await provider.until(lambda: provider.under_way == 2)
            stats = worker.gauges()
            assert (stats["push_queued"], stats["push_skipped_online"], stats["push_in_flight"]) == (2, 1, 2)
            assert stats["push_oldest_age_s"] == 5.0
            provider.gate.set()
            async with asyncio.timeout(WAIT_S):
                while worker.gauges()["push_queued"]:
                    await asyncio.sleep(0.002)
            stats = worker.gauges()
            assert (stats["push_oldest_age_s"], stats["push_accepted"], stats["push_sent"]) == (0.0, 2, 2)


async def test_ready_asks_the_registry_once_per_tenant() -> None:
    async with memory() as rig:
        asked: list[str] = []

        class Counting(Flaky):
            async def ensure(self, tenant: str) -> None:
                asked.append(tenant)

        poked: list[str] = []
        queue: Any = Counting(rig.queue)
        service = PushService(queue, provider="log", poke=poked.append)
        for tenant in ("a", "a", "b", "a"):
            await service.ready(tenant)
            service.poke(tenant)
        assert asked == ["a", "b"]
        assert poked == ["a", "a", "b", "a"]
        off = PushService(queue, provider="none", poke=poked.append, enabled=False)
        await off.ready("c")
        off.poke("c")
        assert (asked, poked[4:]) == (["a", "b"], [])


async def test_a_registry_that_is_away_is_asked_again() -> None:
    async with memory() as rig:
        service = PushService(Flaky(rig.queue, ensure=1), provider="log")  # type: ignore[arg-type]
        with pytest.raises(BusUnavailable):
            await service.ready("a")
        await service.ready("a")
