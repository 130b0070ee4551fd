"""One node's tenants with what changes their stages, over a state store of any engine."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from dualcast.state.follow import StateFollower
from dualcast.state.port import StateStore
from dualcast.tenancy.model import Tenant
from dualcast.tenancy.stages import StageControl
from dualcast.tenancy.store import SharedTenants
from dualcast_migration.policy import StageRecord
from dualcast_migration.stage import Stage
from support.tokens import Clock

WHO = {"who": "default/root", "why": "a test"}


@dataclass
class Here:
    """One node."""

    store: StateStore
    clock: Clock
    follower: StateFollower
    tenants: SharedTenants
    control: StageControl

    @classmethod
    async def open(cls, store: StateStore, clock: Clock | None = None) -> Here:
        clock, follower = clock or Clock(), StateFollower(store)
        tenants = SharedTenants(store, follower)
        await follower.refresh()
        return cls(store, clock, follower, tenants, StageControl(tenants, clock))

    async def at(self, stage: Stage, **more: Any) -> int:
        """Tenant `acme` made in `stage`; gives its version."""
        return await self.tenants.put(Tenant(id="acme", stage=StageRecord(stage=stage, **more)))
