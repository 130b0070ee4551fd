"""What every engine's push queue promises: born with the append, leased, put back, buried, at least once."""

from __future__ import annotations

import pytest

from dualcast.model.errors import RateLimited
from dualcast.model.inbox import PushRider
from dualcast.model.publication import Quota
from dualcast.model.push import PushMessage, decode_push, encode_push
from support.bus_engines import draft
from support.push_rig import ENGINES, Factory

pytestmark = pytest.mark.anyio


@pytest.fixture(params=sorted(ENGINES))
def engine(request: pytest.FixtureRequest) -> Factory:
    return ENGINES[request.param]


async def test_a_job_for_each_user_is_born_with_the_append(engine: Factory) -> None:
    async with engine() as rig:
        await rig.push("alice", "bob", ident="n1")
        claim = await rig.claim()
        assert sorted((job.user, job.id, job.attempt) for job in claim.jobs) == [
            ("alice", "n1", 1),
            ("bob", "n1", 1),
        ]
        job = claim.jobs[0]
        assert decode_push(job.message).title == "T n1"
        assert job.tenant == rig.tenant
        assert job.deadline_ms - job.queued_ms == 3_600_000
        assert claim.facts.counts == {"queued": 2}
        assert claim.facts.queued == 2 and claim.facts.oldest_ms > 0


async def test_odd_user_ids_come_back_as_they_were(engine: Factory) -> None:
    users = ("auth0|1", "用户 一", "a%20b", "user:x", "a/b?c", "*")
    async with engine() as rig:
        await rig.push(*users, ident="n:1#%")
        claim = await rig.claim()
        assert {(job.user, job.id) for job in claim.jobs} == {(user, "n:1#%") for user in users}
        for job in claim.jobs:
            assert await rig.queue.done(job)
        assert await rig.waiting() == 0


async def test_a_duplicate_publication_queues_nothing(engine: Factory) -> None:
    async with engine() as rig:
        await rig.push("alice", ident="n1")
        assert (await rig.push("alice", ident="n1")).duplicate
        (job,) = (await rig.claim()).jobs
        await rig.queue.done(job)
        assert (await rig.push("alice", ident="n1")).duplicate
        assert not (await rig.claim()).jobs
        assert (await rig.queue.facts(rig.tenant)).counts == {"queued": 1, "sent": 1}


async def test_a_refused_publication_queues_nothing(engine: Factory) -> None:
    async with engine() as rig:
        quota = Quota(0.001, 1)
        await rig.push("alice", quota=quota)
        with pytest.raises(RateLimited):
            await rig.push("bob", quota=quota)
        assert [job.user for job in (await rig.claim()).jobs] == ["alice"]


async def test_whoever_is_online_is_skipped(engine: Factory) -> None:
    async with engine() as rig:
        await rig.online("alice", "desktop")
        await rig.push("alice", "bob")
        assert [job.user for job in (await rig.claim()).jobs] == ["bob"]
        assert (await rig.queue.facts(rig.tenant)).counts == {"queued": 1, "skipped": 1}


async def test_only_a_connection_of_the_named_kinds_makes_a_push_needless(engine: Factory) -> None:
    """R42: a user who is online on a desktop gets the push that is meant for a phone."""
    async with engine() as rig:
        await rig.online("alice", "desktop")
        await rig.online("bob", "desktop", "mobile")
        await rig.online("carol", "tablet")
        await rig.push("alice", "bob", "carol", "dave", devices=("mobile",))
        assert sorted(job.user for job in (await rig.claim()).jobs) == ["alice", "carol", "dave"]
        await rig.push("alice", "bob", "carol", ident="n2", devices=("mobile", "tablet"))
        assert [job.user for job in (await rig.claim()).jobs] == ["alice"]


async def test_always_means_whoever_is_online_too(engine: Factory) -> None:
    async with engine() as rig:
        await rig.online("alice", "mobile")
        await rig.push("alice", always=True)
        assert [job.user for job in (await rig.claim()).jobs] == ["alice"]


async def test_tenants_do_not_see_each_other(engine: Factory) -> None:
    async with engine() as rig:
        other = rig.tenant + "-b"
        await rig.online("alice", "web")
        await rig.push("alice", ident="n1", tenant=other)
        assert not (await rig.claim()).jobs
        (job,) = (await rig.claim(tenant=other)).jobs
        assert await rig.queue.bury(job, "http-410")
        (letter,) = await rig.queue.dead(other, 0, 10)
        assert not await rig.queue.dead(rig.tenant, 0, 10)
        assert not await rig.queue.revive(rig.tenant, letter.number + 1000)
        assert (await rig.queue.facts(rig.tenant)).queued == 0
        await rig.push("bob", ident="n2")
        (mine,) = (await rig.claim()).jobs
        await rig.queue.bury(mine, "http-410")
        numbers = {one.number for one in await rig.queue.dead(rig.tenant, 0, 10)}
        for number in {letter.number} - numbers:  # where numbers are not the tenant's own
            assert not await rig.queue.discard(rig.tenant, number)
            assert not await rig.queue.revive(rig.tenant, number)
        assert await rig.queue.discard(other, letter.number)


async def test_a_leased_job_is_nobody_elses_until_the_lease_runs_out(engine: Factory) -> None:
    """A worker that dies: another node sends again."""
    async with engine() as rig:
        await rig.push("alice")
        first = await rig.claim(lease_s=60)
        (job,) = first.jobs
        assert 59_000 < first.next_due_ms - first.facts.now_ms <= 60_000
        assert not (await rig.claim()).jobs
        await rig.elapse(61)
        (again,) = (await rig.claim()).jobs
        assert (again.user, again.attempt) == ("alice", 2)
        assert again.token != job.token
        # The first worker was slow, not dead: it may no longer put back or bury.
        assert not await rig.queue.retry(job, 0)
        assert not await rig.queue.bury(job, "http-410")
        assert not await rig.queue.dead(rig.tenant, 0, 10)
        # What it has sent is sent, though.
        assert await rig.queue.done(job)
        assert not await rig.queue.done(again)
        assert await rig.leftovers() == 0
        assert (await rig.queue.facts(rig.tenant)).counts["sent"] == 1


async def test_a_job_that_is_put_back_is_due_after_the_delay(engine: Factory) -> None:
    async with engine() as rig:
        await rig.push("alice")
        (job,) = (await rig.claim()).jobs
        assert await rig.queue.retry(job, 30)
        assert not await rig.queue.retry(job, 0), "the lease has ended"
        later = await rig.claim()
        assert not later.jobs
        assert 29_000 < later.next_due_ms - later.facts.now_ms <= 30_000
        await rig.elapse(31)
        (again,) = (await rig.claim()).jobs
        assert again.attempt == 2
        assert again.deadline_ms - again.queued_ms == 3_600_000
        assert (await rig.queue.facts(rig.tenant)).counts == {"queued": 1, "retried": 1}


async def test_the_longest_due_come_first_and_no_more_than_asked_for(engine: Factory) -> None:
    async with engine() as rig:
        for number in range(5):
            await rig.push(f"u{number}")
            await rig.elapse(1)
        assert [job.user for job in (await rig.claim(2)).jobs] == ["u0", "u1"]
        rest = await rig.claim(2)
        assert [job.user for job in rest.jobs] == ["u2", "u3"]
        assert rest.next_due_ms <= rest.facts.now_ms, "one is due now"


async def test_a_rider_may_name_its_deadline(engine: Factory) -> None:
    async with engine() as rig:
        await rig.push("alice", deadline_ms=1_700_000_000_123)
        (job,) = (await rig.claim()).jobs
        assert job.deadline_ms == 1_700_000_000_123


async def test_dead_letters_say_why_and_can_be_sent_again_or_forgotten(engine: Factory) -> None:
    async with engine() as rig:
        await rig.push("alice", "bob", ident="n1")
        for job in (await rig.claim()).jobs:
            assert await rig.queue.bury(job, "attempts", "http-500")
        assert await rig.leftovers() == 0
        facts = await rig.queue.facts(rig.tenant)
        assert (facts.queued, facts.dead, facts.counts["dead"]) == (0, 2, 2)
        first, second = await rig.queue.dead(rig.tenant, 0, 10)
        assert first.number < second.number
        assert {first.user, second.user} == {"alice", "bob"}
        assert (first.id, first.reason, first.error, first.attempts) == ("n1", "attempts", "http-500", 1)
        assert first.dead_ms >= first.queued_ms > 0
        assert [one.number for one in await rig.queue.dead(rig.tenant, first.number, 10)] == [second.number]
        assert len(await rig.queue.dead(rig.tenant, 0, 1)) == 1

        assert await rig.queue.revive(rig.tenant, first.number)
        assert not await rig.queue.revive(rig.tenant, first.number)
        (job,) = (await rig.claim()).jobs
        assert (job.user, job.id, job.attempt, job.message) == (first.user, "n1", 1, first.message)
        assert await rig.queue.discard(rig.tenant, second.number)
        assert not await rig.queue.discard(rig.tenant, second.number)
        assert not await rig.queue.dead(rig.tenant, 0, 10)
        assert (await rig.queue.facts(rig.tenant)).dead == 0


async def test_the_oldest_dead_letters_make_room(engine: Factory) -> None:
    async with engine(max_dead=3) as rig:
        for number in range(5):
            await rig.push("alice", ident=f"n{number}")
            (job,) = (await rig.claim()).jobs
            await rig.queue.bury(job, "http-410")
        assert [one.id for one in await rig.queue.dead(rig.tenant, 0, 10)] == ["n2", "n3", "n4"]
        facts = await rig.queue.facts(rig.tenant)
        assert (facts.dead, facts.counts["dead"]) == (3, 5)


async def test_a_full_queue_costs_no_publication(engine: Factory) -> None:
    async with engine(max_queued=2) as rig:
        await rig.push("u0", "u1", "u2", ident="n1")
        receipt = await rig.push("u3", ident="n2")
        assert receipt.offset and not receipt.duplicate
        assert [job.user for job in (await rig.claim()).jobs] == ["u0", "u1"]
        letters = await rig.queue.dead(rig.tenant, 0, 10)
        assert [(one.user, one.reason, one.attempts) for one in letters] == [
            ("u2", "queue-full", 0),
            ("u3", "queue-full", 0),
        ]
        counts = (await rig.queue.facts(rig.tenant)).counts
        assert (counts["queued"], counts["dead"]) == (2, 2)


async def test_a_message_is_kept_as_long_as_one_of_its_jobs(engine: Factory) -> None:
    async with engine() as rig:
        await rig.push("alice", "bob", ident="n1")
        one, two = (await rig.claim()).jobs
        await rig.queue.done(one)
        await rig.elapse(61)
        (again,) = (await rig.claim()).jobs
        assert again.message == two.message
        await rig.queue.done(again)
        assert await rig.leftovers() == 0


async def test_what_is_wrong_with_presence_costs_no_publication(engine: Factory) -> None:
    async with engine() as rig:
        if hasattr(rig, "prefix"):
            await rig.bus.pool.client.set(f"{rig.prefix}w:g:", "not a hash")
        assert (await rig.push("broken")).offset == 1


async def test_tenants_with_jobs_are_known(engine: Factory) -> None:
    async with engine() as rig:
        await rig.queue.ensure(rig.tenant)
        await rig.push("alice")
        assert rig.tenant in await rig.queue.tenants()
        await rig.queue.forget([rig.tenant])
        assert rig.tenant in await rig.queue.tenants()
        await rig.queue.tidy()


async def test_a_message_that_is_no_json_goes_through_untouched(engine: Factory) -> None:
    async with engine() as rig:
        await rig.push("alice", message=b"\xff\x00 \r\n")
        (job,) = (await rig.claim()).jobs
        assert job.message == b"\xff\x00 \r\n"


async def test_an_ephemeral_publication_may_push_too(engine: Factory) -> None:
    async with engine() as rig:
        rider = PushRider(("alice",), encode_push(PushMessage(id="n1", title="x")))
        one = draft(rig.tenant, "user:alice", id="n1", ephemeral=True, push=rider)
        assert (await rig.bus.append(one)).offset == 0
        assert [job.id for job in (await rig.claim()).jobs] == ["n1"]


async def test_a_batch_queues_the_jobs_of_each(engine: Factory) -> None:
    async with engine() as rig:
        drafts = [
            draft(
                rig.tenant,
                "user:alice",
                id=f"n{n}",
                push=PushRider(("alice",), encode_push(PushMessage(id=f"n{n}", title=str(n)))),
            )
            for n in range(4)
        ]
        await rig.bus.append_many([*drafts, draft(rig.tenant, "user:alice", id="plain"), drafts[0]])
        jobs = (await rig.claim()).jobs
        assert sorted((job.id, decode_push(job.message).title) for job in jobs) == [
            (f"n{n}", str(n)) for n in range(4)
        ]
