"""A subscription's line to the server as a value: its state, the rules it keeps to, and what may happen to
it. `reconnect.decide` leads from one to the next. No I/O.
"""

from __future__ import annotations

from typing import Literal

from msgspec import Struct

Transport = Literal["websocket", "sse"]
Mode = Literal["auto", "websocket", "sse"]
Phase = Literal["waiting", "opening", "live", "stopped"]

STAGE, TOKEN_EXPIRED, UNAUTHORIZED = 4010, 4201, 4001
SSE_REFUSED = {400: "bad-request", 403: "forbidden", 413: "too-many-channels", 422: "bad-channel"}
CLOSE_REASONS = {
    4000: "bad-request",
    4001: "unauthorized",
    4002: "protocol-error",
    4003: "forbidden",
    4004: "revoked",
    4005: "frame-too-big",
    4009: "replaced",
    4010: "stage",
    4100: "drain",
    4101: "try-later",
    4102: "rate-limited",
    4103: "internal",
    4200: "lagging",
    4201: "token-expired",
    4202: "stale",
}
"""The table of docs/protocol.md."""
UNREACHED = frozenset({"unreachable", "tls", "no-token"})
FAILURES = 2
FAILURES_PROVEN = 3
"""So many sockets in a row that did not open, or did not last, mean that they do not work here; more where
one has worked before."""


class Reconnects(Struct, frozen=True, kw_only=True):
    """How a broken line is opened again: after a random time up to `base_s * 2**n`, at most `cap_s`, unless
    the server says another."""

    base_s: float = 1.0
    cap_s: float = 30.0
    settle_s: float = 5.0
    """A line that stood so long, or brought anything new, was good: the next wait is short again. A WebSocket
    that ends earlier without a word of the server's may be one that a proxy does not let through."""
    answer_s: float = 15.0
    """A WebSocket that has not answered a ping so long after its welcome carries in one direction only."""
    probe_s: float = 30.0
    """After a fallback to SSE, WebSocket is tried again beside it within this time; doubled each time it
    fails."""
    probe_cap_s: float = 600.0
    server_cap_s: float = 3600.0
    """No longer than this, whatever the server says."""
    move_spread_s: float = 5.0
    """When a stage allows WebSocket again, or the network was the reason to leave it: within this time."""


class Line(Struct, frozen=True, kw_only=True):
    """A subscription's line to the server."""

    mode: Mode = "auto"
    renewable: bool = False
    """A refused token can be had anew."""
    rules: Reconnects = Reconnects()
    phase: Phase = "waiting"
    transport: Transport = "websocket"
    cursor: str = ""
    due: float = 0.0
    attempt: int = 0
    """Connections in a row that were no good."""
    since: float = 0.0
    """Live since."""
    progressed: bool = False
    answered: bool = False
    """The WebSocket has answered a ping: it carries both ways."""
    settled: bool = False
    """The WebSocket has answered and lasted."""
    proven: bool = False
    """A WebSocket has settled before."""
    retry_s: float | None = None
    """Said by the server for the time after this connection."""
    told: int = 0
    """Close code of the `bye`."""
    socket_failures: int = 0
    """Sockets in a row that did not work, by weight."""
    outage: bool = False
    """SSE failed, too, in place of WebSocket: then it was no fault of WebSocket."""
    banned: Transport | None = None
    """The server does not serve it for this user."""
    fallen: str = ""
    """Why SSE is used although WebSocket is not banned."""
    telling: bool = False
    """The server has not been told of the fallback yet; it counts each one."""
    probing: bool = False
    """The WebSocket there is came after a fallback and has not settled yet."""
    probe_at: float = 0.0
    """0: not known yet."""
    probe_s: float = 0.0
    beside: Transport | None = None
    """While live: to be opened beside the connection there is, which is left when the other one works."""
    move_to: Transport | None = None
    move_at: float = 0.0
    fresh: bool = False
    renewed: bool = False
    """A new token was asked for since the last welcome."""
    code: str = ""
    """Why it stopped, or what the last connection ended with."""
    status: int = 0
    """HTTP status that stopped it; 0: none."""
    channels: tuple[str, ...] = ()
    """Because of which it was refused."""

    @property
    def wake(self) -> float | None:
        """While live: when a `Tick` may change something."""
        times: list[float] = []
        if self.phase != "live":
            return None
        if self.transport == "websocket" and self.answered and not self.settled:
            times.append(self.since + self.rules.settle_s)
        if self.beside is None and self.move_to is not None:
            times.append(self.move_at)
        if self.beside is None and self.fallen:
            times.append(self.probe_at)
        return min(times, default=None)


class Tick(Struct, frozen=True):
    """Time has passed."""


class Welcomed(Struct, frozen=True):
    cursor: str | None = None
    stage: str = ""


class Answered(Struct, frozen=True):
    """The WebSocket has answered a ping."""


class Joined(Struct, frozen=True):
    """What was opened `beside` works and has taken over."""


class Apart(Struct, frozen=True):
    """What was opened `beside` did not work: `why`, for its own part."""

    why: Ended | Refused | Unreached | Mute


class Restart(Struct, frozen=True):
    """The program wants another connection in place of this one, at once: other channels, another token."""

    code: str


class Moved(Struct, frozen=True):
    """The position is another."""

    cursor: str


class Delay(Struct, frozen=True):
    """SSE `retry`."""

    ms: int


class Told(Struct, frozen=True):
    """`bye`, `drain`."""

    code: int
    retry_ms: int | None = None


class Asked(Struct, frozen=True):
    """`migrate`."""

    to: str
    after_s: float = 0.0


class Staged(Struct, frozen=True):
    stage: str


class Ended(Struct, frozen=True):
    """The connection is gone. `code` 0: without one. `reason`: words of the server's. `channels`: it was
    refused because of these."""

    code: int = 0
    reason: str = ""
    channels: tuple[str, ...] = ()


class Refused(Struct, frozen=True):
    """An HTTP answer that is no socket and no stream; 0: not even HTTP."""

    status: int
    retry_after_s: float | None = None
    code: str = ""
    channels: tuple[str, ...] = ()


class Unreached(Struct, frozen=True):
    """Nobody was there; says nothing about the transport."""

    code: str = "unreachable"


class Mute(Struct, frozen=True):
    """It opened, or half opened, and carries nothing."""


class GivenUp(Struct, frozen=True):
    """The program's own decision, or a limit of the client's."""

    code: str


Happening = (
    Tick
    | Welcomed
    | Answered
    | Joined
    | Apart
    | Restart
    | Moved
    | Delay
    | Told
    | Asked
    | Staged
    | Ended
    | Refused
    | Unreached
    | Mute
    | GivenUp
)
