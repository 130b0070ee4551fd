"""The EvidenceStore port, its values and the settings of the room."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

from msgspec import Struct

from dualcast_migration.census import Census, Row
from dualcast_migration.figures import Window

LEVELS = ((5, 600, True), (60, 3_900, True), (600, 3 * 86_400, False))
"""Widths of the buckets in seconds, how long they are kept, whether users are told apart in them."""
MAX_WINDOW_S = 3 * 86_400
MAX_MISMATCHES = 1_000
"""Kept per tenant, the newest."""
MAX_RECORD_BYTES = 4_096
"""Of one mismatch record."""
MISMATCH_S = 30 * 86_400
ROW_S = 30 * 86_400
"""A kind of client that was not seen for so long is forgotten."""
TAKEN_S = 600
"""How long a batch that was stored is known, so that it is not counted again."""


class EvidenceSettings(Struct, frozen=True, kw_only=True):
    """Clocks and bounds of a node's side. Times in seconds."""

    flush_s: float = 1.0
    """Between batches to the store."""
    live_s: float = 10.0
    """Between reports of the live connections."""
    lease_s: float = 30.0
    """A node that reports none is not counted any more."""
    watch_s: float = 2.0
    """Between looks of the guard."""
    retry_s: float = 2.0
    """After the store failed."""
    max_tenants: int = 5_000
    """With something to tell, at a time; what comes beyond is dropped and counted."""
    max_waiting_mismatches: int = 200
    """Of a tenant, between two batches."""
    max_opens_per_user: int = 10
    """Of one user within `per_user_s`, on a node, so many opens count, and so many good ends."""
    max_troubles_per_user: int = 3
    """So many failed opens, and so many abnormal ends: one client in a loop must not move a tenant."""
    max_kinds_per_user: int = 20
    """So many kinds of clients that are new to the node."""
    max_reports_per_user: int = 12
    """Of the comparisons a user's clients report."""
    max_kept_per_hour: int = 12
    """Of the mismatches a user's clients report: they must not push out what the server has found."""
    per_user_s: float = 60.0
    max_users: int = 100_000
    """Whose events are limited so; those beyond are not counted."""
    short_s: float = 5.0
    """A WebSocket that ends abnormally sooner has failed to open."""


class RowChange(Struct, frozen=True, array_like=True):
    """New connects of a kind of client."""

    row: Row
    connects: int
    marks: tuple[str, ...]
    """Their users (`sketch.mark`), at most `sketch.ROW_SIZE`."""


class Batch(Struct, frozen=True, kw_only=True):
    """What a node tells of one tenant. Everything in it is bounded."""

    node: str
    ident: str
    """Told twice, it is counted once."""
    figures: Mapping[str, int] = {}
    marks: tuple[str, ...] = ()
    """Users who opened a WebSocket (`sketch.mark`), at most `sketch.WINDOW_SIZE`."""
    troubled: tuple[str, ...] = ()
    """The same of users in trouble (`figures.Window.troubled`)."""
    rows: tuple[RowChange, ...] = ()
    live: Mapping[Row, int] | None = None
    """Live connections of this node; None: as it was."""
    lease_s: float = 30.0
    """How long `live` is believed."""
    mismatches: tuple[bytes, ...] = ()
    """Encoded records."""


class KeptMismatch(Struct, frozen=True):
    """A mismatch record as it was given, under a number that grows."""

    number: int
    record: bytes


class EvidenceStore(Protocol):
    """Evidence of tenants, over all nodes. The store's clock counts. All methods raise BusUnavailable."""

    async def record(self, tenant: str, batch: Batch) -> None:
        """Adds what a node noted. At most `census.MAX_ROWS` kinds of clients are kept, and of those that came
        with one user (the first of a new row's `marks` who has not so many) `census.MAX_ROWS_PER_USER`: what
        is beyond is counted in `census.rest_row`."""
        ...

    async def window(self, tenant: str, seconds: int) -> Window:
        """The sums of the last `seconds`, never of more; the beginning is that of a bucket (5 s wide up to
        300 s, 60 s up to 3,600 s, else 600 s, where users are not told apart)."""
        ...

    async def census(self, tenant: str) -> Census: ...

    async def mismatches(self, tenant: str, before: int, limit: int) -> list[KeptMismatch]:
        """Newest first, with numbers < `before` (0: from the newest on)."""
        ...


def level_of(seconds: int) -> tuple[int, int, bool]:
    """The level a window of `seconds` is summed up from."""
    if seconds <= 300:
        return LEVELS[0]
    return LEVELS[1] if seconds <= 3_600 else LEVELS[2]
