"""The engines of the push queue do the same: random steps over SQL and Redis side by side, compared."""

from __future__ import annotations

import random
from typing import Any

import pytest

from dualcast.push.port import Claimed
from support.push_rig import memory, redis

pytestmark = pytest.mark.anyio
USERS = [f"u{n}" for n in range(5)]
STEPS = 60


def names(jobs: Any) -> list[tuple[str, str, int, bytes]]:
    return sorted((job.id, job.user, job.attempt, job.message) for job in jobs)


class Twin:
    """One of the two, with the jobs it was given."""

    def __init__(self, rig: Any) -> None:
        self.rig = rig
        self.held: dict[tuple[str, str, int], Claimed] = {}

    async def step(self, kind: str, choice: random.Random) -> Any:
        rig, tenant = self.rig, self.rig.tenant
        if kind == "push":
            users = choice.sample(USERS, choice.randint(1, 4))
            devices = choice.choice([(), ("mobile",), ("mobile", "web")])
            always = choice.random() < 0.3
            ident = f"n{choice.randint(0, 30)}"
            fields = {"devices": devices, "always": always}
            try:
                return (await rig.push(*users, ident=ident, **fields)).duplicate
            except Exception as error:
                return type(error).__name__
        if kind == "online":
            return await rig.online(choice.choice(USERS), choice.choice(["mobile", "desktop"]))
        if kind == "claim":
            claim = await self.rig.claim(lease_s=100)
            self.held |= {(job.id, job.user, job.attempt): job for job in claim.jobs}
            return names(claim.jobs)
        if kind == "elapse":
            return await rig.elapse(choice.choice([30, 60, 120]))
        if kind in ("done", "retry", "bury"):
            if not self.held:
                return None
            job = self.held[choice.choice(sorted(self.held))]
            if kind == "done":
                return await rig.queue.done(job)
            if kind == "retry":
                return await rig.queue.retry(job, choice.choice([0, 50]))
            return await rig.queue.bury(job, "attempts", "http-500")
        letters = await rig.queue.dead(tenant, 0, 100)
        if not letters:
            return None
        # A burst of letters in one step has no order, so they are chosen by name.
        letter = choice.choice(sorted(letters, key=lambda one: (one.id, one.user, one.attempts)))
        take = rig.queue.revive if kind == "revive" else rig.queue.discard
        return await take(tenant, letter.number)

    async def seen(self) -> Any:
        facts = await self.rig.queue.facts(self.rig.tenant)
        letters = await self.rig.queue.dead(self.rig.tenant, 0, 100)
        waiting = facts.counts.get("queued", 0) - facts.counts.get("sent", 0)
        return (
            facts.queued,
            facts.dead,
            dict(facts.counts),
            sorted((one.id, one.user, one.reason, one.error, one.attempts) for one in letters),
            await self.rig.leftovers(),
            waiting,
        )


@pytest.mark.parametrize("seed", range(12))
async def test_sql_and_redis_agree(seed: int) -> None:
    limits = {"max_queued": 12, "max_dead": 1000}
    async with memory(**limits) as left, redis(**limits) as right:
        one, two = Twin(left), Twin(right)
        order = random.Random(seed)
        kinds = ["push"] * 4 + ["claim"] * 3 + ["elapse", "online", "done", "done", "retry", "bury"]
        kinds += ["revive", "discard"]
        for number in range(STEPS):
            kind = order.choice(kinds)
            answers = [await twin.step(kind, random.Random(f"{seed}-{number}")) for twin in (one, two)]
            assert answers[0] == answers[1], (number, kind)
            assert await one.seen() == await two.seen(), (number, kind)
        # Nothing got lost on the way: what is left can be claimed and sent, and then nothing is stored.
        for twin in (one, two):
            await twin.rig.elapse(1000)
            for job in (await twin.rig.claim()).jobs:
                assert await twin.rig.queue.done(job)
            assert await twin.rig.leftovers() == 0
