"""Tells a node's caches what changed in the state store: one task polls the change log for all of them.

A change is known on every node one interval after its write. Whoever subscribes gives two callbacks:
`changed(key)`, and `resync()`, which must read everything anew. `resync` is called at the first poll, after
an outage of the store, when the log no longer reaches back, and when a callback has failed: so a cache that
keeps both is never silently out of date.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable
from typing import NoReturn

from dualcast.model.errors import BusUnavailable

from .port import StateStore

_log = logging.getLogger(__name__)
MAX_BACKOFF_S = 2.0

Changed = Callable[[str], Awaitable[None]]
Resync = Callable[[], Awaitable[None]]


class _Reader:
    """One subscription. It starts out of date."""

    __slots__ = ("changed", "fresh", "resync", "space")

    def __init__(self, space: str, changed: Changed, resync: Resync) -> None:
        self.space = space
        self.changed = changed
        self.resync = resync
        self.fresh = False


class StateFollower:
    """Polls `store` every `interval_s`. The application awaits `refresh()` once at start, then owns a task of
    `run()`."""

    def __init__(self, store: StateStore, interval_s: float = 0.5) -> None:
        self._store = store
        self._interval_s = interval_s
        self._readers: list[_Reader] = []
        self._revision = 0
        self._turn = asyncio.Lock()
        self._fresh_at: float | None = None

    def on(self, space: str, changed: Changed, resync: Resync) -> None:
        """From the next poll on: `resync()` once, then `changed(key)` for each key of `space` that was
        written or deleted."""
        self._readers.append(_Reader(space, changed, resync))

    @property
    def age_s(self) -> float:
        """Seconds since the last successful poll; infinite before the first. Readiness looks at it."""
        return float("inf") if self._fresh_at is None else time.monotonic() - self._fresh_at

    async def refresh(self) -> None:
        """Polls now, returns when every callback is through; raises BusUnavailable when the store is away."""
        async with self._turn:
            started = time.monotonic()
            try:
                changes = await self._store.changes(self._revision)
            except BusUnavailable:
                # A store that was away may have come back with less than it had.
                self._mark_all()
                raise
            self._revision = changes.revision
            if not changes.complete:
                self._mark_all()
            for reader in tuple(self._readers):
                keys = [change.key for change in changes.changes if change.space == reader.space]
                await self._bring_up(reader, keys)
            if all(reader.fresh for reader in self._readers):
                self._fresh_at = started
            else:
                raise BusUnavailable("the state store could not be read in full")

    async def run(self) -> NoReturn:
        """Polls until cancelled; slows down to one poll in 2 s while the store is away."""
        pause_s = self._interval_s
        task = asyncio.current_task()
        while True:
            if task is not None and task.cancelling():
                # A client library may turn a cancellation that meets its own time-out into that time-out.
                raise asyncio.CancelledError
            try:
                await self.refresh()
            except BusUnavailable:
                if pause_s == self._interval_s:
                    _log.warning("the state store cannot be followed; this node works with what it knows")
                pause_s = max(self._interval_s, min(pause_s * 2, MAX_BACKOFF_S))
            else:
                if pause_s > self._interval_s:
                    _log.warning("the state store is followed again")
                pause_s = self._interval_s
            if task is None or not task.cancelling():
                await asyncio.sleep(pause_s)

    def _mark_all(self) -> None:
        for reader in self._readers:
            reader.fresh = False

    async def _bring_up(self, reader: _Reader, keys: list[str]) -> None:
        """Calls what `reader` is due; when that fails, `fresh` stays False and the next poll resyncs it."""
        resync, reader.fresh = not reader.fresh, False
        try:
            if resync:
                await reader.resync()
            else:
                for key in keys:
                    await reader.changed(key)
        except BusUnavailable:
            return
        except Exception:  # noqa: BLE001 an edge: one room's fault must not blind the others
            _log.exception("a follower of state space %r failed; it will be read anew", reader.space)
            return
        reader.fresh = True
