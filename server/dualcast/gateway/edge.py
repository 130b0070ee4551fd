"""What is done to every HTTP request before Litestar sees it: CORS, rate per address, compressed bodies,
HEAD, ids in paths.

Plain ASGI around `Litestar.asgi_handler`, so that it also covers 404 and 405, which Litestar's middleware
does not.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, cast

from litestar.types import ASGIApp, Message, Receive, Send
from litestar.types import Scope as TypedScope

from dualcast.model.errors import DualcastError

from .authentication import client_address
from .body import Scope, header, refuse_encoding
from .problems import send_problem
from .services import Services

STREAMS = frozenset({"/v1/stream", "/v1/socket"})
"""Paths that count their handshakes themselves: an `EventSource` never comes back after a 429."""
UNLIMITED = STREAMS | {"/healthz", "/readyz", "/metrics"}
_API = ("/v1/", "/api/v1/", "/api/notifications/")
_ALLOW_HEADERS = b"Authorization, Content-Type, Idempotency-Key, Last-Event-ID"
_ALLOW_METHODS = b"GET, POST, PUT, DELETE"
_EXPOSE = b"Retry-After, Deprecation, Sunset, Link"
_VARY = (b"vary", b"Origin")
_CREDENTIALS = (b"access-control-allow-credentials", b"true")


class Edge:
    """ASGI middleware."""

    def __init__(
        self,
        app: ASGIApp,
        services: Services,
        direct: Mapping[str, ASGIApp] | None = None,
        find: Callable[[Scope], ASGIApp | None] = lambda scope: None,
    ) -> None:
        """`direct`: path → handler that is called without going through Litestar's router. They are
        registered there as well (and documented from there); its routing and guards cost as much as the
        publish. `find`: the same for paths with parameters.
        """
        self._app = app
        self._find = find
        self._services = services
        self._direct = direct or {}

    async def __call__(self, typed_scope: TypedScope, receive: Receive, send: Send) -> None:
        scope = cast(Scope, typed_scope)
        if scope["type"] != "http":
            direct = self._direct_for(scope, scope["path"]) if scope["type"] == "websocket" else None
            sending = _as_denial(send) if scope["type"] == "websocket" else send
            await (direct or self._app)(typed_scope, receive, sending)
            return
        origin = header(scope, b"origin")
        if origin:
            allowed = self._cors(origin)
            if scope["method"] == "OPTIONS" and header(scope, b"access-control-request-method"):
                await _preflight(send, allowed)
                return
            send = _with_cors(send, allowed)
        try:
            path = scope["path"]
            if path not in UNLIMITED:
                self._services.limits.request(client_address(scope))
            refuse_encoding(scope)
        except DualcastError as error:
            await send_problem(send, error)
            return
        direct = self._direct_for(scope, path)
        if direct is None:
            await self._app(cast(TypedScope, _adapted(scope, path)), receive, send)
        else:
            await direct(typed_scope, receive, send)

    def _direct_for(self, scope: Scope, path: str) -> ASGIApp | None:
        return self._direct.get(path) or self._find(scope)

    def _cors(self, origin: str) -> list[tuple[bytes, bytes]]:
        """The headers that let a page of `origin` read an answer; [] for a page that may not. Which tenant is
        called is not known yet, so pages of every tenant may ask; whether a cookie counts is decided with the
        caller (`identity.authenticator`).
        """
        allowed = self._services.origin_allowed
        if not allowed(origin, False):
            return []
        found = [(b"access-control-allow-origin", origin.encode("latin-1"))]
        return [*found, _CREDENTIALS] if allowed(origin, True) else found


def _adapted(scope: Scope, path: str) -> Scope:
    """The scope with the path of an API route left percent-encoded, and HEAD made GET. Ids of users, channels
    and conversations may hold `/` and `%`: handlers decode the segment they are given.
    """
    changes: dict[str, Any] = {}
    if path.startswith(_API):
        raw = scope.get("raw_path") or b""
        sent = raw.decode("latin-1").partition("?")[0]
        if "%" in sent and sent.startswith(_API) and sent.isascii():
            changes["path"] = sent
    if scope["method"] == "HEAD" and path not in STREAMS:
        # The server leaves the body out: it judges by its own scope, which this copy does not touch.
        changes["method"] = "GET"
    return {**scope, **changes} if changes else scope


def _as_denial(send: Send) -> Send:
    """HTTP answers to a WebSocket handshake, from routes that take none, go out as its denial (ASGI extension
    `websocket.http.response`, which the server has).
    """

    async def sending(message: Message) -> None:
        if message["type"].startswith("http.response."):
            message = cast(Message, {**message, "type": "websocket." + message["type"]})
        await send(message)

    return sending


async def _preflight(send: Send, allowed: list[tuple[bytes, bytes]]) -> None:
    headers = [_VARY]
    if allowed:
        headers += [
            *allowed,
            (b"access-control-allow-methods", _ALLOW_METHODS),
            (b"access-control-allow-headers", _ALLOW_HEADERS),
            (b"access-control-max-age", b"600"),
        ]
    await send({"type": "http.response.start", "status": 204, "headers": headers})
    await send({"type": "http.response.body", "body": b"", "more_body": False})


def _with_cors(send: Send, allowed: list[tuple[bytes, bytes]]) -> Send:
    async def sending(message: Message) -> None:
        if message["type"] == "http.response.start":
            headers = [*message["headers"], _VARY]
            if allowed:
                headers += [*allowed, (b"access-control-expose-headers", _EXPOSE)]
            message["headers"] = headers
        await send(message)

    return sending
