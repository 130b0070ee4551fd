"""`/v1/presence`: who is online, over all nodes."""

from __future__ import annotations

from typing import Annotated
from urllib.parse import unquote_to_bytes

from litestar import get
from litestar.params import FromPath, QueryParameter
from msgspec import Struct

from dualcast.model.channel import check_channel, check_id
from dualcast.model.errors import BadChannel, Forbidden, ForbiddenChannels
from dualcast.model.principal import PUBLISHER, Principal

from .authentication import require_role
from .services import Caller, Injected


class MemberView(Struct, frozen=True):
    """A user who is online, and on what kinds of device (in the whole tenant)."""

    user: str
    devices: tuple[str, ...]


class PresencePage(Struct, frozen=True):
    """A page; ask again with `after=next` until `next` is empty."""

    channel: str
    """`presence:<id>`, or "" for everybody who is online."""
    count: int
    """Members of the channel, not of the page."""
    revision: int
    """Publications of the channel up to this revision are in it."""
    members: list[MemberView]
    next: str


class UserPresence(Struct, frozen=True):
    """One user over all nodes."""

    user: str
    online: bool
    devices: tuple[str, ...]
    """Kinds of device the user is connected with."""
    connections: int


@get("/v1/presence", summary="Who is online", tags=["presence"], operation_id="Presence")
async def list_presence(
    services: Injected,
    caller: Caller,
    channel: Annotated[str, QueryParameter(max_length=512, description="presence:<id>")] = "",
    after: Annotated[str, QueryParameter(max_length=256)] = "",
    limit: Annotated[int, QueryParameter(ge=0, le=1000)] = 100,
) -> PresencePage:
    """The members of a presence channel, for whoever may subscribe to it; without `channel` everybody who is
    online, for backends.
    """
    if channel:
        check_channel(channel)
        if not await services.access.may_subscribe(caller, channel):
            raise ForbiddenChannels([channel])
    else:
        require_role(caller, PUBLISHER)
    page = await services.presence.users(caller.tenant, channel, after, limit)
    members = [MemberView(one.user, one.devices) for one in page.members]
    following = members[-1].user if limit and len(members) == limit else ""
    return PresencePage(channel, page.count, page.revision, members, following)


@get(
    "/v1/presence/{user:str}",
    summary="Whether a user is online",
    tags=["presence"],
    operation_id="UserPresence",
)
async def read_presence(services: Injected, caller: Caller, user: FromPath[str]) -> UserPresence:
    """For that user, and for backends. A user nobody has heard of is offline."""
    name = own_or_backend(caller, user)
    found = await services.presence.presence_of(caller.tenant, name)
    return UserPresence(name, found.connections > 0, found.devices, found.connections)


def own_or_backend(caller: Principal, segment: str) -> str:
    """The user id in a path segment that is still percent-encoded, which the caller may ask about: its own,
    or any for a backend. Raises BadChannel, Forbidden `publisher-only`.
    """
    try:
        user = check_id(unquote_to_bytes(segment).decode())
    except UnicodeDecodeError:
        raise BadChannel("a user id is UTF-8") from None
    if user != caller.sub and not caller.may_publish:
        raise Forbidden("only a backend sees other users", code="publisher-only")
    return user


ROUTES = (list_presence, read_presence)
