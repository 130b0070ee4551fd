"""What the inbox service refuses, and that a change is kept when it cannot be told."""

from __future__ import annotations

import asyncio
import json
from typing import Any, cast

import pytest

from dualcast.bus.announcing import Announcer
from dualcast.inbox.cursor import read_cursor, write_cursor
from dualcast.inbox.port import InboxStore
from dualcast.inbox.service import TOGETHER, InboxService
from dualcast.model.errors import BadChannel, BadCursor, BadRequest, BusUnavailable, LimitExceeded
from support.inbox_engines import memory

pytestmark = pytest.mark.anyio


class Mute(Announcer):
    """Cannot publish."""

    async def announce(self, *arguments: Any, **more: Any) -> Any:
        raise BusUnavailable("away")


async def test_a_change_that_cannot_be_told_is_kept_and_counted() -> None:
    async with memory() as inboxes:
        service = InboxService(inboxes.store, Mute(inboxes.bus))
        ident = await inboxes.add("t", "alice")
        wide = await inboxes.add("t", wide=True)
        assert (await service.mark("t", "alice", "read", [ident])).changed == (ident,)
        assert await service.withdraw("t", wide)
        assert (await service.counts("t", "alice")).unread == 0 and service.unannounced == 2


class Crowded(Announcer):
    """Publishes nothing; knows how many calls there were at a time."""

    def __init__(self, bus: Any) -> None:
        super().__init__(bus)
        self.now = self.most = 0
        self.told: dict[str, Any] = {}

    async def announce(self, tenant: str, channels: Any, event: str, data: bytes, **more: Any) -> Any:
        self.now += 1
        self.most = max(self.most, self.now)
        await asyncio.sleep(0)
        self.now -= 1
        self.told[channels[0]] = json.loads(data)


async def test_a_publisher_waits_for_many_who_are_told_not_for_one_after_the_other() -> None:
    async with memory() as inboxes:
        announcer = Crowded(inboxes.bus)
        users = [f"u{number}" for number in range(2 * TOGETHER + 10)]
        for user in users:
            await inboxes.add("t", user, ident="n1")
        await InboxService(inboxes.store, announcer).added("t", [(user, "n1") for user in users])
        assert announcer.most == TOGETHER and list(announcer.told) == [f"user:{user}" for user in users]
        badge = await inboxes.store.counts("t", "u7")
        assert announcer.told["user:u7"] == {
            "action": "added",
            "ids": ["n1"],
            "unread": 1,
            "unseen": 1,
            "revision": [badge.user_revision, badge.tenant_revision],
        }


async def test_who_could_not_be_told_is_counted() -> None:
    class Away:
        async def counts(self, tenant: str, user: str) -> Any:
            raise BusUnavailable("away")

    async with memory() as inboxes:
        service = InboxService(cast("InboxStore", Away()), Announcer(inboxes.bus))
        await service.added("t", [("alice", "n1"), ("bob", "n1")])
        assert service.unannounced == 2
        muted = InboxService(inboxes.store, Mute(inboxes.bus))
        await muted.added("t", [("alice", "n1"), ("bob", "n1")])
        assert muted.unannounced == 2


async def test_what_is_refused() -> None:
    async with memory() as inboxes:
        service = InboxService(inboxes.store, Announcer(inboxes.bus))
        for user in ("", "x" * 257, "a\n"):
            with pytest.raises(BadChannel):
                await service.list("t", user)
            with pytest.raises(BadChannel):
                await service.counts("t", user)
            with pytest.raises(BadChannel):
                await service.mark("t", user, "read", None)
        for limit in (0, 101):
            with pytest.raises(BadRequest):
                await service.list("t", "alice", limit=limit)
        with pytest.raises(LimitExceeded) as caught:
            await service.mark("t", "alice", "read", [str(number) for number in range(501)])
        assert caught.value.code == "too-many-items"
        with pytest.raises(LimitExceeded):
            await service.list("t", "alice", kinds=[str(number) for number in range(21)])
        with pytest.raises(BadRequest):
            await service.mark("t", "alice", "deleted", None)  # type: ignore[arg-type]
        with pytest.raises(BadRequest):
            await service.list("t", "alice", states=["gone"])  # type: ignore[list-item]


async def test_ids_given_twice_count_once() -> None:
    async with memory() as inboxes:
        service = InboxService(inboxes.store, Announcer(inboxes.bus))
        ident = await inboxes.add("t", "alice")
        marked = await service.mark("t", "alice", "read", [ident] * 600 + ["x", "x"])
        assert (marked.changed, marked.unknown) == ((ident,), ("x",))


def test_a_cursor_belongs_to_one_inbox() -> None:
    cursor = write_cursor("t", "alice", 123)
    assert read_cursor("t", "alice", cursor) == 123
    assert write_cursor("t", "alice", 0) == "" and read_cursor("t", "alice", "") == 0
    for tenant, user in (("t", "bob"), ("u", "alice"), ("t\0a", "lice")):
        with pytest.raises(BadCursor):
            read_cursor(tenant, user, cursor)
