"""The push queue in Redis: repeated calls, what expires, the registry of tenants, two nodes."""

from __future__ import annotations

import secrets
import time
from contextlib import AsyncExitStack

import msgspec
import pytest

from dualcast.bus.redis.engine import RedisBus
from dualcast.bus.redis.options import RedisSettings
from dualcast.push.port import PushSettings
from dualcast.push.redis import REGISTRY, RedisPushQueue, extension
from support import redis_server
from support.bus_engines import Recorder
from support.push_rig import RedisRig, redis

pytestmark = pytest.mark.anyio
pack = msgspec.msgpack.encode


async def test_a_repeated_claim_gives_the_same_jobs() -> None:
    async with redis() as rig:
        await rig.push("a", "b", "c")
        first = await rig.queue.claim(rig.tenant, 2, 60, "token-1")
        again = await rig.queue.claim(rig.tenant, 2, 60, "token-1")
        assert first.jobs == again.jobs and len(first.jobs) == 2
        assert [job.attempt for job in again.jobs] == [1, 1]
        await rig.queue.done(first.jobs[0])
        assert (await rig.queue.claim(rig.tenant, 2, 60, "token-1")).jobs == first.jobs[1:]


async def test_a_repeated_end_counts_once() -> None:
    async with redis() as rig:
        await rig.push("a", "b", "c")
        one, two, three = (await rig.claim()).jobs
        for _ in range(2):
            await rig.queue.done(one)
            await rig.queue.retry(two, 0)
            await rig.queue.bury(three, "http-410")
        facts = await rig.queue.facts(rig.tenant)
        assert (facts.queued, facts.dead) == (1, 1)
        assert facts.counts == {"queued": 3, "sent": 1, "retried": 1, "dead": 1}


async def test_a_repeated_take_of_a_dead_letter_is_told_from_a_second_one() -> None:
    async with redis() as rig:
        await rig.push("a")
        (job,) = (await rig.claim()).jobs
        await rig.queue.bury(job, "http-410")
        call = rig.bus.call
        assert await call("push_take", rig.tenant, pack((1, True, "t1"))) == 1
        assert await call("push_take", rig.tenant, pack((1, True, "t1"))) == 1
        assert await call("push_take", rig.tenant, pack((1, True, "t2"))) == 0
        assert (await rig.queue.facts(rig.tenant)).queued == 1


async def test_everything_that_holds_content_expires() -> None:
    async with redis(deadline_s=100.0, dead_s=500) as rig:
        client = rig.bus.pool.client
        await rig.push("a", "b")
        jobs = (await rig.claim()).jobs
        await rig.queue.bury(jobs[0], "http-410")
        await rig.push("c", deadline_ms=1)
        keys = await client.keys(rig.prefix + "x:*")
        plain = {f"{rig.prefix}x:{name}".encode() for name in ("d", "q", "n", "s")}
        assert plain < set(keys)
        for key in set(keys) - plain:
            left = await client.ttl(key)
            limit = 500 if b":x:l:" in key or key.endswith(b":x:b") else 86_400 + 100
            assert 0 < left <= limit, (key, left)


@pytest.mark.parametrize("off_s", [-3600, 3600])
async def test_a_deadline_goes_by_how_long_is_left_whatever_the_publishing_nodes_clock(
    off_s: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A node an hour behind queues a push for ten minutes: it is not over at once. An hour ahead: it ends."""
    real = time.time
    async with redis() as rig:
        with monkeypatch.context() as patch:
            patch.setattr(time, "time", lambda: real() + off_s)
            await rig.push("a", deadline_ms=int((time.time() + 600) * 1000))
        claim = await rig.claim()
        (job,) = claim.jobs
        assert 540_000 < job.deadline_ms - claim.facts.now_ms <= 601_000


async def test_a_job_that_expired_is_forgotten() -> None:
    async with redis() as rig:
        await rig.push("a", "b", ident="n1")
        await rig.bus.pool.client.delete(f"{rig.prefix}x:j:user:a n1")
        assert [job.user for job in (await rig.claim()).jobs] == ["b"]
        assert await rig.waiting() == 1


async def test_a_dead_letter_that_expired_is_not_listed() -> None:
    async with redis() as rig:
        await rig.push("a", "b", "c")
        for job in (await rig.claim()).jobs:
            await rig.queue.bury(job, "http-410")
        await rig.bus.pool.client.delete(f"{rig.prefix}x:l:1")
        assert [one.number for one in await rig.queue.dead(rig.tenant, 0, 2)] == [2, 3]
        assert (await rig.queue.facts(rig.tenant)).dead == 2


async def test_a_tenant_is_forgotten_when_nobody_ensured_it_for_long() -> None:
    async with redis() as rig:
        await rig.queue.ensure(rig.tenant)
        await rig.queue.forget([rig.tenant, "never-seen"])
        assert rig.tenant in await rig.queue.tenants()
        key = f"{rig.key_prefix}:{{{REGISTRY}}}:x:t"
        await rig.bus.pool.client.zincrby(key, -901_000, rig.tenant)
        assert rig.tenant in await rig.queue.tenants()
        await rig.queue.forget([rig.tenant])
        assert rig.tenant not in await rig.queue.tenants()
        assert await rig.bus.pool.client.zscore(key, "never-seen") is None


async def test_a_job_outlives_its_node_and_a_restart_of_redis() -> None:
    async with AsyncExitStack() as stack:
        server = redis_server.RedisServer(aof="always")
        stack.callback(server.close)
        server.start()
        first = RedisRig(PushSettings(), server.url)
        await first.bus.start(Recorder())
        await first.queue.ensure(first.tenant)
        await first.push("alice", ident="n1")
        await first.bus.close()
        server.restart()
        second = RedisRig(PushSettings(), server.url, first.key_prefix)
        await second.bus.start(Recorder())
        stack.push_async_callback(second.bus.close)
        assert first.tenant in await second.queue.tenants()
        (job,) = (await second.queue.claim(first.tenant, 5, 60, secrets.token_hex(8))).jobs
        assert (job.user, job.id) == ("alice", "n1")


async def test_a_node_without_a_provider_queues_nothing_and_can_look() -> None:
    rig = RedisRig(PushSettings(), redis_server.shared().url)
    rig.bus = RedisBus(
        RedisSettings(url=redis_server.shared().url, prefix=rig.key_prefix),
        extensions=[extension(PushSettings(), enabled=False)],
    )
    rig.queue = RedisPushQueue(rig.bus)
    await rig.bus.start(Recorder())
    try:
        assert (await rig.push("alice")).offset == 1
        assert (await rig.queue.facts(rig.tenant)).counts == {}
    finally:
        await rig.bus.close()


async def test_a_thousand_users_in_one_publication() -> None:
    async with redis() as rig:
        await rig.online("u500", "web")
        await rig.push(*(f"u{n}" for n in range(1000)))
        facts = await rig.queue.facts(rig.tenant)
        assert facts.counts == {"queued": 999, "skipped": 1}
