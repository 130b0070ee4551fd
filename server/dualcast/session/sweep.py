"""One sweep per node in place of per-connection timers: heartbeats, dead peers, expired tokens, lag, stuck
closes."""

from __future__ import annotations

import asyncio
import logging

from dualcast.hub.subscriber import BEHIND
from dualcast.model.codes import Close

from .node import Node
from .recovery import Recovery
from .session import Session

log = logging.getLogger("dualcast.session")


class Sweep:
    """Looks at a slice of the sessions every second, at each session once per `sweep_s`."""

    def __init__(self, node: Node, recovery: Recovery) -> None:
        self._node = node
        self._recovery = recovery
        self._tick = 0

    async def run(self) -> None:
        """Sweeps until cancelled."""
        while True:
            await asyncio.sleep(1)
            self.tick()

    def tick(self) -> None:
        """One second's share: pure of waiting, so tests call it."""
        node = self._node
        self._tick += 1
        buckets = node.sweep_buckets
        now, unix = node.loop.time(), node.now_s()
        for session in list(buckets[self._tick % len(buckets)]):
            try:
                self._look(session, now, unix)
            except Exception:
                # The sweep's edge: it looks after everybody else, too.
                log.exception("the sweep of a session failed")
                session.write_failed()
        node.wheel.turn(now)
        if self._tick % len(buckets) == 0:
            node.hub.sweep()
        if node.held and node.hub.available:
            self._recovery.release()
        overdue = now - node.settings.close_timeout_s
        for session, since in list(node.closing.items()):
            if since < overdue:
                del node.closing[session]
                session.transport.abort()

    def _look(self, session: Session, now: float, unix: float) -> None:
        settings = self._node.settings
        expires_at = session.principal.expires_at
        if expires_at and session.cut_on_expiry:
            if expires_at <= unix:
                session.expire("token expired")
                return
            if not session.warned and expires_at - unix <= settings.auth_warning_s:
                session.warned = True
                session.send(session.dialect.auth_expiring(expires_at))
        if (
            session.gate == BEHIND
            and (session.paused or not session.muted)
            and self._node.hub.available
            and now - session.behind_since > settings.lag_limit_s
        ):
            session.counters.lag_closed += 1
            session.close(Close.LAGGING)
            return
        session.beat()
