"""Statistics of live connections for the older contracts' endpoints: who may ask, and the numbers."""

from __future__ import annotations

from collections import Counter
from typing import Any, cast

from litestar import Request
from litestar.di import NamedDependency
from litestar.params import SkipValidation
from msgspec import Struct

from dualcast.dialects.legacy import Stats
from dualcast.gateway.authentication import authenticate, require_role
from dualcast.gateway.body import Scope, header
from dualcast.gateway.services import Services
from dualcast.model.principal import ADMIN

_PAGE = 1000


class Asking(Struct, frozen=True):
    """Who asks for statistics, and is allowed to. `user` "": a caller without a token."""

    tenant: str
    user: str


StatsCaller = NamedDependency[SkipValidation[Asking]]
"""Made by `stats_caller`: the route says `opt={PUBLIC: True}` and `dependencies={"asking": …}`."""


async def stats_caller(request: Request[Any, Any, Any]) -> Asking:
    """An administrator of a tenant; with `legacy_stats_public` anybody, without a token in the legacy tenant.
    Raises Unauthorized, Forbidden."""
    services: Services = request.app.state.services
    scope = cast(Scope, request.scope)
    public = services.legacy.stats_public
    if public and not header(scope, b"authorization"):
        return Asking(services.legacy.tenant, "")
    caller = await authenticate(services, scope)
    if not public:
        require_role(caller, ADMIN)
    return Asking(caller.tenant, caller.sub)


async def statistics(services: Services, tenant: str, kind: str) -> Stats:
    """Live connections and streams of all dialects on all nodes; `kind` (`room:`, `topic:`): the channels of
    `Stats.groups`, which are this node's. Raises BusUnavailable."""
    if services.legacy_stats is not None:
        return await services.legacy_stats(tenant, kind)
    users: Counter[str] = Counter()
    after = ""
    while page := await services.presence.connections(tenant, None, after, _PAGE):
        users.update(one.user for one in page)
        after = page[-1].id
    groups: Counter[str] = Counter()
    after = ""
    while here := services.directory.list(tenant, None, after, _PAGE):
        groups.update(name for one in here for name in one.channels if name.startswith(kind))
        after = here[-1].id
    total = users.total()
    users.pop("", None)
    return Stats(total_connections=total, users=users, groups=groups)
