"""What a changed migration stage does to live sessions.

Each is told its new stage at once. One that no longer fits (a WebSocket in stage `sse`, a stream after the
sunset) is asked to `migrate` after a delay of its own, and ends `move_grace_s` later if it is still there: a
tenant is moved within `move_spread_s` + `move_grace_s`, evenly, and nobody before it was asked.
"""

from __future__ import annotations

import asyncio
import heapq
import random
from collections.abc import Callable
from itertools import count
from typing import Any, NoReturn

from dualcast.model.codes import Close
from dualcast_migration.policy import Decision, StageRecord, decide
from dualcast_migration.stage import Stage

from .node import Node

TOGETHER = 500
"""Sessions looked at in one turn of the loop."""
LOOK_EVERY_S = 1.0
"""How soon the passing of a sunset is noticed."""
RecordOf = Callable[[str], StageRecord | None]
STREAM_URL = "/v1/stream"
SOCKET_URL = "/v1/socket"


def fits(session: Any, decision: Decision) -> bool:
    """Whether the session's transport is served under `decision`."""
    return decision.websocket if session.encoding.transport == "ws" else decision.sse


def invitation(session: Any, decision: Decision, after_ms: int) -> bytes | None:
    """The `migrate` signal for a session on the transport it should leave; None where its dialect has
    none."""
    to, url = ("sse", STREAM_URL) if session.encoding.transport == "ws" else ("websocket", SOCKET_URL)
    found: bytes | None = session.dialect.migrate(session, to, url, after_ms, decision.deprecation)
    return found


def delay_ms(session: Any) -> int:
    """One client's share of `move_spread_s`."""
    return random.randint(0, int(session.node.settings.move_spread_s * 1000))  # noqa: S311 — jitter


class Movements:
    """Follows the tenants (callbacks of `state.follow`). `record_of`: a tenant's stage record now; None: it
    is not known."""

    def __init__(self, node: Node, record_of: RecordOf) -> None:
        self._node = node
        self._record_of = record_of
        self._sunsets: dict[str, int] = {}
        """Tenant → the sunset its sessions were looked at for."""
        self._ends: list[tuple[float, int, Any]] = []
        self._due: dict[Any, float] = {}
        """Session → when it ends."""
        self._number = count()
        self._wake = asyncio.Event()
        self.moved = 0
        """Sessions that were ended because they no longer fitted."""

    async def changed(self, tenant: str) -> None:
        """The tenant's stage may be another one."""
        await self._look_at(tenant)

    async def resync(self) -> None:
        """Any tenant's may be."""
        await self._look_at(None)

    def gauges(self) -> dict[str, float]:
        """Plain numbers for `/metrics`."""
        return {"sessions_moving": len(self._due), "sessions_moved": self.moved}

    async def run(self) -> NoReturn:
        """Ends whose time has come, and notices sunsets. Until cancelled."""
        loop = asyncio.get_running_loop()
        look_at = loop.time() + LOOK_EVERY_S
        while True:
            self._wake.clear()
            self._end_due(loop.time())
            if loop.time() >= look_at:
                await self._after_sunset()
                look_at = loop.time() + LOOK_EVERY_S
            until = min(look_at, self._ends[0][0]) if self._ends else look_at
            try:
                async with asyncio.timeout_at(until):
                    await self._wake.wait()
            except TimeoutError:
                pass

    async def _look_at(self, tenant: str | None) -> None:
        for number, session in enumerate(list(self._node.hub.sessions.values()), 1):
            if number % TOGETHER == 0:
                await asyncio.sleep(0)
            if tenant in (None, session.principal.tenant):
                self._look(session)

    async def _after_sunset(self) -> None:
        """A sunset passes without anybody changing the record."""
        now_s = self._node.now_s()
        for name in list(self._node.hub.tenants):
            record = self._record_of(name)
            if record is None or record.stage is not Stage.WEBSOCKET:
                self._sunsets.pop(name, None)
            elif 0 < record.sunset_at <= now_s and self._sunsets.get(name) != record.sunset_at:
                self._sunsets[name] = record.sunset_at
                await self._look_at(name)

    def _look(self, session: Any) -> None:
        if session.closed or not session.stage:  # "": no stage governs it
            return
        decision = self._decide(session)
        if decision is None:
            return
        self._node.pairing.decision_changed(session, decision)
        told = session.stage == decision.stage.value
        if not told:
            session.stage = decision.stage.value
            session.send(session.dialect.stage(session.stage))
        if not fits(session, decision):
            if session not in self._due:
                self._ask(session, decision)
        elif not told and decision.deprecation is not None and session.encoding.transport == "sse":
            session.send(invitation(session, decision, delay_ms(session)))

    def _decide(self, session: Any) -> Decision | None:
        principal = session.principal
        record = self._record_of(principal.tenant)
        if record is None:
            return None
        return decide(record, principal.tenant, principal.sub, self._node.now_s())

    def _ask(self, session: Any, decision: Decision) -> None:
        """Asks it to move, and notes when it ends."""
        after_ms = delay_ms(session)
        session.send(invitation(session, decision, after_ms))
        at = self._node.loop.time() + after_ms / 1000 + self._node.settings.move_grace_s
        self._due[session] = at
        heapq.heappush(self._ends, (at, next(self._number), session))
        self._wake.set()

    def _end_due(self, now: float) -> None:
        while self._ends and self._ends[0][0] <= now:
            _, _, session = heapq.heappop(self._ends)
            del self._due[session]
            if session.closed:
                continue
            decision = self._decide(session)
            if decision is not None and not fits(session, decision):  # it may have been taken back
                self.moved += 1
                session.close(Close.STAGE)
