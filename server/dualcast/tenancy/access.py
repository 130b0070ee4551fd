"""Who may subscribe: the token, then the tenant's public patterns, then a grant; otherwise nobody."""

from __future__ import annotations

from dualcast.model.channel import ALL, matches
from dualcast.model.principal import Principal

from .grants import Grants
from .store import TenantStore


class Access:
    """The subscribe rule of all transports."""

    def __init__(self, tenants: TenantStore, grants: Grants) -> None:
        self._tenants = tenants
        self._grants = grants

    def known(self, principal: Principal, channel: str) -> bool:
        """Whether this node already knows that `principal` may subscribe to `channel`; False means "ask
        `may_subscribe`". Never waits. A principal of an unknown tenant may nothing."""
        tenant = self._tenants.current(principal.tenant)
        if tenant is None:
            return False
        if principal.owns(channel):
            return True
        if any(matches(pattern, channel) for pattern in tenant.settings.public_channels):
            return True
        return self._grants.known(principal.tenant, channel, principal.sub)

    async def may_subscribe(self, principal: Principal, channel: str) -> bool:
        """Whether `principal` may subscribe to the canonical `channel` of its own tenant.

        Raises BusUnavailable when only a grant could say yes and the state store is away: hold the client, do
        not refuse it.
        """
        if self.known(principal, channel):
            return True
        if channel == ALL or self._tenants.current(principal.tenant) is None:
            return False
        return await self._grants.allows(principal.tenant, channel, principal.sub)
