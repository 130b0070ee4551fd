"""How often one user may act: token buckets (GCRA, as `bus.quota`) in a bounded table, on this node."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable

from dualcast.bus.quota import admit
from dualcast.model.errors import RateLimited
from dualcast.model.publication import Quota

MAX_KEYS = 20_000
"""Users remembered; the one seen least lately is forgotten first and starts anew."""


class Pace:
    """One bucket per user. A rate of 0: no limit. `clock` gives seconds, never fewer than before."""

    def __init__(
        self, rate_per_s: float, burst_s: float, clock: Callable[[], float], *, max_keys: int = MAX_KEYS
    ) -> None:
        self._quota = Quota(rate_per_s, max(1, int(rate_per_s * burst_s))) if rate_per_s > 0 else None
        self._clock = clock
        self._max_keys = max_keys
        self._tats: OrderedDict[tuple[str, str], float] = OrderedDict()

    def take(self, tenant: str, user: str) -> None:
        """Counts one action; raises RateLimited with the seconds to wait."""
        if self._quota is None:
            return
        key = (tenant, user)
        tat, wait_s = admit(self._tats.get(key, 0.0), self._clock(), self._quota)
        if wait_s:
            raise RateLimited("too many messages or signals by this user", retry_after_s=wait_s)
        self._keep(key, tat)

    def charge(self, tenant: str, user: str, more: int) -> None:
        """Counts `more` actions that are done already: the user waits for them before the next one."""
        if self._quota is None or more <= 0:
            return
        key = (tenant, user)
        self._keep(key, max(self._tats.get(key, 0.0), self._clock()) + more / self._quota.rate_per_s)

    def _keep(self, key: tuple[str, str], tat: float) -> None:
        self._tats[key] = tat
        self._tats.move_to_end(key)
        if len(self._tats) > self._max_keys:
            self._tats.popitem(last=False)
