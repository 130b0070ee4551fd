"""The worker over every engine: from the append to the provider, through failures and dead nodes."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest

from dualcast.push.port import PushJob, PushSettings, Refused, TryLater
from dualcast.push.worker import PushWorker
from support.push_rig import ENGINES, Factory

pytestmark = pytest.mark.anyio
WAIT_S = 10.0


@pytest.fixture(params=sorted(ENGINES))
def engine(request: pytest.FixtureRequest) -> Factory:
    return ENGINES[request.param]


class Recorded:
    """A provider that keeps what it gets, and answers as `act` says."""

    name = "recorded"

    def __init__(self, act: Callable[[PushJob], Any] = lambda job: None) -> None:
        self.act = act
        self.jobs: list[PushJob] = []
        self.changed = asyncio.Event()

    async def check(self) -> None: ...
    async def close(self) -> None: ...

    async def send(self, job: PushJob) -> None:
        self.jobs.append(job)
        self.changed.set()
        answer = self.act(job)
        if isinstance(answer, BaseException):
            raise answer
        if answer is not None:
            await answer

    async def until(self, condition: Callable[[], bool]) -> None:
        async with asyncio.timeout(WAIT_S):
            while not condition():
                self.changed.clear()
                await self.changed.wait()


@asynccontextmanager
async def working(worker: PushWorker) -> AsyncIterator[PushWorker]:
    task = asyncio.create_task(worker.run())
    try:
        yield worker
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def settled(rig: Any, condition: Callable[[Any], bool]) -> Any:
    """The queue's facts, once `condition` holds."""
    async with asyncio.timeout(WAIT_S):
        while not condition(facts := await rig.queue.facts(rig.tenant)):
            await asyncio.sleep(0.005)
    return facts


def options(**more: Any) -> PushSettings:
    return PushSettings(**{"scan_s": 0.05, "drain_s": 0.0, **more})


async def test_a_poked_worker_sends_each_job_once(engine: Factory) -> None:
    async with engine() as rig:
        provider = Recorded()
        async with working(PushWorker(rig.queue, provider, options(scan_s=60.0))) as worker:
            for number in range(20):
                await rig.push("alice", "bob", ident=f"n{number}")
                worker.poke(rig.tenant)
            await settled(rig, lambda facts: facts.counts.get("sent") == 40)
            assert len({(job.id, job.user) for job in provider.jobs}) == len(provider.jobs) == 40
            assert await rig.leftovers() == 0
            assert worker.counters.sent == 40
            assert worker.counters.success_ratio == 1.0
        job = provider.jobs[0]
        assert (job.id, job.user, job.attempt, job.message.title) == ("n0", job.user, 1, "T n0")


async def test_jobs_of_a_node_that_died_are_found_without_a_poke(engine: Factory) -> None:
    async with engine() as rig:
        await rig.queue.ensure(rig.tenant)
        await rig.push("alice")
        provider = Recorded()
        async with working(PushWorker(rig.queue, provider, options())):
            await provider.until(lambda: len(provider.jobs) == 1)
            await settled(rig, lambda facts: facts.queued == 0)


async def test_a_worker_that_dies_in_the_middle_costs_nothing(engine: Factory) -> None:
    """At least once: the lease runs out and another node sends again, with the same id."""
    async with engine() as rig:
        await rig.queue.ensure(rig.tenant)
        await rig.push("alice", ident="n1")
        stuck = Recorded(lambda job: asyncio.Event().wait())
        async with working(PushWorker(rig.queue, stuck, options())):
            await stuck.until(lambda: bool(stuck.jobs))
        assert (await rig.queue.facts(rig.tenant)).queued == 1
        provider = Recorded()
        async with working(PushWorker(rig.queue, provider, options())):
            await asyncio.sleep(0)
            assert not provider.jobs
            await rig.elapse(61)
            await provider.until(lambda: bool(provider.jobs))
            await settled(rig, lambda facts: facts.queued == 0)
        assert (provider.jobs[0].id, provider.jobs[0].attempt) == ("n1", 2)


async def test_what_cannot_be_sent_now_is_sent_later(engine: Factory) -> None:
    async with engine() as rig:
        await rig.queue.ensure(rig.tenant)
        provider = Recorded(lambda job: TryLater("http-500") if job.attempt < 3 else None)
        waits: list[float] = []

        def jitter(bound: float) -> float:
            waits.append(bound)
            return bound

        async with working(PushWorker(rig.queue, provider, options(), jitter=jitter)) as worker:
            await rig.push("alice")
            await settled(rig, lambda facts: facts.counts.get("retried") == 1)
            await rig.elapse(1.1)
            await settled(rig, lambda facts: facts.counts.get("retried") == 2)
            await rig.elapse(2.1)
            await settled(rig, lambda facts: facts.queued == 0)
            assert [job.attempt for job in provider.jobs] == [1, 2, 3]
            assert waits == [1.0, 2.0], "it doubles"
            c = worker.counters
            assert (c.sent, c.failed, c.retried, c.dead, c.lost) == (1, 2, 2, 0, 0)


@pytest.mark.covers("S3.79")
async def test_what_the_provider_refuses_is_a_dead_letter_at_once(engine: Factory) -> None:
    async with engine() as rig:
        await rig.queue.ensure(rig.tenant)
        provider = Recorded(lambda job: Refused("http-410") if job.user == "alice" else None)
        async with working(PushWorker(rig.queue, provider, options())) as worker:
            await rig.push("alice", "bob", "carol", "dave")
            await settled(rig, lambda facts: facts.queued == 0)
            (letter,) = await rig.queue.dead(rig.tenant, 0, 10)
            assert (letter.user, letter.reason, letter.attempts) == ("alice", "http-410", 1)
            assert worker.counters.success_ratio == 0.75
            stats = worker.gauges()
            assert (stats["push_sent"], stats["push_dead"], stats["push_success_ratio"]) == (3, 1, 0.75)


async def test_attempts_and_time_are_bounded(engine: Factory) -> None:
    async with engine() as rig:
        await rig.queue.ensure(rig.tenant)
        provider = Recorded(lambda job: TryLater("http-503"))
        worker = PushWorker(rig.queue, provider, options(max_attempts=2), jitter=lambda bound: 0.0)
        async with working(worker):
            await rig.push("alice", ident="n1")
            await settled(rig, lambda facts: facts.dead == 1)
            await rig.push("alice", ident="n2", deadline_ms=1_700_000_000_000)
            await settled(rig, lambda facts: facts.dead == 2)
        first, second = await rig.queue.dead(rig.tenant, 0, 10)
        assert (first.id, first.reason, first.error, first.attempts) == ("n1", "attempts", "http-503", 2)
        assert (second.id, second.reason) == ("n2", "deadline")
        assert [job.id for job in provider.jobs] == ["n1", "n1"], "nothing is sent after its deadline"


async def test_a_provider_that_asks_for_a_time_beyond_the_deadline_ends_the_job(engine: Factory) -> None:
    async with engine(deadline_s=60) as rig:
        await rig.queue.ensure(rig.tenant)
        provider = Recorded(lambda job: TryLater("http-429", retry_after_s=120))
        async with working(PushWorker(rig.queue, provider, options())):
            await rig.push("alice")
            await settled(rig, lambda facts: facts.dead == 1)
        (letter,) = await rig.queue.dead(rig.tenant, 0, 10)
        assert (letter.reason, letter.error) == ("deadline", "http-429")


async def test_what_is_not_a_push_message_is_a_dead_letter(engine: Factory) -> None:
    async with engine() as rig:
        await rig.queue.ensure(rig.tenant)
        provider = Recorded()
        async with working(PushWorker(rig.queue, provider, options())):
            await rig.push("alice", message=b"\xff")
            await settled(rig, lambda facts: facts.dead == 1)
        assert [one.reason for one in await rig.queue.dead(rig.tenant, 0, 10)] == ["malformed"]
        assert not provider.jobs


async def test_two_nodes_share_the_work_and_send_each_job_once(engine: Factory) -> None:
    async with engine() as rig:
        await rig.queue.ensure(rig.tenant)
        provider = Recorded()
        for number in range(10):
            await rig.push("alice", "bob", "carol", ident=f"n{number}")
        one = PushWorker(rig.queue, provider, options())
        two = PushWorker(rig.queue, provider, options())
        async with working(one), working(two):
            await settled(rig, lambda facts: facts.counts.get("sent") == 30)
        assert len({(job.id, job.user) for job in provider.jobs}) == len(provider.jobs) == 30
        assert one.counters.sent + two.counters.sent == 30


async def test_a_job_that_kills_its_worker_is_given_up_in_the_end(engine: Factory) -> None:
    async with engine() as rig:
        await rig.queue.ensure(rig.tenant)
        await rig.push("alice")
        for _ in range(2):
            assert len((await rig.claim()).jobs) == 1
            await rig.elapse(61)
        provider = Recorded()
        async with working(PushWorker(rig.queue, provider, options(max_attempts=2))):
            await settled(rig, lambda facts: facts.dead == 1)
        assert [one.reason for one in await rig.queue.dead(rig.tenant, 0, 10)] == ["attempts"]
        assert not provider.jobs
