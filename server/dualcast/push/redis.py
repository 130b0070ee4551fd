"""The queue of the redis engine: Lua in the tenant's slot, so that a job is born in the append's own step.

Key names: `lua/queue.lua`. The registry of tenants lives in a slot of its own, that of the tenant `~push`,
which no tenant can be called.
"""

from __future__ import annotations

import secrets
from collections.abc import Sequence
from functools import cache
from importlib.resources import files
from typing import Any
from urllib.parse import unquote

import msgspec

from dualcast.bus.storage import Extension, Scripting
from dualcast.model.channel import key_part

from .port import Claim, Claimed, DeadLetter, Facts, PushSettings

REGISTRY = "~push"
IDLE_MS = 900_000
"""A tenant without jobs is forgotten when nobody ensured it for so long; processes ensure every 300 s."""
_SCRIPTS = ("claim", "settle", "facts", "dead", "take", "registry")
_pack = msgspec.msgpack.Encoder().encode


@cache
def _text(name: str) -> str:
    return (files("dualcast.push") / "lua" / f"{name}.lua").read_text(encoding="utf-8")


def extension(settings: PushSettings | None = None, *, enabled: bool = True) -> Extension:
    """What the redis engine is given. `enabled` False: nothing is queued (provider `none`)."""
    s = settings or PushSettings()
    limits = (s.max_queued, int(s.deadline_s * 1000), s.max_dead, s.dead_s)
    prelude = f"local MAX, DEADLINE_MS, MAX_DEAD, DEAD_S = {', '.join(map(str, limits))}\n{_text('queue')}"
    return Extension(
        riders=f"{prelude}\n{_text('riders')}" if enabled else "",
        scripts={f"push_{name}": f"{prelude}\n{_text(name)}" for name in _SCRIPTS},
    )


class RedisPushQueue:
    """`PushQueue` over the scripts of `extension`."""

    def __init__(self, scripting: Scripting) -> None:
        self._call = scripting.call

    async def ensure(self, tenant: str) -> None:
        await self._call("push_registry", REGISTRY, _pack(("ensure", 0, (tenant,))))

    async def tenants(self) -> Sequence[str]:
        names = await self._call("push_registry", REGISTRY, _pack(("list", 0, ())), read=True)
        return [name.decode() for name in names]

    async def forget(self, tenants: Sequence[str]) -> None:
        await self._call("push_registry", REGISTRY, _pack(("forget", IDLE_MS, tenants)))

    async def tidy(self) -> None:
        """Nothing to do: Redis expires dead letters."""

    async def claim(self, tenant: str, limit: int, lease_s: float, token: str) -> Claim:
        reply = await self._call("push_claim", tenant, _pack((limit, int(lease_s * 1000), token)))
        facts = _facts(reply[0])
        jobs = []
        for at in range(2, len(reply), 5):
            name, message, attempt, queued, deadline = reply[at : at + 5]
            user, ident = _split(name)
            jobs.append(
                Claimed(
                    tenant=tenant,
                    id=ident,
                    user=user,
                    message=message,
                    attempt=int(attempt),
                    queued_ms=_ms(queued),
                    deadline_ms=_ms(deadline),
                    token=token,
                )
            )
        return Claim(jobs, _ms(reply[1]), facts)

    async def done(self, job: Claimed) -> bool:
        return await self._settle(job, "done")

    async def retry(self, job: Claimed, delay_s: float) -> bool:
        return await self._settle(job, "retry", delay_ms=int(delay_s * 1000))

    async def bury(self, job: Claimed, reason: str, error: str = "") -> bool:
        return await self._settle(job, "bury", reason=reason, error=error)

    async def facts(self, tenant: str) -> Facts:
        return _facts(await self._call("push_facts", tenant, read=True))

    async def dead(self, tenant: str, after: int, limit: int) -> Sequence[DeadLetter]:
        rows = await self._call("push_dead", tenant, _pack((after, limit)))
        return [_letter(row) for row in rows]

    async def revive(self, tenant: str, number: int) -> bool:
        return await self._take(tenant, number, revive=True)

    async def discard(self, tenant: str, number: int) -> bool:
        return await self._take(tenant, number, revive=False)

    async def _settle(
        self, job: Claimed, what: str, *, delay_ms: int = 0, reason: str = "", error: str = ""
    ) -> bool:
        name = f"{key_part('user:' + job.user)} {job.id}"
        arguments = _pack((what, name, job.token, delay_ms, reason, error))
        return bool(await self._call("push_settle", job.tenant, arguments))

    async def _take(self, tenant: str, number: int, *, revive: bool) -> bool:
        return bool(await self._call("push_take", tenant, _pack((number, revive, secrets.token_hex(8)))))


def _split(name: bytes) -> tuple[str, str]:
    """User and publication id of a job's name."""
    part, _, ident = name.decode("utf-8", "replace").partition(" ")
    return unquote(part).removeprefix("user:"), ident


def _ms(text: bytes) -> int:
    return int(float(text))


def _facts(reply: list[Any]) -> Facts:
    now, queued, oldest, dead, totals = reply
    names = [name.decode() for name in totals[::2]]
    return Facts(
        now_ms=_ms(now),
        queued=queued,
        oldest_ms=_ms(oldest),
        dead=dead,
        counts=dict(zip(names, map(int, totals[1::2]), strict=True)),
    )


def _letter(row: list[bytes]) -> DeadLetter:
    user, ident = _split(row[1])
    return DeadLetter(
        number=int(row[0]),
        id=ident,
        user=user,
        message=row[2],
        attempts=int(row[3]),
        queued_ms=_ms(row[4]),
        dead_ms=_ms(row[5]),
        reason=row[6].decode(),
        error=row[7].decode(),
    )
