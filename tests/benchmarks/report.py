"""Figures in, Markdown out: medians, the table, the targets with pass or miss."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from benchmarks import dialects_report, fairness, inbox_report
from benchmarks.contenders import LegacyPattern, LitestarChannels, Nchan
from benchmarks.dualcast_node import Dualcast
from benchmarks.tables import Results, number, summary, table


def _ms(value: float | None) -> str:
    if value is None:
        return ""
    return f"{value:,.1f}" if value < 100 else f"{value:,.0f}"


def _loss(figures: Mapping[str, Any]) -> str:
    if "lost" not in figures:
        return ""
    parts = [f"{figures['lost']:,.0f}"]
    if figures.get("behind"):
        parts.append(f"{figures['behind'] / figures['expected']:.0%} still queued")
    if figures["repeated"]:
        parts.append(f"{figures['repeated']:,.0f} repeated")
    if figures["disconnected"]:
        parts.append(f"{figures['disconnected']:,.0f} cut off")
    return ", ".join(parts)


HEAD = (
    "scenario, contender",
    "deliveries per CPU-s",
    "deliveries/s",
    "p50 ms",
    "p99 ms",
    "lost",
    "server CPU",
    "load CPU",
    "RSS per connection",
    "handshakes per CPU-s",
    "Redis connections",
)


def main_table(results: Results) -> list[str]:
    """Every cell that has deliveries, connections or both."""
    rows = []
    for name, repeats in results.items():
        figures = summary(repeats)
        if name.startswith(("publish", "redis", "inbox", "dialects", "fairness")):
            continue
        rss = figures.get("rss_per_connection")
        found = figures.get("redis_connections")
        rows.append(
            (
                name.replace("/", ": "),
                number(figures.get("deliveries_per_cpu_s")),
                number(figures.get("deliveries_per_s")),
                _ms(figures.get("p50_ms")),
                _ms(figures.get("p99_ms")),
                _loss(figures),
                f"{figures['server_busy']:.0%}",
                f"{figures['load_busy']:.0%}",
                f"{rss / 1000:.1f} KB" if rss is not None else "",
                number(figures.get("handshakes_per_cpu_s")),
                number(found),
            )
        )
    return table(HEAD, rows) if rows else []


def other_lines(results: Results) -> list[str]:
    """One sentence per cell that does not fit the table."""
    lines = []
    for name, repeats in results.items():
        figures = summary(repeats)
        if name.startswith("publish"):
            lines.append(
                f"* {name}: {number(figures['published_per_cpu_s'])} per server CPU-second "
                f"({number(figures['published_per_s'])}/s), "
                f"{figures['redis_us_per_publication']:.1f} µs of Redis CPU each; "
                f"request p50 {_ms(figures['request_p50_ms'])} ms, p99 {_ms(figures['request_p99_ms'])} ms."
            )
        elif name.startswith("fairness"):
            lines.append(fairness.line(name, figures))
        elif name.startswith("recovery"):
            taken = figures["caught_up_s"]
            lines.append(
                f"* {name}: {number(figures['clients'])} clients × {number(figures['missed'])} missed, "
                "all caught up "
                + (f"after {taken:.2f} s" if taken is not None else "**not within 30 s**")
                + f" ({number(figures['server_cpu_s'], 2)} s of server CPU, handshakes included)."
            )
        elif name.startswith("redis"):
            lines.append(
                f"* {name}: {number(figures['at_few'])} Redis connections "
                f"at {number(figures['few'])} clients, {number(figures['at_many'])} "
                f"at {number(figures['many'])}, {number(figures['after'])} when they are gone."
            )
        elif "churn_per_cpu_s" in figures:
            lines.append(
                f"* {name}, each closed as soon as it is open: {number(figures['churn_per_cpu_s'])} "
                "handshakes per server CPU-second."
            )
    return lines


def targets(results: Results) -> list[tuple[str, str, str, bool]]:
    """(what, measured, target, passed) for every target whose cells were measured."""
    found: list[tuple[str, str, str, bool]] = []
    sums = {name: summary(repeats) for name, repeats in results.items()}

    def figure(cell: str, name: str) -> float | None:
        value = sums.get(cell, {}).get(name)
        return None if value is None else float(value)

    def ratio(what: str, above: float | None, below: float | None, wanted: float) -> None:
        if above is not None and below:
            value = above / below
            found.append((what, f"{value:.2f} x", f"≥ {wanted:g} x", value >= wanted))

    def at_least(what: str, value: float | None, wanted: float) -> None:
        if value is not None:
            found.append((what, number(value), f"≥ {wanted:,.0f}", value >= wanted))

    def below(what: str, value: float | None, wanted: float, unit: str) -> None:
        if value is not None:
            found.append((what, f"{value:,.2f} {unit}", f"< {wanted:g} {unit}", value < wanted))

    per_cpu = "deliveries_per_cpu_s"
    for each in ("sse", "ws"):
        own = figure(f"fan-out/{Dualcast.name} {each}", per_cpu)
        name = each.upper()
        for peer, wanted, transport in (
            (LitestarChannels.name, 4, each),
            (LegacyPattern.name, 10, "sse"),
            (Nchan.name, 1.2, each),
        ):
            kept_up = figure(f"sustained/{peer} {transport}", per_cpu)
            same = figure(f"fan-out/{peer} {transport}", per_cpu)
            if kept_up is None:
                ratio(f"fan-out {name}: against {peer}", own, same, wanted)
            else:
                ratio(f"fan-out {name}: against {peer} at a rate it keeps up with", own, kept_up, wanted)
                ratio(f"fan-out {name}: against {peer} overloaded by the same rate", own, same, wanted)
        ratio(
            f"mixed {name}: share of the one-channel figure",
            figure(f"mixed/{Dualcast.name} {each}", per_cpu),
            own,
            0.9,
        )
        for scenario in ("burst", "burst mixed"):
            cell = f"{scenario}/{Dualcast.name} {each}"
            at_least(
                f"{scenario} {name}: deliveries/s on one core", figure(cell, "deliveries_per_s"), 900_000
            )
            below(f"{scenario} {name}: p99", figure(cell, "p99_ms"), 60, "ms")
        cell = f"connect/{Dualcast.name} {each}"
        rss = figure(cell, "rss_per_connection")
        below(f"idle memory {name}: RSS per connection", None if rss is None else rss / 1000, 4, "KB")
        wanted = 4_000 if each == "ws" else 3_000
        at_least(
            f"connect storm {name}: handshakes per core-second", figure(cell, "handshakes_per_cpu_s"), wanted
        )
        below(
            f"recovery storm {name}: all caught up",
            figure(f"recovery/{Dualcast.name} {each}", "caught_up_s"),
            5,
            "s",
        )
    for kind, wanted in (("single", 8_000), ("batch", 60_000)):
        value = figure(f"publish {kind}/{Dualcast.name} rest", "published_per_cpu_s")
        at_least(f"REST publish {kind}: per server CPU-second", value, wanted)
    for each in ("sse", "ws"):
        value = figure(f"fairness/{Dualcast.name} rest", f"flood_{each}_p99_ms")
        below(f"{each.upper()} p99 under another tenant's flood", value, fairness.P99_MS, "ms")
    found += inbox_report.targets(results)
    found += dialects_report.targets(results)
    for each in ("sse", "ws"):
        few, many = (figure(f"redis/{Dualcast.name} {each}", name) for name in ("at_few", "at_many"))
        if few is not None and many is not None:
            shown = f"{few:.0f} and {many:.0f}"
            passed = few == many and many <= 12
            found.append(
                (f"Redis connections {each.upper()}: at 10 and 9,000 clients", shown, "equal, ≤ 12", passed)
            )
    for cell, figures in sums.items():
        if Dualcast.name in cell and "lost" in figures:
            wrong = sum(figures[name] for name in ("lost", "repeated", "disconnected")) + figures.get(
                "behind", 0
            )
            found.append((f"nothing lost, repeated or cut off: {cell}", number(wrong), "0", wrong == 0))
    return found


def target_table(results: Results) -> list[str]:
    rows = [(what, got, wanted, "pass" if ok else "**miss**") for what, got, wanted, ok in targets(results)]
    return table(("target", "measured", "wanted", ""), rows) if rows else []


EXPLANATION = """
The server under test has one CPU of its own; Redis, subscribers, publishers and dualcast's second node
share the others. CPU is the server processes' user and system time between two marks in the steady state;
`server CPU` and `load CPU` say how busy each side was (a full load side limits deliveries/s, and lets
publications arrive in clumps that leave in one write: read deliveries per CPU-second together with the
latency). Payload 200 bytes, 1,000 subscribers; every subscriber of dualcast is a user with a token of its
own. Latency runs from the moment a publication was due to its arrival at the subscriber, over all
deliveries. Loss is exact: publications acknowledged × subscribers, against the sequence numbers received.
Redis connections include the second node's.

* **fan-out**: 100 publications/s to all. This overloads the baselines: messages queue up in the server, one
  write then carries many of them, and deliveries per CPU-second rise together with the latency.
  **sustained** is the same load at a rate the baseline keeps up with (legacy pattern 5/s, Litestar channels
  20/s). Targets are shown against both.
* **mixed**: the same and 1,000/s to single users. **burst**: 1,000/s to all. **burst mixed**: 1,000/s to
  all and 1,000/s to single users. Single users and bursts are published in NDJSON batches, one every 5 ms,
  as notifications with about 290 bytes of JSON instead of 200.
* **dialects**: the load of fan-out over each legacy contract, all in turns of one server, the native protocol
  first and last: a notification to all (notifications, rooms, topics), a message to one room or topic that
  everybody joined, and, where clients share no channel, 1,000 connections of one user: a direct message
  (conversations), a progress frame (progress). Frames are about as long as the native ones.
  `per write` above 1 means that the busy load side made publications come in clumps, which flatters whoever
  has more of them; `writes: of native` shows the same comparison without that.
* **connect**: all connections opened at once on a warm server, then idle; dualcast with a full
  authenticated handshake and a cold token cache, the others without authentication. RSS is the growth of
  the server's resident memory per connection; kernel buffers are not in it.
* **recovery**: everybody comes back at once with a cursor 100 publications old; time from the first connect
  to the last message.
* **publish**: through the server under test, no subscribers, to 1,000 single users in turn; batches of 100.
* **fairness**: one tenant publishes 50/s to a user with a stream and a socket, alone and then while another
  tenant posts batches of 1,000 inbox notifications over 32 connections, each as soon as the last is answered.
* **inbox publish**: notifications to 1,000 single users, half of them with `store: false`, in turns of one
  server. **inbox read**: one user each with 100, 1,000 and 10,000 items, in turn: a page of 50, the counters.
"""


def document(results: Results, machine: Mapping[str, str], notes: Sequence[str]) -> str:
    """The whole of docs/benchmarks.md."""
    lines = ["# Benchmarks", "", "Written by `make bench`; do not edit.", ""]
    lines += [f"* {name}: {text}" for name, text in machine.items()]
    lines += [f"* {note}" for note in notes]
    lines += [
        "",
        "## Results",
        "",
        *main_table(results),
        "",
        *other_lines(results),
        *inbox_report.tables(results),
        *dialects_report.tables(results),
    ]
    lines += [
        "",
        "## Targets",
        "",
        *target_table(results),
        "",
        "## How it is measured",
        EXPLANATION.strip(),
        "",
    ]
    return "\n".join(lines)
