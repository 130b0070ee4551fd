"""The requirement checklist (docs/contracts/checklist.md): ids, tags, and what the tests cover of it."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable
from pathlib import Path

FILE = Path(__file__).parents[2] / "docs" / "contracts" / "checklist.md"
_LINE = re.compile(r"^(S\d+\.\d+) .*\[(\w+)\]$")


def requirements() -> dict[str, str]:
    """Id → tag (`server`, `test`, `client`, `ops`, `docs`, `future`)."""
    lines = FILE.read_text(encoding="utf-8").splitlines()
    return {match[1]: match[2] for line in lines if (match := _LINE.match(line))}


def report(covered: Iterable[str]) -> list[str]:
    """One line per tag: how many ids of it are covered."""
    known = requirements()
    seen = set(covered)
    by_tag: dict[str, list[str]] = defaultdict(list)
    for ident, tag in known.items():
        by_tag[tag].append(ident)
    return [
        f"[{tag}] {sum(ident in seen for ident in ids)} of {len(ids)} covered" for tag, ids in by_tag.items()
    ]
