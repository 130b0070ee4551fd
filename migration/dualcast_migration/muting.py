"""When an SSE session is muted by a WebSocket of its instance, as pure functions over frozen facts.

Muting needs proof, unmuting needs none: what is written twice is dropped by its id, what is written by nobody
is lost. Proof is that everything due to the stream in (its own position, the socket's confirmed cursor] was
due to the socket, was written to it without a hole, and was read.
"""

from __future__ import annotations

from msgspec import Struct

from dualcast.model.channel import key_part

from .policy import Decision


class Pairs(Struct, frozen=True):
    """How the sessions of one user are brought together."""

    may_mute: bool
    """False: they are only compared."""
    by_user: bool = False
    """All sessions of the user are one instance."""


class SocketFacts(Struct, frozen=True, array_like=True):
    """A WebSocket session as far as muting goes; between nodes it is told like this."""

    id: str
    epoch: str
    start: int
    """Since this offset it has been due, without a hole, all that it is due now; -1: not known."""
    life: int
    """Another number after every hole and every loss: who was muted before it is no longer."""
    confirmed: int
    """Everything written to it up to here was read; -1: there is no receipt yet, or none for too long."""
    channels: frozenset[str]
    roles: frozenset[str]
    device: str
    stands_for: frozenset[str]
    """Connection ids of streams whose publications by connection id it is due as well, and beside which it
    has given a receipt."""


class StreamFacts(Struct, frozen=True):
    """An SSE session as far as muting goes."""

    id: str
    epoch: str
    offset: int
    """Everything due up to here was written to it, or read over a socket; -1: not known."""
    channels: frozenset[str]
    roles: frozenset[str]
    device: str


def pairs_of(decision: Decision) -> Pairs | None:
    """How sessions of this decision pair; None: they do not."""
    if not decision.may_pair:
        return None
    return Pairs(decision.may_mute, decision.fallback_scope == "user")


def pair_key(tenant: str, user: str, instance: str, pairs: Pairs | None) -> str:
    """The name of an instance, without spaces and unique over all tenants; "": this session has none."""
    if pairs is None or not user or not (instance or pairs.by_user):
        return ""
    whole = f"{tenant}/{key_part(user)}"
    return whole if pairs.by_user else f"{whole}/{key_part(instance)}"


def covers(socket: SocketFacts, stream: StreamFacts) -> bool:
    """Whether whatever the stream is due now the socket is due, too."""
    return (
        socket.epoch == stream.epoch != ""
        and socket.channels >= stream.channels
        and socket.roles >= stream.roles
        and stream.device in ("", socket.device)
        and stream.id in socket.stands_for
    )


def may_mute(socket: SocketFacts, stream: StreamFacts) -> bool:
    """Whether the stream may be muted now: the socket has given a receipt, covers the stream, and did so for
    everything the stream has not delivered itself."""
    return socket.confirmed >= 0 and 0 <= socket.start <= stream.offset and covers(socket, stream)


def may_stay(socket: SocketFacts, stream: StreamFacts, life: int) -> bool:
    """Whether a stream that was muted in `life` of the socket stays so."""
    return socket.confirmed >= 0 and socket.life == life and covers(socket, stream)


def moved(position: int, socket: SocketFacts) -> int:
    """The position of a stream muted by the socket: what the client has read over it counts as delivered."""
    return max(position, socket.confirmed)
