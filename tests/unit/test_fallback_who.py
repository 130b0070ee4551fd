"""Who mutes whom on one node: instances, channels, devices, roles, connections, stages."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from dualcast.model.publication import Audience
from dualcast_migration.stage import Stage
from support.fallback_scene import pair, say
from support.instance_world import CHANNELS, World

pytestmark = pytest.mark.anyio


@pytest.fixture
async def world(anyio_backend: object) -> AsyncIterator[World]:
    made = World(servers=1)
    yield made
    await made.close()


async def test_a_stream_with_more_channels_is_not_muted(world: World) -> None:
    stream = world.stream(0, "tab", channels=(*CHANNELS, "topic:b"))
    socket = world.socket(0, "tab")
    socket.read()
    socket.answer()
    assert not stream.session.muted


@pytest.mark.parametrize(
    ("stream_device", "socket_device", "muted"),
    [
        ("", "", True),
        ("", "mobile", True),
        ("mobile", "mobile", True),
        ("mobile", "", False),
        ("web", "mobile", False),
    ],
)
async def test_devices(world: World, stream_device: str, socket_device: str, muted: bool) -> None:
    stream = world.stream(0, "tab", device=stream_device)
    socket = world.socket(0, "tab", device=socket_device)
    socket.read()
    socket.answer()
    assert stream.session.muted is muted


async def test_roles(world: World) -> None:
    stream = world.stream(0, "tab", roles=frozenset({"a", "b"}))
    less = world.socket(0, "tab", roles=frozenset({"a"}))
    less.read()
    less.answer()
    assert not stream.session.muted
    more = world.socket(0, "tab", roles=frozenset({"a", "b", "c"}))
    more.read()
    more.answer()
    assert stream.session.muted


async def test_no_instance_another_instance_another_user(world: World) -> None:
    streams = [
        world.stream(0, ""),
        world.stream(0, "other"),
        world.stream(0, "tab", sub="v", channels=("all",)),
    ]
    for instance in ("tab", ""):
        socket = world.socket(0, instance)
        socket.read()
        socket.answer()
    assert not any(stream.session.muted for stream in streams)
    say(world, "a")
    for stream in streams:
        stream.read()
        assert stream.ids == ["a"]


async def test_a_publication_to_the_connection_of_a_muted_stream_goes_by_its_socket(world: World) -> None:
    stream, socket = pair(world)
    say(world, "a", audience=Audience(connections=(stream.session.id,)))
    socket.read()
    assert socket.ids == ["a"]
    socket.cut()
    stream.read()
    assert stream.ids == ["a"], "and again by the stream: it was not confirmed"


async def test_excluding_the_socket_excludes_its_muted_stream(world: World) -> None:
    stream, socket = pair(world)
    say(world, "a", audience=Audience(exclude_connections=(socket.session.id,)))
    socket.session.ping()
    socket.read()
    socket.answer()
    socket.cut()
    stream.read()
    assert socket.ids == [] and stream.ids == []


async def test_stages_change_on_live_connections(world: World) -> None:
    stream, socket = pair(world)
    say(world, "a")
    world.restage(Stage.SHADOW)
    assert stream.session.live and world.servers[0].pairing.siblings(stream.session) == [socket.session]
    stream.read()
    assert stream.ids == ["a"]
    world.restage(Stage.SSE)
    assert world.servers[0].pairing.siblings(stream.session) == []
    world.restage(Stage.WEBSOCKET)
    assert not stream.session.muted, "receipts of before do not count"
    socket.session.ping()
    socket.read()
    socket.answer()
    assert stream.session.muted


async def test_scope_user_takes_all_sessions_of_a_user_for_one_instance(world: World) -> None:
    world.scope = "user"
    stream = world.stream(0, "")
    other = world.stream(0, "tab", sub="v", channels=("all",))
    socket = world.socket(0, "phone")
    socket.read()
    socket.answer()
    assert stream.session.muted and not other.session.muted
    say(world, "a")
    world.scope = "instance"
    world.restage(Stage.FALLBACK)
    stream.read()
    assert stream.session.live and stream.ids == ["a"], "it was silenced by another instance"


async def test_legacy_sessions_are_in_no_index(world: World) -> None:
    stream = world.stream(0, "tab")
    stream.session.pairs = None
    world.servers[0].pairing.left(stream.session)
    socket = world.socket(0, "tab")
    socket.read()
    socket.answer()
    assert not stream.session.muted and world.servers[0].pairing.siblings(socket.session) == []
