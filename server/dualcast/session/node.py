"""What all sessions of one process share: hub, bus, counters, settings, and the owner of short-lived
tasks."""

from __future__ import annotations

import asyncio
import logging
import secrets
import time
from collections import deque
from collections.abc import Coroutine
from typing import Any, Protocol

from msgspec import Struct

from dualcast.bus.port import EventBus
from dualcast.hub.hub import Hub
from dualcast.telemetry.counters import Counters

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
