"""Revoked tokens and users, checked from memory and kept fresh by the store's change log.

Two kinds of record in space `revocation`: `token:<tenant>:<token id>` and `user:<tenant>:<sub>` ("every token
issued before t"). A record lives as long as a token it speaks of can. The node that revokes acts at once; the
others when their poll of the change log (every 500 ms) calls `changed`.
"""

from __future__ import annotations

import time
from collections.abc import Callable

import msgspec
from msgspec import Struct

from dualcast.model.principal import Principal
from dualcast.state.port import StateStore, VersionConflict

SPACE = "revocation"
_PAGE = 500

OnRevoked = Callable[[str, str | None, str | None], None]
"""(tenant, token id or None, sub or None): exactly one of the two is given. Called on the event loop; must
not raise.
"""


class Record(Struct, frozen=True):
    """One revocation. `issued_before` 0: the token as a whole; else tokens with `iat` < it, Unix seconds."""

    expires_at: int
    issued_before: int = 0


def token_key(tenant: str, token_id: str) -> str:
    """Store key of a revoked token. A tenant id has no colon, so the key is unambiguous whatever the token id
    holds.
    """
    return f"token:{tenant}:{token_id}"


def user_key(tenant: str, sub: str) -> str:
    """Store key of a revoked user."""
    return f"user:{tenant}:{sub}"


class Revocations:
    """The node's view. `is_revoked` is for the hot path; the rest is awaited by the app and the gateway."""

    def __init__(
        self, store: StateStore, *, max_life_s: int = 366 * 86_400, clock: Callable[[], float] = time.time
    ) -> None:
        """`max_life_s`: the longest life a token may have (`TokenSettings.max_life_s`); plus an hour for
        clock leeway.
        """
        self._store = store
        self._max_life_s = max_life_s + 3600
        self._clock = clock
        self._records: dict[str, Record] = {}
        self._callbacks: list[OnRevoked] = []
        self._purge_at = 1024

    def on_revoked(self, callback: OnRevoked) -> None:
        """`callback` is told of every revocation this node did not know yet, so that live connections can be
        closed.
        """
        self._callbacks.append(callback)

    def is_revoked(self, principal: Principal) -> bool:
        """Whether the principal's token, or every token of its user as old as this one, was revoked."""
        records = self._records
        if not records:
            return False
        if token_key(principal.tenant, principal.token_id) in records:
            return True
        record = records.get(user_key(principal.tenant, principal.sub))
        return record is not None and principal.issued_at < record.issued_before

    async def revoke_token(self, tenant: str, token_id: str, *, expires_at: int | None = None) -> None:
        """Revokes one token. `expires_at`: the principal's, if known, so that the record goes when the token
        would.

        Raises BusUnavailable: nothing was revoked.
        """
        latest = int(self._clock()) + self._max_life_s
        await self._write(token_key(tenant, token_id), Record(min(expires_at or latest, latest)))

    async def revoke_user(self, tenant: str, sub: str, *, issued_before: int | None = None) -> int:
        """Revokes every token of a user issued before `issued_before` (Unix seconds; default: up to this very
        second).

        Returns the bound in force: an earlier revocation with a later bound stands. Raises BusUnavailable:
        nothing was revoked.
        """
        now = int(self._clock())
        key = user_key(tenant, sub)
        bound = max(1, now + 1 if issued_before is None else issued_before)
        while True:
            held = await self._store.get(SPACE, key)
            if held is not None:
                bound = max(bound, _decode(held.data).issued_before)
            try:
                record = Record(now + self._max_life_s, bound)
                await self._write(key, record, expected=held.version if held is not None else 0)
            except VersionConflict:  # another node revoked the same user: the later bound must win
                continue
            return bound

    async def load(self) -> None:
        """Reads all records: at start, and when the change log no longer reaches back. Raises BusUnavailable.

        What the node knows and the store has lost (a restored Redis) stays revoked here.
        """
        after = ""
        while page := await self._store.list(SPACE, after=after, limit=_PAGE):
            after = page[-1].key
            for value in page:
                self._apply(value.key, _decode(value.data))
        self._forget_expired()

    async def changed(self, key: str) -> None:
        """The change log named `key` of space `revocation`. Raises BusUnavailable: call again, or `load`."""
        value = await self._store.get(SPACE, key)
        self._apply(key, None if value is None else _decode(value.data))

    def __len__(self) -> int:
        return len(self._records)

    async def _write(self, key: str, record: Record, *, expected: int | None = None) -> None:
        ttl_s = record.expires_at - self._clock()
        if ttl_s <= 0:
            return  # such a token is refused as expired anyway
        await self._store.put(SPACE, key, msgspec.json.encode(record), expected=expected, ttl_s=ttl_s)
        self._apply(key, record)

    def _apply(self, key: str, record: Record | None) -> None:
        """Takes `record` in. Bounds only grow: the order in which pages and changes come does not matter."""
        if record is None:
            self._records.pop(key, None)
            return
        known = self._records.get(key)
        if known is None:
            self._records[key] = record
            if len(self._records) >= self._purge_at:
                self._forget_expired()
        else:
            later = max(known.expires_at, record.expires_at), max(known.issued_before, record.issued_before)
            self._records[key] = Record(*later)
            if record.issued_before <= known.issued_before:
                return
        kind, _, rest = key.partition(":")
        tenant, _, ident = rest.partition(":")
        for callback in self._callbacks:
            callback(tenant, *((ident, None) if kind == "token" else (None, ident)))

    def _forget_expired(self) -> None:
        """Runs whenever the set has doubled, so that the cost per record stays constant."""
        now = self._clock()
        self._records = {key: record for key, record in self._records.items() if record.expires_at > now}
        self._purge_at = max(1024, 2 * len(self._records))


_FOREVER = 2**53
_UNREADABLE = Record(_FOREVER, _FOREVER)


def _decode(data: bytes) -> Record:
    try:
        return msgspec.json.decode(data, type=Record)
    except msgspec.DecodeError:  # a record we cannot read still revokes
        return _UNREADABLE
