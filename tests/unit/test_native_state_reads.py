"""Channel states: readers share a reading, and a store that hangs holds nobody up."""

from __future__ import annotations

import asyncio

import pytest

from dualcast.session import channel_state
from dualcast.session.channel_state import AWAY, ChannelStates, State
from support.engine_room import room
from support.model_bus import TENANT

pytestmark = pytest.mark.anyio


class Slow:
    """A source whose readings end when the test says so."""

    def __init__(self) -> None:
        self.begun = 0
        self.go = asyncio.Event()

    async def __call__(self, tenant: str, channel: str) -> bytes | None:
        self.begun += 1
        number = self.begun
        await self.go.wait()
        return b"%d" % number


async def test_readers_share_the_next_reading_and_never_one_that_has_begun() -> None:
    async with room() as r:
        states, slow = ChannelStates(r.node.spawn), Slow()
        states.sources["task"] = slow
        early = asyncio.create_task(states.read(TENANT, ["task:1"]))
        await r.until(lambda: slow.begun == 1)
        late = [asyncio.create_task(states.read(TENANT, ["task:1"])) for _ in range(50)]
        await asyncio.sleep(0)
        slow.go.set()
        assert await early == {"task:1": State(b"1")}
        assert {(await one)["task:1"] for one in late} == {State(b"2")}
        assert slow.begun == 2
        await r.until(lambda: not states._reading and not states._next)


async def test_the_same_channel_of_two_tenants_is_read_for_each() -> None:
    async with room() as r:
        states = ChannelStates(r.node.spawn)

        async def source(tenant: str, channel: str) -> bytes | None:
            return tenant.encode()

        states.sources["task"] = source
        one, other = await asyncio.gather(states.read("one", ["task:1"]), states.read("two", ["task:1"]))
        assert (one["task:1"].data, other["task:1"].data) == (b"one", b"two")


async def test_a_hanging_store_holds_nobody_and_leaves_nothing_behind() -> None:
    async with room() as r:
        states, slow = ChannelStates(r.node.spawn, timeout_s=0.02), Slow()
        states.sources["task"] = slow
        names = [f"task:{number}" for number in range(3 * channel_state.MAX_READS)]
        assert set((await states.read(TENANT, names)).values()) == {AWAY}
        assert slow.begun == channel_state.MAX_READS
        async with asyncio.timeout(10):
            while states._reading or states._next:
                await asyncio.sleep(0.005)
        slow.go.set()
        assert (await states.read(TENANT, names[:1]))[names[0]].data is not None


async def test_a_reader_that_gives_up_takes_nothing_from_the_others() -> None:
    async with room() as r:
        states, slow = ChannelStates(r.node.spawn), Slow()
        states.sources["task"] = slow
        gone = asyncio.create_task(states.read(TENANT, ["task:1"]))
        stays = asyncio.create_task(states.read(TENANT, ["task:1"]))
        await r.until(lambda: slow.begun == 1)
        gone.cancel()
        await asyncio.gather(gone, return_exceptions=True)
        slow.go.set()
        assert await stays == {"task:1": State(b"1")}


async def test_all_states_of_one_reading_together_are_bounded() -> None:
    async with room() as r:
        states = ChannelStates(r.node.spawn)

        async def big(tenant: str, channel: str) -> bytes | None:
            return b"x" * channel_state.MAX_STATE_BYTES

        states.sources["batch"] = big
        found = list((await states.read(TENANT, [f"batch:{n}" for n in range(6)])).values())
        assert [state.status for state in found] == ["", "", "", "", "too-large", "too-large"]


async def test_a_node_that_stops_leaves_no_reader_waiting() -> None:
    async with room() as r:
        states, slow = ChannelStates(r.node.spawn), Slow()
        states.sources["task"] = slow
        waiting = asyncio.create_task(states.read(TENANT, ["task:1"]))
        await r.until(lambda: slow.begun == 1)
        await r.node.close()
        assert await waiting == {"task:1": AWAY}
