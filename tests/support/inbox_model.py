"""An inbox as a plain list, to compare engines with: every answer is counted anew."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

STATES = ("unseen", "seen", "read", "archived", "deleted")


@dataclass
class Item:
    id: str
    offset: int
    kind: str
    due: float
    wide: bool
    states: dict[str, int] = field(default_factory=dict)
    """By user."""


@dataclass
class InboxModel:
    """Of one tenant. `now`: seconds."""

    max_items: int
    max_age_s: float
    now: float
    personal: dict[str, list[Item]] = field(default_factory=dict)
    wide: list[Item] = field(default_factory=list)

    def add(self, users: Sequence[str], wide: bool, ident: str, kind: str, ttl_s: float, offset: int) -> None:
        self._purge()
        due = self.now + min(ttl_s or self.max_age_s, self.max_age_s)
        lists = [self.wide] if wide else [self.personal.setdefault(user, []) for user in users]
        for items in lists:
            if all(item.id != ident for item in items):
                items.append(Item(ident, offset, kind, due, wide))
                del items[: -self.max_items]

    def change(
        self, user: str, action: str, ids: Sequence[str] | None, states: Iterable[str] = ()
    ) -> tuple[set[str], set[str]]:
        """(Changed, unknown)."""
        mine = self.items(user)
        unknown = set(ids or ()) - {item.id for item in mine}
        changed = set()
        only = set(states)
        for item in mine:
            state = item.states.get(user, 0)
            if ids is None:
                if only and STATES[state] not in only:
                    continue
            elif item.id not in ids:
                continue
            new = (1 if state == 2 else state) if action == "unread" else max(state, STATES.index(action))
            if new != state:
                item.states[user] = new
                changed.add(item.id)
        if user in self.personal:
            self.personal[user] = [item for item in self.personal[user] if item.states.get(user, 0) < 4]
        return changed, unknown

    def withdraw(self, ident: str) -> bool:
        self._purge()
        before = len(self.wide)
        self.wide = [item for item in self.wide if item.id != ident]
        return len(self.wide) < before

    def items(self, user: str) -> list[Item]:
        """Newest first."""
        self._purge()
        found = [item for item in self.personal.get(user, []) + self.wide if item.states.get(user, 0) < 4]
        return sorted(found, key=lambda item: -item.offset)

    def listing(self, user: str, states: Iterable[str] = (), kinds: Iterable[str] = ()) -> list[str]:
        only, of_kinds = set(states), set(kinds)
        rows = [(item, STATES[item.states.get(user, 0)]) for item in self.items(user)]
        return [
            f"{item.id}:{state}"
            for item, state in rows
            if (not only or state in only) and (not of_kinds or item.kind in of_kinds)
        ]

    def counts(self, user: str) -> tuple[int, int]:
        """(Unread, unseen)."""
        states = [item.states.get(user, 0) for item in self.items(user)]
        return sum(state < 2 for state in states), sum(state < 1 for state in states)

    def kinds(self, user: str) -> dict[str, int]:
        return dict(Counter(item.kind for item in self.items(user) if item.states.get(user, 0) < 2))

    def _purge(self) -> None:
        self.wide = [item for item in self.wide if item.due > self.now]
        for user, items in self.personal.items():
            self.personal[user] = [item for item in items if item.due > self.now]
