"""The live half of the engines that live in one process: interest in channels, and one feed of the follower
per turn.

In: watch and unwatch, and what was appended, in order. Out: calls of the Follower. All on the event loop.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection
from collections.abc import Set as AbstractSet

from dualcast.model.cursor import Cursor
from dualcast.model.publication import Entry

from .port import Follower

_NOBODY: frozenset[str] = frozenset()


class LiveFeed:
    """Collects the entries of a loop turn and hands them to the follower in its next turn, one batch per
    tenant.
    """

    __slots__ = (
        "_active",
        "_depth",
        "_echoes",
        "_follower",
        "_loop",
        "_pending",
        "_position",
        "_scheduled",
        "_touched",
        "_wanted",
    )

    def __init__(self, position: Callable[[str], Cursor]) -> None:
        """`position` gives the tenant's epoch and the last offset that was handed to `add`."""
        self._position = position
        self._loop: asyncio.AbstractEventLoop | None = None
        self._follower: Follower | None = None
        self._active: dict[str, set[str]] = {}
        self._wanted: dict[tuple[str, str], None] = {}
        self._pending: dict[str, list[Entry]] = {}
        self._touched: dict[str, None] = {}
        self._scheduled = False
        self._depth = 0
        self._echoes: list[asyncio.Future[float]] = []

    def start(self, follower: Follower) -> None:
        """Begins to feed `follower` on the running loop, interest registered before included."""
        self._loop = asyncio.get_running_loop()
        self._follower = follower
        if self._wanted:
            self._schedule()

    def stop(self) -> None:
        """Hands over what was collected and ends; later calls are ignored."""
        self.flush()
        self._follower = None
        self._wanted.clear()
        self._active.clear()

    @property
    def depth(self) -> int:
        """Entries collected and not yet handed over."""
        return self._depth

    @property
    def watched(self) -> int:
        """Channels followed now, of all tenants."""
        return sum(map(len, self._active.values()))

    def channels(self, tenant: str) -> AbstractSet[str]:
        """The channels of `tenant` whose entries are to be given to `add`."""
        return self._active.get(tenant, _NOBODY)

    def watch(self, tenant: str, channel: str) -> None:
        if channel not in self._active.get(tenant, _NOBODY):
            self._wanted[tenant, channel] = None
            self._schedule()

    def unwatch(self, tenant: str, channel: str) -> None:
        self._wanted.pop((tenant, channel), None)
        active = self._active.get(tenant)
        if active is not None:
            active.discard(channel)
            if not active:
                del self._active[tenant]

    def add(self, tenant: str, entries: Collection[Entry]) -> None:
        """Takes the entries (of `channels` only) of one publication, the next one of the tenant."""
        if tenant not in self._active:
            return
        self._touched[tenant] = None
        self._pending.setdefault(tenant, []).extend(entries)
        self._depth += len(entries)
        self._schedule()

    async def echo(self) -> float | None:
        """Seconds until the live path reaches the follower; None when nothing is followed any more."""
        if self._loop is None or self._follower is None:
            return None
        echo = self._loop.create_future()
        self._echoes.append(echo)
        begun = self._loop.time()
        self._schedule()
        return float(await echo) - begun

    def flush(self) -> None:
        """Feeds the follower now: entries, how far each tenant is complete, then new interest."""
        self._scheduled = False
        follower = self._follower
        if follower is None:
            return
        pending, self._pending = self._pending, {}
        touched, self._touched = self._touched, {}
        wanted, self._wanted = self._wanted, {}
        self._depth = 0
        for tenant in touched:
            batch = pending.get(tenant)
            if batch:
                follower.entries(tenant, batch)
            follower.advanced(tenant, *self._position(tenant))
        for tenant, channel in wanted:
            self._active.setdefault(tenant, set()).add(channel)
            follower.watched(tenant, channel, *self._position(tenant))
        echoes, self._echoes = self._echoes, []
        for echo in echoes:
            if not echo.done():
                echo.set_result(echo.get_loop().time())

    def _schedule(self) -> None:
        if not self._scheduled and self._loop is not None and self._follower is not None:
            self._scheduled = True
            self._loop.call_soon(self.flush)
