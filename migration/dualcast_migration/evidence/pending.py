"""What a node has noted of one tenant and not told yet: bounded, whatever clients do."""

from __future__ import annotations

from collections.abc import Callable

from dualcast_migration.census import MAX_ROWS, Row, rest_row
from dualcast_migration.sketch import ROW_SIZE, WINDOW_SIZE, Sketch

from .port import Batch, EvidenceSettings, RowChange


class Caps:
    """How often one user's events of a kind count in `span_s`. `clock`: seconds."""

    def __init__(self, settings: EvidenceSettings, clock: Callable[[], float], span_s: float) -> None:
        self._settings = settings
        self._clock = clock
        self._span_s = span_s
        self._counts: dict[str, int] = {}
        self._until = 0.0
        self.refused = 0
        """Events that were not counted."""

    def allow(self, mark: str, kind: str, limit: int) -> bool:
        """Whether one more counts."""
        if self._add(mark + kind, limit):
            return True
        self.refused += 1
        return False

    def first(self, mark: str, kind: str) -> bool:
        """Whether it is the first; not so for users beyond the bound."""
        return self._add(mark + kind, 1)

    def _add(self, name: str, limit: int) -> bool:
        now = self._clock()
        if now >= self._until:
            self._counts.clear()
            self._until = now + self._span_s
        count = self._counts.get(name, 0)
        if count >= limit or (not count and len(self._counts) >= self._settings.max_users):
            return False
        self._counts[name] = count + 1
        return True


class Pending:
    """Of one tenant."""

    def __init__(self) -> None:
        self.figures: dict[str, int] = {}
        self.users = Sketch(WINDOW_SIZE)
        self.troubled = Sketch(WINDOW_SIZE)
        self.mismatches: list[bytes] = []
        self._connects: dict[Row, tuple[int, Sketch]] = {}
        self._live: dict[Row, int] = {}
        self._rows: dict[Row, Row] = {}
        """Of the live connections: those of one kind share one."""
        self._reported = False
        """The store holds a report of live connections that are gone, perhaps."""

    def count(self, name: str, n: int = 1) -> None:
        if n:
            self.figures[name] = self.figures.get(name, 0) + n

    def knows(self, row: Row) -> bool:
        """Whether a connection of this kind is live, or came since the last time."""
        return row in self._live or row in self._connects

    def connected(self, row: Row, mark: str) -> Row:
        """The row it is counted in, which `left` wants to be told."""
        row = self._rows.setdefault(row, row)
        if row not in self._live and max(len(self._live), len(self._connects)) >= MAX_ROWS:
            del self._rows[row]
            row = rest_row(row)
            row = self._rows.setdefault(row, row)
        count, users = self._connects.get(row) or (0, Sketch(ROW_SIZE))
        users.add(mark)
        self._connects[row] = count + 1, users
        self._live[row] = self._live.get(row, 0) + 1
        return row

    def left(self, row: Row) -> None:
        count = self._live.get(row, 0) - 1
        if count > 0:
            self._live[row] = count
        else:
            self._live.pop(row, None)
            self._rows.pop(row, None)

    def nobody_left(self) -> None:
        """The node goes: none of its connections is live any more."""
        self._live.clear()

    @property
    def idle(self) -> bool:
        """Nothing is left to tell or to remember."""
        return not (self.figures or self._connects or self.mismatches or self._live or self._reported)

    def take(self, node: str, ident: str, lease_s: float, *, live: bool) -> Batch | None:
        """Everything noted since the last time, and with `live` the live connections; None: nothing."""
        told = live and (bool(self._live) or self._reported)
        if not (self.figures or self._connects or self.mismatches or told):
            return None
        batch = Batch(
            node=node,
            ident=ident,
            figures=self.figures,
            marks=tuple(self.users.marks),
            troubled=tuple(self.troubled.marks),
            rows=tuple(
                RowChange(row, count, tuple(users.marks)) for row, (count, users) in self._connects.items()
            ),
            live=dict(self._live) if told else None,
            lease_s=lease_s,
            mismatches=tuple(self.mismatches),
        )
        if told:
            self._reported = bool(self._live)
        self.figures, self.mismatches, self._connects = {}, [], {}
        self.users, self.troubled = Sketch(WINDOW_SIZE), Sketch(WINDOW_SIZE)
        return batch
