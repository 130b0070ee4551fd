"""The Redis inbox: `lua/`, run by the redis engine beside its log. Names of keys are listed in
`lua/common.lua`."""

from __future__ import annotations

import secrets
from collections.abc import Sequence
from functools import cache
from importlib.resources import files
from typing import Any

import msgspec

from dualcast.bus.storage import Extension, Scripting
from dualcast.model.channel import key_part
from dualcast.model.inbox import Badge, State

from .port import (
    MAX_IDS,
    MAX_NUMBERED,
    MAX_SCAN,
    STATES,
    Action,
    Found,
    InboxItem,
    InboxSettings,
    Marked,
    Numbered,
)
from .states import NUMBER, TARGET

SERVER_CLOCK = """local function clock()
  local time = redis.call('TIME')
  return time[1] * 1000 + math.floor(time[2] / 1000)
end
"""
_NAMES = ("page", "numbered", "counts", "change", "withdraw")
_FIELDS = 6
_pack = msgspec.msgpack.Encoder().encode
_badge = msgspec.msgpack.Decoder(Badge).decode
_NO_IDS = _pack([])


@cache
def _text(name: str) -> str:
    return (files("dualcast.inbox") / "lua" / f"{name}.lua").read_text(encoding="utf-8")


def inbox_extension(settings: InboxSettings | None = None, *, clock: str = SERVER_CLOCK) -> Extension:
    """The inbox's share of the redis engine. `clock`: Lua that defines `clock()`, Unix milliseconds."""
    keep = settings or InboxSettings()
    head = (
        f"local MAX_ITEMS, MAX_AGE_MS = {keep.max_items}, {keep.max_age_s * 1000}\n{clock}\n{_text('common')}"
    )
    return Extension(
        riders=head + _text("rider"), scripts={f"inbox_{name}": head + _text(name) for name in _NAMES}
    )


class RedisInbox:
    """`InboxStore` over the engine that was given `inbox_extension`."""

    def __init__(self, scripting: Scripting) -> None:
        self._scripting = scripting

    async def page(
        self,
        tenant: str,
        user: str,
        *,
        before: int = 0,
        limit: int = 50,
        states: Sequence[State] = (),
        kinds: Sequence[str] = (),
    ) -> Found:
        numbers = [NUMBER[state] for state in states]
        request = (_part(user), before, limit, numbers, list(kinds), MAX_SCAN)
        reply = await self._scripting.call("inbox_page", tenant, _pack(request), read=True)
        return Found(_items(reply[2:]), reply[1], _badge(reply[0]))

    async def numbered(
        self,
        tenant: str,
        user: str,
        *,
        skip: int,
        limit: int,
        states: Sequence[State] = (),
        kinds: Sequence[str] = (),
    ) -> Numbered:
        numbers = [NUMBER[state] for state in states or STATES]
        request = (_part(user), skip, limit, numbers, list(kinds), MAX_NUMBERED)
        reply = await self._scripting.call("inbox_numbered", tenant, _pack(request), read=True)
        return Numbered(_items(reply[1:]), reply[0])

    async def counts(self, tenant: str, user: str) -> Badge:
        reply = await self._scripting.call("inbox_counts", tenant, _pack((_part(user), False)), read=True)
        return _badge(reply[0])

    async def counts_by_kind(self, tenant: str, user: str) -> tuple[Badge, dict[str, int]]:
        reply = await self._scripting.call("inbox_counts", tenant, _pack((_part(user), True)), read=True)
        kinds = {kind.decode(): count for kind, count in zip(reply[1::2], reply[2::2], strict=True)}
        return _badge(reply[0]), kinds

    async def change(
        self,
        tenant: str,
        user: str,
        action: Action,
        ids: Sequence[str] | None,
        *,
        states: Sequence[State] = (),
    ) -> Marked:
        what: int | str = "unread" if action == "unread" else TARGET[action]
        numbers = [NUMBER[state] for state in states]
        request = (_part(user), what, ids is None, numbers, _token(), MAX_IDS)
        some = _NO_IDS if ids is None else _pack(list(ids))
        reply: Any = await self._scripting.call("inbox_change", tenant, _pack(request), some)
        packed, count, changed, unknown = reply
        return Marked(
            tuple(ident.decode() for ident in changed),
            tuple(ident.decode() for ident in unknown),
            count,
            _badge(packed),
        )

    async def withdraw(self, tenant: str, ident: str) -> int | None:
        reply = await self._scripting.call("inbox_withdraw", tenant, _pack((ident, _token())))
        return int(reply) or None


def _items(values: list[Any]) -> tuple[InboxItem, ...]:
    rows = (values[at : at + _FIELDS] for at in range(0, len(values), _FIELDS))
    return tuple(
        InboxItem(ident.decode(), offset, kind.decode(), STATES[state], bool(wide), record)
        for ident, offset, kind, state, wide, record in rows
    )


def _part(user: str) -> str:
    return key_part("user:" + user)


def _token() -> str:
    return secrets.token_hex(8)
