"""What the connections of one server share: its settings, the deadline sweep, and the count of connections
per address.

No connection has a timer of its own. Each deadline kind is a dict in insertion order; all its members have
the same time to live, so the first one is always the next to expire. One timer runs while any dict has a
member, none otherwise.
"""

from __future__ import annotations

import asyncio
import ipaddress
from collections.abc import Callable
from functools import lru_cache
from typing import Any

from dualcast.transport.options import TransportSettings

_Network = ipaddress.IPv4Network | ipaddress.IPv6Network


class Deadline:
    """Connections waiting for one thing; `overdue(connection)` is called for those that waited `after_s` in
    vain.
    """

    __slots__ = ("_sweep", "_waiting", "after_s", "overdue")

    def __init__(self, sweep: DeadlineSweep, after_s: float, overdue: Callable[[Any], None]) -> None:
        self._sweep = sweep
        self._waiting: dict[Any, float] = {}
        self.after_s = after_s
        self.overdue = overdue

    def __len__(self) -> int:
        return len(self._waiting)

    def add(self, connection: Any) -> None:
        """Starts the clock of `connection`; one that is already waiting keeps its time."""
        if connection not in self._waiting:
            self._waiting[connection] = self._sweep.now_armed() + self.after_s

    def discard(self, connection: Any) -> None:
        """What `connection` waited for has come, or the connection is gone."""
        self._waiting.pop(connection, None)

    def expire(self, now: float) -> None:
        """Removes and reports every connection whose time is over."""
        while self._waiting:
            connection = next(iter(self._waiting))
            if self._waiting[connection] > now:
                return
            del self._waiting[connection]
            self.overdue(connection)


class DeadlineSweep:
    """One timer for all deadlines of a server."""

    __slots__ = ("_deadlines", "_interval_s", "_timer")

    def __init__(self) -> None:
        self._deadlines: list[Deadline] = []
        self._interval_s = 1.0
        self._timer: asyncio.TimerHandle | None = None

    def deadline(self, after_s: float, overdue: Callable[[Any], None]) -> Deadline:
        """A new kind of deadline. Accuracy is a quarter of the shortest, at most one second."""
        made = Deadline(self, after_s, overdue)
        self._deadlines.append(made)
        self._interval_s = min(self._interval_s, after_s / 4)
        return made

    def now_armed(self) -> float:
        """The loop's time; from now on the sweep runs."""
        loop = asyncio.get_running_loop()
        if self._timer is None:
            self._timer = loop.call_later(self._interval_s, self._run)
        return loop.time()

    def stop(self) -> None:
        """Cancels the timer: the server is gone."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _run(self) -> None:
        self._timer = None
        now = asyncio.get_running_loop().time()
        for deadline in self._deadlines:
            deadline.expire(now)
        if self._timer is None and any(len(deadline) for deadline in self._deadlines):
            self.now_armed()


class Connections(set[Any]):
    """uvicorn's set of open connections; a connection that leaves gives its address slot back."""

    def __init__(self) -> None:
        super().__init__()
        self._slots: dict[Any, str] = {}
        self._per_address: dict[str, int] = {}

    def discard(self, connection: Any) -> None:
        super().discard(connection)
        self.release(connection)

    def remove(self, connection: Any) -> None:
        super().remove(connection)
        self.release(connection)

    def take(self, connection: Any, address: str) -> int:
        """Counts `connection` for `address`; returns how many that address has now."""
        self._slots[connection] = address
        count = self._per_address[address] = self._per_address.get(address, 0) + 1
        return count

    def move(self, old: Any, new: Any) -> None:
        """`new` serves the socket of `old` from now on: it takes over the slot and the place in the set."""
        address = self._slots.pop(old, None)
        if address is not None:
            self._slots[new] = address
        super().discard(old)

    def release(self, connection: Any) -> None:
        """Gives the slot of `connection` back, if it holds one."""
        address = self._slots.pop(connection, None)
        if address is not None:
            left = self._per_address[address] - 1
            if left:
                self._per_address[address] = left
            else:
                del self._per_address[address]

    def count(self, address: str) -> int:
        """Open counted connections of `address` (as `Edge.counted_address` names it)."""
        return self._per_address.get(address, 0)


class Edge:
    """Shared by the protocol objects of one server."""

    __slots__ = (
        "answers",
        "bodies",
        "closings",
        "counted_address",
        "headers",
        "lingers",
        "settings",
        "sweep",
    )

    def __init__(self, settings: TransportSettings) -> None:
        self.settings = settings
        self.sweep = DeadlineSweep()
        self.headers = self.sweep.deadline(settings.header_s, lambda connection: connection.header_overdue())
        self.bodies = self.sweep.deadline(settings.body_s, lambda connection: connection.body_overdue())
        self.answers = self.sweep.deadline(settings.handshake_s, lambda upgrade: upgrade.answer_overdue())
        self.closings = self.sweep.deadline(settings.handshake_s, lambda upgrade: upgrade.transport.abort())
        self.lingers = self.sweep.deadline(
            min(2.0, settings.header_s), lambda refused: refused.transport.abort()
        )
        networks = tuple(_network(name) for name in settings.trusted_proxies if name != "*")
        everything = "*" in settings.trusted_proxies

        @lru_cache(maxsize=4096)
        def counted_address(host: str) -> str | None:
            if everything:
                return None
            try:
                address = ipaddress.ip_address(host.partition("%")[0])
            except ValueError:
                return None  # a unix socket's peer
            if isinstance(address, ipaddress.IPv6Address):
                address = address.ipv4_mapped or address
            if address.is_loopback or any(network is not None and address in network for network in networks):
                return None
            if isinstance(address, ipaddress.IPv6Address):
                return str(ipaddress.ip_network((address, 64), strict=False))  # one subscriber owns a /64
            return str(address)

        self.counted_address = counted_address
        """Under which name the connections of a host are counted; None: exempt."""


def _network(name: str) -> _Network | None:
    try:
        return ipaddress.ip_network(name, strict=False)
    except ValueError:
        return None  # a literal such as a unix socket's name; uvicorn compares those itself
