"""Whatever the interleaving of publish, connect, die, node loss, loss of what the nodes share, stage change
and lost receipts: every instance that presents its cursor receives every publication at least once, exactly
once after dropping equal ids; no instance ever silences another; a muted stream's position never passes
anything its client has not got; and what ended muting does not end it for ever.
"""

from __future__ import annotations

import asyncio

from hypothesis import given, settings
from hypothesis import strategies as st

from dualcast.pairing.redis import extension
from support import redis_nodes, redis_server
from support.instance_play import NODES, Play
from support.instance_world import RedisWorld, World

NAMES = (
    ["publish"] * 5
    + ["pump", "read", "answer", "listen", "sweep", "turns"] * 2
    + ["network", "uneven", "change"] * 3
    + ["talk", "stream", "socket", "exchange", "exchanges"] * 3
    + ["cut", "close", "silence", "change", "kill", "lose-pairs", "pairs-away", "time", "stage", "bus-away"]
    + ["flap", "stall", "full", "full", "forge"]
)
STEP = st.tuples(st.sampled_from(NAMES), st.integers(0, 8), st.integers(0, 8), st.integers(0, 11))
LOSING = st.tuples(
    st.sampled_from([*NAMES, "lose-tail"]), st.integers(0, 8), st.integers(0, 8), st.integers(0, 11)
)


async def play(steps: list[tuple[str, int, int, int]], world: World | None = None) -> None:
    game = Play(world or World(NODES))
    try:
        for at, instance in enumerate(game.instances):
            game.open_stream(instance, 0)
            game.open_socket(instance, at % NODES, 0)
            await game.step("talk", at, 0, 0)
        await game.world.exchange()
        for step in steps:
            await game.step(*step)
            game.check_muted()
        await game.finish()
        game.check_muted()
    finally:
        await game.world.close()


async def play_on_redis(url: str, steps: list[tuple[str, int, int, int]]) -> None:
    async with redis_nodes.node(url, extensions=(extension(),)) as node:
        await play(steps, RedisWorld(NODES, node.bus))


@settings(max_examples=250, deadline=None)
@given(st.lists(STEP, min_size=30, max_size=80))
def test_every_instance_gets_everything_and_is_silenced_by_nobody_else(steps):
    asyncio.run(play(steps))


@settings(max_examples=120, deadline=None)
@given(st.lists(LOSING, min_size=30, max_size=80))
def test_a_log_that_loses_its_tail_is_told_to_whoever_misses_something(steps):
    asyncio.run(play(steps))


def test_every_instance_gets_everything_over_redis():
    """The same with the rows in a real Redis, which is emptied now and then. Time passes 40 times faster."""
    with redis_server.RedisServer() as server:

        @settings(max_examples=15, deadline=None, database=None)
        @given(st.lists(STEP, min_size=30, max_size=60))
        def many(steps):
            asyncio.run(play_on_redis(server.url, steps))

        many()
