"""Since when a tenant is in its stage."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

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


async def staged_since(stages: History, tenant: str) -> float:
    """Unix time of the last change of the tenant's stage or cohort; 0: never. Other changes (budgets,
    schedule) do not count, unless hundreds of them came since: then the oldest looked at. Raises
    BusUnavailable and NotFound (no such tenant)."""
    before, oldest = 0, 0.0
    for _ in range(_PAGES):
        page = await stages.history(tenant, before=before)
        for entry in page.entries:
            oldest = entry.at_ms / 1000
            old, new = entry.before, entry.after
            if old is None or (old.stage, old.cohort) != (new.stage, new.cohort):
                return float(oldest)
        before = page.next
        if not before:
            return 0.0
    return float(oldest)
