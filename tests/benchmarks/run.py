"""`python tests/benchmarks/run.py`: measures all contenders in one run and writes docs/benchmarks.md.

Repeats go round all cells before any cell has its next turn, so that a noisy minute hits every contender.
"""

from __future__ import annotations

import argparse
import json
import shutil
import sys
import tempfile
import time
from datetime import date
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "tests"))

from benchmarks import machine, plan, report  # noqa: E402
from benchmarks.contenders import Bench, Nchan  # noqa: E402
from benchmarks.load import compile_programs  # noqa: E402
from benchmarks.processes import BenchmarkFailed, RedisServer  # noqa: E402

DOCUMENT = ROOT / "docs" / "benchmarks.md"
RAW = ROOT / "docs" / "benchmarks.json"
MAX_RAW_BYTES = 256 * 1024


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="make bench", description=__doc__.partition("\n")[0] if __doc__ else None
    )
    parser.add_argument(
        "--quick", action="store_true", help="one repeat of 2-second windows; nothing is saved"
    )
    parser.add_argument("--repeats", type=int, help="of each cell (default 3)")
    parser.add_argument("--seconds", type=float, help="length of each window (default 5)")
    parser.add_argument(
        "--only", action="append", default=[], metavar="NAME", help="cells with NAME in their name"
    )
    parser.add_argument(
        "--through", choices=("node", "server"), default="node", help="where dualcast is published to"
    )
    parser.add_argument("--list", action="store_true", help="list the cells and stop")
    parser.add_argument("--save", action="store_true", help="save although it is not the whole default run")
    return parser.parse_args()


def measure(cell: plan.Cell, programs: Path) -> dict[str, Any]:
    """One cell with a Redis and a folder of its own."""
    server_cpus, load_cpus = machine.cpus()
    # World-readable: nginx started by root gives its workers away to the user it is told.
    with tempfile.TemporaryDirectory(prefix="dualcast-bench-") as name:
        folder = Path(name)
        for program in ("fan", "publish"):
            shutil.copy(programs / program, folder / program)
        redis = RedisServer(folder, load_cpus)
        try:
            return cell.measure(Bench(folder, server_cpus, load_cpus, redis))
        finally:
            redis.stop()


def run(cells: list[plan.Cell], repeats: int) -> tuple[dict[str, list[dict[str, Any]]], list[str]]:
    """(figures by cell name, what went wrong). A cell that fails is left out and does not stop the others."""
    results: dict[str, list[dict[str, Any]]] = {}
    failures: dict[str, str] = {}
    with tempfile.TemporaryDirectory(prefix="dualcast-bench-") as name:
        programs = Path(name)
        compile_programs(programs)
        for turn in range(repeats):
            for cell in cells:
                if cell.name in failures or (turn and not cell.repeats):
                    continue
                started = time.monotonic()
                try:
                    figures = measure(cell, programs)
                except BenchmarkFailed as error:
                    failures[cell.name] = str(error)
                    print(f"{cell.name}: FAILED\n{error}", file=sys.stderr, flush=True)
                    continue
                results.setdefault(cell.name, []).append(figures)
                print(
                    f"[{turn + 1}/{repeats}] {cell.name} ({time.monotonic() - started:.1f} s)",
                    file=sys.stderr,
                    flush=True,
                )
    order = [cell.name for cell in cells if cell.name in results]
    kept = {name: results[name] for name in order}
    return kept, [f"{name} failed: {text.splitlines()[0]}" for name, text in failures.items()]


def main() -> int:
    options = arguments()
    seconds = options.seconds or (2.0 if options.quick else 5.0)
    repeats = options.repeats or (1 if options.quick else 3)
    cells = plan.selected(
        plan.cells(seconds=seconds, through=options.through, quick=options.quick), options.only
    )
    if options.list:
        print("\n".join(cell.name for cell in cells))
        return 0
    if not cells:
        print("no cell has that name; --list shows them", file=sys.stderr)
        return 2
    started = time.monotonic()
    try:
        results, failures = run(cells, repeats)
    except BenchmarkFailed as error:
        print(error, file=sys.stderr)
        return 1
    notes = [
        f"date: {date.today().isoformat()}; the run took {time.monotonic() - started:.0f} s",
        f"{repeats} repeat(s) of {seconds:g} s windows; the median is shown, of losses the worst",
        *dict.fromkeys(f"{cell.contender.name}: {cell.contender.note}" for cell in cells),
        *failures,
    ]
    if not Nchan.available():
        notes.append("nchan is not installed here (Debian: nginx, libnginx-mod-nchan)")
    description = machine.describe(ROOT)
    print(report.document(results, description, notes))
    whole = not (options.quick or options.only or options.repeats or options.seconds)
    if results and (whole or options.save):
        DOCUMENT.write_text(report.document(results, description, notes), encoding="utf-8")
        raw = json.dumps({"machine": description, "notes": notes, "results": results}, indent=1)
        if len(raw) <= MAX_RAW_BYTES:
            RAW.write_text(raw + "\n", encoding="utf-8")
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
