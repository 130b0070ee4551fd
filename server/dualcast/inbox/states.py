"""States of tenant-wide items for one user: watermarks, and marks where they do not hold."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import NamedTuple

from .port import DELETED, STATES, Action

NO_END = 1 << 62
READ = 2
SEEN = 1
NUMBER: Mapping[str, int] = {name: number for number, name in enumerate(STATES)}
TARGET: Mapping[Action, int] = {"seen": 1, "read": 2, "archived": 3, "deleted": 4}


class Watermarks(NamedTuple):
    """Items up to this offset are at least in that state, unless a mark says otherwise."""

    seen_to: int = 0
    read_to: int = 0
    archived_to: int = 0
    deleted_to: int = 0

    def state(self, offset: int) -> int:
        """The state of an item without a mark."""
        for number in (4, 3, 2, 1):
            if offset <= self[number - 1]:
                return number
        return 0

    def floor(self, state: int) -> int:
        """Items after this offset are, without a mark, below `state`."""
        return max(self[state - 1 :])

    def span(self, states: Iterable[int]) -> tuple[int, int]:
        """(Low, high): only items with low < offset ≤ high can be in one of `states` without a mark."""
        numbers = sorted(states)
        low = 0 if numbers[-1] == DELETED else self.floor(numbers[-1] + 1)
        return low, self.floor(numbers[0]) if numbers[0] else NO_END

    def after(self, action: Action, top: int) -> Watermarks:
        """When all items up to offset `top` were changed."""
        if action == "unread":
            return self._replace(seen_to=max(self.seen_to, self.read_to), read_to=0)
        raised = list(self)
        raised[TARGET[action] - 1] = max(raised[TARGET[action] - 1], top)
        return Watermarks(*raised)


def changed(action: Action, state: int) -> int:
    """The state of an item in `state` after `action`."""
    if action == "unread":
        return SEEN if state == READ else state
    return max(state, TARGET[action])


def marks(watermarks: Watermarks, states: Iterable[tuple[int, int]]) -> list[tuple[int, int]]:
    """Which (offset, state) of all need a mark."""
    return [(offset, state) for offset, state in states if watermarks.state(offset) != state]
