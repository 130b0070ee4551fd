"""The EventBus port. Every engine keeps these promises; `tests/contract/test_bus.py` proves them.

Order: offsets of one tenant are handed to the follower in ascending order, ephemeral entries in between at
the place they were published. A publication to k watched channels is k entries of equal offset. All callbacks
run on the event loop, are
synchronous and must not raise. Methods may be called concurrently.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from msgspec import Struct

from dualcast.model.cursor import Cursor
from dualcast.model.errors import DualcastError
from dualcast.model.publication import Draft, Entry, Gap, Page, Quota, Receipt

SKIP = 1 << 20
"""An engine that cannot rule out that a tail of its log is lost goes on at least so far above it. A cursor
from between
is answered with a gap by `read`; nothing but a read may answer it."""


class Health(Struct, frozen=True):
    """Result of a probe. Times in seconds; None: that leg failed."""

    ok: bool
    engine: str
    command_s: float | None = None
    """Round trip of a command."""
    echo_s: float | None = None
    """From publishing a probe to receiving it on the live path."""
    detail: str = ""
    """Which leg failed, in safe words."""


class Retention(Struct, frozen=True):
    """How much history a channel keeps, and how long things are remembered."""

    entries: int = 1000
    """Per channel."""
    seconds: int = 86_400
    idempotency_s: int = 300
    """How long ids and idempotency keys are remembered; at least 60."""


class Follower(Protocol):
    """What the hub gives the bus. Called on the event loop, must not raise."""

    def entries(self, tenant: str, batch: Sequence[Entry]) -> None:
        """Live entries of watched channels in offset order: everything one turn brought, as one batch.

        From the offset given to `watched` on, no entry of that channel is left out unless `gap` said so.
        """

    def watched(self, tenant: str, channel: str, epoch: str, offset: int) -> None:
        """`channel` is followed completely for every offset > `offset`."""

    def advanced(self, tenant: str, epoch: str, offset: int) -> None:
        """Proof that no watched channel of the tenant has anything undelivered up to `offset`.

        Also called right after `entries`, when the batch's last offset is complete (no further watched target
        of it can come): only then may that offset be given to a client as its position.
        """

    def gap(self, tenant: str, gap: Gap) -> None:
        """A hole in a watched channel that repair could not fill."""

    def epoch(self, tenant: str, epoch: str, offset: int) -> None:
        """The tenant's log was restored or lost: a new epoch begins above `offset`. Everybody must be
        told."""

    def status(self, available: bool) -> None:
        """The bus went away or came back (after repair). Called on changes only."""


class EventBus(Protocol):
    """See the module docstring. `start` is awaited once, before anything else; `close` ends every task and
    connection."""

    async def start(self, follower: Follower) -> None: ...

    async def close(self) -> None: ...

    async def append(self, draft: Draft, quota: Quota | None = None) -> Receipt:
        """Idempotency + offset + history + live publish in one atomic step.

        Returns after the entry is as durable as the engine promises. The same dedupe key (or id) within the
        idempotency window returns the first receipt with `duplicate=True` and publishes nothing. Raises
        IdempotencyConflict (other fingerprint), RateLimited (quota), TooManyTargets, BusUnavailable (unknown
        outcome: safe to repeat with the same id).
        """
        ...

    async def append_many(
        self, drafts: Sequence[Draft], quota: Quota | None = None
    ) -> list[Receipt | DualcastError]:
        """`append` for many drafts of one tenant, in order, a result per draft; errors are returned, not
        raised."""
        ...

    async def read(self, tenant: str, channels: Sequence[str], after: int, limit: int) -> Page:
        """One snapshot of the channels' history with offset > `after`, at most `limit` offsets.

        A page ends at the smallest last offset of any truncated channel. Gaps name the channels where
        something after `after` has been trimmed away. Expired entries are left out. Raises BusUnavailable.
        """
        ...

    async def head(self, tenant: str) -> Cursor:
        """The tenant's epoch and counter now (creates the epoch of a new tenant). Raises BusUnavailable."""
        ...

    async def known_epoch(self, tenant: str, epoch: str) -> bool:
        """Whether `epoch` is the tenant's current epoch or an earlier one whose offsets the current one
        continues above.

        A cursor of an earlier known epoch can be read on from, with a gap announced; one of an unknown epoch
        cannot.
        """
        ...

    def watch(self, tenant: str, channel: str) -> None:
        """Interest in a channel. Batched per loop turn; `Follower.watched` follows. Idempotent."""

    def unwatch(self, tenant: str, channel: str) -> None:
        """End of interest; entries may still come for a moment. Idempotent."""

    async def probe(self) -> Health:
        """Command round trip, live-path echo, and heads not ahead of what was delivered (else repair starts).
        Never raises."""
        ...

    def stats(self) -> dict[str, float]:
        """Plain numbers for metrics: connections, held bytes, repairs, appended, retries … Names are
        snake_case."""
        ...
