"""Commands about one person's things, and their replies: inbox, conversations, presence (docs/protocol.md).

Everything is the caller's own: the user is that of the token and never a field.
"""

from __future__ import annotations

from typing import Annotated, Any

from msgspec import Meta

from dualcast.model.inbox import State

from .native_base import ChannelName, ClientFrame, InboxBadge, ServerFrame

ItemId = Annotated[str, Meta(min_length=1, max_length=256, description="Id of the publication.")]
UserId = Annotated[str, Meta(min_length=1, max_length=256)]
ConversationId = Annotated[str, Meta(min_length=1, max_length=256)]
MessageId = Annotated[str, Meta(min_length=1, max_length=128, description="Printable ASCII.")]
Word = Annotated[str, Meta(min_length=1, max_length=64)]
Kind = Annotated[str, Meta(min_length=1, max_length=128, description="A notification type.")]
ItemIds = Annotated[list[ItemId], Meta(min_length=1, max_length=200)]


class ListInbox(ClientFrame, tag="inbox", frozen=True, kw_only=True):
    """A page of the own inbox, newest first. Answered with `inbox_page`."""

    before: Annotated[str, Meta(max_length=256, description="`next` of the page before.")] = ""
    limit: Annotated[int, Meta(ge=1, le=100)] = 50
    states: Annotated[tuple[State, ...], Meta(max_length=4)] = ()
    """Only items in one of these states; [] is all of them, archived ones too."""
    kinds: Annotated[tuple[Kind, ...], Meta(max_length=20)] = ()
    """Only notifications of one of these types."""


class CountInbox(ClientFrame, tag="counters", frozen=True, kw_only=True):
    """The counters of the own inbox. Answered with `inbox_counters`."""

    by_kind: bool = False
    """Also the unread ones per notification type."""


class _Marking(ClientFrame, frozen=True, kw_only=True):
    """Exactly one of `ids` and `all`. Answered with `marked`."""

    ids: ItemIds | None = None
    all: bool = False


class ReadItems(_Marking, tag="read", frozen=True, kw_only=True):
    """Marks items of the own inbox as read. Exactly one of `ids` and `all`; answered with `marked`."""


class SeeItems(_Marking, tag="seen", frozen=True, kw_only=True):
    """Marks items as seen: shown in a list, not opened. Exactly one of `ids` and `all`."""


class UnreadItems(_Marking, tag="unread", frozen=True, kw_only=True):
    """Marks read items as unread again. Exactly one of `ids` and `all`."""


class ArchiveItems(_Marking, tag="archive", frozen=True, kw_only=True):
    """Puts items away: they are counted no longer, and listed as archived. Exactly one of `ids` and `all`."""


class DeleteItems(_Marking, tag="delete", frozen=True, kw_only=True):
    """Deletes items of the own inbox for good. Exactly one of `ids` and `all`."""


class SendMessage(ClientFrame, tag="message", frozen=True, kw_only=True):
    """Says something in a conversation the caller takes part in. Answered with `sent`.

    The message is stored, then delivered to the other participants and to the sender's other connections.
    """

    conversation: ConversationId
    content: str | dict[str, Any]
    kind: Word = "text"
    id: MessageId | None = None
    """Chosen by the client: a repetition with it is sent once."""
    reply_to: MessageId | None = None


class Typing(ClientFrame, tag="typing", frozen=True, kw_only=True):
    """The caller writes something, or stopped. Nothing is kept. Answered with `done`."""

    conversation: ConversationId
    typing: bool = True


class MessageRead(ClientFrame, tag="message_read", frozen=True, kw_only=True):
    """The caller has read these messages. Answered with `done`."""

    conversation: ConversationId
    ids: Annotated[list[MessageId], Meta(min_length=1, max_length=200)]


class Presence(ClientFrame, tag="presence", frozen=True, kw_only=True):
    """Who is there: exactly one of `channel` (a presence channel the caller may subscribe to) and `users`.
    Others than oneself only for the roles publisher and admin. Answered with `presence_state`."""

    channel: ChannelName | None = None
    users: Annotated[list[UserId], Meta(min_length=1, max_length=100)] | None = None


PersonCommand = (
    ListInbox
    | CountInbox
    | ReadItems
    | SeeItems
    | UnreadItems
    | ArchiveItems
    | DeleteItems
    | SendMessage
    | Typing
    | MessageRead
    | Presence
)


class InboxPageReply(ServerFrame, tag="inbox_page", frozen=True, kw_only=True):
    """A page of the own inbox, newest first."""

    ref: str | None = None
    notifications: list[Any]
    """As in `GET /v1/users/{user}/notifications`: each as it was published, with its `state` now and its
    `scope` (`user`, or `tenant` for what was sent to everybody)."""
    next: str | None = None
    """For `before` of the next page; missing: this was the last. With filters a page may be short, or empty,
    and still have a next one."""
    inbox: InboxBadge


class CountersReply(ServerFrame, tag="inbox_counters", frozen=True, kw_only=True):
    """The counters of the own inbox, now."""

    ref: str | None = None
    inbox: InboxBadge
    kinds: dict[str, int] | None = None
    """Unread ones by notification type, when asked for."""


class Marked(ServerFrame, tag="marked", frozen=True, kw_only=True):
    """What a marking changed. The user's other connections are told by an `inbox` publication; this one has
    this reply in its place."""

    ref: str | None = None
    action: str
    """`read`, `seen`, `unread`, `archived` or `deleted`, as in the publication."""
    ids: tuple[str, ...] | None
    """The items that changed; null: all there were."""
    count: int
    """How many changed."""
    unknown: tuple[str, ...] = ()
    """Ids the own inbox does not have."""
    inbox: InboxBadge


class Sent(ServerFrame, tag="sent", frozen=True, kw_only=True):
    """The message is stored."""

    ref: str | None = None
    id: str
    seq: int
    """Place in the conversation, from 1 without holes."""
    time: str
    """RFC 3339, UTC, milliseconds."""


class Done(ServerFrame, tag="done", frozen=True, kw_only=True):
    """`typing` or `message_read` was carried out."""

    ref: str | None = None
    unread: int | None = None
    """After `message_read`: messages of the conversation that are still unread."""
    unknown: tuple[str, ...] = ()
    """Ids the conversation does not keep (any more)."""


class PresenceReply(ServerFrame, tag="presence_state", frozen=True, kw_only=True):
    """Who is there, now."""

    ref: str | None = None
    channel: str | None = None
    data: Any = None
    """State of the channel, as in a `state` frame."""
    users: dict[str, bool] | None = None
    """User id → whether any of its connections is live."""
