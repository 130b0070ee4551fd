"""The REST endpoints of the contract `conversations` (docs/contracts/legacy-wire.md section 6): sending,
typing, read, and what a client should be configured with. They stand on the same service as
`/v1/conversations`; errors are problems as everywhere.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Annotated, Any

import msgspec
from litestar import get, post
from litestar.params import FromPath, JSONBody
from msgspec import Meta, Struct

from dualcast.conversations.model import NewMessage, StoredMessage
from dualcast.dialects.conversations import COLLIDING, DIALECT, client_config
from dualcast.gateway.authentication import PUBLIC
from dualcast.gateway.channels import id_of
from dualcast.gateway.conversation_bodies import Text, Users
from dualcast.gateway.services import Caller, Injected, Services
from dualcast.model.errors import Forbidden
from dualcast.model.principal import Principal
from dualcast.publishing.payload import invalid
from dualcast.publishing.requests import Id, Name

from .notices import refusals

_PATH = "/api/v1/chat/{conversation_id:str}"
_TAG = ["conversations contract"]
_SAID = refusals("Unauthorized", "")
_PAGE = 1000


class SendBody(Struct, frozen=True, kw_only=True):
    """The keys of section 6.3 that mean something; all others travel with the message."""

    content: Text | dict[str, Any]
    message_type: Annotated[str, Meta(min_length=1, max_length=64)] | None = None
    type: Annotated[str, Meta(min_length=1, max_length=64)] | None = None
    """The name that frames give `message_type` as well."""
    id: Id | None = None
    sender_id: Name | int | None = None
    """An integer is taken as text, like the claim `sub`."""
    sender_type: Annotated[str, Meta(max_length=64)] | None = None
    sender_name: Annotated[str, Meta(max_length=256)] | None = None
    sender_avatar: Annotated[str, Meta(max_length=2048)] | None = None
    is_important: bool | None = None
    reply_to_message_id: Id | None = None
    exclude_connection_id: Annotated[str, Meta(max_length=256)] | None = None
    participants: Users | None = None


class Typing(Struct, frozen=True):
    """Whether the caller is typing."""

    is_typing: bool


class ReadIds(Struct, frozen=True):
    """What the caller has read."""

    message_ids: list[Id]


class Done(Struct, frozen=True):
    """The answer to typing and read."""

    status: str = "ok"


_MEANT = frozenset(SendBody.__struct_fields__) | {"conversation_id"}
"""Keys that are meant for the server; all others are the publisher's own."""
_STORED = frozenset(StoredMessage.__struct_fields__)


@post(
    _PATH + "/send",
    status_code=200,
    exception_handlers=_SAID,
    summary="Send a message",
    tags=_TAG,
    operation_id="ChatSend",
)
async def send(
    services: Injected, caller: Caller, conversation_id: FromPath[str], data: JSONBody[dict[str, Any]]
) -> dict[str, str]:
    """Keeps the message, broadcasts it, then answers. Without `exclude_connection_id` the sender gets no copy
    on any device; with it only that connection gets none.
    """
    conversation, body = id_of("conversation", conversation_id), _send_body(data)
    sender = caller.sub if body.sender_id is None else str(body.sender_id)
    backend = caller.may_publish
    if sender != caller.sub and not backend:
        raise Forbidden("only an administrator sends for somebody else")
    exclude = ""
    if body.exclude_connection_id:
        exclude = await excluded(services, caller, sender, body.exclude_connection_id)
    message = NewMessage(
        content=body.content,
        id=body.id or "",
        message_type=body.message_type or body.type or "text",
        sender_type=body.sender_type,
        sender_name=body.sender_name,
        sender_avatar=body.sender_avatar,
        is_important=bool(body.is_important),
        reply_to=body.reply_to_message_id,
        extra=_own(data),
    )
    stored = await services.conversations.send(
        caller.tenant,
        conversation,
        sender,
        message,
        exclude_connection=exclude,
        backend=backend,
        participants=body.participants if backend else None,
    )
    return {"status": "sent", "message_id": stored.id}


@post(
    _PATH + "/typing",
    status_code=200,
    exception_handlers=_SAID,
    summary="Tell that the caller is typing",
    tags=_TAG,
    operation_id="ChatTyping",
)
async def typing(
    services: Injected, caller: Caller, conversation_id: FromPath[str], data: JSONBody[Typing]
) -> Done:
    """Tells the other participants who are connected now."""
    conversation = id_of("conversation", conversation_id)
    await services.conversations.typing(caller.tenant, conversation, caller.sub, data.is_typing)
    return Done()


@post(
    _PATH + "/read",
    status_code=200,
    exception_handlers=_SAID,
    summary="Mark messages as read",
    tags=_TAG,
    operation_id="ChatRead",
)
async def read(
    services: Injected, caller: Caller, conversation_id: FromPath[str], data: JSONBody[ReadIds]
) -> Done:
    """Moves the caller's read position and tells the other participants who are connected now."""
    conversation = id_of("conversation", conversation_id)
    await services.conversations.read(caller.tenant, conversation, caller.sub, data.message_ids)
    return Done()


@get(
    "/api/ws/config",
    opt={PUBLIC: True},
    summary="How a conversations client should connect",
    tags=_TAG,
    operation_id="ConversationsConfig",
)
async def config(services: Injected) -> dict[str, int]:
    """Milliseconds, and the number of attempts."""
    return client_config(services.legacy)


ROUTES: tuple[Any, ...] = (send, typing, read, config)


async def excluded(services: Services, caller: Principal, sender: str, named: str) -> str:
    """dualcast's connection id for what a client calls its `connectionId`: among the sender's connections of
    this contract, on this node and then on all; else `named` itself, which may be an id of dualcast's own.
    Nobody keeps a message from somebody else: raises Forbidden for another user's connection, unless a
    backend asks.
    """
    tenant = caller.tenant
    here = services.directory.list(tenant, sender, "", _PAGE)
    found = _named(((one.id, one.dialect, one.instance) for one in here), named)
    if not found:
        anywhere = await services.presence.connections(tenant, sender, "", _PAGE)
        found = _named(((one.id, one.dialect, one.instance) for one in anywhere), named)
    if found or caller.may_publish:
        return found or named
    local = services.directory.find(tenant, named)
    owner = local.user if local else await services.presence.connection_user(tenant, named)
    if owner not in (None, caller.sub):
        raise Forbidden("only an own connection can be excluded")
    return named


def _own(data: dict[str, Any]) -> dict[str, Any]:
    """The publisher's own keys; those that a stored message has another meaning for stand under COLLIDING."""
    own = {key: value for key, value in data.items() if key not in _MEANT}
    colliding = {key: own.pop(key) for key in _STORED.intersection(own)}
    return {**own, COLLIDING: colliding} if colliding else own


def _named(connections: Iterable[tuple[str, str, str]], named: str) -> str:
    return next((ident for ident, kind, name in connections if (kind, name) == (DIALECT, named)), "")


def _send_body(data: dict[str, Any]) -> SendBody:
    try:
        return msgspec.convert(data, SendBody)
    except msgspec.ValidationError as error:
        message, _, path = str(error).partition(" - at `")
        raise invalid(path.rstrip("`") or "$", message) from None
