"""Connect tickets: 30 seconds of permission to open one stream, so that no token stands in a URL.

A ticket is `<w|s>.<owner>.<secret>`: transport, a hash of tenant and user, 256 random bits. The store holds
only its SHA-256, the principal, and for how long. WebSocket tickets are taken: one connection ever. An SSE
ticket must be used within 30 s; from then on it opens the reconnects of that stream (`EventSource` repeats
its URL, which nobody can change) until the principal expires. The principal, tenant included, comes from the
store alone: nothing in the ticket or the request can name another.
"""

from __future__ import annotations

import hashlib
import hmac
import re
import secrets
import time
from collections.abc import Callable
from typing import Literal, NamedTuple

import msgspec
from msgspec import Struct

from dualcast.model.errors import BadRequest, Unauthorized
from dualcast.model.principal import Principal
from dualcast.state.port import StateStore, VersionConflict

from .claims import token_expired

SPACE = "ticket"
Transport = Literal["sse", "websocket"]
_LETTERS: dict[str, str] = {"sse": "s", "websocket": "w"}
_TICKET = re.compile(r"[ws]\.[0-9a-f]{32}\.[A-Za-z0-9_-]{43}\Z")
_TICKET_ID = re.compile(r"[ws]\.[0-9a-f]{32}\.[0-9a-f]{32}\Z")


class TicketSettings(Struct, frozen=True):
    """Limits of tickets."""

    life_s: float = 30.0
    """To the first use."""
    max_per_user: int = 20
    """Live tickets of one user and transport; a new one beyond it ends the oldest."""


class Redeemed(NamedTuple):
    """Whom a ticket stands for; `ticket_id` is no secret and names the ticket to `revoke`."""

    principal: Principal
    ticket_id: str


class _Record(Struct, frozen=True):
    digest: str
    """SHA-256 of the ticket, hex."""
    principal: Principal
    issued_at: float
    used: bool = False


def bad_ticket() -> Unauthorized:
    """The one answer to a ticket that is unknown, used, too old, for the other transport or revoked."""
    return Unauthorized("bad ticket")


class Tickets:
    """Issues and redeems; all state is in the store, so any node redeems what any node issued."""

    def __init__(
        self,
        store: StateStore,
        settings: TicketSettings | None = None,
        *,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._store = store
        self._settings = settings or TicketSettings()
        self._clock = clock

    async def issue(self, principal: Principal, transport: Transport) -> str:
        """A new ticket. Raises TokenExpired (the principal has no time left), BadRequest (transport),
        BusUnavailable.
        """
        if transport not in _LETTERS:
            raise BadRequest("a ticket is for sse or websocket")
        now = self._clock()
        if now >= principal.expires_at:
            raise token_expired()
        owner = f"{_LETTERS[transport]}.{_owner(principal)}."
        ticket = owner + secrets.token_urlsafe(32)
        digest = hashlib.sha256(ticket.encode()).hexdigest()
        record = _Record(digest, principal, now)
        ttl_s = min(self._settings.life_s, principal.expires_at - now)
        await self._evict(owner)
        await self._store.put(
            SPACE, owner + digest[:32], msgspec.json.encode(record), expected=0, ttl_s=ttl_s, quiet=True
        )
        return ticket

    async def redeem(self, ticket: str, transport: Transport, *, resuming: bool = False) -> Redeemed:
        """Whom `ticket` stands for, once (WebSocket) or as its stream's reconnect (SSE).

        `resuming`: the request has a Last-Event-ID or cursor. An SSE ticket used before is good without one
        only in its first 30 s (the first answer may have been lost on the way). Raises Unauthorized,
        TokenExpired, BusUnavailable.
        """
        if not _TICKET.match(ticket) or ticket[0] != _LETTERS[transport]:
            raise bad_ticket()
        digest = hashlib.sha256(ticket.encode()).hexdigest()
        key = ticket[:35] + digest[:32]
        held = await (
            self._store.take(SPACE, key) if transport == "websocket" else self._store.get(SPACE, key)
        )
        record = None if held is None else _decode(held.data)
        if held is None or record is None or not hmac.compare_digest(record.digest, digest):
            raise bad_ticket()
        now = self._clock()
        principal = record.principal
        if now >= principal.expires_at:
            raise token_expired()
        young = now < record.issued_at + self._settings.life_s
        if not young and not (record.used and resuming):
            raise bad_ticket()
        if transport == "sse" and not record.used:
            await self._keep(key, record, held.version, principal.expires_at - now)
        return Redeemed(principal, key)

    async def revoke(self, ticket_id: str) -> bool:
        """Ends a ticket by its id; False: there was none. Raises BusUnavailable."""
        return bool(_TICKET_ID.match(ticket_id)) and await self._store.delete(SPACE, ticket_id)

    async def revoke_user(self, tenant: str, sub: str) -> int:
        """Ends every ticket of a user; returns how many. Raises BusUnavailable."""
        ended = 0
        for letter in _LETTERS.values():
            prefix = f"{letter}.{_owner_of(tenant, sub)}."
            while found := await self._store.list(SPACE, prefix=prefix, limit=100):
                for value in found:
                    ended += await self._store.delete(SPACE, value.key)
        return ended

    async def _keep(self, key: str, record: _Record, version: int, ttl_s: float) -> None:
        """First use of an SSE ticket: from now on it lives as long as its principal."""
        used = msgspec.structs.replace(record, used=True)
        try:
            await self._store.put(
                SPACE, key, msgspec.json.encode(used), expected=version, ttl_s=ttl_s, quiet=True
            )
            return
        except VersionConflict:
            pass
        if await self._store.get(SPACE, key) is None:  # revoked between our read and our write
            raise bad_ticket()

    async def _evict(self, owner: str) -> None:
        limit = self._settings.max_per_user
        held = await self._store.list(SPACE, prefix=owner, limit=limit + 100)
        for value in sorted(held, key=lambda value: value.version)[: max(0, len(held) - limit + 1)]:
            await self._store.delete(SPACE, value.key)


def _owner(principal: Principal) -> str:
    return _owner_of(principal.tenant, principal.sub)


def _owner_of(tenant: str, sub: str) -> str:
    """Groups the tickets of a user without naming him in the URL."""
    return hashlib.sha256(f"dualcast ticket\0{tenant}\0{sub}".encode()).hexdigest()[:32]


def _decode(data: bytes) -> _Record | None:
    try:
        return msgspec.json.decode(data, type=_Record)
    except msgspec.DecodeError:
        return None
