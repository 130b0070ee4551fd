"""However much one tenant has to fan out, and in however many pieces it came: the loop turns after a bounded
number of writes, so that another tenant's publication is not behind it. Order and completeness stay.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import pytest

from dualcast.hub.fan_out import FRAMES_PER_WRITE
from dualcast.hub.hub import HubSettings
from dualcast.model.publication import Audience
from support.engine_room import Room, ids, room
from support.model_bus import TENANT
from support.recording import RecordingTransport

pytestmark = pytest.mark.anyio

LIMIT = 10


async def writes_per_turn(r: Room, transports: Sequence[RecordingTransport]) -> list[int]:
    """Writes in each turn of the loop until the tenant has nothing left to fan out."""
    feed = r.hub.tenants[TENANT]
    found = []
    while feed.running or feed.backlog:
        before = sum(transport.writes for transport in transports)
        await asyncio.sleep(0)
        found.append(sum(transport.writes for transport in transports) - before)
    return found


async def test_a_batch_over_many_channels_gives_way() -> None:
    async with room(hub=HubSettings(large_fan_out=LIMIT)) as r:
        names = [f"topic:t{number}" for number in range(20)]
        groups = [[r.open(name, sub=f"{name}-{n}")[1] for n in range(4)] for name in names]
        transports = [transport for group in groups for transport in group]
        for turn in range(2):
            for name in names:
                r.bus.publish(f"{name}-{turn}", (name,))
        r.bus.pump()
        r.say("after", "topic:t0")
        turns = await writes_per_turn(r, transports)
        assert len(turns) >= 40 * 4 / LIMIT
        assert max(turns) <= LIMIT
        for name, group in zip(names, groups, strict=True):
            wanted = [f"{name}-0", f"{name}-1"] + ["after"] * (name == "topic:t0")
            assert all(ids(transport) == wanted for transport in group)


async def test_a_backlog_of_small_fan_outs_gives_way() -> None:
    async with room(hub=HubSettings(large_fan_out=LIMIT)) as r:
        small = [r.open("topic:small", sub=f"s{number}")[1] for number in range(LIMIT - 1)]
        large = [r.open("all", sub=f"u{number}")[1] for number in range(LIMIT + 1)]
        r.say("begin", "all")
        for number in range(12):
            r.say(f"n{number}", "topic:small")
        assert not any(ids(transport) for transport in small)
        turns = await writes_per_turn(r, small + large)
        assert max(turns) <= 2 * LIMIT, "as much as the limit, and the one that went beyond it"
        wanted = [f"n{number}" for number in range(12)]
        assert all(ids(transport) == wanted for transport in small)
        assert all(ids(transport) == ["begin"] for transport in large)


async def test_many_frames_for_few_sessions_give_way() -> None:
    async with room(hub=HubSettings(large_fan_out=LIMIT)) as r:
        opened = [r.open("topic:a", "topic:b", sub=f"u{number}") for number in range(3)]
        transports = [transport for _, transport in opened]
        before = [transport.writes for transport in transports]
        names = []
        for number in range(200):
            names.append(f"n{number}")
            if number % 50 == 49:
                r.bus.whisper(names[-1], ("topic:a", "topic:b"))
            else:
                audience = None if number % 3 else Audience(users=("u0", "u1", "u2"))
                r.bus.publish(names[-1], ("topic:a", "topic:b"), audience)
        r.bus.pump()
        feed = r.hub.tenants[TENANT]
        assert feed.running
        assert feed.head == 0, "nobody's position is ahead of what is written"
        await writes_per_turn(r, transports)
        assert all(ids(transport) == names for transport in transports)
        least = 200 * 2 * 3 // (LIMIT * FRAMES_PER_WRITE)
        assert all(now.writes - then >= least for now, then in zip(transports, before, strict=True))
        assert feed.head == r.bus.top
        assert all(session.offset == r.bus.top for session, _ in opened)


async def test_who_joins_and_who_leaves_between_the_pieces_is_due_what_it_is_due() -> None:
    async with room(hub=HubSettings(large_fan_out=LIMIT)) as r:
        names = [f"topic:t{number}" for number in range(10)]
        opened = {name: [r.open(name, sub=f"{name}-{n}") for n in range(4)] for name in names}
        for turn in range(2):
            for name in names:
                r.bus.publish(f"{name}-{turn}", (name,))
        r.bus.pump()
        await asyncio.sleep(0)
        gone, silent = opened["topic:t9"][0]
        gone.connection_lost(None)
        late, transport = r.open("topic:t0", "topic:t9", sub="late", epoch=r.bus.epoch, position=0)
        now, nothing = r.open("topic:t9", sub="now")
        feed = r.hub.tenants[TENANT]
        await r.until(lambda: not feed.running and late.live and now.live)
        assert not ids(silent)
        assert not ids(nothing)
        assert ids(transport) == ["topic:t0-0", "topic:t9-0", "topic:t0-1", "topic:t9-1"]
        r.say("more", "topic:t9")
        assert ids(transport)[-1] == "more"
        assert ids(nothing) == ["more"]


async def test_a_long_run_for_many_sessions_gives_way() -> None:
    async with room(hub=HubSettings(large_fan_out=LIMIT)) as r:
        transports = [r.open("all", sub=f"u{number}")[1] for number in range(LIMIT - 1)]
        names = [f"n{number}" for number in range(FRAMES_PER_WRITE * 4)]
        for name in names:
            r.bus.publish(name, ("all",))
        r.bus.pump()
        turns = await writes_per_turn(r, transports)
        assert max(turns) <= LIMIT // 5
        assert all(ids(transport) == names for transport in transports)
        assert r.hub.tenants[TENANT].head == r.bus.top
