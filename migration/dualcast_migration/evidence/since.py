"""Since when a tenant is in its stage."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

from msgspec import Struct

from dualcast_migration.guard import BUCKET_S, SETTLE_S, counted_from
from dualcast_migration.policy import StageRecord

_PAGES = 5


class Page(Protocol):
    """`tenancy.stages.AuditPage`."""

    @property
    def entries(self) -> Sequence[Any]: ...

    @property
    def next(self) -> int: ...


class History(Protocol):
    """`tenancy.stages.StageControl`."""

    async def history(self, tenant: str, *, before: int = 0, limit: int = 50) -> Page: ...


class Since(Struct, frozen=True):
    """The last change of a tenant's stage or cohort."""

    at_s: float = 0.0
    """Unix time; 0: never."""
    back: bool = False
    """To an earlier stage, or to fewer users."""
    after_s: float = 0.0
    """Unix time until which figures may be those of the stage that a step back shortly before has left: who
    undoes it at once must not be sent back for the same trouble."""

    @property
    def counted_s(self) -> float:
        """Unix time from which on figures belong to it."""
        return max(counted_from(self.at_s, back=self.back), self.after_s)


async def staged_since(stages: History, tenant: str) -> Since:
    """When the tenant came where it is. Other changes (budgets, schedule) do not count, unless hundreds of
    them came since: then the oldest looked at. Raises BusUnavailable and NotFound (no such tenant)."""
    before, oldest = 0, 0.0
    last: Since | None = None
    for _ in range(_PAGES):
        page = await stages.history(tenant, before=before)
        for entry in page.entries:
            oldest = entry.at_ms / 1000
            if last is not None and oldest <= last.at_s - BUCKET_S - SETTLE_S:
                return last
            old, new = entry.before, entry.after
            if old is None:
                return last or Since(oldest)
            if (old.stage, old.cohort) != (new.stage, new.cohort):
                back = _reach(new) < _reach(old)
                if last is None:
                    last = Since(oldest, back)
                elif back:
                    return Since(last.at_s, last.back, counted_from(oldest, back=True))
        before = page.next
        if not before:
            return last or Since()
    return last or Since(oldest)


def _reach(record: StageRecord) -> tuple[int, float]:
    return record.stage.rank, record.cohort.percent
