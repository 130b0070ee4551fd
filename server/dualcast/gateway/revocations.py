"""`GET` and `DELETE /v1/revocations`: which tokens and users are revoked, and taking one back (`PUT` is in
`connections`).
"""

from __future__ import annotations

from typing import Annotated

import msgspec
from litestar import delete, get
from litestar.params import QueryParameter
from msgspec import Struct

from dualcast.identity.revocation import SPACE, Record, token_key, user_key
from dualcast.model.channel import check_id
from dualcast.model.errors import BadRequest, NotFound
from dualcast.model.principal import ADMIN

from .authentication import ROLE
from .services import Caller, Injected

Filter = Annotated[str, QueryParameter(max_length=256)]
_ADMIN = {ROLE: ADMIN}


class RevocationView(Struct, frozen=True, omit_defaults=True):
    """One revocation: of `token_id`, or of every token of `user` issued before `issued_before` (Unix
    seconds).
    """

    expires_at: int
    """When it is forgotten, because no token it speaks of can be valid any more."""
    token_id: str = ""
    user: str = ""
    issued_before: int = 0


class RevocationPage(Struct, frozen=True):
    """Ask again with `after=next` until `next` is empty."""

    revocations: list[RevocationView]
    next: str


@get(
    "/v1/revocations",
    opt=_ADMIN,
    summary="List revocations",
    tags=["connections"],
    operation_id="Revocations",
)
async def list_revocations(
    services: Injected,
    caller: Caller,
    kind: Annotated[str, QueryParameter(pattern="^(token|user)$", description="token or user")] = "token",
    after: Filter = "",
    limit: Annotated[int, QueryParameter(ge=1, le=1000)] = 100,
) -> RevocationPage:
    """Revoked tokens (or users) of the caller's tenant by id."""
    make = token_key if kind == "token" else user_key
    prefix = make(caller.tenant, "")
    start = prefix + after if after else ""
    values = await services.state.list(SPACE, prefix=prefix, after=start, limit=limit)
    found = []
    for value in values:
        ident = value.key.removeprefix(prefix)
        record = msgspec.json.decode(value.data, type=Record)
        found.append(
            RevocationView(
                record.expires_at,
                ident if kind == "token" else "",
                ident if kind == "user" else "",
                record.issued_before,
            )
        )
    full = len(values) == limit
    return RevocationPage(found, values[-1].key.removeprefix(prefix) if full else "")


@delete(
    "/v1/revocations",
    opt=_ADMIN,
    summary="Take a revocation back",
    tags=["connections"],
    operation_id="Unrevoke",
)
async def take_back(services: Injected, caller: Caller, user: Filter = "", token_id: Filter = "") -> None:
    """The token, or the user's older tokens, are good again. Raises NotFound when nothing was revoked."""
    if bool(token_id) == bool(user):
        raise BadRequest("name exactly one of user and token_id", code="bad-target")
    check_id(token_id or user)
    key = token_key(caller.tenant, token_id) if token_id else user_key(caller.tenant, user)
    if not await services.state.delete(SPACE, key):
        raise NotFound("this is not revoked")
    await services.revocations.changed(key)
