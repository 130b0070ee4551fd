"""What the rest of the server knows of pushing: making ready, poking, looking at the queue, dead letters."""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Callable, Sequence

from dualcast.model.errors import NotFound

from .port import DeadLetter, Facts, PushQueue

ENSURE_S = 300.0
"""How long a process relies on having ensured a tenant; the registry keeps it longer (`redis.IDLE_MS`)."""
MAX_KNOWN = 10_000


def _ignore(tenant: str) -> None:
    return None


class PushService:
    """`provider`: its name. `poke`: the worker's. `enabled` False (provider `none`): nothing is queued."""

    def __init__(
        self,
        queue: PushQueue,
        *,
        provider: str,
        poke: Callable[[str], None] = _ignore,
        enabled: bool = True,
    ) -> None:
        self.provider = provider
        self._queue = queue
        self._poke = poke
        self._enabled = enabled
        self._known: OrderedDict[str, float] = OrderedDict()

    async def ready(self, tenant: str) -> None:
        """Awaited before an append with a push rider: every node will find the tenant's queue, even if this
        one dies right after the append. Costs nothing but every 300 s. Raises BusUnavailable: the append may
        go on, the worker of this node is poked anyway.
        """
        now = asyncio.get_running_loop().time()
        if not self._enabled or now - self._known.get(tenant, -ENSURE_S) < ENSURE_S:
            return
        await self._queue.ensure(tenant)
        self._known[tenant] = now
        self._known.move_to_end(tenant)
        if len(self._known) > MAX_KNOWN:
            self._known.popitem(last=False)

    def poke(self, tenant: str) -> None:
        """Called after an append with a push rider. Does not wait, raises nothing."""
        if self._enabled:
            self._poke(tenant)

    async def facts(self, tenant: str) -> Facts:
        """The tenant's queue now. Raises BusUnavailable."""
        return await self._queue.facts(tenant)

    async def dead(self, tenant: str, after: int = 0, limit: int = 100) -> Sequence[DeadLetter]:
        """The tenant's dead letters after number `after`, the oldest first. Raises BusUnavailable."""
        return await self._queue.dead(tenant, after, limit)

    async def revive(self, tenant: str, number: int) -> None:
        """A dead letter is sent again, with new attempts and a new deadline. Raises NotFound,
        BusUnavailable."""
        await self._queue.ensure(tenant)
        if not await self._queue.revive(tenant, number):
            raise NotFound("there is no such dead letter")
        self._poke(tenant)

    async def discard(self, tenant: str, number: int) -> None:
        """Forgets a dead letter. Raises NotFound, BusUnavailable."""
        if not await self._queue.discard(tenant, number):
            raise NotFound("there is no such dead letter")
