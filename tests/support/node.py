"""The whole server in the test's own event loop: `dualcast.app.build` on a real socket, on any engine and on
either set of protocol classes.

Tenants `default` and `other` exist, each with an HS256 key of its own. On Redis every test has its own key
prefix, so one shared server does for all that need nothing special.
"""

from __future__ import annotations

import asyncio
import json
import secrets
import tempfile
import time
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import ExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from unittest import mock

import httpx
import msgspec

from dualcast import app as composition_root
from dualcast.app import Composition, build
from dualcast.mapping import session_settings, transport_settings
from dualcast.session.session import Session
from dualcast.settings import Settings
from support import redis_server
from support.live_server import LiveServer, running_server
from support.plain_http import http_client
from support.tokens import key, token

ENGINES = ("memory", "sqlite", "redis")
TENANTS = ("default", "other")
WAIT_S = 15.0
"""How long a test waits for what must come; a bound, not an expectation."""


@dataclass
class Place:
    """Where a node keeps its data: what outlives a restart of it, and what several nodes share."""

    engine: str
    folder: Path
    redis_url: str = ""
    prefix: str = field(default_factory=lambda: "t" + secrets.token_hex(6))


@asynccontextmanager
async def place(engine: str, *, redis_url: str = "") -> AsyncIterator[Place]:
    """A fresh place. `redis_url`: a server of the test's own, in place of the shared one."""
    with tempfile.TemporaryDirectory(prefix="dc-node-") as folder:
        url = redis_url or (redis_server.shared().url if engine == "redis" else "")
        yield Place(engine, Path(folder), url)


class Node:
    """A running server, as tests use it."""

    def __init__(self, composition: Composition, live: LiveServer, client: httpx.AsyncClient) -> None:
        self.composition = composition
        self.live = live
        self.http = client
        """For REST, with the base URL of the node and no credentials of its own."""
        self.port = live.port
        self.base_url = live.base_url

    # ── REST ─────────

    @staticmethod
    def token(sub: str = "alice", *, tenant: str = "default", life_s: float = 3600, **claims: Any) -> str:
        """A good token of a user. `life_s` may be negative."""
        now = int(time.time())
        return token(key(tenant=tenant), sub=sub, tenant=tenant, exp=int(now + life_s), **claims)

    def auth(self, sub: str = "backend", *roles: str, tenant: str = "default") -> dict[str, str]:
        """The Authorization header of a caller."""
        return {"Authorization": "Bearer " + self.token(sub, tenant=tenant, roles=list(roles))}

    async def publish(
        self,
        channel: str | Sequence[str],
        data: Any = None,
        *,
        kind: str = "note",
        tenant: str = "default",
        **fields: Any,
    ) -> dict[str, Any]:
        """`POST /v1/publish`; the answer's body. Fails unless it was accepted."""
        targets = {"channel": channel} if isinstance(channel, str) else {"channels": list(channel)}
        body = {**targets, "type": kind, "data": {"n": 0} if data is None else data, **fields}
        answer = await self.http.post(
            "/v1/publish", json=body, headers=self.auth("backend", "publisher", tenant=tenant)
        )
        assert answer.status_code in (200, 201), answer.text
        found: dict[str, Any] = answer.json()
        return found

    async def ticket(self, transport: str, sub: str = "alice") -> str:
        """A connect ticket of a user."""
        answer = await self.http.post("/v1/tickets", json={"transport": transport}, headers=self.auth(sub))
        assert answer.status_code == 201, answer.text
        return str(answer.json()["ticket"])

    async def grant(self, channel: str, *members: str) -> None:
        """Grants a channel to users."""
        answer = await self.http.put(
            f"/v1/channels/{channel}/grants",
            json={"members": list(members)},
            headers=self.auth("backend", "publisher"),
        )
        assert answer.status_code == 200, answer.text

    async def metric(self, name: str) -> float:
        """The sum of all samples of a metric."""
        text = (await self.http.get("/metrics")).text
        rows = [line for line in text.splitlines() if line.partition("{")[0].partition(" ")[0] == name]
        return sum(float(row.rpartition(" ")[2]) for row in rows)

    # ── inside ─────────

    @property
    def sessions(self) -> list[Session]:
        """Attached sessions, oldest first."""
        return [one for one in self.composition.hub.sessions.values() if isinstance(one, Session)]

    async def until(self, condition: Callable[[], bool], what: str = "condition") -> None:
        """Waits for a state of the server that no client is told of."""
        try:
            async with asyncio.timeout(WAIT_S):
                while not condition():
                    await asyncio.sleep(0.01)
        except TimeoutError:
            raise AssertionError(f"never came: {what}") from None

    async def session_of(self, sub: str, count: int = 1) -> Session:
        """The newest session of a user, once there are `count` and all are live."""

        def own() -> list[Session]:
            return [one for one in self.sessions if one.principal.sub == sub and one.live]

        await self.until(lambda: len(own()) >= count, f"{count} live sessions of {sub}")
        return own()[-1]

    async def settled(self, tenant: str = "default") -> None:
        """Waits until this node knows that all there is has been handed over (on Redis by its probe)."""
        head = (await self.composition.bus.head(tenant)).offset
        feed = self.composition.hub.tenants[tenant]
        await self.until(lambda: feed.head >= head, f"position {head} of {tenant}")

    def sweep(self, times: int = 1) -> None:
        """Sweeps over all sessions, now."""
        for _ in range(times * self.composition.node.settings.sweep_s):
            self.composition.sweep.tick()


def settings_for(where: Place, overrides: Mapping[str, Mapping[str, Any]]) -> Settings:
    """The settings of a node at a place. `overrides`: section → values."""
    tenants = where.folder / "tenants.json"
    tenants.write_text(json.dumps({"tenants": [{"id": name} for name in TENANTS if name != "default"]}))
    raw: dict[str, dict[str, Any]] = {
        "server": {"drain_s": 1.0},
        "bus": {"engine": where.engine, "data_dir": str(where.folder / "data"), "probe_interval_s": 0.2},
        "identity": {
            "keys": [{"secret": key(tenant=name).material.decode(), "tenant": name} for name in TENANTS],
            "leeway_s": 0,
        },
        "tenancy": {"file": str(tenants)},
    }
    if where.engine == "redis":
        raw["redis"] = {"url": where.redis_url, "key_prefix": where.prefix}
    for section, values in overrides.items():
        raw.setdefault(section, {}).update(values)
    return msgspec.convert(raw, Settings)


@asynccontextmanager
async def running_node(
    engine: str | Place,
    *,
    detach: bool = True,
    session: Mapping[str, Any] | None = None,
    **overrides: Mapping[str, Any],
) -> AsyncIterator[Node]:
    """A server on `engine`, or at a place that is shared or was used before.

    `detach=False`: uvicorn's stock protocol classes, sessions over plain ASGI. `overrides`: settings by
    section (`delivery={"lag_limit_s": 1}`); `session`: values of SessionSettings the settings do not reach.
    """
    async with _placed(engine) as where:
        settings = settings_for(where, overrides)
        with ExitStack() as stack:
            if session:
                quick = msgspec.structs.replace(session_settings(settings), **session)
                stack.enter_context(
                    mock.patch.object(composition_root, "session_settings", lambda _settings: quick)
                )
            composition = build(settings)
        transport = msgspec.structs.replace(transport_settings(settings), grace_s=1.0)
        async with composition.lifespan():
            server = running_server(composition.app, transport, stock=not detach, on_drain=composition.drain)
            async with server as live, http_client(base_url=live.base_url, timeout=WAIT_S) as client:
                yield Node(composition, live, client)


@asynccontextmanager
async def _placed(engine: str | Place) -> AsyncIterator[Place]:
    if isinstance(engine, Place):
        yield engine
        return
    async with place(engine) as fresh:
        yield fresh
