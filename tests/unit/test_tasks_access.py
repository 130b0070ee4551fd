"""Grants of tasks over the lives of an id, and writers taking turns."""

from __future__ import annotations

import asyncio

import pytest

from dualcast.model.errors import BusUnavailable
from dualcast.tasks.access import ChannelAccess
from dualcast.tasks.turns import Turns
from dualcast.tenancy.grants import Grant
from support.task_room import task_room

pytestmark = pytest.mark.anyio


async def test_members_of_an_earlier_life_are_out() -> None:
    async with task_room("memory") as room:
        for channel in ("task:t", "batch:b"):
            await room.grants.set("t", channel, Grant("old", ("friend",)))
        await room.service.register("t", "t", "alice", batch="b")
        for channel in ("task:t", "batch:b"):
            assert await room.grants.allows("t", channel, "alice")
            assert not await room.grants.allows("t", channel, "friend")
            assert not await room.grants.allows("t", channel, "old")


@pytest.mark.parametrize("tidied", [False, True])
async def test_members_of_an_earlier_life_with_the_same_owner_are_out(tidied: bool) -> None:
    """An id used again before its old grant was withdrawn: those who were let into what is over stay out."""
    now = [1_800_000_000.0]
    async with task_room("memory", clock=lambda: now[0]) as room:
        await room.service.register("t", "t", "alice", batch="b", members=["friend"])
        await room.service.put_batch("t", "b", "alice", members=["friend"])
        now[0] += 40 * 86_400
        if tidied:
            room.service._access.gone("t", await room.store.tidy("t"))
        await room.service.register("t", "t", "alice", batch="b")
        for channel in ("task:t", "batch:b"):
            assert await room.grants.allows("t", channel, "alice")
            assert not await room.grants.allows("t", channel, "friend")
        await room.service.tidy()
        assert await room.grants.allows("t", "task:t", "alice")


async def test_members_granted_beforehand_stay() -> None:
    async with task_room("memory") as room:
        await room.grants.add("t", "task:t", ["early"])
        await room.service.register("t", "t", "alice", members=["m"])
        await room.grants.add("t", "task:t", ["late"])
        await room.service.register("t", "t", "alice", title="T")
        for user in ("early", "m", "late", "alice"):
            assert await room.grants.allows("t", "task:t", user)


async def test_a_grant_stays_when_the_id_is_in_use_again() -> None:
    async with task_room("memory") as room:
        access = ChannelAccess(room.grants, room.store, 10)
        await room.service.register("t", "used", "alice", batch="used")
        for channel in ("task:gone", "batch:gone"):
            await room.grants.add("t", channel, owner="alice")
        access.gone("t", ("task:used", "batch:used", "task:gone", "batch:gone"))
        await access.withdraw()
        assert access.waiting == 0
        for channel in ("task:used", "batch:used"):
            assert await room.grants.allows("t", channel, "alice")
        for channel in ("task:gone", "batch:gone"):
            assert not await room.grants.allows("t", channel, "alice")


async def test_withdrawing_waits_for_the_store(monkeypatch: pytest.MonkeyPatch) -> None:
    async with task_room("memory") as room:
        access = ChannelAccess(room.grants, room.store, 2)
        await room.grants.add("t", "task:3", owner="alice")

        async def away(*args: object) -> None:
            raise BusUnavailable("away")

        with monkeypatch.context() as patch:
            patch.setattr(room.store, "load", away)
            access.gone("t", ("task:1", "task:2", "task:3"))
            await access.withdraw()
        assert (access.waiting, access.kept) == (2, 1), "bounded, and counted"
        await access.withdraw()
        assert access.waiting == 0 and not await room.grants.allows("t", "task:3", "alice")


async def test_turns_are_taken_in_order_and_forgotten() -> None:
    turns, seen = Turns(), []

    async def write(key: str, name: str) -> None:
        async with turns.of(key):
            seen.append(name + " in")
            await asyncio.sleep(0)
            seen.append(name + " out")

    waiting = asyncio.create_task(write("k", "gives up"))
    await asyncio.gather(write("k", "1"), write("k", "2"), _cancel(waiting))
    assert [step for step in seen if "gives" not in step] == ["1 in", "1 out", "2 in", "2 out"]
    assert len(turns) == 0


async def _cancel(task: asyncio.Task[None]) -> None:
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
