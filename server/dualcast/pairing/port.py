"""The PairStore port: what nodes tell one another of their instances, under leases."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from msgspec import Struct

from dualcast_migration.muting import SocketFacts

Name = tuple[str, str]
"""(key of the instance, connection id)."""


class PairSettings(Struct, frozen=True, kw_only=True):
    """Clocks and bounds of the exchange between nodes."""

    tick_s: float = 1.0
    """How often a node asks when nothing of its own has changed."""
    pause_s: float = 0.1
    """Between two calls at least."""
    lease_s: float = 10.0
    """A node that is silent for so long is dead to the others; one that gets no answer for so long trusts
    nothing it was told."""
    doubt_s: float = 3.0
    """After the store has lost its data, others have so long to tell theirs again."""
    batch: int = 1_000
    """Rows told in one call."""
    batch_bytes: int = 512 * 1024
    """Names of channels and roles in one call, about."""


class Row(Struct, frozen=True):
    """One session. `socket` None: it is a stream."""

    connection: str
    socket: SocketFacts | None = None


class Told(Struct, frozen=True, kw_only=True):
    """What a node tells in one call. `node`: its name, with an incarnation behind a dot."""

    node: str
    new: bool
    """The first call of this incarnation: nothing is known of it yet."""
    lease_ms: int
    ack: int
    """`Answer.ack` of the answer before: that news has arrived."""
    anew: bool = False
    """What was heard of the instances of `rows` is forgotten: all there is of them is news."""
    rows: Sequence[tuple[str, Row]] = ()
    gone: Sequence[Name] = ()


class Answer(Struct, frozen=True):
    """What a node hears. `lost`: the store does not know the node; nothing was taken, it begins anew."""

    lost: bool
    ack: int = 0
    more: bool = False
    """There is more news."""
    news: Sequence[tuple[str, Sequence[Row]]] = ()
    """Instances of this node that changed elsewhere: all rows of live other nodes."""


class PairStore(Protocol):
    """Rows under leases. Calls bear repetition with the same arguments."""

    async def sync(self, told: Told) -> Answer:
        """Takes what is told, renews the node's lease, takes dead nodes off, and says what is new. Raises
        BusUnavailable."""
        ...
