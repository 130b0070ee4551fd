"""Publish quotas by GCRA (the generic cell rate algorithm, ITU-T I.371): one number of state per key. Pure.

The state is the theoretical arrival time: when the key would be idle again. A publication is let through
while that time is at most `burst` intervals ahead of now.
"""

from __future__ import annotations

from collections.abc import Callable

from dualcast.model.errors import RateLimited
from dualcast.model.publication import Quota

FORGET_ABOVE = 10_000


def admit(tat_s: float, now_s: float, quota: Quota) -> tuple[float, float]:
    """(new theoretical arrival time, 0.0) when one more fits the quota, else (`tat_s`, seconds to wait).

    All times are seconds of one clock; 0.0 is the state of a key never seen.
    """
    interval = 1.0 / max(quota.rate_per_s, 1e-6)
    new = max(tat_s, now_s) + interval
    wait = new - now_s - interval * max(1, quota.burst)
    # Rounding of large clock values must not refuse the last publication of a full burst.
    if wait > 1e-6:
        return tat_s, wait
    return new, 0.0


def limited(tat_s: float, now_s: float, quota: Quota) -> float:
    """`tat_s`, at most a full burst ahead. Further ahead it is by a smaller quota of before (or a clock that
    was set back): who is given more need not wait for that to pass."""
    return min(tat_s, now_s + max(1, quota.burst) / max(quota.rate_per_s, 1e-6))


class Quotas:
    """The quota state of the tenants of one process; idle tenants are forgotten."""

    __slots__ = ("_clock", "_tats")

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._tats: dict[str, float] = {}

    def take(self, tenant: str, quota: Quota | None) -> RateLimited | None:
        """Takes one publication from the tenant's quota; the error to give when there is none left."""
        if quota is None:
            return None
        now = self._clock()
        new, wait = admit(limited(self._tats.get(tenant, 0.0), now, quota), now, quota)
        if len(self._tats) >= FORGET_ABOVE and tenant not in self._tats:
            self._tats = {name: tat for name, tat in self._tats.items() if tat > now}
        self._tats[tenant] = new
        if wait:
            return RateLimited("the tenant's publish quota is used up", retry_after_s=wait)
        return None
