"""Presence in Redis: what all nodes hold, under leases. The scripts in `lua/` do the work; `lua/common.lua`
lists the keys.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from functools import lru_cache
from importlib.resources import files
from typing import Any
from urllib.parse import unquote

import msgspec

from dualcast.bus.storage import Extension, Scripting
from dualcast.model.channel import key_part

from .devices import KINDS, Device, Sighting
from .port import (
    Batch,
    Changed,
    ConnectionFacts,
    Delta,
    Join,
    Member,
    Members,
    Online,
    Reaped,
    Renewed,
)

EVERYWHERE = "~presence"
"""A pseudo tenant (no tenant has such an id): who serves which tenants."""
TRIES = 3
"""A query waits so often for dead nodes to be taken off; then it answers with what there is."""
_WRITING = ("change", "reap", "device")
_ASKING = (
    "renew",
    "expired",
    "held",
    "overdue",
    "members",
    "online",
    "connections",
    "connection",
    "devices",
)
_pack = msgspec.msgpack.Encoder().encode
_facts = msgspec.json.Encoder().encode
_read_facts = msgspec.json.Decoder(ConnectionFacts).decode


def extension() -> Extension:
    """The scripts of presence, for `RedisBus(extensions=…)`."""
    folder = files("dualcast.presence") / "lua"
    text = {path: (folder / f"{path}.lua").read_text(encoding="utf-8") for path in ("common", "ledger")}
    scripts = {}
    for names, prelude in ((_WRITING, text["common"] + text["ledger"]), (_ASKING, text["common"])):
        for name in names:
            scripts[f"presence-{name}"] = prelude + (folder / f"{name}.lua").read_text(encoding="utf-8")
    return Extension(scripts=scripts)


@lru_cache(maxsize=65_536)
def user_part(user: str) -> str:
    """A user as it stands in keys."""
    return key_part("user:" + user)


def user_of(part: bytes) -> str:
    """Back from `user_part`."""
    return unquote(part.decode())[5:]


class RedisPresence:
    """A `PresenceStore` of all nodes that use the same Redis."""

    def __init__(self, scripting: Scripting) -> None:
        self._scripting = scripting
        self.on_expired: Callable[[str], Awaitable[None]] = _nobody

    async def change(
        self, tenant: str, node: str, batch: Batch, *, hold_ms: int, claim: bool = False
    ) -> Changed:
        joins = [_join(join) for join in batch.joins]
        lost, found = await self._call(
            "change", tenant, node, batch.token, claim, hold_ms, _pack(joins), _pack(batch.leaves)
        )
        return Changed(_deltas(found), bool(lost))

    async def renew(self, tenant: str, node: str, *, hold_ms: int, idle: bool = False) -> Renewed:
        lost, expired, users, kinds = await self._call("renew", tenant, node, hold_ms, idle)
        devices = dict(zip(KINDS, kinds, strict=False))
        return Renewed(bool(lost), tuple(one.decode() for one in expired), users, devices)

    async def reap(self, tenant: str, reaper: str, token: str, node: str, limit: int) -> Reaped:
        more, found = await self._call("reap", tenant, reaper, token, node, limit)
        return Reaped(_deltas(found), bool(more))

    async def expired(self, tenant: str) -> tuple[str, ...]:
        return tuple(one.decode() for one in await self._call("expired", tenant))

    async def held(self, tenant: str, node: str, cursor: str) -> tuple[str, list[str]]:
        following, found = await self._call("held", tenant, node, cursor)
        return following.decode(), [one.decode() for one in found]

    async def overdue(
        self, node: str, tenants: Sequence[str], *, hold_ms: int
    ) -> tuple[tuple[str, str], ...]:
        served = _pack([f"{tenant} {node}" for tenant in tenants])
        found = await self._call("overdue", EVERYWHERE, hold_ms, served, _pack([]))
        pairs = (one.decode().partition(" ") for one in found)
        return tuple((tenant, other) for tenant, _, other in pairs)

    async def settled(self, tenant: str, node: str) -> None:
        await self._call("overdue", EVERYWHERE, 0, _pack([]), _pack([f"{tenant} {node}"]))

    async def members(self, tenant: str, group: str, after: str, limit: int) -> Members:
        group_part, after_part = key_part(group), user_part(after) if after else ""
        count, revision, users, kinds = await self._fresh("members", tenant, group_part, after_part, limit)
        members = tuple(
            Member(user_of(user), tuple(kind for kind, per in zip(KINDS, kinds, strict=False) if per[i]))
            for i, user in enumerate(users)
        )
        return Members(members, count, int(revision))

    async def online(self, tenant: str, user: str) -> Online:
        connections, kinds = await self._fresh("online", tenant, user_part(user))
        return Online(
            connections, tuple(kind for kind, number in zip(KINDS, kinds, strict=True) if number > 0)
        )

    async def connections(
        self, tenant: str, user: str | None, after: str, limit: int
    ) -> list[ConnectionFacts]:
        whose = "" if user is None else user_part(user)
        (found,) = await self._fresh("connections", tenant, whose, after, limit)
        return [_read_facts(one) for one in found]

    async def connection(self, tenant: str, connection: str) -> ConnectionFacts | None:
        if not connection or any(sign.isspace() for sign in connection):
            return None
        (found,) = await self._fresh("connection", tenant, connection)
        return _read_facts(found) if found else None

    def is_online_now(self, tenant: str, user: str, devices: Sequence[str]) -> bool:
        raise NotImplementedError("Redis is asked by `online`")

    # ── devices ──

    async def seen(self, tenant: str, sightings: Sequence[Sighting]) -> None:
        """Nothing to do: `change` and `reap` note devices in the same step."""

    async def devices(self, tenant: str, user: str) -> list[Device]:
        rows = await self._call("devices", tenant, user_part(user), read=True)
        return sorted((_device(row) for row in rows), key=lambda row: (-row.last_seen_ms, row.id))

    async def name_device(self, tenant: str, user: str, device: str, name: str, kind: str) -> Device | None:
        row = await self._call("device", tenant, user_part(user), device, "name", name, kind)
        return _device(row) if row else None

    async def forget_device(self, tenant: str, user: str, device: str) -> bool:
        return bool(await self._call("device", tenant, user_part(user), device, "forget", "", ""))

    # ── calls ──

    async def _call(self, script: str, tenant: str, *arguments: str | bytes | int, read: bool = False) -> Any:
        packed = (one if isinstance(one, bytes) else _text(one) for one in arguments)
        return await self._scripting.call(f"presence-{script}", tenant, *packed, read=read)

    async def _fresh(self, script: str, tenant: str, *arguments: str | bytes | int) -> Any:
        """The reply without its first item, which says that a dead node is still in it."""
        for left in reversed(range(TRIES)):
            stale, *reply = await self._call(script, tenant, *arguments, read=True)
            if not stale or not left:
                return reply
            await self.on_expired(tenant)
        raise AssertionError("unreachable")


async def _nobody(tenant: str) -> None:
    """Until a tracker takes dead nodes off."""


def _text(value: str | int) -> bytes:
    return (str(int(value)) if isinstance(value, int) else value).encode()


def _join(join: Join) -> list[Any]:
    facts = join.facts
    groups = [key_part(group) for group in join.groups]
    packed = _facts(facts).decode()  # as text: Lua's reader of msgpack knows no binary
    return [facts.id, user_part(facts.user), facts.device, facts.device_id, groups, packed]


def _deltas(found: Sequence[Any]) -> tuple[Delta, ...]:
    return tuple(
        Delta(
            unquote(group.decode()),
            count,
            int(revision),
            tuple(map(user_of, joined)),
            tuple(map(user_of, left)),
        )
        for group, count, revision, joined, left in found
    )


def _device(row: Sequence[bytes]) -> Device:
    ident, kind, name, first_ms, last_ms = row
    return Device(
        id=ident.decode(),
        kind=kind.decode(),
        name=name.decode(),
        first_seen_ms=int(first_ms),
        last_seen_ms=int(last_ms),
    )
