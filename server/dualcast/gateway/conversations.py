"""`/v1/conversations`: participants, messages, typing and read. Backends (role `publisher` or `admin`) act in
every conversation of their tenant, everybody else in those they take part in.
"""

from __future__ import annotations

from typing import Annotated, Any
from urllib.parse import unquote_to_bytes

from litestar import get, post, put
from litestar.params import FromPath, JSONBody, QueryParameter
from msgspec import ValidationError, convert

from dualcast.conversations.broadcasts import conversation_channel
from dualcast.conversations.model import NewMessage, Participants, StoredMessage, time_text
from dualcast.conversations.service import MAX_PAGE
from dualcast.model.errors import BadChannel, Forbidden
from dualcast.model.principal import PUBLISHER, Principal
from dualcast.model.publication import Receipt
from dualcast.publishing.payload import invalid

from .authentication import ROLE
from .conversation_bodies import (
    BroadcastBody,
    BroadcastView,
    ConversationsView,
    ConversationView,
    DirectBody,
    MessageBody,
    MessagesView,
    ParticipantsBody,
    ParticipantsChange,
    ParticipantsView,
    ReadBody,
    ReadView,
    TypingBody,
)
from .legacy.conversations import excluded
from .services import Caller, Injected, Services

_PATH = "/v1/conversations/{conversation:str}"
_BACKEND = {ROLE: PUBLISHER}


@get(
    "/v1/conversations",
    summary="List my conversations",
    tags=["conversations"],
    operation_id="ListConversations",
)
async def list_conversations(
    services: Injected,
    caller: Caller,
    after: Annotated[str, QueryParameter(max_length=256)] = "",
    limit: Annotated[int, QueryParameter(ge=1, le=MAX_PAGE)] = 50,
) -> ConversationsView:
    """The conversations the caller takes part in, in a fixed order, with what is unread."""
    found = await services.conversations.conversations_of(caller.tenant, caller.sub, after, limit)
    views = [
        ConversationView(
            one.id,
            one.participants,
            one.revision,
            one.last_seq,
            time_text(one.last_ms),
            one.read_seq,
            one.unread,
        )
        for one in found
    ]
    return ConversationsView(views, found[-1].id if len(found) == limit else "")


@get(
    _PATH + "/participants",
    summary="Read a conversation's participants",
    tags=["conversations"],
    operation_id="ReadParticipants",
)
async def read_participants(
    services: Injected, caller: Caller, conversation: FromPath[str]
) -> ParticipantsView:
    """Who is in. For participants and backends."""
    name = conversation_of(conversation)
    return _people(name, await services.conversations.participants(caller.tenant, name, _user(caller)))


@put(
    _PATH + "/participants",
    opt=_BACKEND,
    summary="Set a conversation's participants",
    tags=["conversations"],
    operation_id="SetParticipants",
)
async def set_participants(
    services: Injected, caller: Caller, conversation: FromPath[str], data: JSONBody[ParticipantsBody]
) -> ParticipantsView:
    """Makes the conversation when there is none. The participants are also who may subscribe to
    `conversation:<id>`; who is not among them any more gets nothing from now on.
    """
    name = conversation_of(conversation)
    found = await services.conversations.set_participants(caller.tenant, name, data.participants)
    return _people(name, found)


@post(
    _PATH + "/participants",
    opt=_BACKEND,
    status_code=200,
    summary="Add and remove participants",
    tags=["conversations"],
    operation_id="ChangeParticipants",
)
async def change_participants(
    services: Injected, caller: Caller, conversation: FromPath[str], data: JSONBody[ParticipantsChange]
) -> ParticipantsView:
    """Changes participants without knowing the others."""
    name = conversation_of(conversation)
    if data.add:
        await services.conversations.add_participants(caller.tenant, name, data.add)
    if data.remove:
        await services.conversations.remove_participants(caller.tenant, name, data.remove)
    return _people(name, await services.conversations.participants(caller.tenant, name))


@post(_PATH + "/messages", summary="Send a message", tags=["conversations"], operation_id="SendMessage")
async def send_message(
    services: Injected, caller: Caller, conversation: FromPath[str], data: JSONBody[MessageBody]
) -> StoredMessage:
    """Keeps the message, then broadcasts it to the other participants. For participants, and for backends on
    behalf of `sender_id`. A broadcast that fails does not fail the request: the message is listed.
    """
    sender = data.sender_id or caller.sub
    if not caller.may_publish:
        if sender != caller.sub:
            raise Forbidden("only a backend sends for somebody else")
        if data.participants is not None:
            raise Forbidden("only a backend makes conversations", code="publisher-only")
    exclude = data.exclude_connection
    if exclude:
        exclude = await excluded(services, caller, sender, exclude)
    return await services.conversations.send(
        caller.tenant,
        conversation_of(conversation),
        sender,
        _new_message(data, data.id or ""),
        exclude_connection=exclude,
        backend=caller.may_publish,
        participants=data.participants,
    )


@get(_PATH + "/messages", summary="List messages", tags=["conversations"], operation_id="ListMessages")
async def list_messages(
    services: Injected,
    caller: Caller,
    conversation: FromPath[str],
    before: Annotated[
        int, QueryParameter(description="Sequence number; 0: the newest", ge=0, le=(1 << 53) - 1)
    ] = 0,
    limit: Annotated[int, QueryParameter(ge=1, le=MAX_PAGE)] = 50,
) -> MessagesView:
    """Pages of a conversation's messages, newest first. For participants and backends."""
    page = await services.conversations.messages(
        caller.tenant, conversation_of(conversation), _user(caller), before, limit
    )
    return MessagesView(page.messages, page.next)


@post(
    _PATH + "/typing",
    status_code=204,
    summary="Tell that the caller is typing",
    tags=["conversations"],
    operation_id="Typing",
)
async def typing(
    services: Injected, caller: Caller, conversation: FromPath[str], data: JSONBody[TypingBody]
) -> None:
    """Tells the other participants who are connected now. For participants, and for backends on behalf of
    `user`."""
    await services.conversations.typing(
        caller.tenant, conversation_of(conversation), _acting(caller, data.user), data.is_typing
    )


@post(
    _PATH + "/read",
    status_code=200,
    summary="Mark messages as read",
    tags=["conversations"],
    operation_id="ReadMessages",
)
async def read_messages(
    services: Injected, caller: Caller, conversation: FromPath[str], data: JSONBody[ReadBody]
) -> ReadView:
    """Moves the caller's read position to the newest of the messages (it never goes back) and tells the other
    participants who are connected now. For participants, and for backends on behalf of `user`.
    """
    found = await services.conversations.read(
        caller.tenant, conversation_of(conversation), _acting(caller, data.user), data.message_ids
    )
    return ReadView(found.position, found.unread, found.unknown)


@post(
    _PATH + "/broadcasts",
    opt=_BACKEND,
    summary="Broadcast to participants",
    tags=["conversations"],
    operation_id="BroadcastToParticipants",
)
async def broadcast(
    services: Injected, caller: Caller, conversation: FromPath[str], data: JSONBody[BroadcastBody]
) -> BroadcastView:
    """A message that is kept elsewhere, a consultant's reply, a mobile-only or a system notification: live,
    with a device push for those who are away, and not among the conversation's messages.
    """
    name, room, ident = conversation_of(conversation), services.conversations, data.id or ""
    if data.kind == "message":
        return _published(await _broadcast_message(services, caller, name, data))
    if data.kind == "reply":
        if data.consultant_id is None:
            raise invalid("$.consultant_id", "a reply names its consultant")
        receipt = await room.consultation_reply(
            caller.tenant, name, data.data, data.consultant_id, ident=ident
        )
        return _published(receipt)
    if data.kind == "mobile":
        exclude = data.exclude_user or ""
        receipt = await room.mobile_notification(
            caller.tenant, name, data.data, exclude_user=exclude, ident=ident
        )
        return _published(receipt)
    return _published(
        await room.system_notification(caller.tenant, name, data.data, data.targets, ident=ident)
    )


@post(
    "/v1/direct-messages",
    opt=_BACKEND,
    summary="Send a message to one user",
    tags=["conversations"],
    operation_id="SendDirectMessage",
)
async def direct_message(services: Injected, caller: Caller, data: JSONBody[DirectBody]) -> BroadcastView:
    """Live, with a device push when the user has no live connection; in no conversation."""
    return _published(
        await services.conversations.direct_message(caller.tenant, data.user, data.data, ident=data.id or "")
    )


ROUTES: tuple[Any, ...] = (
    list_conversations,
    read_participants,
    set_participants,
    change_participants,
    send_message,
    list_messages,
    typing,
    read_messages,
    broadcast,
    direct_message,
)


def conversation_of(segment: str) -> str:
    """The conversation id of a path segment that is still percent-encoded; raises BadChannel."""
    try:
        ident = unquote_to_bytes(segment).decode()
    except UnicodeDecodeError:
        raise BadChannel("a conversation id is UTF-8") from None
    conversation_channel(ident)
    return ident


def _user(caller: Principal) -> str | None:
    return None if caller.may_publish else caller.sub


async def _broadcast_message(
    services: Services, caller: Principal, conversation: str, asked: BroadcastBody
) -> Receipt:
    try:
        said = convert(asked.data, MessageBody)
    except ValidationError as error:
        message, _, path = str(error).partition(" - at `$")
        raise invalid("$.data" + path.rstrip("`"), message) from None
    sender = said.sender_id or caller.sub
    exclude = asked.exclude_connection
    if exclude:
        exclude = await excluded(services, caller, sender, exclude)
    return await services.conversations.broadcast_message(
        caller.tenant,
        conversation,
        _new_message(said, said.id or asked.id or ""),
        sender,
        exclude_user=asked.exclude_user or "",
        exclude_connection=exclude,
    )


def _new_message(said: MessageBody, ident: str) -> NewMessage:
    return NewMessage(
        content=said.content,
        id=ident,
        message_type=said.message_type,
        sender_type=said.sender_type,
        sender_name=said.sender_name,
        sender_avatar=said.sender_avatar,
        is_important=said.is_important,
        reply_to=said.reply_to,
        extra=said.extra,
    )


def _acting(caller: Principal, named: str | None) -> str:
    """Whose doing it is. Raises Forbidden."""
    if named is None or named == caller.sub:
        return caller.sub
    if not caller.may_publish:
        raise Forbidden("only a backend acts for somebody else", code="publisher-only")
    return named


def _people(conversation: str, found: Participants) -> ParticipantsView:
    return ParticipantsView(conversation, found.users, found.revision)


def _published(receipt: Receipt | None) -> BroadcastView:
    return BroadcastView("", "") if receipt is None else BroadcastView(receipt.id, receipt.cursor)
