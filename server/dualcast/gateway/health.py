"""`/healthz` (the process answers), `/readyz` (it can take traffic), `/metrics`."""

from __future__ import annotations

import asyncio
import hmac
from typing import Any

from litestar import Request, Response, get
from msgspec import Struct

from dualcast.bus.port import Health
from dualcast.identity.credentials import header_once
from dualcast.model.errors import Unauthorized

from .authentication import PUBLIC
from .problems import NotReady
from .services import Injected, Services

METRICS_MEDIA_TYPE = "text/plain; version=0.0.4"


class Alive(Struct, frozen=True):
    """The process answers."""

    status: str
    version: str


class Ready(Struct, frozen=True):
    """The event bus answers commands and its live path echoes. Times in seconds."""

    status: str
    engine: str
    command_s: float | None
    echo_s: float | None


class Readiness:
    """Probes of the bus, shared: many pollers cause one probe at a time, and none within `probe_cache_s` of
    the last.
    """

    def __init__(self, services: Services) -> None:
        self._services = services
        self._probe: asyncio.Task[Health] | None = None
        self._last: Health | None = None
        self._fresh_until = 0.0

    async def check(self) -> Ready:
        """Raises NotReady, naming the leg that failed; while draining always."""
        if self._services.draining():
            raise NotReady("this node is going down", code="draining", retry_after_s=1)
        health = await self._health()
        if not health.ok:
            raise NotReady(health.detail or "the event bus does not answer", retry_after_s=1)
        return Ready("ready", health.engine, health.command_s, health.echo_s)

    async def _health(self) -> Health:
        loop = asyncio.get_running_loop()
        if self._last is not None and loop.time() < self._fresh_until:
            return self._last
        probe = self._probe
        if probe is None:
            probe = self._probe = loop.create_task(self._services.bus.probe())
        try:
            # Shielded: a poller that gives up must not end the probe of the others.
            health = await asyncio.shield(probe)
        finally:
            if probe.done() and self._probe is probe:
                self._probe = None
        self._last = health
        self._fresh_until = loop.time() + self._services.settings.probe_cache_s
        return health


@get("/healthz", opt={PUBLIC: True}, summary="Liveness", tags=["operations"], operation_id="Liveness")
async def healthz(services: Injected) -> Alive:
    """200 as long as the process answers, also while the bus is away or the node drains: restarting it would
    not help.
    """
    return Alive("ok", services.settings.version)


@get("/readyz", opt={PUBLIC: True}, summary="Readiness", tags=["operations"], operation_id="Readiness")
async def readyz(request: Request[Any, Any, Any]) -> Ready:
    """200 when the node can take traffic; 503 with the failed leg, and while the node drains."""
    readiness = request.app.state.readiness
    assert isinstance(readiness, Readiness)
    return await readiness.check()


@get(
    "/metrics", opt={PUBLIC: True}, summary="Prometheus metrics", tags=["operations"], operation_id="Metrics"
)
async def metrics(services: Injected, request: Request[Any, Any, Any]) -> Response[bytes]:
    """Text of the Prometheus exposition format. With `metrics_token` set, only for that bearer token."""
    wanted = services.settings.metrics_token
    if wanted:
        given = header_once(request.scope["headers"], b"authorization") or b""
        if not hmac.compare_digest(given, b"Bearer " + wanted.encode()):
            raise Unauthorized("metrics need their bearer token")
    return Response(services.metrics(), media_type=METRICS_MEDIA_TYPE, headers={"Cache-Control": "no-store"})
