"""What a changed migration stage does to live sessions.

Each is told its new stage at once. One that no longer fits (a WebSocket in stage `sse`, a stream after the
sunset) is asked to `migrate` after a delay of its own, and ends `move_grace_s` later if it is still there: a
tenant is moved within `move_spread_s` + `move_grace_s`, evenly, and nobody before it was asked.
"""

from __future__ import annotations

import asyncio
import heapq
import random
from collections.abc import Callable, Iterable
from itertools import count
from typing import Any, NoReturn

from dualcast.model.codes import Close
from dualcast_migration.policy import Decision, Deprecation, StageRecord, decide
from dualcast_migration.stage import Stage

from .node import Node

TOGETHER = 500
"""Sessions looked at in one turn of the loop."""
LOOK_EVERY_S = 1.0
"""How soon it is noticed that a sunset has passed, or that a stage was changed during a handshake."""
RecordOf = Callable[[str], StageRecord | None]
STREAM_URL = "/v1/stream"
SOCKET_URL = "/v1/socket"


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
        self._told: dict[str, tuple[Deprecation, bool]] = {}
        """Tenant in the last stage → what its streams know of the end of SSE, and whether it has come."""
        self._ends: list[tuple[float, int, Any]] = []
        self._due: dict[Any, int] = {}
        """Session → number of its end; an end of another number was taken back."""
        self._looked_at = node.loop.time()
        """Sessions attached before have been looked at."""
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
                await self._after_handshakes()
                await self._after_schedule()
                look_at = loop.time() + LOOK_EVERY_S
            until = min(look_at, self._ends[0][0]) if self._ends else look_at
            try:
                async with asyncio.timeout_at(until):
                    await self._wake.wait()
            except TimeoutError:
                pass

    async def _look_at(self, tenant: str | None, *, news: bool = False) -> None:
        sessions: list[Any] = list(self._node.hub.sessions.values())
        await self._look_through(
            (one for one in sessions if tenant in (None, one.principal.tenant)), news=news
        )

    async def _after_handshakes(self) -> None:
        """A session that was let in before a change and attached after it was not there to be told."""
        new: list[Any] = []
        session: Any
        for session in reversed(self._node.hub.sessions.values()):
            if session.attached_at < self._looked_at:
                break
            new.append(session)
        self._looked_at = self._node.loop.time()
        await self._look_through(new)

    async def _look_through(self, sessions: Iterable[Any], *, news: bool = False) -> None:
        for number, session in enumerate(sessions, 1):
            if number % TOGETHER == 0:
                await asyncio.sleep(0)
            self._look(session, news=news)

    async def _after_schedule(self) -> None:
        """A sunset passes without anybody changing the record, and one that is set or moved concerns streams
        whose stage stays what it is."""
        now_s = self._node.now_s()
        for name in list(self._node.hub.tenants):
            record = self._record_of(name)
            if record is None or record.stage is not Stage.WEBSOCKET:
                self._told.pop(name, None)
                continue
            now = Deprecation(record.deprecated_at, record.sunset_at, record.link)
            over = 0 < now.sunset_at <= now_s
            before, was_over = self._told.get(name, (now, False))
            self._told[name] = now, over
            if now != before or over != was_over:
                await self._look_at(name, news=now != before)

    def _look(self, session: Any, *, news: bool) -> None:
        """`news`: the end of SSE is scheduled otherwise."""
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
        if not decision.serves(session.encoding.transport):
            if session not in self._due:
                self._ask(session, decision)
            return
        self._due.pop(session, None)  # whoever is asked again is given time again
        if (news or not told) and decision.deprecation is not None and session.encoding.transport == "sse":
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
        number = self._due[session] = next(self._number)
        heapq.heappush(self._ends, (at, number, session))
        self._wake.set()

    def _end_due(self, now: float) -> None:
        while self._ends and self._ends[0][0] <= now:
            _, number, session = heapq.heappop(self._ends)
            if self._due.get(session) != number:
                continue
            del self._due[session]
            if session.closed:
                continue
            decision = self._decide(session)
            if decision is not None and not decision.serves(
                session.encoding.transport
            ):  # it may have been taken back
                self.moved += 1
                session.close(Close.STAGE)
