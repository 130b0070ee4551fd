"""A page of the migration drill with both transports: its stream is always open, its WebSocket when the stage
has one.

It opens and leaves the WebSocket as `welcome`, `stage` and `migrate` say, reconnects by the range of the
close code (docs/protocol.md, PROTO-30), and says so on its next stream when the socket does not open twice in
a row.
"""

from __future__ import annotations

from collections.abc import Sequence

from chaos.migration_clients import PATIENCE_S, Crew, Place, StreamClient, Told, decode
from chaos.migration_wires import SocketWire, StreamWire, socket_request

FIRST_BACKOFF_S, LAST_BACKOFF_S = 1.0, 30.0
SOCKET = "/v1/socket"


class Instance(StreamClient):
    """A page with both transports. `sockets`: where its WebSocket connects to."""

    kind = "instance"

    def __init__(
        self,
        crew: Crew,
        name: str,
        user: str,
        places: Sequence[Place],
        sockets: Sequence[Place],
        *,
        relayed: bool = False,
    ) -> None:
        super().__init__(crew, name, user, places, instance=name)
        self.sockets = list(sockets)
        self.relayed = relayed
        """Whether its WebSocket goes through a relay that may go silent."""
        self.stage = ""
        self.cursor = ""
        """The newest from anything, on either transport."""
        self.socket: SocketWire | None = None
        self.swallowed = False
        """Its socket has gone silent; only the drill knows."""
        self.reason = ""
        """Why it has no WebSocket: told when it opens its stream."""
        self.heartbeat_s = 25
        self.moves = 0
        """Sockets it opened or left because its stage said so."""
        self.refusals = 0
        """Sockets that were refused with 4010 although the last word of the stream was another."""
        self._dialling = False
        self._due = False
        self._failed = 0
        self._backoff_s = FIRST_BACKOFF_S
        self._told_s: float | None = None

    @property
    def wants_socket(self) -> bool:
        return self.stage not in ("", "sse")

    @property
    def has_socket(self) -> bool:
        return self.socket is not None and self.socket.welcomed and not self.swallowed

    @property
    def settled(self) -> bool:
        return super().settled and (self.swallowed or self.has_socket == self.wants_socket)

    @property
    def covered(self) -> bool:
        """Whether its stream has to be silent: its stage says so, and a socket is there that is heard."""
        return self.stage in ("fallback", "websocket") and self.has_socket and super().settled

    def url(self) -> str:
        reason = f"&fallback_reason={self.reason}" if self.reason else ""
        fresh = f"&cursor={self.cursor}" if self.cursor and not self.last_id else ""
        return super().url() + reason + fresh

    def moved(self, cursor: str) -> None:
        self.last_id = self.cursor = cursor

    def event(self, wire: StreamWire, name: str, told: Told) -> None:
        super().event(wire, name, told)
        self.signal(name, told)

    # ── stage ──

    def signal(self, name: str, told: Told) -> None:
        """A signal, on either transport."""
        if name in ("welcome", "stage"):
            before, self.stage = self.stage, told.stage
            if self.wants_socket and not self.socket and before != told.stage:
                self.moves += before == "sse"
                self.open_socket()
            self.crew.changes.note()
        elif name == "migrate":
            later = self.leave_socket if told.to == "sse" else self.open_socket
            self.crew.later(told.after_ms / 1000, later)

    def leave_socket(self) -> None:
        """It was asked to go back to SSE."""
        if self.socket is not None:
            self.socket.close()

    # ── socket ──

    def again(self, delay_s: float) -> None:
        """Opens the socket after a while, once."""
        if not self._due:
            self._due = True
            self.crew.later(delay_s, self._again)

    def _again(self) -> None:
        self._due = False
        self.open_socket()

    def open_socket(self) -> None:
        if self.wants_socket and self.socket is None and not self._dialling:
            self._dialling = True
            self.crew.spawn(self._open_socket())

    def retry(self) -> None:
        """Tries at once, as a page does that is shown again."""
        self._backoff_s = FIRST_BACKOFF_S
        self.open_socket()

    async def _open_socket(self) -> None:
        cursor = f"&cursor={self.cursor}" if self.cursor else ""
        request = socket_request(f"{SOCKET}?{self.query}{cursor}", authorization=f"Bearer {self.token}")
        there = await self.dial(self.sockets, lambda node: SocketWire(self, request, node), self._failed)
        self._dialling = False
        if not there:
            self._refused()

    def socket_opened(self, wire: SocketWire) -> None:
        self.socket = wire
        if self.crew.over:
            wire.cut()

    def _refused(self) -> None:
        """The handshake failed. The second time in a row it says so on a new stream."""
        self._failed += 1
        if self._failed == 2 and not self.reason and self.stream is not None:
            self.reason = "handshake"
            self.last_id = ""  # a new `EventSource`, with its cursor in the URL
            self.stream.dropped = True
            self.stream.cut()
            self.stream = None
            self.open_stream()
        self.again(self._backoff())

    def _backoff(self) -> float:
        wait_s = self.crew.random.uniform(self._backoff_s / 2, self._backoff_s)
        self._backoff_s = min(self._backoff_s * 2, LAST_BACKOFF_S)
        return wait_s

    def frame(self, wire: SocketWire, payload: bytes) -> None:
        told = decode(payload)
        if told.cursor:
            self.cursor = told.cursor
        if told.type == "publication":
            if told.data is not None:
                self.crew.ledger.came(self, told.id, told.data.title)
            return
        if told.type == "welcome":
            wire.welcomed = True
            self._failed, self._backoff_s, self.reason = 0, FIRST_BACKOFF_S, ""
            self.heartbeat_s = told.heartbeat_s
        elif told.type == "bye" and told.retry_ms is not None:
            self._told_s = told.retry_ms / 1000
        elif told.type == "gap":
            self.crew.faults.append(f"{self.name}: a gap on its socket")
        self.signal(told.type, told)

    def socket_ended(self, wire: SocketWire) -> None:
        self.socket = None
        self.swallowed = False
        if self.crew.over:
            return
        self.moves += wire.welcomed and not self.wants_socket
        told_s, self._told_s = self._told_s, None
        code = wire.code
        self.ends[f"socket {code}"] += 1
        self.crew.changes.note()
        if code == 0:
            self._refused()
        elif code == 4010:
            # Its stream may know of a stage that the other node has not heard of yet.
            self.refusals += self.wants_socket and not wire.welcomed
            self.again(self._backoff())
        elif 4000 <= code < 4100:
            self.crew.faults.append(f"{self.name}: its socket was closed with {code}")
        elif 4200 <= code < 4300:
            self.again(0)
        else:
            self.again(self._backoff() if told_s is None else told_s)

    def look(self, now: float) -> None:
        super().look(now)
        wire = self.socket
        if wire is None:
            return
        patience_s = PATIENCE_S + (self.heartbeat_s if wire.welcomed else 0)
        if now - wire.heard_at > patience_s:
            self.ends["socket silent"] += 1
            wire.cut()

    def home(self) -> None:
        super().home()
        if self.socket is not None and self.socket.node != self.sockets[0][0]:
            self.socket.welcomed = False
            self.socket.close()
            self.again(0.1)

    def leave(self) -> None:
        super().leave()
        if self.socket is not None:
            self.socket.cut()
