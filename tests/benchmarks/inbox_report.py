"""The inbox's part of the report."""

from __future__ import annotations

from benchmarks.tables import Results, number, summary, table

ADDED = 0.3
"""Share of server CPU that storing may add to a publish."""
FLAT = 1.25
"""Reading one of 10,000 items may cost this much of reading one of 100: about the same, with the noise."""


def tables(results: Results) -> list[str]:
    """What storing adds, and what reading costs by the size of the inbox."""
    added, reads = [], []
    for name, repeats in results.items():
        figures = summary(repeats)
        if name.startswith("inbox publish"):
            added.append(
                (
                    name.replace("/", ": "),
                    *(number(figures[f"{kind}_server_us"], 1) for kind in ("plain", "stored")),
                    f"{figures['added']:+.1%}",
                    *(number(figures[f"{kind}_redis_us"], 1) for kind in ("plain", "stored")),
                )
            )
        elif name.startswith("inbox read"):
            sizes = sorted(int(key.split("_")[1]) for key in figures if key.startswith("list_1"))
            for size in dict.fromkeys(sizes):
                row = [f"{name.replace('/', ': ')}, {size:,} items"]
                for call in ("list", "count"):
                    row += [number(figures[f"{call}_{size}_{side}_us"], 1) for side in ("server", "redis")]
                reads.append(row)
    lines: list[str] = []
    if added:
        head = ("scenario, contender", "server µs, not stored", "server µs, stored", "inbox append adds")
        lines += ["", *table((*head, "Redis µs, not stored", "Redis µs, stored"), added)]
    if reads:
        head = ("scenario, contender", "page of 50: server µs", "Redis µs", "counters: server µs")
        lines += ["", *table((*head, "counters: Redis µs"), reads)]
    return lines


def targets(results: Results) -> list[tuple[str, str, str, bool]]:
    """(what, measured, target, passed) of what was measured."""
    found = []
    for name, repeats in results.items():
        figures = summary(repeats)
        if name.startswith("inbox publish"):
            what = name.partition("/")[0].replace("inbox publish", "inbox append adds to a publish,")
            passed = figures["added"] <= ADDED
            found.append((what + ": server CPU", f"{figures['added']:+.1%}", f"≤ {ADDED:.0%}", passed))
        elif name.startswith("inbox read"):
            for call, what in (("list", "page of 50"), ("count", "counters")):
                ratio = figures[f"{call}_ratio"]
                text = f"inbox of 10,000 against 100, {what}: CPU of server and Redis"
                found.append((text, f"{ratio:.2f} x", f"≤ {FLAT:g} x", ratio <= FLAT))
    return found
