"""What `/v1/conversations` takes and gives, with its limits."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from msgspec import Meta, Struct

from dualcast.conversations.model import StoredMessage
from dualcast.conversations.service import MAX_READ_IDS
from dualcast.publishing.requests import Name

Id = Annotated[
    str,
    Meta(min_length=1, max_length=128, description="printable ASCII; unique in the conversation"),
]
Users = Annotated[list[Name], Meta(max_length=500)]
Text = Annotated[str, Meta(max_length=16_384)]
Object = dict[str, Any]


class ParticipantsBody(Struct, frozen=True, forbid_unknown_fields=True):
    """All participants from now on."""

    participants: Users


class ParticipantsChange(Struct, frozen=True, forbid_unknown_fields=True):
    """Participants to add, then participants to remove."""

    add: Users = []
    remove: Users = []


class ParticipantsView(Struct, frozen=True):
    """Who is in a conversation. `revision` grows with every change."""

    conversation_id: str
    participants: tuple[str, ...]
    revision: int


class MessageBody(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    """A message. The same `id` again is the same message: it is answered as before and broadcast once."""

    content: Text | Object
    """A text, or an object of at most 16 KiB of JSON."""
    id: Id | None = None
    """Unique in the conversation; a UUIDv7 when absent."""
    message_type: Annotated[str, Meta(min_length=1, max_length=64)] = "text"
    sender_id: Name | None = None
    """Only a backend may name another user than itself."""
    sender_type: Annotated[str, Meta(max_length=64)] | None = None
    sender_name: Annotated[str, Meta(max_length=256)] | None = None
    sender_avatar: Annotated[str, Meta(max_length=2048)] | None = None
    is_important: bool = False
    reply_to: Id | None = None
    extra: Object = {}
    """Further keys of the publisher's own, at most 4 KiB of JSON."""
    exclude_connection: Annotated[str, Meta(max_length=256)] = ""
    """Only this connection gets no copy; without it the sender gets none on any device."""
    participants: Users | None = None
    """Of a backend: makes the conversation when it is not known."""


class MessagesView(Struct, frozen=True):
    """Messages, newest first; ask again with `before=next` until `next` is 0."""

    messages: list[StoredMessage]
    next: int


class TypingBody(Struct, frozen=True, forbid_unknown_fields=True):
    """Whether the caller is typing."""

    is_typing: bool
    user: Name | None = None
    """Only a backend may name another user than itself."""


class ReadBody(Struct, frozen=True, forbid_unknown_fields=True):
    """What the caller has read; everything before it counts as read."""

    message_ids: Annotated[list[Id], Meta(min_length=1, max_length=MAX_READ_IDS)]
    user: Name | None = None
    """Only a backend may name another user than itself."""


class ReadView(Struct, frozen=True):
    """The caller's position. `unknown`: the ids among those given that are not kept."""

    read_seq: int
    unread: int
    unknown: tuple[str, ...]


class ConversationView(Struct, frozen=True):
    """One of the caller's conversations. `last_time`: of its last message, or of its start."""

    id: str
    participants: int
    revision: int
    last_seq: int
    last_time: str
    read_seq: int
    unread: int


class ConversationsView(Struct, frozen=True):
    """Ask again with `after=next` until `next` is empty."""

    conversations: list[ConversationView]
    next: str


class BroadcastBody(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    """`message`: one the caller keeps itself, to all but `exclude_user` and `exclude_connection`; its `data`
    is a message as it is sent, pushed to those without a live connection. `reply`: a consultant's, to all
    others, pushed to those without a live mobile connection. `mobile`: to mobile connections only, pushed to
    those without one. `system`: to all or to `targets`, pushed to those without a live connection."""

    kind: Literal["message", "reply", "mobile", "system"]
    data: Object
    """What clients get: `content`, `title`, `message`, `action`, `type` …"""
    id: Id | None = None
    """Makes a repetition harmless."""
    consultant_id: Name | None = None
    """Of a `reply`."""
    exclude_user: Name | None = None
    """Of `mobile` and `message`."""
    exclude_connection: Annotated[str, Meta(max_length=256)] = ""
    """Of `message`: dualcast's id of a connection, or what its client calls it."""
    targets: Users | None = None
    """Of `system`; an empty list reaches nobody."""


class DirectBody(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    """A message to one user, outside of any conversation."""

    user: Name
    data: Object
    id: Id | None = None


class BroadcastView(Struct, frozen=True):
    """What was published; `id` and `cursor` are empty when it reaches nobody."""

    id: str
    cursor: str
