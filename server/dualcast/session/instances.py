"""What a node knows of the instances connected to it: their sessions here, and their rows on other nodes."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import count
from typing import Any

from dualcast.hub.encoding import Encoding
from dualcast.pairing.port import Name
from dualcast_migration.muting import SocketFacts, StreamFacts

NOBODY: frozenset[str] = frozenset()
_lives = count()
"""No two lives of any socket are the same: one that came back into its instance is another to the rest."""


def channels_of(session: Any) -> frozenset[str]:
    """Names of the channels it is subscribed to."""
    return frozenset(feed.name for feed in session.channels)


class Member:
    """One session in the index."""

    __slots__ = (
        "by",
        "can_ask",
        "channels",
        "confirmed",
        "group",
        "is_socket",
        "life",
        "roles",
        "seen",
        "session",
        "stands_for",
        "start",
        "unread",
        "vouched",
    )

    def __init__(self, session: Any, group: Group) -> None:
        encoding: Encoding = session.encoding
        self.session = session
        self.group = group
        self.is_socket = encoding.transport == "ws"
        self.can_ask: bool = getattr(session, "can_ping", True)
        """Whether a receipt can be asked for. The silence of one that cannot be is not noticed: it mutes
        nobody."""
        self.channels = channels_of(session)
        self.roles: frozenset[str] = session.principal.roles
        self.by: tuple[str, int] | None = None
        """Of a muted stream: the socket's id and life."""
        self.start = session.offset
        self.life = next(_lives)
        self.confirmed = -1
        self.stands_for = NOBODY
        """Connection ids of streams whose publications by connection id it is due as well."""
        self.vouched = NOBODY
        """Those of them beside which it has given a receipt: it lived after they came."""
        self.seen = -1
        """`confirmed` at the last sweep."""
        self.unread = 0
        """Sweeps since which a receipt is owed."""

    def begin_life(self) -> None:
        """There was a hole in what it delivers, or it has lost something."""
        self.life = next(_lives)

    def forget(self, streams: frozenset[str]) -> None:
        """These connections are no longer there."""
        self.stands_for -= streams
        self.vouched -= streams

    @property
    def mutes(self) -> bool:
        """Whether it takes part in muting; else it is only to be found by its siblings."""
        return self.can_ask and bool(self.session.pairs.may_mute)

    @property
    def name(self) -> Name:
        return self.group.key, self.session.id

    def socket_facts(self) -> SocketFacts:
        session = self.session
        return SocketFacts(
            session.id,
            session.epoch,
            self.start,
            self.life,
            self.confirmed,
            self.channels,
            self.roles,
            session.device,
            self.vouched,
        )

    def stream_facts(self) -> StreamFacts:
        session = self.session
        return StreamFacts(
            session.id, session.epoch, session.offset, self.channels, self.roles, session.device
        )


class Group:
    """One instance: its sessions here, and what other nodes have of it."""

    __slots__ = ("doubted", "far_sockets", "far_streams", "key", "sockets", "streams")

    def __init__(self, key: str) -> None:
        self.key = key
        self.sockets: list[Member] = []
        self.streams: list[Member] = []
        self.far_sockets: dict[str, SocketFacts] = {}
        self.far_streams: frozenset[str] = NOBODY
        self.doubted: frozenset[str] = NOBODY

    def muting(self) -> Iterator[SocketFacts]:
        """Sockets that may mute, those of this node first."""
        for member in self.sockets:
            if member.mutes:
                yield member.socket_facts()
        yield from self.far_sockets.values()

    def socket(self, ident: str) -> SocketFacts | None:
        return next((facts for facts in self.muting() if facts.id == ident), None)
