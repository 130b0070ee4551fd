"""Who may append next: the tenants in turn, so that the flood of one does not put the others behind it.

In: how much somebody wants to append, in units (see `TurnSettings`). Out: the permission, at once while
nobody waits and there is room. Nothing here is a task or a timer: whoever is done lets the next one go.

What may be under way at the same time is bounded (`in_flight`): just enough to keep the bus busy, since
behind what is under way everybody waits. Tenants with waiting work are served round robin, about
`slice_units` each (deficit round robin: who takes more than its share in one turn pays with the next ones);
inside a tenant it is first come, first served. A batch takes a turn for every slice, so it gives way between
them.
"""

from __future__ import annotations

import asyncio
from collections import deque

from msgspec import Struct

from dualcast.model.errors import RateLimited


class TurnSettings(Struct, frozen=True):
    """A unit is a publication of up to 4 KiB to one channel."""

    slice_units: int = 100
    """A tenant's share of a round, and items of a batch per turn."""
    in_flight_units: int = 300
    """Of all tenants, handed to the bus and not answered yet; more only for a single one that is larger."""
    waiting_items: int = 50_000
    """Publications of one tenant that may wait for a turn; of batches, all their items until the last is
    done."""
    waiting_bytes: int = 64 * 1024 * 1024
    """The same in bytes of bodies."""


class TenantBusy(RateLimited):
    """So much of the tenant waits already that no more is taken in."""

    code = "tenant-busy"


class _Queue:
    """What one tenant has waiting."""

    __slots__ = ("bytes", "credit", "items", "members", "tenant", "waiters")

    def __init__(self, tenant: str, credit: int) -> None:
        self.tenant = tenant
        self.credit = credit
        """Units it may take before the next tenant's turn; below 0: it took more than its share."""
        self.waiters: deque[tuple[asyncio.Future[None], int]] = deque()
        self.members = 0
        """Requests that entered and have not left."""
        self.items = 0
        self.bytes = 0


class Turns:
    """See the module docstring. All methods run on the event loop.

    Whoever appends calls `take`, which is free, and `give` at the end, whatever became of it. When `take`
    says no, or there will be several turns: `enter`.
    """

    def __init__(self, settings: TurnSettings | None = None) -> None:
        self.settings = settings or TurnSettings()
        self._room = self.settings.in_flight_units
        self._share = self.settings.slice_units
        self._used = 0
        self._queues: dict[str, _Queue] = {}
        self._ring: deque[_Queue] = deque()
        """Tenants with waiters; the first has the turn."""
        self.waited = 0
        """Turns that had to be waited for, since start."""
        self.refused = 0
        """Requests that found too much of their tenant waiting, since start."""

    @property
    def in_flight(self) -> int:
        """Units under way."""
        return self._used

    @property
    def waiting(self) -> int:
        """Publications of all tenants that have entered and not left."""
        return sum(queue.items for queue in self._queues.values())

    def gauges(self) -> dict[str, float]:
        """Plain numbers for metrics."""
        return {"publish_waiting": self.waiting, "publish_in_flight": self._used}

    def take(self, units: int) -> bool:
        """Takes `units` at once if nobody waits and there is room."""
        used = self._used
        if self._ring or (used and used + units > self._room):
            return False
        self._used = used + units
        return True

    def give(self, units: int) -> None:
        """Gives back what `take` took; the next ones go."""
        self._used -= units
        if self._ring:
            self._let_go()

    def enter(self, tenant: str, items: int, size: int) -> Place:
        """A place for a request of `items` publications and `size` bytes, counted as waiting until it leaves.

        Raises TenantBusy when the tenant has too much of either; a tenant that has nothing may always enter.
        """
        queue = self._queues.get(tenant)
        if queue is None:
            queue = self._queues[tenant] = _Queue(tenant, self._share)
        elif (
            queue.items + items > self.settings.waiting_items
            or queue.bytes + size > self.settings.waiting_bytes
        ):
            self.refused += 1
            raise TenantBusy("too many publications of the tenant wait already", retry_after_s=1.0)
        queue.members += 1
        queue.items += items
        queue.bytes += size
        return Place(self, queue, items, size)

    async def _wait(self, queue: _Queue, units: int) -> None:
        """Takes `units` in turn. Cancelled, it has taken nothing."""
        if self.take(units):
            return
        self.waited += 1
        waiter = (asyncio.get_running_loop().create_future(), units)
        if not queue.waiters:
            self._ring.append(queue)
        queue.waiters.append(waiter)
        try:
            await waiter[0]
        except asyncio.CancelledError:
            if not waiter[0].cancelled():
                self.give(units)
            elif waiter in queue.waiters:
                queue.waiters.remove(waiter)
                if not queue.waiters:
                    self._ring.remove(queue)
                self._let_go()  # it may have been the one nobody could pass
            raise

    def _leave(self, queue: _Queue, items: int, size: int) -> None:
        queue.members -= 1
        queue.items -= items
        queue.bytes -= size
        if not queue.members:
            del self._queues[queue.tenant]

    def _more(self, queue: _Queue, units: int) -> None:
        self._used += units
        queue.credit -= units

    def _let_go(self) -> None:
        ring = self._ring
        while ring:
            queue = ring[0]
            if queue.credit <= 0:
                queue.credit += self._share
                ring.rotate(-1)
                continue
            future, units = queue.waiters[0]
            if self._used and self._used + units > self._room:
                return
            queue.waiters.popleft()
            if not queue.waiters:
                ring.popleft()
            if future.done():  # cancelled; its task has not run yet
                continue
            self._used += units
            queue.credit -= units
            future.set_result(None)


class Place:
    """A request among those of its tenant: it takes one turn after the other, and leaves."""

    __slots__ = ("_items", "_queue", "_size", "_turns", "held")

    def __init__(self, turns: Turns, queue: _Queue, items: int, size: int) -> None:
        self._turns = turns
        self._queue = queue
        self._items = items
        self._size = size
        self.held = 0
        """Units of the turn it has; 0: it has none."""

    async def turn(self, units: int) -> None:
        """Waits for its turn of `units`. Cancelled, it has none."""
        await self._turns._wait(self._queue, units)
        self.held = units

    def grow(self, units: int) -> None:
        """The turn turns out to be one of `units`; the tenant pays for more than it asked with its next
        ones."""
        if units > self.held:
            self._turns._more(self._queue, units - self.held)
            self.held = units

    def over(self) -> None:
        """Gives the turn back; nothing when there is none."""
        held, self.held = self.held, 0
        if held:
            self._turns.give(held)

    def leave(self) -> None:
        """Ends the turn, if there is one, and frees the place. Once."""
        self.over()
        self._turns._leave(self._queue, self._items, self._size)
