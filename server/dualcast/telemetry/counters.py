"""Plain integers the delivery path increments; `metrics.py` turns them into Prometheus families when scraped.

One event loop owns them, so there is no lock. Labels are (tenant, transport) and bounded: tenants beyond the
bound share the label `_other`.
"""

from __future__ import annotations

import time
from bisect import bisect_left

MAX_TENANT_LABELS = 500
OTHER = "_other"
LATENCY_BOUNDS_MS = (1, 2, 5, 10, 20, 50, 100, 200, 500, 1_000, 5_000, 10_000, 30_000, 60_000)


class DeliveryCounters:
    """Counts of one tenant on one transport (`sse` or `ws`). All are totals since start but `connections`."""

    __slots__ = (
        "bytes",
        "closed",
        "conflated",
        "connections",
        "delivered",
        "ephemeral_skipped",
        "fell_behind",
        "gaps",
        "lag_closed",
        "latency_buckets",
        "latency_count",
        "latency_sum_ms",
        "opened",
        "received",
        "recovered",
        "refused",
        "replaced",
        "said",
        "stale_closed",
        "violations",
    )

    def __init__(self) -> None:
        for name in DeliveryCounters.__slots__:
            setattr(self, name, 0)
        self.latency_buckets = [0] * (len(LATENCY_BOUNDS_MS) + 1)

    connections: int
    opened: int
    closed: int
    refused: int
    """Handshakes answered with an error."""
    delivered: int
    """Publications written to a session, live or recovered."""
    bytes: int
    recovered: int
    """Of `delivered`: from history."""
    received: int
    """Texts that clients of legacy sockets sent."""
    said: int
    """Texts to clients of legacy sockets that were no publications: answers and heartbeats."""
    conflated: int
    """Superseded by a later publication of the same conflation key while the session was behind."""
    ephemeral_skipped: int
    """Ephemeral publications not written because the session was behind."""
    gaps: int
    fell_behind: int
    lag_closed: int
    stale_closed: int
    replaced: int
    violations: int
    latency_buckets: list[int]
    latency_count: int
    latency_sum_ms: float

    def latency(self, published_ms: int, deliveries: int) -> None:
        """Records that a publication of Unix time `published_ms` was written to `deliveries` sessions now."""
        elapsed = max(0.0, time.time() * 1000 - published_ms)
        self.latency_buckets[bisect_left(LATENCY_BOUNDS_MS, elapsed)] += deliveries
        self.latency_count += deliveries
        self.latency_sum_ms += elapsed * deliveries


class PartCounters(DeliveryCounters):
    """Counts of a part of the connections of `whole`, which counts them as well."""

    __slots__ = ("_whole",)
    _whole: DeliveryCounters | None

    def __init__(self, whole: DeliveryCounters) -> None:
        object.__setattr__(self, "_whole", None)
        super().__init__()
        object.__setattr__(self, "latency_buckets", whole.latency_buckets)
        object.__setattr__(self, "_whole", whole)

    def __setattr__(self, name: str, value: float) -> None:
        whole = self._whole
        if whole is not None:
            setattr(whole, name, getattr(whole, name) + value - getattr(self, name))
        object.__setattr__(self, name, value)


class Counters:
    """All counters of a node."""

    def __init__(self) -> None:
        self.by_label: dict[tuple[str, str], DeliveryCounters] = {}
        self.parts: dict[tuple[str, str, str], PartCounters] = {}
        """By tenant label, transport and dialect; all are in `by_label` as well."""
        self._tenants: set[str] = set()
        self.published: dict[str, int] = {}
        """Accepted publications per tenant label."""
        self.publish_failed: dict[tuple[str, str], int] = {}
        """(tenant label, error code) → count."""

    def label(self, tenant: str) -> str:
        """The bounded label of `tenant`."""
        if tenant in self._tenants:
            return tenant
        if len(self._tenants) < MAX_TENANT_LABELS:
            self._tenants.add(tenant)
            return tenant
        return OTHER

    def delivery(self, tenant: str, transport: str) -> DeliveryCounters:
        """The counters of `tenant` on `transport` (`sse` or `ws`), created on first use."""
        key = (self.label(tenant), transport)
        found = self.by_label.get(key)
        if found is None:
            found = self.by_label[key] = DeliveryCounters()
        return found

    def part(self, tenant: str, transport: str, dialect: str) -> PartCounters:
        """The counters of one dialect, whose counts are those of `delivery` too. Dialects are few."""
        key = (self.label(tenant), transport, dialect)
        found = self.parts.get(key)
        if found is None:
            found = self.parts[key] = PartCounters(self.delivery(tenant, transport))
        return found

    def accepted(self, tenant: str, count: int = 1) -> None:
        """Counts `count` accepted publications."""
        label = self.label(tenant)
        self.published[label] = self.published.get(label, 0) + count

    def rejected(self, tenant: str, code: str) -> None:
        """Counts a refused publication by error code."""
        key = (self.label(tenant), code)
        self.publish_failed[key] = self.publish_failed.get(key, 0) + 1
