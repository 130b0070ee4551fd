"""The conversation service over a memory bus that keeps what it is given, with a clock tests move."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

from dualcast.bus.announcing import Announcer
from dualcast.bus.memory import MemoryBus
from dualcast.conversations.model import ConversationSettings
from dualcast.conversations.service import ConversationService
from dualcast.conversations.sql import PART, SqlConversations
from dualcast.model.publication import Draft, Quota, Receipt
from dualcast.model.push import decode_push
from dualcast.state.follow import StateFollower
from dualcast.state.memory import MemoryState
from dualcast.tenancy.grants import Grants
from support.bus_engines import Recorder
from support.conversation_engines import Clock


class RecordingBus(MemoryBus):
    """The memory engine, which keeps the drafts it was given and can be told to fail."""

    def __init__(self, clock: Clock) -> None:
        super().__init__(parts=(PART,), clock=clock)
        self.drafts: list[Draft] = []
        self.duplicates: list[Draft] = []
        self.error: Exception | None = None

    async def append(self, draft: Draft, quota: Quota | None = None) -> Receipt:
        if self.error is not None:
            raise self.error
        receipt = await super().append(draft, quota)
        (self.duplicates if receipt.duplicate else self.drafts).append(draft)
        return receipt


@dataclass
class Room:
    bus: RecordingBus
    grants: Grants
    service: ConversationService
    clock: Clock
    seen: int = 0

    def news(self) -> list[Draft]:
        """What was published since the last time it was asked."""
        found = self.bus.drafts[self.seen :]
        self.seen = len(self.bus.drafts)
        return found


@asynccontextmanager
async def opened(settings: ConversationSettings | None = None, **how: Any) -> AsyncIterator[Room]:
    """Conversation `c` of tenant `t` with alice, bob and carol."""
    clock = Clock()
    bus, state = RecordingBus(clock), MemoryState()
    await bus.start(Recorder())
    await state.start()
    grants = Grants(state, StateFollower(state))
    store = SqlConversations(bus.database, settings, clock)
    how = {"clock": clock, "monotonic": clock, **how}
    service = ConversationService(store, Announcer(bus, clock=clock), grants, settings, **how)
    one = Room(bus, grants, service, clock)
    try:
        await service.set_participants("t", "c", ["alice", "bob", "carol"])
        one.news()
        yield one
    finally:
        await bus.close()
        await state.close()


def data(draft: Draft) -> Any:
    return json.loads(draft.data)


def push(draft: Draft) -> dict[str, Any]:
    """The push of a draft as plain values."""
    assert draft.push is not None
    message = decode_push(draft.push.message)
    assert message.id == draft.id
    return {
        "users": draft.push.users,
        "devices": draft.push.devices,
        "title": message.title,
        "text": message.text,
        "priority": message.priority,
        "data": json.loads(bytes(message.data)),
        "for": message.devices,
    }
