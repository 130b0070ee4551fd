"""The store of conversations: participants, messages, read positions. Engines: `sql`, `redis`.

Every method is about one tenant; conversations of other tenants do not exist for it. All raise BusUnavailable
when the engine is away. Methods that take `user` demand that it is a participant when it is not None
(NotAParticipant); None is a backend. All but `change` and `mine` raise UnknownConversation.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from msgspec import Struct

from .model import Participants


class Change(Struct, frozen=True):
    """What a change of participants did. Nobody joined or left: nothing changed."""

    participants: Participants
    joined: tuple[str, ...] = ()
    left: tuple[str, ...] = ()


class Saved(Struct, frozen=True):
    """A message in the store. `new` False: this id was there before, and `body` is what was saved then."""

    seq: int
    body: bytes
    saved_ms: int
    now_ms: int
    """Both by the store's clock: nodes may differ from it."""
    new: bool
    participants: Participants


class Row(Struct, frozen=True):
    """One message of a page."""

    seq: int
    body: bytes


class Reading(Struct, frozen=True):
    """How far a participant has read."""

    position: int
    """Sequence number; everything up to it counts as read."""
    unread: int
    """Messages still kept after it."""
    unknown: tuple[str, ...]
    """Of the message ids asked for: those that are not kept (any more)."""
    participants: Participants


class Summary(Struct, frozen=True):
    """One conversation in its participant's list."""

    id: str
    participants: int
    revision: int
    last_seq: int
    """0: no message yet."""
    last_ms: int
    """Unix milliseconds of the last message, or of the start of the conversation."""
    read_seq: int
    unread: int


class ConversationStore(Protocol):
    """See the module."""

    async def change(
        self,
        tenant: str,
        conversation: str,
        *,
        replace: bool,
        add: Sequence[str] = (),
        remove: Sequence[str] = (),
    ) -> Change:
        """Adds and removes participants. `replace`: whoever is not in `add` leaves, and the conversation is
        made when there is none; else UnknownConversation. TooManyParticipants changes nothing.

        Who joins has read everything there is.
        """
        ...

    async def participants(self, tenant: str, conversation: str, user: str | None = None) -> Participants: ...

    async def mine(self, tenant: str, user: str, after: str, limit: int) -> list[Summary]:
        """Conversations `user` takes part in, in a fixed order; those behind `after` ("": from the start)."""
        ...

    async def save(
        self, tenant: str, conversation: str, sender: str, ident: str, body: bytes, *, strict: bool
    ) -> Saved:
        """Keeps a message under `ident` unless that is there already. `strict`: the sender is a participant.
        A participant who sends has read everything up to the own message. Oldest messages beyond the
        retention go.
        """
        ...

    async def messages(
        self, tenant: str, conversation: str, user: str | None, before: int, limit: int
    ) -> list[Row]:
        """Newest first, sequence numbers < `before` (0: from the newest)."""
        ...

    async def read(self, tenant: str, conversation: str, user: str, ids: Sequence[str]) -> Reading:
        """Moves the participant's position to the newest of `ids`; it never goes back."""
        ...
