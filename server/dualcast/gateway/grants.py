"""`/v1/channels/{channel}/grants`: who may subscribe to a channel beside those whose token says so. For
backends.
"""

from __future__ import annotations

from typing import Annotated

from litestar import delete, get, post, put
from litestar.params import FromPath, JSONBody, QueryParameter
from msgspec import Meta, Struct

from dualcast.model.principal import PUBLISHER
from dualcast.publishing.requests import Name
from dualcast.tenancy.grants import GrantRecord, make_grant

from .authentication import ROLE
from .channels import channel_of
from .services import Caller, Injected

Members = Annotated[list[Name], Meta(max_length=1000)]


class GrantBody(Struct, frozen=True, forbid_unknown_fields=True):
    """The whole grant of a channel."""

    owner: Annotated[str, Meta(max_length=256)] = ""
    members: Members = []


class GrantChange(Struct, frozen=True, forbid_unknown_fields=True):
    """Members to add, then members to remove. `owner`: the new owner, when given."""

    owner: Annotated[str, Meta(max_length=256)] = ""
    add: Members = []
    remove: Members = []


class GrantView(Struct, frozen=True):
    """The grant in force. `version` 0: none is stored."""

    channel: str
    owner: str
    members: tuple[str, ...]
    version: int


_PATH = "/v1/channels/{channel:str}/grants"
_OPT = {ROLE: PUBLISHER}
Version = Annotated[
    int | None, QueryParameter(description="The version the grant must have now (0: none)", ge=0)
]


@get(_PATH, opt=_OPT, summary="Read a channel's grant", tags=["channels"], operation_id="ReadGrant")
async def read_grant(services: Injected, caller: Caller, channel: FromPath[str]) -> GrantView:
    """The owner and members of a channel."""
    name = channel_of(channel)
    return _view(name, await services.grants.get(caller.tenant, name))


@put(_PATH, opt=_OPT, summary="Replace a channel's grant", tags=["channels"], operation_id="ReplaceGrant")
async def replace_grant(
    services: Injected,
    caller: Caller,
    channel: FromPath[str],
    data: JSONBody[GrantBody],
    version: Version = None,
) -> GrantView:
    """Replaces owner and members. With `version`, only when the grant still has it (else 409)."""
    name = channel_of(channel)
    grant = make_grant(data.owner, data.members)
    stored = await services.grants.set(caller.tenant, name, grant, expected=version)
    return _view(name, GrantRecord(grant, stored))


@post(
    _PATH,
    opt=_OPT,
    status_code=200,
    summary="Add and remove members",
    tags=["channels"],
    operation_id="ChangeGrant",
)
async def change_grant(
    services: Injected, caller: Caller, channel: FromPath[str], data: JSONBody[GrantChange]
) -> GrantView:
    """Changes members without knowing the others."""
    name = channel_of(channel)
    if data.add or data.owner:
        await services.grants.add(caller.tenant, name, data.add, owner=data.owner)
    if data.remove:
        await services.grants.remove(caller.tenant, name, data.remove)
    return _view(name, await services.grants.get(caller.tenant, name))


@delete(_PATH, opt=_OPT, summary="Withdraw a channel's grant", tags=["channels"], operation_id="DeleteGrant")
async def delete_grant(services: Injected, caller: Caller, channel: FromPath[str]) -> None:
    """Nobody is granted the channel any more."""
    await services.grants.set(caller.tenant, channel_of(channel), make_grant())


def _view(channel: str, record: GrantRecord) -> GrantView:
    return GrantView(channel, record.grant.owner, record.grant.members, record.version)
