"""Moving tenants between stages at runtime: every change compared and set, audited and reversible.

A change is known on this node at once, on the others within the follower's interval.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Protocol

from msgspec import Struct
from msgspec.structs import replace

from dualcast.model.errors import DualcastError, NotFound
from dualcast.state.port import VersionConflict
from dualcast_migration.policy import StageRecord
from dualcast_migration.stage import Stage, check_move

from .audit import PAGE, Action, AuditEntry, LastChange, Note, check_why, entry_of
from .model import Tenant
from .store import Edit, Stored


class UnknownTenant(NotFound):
    """There is no such tenant, or it is none of the caller's business."""

    code = "unknown-tenant"

    def __init__(self) -> None:
        super().__init__("there is no such tenant")


class GuardHold(DualcastError):
    """The guard stepped the tenant back; going on waits until the hold-off is over, unless forced."""

    code = "guard-hold"
    status = 409


class SunsetPassed(DualcastError):
    """The change would end SSE for users at this very moment; it has to be forced."""

    code = "sunset-passed"
    status = 409


class NothingToRollBack(DualcastError):
    """The stage was never changed."""

    code = "nothing-to-roll-back"
    status = 409


class StageView(Struct, frozen=True):
    """A tenant's stage record and the version to expect when changing it."""

    tenant: str
    record: StageRecord
    version: int
    last: AuditEntry | None = None
    """The change that led here."""


class AuditPage(Struct, frozen=True):
    """`entries`: the newest first. `next`: the `before` of the next page, 0 when this is the last."""

    entries: list[AuditEntry]
    next: int


class AuditStore(Protocol):
    """The filed audit entries; `tenancy.audit.Audit` is it."""

    async def page(self, tenant: str, upto: int, limit: int) -> list[AuditEntry]: ...


class Tenants(Protocol):
    """What is needed of the tenant store; `tenancy.store.SharedTenants` is it."""

    def current(self, tenant_id: str) -> Tenant | None: ...

    async def stored(self, tenant_id: str) -> tuple[Stored, int] | None: ...

    async def change(
        self, tenant_id: str, edit: Edit, *, expected: int | None = None, note: Note | None = None
    ) -> tuple[Stored, int]: ...

    @property
    def audit(self) -> AuditStore: ...


class StageControl:
    """The one way to change a tenant's stage while the server runs.

    Every method raises UnknownTenant, and BusUnavailable when the state store is away. Those that change:
    BadReason (`why`), VersionConflict (`expected` is not the tenant's version any more), BadTenant (a record
    that is not acceptable). `clock`: Unix seconds.
    """

    def __init__(self, tenants: Tenants, clock: Callable[[], float] = time.time) -> None:
        self._tenants = tenants
        self._clock = clock

    async def read(self, tenant: str) -> StageView:
        """The stage as it is stored now."""
        stored, version = await self._stored(tenant)
        return _view(tenant, stored, version)

    async def change(
        self,
        tenant: str,
        record: StageRecord,
        *,
        who: str,
        why: str,
        expected: int | None = None,
        force: bool = False,
    ) -> StageView:
        """Replaces the record; its `held_until` is not the caller's to set and ignored.

        Raises IllegalMove (on by more than one stage), GuardHold (on while the guard holds) and SunsetPassed
        (the sunset of the new record is over already); `force` overrules the last two and ends the hold.
        """
        now_s = self._clock()

        def edit(stored: Stored) -> StageRecord:
            old = stored.tenant.stage
            check_move(old.stage, record.stage)
            return _admitted(old, record, now_s, force)

        return await self._edit(tenant, edit, self._note(who, why, "set"), expected)

    async def rollback(
        self, tenant: str, *, who: str, why: str, expected: int | None = None, force: bool = False
    ) -> StageView:
        """Back to what was before the last change, whatever stage that was: rolling back twice changes
        nothing. Raises NothingToRollBack; GuardHold when it leads on, SunsetPassed as `change`."""
        now_s = self._clock()

        def edit(stored: Stored) -> StageRecord:
            if stored.change is None or stored.change.before is None:
                raise NothingToRollBack("the stage of this tenant was never changed")
            return _admitted(stored.tenant.stage, stored.change.before, now_s, force)

        return await self._edit(tenant, edit, self._note(who, why, "rollback"), expected)

    async def step_back(self, tenant: str, *, who: str, why: str, now_s: float, hold_off_s: float) -> bool:
        """One stage back for everybody, and going on is refused until `hold_off_s` from now: for the guard.

        Of several nodes that call it for the same trouble one gets True. False: another one was faster, or
        the tenant is in the first stage already.
        """
        known = self._tenants.current(tenant)
        if known is None:
            raise UnknownTenant
        evidence_of = known.stage
        note = Note(who, check_why(why), round(now_s * 1000), "step-back")

        def edit(stored: Stored) -> StageRecord:
            old = stored.tenant.stage
            # What this node has not heard of yet is not what its figures are about.
            if old.stage is Stage.SSE or old != evidence_of or _just_stepped(stored.change, old, now_s):
                raise _Settled
            return replace(
                old,
                stage=old.stage.previous,
                cohort=StageRecord().cohort,
                held_until=max(old.held_until, int(now_s + hold_off_s)),
            )

        try:
            await self._edit(tenant, edit, note, None)
        except (_Settled, VersionConflict):
            return False
        return True

    async def history(self, tenant: str, *, before: int = 0, limit: int = 50) -> AuditPage:
        """Changes with numbers below `before` (0: all), the newest first, at most `limit` (1 to 100)."""
        stored, _ = await self._stored(tenant)
        last = stored.newest.number if stored.newest else 0
        upto = min(last, before - 1) if before else last
        if upto <= 0:
            return AuditPage([], 0)
        limit = max(1, min(limit, PAGE))
        entries = await self._tenants.audit.page(tenant, upto, limit)
        more = bool(entries) and entries[-1].number > 1 and len(entries) == limit
        return AuditPage(entries, entries[-1].number if more else 0)

    async def _stored(self, tenant: str) -> tuple[Stored, int]:
        found = await self._tenants.stored(tenant)
        if found is None:
            raise UnknownTenant
        return found

    async def _edit(
        self, tenant: str, edit: Callable[[Stored], StageRecord], note: Note, expected: int | None
    ) -> StageView:
        def whole(stored: Stored | None) -> Tenant:
            if stored is None:
                raise UnknownTenant
            return replace(stored.tenant, stage=edit(stored))

        stored, version = await self._tenants.change(tenant, whole, expected=expected, note=note)
        return _view(tenant, stored, version)

    def _note(self, who: str, why: str, action: Action) -> Note:
        return Note(who, check_why(why), round(self._clock() * 1000), action)


class _Settled(Exception):
    """There is nothing left to step back from."""


def _view(tenant: str, stored: Stored, version: int) -> StageView:
    record = stored.tenant.stage
    last = entry_of(stored.change, record, version) if stored.change else None
    return StageView(tenant, record, version, last)


def _admitted(old: StageRecord, new: StageRecord, now_s: float, force: bool) -> StageRecord:
    """`new` with the hold that is in force after the change. Raises GuardHold when it forbids the change,
    SunsetPassed when SSE would end for users whom it still serves."""
    ended = _over(old, now_s) and new.cohort.within(old.cohort)
    if not force and _over(new, now_s) and not ended:
        raise SunsetPassed("the sunset has passed: SSE would end now; choose a later one, or force it")
    holds = old.held_until > now_s
    if holds and force:
        holds = False
    elif holds and new.stage.rank > old.stage.rank:
        left_s = int(old.held_until - now_s) + 1
        raise GuardHold(f"the guard stepped back and holds the tenant for another {left_s} s")
    return replace(new, held_until=old.held_until if holds else 0)


def _over(record: StageRecord, now_s: float) -> bool:
    """Whether SSE has ended for the users in the cohort."""
    return record.stage is Stage.WEBSOCKET and 0 < record.sunset_at <= now_s


def _just_stepped(last: LastChange | None, record: StageRecord, now_s: float) -> bool:
    """Whether the guard stepped back so lately that what was measured is about the stage before."""
    return (
        last is not None
        and last.note.action == "step-back"
        and round(now_s * 1000) < last.note.at_ms + record.budgets.window_s * 1000
    )
