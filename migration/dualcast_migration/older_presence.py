"""Users of older backends count like those of another instance (contract section 6.6), and the set
`ws:online_users` holds whom it should.

An older instance keeps no lease and says nothing twice. So its users stay until it says they went, or until
it has taken them out of the set while nobody here heard it; their node in the presence, OLDER, is kept by
whoever tidies up.
"""

from __future__ import annotations

import secrets
from collections.abc import Iterable, Sequence
from itertools import islice
from typing import Protocol
from urllib.parse import quote, unquote

from dualcast.presence.port import Batch, ConnectionFacts, Delta, Join, PresenceStore

from .legacy_redis import GROUP, OlderRedis, PutBack
from .older_shapes import Presence

OLDER = "older"
"""The node under which users of older instances are online."""
HOLD_MS = 86_400_000
PART = 100
PAGE = 500


class Announcements(Protocol):
    """`presence.announcing.Announcements`, on the bus that makes no copies."""

    def add(self, tenant: str, deltas: Iterable[Delta]) -> None: ...

    async def send(self, tenant: str) -> None: ...


class OlderPresence:
    """Takes in who came and went elsewhere, and tidies up. All methods raise BusUnavailable; repeating them
    is harmless.

    `store`: the presence of all nodes; `node`: this node's id.
    """

    def __init__(
        self, store: PresenceStore, announcements: Announcements, redis: OlderRedis, *, tenant: str, node: str
    ) -> None:
        self._store = store
        self._announcements = announcements
        self._redis = redis
        self._tenant = tenant
        self._node = node
        self._missing: frozenset[str] = frozenset()
        """Connections whose users were not in the set when it was last looked at."""

    async def take(self, said: Presence, now_ms: int) -> None:
        """A user of an older instance came or went; every node may say so. Who is still online is put back
        into the set."""
        ident = f"{OLDER}:{quote(said.instance, safe='')}:{quote(said.user, safe='')}"
        if said.online:
            facts = ConnectionFacts(
                ident, said.user, OLDER, dialect="conversations", transport=OLDER, connected_ms=now_ms
            )
            await self._change(joins=(Join(facts, (GROUP,)),))
        else:
            await self._change(leaves=(ident,))
            await self._redis.say((PutBack(said.user),))

    async def tidy(self, hold_ms: int) -> None:
        """One round of one node for all: who vanished from the set is gone, who is missing in it is put
        back."""
        if not await self._redis.lead(self._node, hold_ms):
            return
        held = await self._held()
        await self._take_off(held)
        if held:
            await self._store.renew(self._tenant, OLDER, hold_ms=HOLD_MS)
        spare: dict[str, int] = {}
        for ident in held:
            spare[_user(ident)] = spare.get(_user(ident), 0) + 1
        after = ""
        while True:
            page = (await self._store.members(self._tenant, GROUP, after, PAGE)).members
            if page:
                await self._redis.say([PutBack(one.user, spare.get(one.user, 0)) for one in page])
            if len(page) < PAGE:
                return
            after = page[-1].user

    async def _take_off(self, held: set[str]) -> None:
        """Twice not in the set, a while apart: between coming and being put there is a moment, too."""
        missing: set[str] = set()
        idents = sorted(held)
        for start in range(0, len(idents), PAGE):
            part = idents[start : start + PAGE]
            listed = await self._redis.listed([_user(ident) for ident in part])
            missing.update(ident for ident, there in zip(part, listed, strict=True) if not there)
        gone = sorted(missing & self._missing)
        for start in range(0, len(gone), PART):
            await self._change(leaves=gone[start : start + PART])
        held.difference_update(gone)
        self._missing = frozenset(missing)

    async def _held(self) -> set[str]:
        found: set[str] = set()
        cursor = "0"
        while True:
            cursor, idents = await self._store.held(self._tenant, OLDER, cursor)
            found.update(islice(idents, PAGE * 100))
            if cursor == "0":
                return found

    async def _change(self, joins: Sequence[Join] = (), leaves: Sequence[str] = ()) -> None:
        batch = Batch(secrets.token_hex(12), tuple(joins), tuple(leaves))
        changed = await self._store.change(self._tenant, OLDER, batch, hold_ms=HOLD_MS)
        if changed.lost:
            changed = await self._store.change(self._tenant, OLDER, batch, hold_ms=HOLD_MS, claim=True)
        if changed.deltas:
            self._announcements.add(self._tenant, changed.deltas)
        await self._announcements.send(self._tenant)


def _user(ident: str) -> str:
    return unquote(ident.rpartition(":")[2])
