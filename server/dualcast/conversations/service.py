"""Conversations: who is in them, what was said, and who hears of it."""

from __future__ import annotations

import logging
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any

from msgspec import Struct

from dualcast.bus.announcing import Announcer
from dualcast.model.channel import check_id
from dualcast.model.errors import DualcastError, IdempotencyConflict
from dualcast.model.publication import Receipt
from dualcast.model.uuid7 import Uuid7
from dualcast.telemetry.counters import Counters
from dualcast.tenancy.grants import Grants, make_grant

from .broadcasts import Broadcasts, conversation_channel
from .model import (
    BadMessage,
    ConversationSettings,
    NewMessage,
    Participants,
    StoredMessage,
    TooManyParticipants,
    UnknownConversation,
    check_message_id,
    checked_message,
    decode_message,
    encode_message,
    same_message,
)
from .pace import Pace
from .port import Change, ConversationStore, Reading, Summary

log = logging.getLogger(__name__)

REPEAT_MS = 60_000
"""A message sent again within this time is broadcast again, in case the first try ended in between: under the
same publication id, which the bus remembers at least so long, so it is there once."""
COPIED_BYTES = 65_536
"""A participant's message of so many bytes, over all it is copied to, counts as one more: 500 copies of
16 KiB cost the bus what some hundred small messages do."""
MAX_READ_IDS = 500
MAX_PAGE = 100
SETTLE_ATTEMPTS = 8


class MessagePage(Struct, frozen=True):
    """Messages, newest first."""

    messages: list[StoredMessage]
    next: int
    """`before` of the next page; 0: there is none."""


class ConversationService:
    """What applications do with conversations; the same for REST, native commands and dialects.

    `user`: the participant who acts; None (or `backend=True`): a backend of the tenant, which may act in
    every conversation. All methods raise BusUnavailable, BadChannel (an id), and where there is a
    conversation, UnknownConversation and NotAParticipant. `push_ready`, `poke_push`: of the push room, see
    `Broadcasts`. `clock` gives Unix seconds, `monotonic` seconds that nobody sets back: rates go by them.
    """

    def __init__(
        self,
        store: ConversationStore,
        announcer: Announcer,
        grants: Grants,
        settings: ConversationSettings | None = None,
        *,
        counters: Counters | None = None,
        push_ready: Callable[[str], Awaitable[object]] | None = None,
        poke_push: Callable[[str], object] | None = None,
        clock: Callable[[], float] = time.time,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._store = store
        self._grants = grants
        self._settings = settings or ConversationSettings()
        self._broadcasts = Broadcasts(announcer, self._settings, push_ready, poke_push)
        self._counters = counters or Counters()
        self._clock = clock
        self._new_id = Uuid7()
        limits = self._settings
        self._messages = Pace(limits.messages_per_user_per_s, limits.burst_s, monotonic)
        self._signals = Pace(limits.signals_per_user_per_s, limits.burst_s, monotonic)

    # ── participants ──

    async def set_participants(self, tenant: str, conversation: str, users: Sequence[str]) -> Participants:
        """Makes the conversation when there is none; `users` are its participants from now on.

        They are the grant on `conversation:<id>` as well: whoever else it named is granted no longer. Who
        left may not subscribe any more; a live subscription of theirs stays, and is not due anything of the
        conversation. Raises TooManyParticipants, LimitExceeded `too-many-members` (ids too long together).
        """
        return await self._change(tenant, conversation, replace=True, add=users)

    async def add_participants(self, tenant: str, conversation: str, users: Sequence[str]) -> Participants:
        """Adds to a known conversation. Who joins sees all that is kept, and has nothing unread."""
        return await self._change(tenant, conversation, replace=False, add=users)

    async def remove_participants(self, tenant: str, conversation: str, users: Sequence[str]) -> Participants:
        """Takes off a known conversation."""
        return await self._change(tenant, conversation, replace=False, remove=users)

    async def participants(self, tenant: str, conversation: str, user: str | None = None) -> Participants:
        """Who is in."""
        conversation_channel(conversation)
        return await self._store.participants(tenant, conversation, user)

    async def conversations_of(
        self, tenant: str, user: str, after: str = "", limit: int = 50
    ) -> list[Summary]:
        """Conversations the user takes part in, in a fixed order, behind the id `after`."""
        return await self._store.mine(tenant, check_id(user), after, min(limit, MAX_PAGE))

    # ── messages ──

    async def send(
        self,
        tenant: str,
        conversation: str,
        sender: str,
        message: NewMessage,
        *,
        exclude_connection: str = "",
        backend: bool = False,
        participants: Sequence[str] | None = None,
    ) -> StoredMessage:
        """Keeps a message, then broadcasts it: to everybody but the sender, with `exclude_connection` to
        everybody but that connection. A broadcast that fails is logged, counted, and fails nothing.

        A given id that is kept already is answered with what was kept, and nothing is broadcast twice;
        IdempotencyConflict when that was another message. `participants` (of a backend): makes a conversation
        that is not known. Raises BadMessage, LimitExceeded `data-too-large`, RateLimited.
        """
        conversation_channel(conversation)
        if not backend:
            self._messages.take(tenant, sender)
        if exclude_connection:
            check_id(exclude_connection)
        ident = check_message_id(message.id) if message.id else self._new_id()
        now_ms = int(self._clock() * 1000)
        asked = checked_message(conversation, sender, message, ident, now_ms, self._settings)
        if backend and participants is not None:
            await self._make(tenant, conversation, participants)
        body = encode_message(asked)
        saved = await self._store.save(tenant, conversation, sender, ident, body, strict=not backend)
        stored = decode_message(saved.body, saved.seq)
        if not saved.new:
            if not same_message(stored, asked):
                raise IdempotencyConflict("this message id was used for another message")
            if saved.now_ms - saved.saved_ms > REPEAT_MS:
                return stored
        if not backend:
            copied = len(body) * len(saved.participants.users)
            self._messages.charge(tenant, sender, copied // COPIED_BYTES)
        try:
            await self._broadcasts.message(
                tenant,
                saved.participants,
                stored,
                exclude_user="" if exclude_connection else sender,
                exclude_connection=exclude_connection,
            )
        except Exception as error:  # noqa: BLE001 the message is kept: whatever happens to its broadcast, it was sent
            self._failed(tenant, error)
        return stored

    async def messages(
        self, tenant: str, conversation: str, user: str | None = None, before: int = 0, limit: int = 50
    ) -> MessagePage:
        """What was said, newest first, before the sequence number `before` (0: from the newest)."""
        conversation_channel(conversation)
        size = min(limit, MAX_PAGE)
        rows = await self._store.messages(tenant, conversation, user, before, size + 1)
        page = rows[:size]
        return MessagePage(
            [decode_message(row.body, row.seq) for row in page], page[-1].seq if len(rows) > size else 0
        )

    # ── signals ──

    async def typing(self, tenant: str, conversation: str, user: str, is_typing: bool) -> None:
        """Tells the other participants, live only. Raises RateLimited."""
        conversation_channel(conversation)
        self._signals.take(tenant, user)
        people = await self._store.participants(tenant, conversation, user)
        await self._broadcasts.signal(tenant, conversation, people, user, "typing", {"is_typing": is_typing})

    async def read(self, tenant: str, conversation: str, user: str, message_ids: Sequence[str]) -> Reading:
        """Moves the participant's read position to the newest of the messages, and tells the other
        participants, live only; ids that are not kept are told as well. A failing broadcast fails nothing.
        Raises BadMessage, RateLimited."""
        conversation_channel(conversation)
        self._signals.take(tenant, user)
        if not 1 <= len(message_ids) <= MAX_READ_IDS:
            raise BadMessage(f"name 1 to {MAX_READ_IDS} message ids")
        ids = list(dict.fromkeys(map(check_message_id, message_ids)))
        reading = await self._store.read(tenant, conversation, user, ids)
        try:
            await self._broadcasts.signal(
                tenant, conversation, reading.participants, user, "read", {"message_ids": ids}
            )
        except DualcastError as error:
            self._failed(tenant, error)
        return reading

    # ── calls of backends ──

    async def broadcast_message(
        self,
        tenant: str,
        conversation: str,
        message: NewMessage,
        sender: str,
        *,
        exclude_user: str = "",
        exclude_connection: str = "",
    ) -> Receipt:
        """A message that the caller keeps itself: broadcast to all participants, but for a user or a
        connection, and not listed. A failing broadcast raises."""
        people = await self.participants(tenant, conversation)
        ident = check_message_id(message.id or self._new_id())
        now_ms = int(self._clock() * 1000)
        asked = checked_message(conversation, sender, message, ident, now_ms, self._settings)
        return await self._broadcasts.message(
            tenant, people, asked, exclude_user=exclude_user, exclude_connection=exclude_connection
        )

    async def consultation_reply(
        self, tenant: str, conversation: str, data: Mapping[str, Any], consultant: str, *, ident: str = ""
    ) -> Receipt:
        """To all participants but the consultant; pushed to those without a live mobile connection. `data`:
        `content`, `consultant_name`, `reply_type`, … `ident` makes a repetition harmless."""
        people = await self.participants(tenant, conversation)
        return await self._broadcasts.reply(tenant, conversation, people, data, consultant, ident)

    async def mobile_notification(
        self,
        tenant: str,
        conversation: str,
        data: Mapping[str, Any],
        *,
        exclude_user: str = "",
        ident: str = "",
    ) -> Receipt:
        """To mobile connections of the participants, pushed to those without one. `data`: `title`, `content`,
        `action`, …"""
        people = await self.participants(tenant, conversation)
        return await self._broadcasts.mobile(tenant, conversation, people, data, exclude_user, ident)

    async def system_notification(
        self,
        tenant: str,
        conversation: str,
        data: Mapping[str, Any],
        targets: Sequence[str] | None = None,
        *,
        ident: str = "",
    ) -> Receipt | None:
        """To all participants or to `targets` (an empty list: nobody, None), pushed to those without a live
        connection. `data`: `title`, `message`, `type`, …"""
        people = await self.participants(tenant, conversation)
        return await self._broadcasts.system(tenant, conversation, people, data, targets, ident)

    async def direct_message(
        self, tenant: str, user: str, data: Mapping[str, Any], *, ident: str = ""
    ) -> Receipt:
        """To one user, in no conversation; pushed without a live connection. `data`: `title`, `content`,
        `type`, …"""
        return await self._broadcasts.direct(tenant, user, data, ident)

    # ── inside ──

    async def _make(self, tenant: str, conversation: str, participants: Sequence[str]) -> None:
        try:
            await self._store.participants(tenant, conversation)
        except UnknownConversation:
            await self.set_participants(tenant, conversation, participants)

    async def _change(
        self,
        tenant: str,
        conversation: str,
        *,
        replace: bool,
        add: Sequence[str] = (),
        remove: Sequence[str] = (),
    ) -> Participants:
        conversation_channel(conversation)
        for user in (*add, *remove):
            check_id(user)
        if len(add) > self._settings.max_participants:
            raise TooManyParticipants(self._settings.max_participants)
        # The grant is bounded in bytes, too: refused before anything is changed.
        known = () if replace else (await self._store.participants(tenant, conversation)).users
        make_grant(members={*known, *add} - set(remove))
        change = await self._store.change(tenant, conversation, replace=replace, add=add, remove=remove)
        people = await self._settle_grant(tenant, conversation, change.participants)
        await self._tell(tenant, conversation, change)
        return people

    async def _settle_grant(self, tenant: str, conversation: str, people: Participants) -> Participants:
        """Makes the grant equal to the participants. Two changes at a time may reach the grant in the other
        order: whoever was last there looks again, so the newest participants stay."""
        channel = conversation_channel(conversation)
        for _ in range(SETTLE_ATTEMPTS):
            await self._grants.set(tenant, channel, make_grant(members=people.users))
            now = await self._store.participants(tenant, conversation)
            if now.revision == people.revision:
                break
            people = now
        return people

    async def _tell(self, tenant: str, conversation: str, change: Change) -> None:
        if not change.joined and not change.left:
            return
        try:
            await self._broadcasts.participants(tenant, conversation, change)
        except DualcastError as error:
            self._failed(tenant, error)

    def _failed(self, tenant: str, error: Exception) -> None:
        known = isinstance(error, DualcastError)
        code = error.code if isinstance(error, DualcastError) else "internal"
        self._counters.rejected(tenant, code)
        log.warning("消息广播失败: %s", code, exc_info=None if known else error)
