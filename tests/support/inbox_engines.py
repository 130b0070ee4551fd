"""The inbox over every engine, with a clock that tests set, and appends that carry items."""

from __future__ import annotations

import secrets
import tempfile
import time
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from dualcast.bus.memory import MemoryBus
from dualcast.bus.port import EventBus, Follower
from dualcast.bus.redis.engine import RedisBus
from dualcast.bus.redis.options import RedisSettings
from dualcast.bus.sqlite import SqliteBus
from dualcast.inbox.port import InboxSettings, InboxStore
from dualcast.inbox.redis import SERVER_CLOCK, RedisInbox, inbox_extension
from dualcast.inbox.sql import SqlInbox
from dualcast.inbox.sql_rider import inbox_part
from dualcast.model.inbox import InboxRider
from dualcast.model.publication import Draft, Receipt
from support import redis_server
from support.bus_engines import Recorder

TEST_CLOCK = """local function clock()
  return tonumber(redis.call('GET', PREFIX .. 'n:clock') or 0)
end
"""
START_S = 1_700_000_000.0


@dataclass
class Inboxes:
    """A running engine with its inbox."""

    bus: EventBus
    store: InboxStore
    set_clock: Callable[[str, float], None]
    node_clock: Callable[[], float]
    """The clock by which a publisher says when something expires."""
    redis: redis_server.RedisServer | None = None
    now_s: float = START_S
    tenants: set[str] = field(default_factory=set)

    def advance(self, seconds: float) -> None:
        self.now_s += seconds
        for tenant in self.tenants:
            self.set_clock(tenant, self.now_s)

    def use(self, *tenants: str) -> None:
        """Lets the clock hold for these tenants."""
        self.tenants.update(tenants)
        self.advance(0)

    async def add(
        self,
        tenant: str,
        *users: str,
        wide: bool = False,
        ident: str = "",
        kind: str = "system",
        ttl_s: float = 0,
        data: bytes = b"",
    ) -> str:
        """Appends one notification, always as a new one (even of an id that is known); its id."""
        return (
            await self.append(tenant, *users, wide=wide, ident=ident, kind=kind, ttl_s=ttl_s, data=data)
        ).id

    async def append(
        self,
        tenant: str,
        *users: str,
        wide: bool = False,
        ident: str = "",
        kind: str = "system",
        ttl_s: float = 0,
        data: bytes = b"",
    ) -> Receipt:
        self.use(tenant)
        ident = ident or secrets.token_hex(6)
        now_ms = int(self.node_clock() * 1000)
        return await self.bus.append(
            Draft(
                tenant=tenant,
                channels=("all",) if wide else tuple("user:" + user for user in users),
                id=ident,
                type="notification",
                data=data or b'{"id":"%s"}' % ident.encode(),
                time_ms=now_ms,
                expires_ms=now_ms + int(ttl_s * 1000) if ttl_s else 0,
                dedupe_key=secrets.token_hex(8),
                inbox=InboxRider(users, wide, kind),
            )
        )


class Opened(Protocol):
    def __call__(
        self, settings: InboxSettings | None = None, follower: Follower | None = None
    ) -> AbstractAsyncContextManager[Inboxes]: ...


@asynccontextmanager
async def memory(
    settings: InboxSettings | None = None, follower: Follower | None = None
) -> AsyncIterator[Inboxes]:
    clock = _Clock()
    bus = MemoryBus(parts=[inbox_part(settings)], clock=clock)
    await bus.start(follower or Recorder())
    try:
        yield Inboxes(bus, SqlInbox(bus.database, clock=clock), clock.set, clock)
    finally:
        await bus.close()


@asynccontextmanager
async def sqlite(
    settings: InboxSettings | None = None, follower: Follower | None = None
) -> AsyncIterator[Inboxes]:
    clock = _Clock()
    with tempfile.TemporaryDirectory() as folder:
        bus = SqliteBus(Path(folder) / "bus.db", parts=[inbox_part(settings)], clock=clock)
        await bus.start(follower or Recorder())
        try:
            yield Inboxes(bus, SqlInbox(bus.database, clock=clock), clock.set, clock)
        finally:
            await bus.close()


@asynccontextmanager
async def redis(
    settings: InboxSettings | None = None,
    follower: Follower | None = None,
    *,
    clock: str = TEST_CLOCK,
) -> AsyncIterator[Inboxes]:
    server = redis_server.shared()
    prefix = "t" + secrets.token_hex(4)
    bus = RedisBus(
        RedisSettings(url=server.url, prefix=prefix), extensions=[inbox_extension(settings, clock=clock)]
    )
    await bus.start(follower or Recorder())

    def set_clock(tenant: str, now_s: float) -> None:
        server.command("SET", f"{prefix}:{{{tenant}}}:n:clock", int(now_s * 1000))

    try:
        yield Inboxes(bus, RedisInbox(bus), set_clock, lambda: time.time(), server)
    finally:
        await bus.close()


@asynccontextmanager
async def redis_time(
    settings: InboxSettings | None = None, follower: Follower | None = None
) -> AsyncIterator[Inboxes]:
    """By Redis's own clock, which no test can set."""
    async with redis(settings, follower, clock=SERVER_CLOCK) as inboxes:
        yield inboxes


class _Clock:
    def __init__(self) -> None:
        self.now_s = START_S

    def __call__(self) -> float:
        return self.now_s

    def set(self, tenant: str, now_s: float) -> None:
        self.now_s = now_s


ENGINES: dict[str, Opened] = {"memory": memory, "sqlite": sqlite, "redis": redis}


async def listing(
    store: InboxStore, tenant: str, user: str, *, limit: int = 100, **more: object
) -> list[str]:
    """`id:state` of all pages, newest first."""
    found: list[str] = []
    before = 0
    while True:
        page = await store.page(tenant, user, before=before, limit=limit, **more)  # type: ignore[arg-type]
        found += [f"{item.id}:{item.state}" for item in page.items]
        before = page.next
        if not before:
            return found
