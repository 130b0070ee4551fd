"""The whole HTTP application: every router, the guard, the error format, the edge."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Self, cast

import msgspec
from litestar import Litestar, Request, Router
from litestar.datastructures import ResponseHeader, State
from litestar.di import Provide
from litestar.handlers.asgi_handlers import ASGIRouteHandler
from litestar.types import ControllerRouterHandler

from dualcast.publishing.payload import decode

from .asyncapi import asyncapi_route
from .authentication import provide_caller, provide_services, require_principal
from .batches import ROUTES as BATCHES
from .body import JSON, Scope, media_type
from .channels import history
from .connections import close_connection, close_connections, list_connections, read_connection, revoke
from .conversations import ROUTES as CONVERSATIONS
from .devices import ROUTES as DEVICES
from .docs import docs_routes
from .edge import Edge
from .evidence import ROUTES as EVIDENCE
from .grants import change_grant, delete_grant, read_grant, replace_grant
from .health import Readiness, healthz, metrics, readyz
from .inbox import ROUTES as INBOX
from .legacy.conversations import ROUTES as CHAT
from .legacy.notifications import ROUTES as NOTIFICATIONS
from .legacy.paths import Paths
from .legacy.progress import ROUTES as PROGRESS
from .legacy.rooms import ROUTES as ROOMS
from .legacy.topics import ROUTES as TOPICS
from .migration import ROUTES as MIGRATION
from .parity import ROUTES as PARITY
from .presence import ROUTES as PRESENCE
from .problems import exception_handler
from .publish import publish_routes
from .push import ROUTES as PUSH
from .revocations import list_revocations, take_back
from .services import Services
from .tasks import ROUTES as TASKS
from .tenants import ROUTES as TENANTS
from .tickets import issue_ticket

_json = msgspec.json.Decoder()

REST: tuple[Any, ...] = (
    history,
    read_grant,
    replace_grant,
    change_grant,
    delete_grant,
    list_connections,
    read_connection,
    close_connection,
    close_connections,
    revoke,
    list_revocations,
    take_back,
    issue_ticket,
    *INBOX,
    *CONVERSATIONS,
    *TASKS,
    *BATCHES,
    *PUSH,
    *PRESENCE,
    *DEVICES,
    *TENANTS,
    *MIGRATION,
    *EVIDENCE,
    *PARITY,
    *CHAT,
    *PROGRESS,
    *NOTIFICATIONS,
    *ROOMS,
    *TOPICS,
    healthz,
    readyz,
    metrics,
)
"""Handlers that need nothing but what is injected."""


class CheckedRequest(Request[Any, Any, Any]):
    """A request whose JSON is read with the checks of publishing: bad UTF-8 and deep nesting are the
    caller's errors.

    Litestar's own reader lets UnicodeDecodeError and RecursionError through, which would be a 500.
    """

    async def json(self) -> Any:
        """The decoded body; raises UnsupportedMediaType, BadRequest `bad-utf8`, `malformed-json`, Invalid
        `too-deep`.
        """
        media_type(cast(Scope, self.scope), (JSON,))
        return decode(await self.body(), _json)


class RestRouter(Router):
    """Is made for one application. Litestar registers a deep copy of a router, so that it can be registered
    twice; of this one that would be a third of the work of a start.
    """

    def __deepcopy__(self, memo: dict[int, Any]) -> Self:
        return self


def routers(services: Services, publishing: Sequence[ASGIRouteHandler] = ()) -> list[ControllerRouterHandler]:
    """Every REST handler. `publishing`: those of `publish_routes`, when they are there already."""
    version = services.settings.version
    rest = RestRouter(
        "/", route_handlers=REST, response_headers=[ResponseHeader(name="Cache-Control", value="no-store")]
    )
    return [
        *(publishing or publish_routes(services)),
        rest,
        *docs_routes(REST, version),
        asyncapi_route(version),
    ]


def litestar_app(
    services: Services, extra_handlers: Sequence[ControllerRouterHandler] = (), **options: Any
) -> Litestar:
    """The Litestar application with REST and `extra_handlers` (streams, sockets, pages).

    Handlers are authenticated unless their `opt` says `public` or `authenticates`. `options` go to Litestar
    (lifespan …).
    """
    publishing = publish_routes(services)
    app = Litestar(
        route_handlers=[*routers(services, publishing), *extra_handlers],
        guards=[require_principal],
        dependencies={
            "services": Provide(provide_services, sync_to_thread=False),
            "caller": Provide(provide_caller, sync_to_thread=False),
        },
        exception_handlers={Exception: exception_handler},
        request_max_body_size=services.settings.max_body_bytes,
        state=State({"services": services, "readiness": Readiness(services)}),
        request_class=CheckedRequest,
        openapi_config=None,
        logging_config=None,
        **options,
    )
    raw = [handler for handler in (*publishing, *extra_handlers) if isinstance(handler, ASGIRouteHandler)]
    direct = {path: handler.fn for handler in raw for path in handler.paths}
    plain = [route.path for route in app.routes if "{" not in route.path]
    app.asgi_handler = Edge(app.asgi_handler, services, direct, Paths(extra_handlers, plain).find)
    return app
