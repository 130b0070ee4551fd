"""The reading half of the sqlite engine: one page out of one snapshot. Synchronous, on a connection of
its own.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Iterator, Sequence

from dualcast.model.publication import Entry, Gap, Page, Publication

from .history import gap_of, merge_page
from .record import decode

_KEPT = "FROM links WHERE channel_no = ? AND offset > ? AND at_ms >= ? ORDER BY offset"
_Item = tuple[int, int, tuple[int, bytes | None]]


def read_page(
    db: sqlite3.Connection,
    epoch: str,
    tenant: str,
    channels: Sequence[str],
    after: int,
    limit: int,
    *,
    now_ms: int,
    keep_ms: int,
    max_bytes: int,
) -> Page:
    """A page as the port says, in the transaction that is open. Raises sqlite3.Error."""
    row = db.execute("SELECT no, top, floor FROM tenants WHERE name = ?", (tenant,)).fetchone()
    if row is None:
        return Page(epoch, 0, 0)
    tenant_no, top, floor = row
    names = list(dict.fromkeys(channels))
    gaps: list[Gap] = []
    runs: list[Iterable[_Item]] = []
    since_ms = now_ms - keep_ms
    for number, name in enumerate(names):
        found = db.execute(
            "SELECT no, head FROM channels WHERE tenant_no = ? AND name = ?", (tenant_no, name)
        ).fetchone()
        no, head = found or (0, None)
        oldest = prev = 0
        if head is not None and head > after:
            oldest, prev = db.execute(
                f"SELECT offset, prev {_KEPT} LIMIT 1",
                (no, -1, since_ms),
            ).fetchone() or (0, 0)
            if oldest:
                rows = db.execute(f"SELECT offset, prev, body {_KEPT}", (no, after, since_ms))
                runs.append(_numbered(rows, number))
        gap = gap_of(name, after, head=head, floor=floor, oldest=oldest, prev=prev)
        if gap is not None:
            gaps.append(gap)
    shared: dict[int, Publication] = {}

    def load(item: _Item) -> Entry:
        offset, number, (before, body) = item
        if body is not None:
            return Entry(decode(tenant, epoch, offset, body), names[number], before)
        publication = shared.get(offset)
        if publication is None:
            (body,) = db.execute(
                "SELECT body FROM bodies WHERE tenant_no = ? AND offset = ?", (tenant_no, offset)
            ).fetchone()
            publication = decode(tenant, epoch, offset, body)
            shared.clear()
            shared[offset] = publication
        return Entry(publication, names[number], before)

    return merge_page(epoch, top, limit, runs, gaps, load, now_ms=now_ms, max_bytes=max_bytes)


def _numbered(rows: Iterable[tuple[int, int, bytes | None]], number: int) -> Iterator[_Item]:
    for offset, prev, body in rows:
        yield offset, number, (prev, body)
