"""Counters, bus statistics and process figures as Prometheus text.

Families are built from plain numbers when scraped; nothing is locked or allocated per delivery. Labels:
`tenant` (bounded by `counters.MAX_TENANT_LABELS`, the rest is `_other`), `transport`, `code`.
"""

from __future__ import annotations

import asyncio
import resource
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from itertools import islice

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.registry import Collector

from .counters import LATENCY_BOUNDS_MS, MAX_TENANT_LABELS, Counters, DeliveryCounters

_LABELS = ("tenant", "transport")
_TOTALS = (
    ("opened", "dualcast_connections_opened", "Connections opened"),
    ("closed", "dualcast_connections_closed", "Connections closed"),
    ("refused", "dualcast_connections_refused", "Handshakes answered with an error"),
    ("delivered", "dualcast_deliveries", "Publications written to sessions, live or recovered"),
    ("recovered", "dualcast_deliveries_recovered", "Of the deliveries: from history"),
    ("bytes", "dualcast_delivered_bytes", "Bytes written to sessions"),
    (
        "conflated",
        "dualcast_publications_conflated",
        "Superseded by a later one of the same key while behind",
    ),
    (
        "ephemeral_skipped",
        "dualcast_ephemeral_skipped",
        "Ephemeral publications a session that was behind missed",
    ),
    ("gaps", "dualcast_gaps", "Holes announced to sessions"),
    ("fell_behind", "dualcast_sessions_fell_behind", "Times a session left live delivery"),
    ("lag_closed", "dualcast_sessions_lag_closed", "Sessions closed because they stayed behind too long"),
    ("stale_closed", "dualcast_sessions_stale_closed", "Sessions closed because nothing was heard of them"),
    ("replaced", "dualcast_sessions_replaced", "Sessions closed for a newer one of the same user"),
    ("violations", "dualcast_protocol_violations", "Protocol errors of clients"),
)
GROWING = frozenset(
    {
        "appended",
        "commit_failures",
        "commits",
        "duplicates",
        "evidence_dropped",
        "evidence_failures",
        "evidence_not_counted",
        "forged_receipts",
        "held_overflows",
        "inbox_unannounced",
        "malformed",
        "mismatches",
        "pipelines",
        "push_accepted",
        "push_dead",
        "push_failed",
        "push_lost",
        "push_retried",
        "push_sent",
        "push_skipped_online",
        "reads",
        "received",
        "reconnects",
        "refused_full",
        "repairs",
        "resubscribes",
        "retries",
        "task_announcements_dropped",
        "task_announcements_failed",
        "task_conflicts",
        "timeouts",
        "trimmed",
    }
)
"""Plain numbers that only grow; every other one is a gauge."""


class LoopLag:
    """Measures how late the event loop is: the delay of a timer beyond its time, highest since the last
    scrape.

    `start` needs the running loop; `stop` ends the timer.
    """

    def __init__(self, interval_s: float = 0.25) -> None:
        self._interval_s = interval_s
        self._worst_s = 0.0
        self._due = 0.0
        self._handle: asyncio.TimerHandle | None = None
        self._loop: asyncio.AbstractEventLoop | None = None

    def start(self) -> None:
        """Begins measuring on the running loop."""
        self._loop = asyncio.get_running_loop()
        self._arm()

    def stop(self) -> None:
        """Ends measuring."""
        if self._handle is not None:
            self._handle.cancel()
            self._handle = None

    def take(self) -> float:
        """The worst delay in seconds since the last call."""
        worst, self._worst_s = self._worst_s, 0.0
        return worst

    def _arm(self) -> None:
        assert self._loop is not None
        self._due = self._loop.time() + self._interval_s
        self._handle = self._loop.call_later(self._interval_s, self._fired)

    def _fired(self) -> None:
        assert self._loop is not None
        self._worst_s = max(self._worst_s, self._loop.time() - self._due)
        self._arm()


class DualcastCollector(Collector):
    """A custom collector over the numbers of a node."""

    def __init__(
        self,
        counters: Counters,
        *,
        bus_stats: Callable[[], Mapping[str, float]] | None = None,
        gauges: Callable[[], Mapping[str, float]] | None = None,
        families: Callable[[], Iterator[Metric]] | None = None,
        loop_lag: LoopLag | None = None,
        stages: Callable[[], Iterable[tuple[str, str, float]]] | None = None,
        version: str = "",
    ) -> None:
        """`bus_stats`: `EventBus.stats`. `gauges`: further plain gauges by snake_case name (sessions behind,
        tokens cached …). `stages`: (tenant, stage, percent of its users in it) of every tenant.
        `families`: ready-made ones.
        """
        self._counters = counters
        self._bus_stats = bus_stats
        self._gauges = gauges
        self._families = families
        self._loop_lag = loop_lag
        self._stages = stages
        self._version = version
        self._started = time.time()

    def collect(self) -> Iterator[Metric]:
        yield from self._deliveries()
        yield from self._publishing()
        yield from self._migration()
        # One family per name, or a scraper refuses the page: the bus's own figure goes first.
        numbers: dict[str, tuple[float, bool]] = {}
        for prefix, source in (("dualcast_bus_", self._bus_stats), ("dualcast_", self._gauges)):
            if source is not None:
                for name, value in source().items():
                    numbers.setdefault(prefix + name, (value, name in GROWING))
        for name, (value, growing) in numbers.items():
            yield _plain(name, value, growing)
        if self._families is not None:
            yield from self._families()
        yield from self._process()

    def _deliveries(self) -> Iterator[Metric]:
        # A copy: the scrape may be rendered while a tenant's first delivery adds a label.
        labelled = list(self._counters.by_label.items())
        live = GaugeMetricFamily("dualcast_connections", "Live connections", labels=_LABELS)
        for labels, found in labelled:
            live.add_metric(labels, found.connections)
        yield live
        for attribute, name, words in _TOTALS:
            family = CounterMetricFamily(name, words, labels=_LABELS)
            for labels, found in labelled:
                family.add_metric(labels, getattr(found, attribute))
            yield family
        latency = HistogramMetricFamily(
            "dualcast_delivery_latency_seconds",
            "From publication to the write to the session",
            labels=_LABELS,
        )
        for labels, found in labelled:
            latency.add_metric(labels, _buckets(found), found.latency_sum_ms / 1000)
        yield latency

    def _publishing(self) -> Iterator[Metric]:
        published = CounterMetricFamily("dualcast_published", "Accepted publications", labels=("tenant",))
        for tenant, count in list(self._counters.published.items()):
            published.add_metric((tenant,), count)
        yield published
        failed = CounterMetricFamily(
            "dualcast_publish_failures", "Refused publications", labels=("tenant", "code")
        )
        for labels, count in list(self._counters.publish_failed.items()):
            failed.add_metric(labels, count)
        yield failed

    def _migration(self) -> Iterator[Metric]:
        if self._stages is None:
            return
        stage = GaugeMetricFamily(
            "dualcast_tenant_stage", "1: the stage the tenant is in", labels=("tenant", "stage")
        )
        percent = GaugeMetricFamily(
            "dualcast_tenant_cohort_percent",
            "Percent of the tenant's users in its stage; the others are in the one before",
            labels=("tenant",),
        )
        # Tenants beyond the bound are left out: their stages cannot be added up as `_other`.
        for tenant, name, share in islice(self._stages(), MAX_TENANT_LABELS):
            stage.add_metric((tenant, name), 1)
            percent.add_metric((tenant,), share)
        yield stage
        yield percent

    def _process(self) -> Iterator[Metric]:
        info = GaugeMetricFamily("dualcast_build_info", "Constant 1", labels=("version", "python"))
        info.add_metric((self._version, sys.version.split()[0]), 1)
        yield info
        usage = resource.getrusage(resource.RUSAGE_SELF)
        cpu = CounterMetricFamily("process_cpu_seconds", "User and system CPU time")
        cpu.add_metric((), usage.ru_utime + usage.ru_stime)
        yield cpu
        yield GaugeMetricFamily("process_start_time_seconds", "Unix time of the start", value=self._started)
        memory = _resident_bytes()
        if memory is not None:
            yield GaugeMetricFamily("process_resident_memory_bytes", "Resident memory", value=memory)
        if self._loop_lag is not None:
            yield GaugeMetricFamily(
                "dualcast_loop_lag_seconds",
                "Worst delay of the event loop since the last scrape",
                value=self._loop_lag.take(),
            )


class Metrics:
    """Renders one node's numbers; calling it gives the text."""

    def __init__(self, collector: DualcastCollector) -> None:
        self._registry = CollectorRegistry(auto_describe=False)
        self._registry.register(collector)

    def __call__(self) -> bytes:
        """Prometheus text exposition format 0.0.4."""
        return generate_latest(self._registry)


def _plain(name: str, value: float, growing: bool) -> Metric:
    words = name.removeprefix("dualcast_").replace("_", " ")
    if not growing:
        return GaugeMetricFamily(name, words, value=value)
    family = CounterMetricFamily(name, words)
    family.add_metric((), value)
    return family


def _buckets(counters: DeliveryCounters) -> list[tuple[str, float]]:
    total = 0
    buckets: list[tuple[str, float]] = []
    for bound, count in zip(LATENCY_BOUNDS_MS, counters.latency_buckets, strict=False):
        total += count
        buckets.append((str(bound / 1000), total))
    buckets.append(("+Inf", total + counters.latency_buckets[-1]))
    return buckets


def _resident_bytes() -> int | None:
    try:
        with open("/proc/self/statm", encoding="ascii") as file:
            return int(file.read().split()[1]) * resource.getpagesize()
    except (OSError, ValueError, IndexError):
        return None  # no /proc here
