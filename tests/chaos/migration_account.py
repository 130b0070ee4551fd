"""The account of the migration drill: every accepted publication, every client it is due to, and when it
came.

A client drops equal ids, so a copy it has is counted as *twice on the wire*; a publication that reaches it
under a second id would be a *duplicate after id*.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from support.accounting import Changes

ALL = "all"


class Reader(Protocol):
    """A client, as far as its account goes."""

    name: str
    kind: str
    user: str
    got: set[int]
    """Numbers of what came."""


@dataclass(slots=True)
class Publication:
    """One that was sent to the server; `accepted_at` (monotonic) 0 until the server has taken it."""

    number: int
    user: str
    """"": to everybody."""
    step: Row
    accepted_at: float = 0.0
    left: int = 0
    """Clients that still wait for it."""


@dataclass(kw_only=True)
class Row:
    """One step."""

    name: str
    published: int = 0
    due: int = 0
    received: int = 0
    doubled: int = 0
    """After id."""
    twice: int = 0
    """On the wire."""
    strangers: int = 0
    """Copies of what was for somebody else."""
    silences: dict[str, tuple[float, str]] = field(default_factory=dict)
    """Kind of client → longest time from acceptance to arrival in seconds, and whose."""
    muted: int = -1
    covered: int = 0
    """Streams that had to be muted at the end."""
    moved: int = 0
    seconds: float = 0.0
    notes: list[str] = field(default_factory=list)
    wrong: list[str] = field(default_factory=list)

    @property
    def missing(self) -> int:
        return self.due - self.received

    def silence_s(self, kind: str) -> float:
        return self.silences.get(kind, (0.0, ""))[0]


class Ledger:
    """All publications and arrivals of a run."""

    def __init__(self, changes: Changes) -> None:
        self.changes = changes
        self.rows: list[Row] = []
        self.readers: list[Reader] = []
        self.waiting: dict[int, Publication] = {}
        """Published, and not with everybody yet."""
        self.all: dict[int, Publication] = {}
        self.missed: Counter[str] = Counter()
        """Kind of client → publications it never got."""
        self._audience: Counter[str] = Counter()

    def join(self, reader: Reader) -> None:
        """From now on everything published is due to it."""
        self.readers.append(reader)
        self._audience[ALL] += 1
        self._audience["user:" + reader.user] += 1

    def step(self, name: str) -> Row:
        """Begins a step."""
        self.rows.append(Row(name=name))
        return self.rows[-1]

    def sent(self, number: int, user: str) -> None:
        """About to be published, to a user or (`""`) to everybody."""
        row = self.rows[-1]
        due = self._audience["user:" + user if user else ALL]
        publication = Publication(number, user, row, left=due)
        row.due += due
        self.all[number] = publication
        if due:
            self.waiting[number] = publication

    def accepted(self, number: int) -> None:
        """The server has taken it."""
        publication = self.all[number]
        publication.accepted_at = time.monotonic()
        publication.step.published += 1
        self.changes.note()

    def came(self, reader: Reader, ident: str, title: str) -> None:
        """A copy came to a client."""
        number = int(title[1:])
        publication = self.all[number]
        if publication.user not in ("", reader.user):
            publication.step.strangers += 1
        elif ident != id_of(number):
            publication.step.doubled += 1
        elif number in reader.got:
            publication.step.twice += 1
        else:
            reader.got.add(number)
            self._first(reader, publication)

    def _first(self, reader: Reader, publication: Publication) -> None:
        row = publication.step
        row.received += 1
        if publication.accepted_at:
            took_s = time.monotonic() - publication.accepted_at
            if took_s > row.silence_s(reader.kind):
                row.silences[reader.kind] = (took_s, reader.name)
        publication.left -= 1
        if not publication.left:
            del self.waiting[publication.number]
            if not self.waiting:
                self.changes.note()

    def close(self) -> None:
        """Says whose each missing one is."""
        for publication in self.waiting.values():
            for reader in self.readers:
                if publication.user in ("", reader.user) and publication.number not in reader.got:
                    self.missed[reader.kind] += 1
                    if len(publication.step.wrong) < 5:
                        publication.step.wrong.append(f"{reader.name} has not got {publication.number}")

    @property
    def faults(self) -> list[str]:
        """What must not be: "" when all is well."""
        found = []
        for row in self.rows:
            counts = {
                "missing": row.missing,
                "duplicates after id": row.doubled,
                "for somebody else": row.strangers,
            }
            found += [f"{row.name}: {count} {what}" for what, count in counts.items() if count]
            found += [f"{row.name}: {text}" for text in row.wrong]
        return found


def id_of(number: int) -> str:
    """The id a publication is published with."""
    return f"drill-{number:07d}"


def title_of(number: int) -> str:
    """Its title: what it *is*, whatever id it comes with."""
    return f"n{number}"


def table(rows: Sequence[Row], kinds: Iterable[str]) -> str:
    """One line per step, and the sum. `kinds`: of clients whose longest silence has a column."""
    names = list(kinds)
    head = ["step", "published", "due", "received", "missing", "dup after id", "twice on wire", "share"]
    head += ["muted", "moved", *(f"silence {name}" for name in names), "took"]
    lines = [head]
    for row in rows:
        muted = f"{row.muted}/{row.covered}" if row.muted >= 0 else "-"
        lines.append(
            [*_counts(row), muted, str(row.moved)]
            + [f"{row.silence_s(name):.1f} s" for name in names]
            + [f"{row.seconds:.0f} s"]
        )
    total = Row(name="all")
    for row in rows:
        total.published += row.published
        total.due += row.due
        total.received += row.received
        total.doubled += row.doubled
        total.twice += row.twice
        total.moved += row.moved
    longest = [f"{max((row.silence_s(name) for row in rows), default=0.0):.1f} s" for name in names]
    took = f"{sum(row.seconds for row in rows):.0f} s"
    lines.append([*_counts(total), "", str(total.moved), *longest, took])
    widths = [max(len(line[column]) for line in lines) for column in range(len(head))]
    text = [
        "  ".join(
            [line[0].ljust(widths[0]), *(word.rjust(w) for word, w in zip(line[1:], widths[1:], strict=True))]
        )
        for line in lines
    ]
    return "\n".join("  " + line for line in text)


def _counts(row: Row) -> list[str]:
    share = 100 * row.twice / row.received if row.received else 0.0
    counts = (row.published, row.due, row.received, row.missing, row.doubled, row.twice)
    return [row.name, *(f"{count:,}" for count in counts), f"{share:.1f} %"]
