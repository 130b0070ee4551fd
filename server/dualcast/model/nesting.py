"""How deep a decoded JSON value nests."""

from __future__ import annotations

from typing import Any


def nests_deeper(value: Any, levels: int) -> bool:
    """Whether `value` has objects or arrays inside one another more than `levels` times; looked at level by
    level, so that no depth exhausts the stack."""
    level = [value]
    for _ in range(levels + 1):
        level = [
            inner
            for outer in level
            if isinstance(outer, dict | list)
            for inner in (outer.values() if isinstance(outer, dict) else outer)
        ]
        if not level:
            return False
    return True
