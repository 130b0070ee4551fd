"""The clock of one legacy connection: heartbeats, idle end, and the end of a stream that has said its last.

It rides on the node's wheel (`session.wheel`), so times are wall time and no timer belongs to a connection.
What was written to the client is not noted where it is written, which is the hot path: it is read off the
rings when somebody wants to know.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable
from typing import Any

from dualcast.dialects.legacy import Endpoint
from dualcast.model.publication import Entry
from dualcast.session.wheel import NOWHERE

log = logging.getLogger("dualcast.transport")

NEWEST = 64
"""Entries per channel looked at for "was anything written since"; of more than that, a heartbeat comes
although there was traffic, which does no harm."""


class Clock:
    """Made with its session (a `transport.legacy.LegacySession`), started when that is attached. Loop times
    in seconds."""

    __slots__ = (
        "_beat_at",
        "_endpoint",
        "_epoch",
        "_looked",
        "_session",
        "_wrote_at",
        "heard_at",
        "looks",
        "over",
        "slot",
    )

    def __init__(self, session: Any, endpoint: Endpoint) -> None:
        self._session = session
        self._endpoint = endpoint
        self.slot = NOWHERE
        self.heard_at = 0.0
        """When the client last said something."""
        self.over = False
        """What ends the stream has been written."""
        self._wrote_at = 0.0
        self._beat_at = 0.0
        self._looked = 0
        self._epoch = ""
        quiet = endpoint.heartbeat is not None and not endpoint.heartbeat_always
        silent = endpoint.transport == "sse" and endpoint.silent_s > 0
        self.looks = quiet or silent or endpoint.ends is not None
        """Whether it matters what was written."""

    def start(self, now: float) -> None:
        """The connection is open."""
        endpoint, session = self._endpoint, self._session
        self.heard_at = self._wrote_at = now
        self._looked, self._epoch = session.offset, session.epoch
        if endpoint.heartbeat is not None and endpoint.heartbeat_s > 0:
            self._beat_at = now + endpoint.heartbeat_s
        if again := self._next(now):
            session.node.wheel.put(self, again)

    def stop(self) -> None:
        """The connection has ended."""
        self._session.node.wheel.take(self)

    def wrote(self, entries: Iterable[Entry], through: int) -> None:
        """Recovered entries up to offset `through` were handed to the transport."""
        for entry in entries:
            if entry.offset <= through and self._was_written(entry):
                self._wrote_at = self._session.node.loop.time()

    def write_failed(self) -> None:
        """The wheel's complaint."""
        self._session.write_failed()

    def turn_of_wheel(self, now: float) -> float:
        """What is due; the time of the next turn."""
        session, endpoint = self._session, self._endpoint
        if session.closed:
            return 0.0
        self._look(now)
        if self.over:
            session.finish()
            return 0.0
        if self._beat_at and now >= self._beat_at:
            self._beat(now)
        if endpoint.silent_s and now - self._last_sign >= endpoint.silent_s:
            session.fall_silent()
            return 0.0
        return self._next(now)

    @property
    def _last_sign(self) -> float:
        return self.heard_at if self._endpoint.transport == "ws" else self._wrote_at

    def _next(self, now: float) -> float:
        if self._endpoint.ends is not None:
            return now + 0.001  # the next slot
        silent_s = self._endpoint.silent_s
        due = [self._beat_at, self._last_sign + silent_s if silent_s else 0.0]
        return min((time for time in due if time), default=0.0)

    def _beat(self, now: float) -> None:
        session, endpoint = self._session, self._endpoint
        if not endpoint.heartbeat_always and now - self._wrote_at < endpoint.heartbeat_s - 0.5:
            self._beat_at = self._wrote_at + endpoint.heartbeat_s
            return
        # From when it was due: beats do not drift. After a standstill one is enough.
        self._beat_at += endpoint.heartbeat_s
        if self._beat_at <= now:
            self._beat_at = now + endpoint.heartbeat_s
        if session.paused or endpoint.heartbeat is None:
            return  # a client that does not read is not sent more to read
        try:
            text = endpoint.heartbeat(session.fresh_facts())
        except Exception:
            # Anybody's contract.
            log.exception("the heartbeat of %s failed", endpoint.path)
            return
        session.send(text or None)

    def _look(self, now: float) -> None:
        """Reads off the rings what was written since the last look."""
        session, endpoint = self._session, self._endpoint
        if not self.looks:
            return
        if session.epoch != self._epoch:
            self._epoch, self._looked = session.epoch, 0
        through = session.offset
        if through <= self._looked:
            return
        since_s = session.node.now_s() - now
        for feed in session.channels:
            for count, entry in enumerate(reversed(feed.ring or ())):
                if entry.offset <= self._looked or (count >= NEWEST and endpoint.ends is None):
                    break
                if entry.offset <= through and self._was_written(entry):
                    wrote_at = entry.publication.time_ms / 1000 - since_s
                    self._wrote_at = max(self._wrote_at, min(now, wrote_at))
                    if endpoint.ends is None:
                        break
        self._looked = through

    def _was_written(self, entry: Entry) -> bool:
        session, endpoint = self._session, self._endpoint
        audience = entry.publication.audience
        if not session.encoding.frame(entry) or not (audience is None or session.due(audience)):
            return False
        if endpoint.ends is not None and endpoint.ends(entry):
            self.over = True
        return True
