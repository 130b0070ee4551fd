"""Conversations in Redis: scripts on the connections the bus has anyway. Keys: `lua/prelude.lua`."""

from __future__ import annotations

import secrets
from collections.abc import Sequence
from importlib.resources import files
from typing import Any
from urllib.parse import unquote

import msgspec

from dualcast.bus.storage import Extension, Scripting
from dualcast.model.channel import key_part

from .model import (
    ConversationSettings,
    NotAParticipant,
    Participants,
    TooManyParticipants,
    UnknownConversation,
)
from .port import Change, Reading, Row, Saved, Summary

_NAMES = ("change", "participants", "mine", "save", "messages", "read")
_pack = msgspec.msgpack.Encoder().encode
_unpack_change = msgspec.msgpack.Decoder(tuple[list[str], list[str]]).decode


def extension() -> Extension:
    """The scripts, named `conversations.…`."""
    folder = files("dualcast.conversations") / "lua"
    prelude = (folder / "prelude.lua").read_text(encoding="utf-8")
    return Extension(
        scripts={
            f"conversations.{name}": prelude + (folder / f"{name}.lua").read_text(encoding="utf-8")
            for name in _NAMES
        }
    )


class RedisConversations:
    """`ConversationStore` over a `Scripting` that was given `extension()`. Redis's clock counts."""

    def __init__(self, scripting: Scripting, settings: ConversationSettings | None = None) -> None:
        self._call = scripting.call
        self._settings = settings or ConversationSettings()
        self._former_ms = self._settings.former_s * 1000
        self._age_ms = self._settings.messages_age_s * 1000

    async def change(
        self,
        tenant: str,
        conversation: str,
        *,
        replace: bool,
        add: Sequence[str] = (),
        remove: Sequence[str] = (),
    ) -> Change:
        limits = self._settings
        adding, removing = [key_part(user) for user in add], [key_part(user) for user in remove]
        reply = await self._ask(
            "change",
            tenant,
            [
                key_part(conversation),
                replace,
                adding,
                removing,
                secrets.token_hex(8),
                limits.max_participants,
                limits.max_remembered,
                self._former_ms,
            ],
        )
        joined, left = (tuple(sorted(map(_name, part))) for part in _unpack_change(reply[0]))
        return Change(_people(reply[1]), joined, left)

    async def participants(self, tenant: str, conversation: str, user: str | None = None) -> Participants:
        asked = [key_part(conversation), key_part(user or ""), self._former_ms]
        return _people(await self._ask("participants", tenant, asked, read=True))

    async def mine(self, tenant: str, user: str, after: str, limit: int) -> list[Summary]:
        reply = await self._ask("mine", tenant, [key_part(user), key_part(after), limit], read=True)
        found = []
        for room, participants, *numbers in reply:
            revision, last, last_ms, read, gone = map(int, numbers)
            found.append(
                Summary(_name(room), participants, revision, last, last_ms, read, last - max(read, gone))
            )
        return found

    async def save(
        self, tenant: str, conversation: str, sender: str, ident: str, body: bytes, *, strict: bool
    ) -> Saved:
        asked = [
            key_part(conversation),
            key_part(sender),
            strict,
            ident,
            self._settings.messages_kept,
            self._age_ms,
            self._former_ms,
        ]
        new, seq, stored, saved_ms, now_ms, people = await self._ask("save", tenant, asked, body)
        return Saved(int(seq), stored, int(saved_ms), int(now_ms), bool(new), _people(people))

    async def messages(
        self, tenant: str, conversation: str, user: str | None, before: int, limit: int
    ) -> list[Row]:
        asked = [key_part(conversation), key_part(user or ""), before, limit, self._age_ms]
        reply = await self._ask("messages", tenant, asked, read=True)
        return [Row(int(reply[i]), reply[i + 1]) for i in range(0, len(reply), 2)]

    async def read(self, tenant: str, conversation: str, user: str, ids: Sequence[str]) -> Reading:
        asked = [key_part(conversation), key_part(user), list(ids), self._former_ms]
        position, unread, unknown, people = await self._ask("read", tenant, asked)
        return Reading(int(position), int(unread), tuple(ids[i] for i in unknown), _people(people))

    async def _ask(self, name: str, tenant: str, asked: list[Any], *more: bytes, read: bool = False) -> Any:
        reply = await self._call(f"conversations.{name}", tenant, _pack(asked), *more, read=read)
        if reply == b"unknown":
            raise UnknownConversation
        if reply == b"stranger":
            raise NotAParticipant
        if reply == b"full":
            raise TooManyParticipants(self._settings.max_participants)
        return reply


def _name(part: bytes | str) -> str:
    return unquote(part if isinstance(part, str) else part.decode())


def _people(reply: Any) -> Participants:
    revision, users, former = reply
    return Participants(tuple(sorted(map(_name, users))), int(revision), tuple(sorted(map(_name, former))))
