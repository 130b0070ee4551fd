"""Prometheus text: one family per name, cumulative buckets, bounded labels."""

from __future__ import annotations

from prometheus_client.parser import text_string_to_metric_families

from dualcast.telemetry.counters import MAX_TENANT_LABELS, OTHER, Counters
from dualcast.telemetry.metrics import DualcastCollector, Metrics


def test_every_family_appears_once_and_parses() -> None:
    counters = Counters()
    counters.delivery("a", "ws").latency(0, 3)
    counters.delivery("a", "sse").opened += 2
    counters.rejected("a", "bad-type")
    render = Metrics(
        DualcastCollector(
            counters,
            bus_stats=lambda: {"available": 1, "appended": 5, "connections": 9},
            gauges=lambda: {"bus_available": 0, "sessions": 4},
        )
    )
    families = list(text_string_to_metric_families(render().decode()))
    names = [family.name for family in families]
    assert len(names) == len(set(names))
    samples = {(s.name, tuple(sorted(s.labels.items()))): s.value for f in families for s in f.samples}
    assert samples["dualcast_bus_available", ()] == 1
    assert samples["dualcast_bus_appended_total", ()] == 5
    assert samples["dualcast_sessions", ()] == 4
    opened = ("tenant", "a"), ("transport", "sse")
    assert samples["dualcast_connections_opened_total", opened] == 2
    buckets = [s for f in families for s in f.samples if s.name.endswith("latency_seconds_bucket")]
    ws = [s.value for s in buckets if s.labels["transport"] == "ws"]
    assert ws == sorted(ws) and ws[-1] == 3


def test_labels_are_bounded() -> None:
    counters = Counters()
    for number in range(MAX_TENANT_LABELS + 50):
        counters.accepted(f"t{number}")
    text = Metrics(DualcastCollector(counters))().decode()
    lines = [line for line in text.splitlines() if line.startswith("dualcast_published_total{")]
    assert len(lines) == MAX_TENANT_LABELS + 1
    assert f'dualcast_published_total{{tenant="{OTHER}"}} 50.0' in lines
