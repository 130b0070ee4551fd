"""One wheel of seconds per node for what legacy contracts do by the clock: heartbeats, ends of idle
connections.

No timer belongs to a connection. The sweep turns the wheel once a second; what is due is found by time, so a
loop that was held up does late what it owes and skips nothing, and a beat is counted from when it was due,
not from when it came.
"""

from __future__ import annotations

import logging
from math import ceil
from typing import Protocol

log = logging.getLogger("dualcast.session")


class Rider(Protocol):
    """A session on the wheel."""

    slot: int
    """Where it stands, NOWHERE when it does not."""

    def turn_of_wheel(self, now: float) -> float:
        """Does what is due at loop time `now`; when it wants to be called again, 0: never."""
        ...

    def write_failed(self) -> None: ...


NOWHERE = -1


class Wheel:
    """Slots are whole seconds of the loop's clock: a rider comes within a second after its time, never
    before it."""

    __slots__ = ("_at", "_slots")

    def __init__(self, now: float) -> None:
        self._at = int(now)
        self._slots: dict[int, dict[Rider, None]] = {}

    def put(self, rider: Rider, at: float) -> None:
        """Calls `rider` at loop time `at`, in place of the time it may have."""
        self.take(rider)
        rider.slot = max(ceil(at), self._at + 1)
        self._slots.setdefault(rider.slot, {})[rider] = None

    def take(self, rider: Rider) -> None:
        """Off the wheel; nothing happens when it is not on it."""
        riders = self._slots.get(rider.slot)
        if riders is not None:
            riders.pop(rider, None)
            if not riders:
                del self._slots[rider.slot]
        rider.slot = NOWHERE

    def turn(self, now: float) -> None:
        """Calls whoever is due at loop time `now`."""
        while self._at < int(now):
            self._at += 1
            for rider in self._slots.pop(self._at, ()):
                if rider.slot != self._at:
                    continue  # it left while the others were called
                rider.slot = NOWHERE
                try:
                    again = rider.turn_of_wheel(now)
                except Exception:
                    # The wheel's edge: everybody else rides on.
                    log.exception("the clock of a session failed")
                    rider.write_failed()
                    continue
                if again and rider.slot == NOWHERE:
                    self.put(rider, again)

    def __len__(self) -> int:
        return sum(map(len, self._slots.values()))
