"""The room of tasks over every engine: a store, a bus to announce on, grants in memory."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import msgspec

from dualcast.bus.announcing import Announcer
from dualcast.bus.port import EventBus
from dualcast.bus.redis.engine import RedisBus
from dualcast.model.publication import Publication
from dualcast.state.follow import StateFollower
from dualcast.state.memory import MemoryState
from dualcast.tasks.port import TaskSettings, TaskStore
from dualcast.tasks.redis import RedisTasks, extension
from dualcast.tasks.service import TaskService
from dualcast.tasks.sql import SqlTasks
from dualcast.tasks.sql_rows import PART
from dualcast.tenancy.grants import Grants
from support.bus_engines import ENGINES
from support.rest_app import Deaf


@dataclass
class TaskRoom:
    """One node's service and what it stands on."""

    bus: EventBus
    store: TaskStore
    service: TaskService
    grants: Grants

    async def published(self, tenant: str, *channels: str) -> list[Publication]:
        """What was announced on these channels."""
        page = await self.bus.read(tenant, channels, 0, 10_000)
        return [entry.publication for entry in page.entries]

    async def states(self, tenant: str, channel: str) -> list[dict[str, Any]]:
        """The data of what was announced on a channel."""
        return [msgspec.json.decode(found.data) for found in await self.published(tenant, channel)]


@asynccontextmanager
async def task_room(
    engine: str,
    settings: TaskSettings | None = None,
    *,
    clock: Callable[[], float] | None = None,
    state: MemoryState | None = None,
) -> AsyncIterator[TaskRoom]:
    """A node over engine `memory`, `sqlite` or `redis` (one shared server: nodes over it are one cluster).
    `clock` is the embedded engines'; `state`: where grants are, for several nodes.
    """
    async with ENGINES[engine](parts=(PART,), extensions=(extension(),)) as bus:
        await bus.start(Deaf())
        state = state or MemoryState()
        await state.start()
        grants = Grants(state, StateFollower(state))
        store: TaskStore
        if isinstance(bus, RedisBus):
            store = RedisTasks(bus, settings)
        else:
            database: Any = bus
            store = SqlTasks(database.database, settings, **({"clock": clock} if clock else {}))
        yield TaskRoom(bus, store, TaskService(store, Announcer(bus), grants, settings), grants)
