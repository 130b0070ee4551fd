"""Figures of repeats as one figure, and Markdown tables of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from statistics import median
from typing import Any

Results = Mapping[str, Sequence[Mapping[str, Any]]]
"""Cell name → the figures of each repeat."""
WORST = {"lost", "gaps", "repeated", "disconnected", "behind", "load_busy"}
"""Of these the highest of all repeats counts, not the median."""


def summary(repeats: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """One figure per name: the median of the repeats, the worst where anything but the best is a defect."""
    merged: dict[str, Any] = {}
    for name in repeats[0]:
        values = [one[name] for one in repeats]
        if any(value is None for value in values):
            merged[name] = None
        else:
            merged[name] = max(values) if name.rpartition(": ")[2] in WORST else median(values)
    return merged


def number(value: float | None, digits: int = 0) -> str:
    return "" if value is None else f"{value:,.{digits}f}"


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    """The lines of a Markdown table, columns aligned."""
    widths = [max(len(row[column]) for row in (head, *rows)) for column in range(len(head))]
    lines = []
    for row in (head, *rows):
        cells = [
            text.ljust(width) if not index else text.rjust(width)
            for index, (text, width) in enumerate(zip(row, widths, strict=True))
        ]
        lines.append("| " + " | ".join(cells) + " |")
    rule = ["-" * widths[0], *("-" * (width - 1) + ":" for width in widths[1:])]
    return [lines[0], "| " + " | ".join(rule) + " |", *lines[1:]]
