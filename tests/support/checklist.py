"""The requirement checklist (docs/contracts/checklist.md) and the regressions R1 to R50 of the legacy
contracts: ids, tags, and what the tests cover of them."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable
from pathlib import Path

TESTS = Path(__file__).parents[1]
CONTRACTS = TESTS.parent / "docs" / "contracts"
FILE = CONTRACTS / "checklist.md"
_REGRESSION = re.compile(r"^\* (R\d+) \*\*", re.MULTILINE)
_COVERS = re.compile(r"mark\.covers\(([^)]*)\)")
_JS_NAME = re.compile(r"""^\s*test\(["'`]((?:[SR][\d.]+,? )+)""", re.MULTILINE)
"""Names of JavaScript tests begin with what they cover: `test("S1.7 S4.5 the socket …"`."""
_ID = re.compile(r"S\d+\.\d+|R\d+")
_LINE = re.compile(r"^(S\d+\.\d+) .*\[(\w+)\]$")


def requirements() -> dict[str, str]:
    """Id → tag (`server`, `test`, `client`, `ops`, `docs`, `future`, `regression`)."""
    lines = FILE.read_text(encoding="utf-8").splitlines()
    found = {match[1]: match[2] for line in lines if (match := _LINE.match(line))}
    wire = (CONTRACTS / "legacy-wire.md").read_text(encoding="utf-8")
    return found | dict.fromkeys(_REGRESSION.findall(wire), "regression")


def covered() -> set[str]:
    """Ids that some test names, read from the test files."""
    texts = (path.read_text(encoding="utf-8") for path in TESTS.rglob("test_*.py"))
    marks = (group for text in texts for group in _COVERS.findall(text))
    named = {ident for group in marks for ident in re.findall(r'"([^"]+)"', group)}
    names = (
        name
        for path in (TESTS / "clients").rglob("*.test.js")
        for name in _JS_NAME.findall(path.read_text(encoding="utf-8"))
    )
    return named | {ident for name in names for ident in _ID.findall(name)}


def uncovered(*tags: str) -> list[str]:
    """Ids of `tags` that no test names, in their order."""
    named = covered()
    return [ident for ident, tag in requirements().items() if tag in tags and ident not in named]


def report(covered: Iterable[str]) -> list[str]:
    """Per tag how many ids of it are covered, and which are not."""
    known = requirements()
    seen = set(covered)
    by_tag: dict[str, list[str]] = defaultdict(list)
    for ident, tag in known.items():
        by_tag[tag].append(ident)
    lines = []
    for tag, ids in by_tag.items():
        missing = [ident for ident in ids if ident not in seen]
        lines.append(f"[{tag}] {len(ids) - len(missing)} of {len(ids)} covered")
        if missing:
            lines.append("    not: " + " ".join(missing))
    return lines
