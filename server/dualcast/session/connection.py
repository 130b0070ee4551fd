"""The life of one connection: attach, registration, last words, close. `session.Session` adds what it
delivers.

Transports implement `farewell`, `hang_up`, `beat` and the protocol's `data_received` (`transport.sse`,
`transport.websocket`).
"""

from __future__ import annotations

import asyncio
import random
from typing import Any

from dualcast.dialects.port import Dialect
from dualcast.hub.encoding import Encoding
from dualcast.model.codes import Close
from dualcast.model.principal import Principal
from dualcast.telemetry.counters import DeliveryCounters
from dualcast_migration.muting import Pairs

from .node import Node
from .replacing import replace_oldest


class Connection(asyncio.Protocol):
    """A detached socket and who is behind it. It *is* the socket's asyncio protocol."""

    __slots__ = (
        "address",
        "attached_at",
        "closed",
        "connections",
        "counters",
        "device",
        "device_id",
        "dialect",
        "encoding",
        "ended",
        "id",
        "instance",
        "introduction",
        "max_per_user",
        "node",
        "pair",
        "pairs",
        "paused",
        "prelude",
        "principal",
        "seen",
        "silent_ticks",
        "stage",
        "transport",
        "visitor",
        "warned",
    )

    def __init__(
        self,
        node: Node,
        principal: Principal,
        encoding: Encoding,
        dialect: Dialect,
        *,
        address: str = "",
        instance: str = "",
        device: str = "",
        device_id: str = "",
        stage: str = "",
        pairs: Pairs | None = None,
    ) -> None:
        self.node = node
        self.principal = principal
        self.encoding = encoding
        self.dialect = dialect
        self.id = node.connection_id()
        self.address = address
        self.instance = instance
        self.device = device
        """Its kind: mobile, desktop, tablet, web, or "" when the client did not say."""
        self.device_id = device_id
        self.stage = stage
        self.pairs = pairs
        """How it is brought together with the other sessions of its instance; None: it is not."""
        self.pair: Any = None
        """Its place in `node.pairing`."""
        self.counters: DeliveryCounters = node.counters.delivery(principal.tenant, encoding.transport)
        self.paused = False
        self.closed = False
        self.prelude = b""
        """Bytes of the handshake that the transport left to be written with the first frames."""
        self.introduction = b""
        """States of its channels, which follow the welcome; bytes on the wire."""
        self.transport: Any = None
        self.connections: set[Any] | None = None
        self.seen = 0
        self.silent_ticks = 0
        self.warned = False
        self.attached_at = 0.0
        self.ended = 0
        """The code it was closed with, by either side; 0: none."""
        self.max_per_user = 0
        """Limit of the user's connections of its sort on this node, which it keeps (`replacing`); 0: none."""
        self.visitor: Any = None
        """What its client said of itself, for `node.evidence`."""

    cut_on_expiry = True
    """Native sessions end with their token; legacy dialects override it."""
    view_name = ""
    """Which view of the native protocol it has (PROTO-66); "": none. Sessions of different views have
    different events: they neither mute one another nor take one another's place."""

    # ── what a transport adds ──

    def farewell(self, code: Close, retry_ms: int) -> None:
        """Writes the transport's last words: why it ends and when to come back."""
        raise NotImplementedError

    def hang_up(self) -> None:
        """Ends the connection after the last words, without cutting them off."""
        raise NotImplementedError

    def greeting(self) -> bytes:
        """What follows `welcome` in the same write; bytes on the wire."""
        return b""

    def beat(self) -> None:
        """Called once per sweep (`sweep_s`): heartbeat and dead-peer check."""
        raise NotImplementedError

    # ── what the session adds ──

    def join(self) -> None:
        """Enters the channels and settles the position; nothing is written yet."""
        raise NotImplementedError

    def begin(self) -> None:
        """Starts delivery, after the welcome."""
        raise NotImplementedError

    def part(self) -> None:
        """Leaves all channels: nothing is delivered any more."""
        raise NotImplementedError

    # ── life ──

    def send(self, *payloads: bytes | None) -> None:
        """Writes dialect signals, as one write; None (the dialect has no such signal) writes nothing."""
        wrapped = [self.encoding.wrap(payload) for payload in payloads if payload is not None]
        if not wrapped or self.closed:
            return
        try:
            self.transport.write(b"".join(wrapped))
        except Exception:  # noqa: BLE001 — the hub and the bus call this in loops over all sessions
            self.write_failed()

    def attached(self, transport: Any, connections: set[Any], *, paused: bool, initial: bytes) -> None:
        """Takes over the socket: registers, welcomes, delivers. `initial` are bytes the client already
        sent."""
        node = self.node
        settings = node.settings
        self.transport, self.connections, self.paused = transport, connections, paused
        connections.add(self)
        transport.set_write_buffer_limits(high=settings.write_high_bytes, low=settings.write_low_bytes)
        self.attached_at = node.loop.time()
        self.counters.opened += 1
        self.counters.connections += 1
        node.per_address[self.address] = node.per_address.get(self.address, 0) + 1
        node.hub.sessions[self.id] = self  # type: ignore[assignment]
        node.sweep_bucket(self).add(self)
        self.join()
        if self.max_per_user:
            replace_oldest(self)
        node.evidence.opened(self)
        node.presence.changed(self)
        if self.pairs is not None:
            node.pairing.attached(self)
        welcome = self.dialect.welcome(self)
        # One write, one segment: the rest of the handshake, the welcome and what belongs behind it.
        first = self.prelude + (self.encoding.wrap(welcome) if welcome else b"")
        first += self.introduction + self.greeting()
        self.prelude = self.introduction = b""
        if first:
            transport.write(first)
        self.begin()
        if initial:
            self.data_received(initial)
        if node.draining:
            self.close(Close.DRAIN)

    def connection_lost(self, exc: Exception | None) -> None:
        node = self.node
        self.leave()
        if self.connections is None:
            return
        self.connections.discard(self)
        self.connections = None
        node.closing.pop(self, None)
        self.counters.connections -= 1
        self.counters.closed += 1
        left = node.per_address.get(self.address, 1) - 1
        if left:
            node.per_address[self.address] = left
        else:
            node.per_address.pop(self.address, None)

    def leave(self) -> None:
        """Out of every index. The sweep aborts what does not end by itself."""
        node = self.node
        if not self.closed:
            node.closing[self] = node.loop.time()
            node.presence.changed(self)
            if self.attached_at:
                node.evidence.closed(self, node.loop.time() - self.attached_at)
        self.closed = True
        node.hub.sessions.pop(self.id, None)
        node.held.discard(self)
        node.sweep_bucket(self).discard(self)
        self.part()
        if self.pair is not None:
            node.pairing.left(self)

    def close(self, code: Close, retry_ms: int | None = None) -> None:
        """Says why, flushes what is written and ends; aborted by the sweep if the peer does not take it."""
        if self.closed:
            return
        self.ended = int(code)
        try:
            self.farewell(code, self.retry_ms() if retry_ms is None else retry_ms)
        except Exception:  # noqa: BLE001 — the socket is broken: there is nobody to say it to
            self.write_failed()
            return
        self.leave()
        self.hang_up()

    def write_failed(self) -> None:
        """The transport refused a write (it is closing under us)."""
        self.leave()
        self.transport.abort()

    def shutdown(self) -> None:
        """uvicorn's shutdown, after the paced drain: whoever is still here goes now."""
        self.close(Close.DRAIN)

    def expire(self, reason: str) -> None:
        """The token expired or was revoked: say so and end. A stream that was authenticated never becomes
        anonymous."""
        if not self.closed:
            self.send(self.dialect.auth_expired(reason))
            self.close(Close.TOKEN_EXPIRED if reason == "token expired" else Close.REVOKED, retry_ms=0)

    def retry_ms(self) -> int:
        """A jittered reconnect delay."""
        settings = self.node.settings
        return random.randint(settings.retry_min_ms, settings.retry_max_ms)  # noqa: S311 — jitter, not a secret

    def eof_received(self) -> bool | None:
        return None
