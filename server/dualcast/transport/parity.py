"""Parity on the server: in stage `shadow` what is written to the two sessions of one instance is read back
and compared (docs/protocol.md, instances).

Only pairs on this node, and only while they are in the stage: their transports are tapped, nobody else's are
looked at. Nothing here is on the way of a publication but one list append per tapped write.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any, NoReturn

from msgspec import Struct

from dualcast.model.publication import Entry
from dualcast.session.node import Node
from dualcast.session.session import Session
from dualcast_migration.cohort import EVERYBODY
from dualcast_migration.parity import Arrival, Comparison, compare, read_socket, read_stream, tells_gap
from dualcast_migration.policy import StageRecord
from dualcast_migration.stage import Stage

from .legacy_told import Told
from .unframe import unframe_sse, unframe_websocket

LOOK_EVERY_S = 2.0
TOGETHER = 500
"""Sessions looked at in one turn of the loop."""
MAX_KEPT_BYTES = 512 * 1024
"""Of one session between two looks; a stretch with more is not compared."""
MAX_WAITING = 5_000
"""Arrivals of one session that wait for the other's; a stretch with more is not compared."""
MAX_PAIRS = 500
"""Of one tenant on this node; what goes wrong for more shows with these."""
PAIRS_TOGETHER = 20
"""Pairs compared in one turn of the loop."""
Key = tuple[str, str, str]


class Compared(Struct, frozen=True):
    """The comparison of one instance's pair."""

    tenant: str
    user: str
    instance: str
    comparison: Comparison


class Tap:
    """In the place of a session's transport: passes everything on, and keeps what was written."""

    def __init__(self, transport: Any) -> None:
        self.transport = transport
        self.kept: list[bytes] = []
        self.size = 0
        self.overflowed = False

    def write(self, data: bytes) -> None:
        self.transport.write(data)
        self.size += len(data)
        if self.size > MAX_KEPT_BYTES:
            self.overflowed = True
            self.kept.clear()
        else:
            self.kept.append(data)

    def take(self) -> bytes | None:
        """What was written since the last call; None: more than is kept."""
        data = None if self.overflowed else b"".join(self.kept)
        self.kept, self.size, self.overflowed = [], 0, False
        return data

    def __getattr__(self, name: str) -> Any:
        return getattr(self.transport, name)


class Side:
    """One session of a pair."""

    __slots__ = ("arrivals", "session", "tap")

    def __init__(self, session: Session) -> None:
        self.session = session
        self.tap = Tap(session.transport)
        session.transport = self.tap
        self.arrivals: list[Arrival] = []

    def read(self) -> bool:
        """Reads what was written since the last time; False: it cannot be compared, begin anew."""
        data = self.tap.take()
        if data is None:
            return False
        try:
            if self.session.encoding.transport == "sse":
                (message,), _, _ = unframe_sse(data)
                texts = [message["body"].decode()]
                self.arrivals += read_stream(texts[0])
            else:
                messages, _, _ = unframe_websocket(data)
                texts = [m["text"] for m in messages if "text" in m]
                self.arrivals += read_socket(texts)
        except ValueError:
            return False
        return len(self.arrivals) <= MAX_WAITING and not any(map(tells_gap, texts))

    @property
    def due(self) -> tuple[object, ...]:
        """What decides which publications it is due; another one begins anew."""
        session = self.session
        return session.epoch, session.principal, session.channels, session.resumed

    def upto(self, offset: int) -> list[Arrival]:
        """Takes the arrivals up to `offset` out."""
        taken = [a for a in self.arrivals if a.offset <= offset]
        self.arrivals = [a for a in self.arrivals if a.offset > offset]
        return taken

    def untap(self) -> None:
        if self.session.transport is self.tap:
            self.session.transport = self.tap.transport


class Pair:
    """Both sessions of one instance, and since where they are compared."""

    def __init__(self, stream: Session, socket: Session) -> None:
        self.stream, self.socket = Side(stream), Side(socket)
        self.sides = (self.stream, self.socket)
        self._begin()

    def _begin(self) -> None:
        self.due = [side.due for side in self.sides]
        self.since = max(side.session.offset for side in self.sides)
        for side in self.sides:
            side.arrivals.clear()

    def look(self) -> Comparison | None:
        """Compares what both have been given by now; None: nothing to compare."""
        whole = [side.read() for side in self.sides]
        stream, socket = (side.session for side in self.sides)
        if not all(whole) or self.due != [side.due for side in self.sides] or stream.epoch != socket.epoch:
            self._begin()
            return None
        reached = min(side.session.offset for side in self.sides)
        if reached <= self.since:
            return None
        names = {feed.name for feed in socket.channels}
        both = {feed.name: feed for feed in stream.channels if feed.name in names}
        complete = {name: feed.complete_from for name, feed in both.items()}
        # An arrival of a view does not say its channel; two sessions of one view have the same.
        complete[""] = max(complete.values(), default=0)
        given = [
            [
                a
                for a in side.upto(reached)
                if a.offset > self.since and a.epoch == stream.epoch and a.channel in complete
            ]
            for side in self.sides
        ]
        excused = {
            entry.offset
            for feed in both.values()
            for entry in feed.after(self.since)
            if _may_differ(entry, stream, socket)
        }
        # What the ring does not hold any more cannot be looked up: only what it holds counts as missing.
        excused |= {a.offset for side in given for a in side if a.offset <= complete[a.channel]}
        self.since = reached
        return compare(given[0], given[1], frozenset(excused))

    def untap(self) -> None:
        for side in self.sides:
            side.untap()


def _may_differ(entry: Entry, stream: Session, socket: Session) -> bool:
    """Whether one may be given a publication and the other not: it is left out for who is behind, or was in
    the state one was told first, or it names its receivers by something in which the two are not alike
    (connection, device, role)."""
    publication = entry.publication
    if publication.conflation_key or publication.expires_ms or _told(entry, stream) != _told(entry, socket):
        return True
    audience = publication.audience
    return audience is not None and stream.due(audience) != socket.due(audience)


def _told(entry: Entry, session: Session) -> bool:
    encoding = session.encoding
    return isinstance(encoding, Told) and encoding.covers(entry)


class ParityWatch:
    """Finds the pairs of this node and compares them; `found` is told of each comparison. `record_of`: a
    tenant's stage record now; None: it is not known."""

    def __init__(
        self, node: Node, record_of: Callable[[str], StageRecord | None], found: Callable[[Compared], None]
    ) -> None:
        self._node = node
        self._record_of = record_of
        self._found = found
        self._pairs: dict[Key, Pair] = {}

    def gauges(self) -> dict[str, float]:
        """Plain numbers for `/metrics`."""
        return {"parity_pairs": len(self._pairs)}

    async def run(self) -> NoReturn:
        """Looks every LOOK_EVERY_S until cancelled."""
        try:
            while True:
                await asyncio.sleep(LOOK_EVERY_S)
                await self.look()
        finally:
            for pair in self._pairs.values():
                pair.untap()

    async def look(self) -> None:
        """Brings the pairs up to date and compares each."""
        instances = await self._instances()
        for key in list(self._pairs):
            pair = self._pairs[key]
            now = instances.get(key)
            if now is None or [side.session for side in pair.sides] != list(now):
                pair.untap()
                del self._pairs[key]
        pairs = Counter(tenant for tenant, _, _ in self._pairs)
        for number, (key, sessions) in enumerate(instances.items(), 1):
            if number % PAIRS_TOGETHER == 0:
                await asyncio.sleep(0)
            known = self._pairs.get(key)
            if known is None:
                if pairs[key[0]] < MAX_PAIRS and _settled(sessions):
                    self._pairs[key] = Pair(*sessions)
                    pairs[key[0]] += 1
            elif (comparison := known.look()) is not None and comparison.compared:
                self._found(Compared(*key, comparison))

    async def _instances(self) -> dict[Key, tuple[Session, Session]]:
        """Instances with a stream and a socket here, in stage `shadow`; the newest of each."""
        tenants = {name for name in self._node.hub.tenants if _compares(self._record_of(name))}
        if not tenants:
            return {}
        streams: dict[Key, Session] = {}
        sockets: dict[Key, Session] = {}
        for number, session in enumerate(list(self._node.hub.sessions.values()), 1):
            if number % TOGETHER == 0:
                await asyncio.sleep(0)
            if not isinstance(session, Session) or not session.instance or session.closed:
                continue
            if session.principal.tenant not in tenants or session.stage != Stage.SHADOW.value:
                continue
            if session.dialect.name != "native":
                continue
            instance = f"{session.instance} {session.view_name}" if session.view_name else session.instance
            key = (session.principal.tenant, session.principal.sub, instance)
            (streams if session.encoding.transport == "sse" else sockets)[key] = session
        return {key: (stream, sockets[key]) for key, stream in streams.items() if key in sockets}


def _compares(record: StageRecord | None) -> bool:
    """Whether some users of the tenant are in stage `shadow`: all, those of the cohort, or those outside."""
    if record is None:
        return False
    outside = record.stage.previous is Stage.SHADOW and record.cohort != EVERYBODY
    return record.stage is Stage.SHADOW or outside


def _settled(sessions: Sequence[Session]) -> bool:
    """Whether both are there and know where they stand in the same log."""
    first, second = sessions
    if first.closed or second.closed:
        return False
    return first.offset >= 0 and second.offset >= 0 and first.epoch == second.epoch != ""
