"""What tests of muting begin with, in a `support.instance_world.World`."""

from __future__ import annotations

from dualcast.model.publication import Audience
from support.instance_world import SocketLink, StreamLink, World


def say(world: World, ident: str, channel: str = "all", audience: Audience | None = None) -> int:
    """Publishes, and lets every server hear it; the offset."""
    offset = world.log.publish(ident, (channel,), audience)
    for server in world.servers:
        server.flow()
    return offset


def pair(world: World, **socket: object) -> tuple[StreamLink, SocketLink]:
    """A stream muted by its socket, on one node."""
    stream = world.stream(0, "tab")
    wire = world.socket(0, "tab", **socket)  # type: ignore[arg-type]
    wire.read()
    wire.answer()
    stream.read()
    return stream, wire


async def confirm(world: World, socket: SocketLink) -> None:
    """The client answers what is asked: now, and what the other node's streams make be asked."""
    socket.session.ping()
    for _ in range(2):
        socket.read()
        socket.answer()
        await world.exchange()


async def far_pair(world: World) -> tuple[StreamLink, SocketLink]:
    """The stream on node 0, muted by the socket on node 1."""
    stream = world.stream(0, "tab")
    socket = world.socket(1, "tab")
    await confirm(world, socket)
    assert stream.session.muted
    stream.read()
    return stream, socket
