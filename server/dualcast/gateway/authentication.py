"""Who is calling, for REST: deny by default.

A guard on the application authenticates every Litestar route unless its `opt` says `public=True` (listed in
a test) or `authenticates=True` (it does so itself: publishing for speed, streams and sockets because their
refusals differ). `opt["role"]` asks for `publisher`, `admin` or `operator` (then an admin passes as well,
and the handler looks at whose tenant it is) on top. REST takes the Authorization header,
or the cookie from an allowed Origin; never the query, so no token can get into a log.
"""

from __future__ import annotations

from typing import Any, cast

from litestar import Request
from litestar.connection import ASGIConnection
from litestar.handlers.base import BaseRouteHandler

from dualcast.model.errors import Forbidden, Unauthorized
from dualcast.model.principal import ADMIN, OPERATOR, PUBLISHER, Principal

from .body import Scope
from .limits import counted
from .services import Services

PUBLIC = "public"
AUTHENTICATES = "authenticates"
ROLE = "role"


async def authenticate(services: Services, scope: Scope) -> Principal:
    """The caller of an HTTP request, counted against its rate.

    Raises Unauthorized, TokenExpired, Forbidden (cookie of a foreign page), RateLimited.
    """
    door = services.authenticator
    found = door.try_cached(scope, kind="http", native=True)
    if found is None:
        found = await door.authenticate(scope, kind="http", native=True)
    principal = found.principal
    services.limits.principal(principal.tenant, principal.sub)
    return principal


def client_address(scope: Scope) -> str:
    """The address by which the caller is counted: the peer's (behind a trusted proxy: the forwarded one,
    which uvicorn has put there), of IPv6 the /64; "" when unknown.
    """
    client = scope.get("client")
    return counted(client[0]) if client else ""


async def require_principal(
    connection: ASGIConnection[Any, Any, Any, Any], handler: BaseRouteHandler
) -> None:
    """The guard. Puts the principal into `scope["user"]`."""
    if handler.opt.get(PUBLIC) or handler.opt.get(AUTHENTICATES):
        return
    principal = await authenticate(connection.app.state.services, cast(Scope, connection.scope))
    require_role(principal, handler.opt.get(ROLE))
    connection.scope["user"] = principal


def require_role(principal: Principal, role: str | None) -> None:
    """Raises Forbidden when `role` is asked for and the principal has neither it nor `admin`."""
    if role == ADMIN and not principal.is_admin:
        raise Forbidden("this needs the role admin", code="admin-only")
    if role == OPERATOR and not principal.is_admin and OPERATOR not in principal.roles:
        raise Forbidden("this needs the role admin, or operator", code="admin-only")
    if role == PUBLISHER and not principal.may_publish:
        raise Forbidden("this needs the role publisher or admin", code="publisher-only")


def provide_caller(request: Request[Any, Any, Any]) -> Principal:
    """Dependency `caller`: the authenticated principal."""
    principal = request.scope.get("user")
    if not isinstance(principal, Principal):
        raise Unauthorized("send Authorization: Bearer <token>")
    return principal


def provide_services(request: Request[Any, Any, Any]) -> Services:
    """Dependency `services`."""
    services = request.app.state.services
    assert isinstance(services, Services)
    return services
