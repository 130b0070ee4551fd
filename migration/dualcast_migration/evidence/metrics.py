"""What the guard sees, for `/metrics`. Families are made from plain numbers when scraped."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric

from dualcast_migration.figures import percentile_ms

from .watch import Watch

_FIGURES = (
    ("dualcast_guard_websocket_opens", "Attempts to open a WebSocket in the guard's window", "attempts"),
    ("dualcast_guard_websocket_open_failures", "Of the attempts, those that failed", "failed"),
    ("dualcast_guard_websocket_closes", "WebSockets that ended in the guard's window", "ws_closed"),
    ("dualcast_guard_abnormal_closes", "Of the WebSockets that ended, those abnormally", "ws_abnormal"),
    ("dualcast_guard_reconnects", "WebSocket reconnects in the guard's window", "ws_reconnects"),
    ("dualcast_guard_users", "Users who opened a WebSocket in the guard's window, about", "users"),
    ("dualcast_guard_parity_compared", "Publications compared in the guard's window", "compared"),
    ("dualcast_guard_parity_mismatches", "Of the compared, those that did not match", "mismatched"),
    ("dualcast_guard_sse_opens", "Streams opened in the guard's window", "sse_opened"),
)


def guard_families(watch: Watch, label: Callable[[str], str]) -> Iterator[Metric]:
    """Figures of the tenants this node looks after, over all nodes; `label`: the bounded label of a
    tenant."""
    # Tenants beyond the bound share a label, which one sample must not have twice: their sums say nothing.
    named = {label(tenant): window for tenant, window in list(watch.windows.items())}
    for name, words, attribute in _FIGURES:
        family = GaugeMetricFamily(name, words, labels=("tenant",))
        for tenant, window in named.items():
            family.add_metric((tenant,), getattr(window, attribute))
        yield family
    lag = GaugeMetricFamily(
        "dualcast_guard_lag_p99_seconds",
        "99th percentile of the lag of deliveries in the guard's window",
        labels=("tenant", "transport"),
    )
    for tenant, window in named.items():
        for transport, buckets in (("ws", window.ws_lag), ("sse", window.sse_lag)):
            lag.add_metric((tenant, transport), percentile_ms(buckets, 0.99) / 1000)
    yield lag
    breaches = CounterMetricFamily(
        "dualcast_guard_steps_back", "Times this node stepped a tenant back", labels=("tenant", "budget")
    )
    counts: dict[tuple[str, str], int] = {}
    for (tenant, budget), count in list(watch.breaches.items()):
        key = (label(tenant), budget)
        counts[key] = counts.get(key, 0) + count
    for key, count in counts.items():
        breaches.add_metric(key, count)
    yield breaches
