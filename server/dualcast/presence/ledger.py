"""What a node has registered in one tenant, and what it has yet to register."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Iterable, Sequence
from itertools import islice
from typing import Any, Protocol

from dualcast.model.principal import Principal

from .port import PREFIX, Batch, ConnectionFacts, Join, PresenceSettings


class Tracked(Protocol):
    """What presence sees of a session (`session.session.Session`)."""

    @property
    def id(self) -> str: ...
    @property
    def principal(self) -> Principal: ...
    @property
    def closed(self) -> bool: ...
    @property
    def device(self) -> str: ...
    @property
    def device_id(self) -> str: ...
    @property
    def instance(self) -> str: ...
    @property
    def attached_at(self) -> float:
        """Loop time."""
        ...

    @property
    def channels(self) -> Sequence[Any]:
        """With a `name` each."""
        ...

    @property
    def encoding(self) -> Any:
        """With a `transport`."""
        ...

    @property
    def dialect(self) -> Any:
        """With a `name`."""
        ...


def groups_of(session: Tracked) -> tuple[str, ...]:
    """The presence channels a session is subscribed to."""
    return tuple(feed.name for feed in session.channels if feed.name.startswith(PREFIX))


class Ledger:
    """Attributes: `held` are the connections the store knows or is being told of, `batch` is a call whose
    outcome is not known yet (it is repeated as it is)."""

    __slots__ = (
        "batch",
        "busy",
        "claim",
        "devices",
        "grouped",
        "held",
        "joins",
        "leaves",
        "renew_at",
        "retry_at",
        "round",
        "strays",
        "tenant",
        "tokens",
        "users",
    )

    def __init__(self, tenant: str) -> None:
        self.tenant = tenant
        self.held: dict[str, Tracked] = {}
        self.grouped: dict[str, tuple[str, ...]] = {}
        """Groups of those that are in any."""
        self.tokens: dict[str, str] = {}
        """Token ids the store knows; a connection's changes when its token is refreshed."""
        self.joins: dict[str, Tracked] = {}
        self.leaves: dict[str, None] = {}
        self.batch: Batch | None = None
        self.claim = True
        """The node has no lease it could rely on."""
        self.strays = False
        """The store may hold connections for this node that are gone."""
        self.busy = False
        self.round: asyncio.Task[None] | None = None
        """What is being done while it is busy."""
        self.renew_at = 0.0
        self.retry_at = 0.0
        self.users = 0
        self.devices: dict[str, int] = {}

    @property
    def pending(self) -> int:
        """Changes not told yet."""
        return len(self.joins) + len(self.leaves) + (self.batch is not None)

    @property
    def idle(self) -> bool:
        """Nothing is registered, and nothing is to be told."""
        return not self.held and not self.pending

    def mark(self, session: Tracked) -> None:
        """Notes what there is to tell of a session, if anything. A connection that came and went is never
        told."""
        ident = session.id
        self.joins.pop(ident, None)
        known = ident in self.held
        if session.closed:
            if known:
                self.leaves[ident] = None
        elif (
            not known
            or groups_of(session) != self.grouped.get(ident, ())
            or session.principal.token_id != self.tokens[ident]
        ):
            self.joins[ident] = session

    def mark_all_gone(self) -> None:
        """Everything is to be taken off (the node goes down)."""
        self.joins.clear()
        self.leaves = dict.fromkeys(self.held)

    def lost(self) -> None:
        """The store does not know the node any more, or only a part: all is registered again."""
        self.batch = None
        self.claim = self.strays = True
        held, self.held = self.held, {}
        self.grouped.clear()
        self.tokens.clear()
        self.leaves.clear()
        for session in held.values():
            self.mark(session)

    def next_batch(self, settings: PresenceSettings, node: str, started_s: float) -> Batch | None:
        """The next changes to tell; None: there are none. `started_s`: Unix time at loop time 0.

        Joins go first, so that a user who comes back on another connection is not away in between.
        """
        joins: list[Join] = []
        weight = 0
        for ident, session in list(islice(self.joins.items(), settings.batch)):
            groups = groups_of(session)
            if joins and weight + len(groups) > settings.batch_groups:
                break
            weight += len(groups)
            del self.joins[ident]
            if session.closed:  # marked again by now, if it was ever registered
                continue
            self.held[ident] = session
            self.tokens[ident] = session.principal.token_id
            if groups:
                self.grouped[ident] = groups
            else:
                self.grouped.pop(ident, None)
            joins.append(Join(facts_of(session, node, started_s), groups))
        leaves: list[str] = []
        if not self.joins:
            for ident in list(islice(self.leaves, settings.batch - len(joins))):
                groups = self.grouped.get(ident, ())
                if leaves and weight + len(groups) > settings.batch_groups:
                    break
                weight += len(groups)
                del self.leaves[ident]
                self.held.pop(ident, None)
                self.grouped.pop(ident, None)
                self.tokens.pop(ident, None)
                leaves.append(ident)
        if not joins and not leaves:
            return None
        return Batch(secrets.token_hex(8), tuple(joins), tuple(leaves))

    def leave_strays(self, found: Iterable[str]) -> None:
        """Connections the store holds for this node: those that are gone are to be taken off."""
        self.leaves.update((ident, None) for ident in found if ident not in self.held)


def facts_of(session: Tracked, node: str, started_s: float) -> ConnectionFacts:
    """A connection as the other nodes know it."""
    return ConnectionFacts(
        id=session.id,
        user=session.principal.sub,
        node=node,
        device=session.device,
        device_id=session.device_id,
        instance=session.instance,
        transport=session.encoding.transport,
        dialect=session.dialect.name,
        connected_ms=int((started_s + session.attached_at) * 1000),
        token_id=session.principal.token_id,
    )
