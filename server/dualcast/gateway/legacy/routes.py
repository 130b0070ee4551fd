"""The handlers of every endpoint, and the one function the composition root calls."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from http import HTTPStatus
from typing import Any, cast
from urllib.parse import unquote

import structlog
from litestar.handlers import asgi
from litestar.handlers.asgi_handlers import ASGIRouteHandler
from litestar.types import Receive, Send
from litestar.types import Scope as TypedScope

from dualcast.bus.announcing import Announcer
from dualcast.dialects.legacy import Endpoint, LegacySettings
from dualcast.gateway.authentication import AUTHENTICATES
from dualcast.gateway.body import Scope, header
from dualcast.gateway.connect import REFUSED, Delivery
from dualcast.gateway.problems import MethodNotAllowed, send_problem
from dualcast.gateway.socket import NotAnUpgrade
from dualcast.gateway.stream import send_away, send_empty
from dualcast.gateway.visitors import note_refusal
from dualcast.model.errors import BusUnavailable, DualcastError
from dualcast.session.legacy_registry import Registry
from dualcast.transport.asgi import respond_sse, respond_websocket
from dualcast.transport.legacy import LATER, LegacySocket, LegacyStream, legacy_encoding

from .actions import Receiver
from .connect import Door, Full, StageRefuses, retry_after_s
from .finding import OURS, contract_endpoints
from .paths import LEGACY
from .refusals import Refused, accept_and_close, deny, send_refusal
from .services import Legacy, Owner, Service, conversation_calls, farewells, task_owner
from .stats import StatsReader

log = structlog.get_logger("dualcast.gateway")

_HEADERS = (
    (b"content-type", b"text/event-stream; charset=utf-8"),
    (b"cache-control", b"no-cache"),
    (b"x-accel-buffering", b"no"),
)
_KEEP_ALIVE = (b"connection", b"keep-alive")


def make_legacy(
    delivery: Delivery,
    registry: Registry,
    settings: LegacySettings,
    *,
    tenant: str,
    owner: Owner | None = None,
    calls: Mapping[str, Service] | None = None,
) -> Legacy:
    """What all endpoints share. `tenant`: of callers without a token; `owner`: whose a task or batch is
    (default: what was registered here); `calls`: further services for `dialects.legacy.Call`."""
    registry.say = farewells(Announcer(delivery.services.bus))
    return Legacy(
        delivery=delivery,
        settings=settings,
        registry=registry,
        stats=StatsReader(delivery.node, delivery.services, registry, tenant),
        owner=owner or task_owner(delivery),
        calls={**conversation_calls(delivery), **(calls or {})},
        tenant=tenant,
    )


def legacy_routes(legacy: Legacy, dialects: Sequence[str] = OURS) -> list[ASGIRouteHandler]:
    """The handlers of the sockets and streams of `dialects`, for `gateway.routes.litestar_app`. Raises
    `finding.ContractUnusable`: the server must not start."""
    return [route(legacy, endpoint) for endpoint in contract_endpoints(legacy.settings, dialects)]


def route(legacy: Legacy, endpoint: Endpoint) -> ASGIRouteHandler:
    """The handler of one endpoint."""
    serve = (_Socket if endpoint.transport == "ws" else _Stream)(legacy, endpoint).serve

    @asgi(
        endpoint.path,
        copy_scope=False,
        opt={AUTHENTICATES: True, LEGACY: endpoint.transport},
        name="legacy " + endpoint.path,
    )
    async def handler(scope: TypedScope, receive: Receive, send: Send) -> None:
        await serve(cast(Scope, scope), receive, send)

    return handler


class _Socket:
    """A WebSocket endpoint. A refusal is accepted first: a browser can read neither status nor body of a
    denied handshake."""

    def __init__(self, legacy: Legacy, endpoint: Endpoint) -> None:
        encoding = legacy_encoding(endpoint, legacy.registry)
        self._legacy = legacy
        self._endpoint = endpoint
        self._door = Door(legacy, endpoint, encoding, LegacySocket)
        self._receiver = Receiver(legacy, endpoint)

    async def serve(self, scope: Scope, receive: Any, send: Any) -> None:
        if scope["type"] != "websocket":
            await send_problem(send, NotAnUpgrade("open a WebSocket here"))
            return
        counters = self._legacy.delivery.services.counters.delivery(REFUSED, "ws")
        try:
            session, subprotocol = await self._door.admit(scope, receiver=self._receiver)
        except Refused as refused:
            counters.refused += 1
            await self._refuse(scope, receive, send, refused)
        except StageRefuses:
            counters.refused += 1
            await deny(receive, send)  # so that the client's attempts count, and it takes the stream
        except Full as full:
            counters.refused += 1
            last = self._endpoint.full(full.facts) if self._endpoint.full is not None else ()
            await accept_and_close(receive, send, *LATER, last)
        except BusUnavailable:
            counters.refused += 1
            await accept_and_close(receive, send, *self._endpoint.unregistered)
        except DualcastError as error:
            counters.refused += 1
            note_refusal(self._legacy.delivery.node, scope, "ws", error)
            await accept_and_close(receive, send, *LATER)
        except Exception:
            # A room edge: nobody is told the text of an exception.
            counters.refused += 1
            log.exception("a handshake failed", path=self._endpoint.path)
            await accept_and_close(receive, send, *self._endpoint.internal)
        else:
            await respond_websocket(scope, receive, send, session, subprotocol=subprotocol)

    async def _refuse(self, scope: Scope, receive: Any, send: Any, refused: Refused) -> None:
        refusal = refused.refusal
        client = scope.get("client")
        caller = _token(scope) or f"@{client[0] if client else ''}"
        if self._legacy.repeated.note(scope["path"], caller):
            self._legacy.registry.counted["refused_early"] += 1
            await deny(receive, send)
        else:
            await accept_and_close(receive, send, refusal.code, refusal.reason)


class _Stream:
    """An SSE endpoint. Any status but 200 is an error event for an `EventSource`."""

    def __init__(self, legacy: Legacy, endpoint: Endpoint) -> None:
        encoding = legacy_encoding(endpoint, legacy.registry)
        self._legacy = legacy
        self._endpoint = endpoint
        self._door = Door(legacy, endpoint, encoding, LegacyStream)

    async def serve(self, scope: Scope, receive: Any, send: Any) -> None:
        if scope["type"] != "http" or scope["method"] not in ("GET", "HEAD"):
            await send_problem(send, MethodNotAllowed("GET, HEAD"))
            return
        counters = self._legacy.delivery.services.counters.delivery(REFUSED, "sse")
        try:
            session, _ = await self._door.admit(scope)
        except Refused as refused:
            counters.refused += 1
            await send_refusal(send, refused.refusal.status, refused.refusal.detail)
        except StageRefuses as stage:
            counters.refused += 1
            if stage.wait_s:
                await send_away(scope, send, stage.wait_s, stage.headers)
            else:
                await send_empty(send, stage.headers)
        except (Full, DualcastError) as error:
            counters.refused += 1
            wait_s = retry_after_s(error) if isinstance(error, DualcastError) else None
            await send_refusal(send, 503, HTTPStatus(503).phrase, retry_after_s=wait_s)
        except Exception:
            # A room edge: nobody is told the text of an exception.
            counters.refused += 1
            log.exception("a stream failed to open", path=self._endpoint.path)
            await send_refusal(send, 503, HTTPStatus(503).phrase)
        else:
            headers = [*_HEADERS, _KEEP_ALIVE] if scope["http_version"] == "1.1" else list(_HEADERS)
            headers += self._door.sunset_headers(session.principal)
            await respond_sse(scope, receive, send, session, headers)


def _token(scope: Scope) -> str:
    """The credential as it was sent, "" without one; only hashed."""
    for field in scope["query_string"].decode("latin-1").split("&"):
        name, _, value = field.partition("=")
        if name == "token" and value:
            return unquote(value)
    return header(scope, b"authorization").removeprefix("Bearer ").strip()
