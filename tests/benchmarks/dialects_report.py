"""The legacy contracts' part of the report."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from benchmarks.dialects import NATIVE
from benchmarks.tables import Results, number, summary, table

SHARE = 0.85
"""Of the native figure."""
_HEAD = (
    "scenario, contract",
    "deliveries per CPU-s",
    "of native",
    "per write",
    "writes: of native",
    "deliveries/s",
    "p50 ms",
    "p99 ms",
    "bytes each",
    "lost",
    "server CPU",
)
_WRONG = ("lost", "behind", "repeated", "disconnected")


def _rows(results: Results) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """(`<contract> <transport>`, its figures)."""
    for cell, repeats in results.items():
        if not cell.startswith("dialects"):
            continue
        figures = summary(repeats)
        transport = cell.rpartition(" ")[2]
        for kind in dict.fromkeys(key.rpartition(": ")[0] for key in figures if ": " in key):
            mine = {key.rpartition(": ")[2]: figures[key] for key in figures if key.startswith(kind + ": ")}
            yield f"{kind} {transport}", mine


def tables(results: Results) -> list[str]:
    """One row per contract, the native protocol's for comparison."""
    rows = [
        (
            f"dialects: {name}",
            number(figures["deliveries_per_cpu_s"]),
            f"{figures['ratio']:.2f} x",
            number(figures["per_write"], 2),
            f"{figures['share']:.2f} x",
            number(figures["deliveries_per_s"]),
            number(figures["p50_ms"], 1),
            number(figures["p99_ms"], 1),
            number(figures["bytes_per_delivery"]),
            number(sum(figures[key] for key in _WRONG)),
            f"{figures['server_busy']:.0%}",
        )
        for name, figures in _rows(results)
    ]
    return ["", *table(_HEAD, rows)] if rows else []


def targets(results: Results) -> list[tuple[str, str, str, bool]]:
    """(what, measured, target, passed) of what was measured."""
    found = []
    for name, figures in _rows(results):
        if not name.startswith(NATIVE):
            ratio = figures["ratio"]
            what = f"dialect {name}: deliveries per server CPU-second, share of the native fan-out"
            found.append((what, f"{ratio:.2f} x", f"≥ {SHARE:g} x", ratio >= SHARE))
        wrong = sum(figures[key] for key in _WRONG)
        what = f"nothing lost, repeated or cut off: dialects, {name}"
        found.append((what, number(wrong), "0", wrong == 0))
    return found
