"""`/v1/connections` and `/v1/revocations`: who is connected, on any node, and who shall not be any longer."""

from __future__ import annotations

from typing import Annotated
from urllib.parse import unquote

from litestar import delete, get, put
from litestar.params import FromPath, JSONBody, QueryParameter
from msgspec import Meta, Struct

from dualcast.dialects.native import rfc3339
from dualcast.model.channel import check_id
from dualcast.model.codes import Close
from dualcast.model.errors import BadRequest, Forbidden, NotFound
from dualcast.model.principal import ADMIN, Principal
from dualcast.presence.port import ConnectionFacts
from dualcast.publishing.payload import check_token

from .authentication import ROLE
from .commands import CloseCommand, send_close
from .services import Caller, ConnectionInfo, Injected, Services

Filter = Annotated[str, QueryParameter(max_length=256)]
_ADMIN = {ROLE: ADMIN}


class ConnectionPage(Struct, frozen=True):
    """Connections of all nodes by id; ask again with `after=next` until `next` is empty. Of a connection of
    another node `channels` and `cursor` are empty and `live` says nothing.
    """

    connections: list[ConnectionInfo]
    next: str


class Closing(Struct, frozen=True):
    """The command is written; every node acts on it within a second."""

    closing: bool = True
    revoked: bool = False
    """Whether the tokens behind the connections were revoked as well."""


class RevocationBody(Struct, frozen=True, forbid_unknown_fields=True):
    """What is revoked: one token, or every token of a user issued until now (or before `issued_before`)."""

    token_id: Annotated[str, Meta(max_length=256)] = ""
    """Claim `jti`; a token without one is named by the first 16 hex digits of its SHA-256."""
    user: Annotated[str, Meta(max_length=256)] = ""
    expires_at: Annotated[int, Meta(ge=1)] | None = None
    """Of the token, Unix seconds: how long the revocation has to be remembered."""
    issued_before: Annotated[int, Meta(ge=1)] | None = None


@get("/v1/connections", summary="List live connections", tags=["connections"], operation_id="ListConnections")
async def list_connections(
    services: Injected,
    caller: Caller,
    user: Filter = "",
    after: Filter = "",
    limit: Annotated[int, QueryParameter(ge=1, le=1000)] = 100,
) -> ConnectionPage:
    """The connections of the caller's tenant on all nodes, as of a moment ago. Users see their own, admins
    everybody's.
    """
    if not caller.is_admin:
        if user not in ("", caller.sub):
            raise Forbidden("only an admin sees other users' connections", code="admin-only")
        user = caller.sub
    facts = await services.presence.connections(caller.tenant, user or None, after, limit)
    found = [_connection(services, caller.tenant, one) for one in facts]
    return ConnectionPage(found, found[-1].id if len(found) == limit else "")


@get(
    "/v1/connections/{connection:str}",
    summary="One connection",
    tags=["connections"],
    operation_id="Connection",
)
async def read_connection(services: Injected, caller: Caller, connection: FromPath[str]) -> ConnectionInfo:
    """A live connection of the caller's tenant, on whichever node it is. Users see their own, admins
    everybody's; what they may not see is not there.
    """
    ident = check_token(unquote(connection), "connection", "bad-id")
    found = await services.presence.connection(caller.tenant, ident)
    if found is None or not (caller.is_admin or found.user == caller.sub):
        raise NotFound("no such connection is open", code="unknown-connection")
    return _connection(services, caller.tenant, found)


def _connection(services: Services, tenant: str, facts: ConnectionFacts) -> ConnectionInfo:
    """With live details when this node holds it."""
    return services.directory.find(tenant, facts.id) or ConnectionInfo(
        id=facts.id,
        user=facts.user,
        transport=facts.transport,
        dialect=facts.dialect,
        channels=(),
        connected_at=rfc3339(facts.connected_ms),
        token_id=facts.token_id,
        device=facts.device,
        device_id=facts.device_id,
        instance=facts.instance,
        node=facts.node,
    )


@delete(
    "/v1/connections/{connection:str}",
    opt=_ADMIN,
    status_code=202,
    summary="Close one connection",
    tags=["connections"],
    operation_id="CloseConnection",
)
async def close_connection(services: Injected, caller: Caller, connection: FromPath[str]) -> Closing:
    """Closes a connection of the caller's tenant on whichever node it is. Unknown ids are accepted: it may
    just have ended.
    """
    ident = check_token(unquote(connection), "connection", "bad-id")
    await send_close(services.state, CloseCommand(tenant=caller.tenant, connection=ident, code=Close.REVOKED))
    return Closing()


@delete(
    "/v1/connections",
    opt=_ADMIN,
    status_code=202,
    summary="Close a user's or a token's connections",
    tags=["connections"],
    operation_id="CloseConnections",
)
async def close_connections(
    services: Injected,
    caller: Caller,
    user: Filter = "",
    token_id: Filter = "",
    revoke: Annotated[bool, QueryParameter(description="Revoke the tokens, too")] = True,
) -> Closing:
    """Closes by user or token id, and revokes the tokens unless `revoke=false`: without that a client just
    comes back.
    """
    await _revoke(services, caller, RevocationBody(token_id=token_id, user=user), revoke=revoke)
    return Closing(revoked=revoke)


@put(
    "/v1/revocations",
    opt=_ADMIN,
    status_code=202,
    summary="Revoke a token or a user",
    tags=["connections"],
    operation_id="Revoke",
)
async def revoke(services: Injected, caller: Caller, data: JSONBody[RevocationBody]) -> Closing:
    """From now on the token, or every token of the user issued before, is refused everywhere and its
    connections end.
    """
    await _revoke(services, caller, data, revoke=True)
    return Closing(revoked=True)


async def _revoke(services: Services, caller: Principal, body: RevocationBody, *, revoke: bool) -> None:
    if bool(body.token_id) == bool(body.user):
        raise BadRequest("name exactly one of user and token_id", code="bad-target")
    check_id(body.token_id or body.user)
    if revoke:
        # Before the connections are closed, so that none of them gets in again.
        if body.token_id:
            await services.revocations.revoke_token(caller.tenant, body.token_id, expires_at=body.expires_at)
        else:
            await services.revocations.revoke_user(caller.tenant, body.user, issued_before=body.issued_before)
    if body.issued_before is None:
        await send_close(
            services.state,
            CloseCommand(
                tenant=caller.tenant,
                user=body.user,
                token_id=body.token_id,
                code=Close.REVOKED if revoke else Close.TRY_LATER,
            ),
        )
