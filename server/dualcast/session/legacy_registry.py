"""What the legacy connections of a node have in common: numbers per dialect, streams per user (the newest
wins), ids that clients choose, and what is counted."""

from __future__ import annotations

import logging
from collections import Counter, OrderedDict, deque
from collections.abc import Awaitable, Callable
from typing import Any

from dualcast.dialects.legacy import Farewell
from dualcast.model.codes import Close

log = logging.getLogger("dualcast.session")

MANY_EVICTIONS = 10
EVICTION_WINDOW_S = 60.0
MAX_EVICTED_USERS = 1_000
"""Users whose evictions are remembered for the warning; beyond it the oldest are forgotten."""
ID_TRIES = 8

Say = Callable[[str, Farewell], Awaitable[None]]


class Registry:
    """One per node. Sessions (`transport.legacy.LegacySession`, written Any: they import this) enter when
    they are attached and leave when they end."""

    def __init__(self, *, max_per_user: int = 0, cut_on_expiry: bool = False) -> None:
        """`max_per_user`: per stream of the contract, 0: no limit."""
        self.max_per_user = max_per_user
        self.cut_on_expiry = cut_on_expiry
        self.say: Say | None = None
        """Publishes a farewell; None: nobody is told."""
        self.dialects: Counter[str] = Counter()
        """Live connections by dialect."""
        self.tenants: Counter[str] = Counter()
        """Live connections by tenant."""
        self.anonymous: Counter[str] = Counter()
        """Live anonymous connections by tenant."""
        self.counted: Counter[str] = Counter()
        """Totals since start, for metrics."""
        self._own: Counter[tuple[str, str, str]] = Counter()
        self._ids: dict[tuple[str, str, str], Any] = {}
        self._streams: dict[tuple[str, str, str], dict[Any, None]] = {}
        self._evicted: OrderedDict[tuple[str, str], deque[float]] = OrderedDict()

    def enter(self, session: Any) -> None:
        """Counts the connection and settles its client id."""
        facts, endpoint = session.legacy.facts, session.legacy.endpoint
        self.dialects[endpoint.dialect] += 1
        self.tenants[facts.tenant] += 1
        if facts.user:
            self._own[facts.tenant, facts.user, endpoint.dialect] += 1
            if self.max_per_user:
                self._streams.setdefault(_stream(session), {})[session] = None
        else:
            self.anonymous[facts.tenant] += 1
        self._settle_id(session)
        facts.own_connections = self.own(session)

    def leave(self, session: Any) -> None:
        """The connection has ended."""
        facts, endpoint = session.legacy.facts, session.legacy.endpoint
        _less(self.dialects, endpoint.dialect)
        _less(self.tenants, facts.tenant)
        if facts.user:
            _less(self._own, (facts.tenant, facts.user, endpoint.dialect))
            stream = _stream(session)
            among = self._streams.get(stream)
            if among is not None:
                among.pop(session, None)
                if not among:
                    del self._streams[stream]
        else:
            _less(self.anonymous, facts.tenant)
        key = (facts.tenant, endpoint.dialect, facts.client_id)
        if self._ids.get(key) is session:
            del self._ids[key]

    def own(self, session: Any) -> int:
        """Connections of the session's user in its dialect on this node; 1 for an anonymous one."""
        facts, endpoint = session.legacy.facts, session.legacy.endpoint
        return self._own[facts.tenant, facts.user, endpoint.dialect] if facts.user else 1

    def evict(self, newest: Any) -> None:
        """Closes the user's oldest connections on the stream of `newest` beyond the limit."""
        among = self._streams.get(_stream(newest)) if self.max_per_user else None
        if among is None:
            return
        for session in list(among)[: max(0, len(among) - self.max_per_user)]:
            session.counters.replaced += 1
            self.counted["evictions"] += 1
            self._note_eviction(session)
            session.close(Close.REPLACED)

    def gauges(self) -> dict[str, float]:
        """Plain numbers for `/metrics`."""
        live = {f"legacy_connections_{name}": float(count) for name, count in self.dialects.items()}
        totals = {f"legacy_{name}": float(count) for name, count in self.counted.items()}
        return {**live, **totals, "legacy_anonymous": float(self.anonymous.total())}

    def _settle_id(self, session: Any) -> None:
        """A client id that is taken, or was not chosen, is replaced by a fresh one where the contract makes
        them; else both have it. Nobody is replaced."""
        facts, endpoint = session.legacy.facts, session.legacy.endpoint
        key = (facts.tenant, endpoint.dialect, facts.client_id)
        for _ in range(ID_TRIES):
            if endpoint.fresh_id is None or (facts.client_id and key not in self._ids):
                break
            facts.client_id = endpoint.fresh_id(facts)
            key = (facts.tenant, endpoint.dialect, facts.client_id)
        if facts.client_id:
            self._ids.setdefault(key, session)

    def _note_eviction(self, session: Any) -> None:
        facts, now = session.legacy.facts, session.node.loop.time()
        key = (facts.tenant, facts.user)
        times = self._evicted.setdefault(key, deque())
        self._evicted.move_to_end(key)
        while len(self._evicted) > MAX_EVICTED_USERS:
            self._evicted.popitem(last=False)
        while times and now - times[0] >= EVICTION_WINDOW_S:
            times.popleft()
        times.append(now)
        if len(times) > MANY_EVICTIONS:
            log.warning("user %s: %d connections were replaced within a minute", facts.user, len(times))
            times.clear()


def _stream(session: Any) -> tuple[str, str, str]:
    facts = session.legacy.facts
    return facts.tenant, facts.user, session.legacy.stream


def _less(counter: Counter[Any], key: Any) -> None:
    counter[key] -= 1
    if not counter[key]:
        del counter[key]
