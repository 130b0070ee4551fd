"""A running node with the contract `notifications`, and the clients it was made for: they read what comes and
remove no duplicates."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from typing import Any
from unittest import mock
from urllib.parse import quote

import msgspec

from dualcast import app as composition_root
from dualcast.bus.announcing import Announcer
from dualcast.bus.redis.plain import PlainKeys
from dualcast.dialects.legacy import LegacySettings
from dualcast.gateway.legacy.routes import legacy_routes, make_legacy
from dualcast.session.legacy_registry import Registry
from dualcast.tasks.known import KnownTasks
from dualcast.tasks.older_queue import OlderQueue, OlderQueueSettings
from support.node import Node, Place, running_node
from support.raw_http import Wire, connect, open_sse, open_websocket

SOCKET = "/api/ws/notifications"
STREAM = "/api/notifications/stream"


class Ended(Exception):
    """The server closed a socket, or ended a stream (code 0)."""

    def __init__(self, code: int = 0, reason: str = "") -> None:
        super().__init__(f"{code} {reason}")
        self.code = code
        self.reason = reason


@dataclass
class LegacyNode:
    """The node, as a test of the contract uses it."""

    node: Node
    older: OlderQueue | None
    registry: Registry
    plain: PlainKeys | None = None
    wires: list[Wire] = field(default_factory=list)
    """All that was opened; closed with the node."""

    def _kept(self, wire: Wire) -> Wire:
        self.wires.append(wire)
        return wire

    async def connected(self) -> Wire:
        """A connection on which nothing has been said."""
        return self._kept(await connect(self.node.port))

    async def raw_socket(self, path: str, **headers: str | None) -> Wire:
        """A socket with whatever the path says."""
        return self._kept(await open_websocket(self.node.port, path, **headers))

    async def raw_stream(self, path: str, **headers: str) -> Wire:
        """A stream with whatever the path says."""
        return self._kept(await open_sse(self.node.port, path, **headers))

    async def socket(self, path: str = SOCKET, user: str = "u1", *roles: str, bearer: str = "") -> Wire:
        """A socket with the token in the query."""
        token = bearer or self.node.token(user, roles=list(roles))
        return await self.raw_socket(f"{path}?token={quote(token)}")

    async def stream(
        self, path: str = STREAM, user: str = "u1", *roles: str, bearer: str = "", **headers: str
    ) -> Wire:
        """A stream with the token in the query."""
        token = bearer or self.node.token(user, roles=list(roles))
        return await self.raw_stream(f"{path}?token={quote(token)}", **headers)

    async def notify(self, ident: str, to: Mapping[str, Any] | None = None, **more: Any) -> None:
        """`POST /v1/notifications`, by default to u1."""
        body = {"to": to or {"user": "u1"}, "title": "T " + ident, "id": ident, **more}
        answer = await self.node.http.post(
            "/v1/notifications", json=body, headers=self.node.auth("backend", "publisher")
        )
        assert answer.status_code in (200, 201), answer.text

    async def task(self, ident: str = "T1", owner: str = "u1", **more: Any) -> None:
        """Registers a task."""
        await self._task("PUT", ident, {"owner": owner, **more})

    async def report(self, ident: str = "T1", **said: Any) -> None:
        """Reports of a task."""
        await self._task("POST", ident, said)

    async def _task(self, method: str, ident: str, body: Mapping[str, Any]) -> None:
        headers = self.node.auth("backend", "publisher")
        answer = await self.node.http.request(method, f"/v1/tasks/{ident}", json=body, headers=headers)
        assert answer.status_code in (200, 201), answer.text

    async def batch(self, ident: str = "B1", owner: str = "u1", **more: Any) -> None:
        """Registers a batch."""
        answer = await self.node.http.put(
            f"/v1/batches/{ident}",
            json={"owner": owner, **more},
            headers=self.node.auth("backend", "publisher"),
        )
        assert answer.status_code in (200, 201), answer.text


@asynccontextmanager
async def legacy_node(
    engine: str | Place, *, detach: bool = True, limit: int = 0, **settings: Any
) -> AsyncIterator[LegacyNode]:
    """`settings`: of LegacySettings; `limit`: connections per user and stream."""
    legacy_settings = LegacySettings(**settings)
    registry = Registry(max_per_user=limit)
    made: list[Any] = []
    socket_route, litestar_app = composition_root.socket_route, composition_root.litestar_app

    def remembering(delivery: Any) -> Any:
        made.append(delivery)
        return socket_route(delivery)

    async def owner(tenant: str, channel: str) -> str | None:
        found: str | None = await made[1].owner(tenant, channel)
        return found

    def with_contract(services: Any, handlers: Any) -> Any:
        legacy = make_legacy(made[0], registry, legacy_settings, tenant="default", owner=owner)
        return litestar_app(services, [*handlers, *legacy_routes(legacy, ("notifications",))])

    async with AsyncExitStack() as stack:
        with (
            mock.patch.object(composition_root, "socket_route", remembering),
            mock.patch.object(composition_root, "litestar_app", with_contract),
        ):
            node = await stack.enter_async_context(
                running_node(engine, detach=detach, legacy={"dialects": []})
            )
        composition = node.composition
        older, plain = None, None
        if composition.stores.redis is not None:

            def watched(tenant: str, channel: str) -> bool:
                feed = composition.hub.tenants.get(tenant)
                found = feed.channels.get(channel) if feed is not None else None
                return found is not None and bool(found.sessions)

            plain = composition.stores.redis
            older = OlderQueue(
                plain,
                Announcer(composition.bus),
                watched,
                OlderQueueSettings(batch_poll_s=0.05),
            )
            running = asyncio.create_task(older.run())
            stack.callback(running.cancel)
        known = KnownTasks(composition.features.tasks, older)
        made.append(known)
        composition.node.states.sources.update(task=known.state, batch=known.state)
        legacy = LegacyNode(node, older, registry, plain)
        try:
            yield legacy
        finally:
            for wire in legacy.wires:
                await wire.close()


async def text(wire: Wire) -> str:
    """The next text of a socket; pings are passed over. Raises Ended."""
    while True:
        frame = await wire.frame()
        if frame.opcode == 1:
            return frame.payload.decode()
        if frame.opcode == 8:
            raise Ended(frame.close_code, frame.payload[2:].decode())


async def quiet(wire: Wire) -> None:
    """Asserts that the socket is open and nothing was sent: the next thing but control pings is the answer to
    ours."""
    wire.send(9, b"still here")
    while (frame := await wire.frame()).opcode == 9:
        wire.send(10, frame.payload)
    assert (frame.opcode, frame.payload) == (10, b"still here")


async def said(wire: Wire) -> tuple[str, dict[str, Any]]:
    """(type, data) of the next text."""
    found = json.loads(await text(wire))
    return found["type"], found["data"]


async def event(wire: Wire) -> tuple[str, dict[str, Any]]:
    """(event, data) of the next block. Raises Ended."""
    try:
        fields = await wire.event()
    except EOFError:
        raise Ended from None
    return fields["event"], json.loads(fields["data"])


async def block(wire: Wire) -> str:
    """The next block as it was sent. Raises Ended."""
    try:
        return await wire._block() + "\n\n"
    except EOFError:
        raise Ended from None


def problem(wire: Wire) -> tuple[int, dict[str, Any]]:
    """Status and body of a refused stream."""
    assert wire.response is not None
    assert wire.response.headers["content-type"] == "application/problem+json"
    return wire.response.status, msgspec.json.decode(wire.response.body)


async def opened_socket(node: LegacyNode, path: str = SOCKET, *who: str) -> Wire:
    """A socket after its first frame."""
    wire = await node.socket(path, *who)
    kind = json.loads(await text(wire))["type"]
    assert kind in ("connected", "connection_established")
    return wire


async def opened_stream(node: LegacyNode, path: str = STREAM, *who: str, **headers: str) -> Wire:
    """A stream after its first block."""
    wire = await node.stream(path, *who, **headers)
    assert wire.response is not None and wire.response.status == 200, wire.response
    assert (await event(wire))[0] == "connected"
    return wire


async def nothing_but(node: LegacyNode, wire: Wire, kind: str, count: int) -> list[dict[str, Any]]:
    """What comes until a last notification whose id begins with `end`, each of `kind`."""
    found = []
    while (one := await (event(wire) if is_stream(wire) else said(wire)))[1].get("id", "")[:3] != "end":
        assert one[0] == kind
        found.append(one[1])
    assert len(found) == count
    return found


def is_stream(wire: Wire) -> bool:
    return wire.response is not None and wire.response.status == 200
