"""What is said in a conversation goes out: one publication with one offset to the conversation and to every
participant's own channel, and a push for those who are away (contract sections 6.3 and 6.4).

| event type | data |
|---|---|
| `conversation.message` | `model.StoredMessage` |
| `conversation.reply` | `conversation_id`, `consultant_id`, `data`: the publisher's object |
| `conversation.mobile`, `conversation.system` | `conversation_id`, `data` |
| `conversation.direct` | `data`; no conversation |
| `conversation.typing` | `conversation_id`, `user_id`, `is_typing` |
| `conversation.read` | `conversation_id`, `user_id`, `message_ids` |
| `conversation.participants` | `conversation_id`, `joined`, `left` (at most 100 each), `count`, `revision` |
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Mapping, Sequence
from hashlib import blake2b
from typing import Any

import msgspec
from msgspec import Raw

from dualcast.bus.announcing import Announcer
from dualcast.model.channel import check_channel, check_id, user_channel
from dualcast.model.errors import BusUnavailable, TooManyTargets
from dualcast.model.inbox import PushRider
from dualcast.model.publication import Audience, Receipt
from dualcast.model.push import PushMessage, cut, encode_push
from dualcast.model.uuid7 import Uuid7

from .model import (
    ConversationSettings,
    Participants,
    StoredMessage,
    check_message_id,
    checked_object,
    encode_message,
)
from .port import Change

log = logging.getLogger(__name__)

MAX_FORMER = 100
"""So many who left are named as excluded; are there more, the participants are named as the only ones."""
MAX_TOLD = 100
"""So many names stand in an announcement of participants; whoever needs all reads them."""
MAX_TITLE = 200
MOBILE = ("mobile",)
_encode = msgspec.json.Encoder().encode


class Broadcasts:
    """Publications of conversations. Nothing here is stored but the publication itself.

    `push_ready`: awaited with the tenant before a publication with a push; its failure does not stop the
    publication. `poke_push`: called after it, must not wait or raise.
    """

    def __init__(
        self,
        announcer: Announcer,
        settings: ConversationSettings,
        push_ready: Callable[[str], Awaitable[object]] | None = None,
        poke_push: Callable[[str], object] | None = None,
    ) -> None:
        self._announcer = announcer
        self._settings = settings
        self._push_ready = push_ready
        self._poke_push = poke_push
        self._new_id = Uuid7()

    async def message(
        self,
        tenant: str,
        people: Participants,
        message: StoredMessage,
        *,
        exclude_user: str = "",
        exclude_connection: str = "",
    ) -> Receipt:
        """`new_message`: to all devices of all participants, but for those of `exclude_user` and that one
        connection. Push to everybody but the sender without a live connection."""
        conversation = message.conversation_id
        reached = tuple(user for user in people.users if user != exclude_user)
        away = tuple(user for user in reached if user != message.sender_id)
        ident = scoped("message", conversation, message.id)
        text = message.content if isinstance(message.content, str) else _text(message.content, "text")
        link = {"conversation_id": conversation}
        push = _push(away, ident, self._settings.push_title, text, "normal", link)
        audience = _audience(people, exclude_user, connection=exclude_connection)
        return await self._announce(
            tenant, conversation, reached, "message", encode_message(message), ident, audience, push
        )

    async def reply(
        self,
        tenant: str,
        conversation: str,
        people: Participants,
        data: Mapping[str, Any],
        consultant: str,
        ident: str = "",
    ) -> Receipt:
        """A consultant's reply: live to all others, push to those without a live mobile connection."""
        others = tuple(user for user in people.users if user != check_id(consultant))
        ident = self._ident("reply", conversation, ident)
        body = {
            "conversation_id": conversation,
            "consultant_id": consultant,
            "data": Raw(self._checked(data)),
        }
        link = {"conversation_id": conversation, "action": "open_conversation"}
        title = self._settings.reply_push_title
        push = _push(others, ident, title, _text(data, "content"), "high", link, MOBILE)
        receipt = await self._announce(
            tenant, conversation, others, "reply", _encode(body), ident, _audience(people, consultant), push
        )
        log.info("顾问回复广播完成: conversation_id=%s, consultant_id=%s", conversation, consultant)
        return receipt

    async def mobile(
        self,
        tenant: str,
        conversation: str,
        people: Participants,
        data: Mapping[str, Any],
        exclude_user: str = "",
        ident: str = "",
    ) -> Receipt:
        """To mobile connections only; push to those without one, whatever else they are connected with."""
        others = tuple(user for user in people.users if user != exclude_user)
        ident = self._ident("mobile", conversation, ident)
        body = {"conversation_id": conversation, "data": Raw(self._checked(data))}
        link = {"conversation_id": conversation, "action": _text(data, "action")}
        push = _push(others, ident, _text(data, "title"), _text(data, "content"), "high", link, MOBILE)
        audience = _audience(people, exclude_user, devices=MOBILE)
        return await self._announce(
            tenant, conversation, others, "mobile", _encode(body), ident, audience, push
        )

    async def system(
        self,
        tenant: str,
        conversation: str,
        people: Participants,
        data: Mapping[str, Any],
        targets: Sequence[str] | None = None,
        ident: str = "",
    ) -> Receipt | None:
        """To all participants, or to `targets`, participants or not; an empty list reaches nobody (None)."""
        users = people.users if targets is None else tuple(dict.fromkeys(map(check_id, targets)))
        if len(users) > self._settings.max_participants:
            raise TooManyTargets(f"at most {self._settings.max_participants} users at a time")
        ident = self._ident("system", conversation, ident)
        body = _encode({"conversation_id": conversation, "data": Raw(self._checked(data))})
        link = {"conversation_id": conversation}
        push = _push(users, ident, _text(data, "title"), _text(data, "message"), "normal", link)
        if targets is None:
            audience = _audience(people)
            return await self._announce(tenant, conversation, users, "system", body, ident, audience, push)
        if not users:
            return None
        channels = [user_channel(user) for user in users]
        return await self._publish(tenant, channels, "system", body, ident, None, push)

    async def direct(self, tenant: str, user: str, data: Mapping[str, Any], ident: str = "") -> Receipt:
        """To one user, outside of any conversation; push without a live connection."""
        channel = user_channel(user)
        ident = self._ident("direct", user, ident)
        body = _encode({"data": Raw(self._checked(data))})
        push = _push((user,), ident, _text(data, "title"), _text(data, "content"), "normal", {})
        return await self._publish(tenant, (channel,), "direct", body, ident, None, push)

    async def signal(
        self,
        tenant: str,
        conversation: str,
        people: Participants,
        user: str,
        event: str,
        data: dict[str, Any],
    ) -> None:
        """Typing and read: to the other participants, live only, never pushed."""
        body = _encode({"conversation_id": conversation, "user_id": user, **data})
        others = tuple(one for one in people.users if one != user)
        await self._announce(
            tenant, conversation, others, event, body, "", _audience(people, user), None, ephemeral=True
        )

    async def participants(self, tenant: str, conversation: str, change: Change) -> Receipt:
        """Tells those who are in, and those who left."""
        people = change.participants
        body = _encode(
            {
                "conversation_id": conversation,
                "joined": change.joined[:MAX_TOLD],
                "left": change.left[:MAX_TOLD],
                "count": len(people.users),
                "revision": people.revision,
            }
        )
        told = msgspec.structs.replace(
            people,
            users=(*people.users, *change.left)[:999],
            former=tuple(user for user in people.former if user not in set(change.left)),
        )
        return await self._announce(
            tenant, conversation, told.users, "participants", body, "", _audience(told), None
        )

    async def _announce(
        self,
        tenant: str,
        conversation: str,
        users: Sequence[str],
        event: str,
        data: bytes,
        ident: str,
        audience: Audience | None,
        push: PushRider | None,
        *,
        ephemeral: bool = False,
    ) -> Receipt:
        channels = [conversation_channel(conversation), *("user:" + user for user in users)]
        return await self._publish(tenant, channels, event, data, ident, audience, push, ephemeral=ephemeral)

    async def _publish(
        self,
        tenant: str,
        channels: Sequence[str],
        event: str,
        data: bytes,
        ident: str,
        audience: Audience | None,
        push: PushRider | None,
        *,
        ephemeral: bool = False,
    ) -> Receipt:
        if push is not None and self._push_ready is not None:
            try:
                await self._push_ready(tenant)
            except BusUnavailable as error:
                log.warning("the push queue is not ready: %s", error.code)
        receipt = await self._announcer.announce(
            tenant,
            channels,
            "conversation." + event,
            data,
            ident=ident,
            ephemeral=ephemeral,
            audience=audience,
            push=push,
        )
        if push is not None and self._poke_push is not None:
            self._poke_push(tenant)
        return receipt

    def _ident(self, kind: str, where: str, ident: str) -> str:
        return scoped(kind, where, ident) if ident else self._new_id()

    def _checked(self, data: Mapping[str, Any]) -> bytes:
        return checked_object(data, self._settings.max_content_bytes)


def conversation_channel(conversation: str) -> str:
    """The channel of a conversation; raises BadChannel when the id is not valid."""
    return check_channel("conversation:" + conversation)


def scoped(kind: str, where: str, ident: str) -> str:
    """The publication id of something a publisher named `ident`: two conversations may use one name. Raises
    BadMessage."""
    digest = blake2b(f"{kind}\0{where}\0{check_message_id(ident)}".encode(), digest_size=16)
    return f"c-{digest.hexdigest()}"


def _audience(
    people: Participants, exclude: str = "", *, connection: str = "", devices: tuple[str, ...] = ()
) -> Audience | None:
    """Who is due a copy. Those who left may have a live subscription to the conversation still: they are
    excluded by name; when they are many, the participants are the only ones included."""
    named = len(people.former) <= MAX_FORMER
    excluded = (*((exclude,) if exclude else ()), *(people.former if named else ()))
    if named and not excluded and not connection and not devices:
        return None
    return Audience(
        users=None if named else people.users,
        devices=devices,
        exclude_users=excluded,
        exclude_connections=(connection,) if connection else (),
    )


def _push(
    users: tuple[str, ...],
    ident: str,
    title: str,
    text: str,
    priority: str,
    link: dict[str, str],
    devices: tuple[str, ...] = (),
) -> PushRider | None:
    if not users:
        return None
    message = PushMessage(
        id=ident,
        title=title[:MAX_TITLE],
        text=cut(text),
        priority=priority,
        data=Raw(_encode({key: value for key, value in link.items() if value})),
        devices=devices,
    )
    return PushRider(users=users, message=encode_push(message), devices=devices)


def _text(data: Mapping[str, Any], key: str) -> str:
    """A text of the publisher's object, "" when it is none."""
    value = data.get(key)
    return value if isinstance(value, str) else ""
