"""A conversation's words: settings, messages, participants, and the checks on what clients put into them."""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

import msgspec
from msgspec import Struct

from dualcast.model.channel import check_id
from dualcast.model.errors import BadRequest, Forbidden, LimitExceeded, NotFound

MAX_DEPTH = 64
MAX_TYPE = 64
MAX_NAME = 256
MAX_URL = 2048
MAX_EXTRA_KEYS = 32
MAX_KEY = 64
_ID = re.compile(r"[\x21-\x7e]{1,128}\Z")
_CONTROL = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029]")
_encode = msgspec.json.Encoder().encode


class ConversationSettings(Struct, frozen=True, kw_only=True):
    """Bounds of the room. A `…_per_s` of 0 switches that limit off."""

    max_participants: int = 500
    messages_kept: int = 10_000
    """Per conversation."""
    messages_age_s: int = 365 * 86_400
    max_content_bytes: int = 16_384
    """Of the content's JSON, and of the object in the other broadcasts."""
    max_extra_bytes: int = 4_096
    """Of the JSON of the publisher's own keys."""
    former_s: int = 7 * 86_400
    """How long those who left are remembered, so that a live subscription of theirs gets nothing."""
    max_remembered: int = 5_000
    """Participants and those who left lately, per conversation."""
    messages_per_user_per_s: float = 10.0
    """By participants; one with many large copies counts as several. Backends are bounded by the rate of the
    REST interface."""
    signals_per_user_per_s: float = 10.0
    """Typing and read together."""
    burst_s: float = 2.0
    push_title: str = "新消息"
    """Title of the push for a message (contract section 6.4)."""
    reply_push_title: str = "顾问回复"


class BadMessage(BadRequest):
    """A message that cannot be kept; sending it again cannot help."""

    code = "invalid-body"
    status = 422


class UnknownConversation(NotFound):
    code = "unknown-conversation"

    def __init__(self) -> None:
        super().__init__("there is no such conversation")


class NotAParticipant(Forbidden):
    code = "not-a-participant"

    def __init__(self) -> None:
        super().__init__("only participants of the conversation may do this")


class TooManyParticipants(LimitExceeded):
    code = "too-many-participants"

    def __init__(self, most: int) -> None:
        super().__init__(f"a conversation has at most {most} participants")


class NewMessage(Struct, frozen=True, kw_only=True):
    """What a sender says."""

    content: str | dict[str, Any]
    id: str = ""
    """Printable ASCII, unique in the conversation; "": a UUIDv7."""
    message_type: str = "text"
    sender_type: str | None = None
    sender_name: str | None = None
    sender_avatar: str | None = None
    is_important: bool = False
    reply_to: str | None = None
    """Id of the message it answers; not checked against those kept."""
    extra: dict[str, Any] = {}
    """The publisher's own keys; none of them is a name of `StoredMessage`."""


class StoredMessage(Struct, frozen=True, kw_only=True):
    """A message as it is listed, and as the data of a `conversation.message` publication."""

    id: str
    conversation_id: str
    seq: int
    """Place in the conversation, from 1 without holes; 0: broadcast without being kept."""
    content: str | dict[str, Any]
    message_type: str
    sender_id: str
    sender_type: str | None
    sender_name: str | None
    sender_avatar: str | None
    is_important: bool
    reply_to: str | None
    extra: dict[str, Any]
    time: str
    """RFC 3339, UTC, milliseconds."""


class Participants(Struct, frozen=True):
    """Who is in a conversation."""

    users: tuple[str, ...]
    """In order of id."""
    revision: int
    """Grows with every change of the participants."""
    former: tuple[str, ...] = ()
    """Who left lately."""


_NAMES = frozenset(StoredMessage.__struct_fields__)
_decode = msgspec.json.Decoder(StoredMessage).decode


def encode_message(message: StoredMessage) -> bytes:
    """Its JSON on one line."""
    return _encode(message)


def decode_message(body: bytes, seq: int) -> StoredMessage:
    """The message of a stored body, which has no place of its own."""
    return msgspec.structs.replace(_decode(body), seq=seq)


def same_message(one: StoredMessage, other: StoredMessage) -> bool:
    """Whether both say the same, whenever it was said."""
    return msgspec.structs.replace(one, seq=0, time="") == msgspec.structs.replace(other, seq=0, time="")


def checked_message(
    conversation: str,
    sender: str,
    message: NewMessage,
    ident: str,
    now_ms: int,
    settings: ConversationSettings,
) -> StoredMessage:
    """`message` with everything checked that comes from a client. Raises BadMessage, BadChannel (the
    sender's id), LimitExceeded `data-too-large`."""
    check_id(sender)
    if not 1 <= len(message.message_type) <= MAX_TYPE:
        raise BadMessage(f"a message type has 1 to {MAX_TYPE} characters")
    for text, most in (
        (message.message_type, MAX_TYPE),
        (message.sender_type, MAX_TYPE),
        (message.sender_name, MAX_NAME),
        (message.sender_avatar, MAX_URL),
    ):
        if text is not None and (len(text) > most or _CONTROL.search(text)):
            raise BadMessage(f"type, sender type, name and avatar are lines of at most {most} characters")
    if message.reply_to is not None:
        check_message_id(message.reply_to)
    checked_object(message.extra, settings.max_extra_bytes)
    if len(message.extra) > MAX_EXTRA_KEYS or any(len(key) > MAX_KEY for key in message.extra):
        raise BadMessage(f"a message has at most {MAX_EXTRA_KEYS} extra keys of {MAX_KEY} characters")
    if not _NAMES.isdisjoint(message.extra):
        raise BadMessage("an extra key has the name of one of the message's own")
    checked_object(message.content, settings.max_content_bytes)
    return StoredMessage(
        id=ident,
        conversation_id=conversation,
        seq=0,
        content=message.content,
        message_type=message.message_type,
        sender_id=sender,
        sender_type=message.sender_type,
        sender_name=message.sender_name,
        sender_avatar=message.sender_avatar,
        is_important=message.is_important,
        reply_to=message.reply_to,
        extra=message.extra,
        time=time_text(now_ms),
    )


def check_message_id(text: str) -> str:
    """`text` if it is a message id; raises BadMessage."""
    if not _ID.match(text):
        raise BadMessage("a message id is 1 to 128 characters of printable ASCII without spaces")
    return text


def checked_object(value: str | Mapping[str, Any], limit: int) -> bytes:
    """The JSON of a client's text or object. Raises BadMessage, LimitExceeded `data-too-large`."""
    if not isinstance(value, str):
        _check_depth(value, MAX_DEPTH)
    try:
        text = _encode(value)
    except (TypeError, ValueError, OverflowError):
        # Lone surrogates, numbers out of range, or (from Python) values that JSON does not have.
        raise BadMessage("contains a value that is not valid JSON") from None
    if len(text) > limit:
        raise LimitExceeded(f"the content has more than {limit} bytes", code="data-too-large")
    return text


def time_text(time_ms: int) -> str:
    """Unix milliseconds as RFC 3339 in UTC."""
    return datetime.fromtimestamp(time_ms / 1000, UTC).isoformat(timespec="milliseconds")[:-6] + "Z"


def _check_depth(value: object, left: int) -> None:
    if not left:
        raise BadMessage(f"JSON nests deeper than {MAX_DEPTH} levels", code="too-deep")
    if isinstance(value, Mapping):
        value = list(value.values())
    if isinstance(value, list | tuple):
        for item in value:
            if isinstance(item, list | tuple | Mapping):
                _check_depth(item, left - 1)
