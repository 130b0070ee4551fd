"""Publish quotas of tenants, as the append enforces them."""

from __future__ import annotations

from dualcast.model.publication import Quota
from dualcast.tenancy.store import TenantStore


class TenantQuotas:
    """A tenant's own rate and burst, each else the node's default; rate 0: no quota. `burst_s`: seconds'
    worth allowed at once.
    """

    def __init__(self, tenants: TenantStore, default_rate_per_s: float = 0, burst_s: float = 4.0) -> None:
        self._tenants = tenants
        self._burst_s = burst_s
        self._rate_per_s = default_rate_per_s
        self._default = self._quota(default_rate_per_s, None)

    def quota(self, tenant: str) -> Quota | None:
        """The quota in force now. Never waits."""
        found = self._tenants.current(tenant)
        if found is None:
            return self._default
        rate, burst = found.settings.publish_rate_per_s, found.settings.publish_burst
        if rate is None and burst is None:
            return self._default
        return self._quota(self._rate_per_s if rate is None else rate, burst)

    def _quota(self, rate_per_s: float, burst: int | None) -> Quota | None:
        if rate_per_s <= 0:
            return None
        return Quota(rate_per_s, burst or max(1, int(rate_per_s * self._burst_s)))
