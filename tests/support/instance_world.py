"""Several nodes over one log in one process, and clients with a stream and a socket each, over wires the test
holds in its hands: when bytes are read, when pings are answered, when a wire is cut or goes silent.
"""

from __future__ import annotations

import asyncio
import json
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any, Literal

from dualcast.bus.redis.engine import RedisBus
from dualcast.dialects.native_signals import SOCKET, STREAM
from dualcast.hub.hub import Hub, HubSettings
from dualcast.model.cursor import parse_cursor
from dualcast.model.errors import BusUnavailable
from dualcast.model.principal import Principal
from dualcast.model.publication import Audience, Entry, Publication
from dualcast.pairing.exchange import Exchange
from dualcast.pairing.port import PairSettings
from dualcast.pairing.redis import RedisPairs
from dualcast.session.node import Node, SessionSettings
from dualcast.session.pairing import Pairing
from dualcast.session.recovery import Recovery
from dualcast.session.session import FROM_NOW
from dualcast.session.sweep import Sweep
from dualcast.telemetry.counters import Counters
from dualcast.transport.encodings import NATIVE_SSE, NATIVE_WS
from dualcast.transport.sse import SseSession
from dualcast.transport.websocket import WebSocketSession
from dualcast_migration.muting import pairs_of
from dualcast_migration.policy import Decision, StageRecord, decide
from dualcast_migration.stage import Stage
from support.clients import SseParser
from support.model_bus import TENANT, ModelBus
from support.pair_store import MemoryPairs

CHANNELS = ("user:u", "all", "topic:a")
ROLES = frozenset({"reader"})


class Log:
    """The one log of all nodes."""

    def __init__(self, keep: int) -> None:
        self.model = ModelBus(keep=keep)
        self.buses: list[NodeBus] = []

    def publish(self, ident: str, channels: tuple[str, ...], audience: Audience | None) -> int:
        """Appends; every node has it on its way."""
        offset = self.model.publish(ident, channels, audience)
        entries = self.model.live.pop()
        for bus in self.buses:
            bus.live.append([_copy(entry) for entry in entries])
        return offset

    def lose_tail(self, count: int) -> None:
        """The newest publications are gone, and whatever was on its way. A new epoch begins."""
        model = self.model
        for ring in model.history.values():
            for _ in range(min(count, len(ring))):
                model.lost.add(ring.pop().publication.id)
        model.epoch_number += 1
        for bus in self.buses:
            model.lost.update(entry.publication.id for entries in bus.live for entry in entries)
            bus.live.clear()
            bus.untold = model.top


def _copy(entry: Entry) -> Entry:
    publication: Publication = entry.publication
    return Entry(publication, entry.channel, entry.prev)


class NodeBus(ModelBus):
    """One node's sight of the log."""

    def __init__(self, log: Log) -> None:
        self._log = log
        super().__init__(keep=log.model.keep)
        self.history, self.trimmed = log.model.history, log.model.trimmed
        self.heads, self.lost = log.model.heads, log.model.lost

    @property
    def top(self) -> int:
        return self._log.model.top

    @top.setter
    def top(self, value: int) -> None: ...

    @property
    def epoch_number(self) -> int:
        return self._log.model.epoch_number

    @epoch_number.setter
    def epoch_number(self, value: int) -> None: ...


class Server:
    """One node without sockets."""

    def __init__(self, log: Log, exchange: Callable[[str], Exchange], settings: SessionSettings) -> None:
        self.bus = NodeBus(log)
        log.buses.append(self.bus)
        self.hub = Hub(self.bus, HubSettings(ring_entries=8))  # type: ignore[arg-type]
        self.bus.follower = self.hub
        self.node = Node(self.bus, self.hub, Counters(), settings)  # type: ignore[arg-type]
        self.recovery = Recovery(self.node)
        self.sweep = Sweep(self.node, self.recovery)
        self.exchange = exchange(self.node.id)
        self.pairing = Pairing(self.node, self.exchange)
        self.exchange.connect(self.pairing)
        self.node.pairing = self.pairing
        self.worker = asyncio.create_task(self.recovery.run())

    def flow(self) -> None:
        """Hands over all there is."""
        self.bus.confirm()
        self.bus.pump()

    def sweeps(self, times: int = 1) -> None:
        """Looks at every session so often."""
        for _ in range(times * self.node.settings.sweep_s):
            self.sweep.tick()

    async def stop(self) -> None:
        self.worker.cancel()
        await asyncio.gather(self.worker, return_exceptions=True)
        await self.node.close()


class Wire:
    """The transport of a session: each write waits here until the client reads it."""

    def __init__(self) -> None:
        self.writes: deque[bytes] = deque()
        self.closing = False

    def write(self, data: bytes) -> None:
        if not self.closing:
            self.writes.append(data)

    def set_write_buffer_limits(self, high: int, low: int) -> None: ...

    def get_write_buffer_size(self) -> int:
        return sum(map(len, self.writes))

    def can_write_eof(self) -> bool:
        return False

    def close(self) -> None:
        self.closing = True

    abort = close


class Commands:
    """Nobody sends any."""

    def text(self, session: Any, text: str) -> None: ...

    def binary(self, session: Any, data: bytes) -> None: ...


class Link:
    """One connection of an instance."""

    def __init__(self, server: Server, session: Any) -> None:
        self.server = server
        self.session = session
        self.wire = Wire()
        self.silent = False
        """The client hears nothing and says nothing any more, and the server does not know."""
        self.resumed = False
        """The client has asked for something again."""
        self.answered = False
        self.pings: list[bytes] = []
        self.ids: list[str] = []
        self.gaps: list[tuple[str, int, int, str]] = []
        self.cursor: str | None = None
        session.attached(self.wire, set(), paused=False, initial=b"")

    @property
    def is_socket(self) -> bool:
        return isinstance(self.session, WebSocketSession)

    @property
    def ended(self) -> bool:
        return bool(self.session.closed)

    def read(self, writes: int = 1 << 30) -> None:
        """The client reads what was written, at most so many writes of it."""
        while self.wire.writes and writes > 0 and not self.silent:
            writes -= 1
            self._take(self.wire.writes.popleft())

    def answer(self) -> None:
        """The client's stack answers the pings that were read."""
        pings, self.pings = self.pings, []
        for payload in pings:
            if not self.silent and not self.session.closed:
                self.answered = True
                self.session.unanswered_ticks = -1
                self.session.on_pong(payload)

    def cut(self) -> None:
        """The connection breaks, and the server hears of it. What was not read is lost."""
        self.silent = True
        self.session.connection_lost(None)

    def _take(self, data: bytes) -> None:
        raise NotImplementedError

    def _told(self, kind: str, body: dict[str, Any], cursor: str | None) -> None:
        if kind == "gap":
            through = parse_cursor(cursor).offset if cursor else 0
            after = parse_cursor(body["after"]).offset if body.get("after") else 0
            self.gaps.append((body["channel"], after, through, body["reason"]))
        elif "channel" in body and "id" in body:
            assert self.resumed or body["id"] not in self.ids, "twice on one connection"
            self.ids.append(body["id"])


class StreamLink(Link):
    def __init__(self, server: Server, session: Any) -> None:
        self.parser = SseParser()
        super().__init__(server, session)

    def _take(self, data: bytes) -> None:
        while data:
            size, _, data = data.partition(b"\r\n")
            length = int(size, 16)
            block, data = data[:length], data[length + 2 :]
            for event, text, cursor, _ in self.parser.feed(block):
                self._told(event, json.loads(text), cursor or None)
        self.cursor = self.parser.last_event_id or None


class SocketLink(Link):
    def _take(self, data: bytes) -> None:
        while data:
            opcode, length, at = data[0] & 0x0F, data[1], 2
            if length == 126:
                length, at = int.from_bytes(data[2:4], "big"), 4
            payload, data = data[at : at + length], data[at + length :]
            if opcode == 9:
                self.pings.append(payload)
            elif opcode == 1:
                body = json.loads(payload)
                self._told(body.pop("type"), body, body.get("cursor"))
                self.cursor = body.get("cursor") or self.cursor


class World:
    """`now_ms` is the clock of the leases."""

    real_time = False
    """Whether waiting costs time."""

    def __init__(self, servers: int = 2, *, keep: int = 1000, dead_after_s: int = 2) -> None:
        self.now_ms = 1_000_000.0
        self.log = Log(keep)
        self.store = MemoryPairs(lambda: self.now_ms)
        self.settings = SessionSettings(
            sweep_s=1, dead_after_s=dead_after_s, lag_limit_s=3600, page_limit=3, recovery_workers=2
        )
        self.stage = Stage.FALLBACK
        self.scope: Literal["instance", "user"] = "instance"
        self.servers = [self._server() for _ in range(servers)]

    def _server(self) -> Server:
        return Server(self.log, self.make_exchange, self.settings)

    def make_exchange(self, node: str) -> Exchange:
        return Exchange(self.store, node=node, monotonic=lambda: self.now_ms / 1000)

    async def lose_pairs(self) -> None:
        """What the nodes share is gone."""
        self.store.lose()

    def pairs_away(self, away: bool) -> None:
        """Nobody can be told anything."""
        self.store.away = away

    async def pass_time(self, ms: int) -> None:
        self.now_ms += ms

    @property
    def decision(self) -> Decision:
        return decide(StageRecord(self.stage, fallback_scope=self.scope), TENANT, "u", 0.0)

    def stream(self, at: int, instance: str, *, cursor: str | None = None, **how: Any) -> StreamLink:
        link = self._open(at, instance, cursor, StreamLink, **how)
        assert isinstance(link, StreamLink)
        return link

    def socket(self, at: int, instance: str, *, cursor: str | None = None, **how: Any) -> SocketLink:
        link = self._open(at, instance, cursor, SocketLink, **how)
        assert isinstance(link, SocketLink)
        return link

    def _open(
        self,
        at: int,
        instance: str,
        cursor: str | None,
        kind: type[Link],
        *,
        channels: tuple[str, ...] = CHANNELS,
        roles: frozenset[str] = ROLES,
        device: str = "",
        sub: str = "u",
    ) -> Link:
        server = self.servers[at]
        for name in channels:
            server.hub.channel(TENANT, name)
        server.bus.confirm()  # admission waits for it
        epoch, position = parse_cursor(cursor) if cursor else ("", FROM_NOW)
        given: dict[str, Any] = {
            "epoch": epoch,
            "position": position,
            "instance": instance,
            "device": device,
            "stage": self.stage.value,
            "pairs": pairs_of(self.decision),
        }
        principal = Principal(TENANT, sub, roles=roles)
        session: Any
        if kind is SocketLink:
            session = WebSocketSession(
                server.node, principal, NATIVE_WS, SOCKET, channels, Commands(), **given
            )
        else:
            session = SseSession(server.node, principal, NATIVE_SSE, STREAM, channels, **given)
        session.settle()
        return kind(server, session)

    def restage(self, stage: Stage, servers: Sequence[Server] | None = None) -> None:
        """The tenant's stage is another one. Every node hears of it; or only `servers` do, and it is soon
        over."""
        decision = decide(StageRecord(stage, fallback_scope=self.scope), TENANT, "u", 0.0)
        if servers is None:
            self.stage = stage
        for server in self.servers if servers is None else servers:
            for session in list(server.hub.sessions.values()):
                server.pairing.decision_changed(session, decision)

    async def exchange(self, times: int = 3) -> None:
        """Every node tells and hears, so often."""
        for _ in range(times):
            for server in self.servers:
                await server.exchange.tick()

    async def turns(self, count: int = 20) -> None:
        for _ in range(count):
            await asyncio.sleep(0)

    async def kill(self, at: int) -> None:
        """kill -9 of a node, and another one in its place. Its clients have to notice by themselves."""
        server = self.servers[at]
        self.log.buses.remove(server.bus)
        await server.stop()
        self.servers[at] = self._server()

    async def close(self) -> None:
        for server in self.servers:
            await server.stop()


class RedisWorld(World):
    """The same with its rows in Redis, by whose clock leases end: time passes `FASTER` times faster."""

    FASTER = 40
    real_time = True

    def __init__(self, servers: int, bus: RedisBus) -> None:
        self._bus = bus
        self._pairs = RedisPairs(self)
        self._away = False
        super().__init__(servers)

    async def call(self, script: str, tenant: str, *arguments: bytes, read: bool = False) -> Any:
        """As `Scripting`."""
        if self._away:
            raise BusUnavailable("away")
        return await self._bus.call(script, tenant, *arguments, read=read)

    def make_exchange(self, node: str) -> Exchange:
        settings = PairSettings(lease_s=10 / self.FASTER, doubt_s=3 / self.FASTER)
        return Exchange(self._pairs, settings, node=node)

    async def lose_pairs(self) -> None:
        await self._bus.pool.client.flushall()

    def pairs_away(self, away: bool) -> None:
        self._away = away

    async def pass_time(self, ms: int) -> None:
        await asyncio.sleep(ms / 1000 / self.FASTER)
