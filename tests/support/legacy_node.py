"""A running node with legacy endpoints of the test's own (or of contracts by name), and clients that see the
wire as it is: the texts of a socket, the bytes of a stream.

    async with legacy_node("memory", rooms.endpoints(LegacySettings())) as node, \
            await socket(node, "/api/v1/ws/alice", "alice") as client:
        assert await client.text() == '{"type":"connection_established",…}'
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AsyncExitStack, ExitStack, asynccontextmanager
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Self
from unittest import mock
from urllib.parse import quote

from websockets.asyncio.client import ClientConnection
from websockets.asyncio.client import connect as websocket_connect
from websockets.exceptions import ConnectionClosed, InvalidStatus

from dualcast import app as composition_root
from dualcast.dialects.legacy import Endpoint, LegacySettings
from dualcast.gateway.legacy.finding import contract_endpoints
from dualcast.gateway.legacy.routes import make_legacy, route
from dualcast.gateway.legacy.services import Legacy
from dualcast.identity.demo import DemoAuthenticator
from dualcast.session.legacy_registry import Registry
from support.node import Node, Place, running_node
from support.raw_http import Wire, connect

PATIENCE_S = 15.0


class LegacyNode(Node):
    """A `support.node.Node` with its legacy parts."""

    legacy: Legacy


@asynccontextmanager
async def legacy_node(
    engine: str | Place,
    endpoints: Sequence[Endpoint] = (),
    *,
    dialects: Sequence[str] = (),
    settings: LegacySettings | None = None,
    detach: bool = True,
    session: Mapping[str, Any] | None = None,
    **overrides: Mapping[str, Any],
) -> AsyncIterator[LegacyNode]:
    """Serves `endpoints` and those of the contracts `dialects`; the node's own contracts are switched off.
    `settings.dev`: with demo tokens."""
    used = settings or LegacySettings()
    made: list[Legacy] = []
    real_app, real_delivery = composition_root.litestar_app, composition_root.Delivery

    deliveries: list[Any] = []

    def keep(**parts: Any) -> Any:
        deliveries.append(real_delivery(**parts))
        return deliveries[-1]

    def with_legacy(services: Any, handlers: Sequence[Any] = (), **options: Any) -> Any:
        registry = Registry(max_per_user=used.max_connections_per_user, cut_on_expiry=used.cut_on_expiry)
        legacy = make_legacy(deliveries[-1], registry, used, tenant="default")
        made.append(legacy)
        all_endpoints = [*endpoints, *contract_endpoints(used, dialects)]
        return real_app(services, [*handlers, *(route(legacy, one) for one in all_endpoints)], **options)

    overrides.setdefault("legacy", {"dialects": []})
    async with AsyncExitStack() as running:
        with ExitStack() as stack:
            stack.enter_context(mock.patch.object(composition_root, "Delivery", keep))
            stack.enter_context(mock.patch.object(composition_root, "litestar_app", with_legacy))
            if used.dev:
                real_door = composition_root.Authenticator

                def door(*given: Any, **named: Any) -> Any:
                    return DemoAuthenticator(real_door(*given, **named), "default")

                stack.enter_context(mock.patch.object(composition_root, "Authenticator", door))
            node = await running.enter_async_context(
                running_node(engine, detach=detach, session=session, **overrides)
            )
        found = LegacyNode(node.composition, node.live, node.http)
        found.legacy = made[-1]
        yield found


class Closed(Exception):
    """The server closed the socket."""

    def __init__(self, code: int, reason: str) -> None:
        super().__init__(f"closed: {code} {reason}")
        self.code = code
        self.reason = reason


@dataclass
class Socket:
    """An open WebSocket of a contract."""

    socket: ClientConnection

    async def text(self, timeout_s: float = PATIENCE_S) -> str:
        """The next text frame; raises Closed, TimeoutError."""
        try:
            async with asyncio.timeout(timeout_s):
                got = await self.socket.recv()
        except ConnectionClosed as closed:
            received = closed.rcvd
            raise Closed(received.code if received else 1006, received.reason if received else "") from None
        assert isinstance(got, str)
        return got

    async def texts(self, count: int) -> list[str]:
        """The next so many."""
        return [await self.text() for _ in range(count)]

    async def say(self, text: str | bytes) -> None:
        """Sends a frame."""
        await self.socket.send(text)

    async def ask(self, text: str) -> str:
        """Sends a frame and gives the next text."""
        await self.say(text)
        return await self.text()

    async def end(self) -> Closed:
        """Reads on until the server closes."""
        while True:
            try:
                await self.text()
            except Closed as closed:
                return closed

    async def close(self) -> None:
        with contextlib.suppress(ConnectionClosed, OSError):
            await self.socket.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()


async def socket(
    node: Node,
    path: str,
    sub: str | None = None,
    *,
    token: str | None = None,
    headers: Mapping[str, str] | None = None,
    **parameters: str,
) -> Socket:
    """Opens a socket with `?token=` (a good one of `sub`, or `token` as it is); raises InvalidStatus when the
    handshake is denied."""
    given = node.token(sub) if token is None and sub is not None else token
    pairs = {**({} if given is None else {"token": given}), **parameters}
    query = "&".join(f"{name}={quote(value, safe='')}" for name, value in pairs.items())
    return Socket(
        await websocket_connect(
            f"ws://127.0.0.1:{node.port}{path}" + ("?" + query if query else ""),
            additional_headers=dict(headers or {}),
            compression=None,
            ping_interval=None,
            max_queue=None,
            open_timeout=PATIENCE_S,
            close_timeout=1,
            proxy=None,
        )
    )


async def refusal(node: Node, path: str, sub: str | None = None, **how: Any) -> tuple[int, str] | int:
    """How a handshake ends: (close code, reason) after the accept, or the HTTP status before it."""
    try:
        client = await socket(node, path, sub, **how)
    except InvalidStatus as denied:
        return denied.response.status_code
    async with client:
        try:
            text = await client.text()
        except Closed as closed:
            return closed.code, closed.reason
    raise AssertionError(f"let in: {text}")


@dataclass
class Stream:
    """An open stream of a contract."""

    wire: Wire
    _rest: bytes = b""

    @property
    def status(self) -> int:
        assert self.wire.response is not None
        return self.wire.response.status

    @property
    def headers(self) -> dict[str, str]:
        assert self.wire.response is not None
        return self.wire.response.headers

    @property
    def body(self) -> bytes:
        """Of a refusal."""
        assert self.wire.response is not None
        return self.wire.response.body

    async def block(self) -> str:
        """The next SSE block with its blank line; "" at the end of the stream."""
        while b"\n\n" not in self._rest:
            data = await self.wire.chunk()
            if not data:
                assert not self._rest, self._rest
                return ""
            self._rest += data
        block, _, self._rest = self._rest.partition(b"\n\n")
        return block.decode() + "\n\n"

    async def blocks(self, count: int) -> list[str]:
        """The next so many."""
        return [await self.block() for _ in range(count)]

    async def close(self) -> None:
        await self.wire.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()


async def stream(
    node: Node,
    path: str,
    sub: str | None = None,
    *,
    token: str | None = None,
    last_event_id: str = "",
    headers: Mapping[str, str] | None = None,
    **parameters: str,
) -> Stream:
    """Asks for a stream with `?token=`; the status is in what it gives."""
    given = node.token(sub) if token is None and sub is not None else token
    pairs = {**({} if given is None else {"token": given}), **parameters}
    query = "&".join(f"{name}={quote(value, safe='')}" for name, value in pairs.items())
    lines = ["host: test", "accept: text/event-stream"]
    if last_event_id:
        lines.append(f"last-event-id: {last_event_id}")
    lines += [f"{name}: {value}" for name, value in (headers or {}).items()]
    wire = await connect(node.port)
    target = path + ("?" + query if query else "")
    wire.write("\r\n".join([f"GET {target} HTTP/1.1", *lines, "", ""]).encode("latin-1"))
    try:
        response = await wire.read_response(body=False)
        if "content-length" in response.headers:
            body = await wire.exactly(int(response.headers["content-length"]))
            wire.response = response._replace(body=body)
    except BaseException:
        wire.reset()
        raise
    return Stream(wire)
