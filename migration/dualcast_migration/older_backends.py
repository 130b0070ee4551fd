"""Living next to older backends (contract sections 6.6 and 10), put together: what comes in, what goes out,
and one loop that owns it all.

One Redis connection more per process, whatever the number of clients.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Sequence
from typing import NoReturn, Protocol

from msgspec import Struct

from dualcast.bus.port import EventBus
from dualcast.bus.storage import Scripting
from dualcast.model.errors import BusUnavailable, DualcastError
from dualcast.presence.port import Batch, ConnectionFacts, PresenceStore

from .copies import CopyingBus, CopySettings, Outbox
from .ingest import Ingest, IngestSettings, Owner, Tasks
from .legacy_redis import INSTANCE, Hearing, OlderRedis
from .mirror import Mirror
from .older_presence import Announcements, OlderPresence
from .policy import MirrorMode
from .ws_copies import Arrivals, Deliveries, Devices, Frame

_log = logging.getLogger(__name__)


class OlderSettings(Struct, frozen=True, kw_only=True):
    """How to live next to older backends."""

    tenant: str = "default"
    """Whose the older names are (`legacy_tenant`)."""
    tidy_s: float = 10.0
    """The set `ws:online_users` is put in order so often, by one node."""
    copies: CopySettings = CopySettings()
    ingest: IngestSettings = IngestSettings()


class PresenceQuestions(Protocol):
    """`presence.service.PresenceService`."""

    async def connections(
        self, tenant: str, user: str | None = None, after: str = "", limit: int = 100
    ) -> Sequence[ConnectionFacts]: ...


class OlderBackends:
    """Made in two steps, for the rooms that publish need `bus`: the constructor, then `connect` with them.

    `bus`: the engine; `scripting`: the same. The attribute `bus` is the one all other rooms publish on.
    """

    def __init__(self, bus: EventBus, scripting: Scripting, settings: OlderSettings | None = None) -> None:
        self.settings = settings or OlderSettings()
        self.behind = bus
        """The bus without copies: for what came in from older backends."""
        self._redis = OlderRedis(scripting, self.settings.tenant)
        self._outbox = Outbox(self._redis, self.settings.copies)
        self.bus = CopyingBus(bus, self.settings.tenant, self._outbox.appended)
        self._hearing: Hearing | None = None
        self._ingest: Ingest | None = None
        self._tasks: Tasks | None = None
        self._presence: OlderPresence | None = None
        self._devices: Devices | None = None

    def connect(
        self,
        *,
        node: str,
        hearing: Hearing,
        tasks: Tasks,
        owner: Owner,
        store: PresenceStore,
        presence: PresenceQuestions,
        announcements: Announcements,
        frame: Frame,
        mirror: Callable[[], MirrorMode],
    ) -> None:
        """`tasks` and `announcements` announce on `behind`; `owner`: of tasks of the older queue; `frame`:
        `dialects.conversations.Frames()`; `mirror`: the mode now."""
        settings = self.settings
        instance = INSTANCE + node
        self._outbox.add(Mirror(mirror, settings.tenant, presence.connections))
        self._outbox.add(Deliveries(frame, instance))
        self._outbox.add(Arrivals(instance))
        self._devices = Devices(instance, self._outbox.put, lambda: int(time.time() * 1000))
        self._presence = OlderPresence(store, announcements, self._redis, tenant=settings.tenant, node=node)
        self._hearing, self._tasks = hearing, tasks
        self._ingest = Ingest(
            hearing,
            self._redis,
            self.behind,
            tasks,
            self._presence,
            owner,
            self._devices.find,
            tenant=settings.tenant,
            settings=settings.ingest,
        )

    def told(self, tenant: str, batch: Batch) -> None:
        """What this node's presence tracker has told the store (`Tracker.told`)."""
        if self._devices is not None and tenant == self.settings.tenant:
            self._devices.told(batch.joins, batch.leaves)

    async def run(self) -> NoReturn:
        """Everything, until cancelled."""
        assert self._ingest is not None, "connect first"
        assert self._tasks is not None
        async with asyncio.TaskGroup() as group:
            for loop in (self._ingest.run, self._outbox.run, self._tasks.run, self._tidy):
                group.create_task(loop())
        raise AssertionError("no loop ends")

    async def close(self) -> None:
        """Takes in what was heard and says what is to be said, while the bus is still there; `run` must have
        been cancelled, and presence taken off."""
        if self._ingest is not None:
            await self._ingest.close()
        await self._outbox.close()

    async def _tidy(self) -> NoReturn:
        assert self._presence is not None
        while True:
            await asyncio.sleep(self.settings.tidy_s)
            try:
                await self._presence.tidy(int(self.settings.tidy_s * 2500))
            except BusUnavailable:
                continue
            except DualcastError as error:
                _log.warning("the set of online users is not in order: %s", error.code)

    def gauges(self) -> dict[str, float]:
        """Plain numbers of this node for `/metrics`."""
        found = {"older_said": float(self._outbox.said), "older_copies_dropped": float(self._outbox.dropped)}
        found["older_copies_waiting"] = float(self._outbox.waiting)
        if (ingest := self._ingest) is not None:
            names = ("heard", "taken", "repeated", "own", "unreadable", "unknown", "refused", "dropped")
            found |= {f"older_{name}": float(getattr(ingest, name)) for name in (*names, "waiting")}
        if (hearing := self._hearing) is not None:
            found |= {
                "older_connected": float(hearing.up),
                "older_resubscribes": float(hearing.resubscribes),
                "older_connection_failures": float(hearing.failures),
                "older_stale": float(hearing.stale),
            }
        return found
