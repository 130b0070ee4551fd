"""The REST application over real rooms (memory engines), in process or behind a real server on an ephemeral
port.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import httpx
import uvicorn
from litestar import Litestar

from dualcast.bus.announcing import Announcer
from dualcast.bus.memory import MemoryBus
from dualcast.bus.port import EventBus, Retention
from dualcast.bus.storage import SqlPart
from dualcast.conversations.service import ConversationService
from dualcast.conversations.sql import PART as CONVERSATIONS
from dualcast.conversations.sql import SqlConversations
from dualcast.gateway.limits import RateLimits, RateSettings
from dualcast.gateway.routes import litestar_app
from dualcast.gateway.services import ConnectionInfo, GatewaySettings, Services
from dualcast.identity.authenticator import Authenticator, AuthSettings
from dualcast.identity.keys import StaticKeys
from dualcast.identity.revocation import Revocations
from dualcast.identity.tickets import Tickets
from dualcast.identity.tokens import TokenVerifier
from dualcast.inbox.service import InboxService
from dualcast.inbox.sql import SqlInbox
from dualcast.inbox.sql_rider import inbox_part
from dualcast.model.publication import Entry
from dualcast.presence.local import LocalPresence
from dualcast.presence.port import Batch, ConnectionFacts, Join
from dualcast.presence.service import PresenceService
from dualcast.presence.sql_devices import SqlDevices
from dualcast.presence.sql_devices import sql_part as presence_part
from dualcast.publishing.quotas import TenantQuotas
from dualcast.publishing.service import Publisher
from dualcast.push.service import PushService
from dualcast.push.sql import SqlPushQueue
from dualcast.push.sql import part as push_part
from dualcast.state.follow import StateFollower
from dualcast.state.memory import MemoryState
from dualcast.tasks.service import TaskService
from dualcast.tasks.sql import SqlTasks
from dualcast.tasks.sql_rows import PART as TASKS
from dualcast.telemetry.counters import Counters
from dualcast.telemetry.metrics import DualcastCollector, Metrics
from dualcast.tenancy.access import Access
from dualcast.tenancy.grants import Grants
from dualcast.tenancy.model import Tenant, TenantSettings
from dualcast.tenancy.stages import StageControl
from dualcast.tenancy.store import SharedTenants
from dualcast_migration.evidence.sql import PART as EVIDENCE
from dualcast_migration.evidence.sql import SqlEvidence
from support.tokens import key, token

TENANTS = ("default", "other")
PARTS: list[SqlPart] = [
    inbox_part(),
    CONVERSATIONS,
    TASKS,
    EVIDENCE,
    presence_part(),
    push_part(lambda *_: False),
]
"""What the rooms keep in the bus engine, unless a test brings its own bus."""


class Deaf:
    """A follower that listens to nothing."""

    def entries(self, tenant: str, batch: Sequence[Entry]) -> None: ...
    def watched(self, tenant: str, channel: str, epoch: str, offset: int) -> None: ...
    def advanced(self, tenant: str, epoch: str, offset: int) -> None: ...
    def gap(self, tenant: str, gap: object) -> None: ...
    def epoch(self, tenant: str, epoch: str, offset: int) -> None: ...
    def status(self, available: bool) -> None: ...


@dataclass
class Directory:
    """A directory of made-up connections."""

    rows: dict[str, list[ConnectionInfo]] = field(default_factory=dict)

    def list(
        self, tenant: str, user: str | None = None, after: str = "", limit: int = 100
    ) -> list[ConnectionInfo]:
        rows = sorted(self.rows.get(tenant, []), key=lambda row: row.id)
        return [row for row in rows if row.id > after and user in (None, row.user)][:limit]

    def find(self, tenant: str, connection: str) -> ConnectionInfo | None:
        return next((row for row in self.rows.get(tenant, []) if row.id == connection), None)


@dataclass
class Rest:
    """A running application with what tests look into."""

    app: Litestar
    services: Services
    state: MemoryState
    tenants: SharedTenants
    directory: Directory
    client: httpx.AsyncClient
    presence: LocalPresence
    batches: int = 0

    async def connect(
        self, ident: str, user: str, *groups: str, tenant: str = "default", **facts: str
    ) -> None:
        """A made-up connection, on another node unless the directory has it, too."""
        self.batches += 1
        facts = {"dialect": "native", **facts}
        known = ConnectionFacts(id=ident, user=user, node="n2", transport="ws", **facts)
        batch = Batch(f"b{self.batches}", (Join(known, groups),))
        await self.presence.change(tenant, "n2", batch, hold_ms=60_000)

    async def appended(self, *channels: str, tenant: str = "default") -> list[Entry]:
        """What is in the log of these channels."""
        page = await self.services.bus.read(tenant, channels, 0, 10_000)
        return list(page.entries)

    async def offset(self, tenant: str = "default") -> int:
        """How many publications the tenant has had."""
        return (await self.services.bus.head(tenant)).offset


def auth(sub: str = "backend", *roles: str, tenant: str = "default", **claims: Any) -> dict[str, str]:
    """The Authorization header of a caller with these roles."""
    text = token(key(tenant=tenant), sub=sub, roles=list(roles), tenant=tenant, **claims)
    return {"Authorization": f"Bearer {text}"}


def publisher(tenant: str = "default") -> dict[str, str]:
    return auth("backend", "publisher", tenant=tenant)


def admin(tenant: str = "default") -> dict[str, str]:
    return auth("root", "admin", tenant=tenant)


@asynccontextmanager
async def rest(
    *,
    bus: EventBus | None = None,
    retention: Retention | None = None,
    settings: GatewaySettings | None = None,
    rates: RateSettings | None = None,
    tenants: Sequence[Tenant] | None = None,
    draining: bool = False,
    publishing: Mapping[str, Any] | None = None,
    extra_handlers: Sequence[Any] = (),
    more_services: Mapping[str, Any] | None = None,
) -> AsyncIterator[Rest]:
    """The application with tenants `default` and `other`, called in process. `more_services`: fields of
    Services."""
    state = MemoryState()
    await state.start()
    follower = StateFollower(state)
    store = SharedTenants(state, follower)
    grants = Grants(state, follower)
    await follower.refresh()
    for tenant in tenants or [Tenant(id=name) for name in TENANTS]:
        await store.put(tenant)
    engine = bus or MemoryBus(retention, parts=PARTS)
    database: Any = getattr(engine, "database", None)
    await engine.start(Deaf())
    counters = Counters()
    revocations = Revocations(state)
    keys = StaticKeys(key(tenant=name).verification() for name in TENANTS)
    tickets = Tickets(state)
    origins = ("https://app.example.com",)
    authenticator = Authenticator(
        TokenVerifier(keys, revocations=revocations),
        tickets,
        revocations,
        AuthSettings(cookie_name="dualcast_token", allowed_origins=origins),
    )
    directory = Directory()
    presence = LocalPresence(SqlDevices(database))
    services = Services(
        bus=engine,
        publisher=Publisher(engine, counters, TenantQuotas(store), grants=grants, **(publishing or {})),
        authenticator=authenticator,
        tickets=tickets,
        access=Access(store, grants),
        grants=grants,
        state=state,
        tenants=store,
        stages=StageControl(store),
        evidence=SqlEvidence(database),
        revocations=revocations,
        counters=counters,
        directory=directory,
        metrics=Metrics(DualcastCollector(counters, bus_stats=engine.stats)),
        limits=RateLimits(rates),
        inbox=InboxService(SqlInbox(database), Announcer(engine)),
        conversations=ConversationService(SqlConversations(database), Announcer(engine), grants),
        push=PushService(SqlPushQueue(database), provider="log"),
        presence=PresenceService(presence),
        tasks=TaskService(SqlTasks(database), Announcer(engine), grants),
        settings=settings or GatewaySettings(),
        origin_allowed=authenticator.page_allowed,
        draining=lambda: draining,
        **(more_services or {}),
    )
    app = litestar_app(services, extra_handlers)
    transport = httpx.ASGITransport(app, raise_app_exceptions=False, client=("192.0.2.7", 40_000))  # type: ignore[arg-type]
    try:
        async with httpx.AsyncClient(transport=transport, base_url="http://dualcast.test") as client:
            yield Rest(app, services, state, store, directory, client, presence)
    finally:
        await engine.close()
        await state.close()


NOTE = {"to": {"user": "alice"}, "title": "Hello"}
"""The smallest notification."""


def problem(answer: httpx.Response, status: int, code: str) -> dict[str, Any]:
    """Asserts the error format and gives the members."""
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == "application/problem+json"
    found = answer.json()
    assert found["code"] == code, found
    assert found["status"] == status
    assert found["type"].endswith("#" + code)
    assert found["title"] and found["detail"] and isinstance(found["retryable"], bool)
    return dict(found)


def code(answer: httpx.Response) -> str:
    """The problem code of an error answer."""
    assert answer.headers["content-type"] == "application/problem+json", answer.text
    return str(answer.json()["code"])


async def publish(app: Rest, channel: str, data: Any = 1, **more: Any) -> str:
    """Publishes over REST as a backend of `default`; gives the cursor."""
    body = {"channel": channel, "type": "t", "data": data, **more}
    answer = await app.client.post("/v1/publish", headers=publisher(), json=body)
    assert answer.status_code == 201, answer.text
    return str(answer.json()["cursor"])


@asynccontextmanager
async def served(app: Litestar) -> AsyncIterator[str]:
    """A real uvicorn on an ephemeral port; gives the base URL."""
    listener = socket.socket()
    listener.bind(("127.0.0.1", 0))
    config = uvicorn.Config(
        app,
        loop="none",
        http="httptools",
        lifespan="off",
        log_config=None,
        access_log=False,
    )
    server = uvicorn.Server(config)
    task = asyncio.create_task(server.serve(sockets=[listener]))
    while not server.started and not task.done():
        await asyncio.sleep(0.01)
    try:
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"
    finally:
        server.should_exit = True
        await task
        listener.close()


__all__ = [
    "NOTE",
    "Rest",
    "TenantSettings",
    "admin",
    "auth",
    "code",
    "problem",
    "publish",
    "publisher",
    "rest",
    "served",
]
