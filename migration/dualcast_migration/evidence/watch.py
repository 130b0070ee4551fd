"""The guard's loop: on every node, and of several that see the same trouble exactly one steps the tenant
back."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import NoReturn, Protocol

import structlog

from dualcast.model.errors import BusUnavailable, DualcastError
from dualcast_migration.figures import Window
from dualcast_migration.guard import Breach, judge, watches, window_s
from dualcast_migration.policy import StageRecord

from .port import EvidenceSettings, EvidenceStore

log = structlog.get_logger("dualcast.migration")
WHO = "guard"
_CALM_EVERY = 8
"""Tenants without anything suspicious are looked at every so many rounds, for the metrics."""


class StepBack(Protocol):
    """`tenancy.stages.StageControl.step_back`: compare and set. False: somebody else was faster."""

    async def __call__(self, tenant: str, *, who: str, why: str, now_s: float, hold_off_s: float) -> bool: ...


class Activity(Protocol):
    """Of `recorder.Recorder`."""

    active: dict[str, float]
    suspects: dict[str, float]


class Watch:
    """One per node. `record_of` never waits; `counted_from` gives the Unix time from which on a tenant's
    figures belong to its stage (0: always) and may raise DualcastError; `clock` Unix seconds; `monotonic`
    that of the recorder."""

    def __init__(
        self,
        store: EvidenceStore,
        activity: Activity,
        record_of: Callable[[str], StageRecord | None],
        counted_from: Callable[[str], Awaitable[float]],
        step_back: StepBack,
        settings: EvidenceSettings | None = None,
        *,
        clock: Callable[[], float] = time.time,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._store = store
        self._activity = activity
        self._record_of = record_of
        self._counted_from = counted_from
        self._step_back = step_back
        self._settings = settings or EvidenceSettings()
        self._clock = clock
        self._now = monotonic
        self._known: dict[str, tuple[StageRecord, float]] = {}
        self._round = 0
        self.windows: dict[str, Window] = {}
        """The last window of every tenant that was looked at lately."""
        self.breaches: dict[tuple[str, str], int] = {}
        """(tenant, budget) → how often this node stepped it back."""

    async def run(self) -> NoReturn:
        """Looks after the tenants this node has noted something of, for ever."""
        while True:
            await asyncio.sleep(self._settings.watch_s)
            await self.tick()

    async def tick(self) -> None:
        """One round."""
        self._round += 1
        calm = self._round % _CALM_EVERY == 0
        for tenant in list(self._activity.active if calm else self._activity.suspects):
            try:
                await self._look(tenant)
            except BusUnavailable:
                return  # the next round tries again
            except DualcastError as error:
                log.warning("the guard could not judge", tenant=tenant, code=error.code)
        for known in (self._known, self.windows):
            for tenant in [name for name in known if name not in self._activity.active]:
                del known[tenant]

    async def look(self, tenant: str) -> Breach | None:
        """Judges one tenant and acts; the breach when this node stepped it back. Raises BusUnavailable, and
        what `step_back` raises."""
        return await self._look(tenant)

    async def window(self, tenant: str, record: StageRecord) -> Window:
        """What the guard goes by now."""
        reach = window_s(record, await self.counted_s(tenant, record), self._clock())
        return await self._store.window(tenant, reach) if reach else Window(seconds=0)

    async def counted_s(self, tenant: str, record: StageRecord) -> float:
        """Unix time from which on figures belong to the present stage and cohort."""
        known = self._known.get(tenant)
        if known is not None and known[0] is record:  # a tenant that was changed, even there and back, is new
            return known[1]
        at = await self._counted_from(tenant)
        self._known[tenant] = (record, at)
        return at

    async def _look(self, tenant: str) -> Breach | None:
        record = self._record_of(tenant)
        if record is None or not watches(record):
            self.windows.pop(tenant, None)
            return None
        window = self.windows[tenant] = await self.window(tenant, record)
        now_s = self._clock()
        breach = judge(record, window, now_s)
        if breach is None:
            return None
        back = await self._step_back(
            tenant, who=WHO, why=breach.why, now_s=now_s, hold_off_s=record.budgets.hold_off_s
        )
        if not back:
            return None
        key = (tenant, breach.budget)
        self.breaches[key] = self.breaches.get(key, 0) + 1
        log.warning(
            "the guard stepped a tenant back",
            tenant=tenant,
            stage=str(record.stage),
            to=str(record.stage.previous),
            budget=breach.budget,
            figure=breach.figure,
            limit=breach.limit,
            samples=breach.samples,
        )
        return breach
