"""Whatever the interleaving of publish, trim, overflow, subscribe, reconnect and epoch change: nothing due is
missing, nothing comes twice on one connection, offsets ascend, and what cannot be delivered was announced."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field

from hypothesis import given, settings
from hypothesis import strategies as st

from dualcast.hub.hub import Hub, HubSettings
from dualcast.model.publication import Audience
from dualcast.session.node import Node, SessionSettings
from dualcast.session.recovery import Recovery
from dualcast.session.session import FROM_NOW
from dualcast.telemetry.counters import Counters
from support.model_bus import TENANT, ModelBus
from support.recording import RecordingSession, RecordingTransport, open_session

CHANNELS = ["all", "user:u", "topic:a", "topic:b"]


@dataclass
class Client:
    """A client over all its connections: what it is due, what it got, what it was told it would not get."""

    session: RecordingSession | None = None
    transport: RecordingTransport | None = None
    read: int = 0
    cursor: str | None = None
    got: dict[str, int] = field(default_factory=dict)
    got_channel: set[tuple[str, str]] = field(default_factory=set)
    joined: dict[str, int] = field(default_factory=dict)
    forgiven: list[tuple[str, int, int]] = field(default_factory=list)
    lossy: dict[str, int] = field(default_factory=dict)
    last_offset: int = 0
    on_connection: set[str] = field(default_factory=set)

    def listen(self) -> None:
        assert self.transport is not None
        lines, self.read = self.transport.lines[self.read :], len(self.transport.lines)
        for line in lines:
            word, *rest = line.split(" ")
            if word == "p":
                epoch, offset, ident, _channel = rest[0], int(rest[1]), rest[2], rest[3]
                assert ident not in self.on_connection, "twice on one connection"
                if not offset:
                    self.on_connection.add(ident)
                    continue
                assert offset > self.last_offset, "offsets ascend on a connection"
                self.on_connection.add(ident)
                self.last_offset = offset
                self.got[ident] = self.got.get(ident, 0) + 1
                self.cursor = f"{epoch}-{offset}"
            elif word == "gap":
                channel, after, cursor = rest[0], int(rest[1]), rest[4]
                through = int(cursor.split("-")[1])
                oldest = int(rest[2])
                if rest[3] == "epoch":
                    # The log was restored: whatever it lost after `after` may be missing.
                    self.lossy[channel] = min(after, self.lossy.get(channel, after))
                self.forgiven.append((channel, after, max(oldest - 1, 0) if oldest else max(through, after)))
                if rest[3] != "trimmed":
                    self.cursor = cursor
            elif word == "welcome" and rest[0] != "None":
                self.cursor = rest[0]


class World:
    """One node, one bus, a few clients; `step` plays one operation."""

    def __init__(self, keep: int, ring: int, ring_bytes: int) -> None:
        self.bus = ModelBus(keep=keep)
        self.hub = Hub(
            self.bus,  # type: ignore[arg-type]
            HubSettings(
                ring_entries=ring, ring_bytes=ring_bytes, large_fan_out=1, backlog_bytes=900, idle_sweeps=0
            ),
        )
        self.bus.follower = self.hub
        self.node = Node(
            self.bus,  # type: ignore[arg-type]
            self.hub,
            Counters(),
            SessionSettings(page_limit=2, recovery_workers=2, catch_up_write_bytes=40),
        )
        self.recovery = Recovery(self.node)
        self.clients = [Client() for _ in range(3)]
        self.published: list[tuple[str, int, tuple[str, ...], Audience | None, int]] = []
        self.epochs: list[tuple[int, int]] = []

    def connect(self, client: Client, channels: list[str], high: int, *, fresh: bool) -> None:
        if client.session is not None:
            self.disconnect(client)
        epoch, position = "", FROM_NOW
        if not fresh and client.cursor is not None:
            epoch, text = client.cursor.split("-")
            position = int(text)
        client.read, client.last_offset = 0, 0
        client.on_connection = set()
        if position == FROM_NOW:
            # Nothing is due before the welcome: the promise starts with what is published from now on.
            client.joined = {}
            client.got.clear()
            client.forgiven.clear()
            client.lossy.clear()
        else:
            client.joined = {name: client.joined.get(name, max(position, self.bus.top)) for name in channels}
        client.session, client.transport = open_session(
            self.node, channels, epoch=epoch, position=position, high=high
        )
        self.notice_start(client)
        client.listen()

    def notice_start(self, client: Client) -> None:
        """The promise of a session that starts from now begins when it knows where that is (admission waits
        for it)."""
        session = client.session
        if session is not None and not client.joined and session.offset >= 0:
            client.joined = dict.fromkeys((feed.name for feed in session.channels), self.bus.top)

    def disconnect(self, client: Client) -> None:
        assert client.session is not None
        client.listen()
        client.session.connection_lost(None)
        client.session = None

    async def settle(self) -> None:
        for _ in range(400):
            self.bus.confirm()
            self.bus.pump()
            for client in self.clients:
                if client.session is not None and client.transport is not None:
                    client.transport.take()
            self.recovery.release()
            await asyncio.sleep(0)
            sessions = [client.session for client in self.clients if client.session is not None]
            if (
                all(s.live for s in sessions)
                and not self.bus.live
                and not any(t.running or t.backlog for t in self.hub.tenants.values())
            ):
                break
        else:
            raise AssertionError("never settled")
        for client in self.clients:
            if client.session is not None:
                client.listen()

    def check(self) -> None:
        for client in self.clients:
            if client.session is None:
                continue
            for ident, offset, channels, audience, _ in self.published:
                due = [name for name in channels if name in client.joined and client.joined[name] < offset]
                if not due or not client.session.due(audience or Audience()):
                    continue
                if ident in client.got:
                    continue
                excused = any(
                    name in due and after < offset <= through for name, after, through in client.forgiven
                ) or (ident in self.bus.lost and any(client.lossy.get(name, offset) < offset for name in due))
                assert excused, f"{ident} at {offset} on {due} is missing: {client}"


OPERATIONS = st.lists(
    st.one_of(
        st.tuples(
            st.just("publish"),
            st.lists(st.sampled_from(CHANNELS), min_size=1, max_size=3, unique=True),
            st.booleans(),
        ),
        st.tuples(st.just("pump"), st.integers(1, 3), st.booleans()),
        st.tuples(st.just("confirm"), st.none(), st.none()),
        st.tuples(
            st.just("connect"),
            st.integers(0, 2),
            st.tuples(
                st.lists(st.sampled_from(CHANNELS), min_size=1, unique=True), st.booleans(), st.booleans()
            ),
        ),
        st.tuples(st.just("disconnect"), st.integers(0, 2), st.none()),
        st.tuples(st.just("read"), st.integers(0, 2), st.none()),
        st.tuples(st.just("turns"), st.integers(1, 5), st.none()),
        st.tuples(st.just("slow-reads"), st.integers(0, 3), st.none()),
        st.tuples(st.just("lose-tail"), st.integers(0, 2), st.booleans()),
        st.tuples(st.just("miss"), st.none(), st.none()),
        st.tuples(
            st.just("whisper"), st.lists(st.sampled_from(CHANNELS), min_size=1, unique=True), st.none()
        ),
        st.tuples(st.just("resume"), st.integers(0, 2), st.none()),
        st.tuples(st.just("subscribe"), st.integers(0, 2), st.sampled_from(CHANNELS)),
        st.tuples(st.just("unsubscribe"), st.integers(0, 2), st.sampled_from(CHANNELS)),
        st.tuples(st.just("sweep"), st.none(), st.none()),
        st.tuples(st.just("away"), st.booleans(), st.none()),
    ),
    max_size=60,
)


async def play(operations: list[tuple[str, object, object]], keep: int, ring: int, ring_bytes: int) -> None:
    world = World(keep, ring, ring_bytes)
    worker = asyncio.create_task(world.recovery.run())
    try:
        for number, (name, first, second) in enumerate(operations):
            if worker.done():
                worker.result()
            client = world.clients[first] if isinstance(first, int) and first < 3 else world.clients[0]
            if name == "publish":
                audience = Audience(exclude_users=("nobody",)) if second else None
                channels = tuple(first)  # type: ignore[arg-type]
                offset = world.bus.publish(f"n{number}", channels, audience)
                world.published.append((f"n{number}", offset, channels, audience, world.bus.epoch_number))
            elif name == "pump":
                world.bus.pump(first, split=bool(second))  # type: ignore[arg-type]
            elif name == "confirm":
                world.bus.confirm()
            elif name == "connect":
                channels, fresh, slow = second  # type: ignore[misc]
                world.connect(client, list(channels), 60 if slow else 1 << 30, fresh=fresh)
            elif name == "disconnect" and client.session is not None:
                world.disconnect(client)
            elif name == "read" and client.transport is not None and client.session is not None:
                client.transport.take()
            elif name == "turns":
                for _ in range(first):  # type: ignore[arg-type]
                    await asyncio.sleep(0)
            elif name == "slow-reads":
                world.bus.read_turns = first  # type: ignore[assignment]
            elif name == "lose-tail":
                world.bus.lose_tail(first, tell=bool(second))  # type: ignore[arg-type]
            elif name == "miss":
                world.bus.miss()
            elif name == "whisper":
                world.bus.whisper(f"w{number}", first)  # type: ignore[arg-type]
            elif name == "resume" and client.session is not None and client.cursor and client.joined:
                client.listen()
                epoch, _, text = client.cursor.partition("-")
                client.on_connection = set()
                client.last_offset = int(text)
                client.session.resume(epoch, int(text))
            elif name == "subscribe" and client.session is not None and not client.session.closed:
                feed = world.hub.channel(TENANT, str(second))
                if feed.complete_from >= 0 and client.joined and second not in client.joined:
                    client.joined[str(second)] = client.session.subscribe([feed])
            elif name == "unsubscribe" and client.session is not None and len(client.joined) > 1:
                client.session.unsubscribe([str(second)])
                client.joined.pop(str(second), None)
            elif name == "sweep":
                world.hub.sweep()
            elif name == "away":
                world.bus.away = bool(first)
            for each in world.clients:
                world.notice_start(each)
                if each.session is not None:
                    each.listen()
        world.bus.away = False
        await world.settle()
        world.check()
    finally:
        worker.cancel()
        await asyncio.gather(worker, return_exceptions=True)


@settings(max_examples=1000, deadline=None)
@given(OPERATIONS, st.integers(1, 6), st.integers(1, 6), st.sampled_from([0, 1500, 1 << 26]))
def test_every_due_publication_arrives_once_in_order_or_is_announced_as_a_gap(
    operations, keep, ring, ring_bytes
):
    asyncio.run(play(operations, keep, ring, ring_bytes))
