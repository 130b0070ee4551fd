"""A node's side: sessions and the gateway note what happens, a loop tells the store in batches.

Noting never waits and never fails; what waits to be told is bounded, and what is dropped is counted.
"""

from __future__ import annotations

import asyncio
import secrets
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NoReturn, Protocol

import structlog

from dualcast.model.errors import BusUnavailable, DualcastError
from dualcast.telemetry.counters import OTHER as OTHER_TENANTS
from dualcast.telemetry.counters import Counters
from dualcast_migration import figures
from dualcast_migration.census import UNKNOWN, Row, Visitor, rest_row
from dualcast_migration.sketch import mark

from .closing import ended_abnormally
from .pending import Caps, Pending
from .port import MAX_RECORD_BYTES, Batch, EvidenceSettings, EvidenceStore

log = structlog.get_logger("dualcast.migration")

GOVERNED = frozenset({"native", "notifications"})
"""Dialects whose two transports are each other's twin: only they say anything about a tenant's move."""
CHOSEN = frozenset({"stage", "chosen"})
"""Reasons to fall back that are no failure: the server said so, or the application."""
_TOLD_ANYWAY = frozenset({"bus-unavailable", "draining"})
"""Refusals that a stream would have met as well."""
_SLOW = frozenset(
    figures.lag("ws", at)
    for at in range(figures.LAG_BUCKETS)
    if at == len(figures.LAG_BOUNDS_MS) or figures.LAG_BOUNDS_MS[at] > 1_000
)
_BAD = _SLOW | {
    figures.WS_REFUSED,
    figures.WS_FELL_BACK,
    figures.WS_ABNORMAL,
    figures.RECONNECTS,
    figures.MISMATCHED,
}
_AT_ONCE = 50
_FORGET_S = 3_700.0


class Noted(Protocol):
    """What is looked at of a session (`dualcast.session.connection.Connection`)."""

    id: str
    principal: Any
    dialect: Any
    encoding: Any
    instance: str
    attached_at: float
    ended: int
    visitor: Any


class Recorder:
    """One per node. Loop-bound: everything is called on the loop's thread. `node`: the node's id."""

    def __init__(
        self,
        store: EvidenceStore,
        counters: Counters,
        settings: EvidenceSettings | None = None,
        *,
        node: str,
        draining: Callable[[], bool] = lambda: False,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._store = store
        self._counters = counters
        self._settings = settings or EvidenceSettings()
        self._node = node
        self._draining = draining
        self._now = monotonic
        self._pending: dict[str, Pending] = {}
        self._unsent: dict[str, tuple[Batch, float]] = {}
        """Batches the store has not confirmed, and since when: told again under the same name."""
        self._lags: dict[tuple[str, str], list[int]] = {}
        self._caps = Caps(self._settings, monotonic, self._settings.per_user_s)
        self._kept = Caps(self._settings, monotonic, 3_600.0)
        self._live_at = 0.0
        self._away = False
        self.active: dict[str, float] = {}
        """Tenant → when something was told of it last (`monotonic`)."""
        self.suspects: dict[str, float] = {}
        """The same of what could break a budget."""
        self.dropped = 0
        """What was noted and never told: too many tenants, or the store was away too long."""
        self.failures = 0

    # ── what is noted ──

    def opened(self, session: Noted) -> None:
        """A session was welcomed; `visitor` is what its client said of itself, None when nobody asked."""
        pending = self._of(session.principal.tenant)
        if pending is None:
            session.visitor = None
            return
        transport, dialect = session.encoding.transport, session.dialect.name
        seen: Visitor = session.visitor or UNKNOWN
        one = mark(session.principal.tenant, session.principal.sub)
        # Older contracts have ids of connections, but none of instances.
        pairs = dialect == "native" and bool(session.instance)
        row = Row(transport, dialect, seen.agent, seen.app, seen.origin, pairs)
        if not pending.knows(row) and not self._caps.allow(one, "kind", self._settings.max_kinds_per_user):
            row = rest_row(row)
        session.visitor = pending.connected(row, one)
        if dialect not in GOVERNED or not self._allow(one, "opened"):
            return
        if transport == "ws":
            pending.users.add(one)
            pending.count(figures.WS_OPENED)
            if seen.resumed:
                pending.count(figures.RECONNECTS)
                if not self._caps.first(one, "resumed"):
                    pending.troubled.add(one)
        else:
            pending.count(figures.SSE_OPENED)

    def closed(self, session: Noted, age_s: float) -> None:
        """A session that was opened has ended, `age_s` after its welcome."""
        pending = self._of(session.principal.tenant)
        if pending is None:
            return
        if session.visitor is not None:
            pending.left(session.visitor)
            session.visitor = None
        one = mark(session.principal.tenant, session.principal.sub)
        if session.dialect.name not in GOVERNED:
            return
        ws = session.encoding.transport == "ws"
        abnormal = ws and not self._draining() and ended_abnormally(session)
        if not self._allow(one, "torn" if abnormal else "closed"):
            return
        pending.count(figures.WS_CLOSED if ws else figures.SSE_CLOSED)
        if abnormal:
            pending.count(figures.WS_ABNORMAL)
            pending.troubled.add(one)
            if age_s < self._settings.short_s:
                pending.count(figures.WS_SHORT)

    def refused(self, tenant: str, user: str, transport: str, error: DualcastError) -> None:
        """A handshake of a known caller was answered with `error`. What the caller did wrong, and what a
        stream would have met as well, is no failure of the WebSocket."""
        if transport != "ws" or not error.retryable or error.code in _TOLD_ANYWAY:
            return
        self._failed(tenant, user, figures.WS_REFUSED)

    def fell_back(self, tenant: str, user: str, reason: str) -> None:
        """A client opened its stream and said why not a WebSocket (`fallback_reason`)."""
        if reason and reason not in CHOSEN:
            self._failed(tenant, user, figures.WS_FELL_BACK)

    def compared(self, tenant: str, publications: int, mismatched: int = 0) -> None:
        """So many publications of a pair of sessions were compared."""
        pending = self._of(tenant)
        if pending is not None:
            pending.count(figures.COMPARED, publications)
            pending.count(figures.MISMATCHED, mismatched)

    def reported(
        self,
        tenant: str,
        user: str,
        publications: int,
        mismatched: int,
        lags_ms: Mapping[str, Sequence[float]],
    ) -> bool:
        """A client compared what arrived; `lags_ms` by transport (`ws`, `sse`). False: the user has reported
        often enough for now, and it was not counted."""
        pending = self._of(tenant)
        limit = self._settings.max_reports_per_user
        if pending is None or not self._caps.allow(mark(tenant, user), "report", limit):
            return False
        pending.count(figures.CLIENT_COMPARED, publications)
        pending.count(figures.CLIENT_MISMATCHED, mismatched)
        for transport, lags in lags_ms.items():
            for lag_ms in lags:
                pending.count(figures.client_lag(transport, figures.lag_bucket(lag_ms)))
        return True

    def mismatch(self, tenant: str, record: bytes, reporter: str = "") -> None:
        """Keeps an encoded mismatch record of at most MAX_RECORD_BYTES; it is counted by `compared`.
        `reporter`: the user whose client says so, not the server."""
        pending = self._of(tenant)
        if pending is None:
            return
        if reporter:
            most = self._settings.max_kept_per_hour
            if not self._kept.allow(mark(tenant, reporter), "kept", most):
                return
        waiting = len(pending.mismatches)
        if waiting >= self._settings.max_waiting_mismatches or len(record) > MAX_RECORD_BYTES:
            self.dropped += 1
            return
        pending.mismatches.append(record)

    def lag(self, tenant: str, transport: str, lag_ms: float) -> None:
        """A delivery that telemetry does not see took so long."""
        pending = self._of(tenant)
        if pending is not None:
            pending.count(figures.lag(transport, figures.lag_bucket(lag_ms)))

    def _failed(self, tenant: str, user: str, name: str) -> None:
        pending = self._of(tenant)
        one = mark(tenant, user)
        if pending is not None and self._allow(one, "failed"):
            pending.count(name)
            pending.troubled.add(one)

    def _allow(self, user: str, kind: str) -> bool:
        settings = self._settings
        trouble = kind in ("failed", "torn")
        limit = settings.max_troubles_per_user if trouble else settings.max_opens_per_user
        return self._caps.allow(user, kind, limit)

    def _of(self, tenant: str) -> Pending | None:
        found = self._pending.get(tenant)
        if found is None:
            if len(self._pending) >= self._settings.max_tenants:
                self.dropped += 1
                return None
            found = self._pending[tenant] = Pending()
        return found

    # ── what is told ──

    async def run(self) -> NoReturn:
        """Tells the store, for ever."""
        while True:
            await asyncio.sleep(self._settings.flush_s)
            await self.flush()
            if self._away:
                await asyncio.sleep(self._settings.retry_s)

    async def flush(self) -> None:
        """Tells everything there is to tell; what the store does not take is told with the next one."""
        self._take_lags()
        batches = self._batches()
        for at in range(0, len(batches), _AT_ONCE):
            await asyncio.gather(*(self._tell(*one) for one in batches[at : at + _AT_ONCE]))
            if self._away:
                return  # it would time out for the others, too

    async def close(self) -> None:
        """The last batch, and no live connections any more; `run` must have been cancelled."""
        for pending in self._pending.values():
            pending.nobody_left()
        self._live_at = 0.0
        try:
            async with asyncio.timeout(self._settings.retry_s):
                await self.flush()
        except TimeoutError:
            log.warning("evidence was not stored; live connections end with the lease")

    def gauges(self) -> dict[str, float]:
        """Plain numbers for `/metrics`."""
        return {
            "evidence_dropped": float(self.dropped),
            "evidence_failures": float(self.failures),
            "evidence_not_counted": float(self._caps.refused + self._kept.refused),
            "evidence_tenants": float(len(self._pending)),
        }

    def _take_lags(self) -> None:
        """What telemetry has added to its histograms since the last time."""
        for key, found in list(self._counters.by_label.items()):
            tenant, transport = key
            if tenant == OTHER_TENANTS or tenant.startswith("_"):
                continue
            now, before = found.latency_buckets, self._lags.get(key)
            if now == before:
                continue
            pending = self._of(tenant)
            if pending is None:
                continue
            for at, count in enumerate(now):
                pending.count(figures.lag(transport, at), count - (before[at] if before else 0))
            self._lags[key] = list(now)

    def _batches(self) -> list[tuple[str, Batch]]:
        now = self._now()
        live = now >= self._live_at
        if live:
            self._live_at = now + self._settings.live_s
        for tenant, pending in list(self._pending.items()):
            waiting = self._unsent.get(tenant)
            if waiting is not None:
                if now - waiting[1] < self._settings.lease_s:
                    continue
                # So old, it would be counted as if it were new.
                self.dropped += _size(waiting[0])
                del self._unsent[tenant]
            batch = pending.take(self._node, secrets.token_hex(8), self._settings.lease_s, live=live)
            if batch is not None:
                self._unsent[tenant] = (batch, now)
                self._mark_active(tenant, batch.figures, now)
            elif pending.idle:
                del self._pending[tenant]
        for known in (self.active, self.suspects):
            for tenant in [name for name, at in known.items() if now - at > _FORGET_S]:
                del known[tenant]
        return [(tenant, batch) for tenant, (batch, _) in self._unsent.items()]

    def _mark_active(self, tenant: str, told: Mapping[str, int], now: float) -> None:
        if told:
            self.active[tenant] = now
        if not _BAD.isdisjoint(told):
            self.suspects[tenant] = now

    async def _tell(self, tenant: str, batch: Batch) -> None:
        try:
            await self._store.record(tenant, batch)
        except BusUnavailable:
            self.failures += 1
            if not self._away:
                self._away = True
                log.warning("evidence cannot be stored now", tenant=tenant)
            return
        self._away = False
        found = self._unsent.get(tenant)
        if found is not None and found[0] is batch:
            del self._unsent[tenant]


def _size(batch: Batch) -> int:
    """How many things were noted in it."""
    return sum(batch.figures.values()) + sum(row.connects for row in batch.rows) + len(batch.mismatches)
