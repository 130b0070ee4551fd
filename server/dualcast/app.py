"""The composition root: settings in, a running server out. The only place where all rooms meet.

`build` makes the parts inside a running loop, `serve` runs them until a signal, `run` is what `dualcast
serve` calls.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import msgspec
import structlog
import uvloop
from litestar import Litestar

from dualcast import __version__
from dualcast.bus.port import EventBus
from dualcast.contracts import Contracts
from dualcast.features import Features, Witness, build_features, build_witness
from dualcast.gateway.commands import SPACE as CLOSE_SPACE
from dualcast.gateway.connect import Delivery
from dualcast.gateway.directory import CloseFollower, Directory
from dualcast.gateway.legacy.progress import LiveFacts
from dualcast.gateway.limits import RateLimits
from dualcast.gateway.pages import page_routes
from dualcast.gateway.routes import litestar_app
from dualcast.gateway.services import Services
from dualcast.gateway.socket import socket_route
from dualcast.gateway.stream import stream_route
from dualcast.gateway.tenant_keys import TenantKeys
from dualcast.hub.hub import Hub, HubSettings
from dualcast.identity.authenticator import Authenticator, AuthSettings
from dualcast.identity.claims import TokenSettings
from dualcast.identity.demo import DemoAuthenticator
from dualcast.identity.jwks import JwksCache, JwksSettings
from dualcast.identity.revocation import SPACE as REVOCATION_SPACE
from dualcast.identity.revocation import Revocations
from dualcast.identity.tickets import Tickets, TicketSettings
from dualcast.identity.tokens import TokenVerifier
from dualcast.mapping import (
    endpoints,
    gateway_settings,
    legacy_settings,
    publish_settings,
    rate_settings,
    seeds,
    session_settings,
    transport_settings,
    verification_keys,
)
from dualcast.model.errors import BusUnavailable
from dualcast.publishing.quotas import TenantQuotas
from dualcast.publishing.service import Publisher
from dualcast.session.drain import drain
from dualcast.session.moving import Movements
from dualcast.session.native_commands import NativeCommands
from dualcast.session.node import Node
from dualcast.session.person_commands import PersonCommands
from dualcast.session.recovery import Recovery
from dualcast.session.sweep import Sweep
from dualcast.session.withdrawal import Withdrawals
from dualcast.settings import Settings
from dualcast.state.follow import StateFollower
from dualcast.stores import Stores, open_stores
from dualcast.telemetry import logs
from dualcast.telemetry.counters import Counters
from dualcast.telemetry.metrics import DualcastCollector, LoopLag, Metrics
from dualcast.tenancy.access import Access
from dualcast.tenancy.grants import SPACE as GRANT_SPACE
from dualcast.tenancy.grants import Grants
from dualcast.tenancy.stages import StageControl
from dualcast.tenancy.store import SPACE as TENANT_SPACE
from dualcast.tenancy.store import SharedTenants
from dualcast.transport.options import TransportSettings
from dualcast.transport.server import Server, listen, raise_file_limit
from dualcast.transport.supervisor import Supervisor

log = structlog.get_logger("dualcast.app")


@dataclass(slots=True, kw_only=True)
class Composition:
    """The parts of one process. `lifespan` starts and stops them."""

    settings: Settings
    app: Litestar
    stores: Stores
    features: Features
    contracts: Contracts
    follower: StateFollower
    tenants: SharedTenants
    hub: Hub
    node: Node
    recovery: Recovery
    sweep: Sweep
    movements: Movements
    witness: Witness
    jwks: JwksCache
    loop_lag: LoopLag
    authenticator: Authenticator
    publisher: Publisher

    @property
    def bus(self) -> EventBus:
        return self.stores.bus

    async def drain(self) -> None:
        """Sends every client away in paced batches; awaited by the server before it shuts down."""
        await drain(self.node, self.settings.server.drain_s)

    @asynccontextmanager
    async def lifespan(self) -> AsyncIterator[None]:
        """Starts everything in order, owns the background tasks, stops everything in reverse order.

        A background task that fails ends the process: a server without its sweep or follower must not look
        healthy.
        """
        await self.features.check()
        await self.stores.state.start()
        try:
            await self._know_tenants()
            await self.stores.bus.start(self.hub)
            try:
                self.loop_lag.start()
                async with asyncio.TaskGroup() as group:
                    loops = (
                        self.follower.run,
                        self.recovery.run,
                        self.sweep.run,
                        self.movements.run,
                        *self.features.runs(),
                        *self.witness.runs(),
                        *self.contracts.runs(),
                    )
                    tasks = [group.create_task(loop()) for loop in loops]
                    yield
                    for task in tasks:
                        task.cancel()
            finally:
                self.loop_lag.stop()
                await self.node.close()
                await self.witness.recorder.close()
                await self.features.close()
                await self.stores.bus.close()
                await self.jwks.close()
        finally:
            await self.stores.state.close()

    async def _know_tenants(self) -> None:
        """Seeds and reads the tenants; a state store that is away is waited for: without tenants nobody can
        be let in."""
        wait_s = 0.5
        while True:
            try:
                await self.tenants.seed(seeds(self.settings))
                await self.follower.refresh()
                return
            except BusUnavailable:
                log.warning("the state store is away; trying again", wait_s=wait_s)
                await asyncio.sleep(wait_s)
                wait_s = min(wait_s * 2, 5.0)


def build(settings: Settings) -> Composition:
    """Makes the parts of one process. Needs the running loop; opens nothing yet."""
    counters = Counters()
    stores = open_stores(settings)
    bus, state = stores.bus, stores.state
    follower = StateFollower(state)
    tenants = SharedTenants(state, follower)
    stages = StageControl(tenants)
    grants = Grants(state, follower)
    hub = Hub(
        bus, HubSettings(ring_entries=settings.delivery.ring_entries, ring_bytes=settings.delivery.ring_bytes)
    )
    node = Node(bus, hub, counters, session_settings(settings))
    recovery = Recovery(node)
    features = build_features(settings, stores, node, grants, counters, tenants)
    witness = build_witness(stores, node, counters, tenants, stages)
    revocations = Revocations(state)
    follower.on(REVOCATION_SPACE, revocations.changed, revocations.load)
    directory = Directory(node)
    revocations.on_revoked(lambda tenant, token_id, sub: directory.revoked(revocations))
    closer = CloseFollower(state, directory)
    follower.on(CLOSE_SPACE, closer.changed, closer.resync)
    keys = TenantKeys(tenants, verification_keys(settings), endpoints(settings))
    jwks = JwksCache(JwksSettings(fresh_s=settings.identity.jwks_cache_s))
    token_settings = TokenSettings(
        default_tenant=settings.tenancy.legacy_tenant, leeway_s=settings.identity.leeway_s
    )
    verifier = TokenVerifier(keys, token_settings, jwks=jwks, revocations=revocations)

    async def rekeyed(tenant: str) -> None:
        await directory.rekeyed(tenant, verifier.vouches_for)

    async def all_rekeyed() -> None:
        for tenant in list(hub.tenants):
            await rekeyed(tenant)

    follower.on(TENANT_SPACE, rekeyed, all_rekeyed)
    movements = Movements(node, tenants.stage_record)
    follower.on(TENANT_SPACE, movements.changed, movements.resync)
    tickets = Tickets(state, TicketSettings(life_s=settings.identity.ticket_s))
    authenticator = Authenticator(
        verifier,
        tickets,
        revocations,
        AuthSettings(
            cookie_name=settings.identity.cookie,
            allowed_origins=settings.identity.origins,
            legacy_allowed_origins=settings.identity.origins or ("*",),
        ),
        tenant_origins=lambda tenant: found.settings.origins if (found := tenants.current(tenant)) else (),
        all_origins=tenants.origins,
    )
    access = Access(tenants, grants)
    contracts = Contracts(legacy_settings(settings), settings.legacy.dialects)
    door: Authenticator | DemoAuthenticator = authenticator
    if settings.server.dev:
        door = DemoAuthenticator(authenticator, settings.tenancy.legacy_tenant)
    withdrawals = Withdrawals(node, access.may_subscribe)
    follower.on(GRANT_SPACE, withdrawals.changed, withdrawals.resync)
    limits = settings.limits
    loop_lag = LoopLag()
    services = Services(
        bus=bus,
        publisher=Publisher(
            bus,
            counters,
            TenantQuotas(tenants, limits.publishes_per_tenant_per_s, limits.burst_s),
            publish_settings(settings),
            resolve_connection=features.presence.connection_user,
            push_ready=features.push.ready,
            poke_push=features.push.poke,
            grants=grants,
            narrowed=features.inbox.added,
        ),
        inbox=features.inbox,
        presence=features.presence,
        push=features.push,
        tasks=features.tasks,
        conversations=features.conversations,
        redis=stores.redis,
        legacy=contracts.settings,
        legacy_stats=contracts.stats,
        legacy_facts=LiveFacts(node),
        authenticator=door,
        tickets=tickets,
        access=access,
        grants=grants,
        state=state,
        tenants=tenants,
        stages=stages,
        evidence=stores.evidence,
        noting=witness.recorder,
        revocations=revocations,
        counters=counters,
        directory=directory,
        metrics=Metrics(
            DualcastCollector(
                counters,
                bus_stats=bus.stats,
                gauges=lambda: {
                    **gauges(node),
                    **movements.gauges(),
                    **features.gauges(),
                    **contracts.gauges(),
                    **witness.recorder.gauges(),
                    **witness.parity.gauges(),
                    **services.publisher.turns.gauges(),
                },
                families=witness.families,
                loop_lag=loop_lag,
                stages=tenants.stages,
            )
        ),
        limits=RateLimits(rate_settings(settings)),
        settings=gateway_settings(settings),
        origin_allowed=authenticator.page_allowed,
        draining=lambda: node.draining,
    )
    delivery = Delivery(
        services=services,
        node=node,
        tenants=tenants,
        commands=NativeCommands(
            access.may_subscribe,
            authenticator.refresh,
            person=PersonCommands(
                access.may_subscribe,
                inbox=features.inbox,
                conversations=features.conversations,
                presence=features.presence,
            ),
        ),
        connections_per_address=limits.connections_per_ip,
        views=contracts.views(features.known.owner),
    )
    handlers = [
        stream_route(delivery),
        socket_route(delivery),
        *contracts.routes(delivery, features.known.owner),
        *page_routes(
            version=__version__,
            dev=settings.server.dev,
            test_page=settings.legacy.test_page,
            console=settings.server.console,
        ),
    ]
    app = litestar_app(services, handlers)
    return Composition(
        settings=settings,
        app=app,
        stores=stores,
        features=features,
        contracts=contracts,
        follower=follower,
        tenants=tenants,
        hub=hub,
        node=node,
        recovery=recovery,
        sweep=Sweep(node, recovery),
        movements=movements,
        witness=witness,
        jwks=jwks,
        loop_lag=loop_lag,
        authenticator=authenticator,
        publisher=services.publisher,
    )


async def rehearse(settings: Settings) -> None:
    """Raises the DualcastError that would stop the start: a key, tenant, contract or push provider that
    cannot be used. Opens no file of the engine and no connection to Redis."""
    seeds(settings)
    features = build(settings).features
    try:
        await features.check()
    finally:
        await features.provider.close()


def gauges(node: Node) -> dict[str, float]:
    """Plain numbers of this node for `/metrics`."""
    return {
        "sessions": len(node.hub.sessions),
        "sessions_behind": sum(
            1
            for session in node.hub.sessions.values()
            if session.gate == 1 << 62 and not getattr(session, "muted", False)
        ),
        "sessions_held": len(node.held),
        "channels_watched": sum(len(tenant.channels) for tenant in node.hub.tenants.values()),
        "ring_bytes": node.hub.rings.bytes,
        "fan_out_overflows": node.hub.overflows,
        "ephemeral_shed": node.hub.ephemeral_shed,
        "forged_receipts": node.forged_receipts,
        "bus_available": float(node.hub.available),
    }


async def serve(settings: Settings, transport: TransportSettings, *, shared: bool = False) -> None:
    """Runs one server process until a signal, then drains."""
    with listen(transport, shared=shared) as sock:
        composition = build(settings)
        async with composition.lifespan():
            log.info("serving", host=transport.host, port=sock.getsockname()[1], engine=settings.engine)
            server = Server(composition.app, transport, on_drain=composition.drain)
            await server.serve(sockets=[sock])


def worker(transport: TransportSettings, args: tuple[Any, ...]) -> None:
    """Entry point of a worker process: `args` holds the encoded settings."""
    settings = msgspec.msgpack.decode(args[0], type=Settings)
    logs.configure(settings.log.level, settings.log.format)
    raise_file_limit()
    _run(settings, transport, shared=True)


def run(settings: Settings) -> None:
    """Serves until SIGTERM or SIGINT; one process, or `server.workers` of them."""
    transport = transport_settings(settings)
    logs.configure(settings.log.level, settings.log.format)
    if settings.server.workers > 1:
        # Here as well as in the workers, which would be started again for ever.
        asyncio.run(rehearse(settings))
        raise SystemExit(Supervisor(worker, transport, (msgspec.msgpack.encode(settings),)).run())
    raise_file_limit()
    _run(settings, transport, shared=False)


def _run(settings: Settings, transport: TransportSettings, *, shared: bool) -> None:
    factory = uvloop.new_event_loop if transport.loop == "uvloop" else None
    with asyncio.Runner(loop_factory=factory) as runner:
        runner.run(serve(settings, transport, shared=shared))
