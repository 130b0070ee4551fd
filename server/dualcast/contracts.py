"""The older contracts, put together: their sockets and streams, their statistics, and the demo endpoints."""

from __future__ import annotations

import time
from collections.abc import Callable, Coroutine
from typing import Any

from dualcast.bus.announcing import Announcer
from dualcast.dialects.legacy import LegacySettings, Stats
from dualcast.gateway.connect import Delivery
from dualcast.gateway.legacy.demo import DemoJobs, demo_routes
from dualcast.gateway.legacy.finding import ContractUnusable, contract_endpoints
from dualcast.gateway.legacy.routes import legacy_routes, make_legacy
from dualcast.gateway.legacy.services import Legacy, Owner
from dualcast.gateway.views import Views
from dualcast.session.legacy_registry import Registry
from dualcast.transport.views import ViewKind


class Contracts:
    """Made in two steps: REST handlers are given the statistics before the sockets, which need the handlers'
    services, are there."""

    def __init__(self, settings: LegacySettings, dialects: tuple[str, ...]) -> None:
        self.settings = settings
        self._dialects = dialects
        self._registry = Registry(
            max_per_user=settings.max_connections_per_user, cut_on_expiry=settings.cut_on_expiry
        )
        self._legacy: Legacy | None = None
        self._jobs: DemoJobs | None = None

    async def stats(self, tenant: str, kind: str) -> Stats:
        """A `Services.legacy_stats`. Raises BusUnavailable."""
        assert self._legacy is not None
        return await self._legacy.stats.read(tenant, kind=kind)

    def routes(self, delivery: Delivery, owner: Owner) -> list[Any]:
        """The handlers of sockets and streams; with `dev` the demo endpoints. Raises ContractUnusable."""
        settings = self.settings
        self._legacy = make_legacy(delivery, self._registry, settings, tenant=settings.tenant, owner=owner)
        handlers: list[Any] = [*legacy_routes(self._legacy, self._dialects)]
        if settings.dev:
            self._jobs = DemoJobs(Announcer(delivery.services.bus), lambda: int(time.time() * 1000))
            handlers += demo_routes(self._jobs)
        return handlers

    def views(self, owner: Owner) -> Views:
        """What clients of the native protocol may see of these contracts. Raises ContractUnusable."""
        endpoints = contract_endpoints(self.settings, self._dialects)
        streams = [endpoint for endpoint in endpoints if endpoint.view and endpoint.transport == "sse"]
        if len({endpoint.view for endpoint in streams}) < len(streams):
            raise ContractUnusable("two streams have views of one name")
        return Views([ViewKind(endpoint, self._registry) for endpoint in streams], owner)

    def gauges(self) -> dict[str, float]:
        """Plain numbers for `/metrics`."""
        return self._registry.gauges()

    def runs(self) -> list[Callable[[], Coroutine[Any, Any, Any]]]:
        """The background loops, which the composition root owns."""
        loops: list[Callable[[], Coroutine[Any, Any, Any]]] = []
        if self._legacy is not None:
            loops.append(self._legacy.stats.run)
        if self._jobs is not None:
            loops.append(self._jobs.run)
        return loops
