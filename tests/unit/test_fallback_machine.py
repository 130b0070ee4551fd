"""Muting on one node, step by step: who is muted when, by whom, and what happens in which order."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from dualcast.model.principal import Principal
from dualcast.model.publication import Audience
from support.fallback_scene import pair, say
from support.instance_world import World
from support.model_bus import TENANT

pytestmark = pytest.mark.anyio


@pytest.fixture
async def world(anyio_backend: object) -> AsyncIterator[World]:
    made = World(servers=1)
    yield made
    await made.close()


async def test_a_stream_is_muted_by_the_first_receipt_and_not_before(world: World) -> None:
    stream = world.stream(0, "tab")
    socket = world.socket(0, "tab")
    assert not stream.session.muted
    say(world, "a")
    socket.read()
    assert not stream.session.muted, "the ping was read and not answered"
    socket.answer()
    assert stream.session.muted
    say(world, "b")
    stream.read()
    socket.read()
    assert stream.ids == ["a"] and socket.ids == ["a", "b"]


async def test_a_muted_stream_follows_what_its_client_has_read_by_blocks_without_events(world: World) -> None:
    stream, socket = pair(world)
    offset = say(world, "a")
    world.servers[0].sweeps()  # asks
    stream.read()
    assert stream.cursor != f"e1-{offset}"
    socket.read()
    socket.answer()
    before = stream.parser.positions
    world.servers[0].sweeps()
    stream.read()
    assert stream.cursor == f"e1-{offset}" and stream.parser.positions == before + 1 and stream.ids == []


@pytest.mark.parametrize("how", ["closed", "cut", "violated", "expired", "replaced"])
async def test_when_the_socket_ends_the_stream_goes_on_from_what_was_confirmed(
    world: World, how: str
) -> None:
    stream, socket = pair(world)
    say(world, "a")
    world.servers[0].sweeps()
    socket.read()
    socket.answer()
    say(world, "b")  # written to the socket, never read
    if how == "closed":
        socket.session.on_close(1000, "")
    elif how == "cut":
        socket.cut()
    elif how == "violated":
        socket.session.on_violation(1002, "")
    elif how == "expired":
        socket.session.expire("token expired")
    else:
        socket.session.write_failed()
    assert not stream.session.muted and stream.session.live
    say(world, "c")
    stream.read()
    assert stream.ids == ["b", "c"]


async def test_a_silent_socket_is_found_while_there_is_something_to_confirm(world: World) -> None:
    stream, socket = pair(world)
    socket.silent = True
    say(world, "a")
    for _ in range(world.settings.dead_after_s + 2):
        world.servers[0].sweeps()
    assert socket.ended and not stream.session.muted
    stream.read()
    assert stream.ids == ["a"]


async def test_a_socket_that_talks_and_never_answers_mutes_nobody(world: World) -> None:
    stream, socket = pair(world)
    say(world, "a")
    for _ in range(world.settings.dead_after_s + 2):
        socket.session.data_received(b"")  # something comes from it, so it does not count as dead
        world.servers[0].sweeps()
    assert not socket.ended and not stream.session.muted
    stream.read()
    assert stream.ids == ["a"]
    socket.read()
    socket.answer()
    assert stream.session.muted, "until it answers again"


async def test_a_lost_channel_unmutes_at_once_and_a_late_receipt_moves_nothing(world: World) -> None:
    stream, socket = pair(world)
    say(world, "a", "topic:a")
    world.servers[0].sweeps()
    socket.read()
    socket.session.unsubscribe(["topic:a"])
    assert not stream.session.muted
    say(world, "b", "topic:a")
    socket.answer()  # of a ping that was sent while it was covered
    say(world, "c")
    stream.read()
    assert stream.ids == ["a", "b", "c"]
    socket.session.subscribe([world.servers[0].hub.channel(TENANT, "topic:a")])
    world.servers[0].sweeps()
    socket.read()
    socket.answer()
    assert stream.session.muted, "covered again, from where the stream has got to"


async def test_a_token_with_fewer_roles_unmutes(world: World) -> None:
    stream, socket = pair(world)
    socket.session.authenticated(Principal(TENANT, "u", roles=frozenset()))
    assert not stream.session.muted
    say(world, "a", audience=Audience(roles=("reader",)))
    world.servers[0].sweeps()
    socket.read()
    socket.answer()
    stream.read()
    assert stream.ids == ["a"] and socket.ids == []


async def test_roles_gained_cover_only_what_comes_then(world: World) -> None:
    stream = world.stream(0, "tab")
    stream.session.pause_writing()
    socket = world.socket(0, "tab", roles=frozenset())
    say(world, "a", audience=Audience(roles=("reader",)))
    socket.session.authenticated(Principal(TENANT, "u", roles=frozenset({"reader"})))
    socket.session.ping()
    socket.read()
    socket.answer()
    assert not stream.session.muted, "the socket was not due what the stream has not written yet"
    stream.session.resume_writing()
    await world.turns()
    stream.read()
    assert stream.ids == ["a"] and socket.ids == []


async def test_resume_backwards_does_not_count_what_was_read_before(world: World) -> None:
    start = world.log.model.top
    socket = world.socket(0, "tab")
    socket.read()
    socket.answer()
    for number in range(5):
        say(world, f"old{number}")
    socket.session.ping()
    socket.read()  # up to offset 5, and the answer is on its way
    socket.resumed = True
    socket.session.resume("e1", start)
    await world.turns()
    # The stream comes back from the start, and may rely on the socket for nothing below 5.
    stream = world.stream(0, "tab", cursor=f"e1-{start}")
    socket.answer()
    socket.cut()
    await world.turns()
    stream.read()
    assert stream.ids == [f"old{number}" for number in range(5)]


async def test_resume_forwards_leaves_a_hole_the_stream_does_not_have(world: World) -> None:
    stream, socket = pair(world)
    socket.session.pause_writing()
    say(world, "a")
    offset = say(world, "b")
    socket.session.resume("e1", offset)
    socket.session.resume_writing()
    say(world, "c")
    await world.turns()
    world.servers[0].sweeps()
    socket.read()
    socket.answer()
    stream.read()
    assert socket.ids == ["c"] and stream.ids[:2] == ["a", "b"]


async def test_the_next_socket_takes_over_without_a_word_on_the_stream(world: World) -> None:
    stream, first = pair(world)
    second = world.socket(0, "tab")
    second.read()
    second.answer()
    say(world, "a")
    first.cut()
    assert stream.session.muted
    second.read()
    second.session.ping()
    second.read()
    second.answer()
    stream.read()
    assert stream.ids == [] and second.ids == ["a"]
    say(world, "b")
    second.cut()
    stream.read()
    assert stream.ids == ["b"]


async def test_a_stream_comes_back_with_its_cursor_and_is_muted_when_its_socket_shows_that_it_lives(
    world: World,
) -> None:
    stream, socket = pair(world)
    say(world, "a")
    world.servers[0].sweeps()
    socket.read()
    socket.answer()
    world.servers[0].sweeps()
    stream.read()
    stream.cut()
    again = world.stream(0, "tab", cursor=stream.cursor)
    assert not again.session.muted
    socket.read()
    socket.answer()
    assert again.session.muted
    again.read()
    assert again.ids == []
    say(world, "b")
    socket.cut()
    again.read()
    assert again.ids == ["b"]


async def test_a_stream_behind_the_start_of_the_socket_reaches_it_first(world: World) -> None:
    stream = world.stream(0, "tab")
    stream.read()
    stream.cut()
    say(world, "a")
    socket = world.socket(0, "tab")
    socket.read()
    socket.answer()
    again = world.stream(0, "tab", cursor=stream.cursor)
    await world.turns()
    socket.read()
    socket.answer()
    assert again.session.muted
    again.read()
    assert again.ids == ["a"]


async def test_a_new_epoch_is_told_on_both(world: World) -> None:
    stream, socket = pair(world)
    say(world, "a")
    world.log.lose_tail(0)
    world.servers[0].flow()
    await world.turns()
    socket.read()
    stream.read()
    assert {gap[3] for gap in socket.gaps} == {gap[3] for gap in stream.gaps} == {"epoch"}
    say(world, "b")
    socket.cut()
    await world.turns()
    stream.read()
    assert "b" in stream.ids


async def test_the_bus_away_and_back_is_told_to_a_muted_stream(world: World) -> None:
    stream, _ = pair(world)
    world.servers[0].hub.status(False)
    world.servers[0].hub.status(True)
    assert stream.session.muted and not stream.session.away


async def test_a_muted_stream_does_not_lag(world: World) -> None:
    stream, _ = pair(world)
    stream.session.behind_since = -1e9
    world.servers[0].sweeps()
    assert not stream.ended
    stream.session.pause_writing()
    stream.session.behind_since = -1e9
    world.servers[0].sweeps()
    assert stream.ended, "one that takes nothing at all does"
