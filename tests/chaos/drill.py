"""A drill: clients of both transports, a publisher at a constant rate, a disturbance, and the account of
every client."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from support.accounting import Account, Acknowledged, Changes, Publisher, account
from support.fleet import Fleet
from support.server_process import ServerProcess, token

SETTINGS: dict[str, object] = {"delivery.retry_min_ms": 100, "delivery.retry_max_ms": 400}
"""Short reconnect delays: a drill waits for them."""


@dataclass(frozen=True, kw_only=True)
class Plan:
    """How big a drill is."""

    clients: int = 40
    users: int = 5
    topics: int = 4
    publications: int = 80
    """Before each disturbance, and after the last."""
    rate: float = 120.0
    """Publications a second."""


@dataclass(kw_only=True)
class Drill:
    """What a disturbance sees of a drill under way."""

    plan: Plan
    fleet: Fleet
    publisher: Publisher
    under_way: list[asyncio.Task[Acknowledged]] = field(default_factory=list)

    async def published(self) -> None:
        """Waits until `publications` more are acknowledged."""
        wanted = len(self.publisher.acknowledged) + self.plan.publications
        await self.fleet.until(lambda: len(self.publisher.acknowledged) >= wanted, "publishing stopped")

    async def struck(self, strike: Callable[[], None], at_once: int = 24) -> None:
        """Calls `strike` while `at_once` publishes are under way, the first of which has just been
        acknowledged; each is repeated until it is acknowledged too.
        """
        wanted = len(self.publisher.acknowledged) + 1
        for _ in range(at_once):
            self.under_way.append(asyncio.create_task(self.publisher.publish_next()))
        await self.fleet.until(lambda: len(self.publisher.acknowledged) >= wanted, "publishing stopped")
        strike()

    async def refused(self, times: int = 2) -> None:
        """Waits until publishing failed `times` more times: the disturbance is felt under load."""
        wanted = self.publisher.failures + times
        await self.fleet.until(lambda: self.publisher.failures >= wanted, "nobody felt it")

    async def back(self, share: float) -> None:
        """Waits until this share of the clients has a connection that was welcomed."""
        wanted = len(self.fleet.clients) * share
        await self.fleet.until(
            lambda: sum(client.open for client in self.fleet.clients) >= wanted, "clients do not come back"
        )

    async def fence(self) -> None:
        """Publishes one to everybody and waits until everybody has it: nothing older can still be on its
        way."""
        await asyncio.gather(*self.under_way)
        last = await self.publisher.publish("all")
        await self.fleet.all_have(last.id)

    def account(self) -> Account:
        return account(self.fleet.clients, self.publisher.acknowledged.values())


@dataclass(kw_only=True)
class Outcome:
    """The account and what it cost."""

    account: Account
    drill: Drill
    seconds: float

    def report(self, title: str) -> str:
        publisher = self.drill.publisher
        return (
            f"\n{title}\n{self.account.table()}\n"
            f"  publishing: {publisher.failures} attempts failed, "
            f"{publisher.repeats} had been appended all the same\n"
            f"  {self.seconds:.1f} s"
        )


Disturbance = Callable[[Drill], Awaitable[Any]]


async def run(servers: Sequence[ServerProcess], plan: Plan, disturb: Disturbance) -> Outcome:
    """Runs the load over `servers` with `disturb` beside it and some more after it, then a fence, then the
    account."""
    begin = time.monotonic()
    changes = Changes()
    users = [f"user{number}@example.org" for number in range(plan.users)]
    topics = [f"topic:t{number}" for number in range(plan.topics)]
    targets = [*topics, *(f"user:{user}" for user in users), "all"]
    bases = [server.base_url for server in servers]
    async with (
        Publisher(bases, token("publisher", roles=["publisher"]), targets, changes) as publisher,
        Fleet(changes) as fleet,
    ):
        addresses = [(server.host, server.port) for server in servers]
        fleet.launch(plan.clients, addresses, users=users, topics=topics)
        await fleet.all_open()
        drill = Drill(plan=plan, fleet=fleet, publisher=publisher)
        stop = asyncio.Event()
        async with asyncio.TaskGroup() as group:
            group.create_task(publisher.run(stop, rate=plan.rate))
            await disturb(drill)
            await drill.published()
            stop.set()
        await drill.fence()
        return Outcome(account=drill.account(), drill=drill, seconds=time.monotonic() - begin)
