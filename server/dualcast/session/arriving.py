"""State first: whoever comes to a presence, task or batch channel is told how it stands, then what changes.

Why nothing is lost between the two. Rooms store a change first and announce it then, so every announcement
with an offset up to p0, a position of the log that is known before the state is read, is in the state. What
comes after p0 is in the ring of the channel, which is watched already. So in one loop turn: the state, what
the ring has after p0 up to the session's position (marked `recovered`: it moves no cursor), and the
subscription, which delivers from the session's position on. A ring that has lost what follows p0 meanwhile
means reading again.

At connect the session's position takes the place of p0: it is settled before the state is read, the state
goes right behind `welcome`, and catching up delivers what follows.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

from dualcast.hub.feed import ChannelFeed
from dualcast.model.publication import Gap

from .catch_up import merge
from .channel_state import AWAY, ChannelStates, State
from .watching import writable

TRIES = 3
"""Readings of one state before what was lost meanwhile is told as a gap."""


async def introduce(session: Any) -> None:
    """Prepares what a session that is not attached yet is told right behind `welcome`: the states of its
    channels. Its channels are watched, or the bus is away: then there are no states, since no position is
    known that they would belong to."""
    states: ChannelStates = session.node.states
    names = [feed.name for feed in session.channels if states.has(feed.name)]
    if not names:
        return
    session.settle()
    if session.cursor is None:
        found = dict.fromkeys(names, AWAY)
    else:
        found = await states.read(session.principal.tenant, names)
    session.introduction = b"".join(
        session.encoding.wrap(text)
        for name, state in found.items()
        if (text := session.dialect.state(session, name, state.data, state.status)) is not None
    )


class _Known(NamedTuple):
    """A state, and from where on what is published is to be added to it."""

    state: State
    after: int
    epoch: str
    feed: ChannelFeed


class Arrival:
    """Channels a live session comes to. `read`, then in the same loop turn `tell` and the subscription."""

    def __init__(self, session: Any, names: Sequence[str], have: Iterable[str] = ()) -> None:
        """`names`: watched channels; those in `have` the session is subscribed to already."""
        self._session = session
        self._names = [name for name in names if session.node.states.has(name)]
        self._have = frozenset(have)
        self._known: dict[str, _Known] = {}

    async def read(self) -> None:
        """Reads the states, again where the ring did not keep what followed."""
        if self._names and not await writable(self._session):
            return
        tenant = self._session.principal.tenant
        states: ChannelStates = self._session.node.states
        for _ in range(TRIES):
            stale = self._stale()
            if not stale or self._session.closed:
                return
            marks = {name: self._mark(name) for name in stale}
            for name, state in (await states.read(tenant, stale)).items():
                feed, epoch, after = marks[name]
                self._known[name] = _Known(state, after, epoch, feed)

    def tell(self) -> None:
        """Writes the states, then what was published since they were read and lies behind the session's
        position."""
        session = self._session
        session.settle()
        stale = set(self._stale())
        replay = []
        for name, known in self._known.items():
            busy = name in stale and name in self._have
            state = AWAY if busy else known.state
            session.send(session.dialect.state(session, name, state.data, state.status))
            if name in self._have:
                continue
            if name in stale:
                oldest = max(known.feed.complete_from, known.after) + 1
                session.tell_gap(Gap(name, known.after, oldest, "late"))
            replay.append(known.feed.after(known.after))
        through, now_ms = session.offset, int(session.node.now_s() * 1000)
        encode = session.encoding.encode_recovered or session.encoding.encode
        for entry in merge(replay):
            if entry.offset > through:
                break
            publication = entry.publication
            expired = 0 < publication.expires_ms <= now_ms
            if not expired and (publication.audience is None or session.due(publication.audience)):
                session.counters.recovered += 1
                session.send(encode(entry))

    def _mark(self, name: str) -> tuple[ChannelFeed, str, int]:
        feed: ChannelFeed = self._session.node.hub.channel(self._session.principal.tenant, name)
        tenant = feed.tenant
        return feed, tenant.epoch, max(tenant.head, tenant.tail, feed.complete_from)

    def _stale(self) -> list[str]:
        """Channels whose state is not known, or no longer joined to what the node has of the channel."""
        return [name for name in self._names if not self._joined(name)]

    def _joined(self, name: str) -> bool:
        known = self._known.get(name)
        if known is None:
            return False
        feed = known.feed
        if feed.tenant.channels.get(name) is not feed or feed.tenant.epoch != known.epoch:
            return False
        if not 0 <= feed.complete_from <= known.after:
            return False
        # A subscribed channel goes on while its state is read: the state must not come behind what is newer.
        return name not in self._have or next(feed.after(known.after), None) is None
