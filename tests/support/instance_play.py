"""What instances of a page do and suffer over several nodes, and what must hold for each of them
at every moment and in the end.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from dualcast.model.principal import Principal
from dualcast.model.publication import Audience
from dualcast_migration.stage import Stage
from support.instance_world import CHANNELS, ROLES, Link, SocketLink, StreamLink, World
from support.model_bus import TENANT

INSTANCES = ("tab", "other", "")
NODES = 2


@dataclass
class Publication:
    ident: str
    offset: int
    channels: tuple[str, ...]
    audience: Audience | None


@dataclass
class Instance:
    """One page: a stream it keeps open, sockets that come and go, and what it has got over all of them."""

    name: str
    stream: StreamLink | None = None
    sockets: list[SocketLink] = field(default_factory=list)
    past: list[Link] = field(default_factory=list)
    cursor: str | None = None
    joined: int = 0

    def links(self) -> list[Link]:
        return [*self.past, *self.sockets, *([self.stream] if self.stream is not None else [])]

    def got(self) -> set[str]:
        return {ident for link in self.links() for ident in link.ids}

    def gaps(self) -> list[tuple[str, int, int, str]]:
        return [gap for link in self.links() for gap in link.gaps]


class Play:
    """A world, its instances, and what was published."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.instances = [Instance(name) for name in INSTANCES]
        self.published: list[Publication] = []
        self.owners: dict[str, tuple[str, SocketLink]] = {}
        """Socket id → instance and connection."""
        self.number = 0

    # ── what happens ──

    def publish(self, channel: int, audience: int) -> None:
        self.number += 1
        ident = f"p{self.number}"
        names = ((CHANNELS[channel % 3],), CHANNELS[:2], CHANNELS)[channel // 3]
        chosen: Audience | None = None
        if audience == 1:
            chosen = Audience(roles=("reader",))
        elif audience == 2:
            streams = [one.stream.session.id for one in self.instances if one.stream is not None]
            chosen = Audience(connections=tuple(streams[:1]) or ("nobody",))
        elif audience == 3:
            chosen = Audience(devices=("mobile",))
        offset = self.world.log.publish(ident, names, chosen)
        self.published.append(Publication(ident, offset, names, chosen))

    def open_stream(self, instance: Instance, at: int) -> None:
        old = instance.stream
        if old is not None:
            instance.cursor = old.cursor or instance.cursor
            instance.past.append(old)
            if not old.ended:
                old.cut()
        fresh = instance.cursor is None
        if fresh:
            instance.cursor = f"{self.world.log.model.epoch}-{self.world.log.model.top}"
            instance.joined = self.world.log.model.top
        instance.stream = self.world.stream(at, instance.name, cursor=instance.cursor, device="mobile")

    def open_socket(self, instance: Instance, at: int, how: int) -> None:
        cursor = None
        if how == 1:
            cursor = instance.cursor
        elif how == 2 and instance.sockets:
            cursor = instance.sockets[-1].cursor
        socket = self.world.socket(
            at,
            instance.name,
            cursor=cursor,
            device="mobile" if how < 5 else "",
            roles=ROLES if how != 3 else frozenset(),
            channels=CHANNELS if how != 4 else CHANNELS[:2],
        )
        self.owners[socket.session.id] = instance.name, socket
        instance.sockets.append(socket)

    def change(self, socket: SocketLink, how: int) -> None:
        session = socket.session
        if session.closed or socket.server not in self.world.servers:
            return
        if how == 0:
            session.unsubscribe(["topic:a"])
        elif how == 1:
            have = {feed.name for feed in session.channels}
            feed = socket.server.hub.channel(TENANT, "topic:a")
            if "topic:a" not in have and feed.complete_from >= 0 and session.offset >= 0:
                session.subscribe([feed])
        elif how == 2:
            session.authenticated(Principal(TENANT, "u", roles=frozenset()))
        elif how == 3:
            session.authenticated(Principal(TENANT, "u", roles=ROLES | {"more"}))
        elif how == 4 and socket.cursor:
            epoch, _, offset = socket.cursor.partition("-")
            socket.resumed = True
            session.resume(epoch, max(0, int(offset) - 2))
        elif how == 5 and socket.cursor and session.offset >= 0:
            socket.resumed = True
            session.resume(session.epoch, session.offset)

    async def step(self, name: str, a: int, b: int, c: int) -> None:
        world = self.world
        instance = self.instances[a % len(self.instances)]
        server = world.servers[a % NODES]
        sockets = instance.sockets
        if name == "publish":
            self.publish(b % 9, c % 4)
        elif name == "pump":
            server.bus.confirm()
            server.bus.pump(1 + b % 3)
        elif name == "stream":
            self.open_stream(instance, b % NODES)
        elif name == "socket" and len(sockets) < 6:
            self.open_socket(instance, b % NODES, c % 6)
        elif name == "network":  # the page loses all it has, and comes back with both, in either order
            for link in sockets:
                if not link.ended and link.server in world.servers:
                    link.cut()
            if c % 2 and instance.stream is not None and not instance.stream.ended:
                instance.stream.cut()
            self.open_socket(instance, b % NODES, c % 6)
            sockets[-1].read()
            sockets[-1].answer()
            await world.exchange()
            self.open_stream(instance, c % NODES)
        elif name == "uneven":  # one node is ahead of the other, and has its receipts
            if c % 3 == 0:
                self.open_stream(instance, b % NODES)
            self.publish(b % 9, c % 4)
            server.flow()
            for link in sockets:
                link.read()
                if link.server in world.servers:
                    link.answer()
            await world.exchange()
        elif name == "read" and sockets:
            link = sockets[b % len(sockets)]
            link.read(1 + c % 4)
        elif name == "answer" and sockets:
            link = sockets[b % len(sockets)]
            if link.server in world.servers:
                link.answer()
        elif name == "talk" and sockets:  # reads all and answers, as nearly always
            for link in sockets:
                link.read()
                if link.server in world.servers:
                    link.answer()
        elif name == "listen" and instance.stream is not None:
            instance.stream.read(1 + c % 4)
        elif name == "cut" and sockets:
            link = sockets[b % len(sockets)]
            if not link.ended and link.server in world.servers:
                link.cut()
        elif name == "close" and sockets:
            link = sockets[b % len(sockets)]
            if not link.ended and link.server in world.servers:
                link.session.on_close(1000, "")
        elif name == "silence" and sockets:
            sockets[b % len(sockets)].silent = True
        elif name == "change" and sockets:
            self.change(sockets[b % len(sockets)], c % 6)
        elif name == "sweep":
            server.sweeps(1 + c % 4)
        elif name == "exchange":
            await server.exchange.tick()
        elif name == "exchanges":
            await world.exchange()
        elif name == "turns":
            await world.turns(1 + b)
        elif name == "kill":
            await self.kill(a % NODES)
        elif name == "lose-pairs":
            await world.lose_pairs()
        elif name == "pairs-away":
            world.pairs_away(bool(b % 2))
        elif name == "time":
            await world.pass_time((300, 3_000, 11_000)[b % 3])
        elif name == "stage":
            world.restage((Stage.FALLBACK, Stage.SHADOW, Stage.WEBSOCKET, Stage.FALLBACK)[b % 4])
        elif name == "flap":  # one node hears of two changes of the stage, the others of none
            for stage in (Stage.SHADOW, world.stage):
                world.restage(stage, [server])
                if b % 2:
                    await server.exchange.tick()
        elif name == "stall":  # one node stands still, longer than its lease or not
            for _ in range((3, 12)[b % 2]):
                await world.pass_time(1_000)
                for one in world.servers:
                    if one is not server:
                        await one.exchange.tick()
        elif name == "full" and instance.links():  # a connection takes nothing for a while, or takes again
            session = instance.links()[-1 - b % len(instance.links())].session
            if not session.closed:
                (session.resume_writing if session.paused else session.pause_writing)()
        elif name == "forge" and sockets:
            session = sockets[b % len(sockets)].session
            assert not session.confirm(session.epoch, session.offset + 1 + c)
        elif name == "lose-tail":
            world.log.lose_tail(b % 3)
        elif name == "bus-away":
            for one in world.servers:
                one.bus.away = bool(b % 2)

    async def kill(self, at: int) -> None:
        server = self.world.servers[at]
        await self.world.kill(at)
        for instance in self.instances:
            for link in instance.links():
                if link.server is server:
                    link.silent = True  # what was written and not read is lost with the node
            stream = instance.stream
            if stream is not None and stream.server is server:
                instance.cursor = stream.cursor or instance.cursor
                instance.past.append(stream)
                instance.stream = None

    # ── what must hold ──

    def promised(self, instance: Instance, one: Publication) -> bool:
        """Whether the instance's stream is due it, whenever it may be written."""
        stream = instance.stream
        if one.offset <= instance.joined or stream is None:
            return False
        audience = one.audience
        if audience is not None and audience.connections:
            return stream.session.id in audience.connections
        return True

    def excused(self, instance: Instance, one: Publication) -> bool:
        """Only a log that lost its tail excuses, and only who was told."""
        for channel, after, through, reason in instance.gaps():
            if channel not in one.channels:
                continue
            if after < one.offset <= max(through, after):
                return True
            if reason == "epoch" and one.ident in self.world.log.model.lost and after < one.offset:
                return True
        return False

    def check_muted(self) -> None:
        """At every moment: nothing below a muted stream's position is missing on both sides, and who mutes it
        is its own."""
        for instance in self.instances:
            stream = instance.stream
            if stream is None or not stream.session.muted:
                continue
            member: Any = stream.session.pair
            owner, socket = self.owners[member.by[0]]
            assert owner == instance.name != "", "silenced by another instance"
            assert socket.answered, "silenced without a receipt"
            assert self.world.stage in (Stage.FALLBACK, Stage.WEBSOCKET)
            got = instance.got()
            waiting = b"".join(stream.wire.writes)
            for one in self.published:
                if one.offset > stream.session.position or not self.promised(instance, one):
                    continue
                if one.ident in got or b'"id":"%b"' % one.ident.encode() in waiting:
                    continue
                assert self.excused(instance, one) or b"event: gap" in waiting, (
                    f"{one} was passed over by the muted stream of {instance}"
                )

    async def finish(self) -> None:
        """Everything heals: silent sockets are found, streams come back, all is read."""
        world = self.world
        world.pairs_away(False)
        for server in world.servers:
            server.bus.away = False
            server.hub.status(True)
            for session in list(server.hub.sessions.values()):
                if session.paused:
                    session.resume_writing()
        for instance in self.instances:
            if instance.stream is None or instance.stream.ended:
                self.open_stream(instance, 0)
        for _ in range(40):
            await world.pass_time(1_000)
            for server in world.servers:
                server.flow()
                server.sweeps()
            await world.exchange(1)
            await world.turns(30)
            for instance in self.instances:
                assert instance.stream is not None
                instance.stream.read()
                for socket in instance.sockets:
                    socket.read()
                    if socket.server in world.servers:
                        socket.answer()
            if world.real_time and self.trouble() is None:
                break
        trouble = self.trouble()
        assert trouble is None, trouble

    def trouble(self) -> str | None:
        """What is not yet as it must be in the end."""
        for instance in self.instances:
            got = instance.got()
            for one in self.published:
                if self.promised(instance, one) and one.ident not in got and not self.excused(instance, one):
                    return f"{one} is missing: {instance}"
            assert instance.stream is not None
            dead = all(socket.ended or socket.silent for socket in instance.sockets)
            if dead and not instance.stream.session.live:
                return f"nobody delivers to {instance}"
            covered = any(self.should_mute(instance, socket) for socket in instance.sockets)
            if covered and not instance.stream.session.muted:
                return f"for ever twice: {instance}"
        return None

    def should_mute(self, instance: Instance, socket: SocketLink) -> bool:
        """Whether nothing is left to wait for: the socket lives, answers, and covers the stream."""
        assert instance.stream is not None
        if socket.ended or socket.silent or socket.server not in self.world.servers:
            return False
        member: Any = socket.session.pair
        stream: Any = instance.stream.session.pair
        return bool(
            instance.name
            and self.world.stage in (Stage.FALLBACK, Stage.WEBSOCKET)
            and socket.session.live
            and socket.session.epoch == stream.session.epoch
            and member.channels >= stream.channels
            and member.roles >= stream.roles
            and socket.session.device == stream.session.device
        )
