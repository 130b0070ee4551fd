"""Sessions of the legacy contracts, on both transports (docs/contracts/legacy-wire.md section 1).

What a contract is made of comes as a `dialects.legacy.Endpoint`; here it meets the session that all
connections are: the same rings, recovery and limits as the native protocol. What native clients are told
besides publications (gaps, the bus, the token's end) a legacy client does not know, so it is counted and
nothing is written.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from typing import Any

from dualcast.dialects.legacy import Encode, Endpoint, Facts, Opening
from dualcast.hub.encoding import Encoding
from dualcast.model.codes import Close
from dualcast.model.publication import Entry, Gap
from dualcast.session.legacy_registry import Registry
from dualcast.session.session import Session
from dualcast.telemetry.counters import DeliveryCounters

from . import frames, inbound
from .frames import LAST_CHUNK
from .legacy_clock import Clock
from .sse import SseSession
from .websocket import WebSocketSession

log = logging.getLogger("dualcast.transport")

PONG_S = 60
"""A socket whose control ping stays unanswered for so long is dropped (section 1.8)."""
DRAIN = (1012, "service restart")
LIMIT = (4409, "connection limit")
LATER = (1013, "try again later")
TOO_BIG = (1009, "message too big")
IDLE = (4408, "idle timeout")


def close_code(endpoint: Endpoint, why: Close) -> tuple[int, str]:
    """Code and reason of the contract for one of ours (section 1.4). Never 1000: three of the five clients
    take that as "do not come back"."""
    if why is Close.DRAIN:
        return DRAIN
    if why is Close.REPLACED:
        return LIMIT
    if why is Close.FRAME_TOO_BIG:
        return TOO_BIG
    if why is Close.INTERNAL:
        return endpoint.internal
    if why in (Close.UNAUTHORIZED, Close.REVOKED, Close.TOKEN_EXPIRED, Close.FORBIDDEN):
        return endpoint.bad.code, endpoint.bad.reason
    return LATER


class LegacyState:
    """What a legacy session is beside a session."""

    __slots__ = (
        "clock",
        "endpoint",
        "entered",
        "facts",
        "opening",
        "over",
        "registry",
        "stream",
        "turned_away",
    )

    def __init__(
        self, endpoint: Endpoint, facts: Facts, opening: Opening, registry: Registry, *, stream: str
    ) -> None:
        self.endpoint = endpoint
        self.facts = facts
        self.opening = opening
        self.registry = registry
        self.stream = stream
        """What is counted together per user (section 1.7)."""
        self.clock: Clock
        self.entered = False
        self.turned_away: Close | None = None
        """Why it ends before it has begun: its first frames could not be made, or there are too many."""
        self.over = False
        """Its first frames are all there is to say."""

    def counters(self, session: Session) -> DeliveryCounters:
        """What `session` counts with: of its dialect, and of its tenant."""
        tenant, transport = session.principal.tenant, self.endpoint.transport
        return session.node.counters.part(tenant, transport, self.endpoint.dialect)


class LegacySignals:
    """The `dialects.port.Dialect` of an endpoint: there are no such signals."""

    def __init__(self, name: str, registry: Registry) -> None:
        self.name = name
        self._registry = registry

    def _unknown(self, signal: str) -> None:
        self._registry.counted["signals_left_out"] += 1
        log.debug("%s: clients know no signal %s", self.name, signal)

    def welcome(self, session: Any) -> None:
        return None

    def gap(self, session: Any, gap: Gap) -> None:
        self._unknown("gap")

    def state(self, session: Any, channel: str, data: bytes | None, status: str) -> None:
        self._unknown("state")

    def unsubscribed(self, names: Sequence[str]) -> None:
        self._unknown("unsubscribed")

    def status(self, session: Any, *, available: bool) -> None:
        self._unknown("status")

    def stage(self, stage: str) -> None:
        self._unknown("stage")

    def migrate(self, session: Any, to: str, url: str, after_ms: int, deprecation: Any) -> None:
        self._unknown("migrate")

    def auth_expiring(self, expires_at: int) -> None:
        self._unknown("auth_expiring")

    def auth_expired(self, reason: str) -> None:
        self._unknown("auth_expired")

    def bye(self, session: Any, code: int, reason: str, retry_ms: int) -> None:
        return None

    def position(self, cursor: str) -> None:
        return None


def legacy_encoding(endpoint: Endpoint, registry: Registry) -> Encoding:
    """The encoding of an endpoint; one per endpoint and process. Nothing is conflated: every publication
    reaches a legacy connection."""
    wrap = frames.text if endpoint.transport == "ws" else frames.chunk
    encode = guarded(endpoint, registry)
    name = f"{endpoint.dialect} {endpoint.path}"
    return Encoding(name, endpoint.transport, encode, wrap, conflates=False, everywhere=endpoint.everywhere)


def guarded(endpoint: Endpoint, registry: Registry) -> Encode:
    """The endpoint's encoder, which fails for nobody else."""

    def encode(entry: Entry) -> bytes | Sequence[bytes]:
        try:
            return endpoint.encode(entry)
        except Exception:
            # Anybody's contract, and anybody's data: it must not end the fan-out to everybody else.
            registry.counted["encode_failed"] += 1
            log.exception("%s cannot tell of a %s", endpoint.path, entry.publication.type)
            return b""

    return encode


class LegacySession(Session):
    """What both transports share."""

    __slots__ = ()

    legacy: LegacyState

    # ── life ──

    def attached(self, transport: Any, connections: set[Any], *, paused: bool, initial: bytes) -> None:
        legacy, node = self.legacy, self.node
        facts = legacy.facts
        facts.connection = self.id
        facts.now_ms = facts.opened_ms = int(node.now_s() * 1000)
        legacy.entered = True
        try:
            legacy.registry.enter(self)
            if facts.client_id:
                self.instance = facts.client_id  # by it other nodes know what a client calls its connection
            self.introduction = self.encoding.frames(self._first_frames())
        except Exception:
            # Anybody's contract.
            log.exception("the first frames of %s failed", legacy.endpoint.path)
            legacy.turned_away = Close.INTERNAL
        super().attached(transport, connections, paused=paused, initial=initial)

    def _first_frames(self) -> Sequence[bytes]:
        legacy, endpoint = self.legacy, self.legacy.endpoint
        if 0 < endpoint.max_connections < legacy.registry.dialects[endpoint.dialect]:
            # Many handshakes at a time were each let in as the last there was room for.
            legacy.turned_away = Close.TRY_LATER
            return endpoint.full(legacy.facts) if endpoint.full is not None else ()
        first = endpoint.first(legacy.facts, legacy.opening)
        legacy.over = (
            endpoint.ended is not None and not legacy.opening.resumed and endpoint.ended(legacy.opening)
        )
        return first

    def begin(self) -> None:
        legacy = self.legacy
        if legacy.turned_away is not None:
            self.close(legacy.turned_away)
            return
        legacy.clock.start(self.node.loop.time())
        legacy.registry.evict(self)
        if legacy.over:
            self.finish()
        else:
            super().begin()

    def leave(self) -> None:
        legacy = self.legacy
        if not self.closed and legacy.entered:
            legacy.clock.stop()
            self._say_farewell()
            legacy.registry.leave(self)
        super().leave()

    def _say_farewell(self) -> None:
        legacy, node = self.legacy, self.node
        say, make = legacy.registry.say, legacy.endpoint.farewell
        if say is None or make is None or node.draining or legacy.turned_away is not None:
            return
        try:
            farewell = make(self.fresh_facts())
        except Exception:
            # Anybody's contract.
            log.exception("the farewell of %s failed", legacy.endpoint.path)
            return
        if farewell is not None:
            node.spawn(say(self.principal.tenant, farewell))  # type: ignore[arg-type]

    def send(self, *payloads: bytes | None) -> None:
        if not self.closed:
            self.counters.said += sum(payload is not None for payload in payloads)
        super().send(*payloads)

    def fresh_facts(self) -> Facts:
        """The facts, with the time and the counts of now."""
        legacy = self.legacy
        legacy.facts.now_ms = int(self.node.now_s() * 1000)
        legacy.facts.own_connections = legacy.registry.own(self)
        return legacy.facts

    def withdraw(self, names: Sequence[str]) -> None:
        """Grants are of the native protocol. Here only tasks and batches are somebody's: the contract lets
        anybody into rooms and topics."""
        own = [name for name in names if name.startswith(("task:", "batch:"))]
        if own:
            super().withdraw(own)

    # ── delivery ──

    def write_entries(self, entries: list[Entry], through: int) -> bool:
        done = super().write_entries(entries, through)
        if self.legacy.clock.looks:
            self.legacy.clock.wrote(entries, self.position)
        return done

    # ── what the clock does ──

    def finish(self) -> None:
        """A plain end."""
        raise NotImplementedError

    def fall_silent(self) -> None:
        """Nothing came for too long."""
        raise NotImplementedError


class LegacySocket(LegacySession, WebSocketSession):
    """A WebSocket of a contract."""

    __slots__ = ("cut_on_expiry", "legacy")

    def __init__(self, *given: Any, legacy: LegacyState, **rest: Any) -> None:
        super().__init__(*given, **rest)
        self.legacy = legacy
        self.counters = legacy.counters(self)
        self.cut_on_expiry = legacy.registry.cut_on_expiry
        legacy.clock = Clock(self, legacy.endpoint)

    def farewell(self, code: Close, retry_ms: int) -> None:
        self.transport.write(frames.close(*close_code(self.legacy.endpoint, code)))
        self.said_close = True

    def end(self, code: int, reason: str, last: Sequence[bytes] = ()) -> None:
        """Closes with a code of the contract; `last`: texts before it."""
        if self.closed:
            return
        try:
            self.transport.write(self.encoding.frames(last) + frames.close(code, reason))
        except Exception:  # noqa: BLE001 — the socket is broken: there is nobody to say it to
            self.write_failed()
            return
        self.said_close = True
        self.leave()
        self.hang_up()

    def finish(self) -> None:
        self.end(*LATER)

    def fall_silent(self) -> None:
        self.end(*IDLE)

    def beat(self) -> None:
        settings = self.node.settings
        self.commands = 0
        if self.unanswered_ticks >= 0:
            self.unanswered_ticks += 1
            if self.unanswered_ticks * settings.sweep_s > PONG_S:
                self.counters.stale_closed += 1
                self.write_failed()  # no close frame can reach it
            return
        self.silent_ticks += 1
        if self.silent_ticks * settings.sweep_s >= settings.heartbeat_ws_s:
            self.silent_ticks = 0
            self.ping()

    def on_text(self, text: str) -> None:
        self.counters.received += 1
        self.legacy.clock.heard_at = self.node.loop.time()
        super().on_text(text)

    def on_binary(self, data: bytes) -> None:
        self.legacy.clock.heard_at = self.node.loop.time()
        super().on_binary(data)

    def on_ping(self, payload: bytes) -> None:
        self.legacy.clock.heard_at = self.node.loop.time()
        super().on_ping(payload)

    def on_violation(self, close_code: int, reason: str) -> None:
        self.counters.violations += 1
        if self.said_close:
            self.transport.close()
            return
        self.said_close = True
        self.ended = close_code
        self.leave()
        code, text = TOO_BIG if close_code == inbound.TOO_BIG else (close_code, reason)
        self.transport.write(frames.close(code, text))
        self._end_of_input()


class LegacyStream(LegacySession, SseSession):
    """A stream of a contract: never a comment line, never an unnamed event."""

    __slots__ = ("cut_on_expiry", "legacy")

    def __init__(self, *given: Any, legacy: LegacyState, **rest: Any) -> None:
        super().__init__(*given, **rest)
        self.legacy = legacy
        self.counters = legacy.counters(self)
        self.cut_on_expiry = legacy.registry.cut_on_expiry
        legacy.clock = Clock(self, legacy.endpoint)

    def farewell(self, code: Close, retry_ms: int) -> None:
        legacy = self.legacy
        make: Callable[[int], bytes] | None = legacy.endpoint.replaced
        last = make(legacy.registry.max_per_user) if code is Close.REPLACED and make is not None else b""
        self.transport.write(self.encoding.frames(last) + LAST_CHUNK)

    def finish(self) -> None:
        self.close(Close.STALE)

    def fall_silent(self) -> None:
        self.finish()

    def beat(self) -> None:
        # The contract's heartbeat is the clock's. A peer that is gone shows as a full write buffer.
        return
