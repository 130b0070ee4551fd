"""Muting over two nodes: the socket on one, the stream on the other, and what they know of each other."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from dualcast.model.publication import Audience
from dualcast_migration.stage import Stage
from support.fallback_scene import confirm, say
from support.fallback_scene import far_pair as pair
from support.instance_world import World
from support.model_bus import TENANT

pytestmark = pytest.mark.anyio


@pytest.fixture
async def world(anyio_backend: object) -> AsyncIterator[World]:
    made = World(servers=2)
    yield made
    await made.close()


async def test_the_position_of_the_stream_follows_the_receipts_on_the_other_node(world: World) -> None:
    stream, socket = await pair(world)
    offset = say(world, "a")
    await world.exchange()
    assert stream.session.position < offset
    await confirm(world, socket)
    assert stream.session.position == offset
    world.servers[0].sweeps()
    stream.read()
    assert stream.cursor == f"e1-{offset}" and stream.ids == []


async def test_a_socket_with_a_stream_elsewhere_asks_for_receipts_in_every_sweep(world: World) -> None:
    _, socket = await pair(world)
    socket.read()
    say(world, "a")
    world.servers[1].sweeps()
    socket.read()
    assert socket.pings
    socket.answer()
    world.servers[1].sweeps()
    socket.read()
    assert not socket.pings, "nothing new to confirm"


async def test_the_end_of_the_socket_is_heard_of(world: World) -> None:
    stream, socket = await pair(world)
    say(world, "a")
    socket.cut()
    await world.exchange()
    assert not stream.session.muted
    stream.read()
    assert stream.ids == ["a"]


async def test_a_killed_node_is_found_by_its_lease(world: World) -> None:
    stream, socket = await pair(world)
    say(world, "a")
    await confirm(world, socket)
    say(world, "b")
    await world.kill(1)
    for _ in range(9):
        world.now_ms += 1_000
        await world.exchange(1)
    assert stream.session.muted, "the lease is not over"
    for _ in range(3):
        world.now_ms += 1_000
        await world.exchange(1)
    assert not stream.session.muted
    stream.read()
    assert stream.ids == ["b"], "from what was confirmed"


async def test_a_stream_that_comes_back_to_another_node_is_muted_again(world: World) -> None:
    stream, socket = await pair(world)
    say(world, "a")
    await confirm(world, socket)
    world.servers[0].sweeps()
    stream.read()
    await world.kill(0)
    again = world.stream(0, "tab", cursor=stream.cursor)
    await confirm(world, socket)
    assert again.session.muted
    again.read()
    assert again.ids == []
    say(world, "b")
    socket.cut()
    await world.exchange()
    again.read()
    assert again.ids == ["b"]


async def test_a_node_that_hears_nothing_trusts_nothing(world: World) -> None:
    stream, _ = await pair(world)
    say(world, "a")
    world.store.away = True
    for _ in range(12):
        world.now_ms += 1_000
        await world.exchange(1)
    assert not stream.session.muted
    stream.read()
    assert stream.ids == ["a"]


async def test_a_node_whose_loop_stood_still_trusts_nothing(world: World) -> None:
    stream, socket = await pair(world)
    socket.cut()  # and the other node has said so, and was forgotten since
    world.now_ms += 11_000
    await world.servers[0].exchange.tick()
    assert not stream.session.muted


async def test_a_store_that_lost_everything_is_filled_again_and_nobody_is_unmuted_for_it(
    world: World,
) -> None:
    stream, socket = await pair(world)
    world.store.lose()
    await world.exchange()
    assert stream.session.muted
    world.now_ms += 4_000
    await world.exchange()
    assert stream.session.muted, "its socket was told again"
    offset = say(world, "a")
    await confirm(world, socket)
    assert stream.session.position == offset


async def test_a_socket_that_ended_while_the_store_was_empty_is_not_believed_for_long(world: World) -> None:
    stream, socket = await pair(world)
    say(world, "a")
    world.store.lose()
    socket.cut()
    await world.exchange()
    world.now_ms += 4_000
    await world.exchange()
    assert not stream.session.muted
    stream.read()
    assert stream.ids == ["a"]


async def test_what_is_addressed_to_a_stream_its_socket_has_not_heard_of_is_not_lost(world: World) -> None:
    socket = world.socket(1, "tab")
    await confirm(world, socket)
    stream = world.stream(0, "tab")
    stream.session.pause_writing()
    say(world, "a", audience=Audience(connections=(stream.session.id,)))
    await confirm(world, socket)
    assert socket.ids == [] and not stream.session.muted
    stream.session.resume_writing()
    await world.turns()
    await confirm(world, socket)
    assert stream.session.muted
    say(world, "b", audience=Audience(connections=(stream.session.id,)))
    socket.read()
    stream.read()
    assert (stream.ids, socket.ids) == (["a"], ["b"])


async def test_a_socket_that_forgot_the_stream_for_a_while_mutes_it_anew(world: World) -> None:
    stream, socket = await pair(world)
    world.servers[1].pairing.forget()  # its node could not hear for too long
    say(world, "a", audience=Audience(connections=(stream.session.id,)))  # passes the socket by
    world.store.lose()
    await world.exchange()
    await confirm(world, socket)
    stream.read()
    assert stream.ids == ["a"]


async def test_a_channel_lost_and_found_between_two_calls_is_noticed(world: World) -> None:
    stream, socket = await pair(world)
    socket.session.unsubscribe(["topic:a"])
    say(world, "a", "topic:a")
    socket.session.subscribe([world.servers[1].hub.channel(TENANT, "topic:a")])
    await confirm(world, socket)
    stream.read()
    assert stream.ids == ["a"] and socket.ids == []


async def test_a_stage_without_muting_takes_the_rows_off(world: World) -> None:
    stream, socket = await pair(world)
    say(world, "a")
    world.restage(Stage.SHADOW)
    assert not stream.session.muted
    await world.exchange()
    world.restage(Stage.FALLBACK)
    await confirm(world, socket)
    assert stream.session.muted


async def test_rows_go_with_their_sessions(world: World) -> None:
    stream, socket = await pair(world)
    stream.cut()
    socket.cut()
    await world.exchange()
    assert world.store.rows == {}
    assert world.servers[0].pairing.gauges()["instances"] == 0


async def test_a_publication_the_node_of_the_socket_missed_comes_by_the_stream(world: World) -> None:
    """The socket is told a `gap` (reason `late`); the other node has had it in time."""
    stream, socket = await pair(world)
    for ident in ("a", "b"):
        world.log.publish(ident, ("all",), None)
    world.servers[1].bus.miss()
    world.servers[0].flow()
    await confirm(world, socket)
    stream.read()
    assert [gap[3] for gap in socket.gaps] == ["late"] and socket.ids == ["b"]
    assert stream.ids == ["a", "b"]
