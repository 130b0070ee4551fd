"""What all sessions of one process share: hub, bus, counters, settings, and the owner of short-lived
tasks."""

from __future__ import annotations

import asyncio
import logging
import secrets
import time
from collections import deque
from collections.abc import Coroutine, Mapping, Sequence
from typing import Any, Protocol

from msgspec import Struct

from dualcast.bus.port import EventBus
from dualcast.hub.hub import Hub
from dualcast.model.errors import DualcastError
from dualcast.telemetry.counters import Counters
from dualcast_migration.policy import Decision

from .channel_state import ChannelStates
from .wheel import Wheel

log = logging.getLogger("dualcast.session")


class SessionSettings(Struct, frozen=True, kw_only=True):
    """Limits and clocks of sessions."""

    max_channels: int = 128
    max_presence_channels: int = 16
    """Of them `presence:` channels: every join and leave there is a publication of its own."""
    max_per_user: int = 20
    """Native connections of one user on this node; the newest wins."""
    max_connections: int = 100_000
    """Of this node, all tenants."""
    write_high_bytes: int = 65_536
    write_low_bytes: int = 16_384
    catch_up_write_bytes: int = 65_536
    """Recovered frames are joined into writes of about this size."""
    page_limit: int = 500
    recovery_workers: int = 16
    lag_limit_s: float = 30
    heartbeat_sse_s: int = 15
    heartbeat_ws_s: int = 25
    dead_after_s: int = 10
    """A WebSocket that leaves a ping unanswered for so long is closed."""
    auth_warning_s: int = 60
    sweep_s: int = 5
    """The sweep looks at every session once in so many seconds."""
    move_spread_s: float = 30
    """Sessions that a changed stage moves are asked to move over so long."""
    move_grace_s: float = 5
    """Who has not moved so long after its time is ended."""
    close_timeout_s: int = 10
    """A closing connection whose last bytes are not taken is aborted after this."""
    retry_min_ms: int = 1_000
    retry_max_ms: int = 4_000
    """Range of the jittered reconnect delay told to clients."""
    max_frame_bytes: int = 65_536
    max_pending_commands: int = 32
    """Client commands waiting on one socket; beyond it the socket is closed (rate-limited)."""


class Presence(Protocol):
    """Who hears that a session came, went or changed its channels; `presence.tracker.Tracker` is one."""

    def changed(self, session: Any) -> None:
        """Notes it and returns: called in handshakes and in loops over all sessions."""
        ...


class Unwatched:
    """The Presence of a node that tells nobody."""

    def changed(self, session: Any) -> None: ...


class Evidence(Protocol):
    """Who notes how connections open and end; `dualcast_migration.evidence.recorder.Recorder` is one. Nothing
    here waits or raises."""

    def opened(self, session: Any) -> None: ...
    def closed(self, session: Any, age_s: float) -> None: ...
    def refused(self, tenant: str, user: str, transport: str, error: DualcastError) -> None: ...
    def fell_back(self, tenant: str, user: str, reason: str) -> None: ...
    def compared(self, tenant: str, publications: int, mismatched: int = 0) -> None: ...
    def mismatch(self, tenant: str, record: bytes, reporter: str = "") -> None: ...
    def reported(
        self,
        tenant: str,
        user: str,
        publications: int,
        mismatched: int,
        lags_ms: Mapping[str, Sequence[float]],
    ) -> bool:
        """Whether it was counted."""
        ...


class Unrecorded:
    """The Evidence of a node that keeps none."""

    def opened(self, session: Any) -> None: ...
    def closed(self, session: Any, age_s: float) -> None: ...
    def refused(self, tenant: str, user: str, transport: str, error: DualcastError) -> None: ...
    def fell_back(self, tenant: str, user: str, reason: str) -> None: ...
    def compared(self, tenant: str, publications: int, mismatched: int = 0) -> None: ...
    def mismatch(self, tenant: str, record: bytes, reporter: str = "") -> None: ...
    def reported(
        self,
        tenant: str,
        user: str,
        publications: int,
        mismatched: int,
        lags_ms: Mapping[str, Sequence[float]],
    ) -> bool:
        return False


class Siblings(Protocol):
    """Who brings the sessions of one instance together; `pairing.Pairing` is one. Nothing here waits or
    raises. Beside `attached` and `decision_changed` only sessions call it that it has given a `pair`."""

    def attached(self, session: Any) -> None:
        """It is about to be welcomed."""
        ...

    def left(self, session: Any) -> None:
        """It has ended."""
        ...

    def receipt(self, session: Any, offset: int) -> None:
        """Its client has read everything up to `offset`."""
        ...

    def changed(self, session: Any) -> None:
        """Its channels or its principal are others now."""
        ...

    def broken(self, session: Any, through: int) -> None:
        """There is a hole in what it delivers; up to `through` it had been written."""
        ...

    def caught_up(self, session: Any) -> None:
        """It is live."""
        ...

    def asks(self, session: Any) -> bool:
        """Whether a receipt is wanted of a socket; once per sweep."""
        ...

    def decision_changed(self, session: Any, decision: Decision) -> None:
        """The tenant's stage is another one for its user."""
        ...

    def siblings(self, session: Any) -> list[Any]:
        """The other sessions of its instance on this node."""
        ...


class Unpaired:
    """The Siblings of a node where nobody is muted."""

    def attached(self, session: Any) -> None: ...
    def left(self, session: Any) -> None: ...
    def receipt(self, session: Any, offset: int) -> None: ...
    def changed(self, session: Any) -> None: ...
    def broken(self, session: Any, through: int) -> None: ...
    def caught_up(self, session: Any) -> None: ...
    def asks(self, session: Any) -> bool:
        return False

    def decision_changed(self, session: Any, decision: Decision) -> None: ...
    def siblings(self, session: Any) -> list[Any]:
        return []


class Node:
    """Shared by every session of a process (a `session.session.Session`, written Any here: sessions import
    this). Created once the loop runs; `run` owns all tasks made by `spawn`."""

    def __init__(self, bus: EventBus, hub: Hub, counters: Counters, settings: SessionSettings) -> None:
        self.bus = bus
        self.hub = hub
        self.counters = counters
        self.settings = settings
        self.loop = asyncio.get_running_loop()
        self.id = secrets.token_hex(4)
        self.draining = False
        self.presence: Presence = Unwatched()
        """Replaced by the composition root."""
        self.pairing: Siblings = Unpaired()
        """Replaced by the composition root."""
        self.evidence: Evidence = Unrecorded()
        """Replaced by the composition root."""
        self.behind: dict[str, deque[Any]] = {}
        """Sessions that need the bus to catch up, per tenant: served in turn, so no tenant waits for
        another."""
        self.behind_event = asyncio.Event()
        self.held: set[Any] = set()
        """Sessions waiting for the bus to come back."""
        self.closing: dict[Any, float] = {}
        self.per_address: dict[str, int] = {}
        self.sweep_buckets: list[set[Any]] = [set() for _ in range(settings.sweep_s)]
        self.wheel = Wheel(self.loop.time())
        """Clock of legacy sessions; the sweep turns it."""
        self.forged_receipts = 0
        self.grant_changes = 0
        """Grows with every changed grant: whoever waited between being let in and joining asks again."""
        self.states = ChannelStates(self.spawn)
        """Where the state of a presence, task or batch channel is read; the composition root names the
        sources."""
        self._tasks: set[asyncio.Task[Any]] = set()
        self._sequence = 0

    def sweep_bucket(self, session: Any) -> set[Any]:
        """The slice of the sweep that looks after `session`."""
        return self.sweep_buckets[hash(session.id) % len(self.sweep_buckets)]

    def connection_id(self) -> str:
        """A new connection id: node, then a number that grows, so that ids sort by age within a node."""
        self._sequence += 1
        return f"{self.id}-{self._sequence:08x}"

    def spawn(self, coroutine: Coroutine[Any, Any, None]) -> None:
        """Runs a short-lived task the node owns: it is cancelled when the node stops, and its failure is
        logged."""
        task = self.loop.create_task(coroutine)
        self._tasks.add(task)
        task.add_done_callback(self._finished)

    def _finished(self, task: asyncio.Task[Any]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            log.error("a session task failed", exc_info=error)

    async def close(self) -> None:
        """Cancels what is left of the short-lived tasks."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def enqueue(self, session: Any) -> None:
        """Puts a session that needs the bus into its tenant's queue; each session is queued once."""
        if session.queued:
            return
        session.queued = True
        self.behind.setdefault(session.feed.name, deque()).append(session)
        self.behind_event.set()

    @staticmethod
    def now_s() -> float:
        """Unix time in seconds."""
        return time.time()
