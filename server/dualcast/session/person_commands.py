"""What a client asks about its own person: inbox, conversations, presence (docs/protocol.md, PROTO-45 on).

Every call goes out with the tenant and the user of the session's token, so nobody reaches anybody else's
things. What a command changes is announced by the room that stores it, to every connection of those
concerned: the reply here is for the one that asked.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import Any, Protocol, TypeVar

from msgspec import Raw

from dualcast.conversations.model import NewMessage, StoredMessage
from dualcast.conversations.port import Reading
from dualcast.dialects.native_base import InboxBadge, ServerFrame
from dualcast.dialects.native_person import (
    ArchiveItems,
    CountersReply,
    CountInbox,
    DeleteItems,
    Done,
    InboxPageReply,
    ListInbox,
    Marked,
    MessageRead,
    PersonCommand,
    Presence,
    PresenceReply,
    ReadItems,
    SeeItems,
    SendMessage,
    Sent,
    Typing,
    UnreadItems,
)
from dualcast.inbox.port import Marked as MarkedItems
from dualcast.inbox.service import InboxPage, Mark
from dualcast.model.channel import check_channel
from dualcast.model.errors import BadRequest, DualcastError, Forbidden, ForbiddenChannels
from dualcast.model.inbox import Badge, State
from dualcast.model.principal import Principal

MaySubscribe = Callable[[Principal, str], Awaitable[bool]]
_Room = TypeVar("_Room")


class NotAvailable(DualcastError):
    """This server was built without the room that could answer."""

    code = "not-available"
    status = 501

    def __init__(self) -> None:
        super().__init__("this server has no such service")


class Inbox(Protocol):
    """`inbox.service.InboxService` is one. Raises BadChannel (no user id), BadCursor, BusUnavailable."""

    async def list(
        self,
        tenant: str,
        user: str,
        *,
        before: str = "",
        limit: int = 50,
        states: Sequence[State] = (),
        kinds: Sequence[str] = (),
    ) -> InboxPage: ...

    async def counts(self, tenant: str, user: str) -> Badge: ...

    async def counts_by_kind(self, tenant: str, user: str) -> tuple[Badge, dict[str, int]]: ...

    async def mark(
        self, tenant: str, user: str, state: Mark, ids: Sequence[str] | None, by_connection: str = ""
    ) -> MarkedItems:
        """`ids` None: all. `by_connection` gets the reply in place of the announcement."""
        ...

    async def delete(
        self, tenant: str, user: str, ids: Sequence[str] | None, *, by_connection: str = ""
    ) -> MarkedItems:
        """As `mark`."""
        ...


class Conversations(Protocol):
    """`conversations.service.ConversationService` is one. Raises NotAParticipant, UnknownConversation,
    BadMessage, IdempotencyConflict, LimitExceeded, RateLimited, BusUnavailable."""

    async def send(
        self,
        tenant: str,
        conversation: str,
        sender: str,
        message: NewMessage,
        *,
        exclude_connection: str = "",
    ) -> StoredMessage: ...

    async def typing(self, tenant: str, conversation: str, user: str, is_typing: bool) -> None: ...

    async def read(
        self, tenant: str, conversation: str, user: str, message_ids: Sequence[str]
    ) -> Reading: ...


class PresenceRoom(Protocol):
    """`presence.service.PresenceService` is one. Raises BusUnavailable."""

    async def online(self, tenant: str, user: str) -> bool: ...

    async def state(self, tenant: str, channel: str) -> bytes | None: ...


class PersonCommands:
    """Carries commands out; one per process. A room that is None is answered with `not-available`."""

    def __init__(
        self,
        may_subscribe: MaySubscribe,
        *,
        inbox: Inbox | None = None,
        conversations: Conversations | None = None,
        presence: PresenceRoom | None = None,
    ) -> None:
        self._may_subscribe = may_subscribe
        self._inbox = inbox
        self._conversations = conversations
        self._presence = presence

    async def carry_out(self, session: Any, command: PersonCommand) -> ServerFrame:
        """The reply to `command` of `session`. Raises DualcastError."""
        principal: Principal = session.principal
        match command:
            case ListInbox() | CountInbox():
                return await self._look(_there(self._inbox), principal, command)
            case SendMessage() | Typing() | MessageRead():
                return await self._converse(_there(self._conversations), principal, session.id, command)
            case Presence():
                return await self._who(_there(self._presence), principal, command)
            case _:
                return await _mark(_there(self._inbox), principal, session.id, command)

    async def _look(self, inbox: Inbox, principal: Principal, command: ListInbox | CountInbox) -> ServerFrame:
        tenant, user = principal.tenant, principal.sub
        if isinstance(command, CountInbox):
            if not command.by_kind:
                return CountersReply(ref=command.ref, inbox=_wire(await inbox.counts(tenant, user)))
            badge, kinds = await inbox.counts_by_kind(tenant, user)
            return CountersReply(ref=command.ref, inbox=_wire(badge), kinds=kinds)
        page = await inbox.list(
            tenant,
            user,
            before=command.before,
            limit=command.limit,
            states=command.states,
            kinds=command.kinds,
        )
        notifications = [Raw(item.json()) for item in page.items]
        return InboxPageReply(
            ref=command.ref, notifications=notifications, next=page.next or None, inbox=_wire(page.badge)
        )

    async def _converse(
        self,
        rooms: Conversations,
        principal: Principal,
        connection: str,
        command: SendMessage | Typing | MessageRead,
    ) -> ServerFrame:
        tenant, user, conversation = principal.tenant, principal.sub, command.conversation
        match command:
            case SendMessage():
                message = NewMessage(
                    content=command.content,
                    id=command.id or "",
                    message_type=command.kind,
                    reply_to=command.reply_to,
                )
                sent = await rooms.send(tenant, conversation, user, message, exclude_connection=connection)
                return Sent(ref=command.ref, id=sent.id, seq=sent.seq, time=sent.time)
            case Typing():
                await rooms.typing(tenant, conversation, user, command.typing)
                return Done(ref=command.ref)
            case MessageRead():
                reading = await rooms.read(tenant, conversation, user, command.ids)
                return Done(ref=command.ref, unread=reading.unread, unknown=reading.unknown)

    async def _who(self, presence: PresenceRoom, principal: Principal, command: Presence) -> ServerFrame:
        if (command.channel is None) == (command.users is None):
            raise BadRequest("exactly one of 'channel' and 'users' is needed", code="bad-command")
        if command.channel is not None:
            channel = check_channel(command.channel)
            if not channel.startswith("presence:"):
                raise BadRequest("only presence channels have members", code="bad-command")
            if not await self._may_subscribe(principal, channel):
                raise ForbiddenChannels([channel])
            data = await presence.state(principal.tenant, channel)
            return PresenceReply(ref=command.ref, channel=channel, data=None if data is None else Raw(data))
        users = list(dict.fromkeys(command.users or ()))
        if not principal.may_publish and users != [principal.sub]:
            raise Forbidden("only a backend sees other users", code="publisher-only")
        online = {user: await presence.online(principal.tenant, user) for user in users}
        return PresenceReply(ref=command.ref, users=online)


_MARKS: dict[type[Any], Mark] = {
    ReadItems: "read",
    SeeItems: "seen",
    UnreadItems: "unread",
    ArchiveItems: "archived",
}


async def _mark(
    inbox: Inbox,
    principal: Principal,
    connection: str,
    command: ReadItems | SeeItems | UnreadItems | ArchiveItems | DeleteItems,
) -> ServerFrame:
    if (command.ids is None) != command.all:
        raise BadRequest("exactly one of 'ids' and 'all' is needed", code="bad-command")
    ids = None if command.ids is None else tuple(dict.fromkeys(command.ids))
    tenant, user = principal.tenant, principal.sub
    mark = _MARKS.get(type(command))
    if mark is None:
        marked = await inbox.delete(tenant, user, ids, by_connection=connection)
    else:
        marked = await inbox.mark(tenant, user, mark, ids, by_connection=connection)
    return Marked(
        ref=command.ref,
        action="deleted" if mark is None else mark,
        ids=None if ids is None else marked.changed,
        count=marked.count,
        unknown=marked.unknown,
        inbox=_wire(marked.badge),
    )


def _there(room: _Room | None) -> _Room:
    if room is None:
        raise NotAvailable
    return room


def _wire(badge: Badge) -> InboxBadge:
    return InboxBadge(
        unread=badge.unread,
        unseen=badge.unseen,
        revision=(badge.user_revision, badge.tenant_revision),
    )
