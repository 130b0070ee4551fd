"""A Publisher over a bus that answers when the test says so; no time passes."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Coroutine, Sequence
from typing import Any

import msgspec

from dualcast.model.errors import BusUnavailable, DualcastError
from dualcast.model.principal import Principal
from dualcast.model.publication import Draft, Quota, Receipt
from dualcast.publishing.requests import NotificationRequest, Target
from dualcast.publishing.service import Publisher, PublishSettings
from dualcast.publishing.turns import TurnSettings
from dualcast.telemetry.counters import Counters

SLICE, ROOM = 10, 20
SMALL = TurnSettings(slice_units=SLICE, in_flight_units=ROOM, waiting_items=1_300, waiting_bytes=1_000_000)


class SlowBus:
    """Takes drafts and answers a call when told to."""

    def __init__(self) -> None:
        self.open: deque[tuple[list[Draft], asyncio.Future[list[Receipt | DualcastError]]]] = deque()
        self.taken: list[Draft] = []
        self.away = False

    async def append(self, draft: Draft, quota: Quota | None = None) -> Receipt:
        (answer,) = await self.append_many([draft], quota)
        if isinstance(answer, DualcastError):
            raise answer
        return answer

    async def append_many(
        self, drafts: Sequence[Draft], quota: Quota | None = None
    ) -> list[Receipt | DualcastError]:
        self.taken += drafts
        future: asyncio.Future[list[Receipt | DualcastError]] = asyncio.get_running_loop().create_future()
        self.open.append((list(drafts), future))
        return await future

    async def answer(self, calls: int = 1) -> None:
        """Answers the oldest calls, and lets everybody go on."""
        for _ in range(min(calls, len(self.open))):
            drafts, future = self.open.popleft()
            first = len(self.taken)
            results: list[Receipt | DualcastError] = [
                BusUnavailable("away") if self.away else Receipt("e", first + number, draft.id)
                for number, draft in enumerate(drafts)
            ]
            if not future.done():
                future.set_result(results)
        await settled()

    async def answer_all(self) -> None:
        while self.open:
            await self.answer()


class Rig:
    def __init__(self, turns: TurnSettings = SMALL, **how: Any) -> None:
        self.bus = SlowBus()
        self.publisher = Publisher(self.bus, Counters(), None, PublishSettings(turns=turns), **how)  # type: ignore[arg-type]
        self.turns = self.publisher.turns

    def one(self, tenant: str, ident: str, users: int = 1, data: bytes = b"{}") -> asyncio.Task[Receipt]:
        return start(self.publisher.publish(principal(tenant), request(ident, users, data)))

    def many(self, tenant: str, name: str, count: int, size: int = 0) -> asyncio.Task[list[Any]]:
        items = [request(f"{name}{number}") for number in range(count)]
        return start(self.publisher.publish_many(principal(tenant), items, size=size))

    def ids(self) -> list[str]:
        return [draft.id for draft in self.bus.taken]

    def idle(self) -> bool:
        return not (self.turns.in_flight or self.turns.waiting or self.turns._ring or self.turns._queues)


def principal(tenant: str) -> Principal:
    return Principal(tenant, "backend", frozenset({"publisher"}))


def request(ident: str, users: int = 1, data: bytes = b"{}") -> NotificationRequest:
    to = Target(users=[f"u{number}" for number in range(users)])
    return NotificationRequest(to=to, id=ident, title="t", data=msgspec.Raw(data), store=False)


def start(work: Coroutine[Any, Any, Any]) -> asyncio.Task[Any]:
    return asyncio.get_running_loop().create_task(work)


async def settled() -> None:
    """Lets the loop turn until nobody has anything left to do but to wait for the bus."""
    for _ in range(50):
        await asyncio.sleep(0)
