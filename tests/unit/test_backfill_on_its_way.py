"""A ring is filled back from the log while older entries of other channels are still on their way."""

from __future__ import annotations

import pytest

from support.instance_world import World

pytestmark = pytest.mark.anyio


async def test_what_is_on_its_way_is_not_passed_over_by_what_was_read_of_another_channel() -> None:
    world = World(servers=1)
    try:
        early = world.stream(0, "", channels=("user:u",))
        world.log.publish("a", ("user:u",), None)  # on its way
        world.log.publish("b", ("topic:a",), None)
        late = world.stream(0, "", cursor="e1-0", channels=("user:u", "topic:a"))  # topic:a is new here
        await world.turns()
        world.servers[0].flow()
        await world.turns()
        for link in (early, late):
            link.read()
        assert (early.ids, late.ids) == (["a"], ["a", "b"])
    finally:
        await world.close()
