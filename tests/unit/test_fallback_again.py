"""Muting comes back after what ended it is over, and rests on a socket that lives now."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from dualcast.model.publication import Audience
from dualcast_migration.stage import Stage
from support.fallback_scene import confirm, say
from support.fallback_scene import far_pair as pair
from support.instance_world import World

pytestmark = pytest.mark.anyio


@pytest.fixture
async def world(anyio_backend: object) -> AsyncIterator[World]:
    made = World(servers=2)
    yield made
    await made.close()


async def test_what_was_forgotten_for_want_of_news_is_asked_for_again(world: World) -> None:
    """The store was away for longer than the lease, and lost nothing: nothing in it is news."""
    stream, socket = await pair(world)
    world.store.away = True
    for _ in range(12):
        world.now_ms += 1_000
        await world.exchange(1)
    assert not stream.session.muted
    world.store.away = False
    await world.exchange()
    await confirm(world, socket)
    assert stream.session.muted


async def test_a_node_that_stood_still_asks_again_for_what_it_forgot(world: World) -> None:
    stream, socket = await pair(world)
    world.now_ms += 11_000  # nobody called: nobody is dead to the store
    await world.exchange()
    await confirm(world, socket)
    assert stream.session.muted


@pytest.mark.parametrize("at", [0, 1])
async def test_a_stream_that_comes_beside_a_dead_socket_is_not_silenced_by_it(world: World, at: int) -> None:
    """The page has lost its socket without a word, and opens a stream because of it."""
    socket = world.socket(1, "tab")
    await confirm(world, socket)
    offset = say(world, "a")
    await confirm(world, socket)
    socket.silent = True
    stream = world.stream(at, "tab", cursor=f"e1-{offset}")
    await world.exchange()
    say(world, "b")
    stream.read()
    assert stream.ids == ["b"]
    for _ in range(world.settings.dead_after_s + 2):
        world.servers[1].sweeps()
    assert socket.ended, "it was asked as soon as somebody depended on it"


async def test_a_dead_socket_is_asked_when_a_stream_comes_even_when_nothing_is_published(
    world: World,
) -> None:
    socket = world.socket(0, "tab")
    await confirm(world, socket)
    world.stream(0, "tab")
    socket.read()
    assert socket.pings


async def test_a_stage_that_was_another_for_a_moment_on_one_node_is_a_hole_to_the_other(world: World) -> None:
    """Node 1 saw two changes, node 0 none. Between them the socket was not due what is addressed to the
    stream."""
    stream, socket = await pair(world)
    node = world.servers[1]
    world.restage(Stage.SHADOW, [node])
    say(world, "a", audience=Audience(connections=(stream.session.id,)))
    await node.exchange.tick()
    world.restage(Stage.FALLBACK, [node])
    for _ in range(3):
        await node.exchange.tick()
        socket.session.ping()
        socket.read()
        socket.answer()
    await world.exchange()
    stream.read()
    assert "a" in [*stream.ids, *socket.ids]
