"""The holes of several channels reach the client together: the cursor it has then lies behind them all."""

from __future__ import annotations

import pytest

from support.instance_world import World

pytestmark = pytest.mark.anyio


@pytest.mark.parametrize(
    ("cursor", "reason"), [("e1-0", "epoch"), ("e1-9", "unknown"), ("nobody-3", "unknown"), (None, "epoch")]
)
async def test_a_stream_cut_after_the_first_gap_has_heard_of_all(cursor: str | None, reason: str) -> None:
    world = World(servers=1)
    try:
        if reason == "epoch" and cursor:
            world.log.lose_tail(0)
            world.servers[0].flow()
        stream = world.stream(0, "", cursor=cursor)
        if cursor is None:
            world.log.lose_tail(0)  # it is live
            world.servers[0].flow()
        await world.turns()
        while not stream.gaps:
            stream.read(1)
        assert [(gap[0], gap[3]) for gap in stream.gaps] == [
            (channel, reason) for channel in ("user:u", "all", "topic:a")
        ]
    finally:
        await world.close()
