"""When a line is opened, on which transport, and when it is given up: a pure state machine.

`decide` takes a `Line`, what happened, the time and a random number, and gives the next `Line`. Whoever
drives it does what `phase` says: `waiting` (nothing is open; a `Tick` at `due` goes on), `opening` (open
`transport`, with a token that is not the last one when `fresh`; the `welcome` makes it live), `live` (read; a
`Tick` at `wake` may move it), `stopped` (nothing helps; `code` says why). Whenever the phase is `waiting` or
`stopped` nothing stays open.
"""

from __future__ import annotations

from typing import Literal

from msgspec import Struct
from msgspec.structs import replace

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
"""So many sockets in a row that did not open mean that they do not work here."""


class Reconnects(Struct, frozen=True, kw_only=True):
    """How a broken line is opened again: after a random time up to `base_s * 2**n`, at most `cap_s`, unless
    the server says another."""

    base_s: float = 1.0
    cap_s: float = 30.0
    settle_s: float = 5.0
    """A line that stood so long, or brought anything new, was good: the next wait is short again."""
    probe_s: float = 300.0
    """After a fallback to SSE, WebSocket is tried again after about this time; doubled each time it fails."""
    probe_cap_s: float = 3600.0
    server_cap_s: float = 86_400.0
    """No longer than this, whatever the server says."""
    move_spread_s: float = 10.0
    """When a stage allows WebSocket again, within this time."""


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
    retry_s: float | None = None
    """Said by the server for the time after this connection."""
    told: int = 0
    """Close code of the `bye`."""
    socket_failures: int = 0
    banned: Transport | None = None
    """The server does not serve it for this user."""
    fallen: str = ""
    """Why SSE is used although WebSocket is not banned."""
    telling: bool = False
    """The server has not been told of the fallback yet; it counts each one."""
    probing: bool = False
    probe_at: float = 0.0
    probe_s: float = 0.0
    move_to: Transport | None = None
    move_at: float = 0.0
    fresh: bool = False
    renewed: bool = False
    """A new token was asked for since the last welcome."""
    code: str = ""
    """Why it stopped, or what the last connection ended with."""
    status: int = 0
    """HTTP status that stopped it; 0: none."""

    @property
    def wake(self) -> float | None:
        """While live: when a `Tick` may change something."""
        times = [self.move_at] if self.move_to is not None else []
        if self.fallen:
            times.append(self.probe_at)
        return min(times, default=None)


class Tick(Struct, frozen=True):
    """Time has passed."""


class Welcomed(Struct, frozen=True):
    cursor: str | None = None


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
    """The connection is gone. `code` 0: without one. `reason`: words of the server's."""

    code: int = 0
    reason: str = ""


class Refused(Struct, frozen=True):
    """An HTTP answer that is no socket and no stream; 0: not even HTTP."""

    status: int
    retry_after_s: float | None = None
    code: str = ""


class Unreached(Struct, frozen=True):
    """Nobody was there; says nothing about the transport."""

    code: str = "unreachable"


class Mute(Struct, frozen=True):
    """It opened, or half opened, and carries nothing."""


class GivenUp(Struct, frozen=True):
    """The program's own decision, or a limit of the client's."""

    code: str


Happening = (
    Tick | Welcomed | Moved | Delay | Told | Asked | Staged | Ended | Refused | Unreached | Mute | GivenUp
)


def begin(mode: Mode, cursor: str, renewable: bool, rules: Reconnects) -> Line:
    """The line before its first connection."""
    return Line(
        mode=mode,
        renewable=renewable,
        rules=rules,
        cursor=cursor,
        transport="sse" if mode == "sse" else "websocket",
        probe_s=rules.probe_s,
    )


def decide(line: Line, what: Happening, now: float, draw: float) -> Line:
    """The line after `what`. `draw`: a random number in [0, 1)."""
    if line.phase == "stopped":
        return line
    match what:
        case GivenUp():
            return stop(line, what.code)
        case Tick():
            return _tick(line, now)
        case Moved():
            progressed = line.progressed or what.cursor != line.cursor
            return replace(line, cursor=what.cursor, progressed=progressed)
        case _ if line.phase == "waiting":
            return line  # nothing is open that could have said it
        case Welcomed():
            return _welcomed(line, what.cursor, now)
        case Delay():
            return replace(line, retry_s=_limited(line, what.ms / 1000))
        case Told():
            retry_s = line.retry_s if what.retry_ms is None else _limited(line, what.retry_ms / 1000)
            return replace(line, told=what.code, retry_s=retry_s)
        case Asked():
            return _asked(line, what.to, now + _limited(line, what.after_s), now)
        case Staged():
            return _staged(line, what.stage, now + draw * line.rules.move_spread_s)
        case Ended():
            return _ended(line, what.code, what.reason, now, draw)
        case Refused():
            return _refused(line, what, now, draw)
        case Unreached():
            return _failed(replace(line, code=what.code), now, draw)
        case Mute():
            return _failed(replace(line, code="silent"), now, draw, FAILURES)


def stop(line: Line, code: str, status: int = 0) -> Line:
    return replace(line, phase="stopped", code=code, status=status)


def _tick(line: Line, now: float) -> Line:
    if line.phase == "waiting" and now >= line.due:
        return replace(line, phase="opening", told=0, retry_s=None, progressed=False, move_to=None)
    if line.phase != "live":
        return line
    if line.move_to is not None and now >= line.move_at:
        return replace(_on_the_other(_waiting(line, now, "moving")), attempt=0)
    if line.fallen and now >= line.probe_at:
        return replace(_waiting(line, now, "probing"), transport="websocket", probing=True)
    return line


def _welcomed(line: Line, cursor: str | None, now: float) -> Line:
    live = replace(line, phase="live", since=now, renewed=False, fresh=False, telling=False)
    live = replace(live, progressed=False)
    if cursor is not None:
        live = replace(live, cursor=cursor)
    if line.transport == "websocket":
        live = replace(live, socket_failures=0, fallen="", probing=False, probe_s=line.rules.probe_s)
    return replace(live, banned=None) if line.banned == line.transport else live


def _asked(line: Line, to: str, at: float, now: float) -> Line:
    if line.mode != "auto" or to == line.transport or to not in ("websocket", "sse"):
        return line
    if to == "websocket" and line.fallen and now < line.probe_at:
        return line  # sockets do not work here: it was tried a moment ago
    return replace(line, move_to=to, move_at=at)


def _staged(line: Line, stage: str, at: float) -> Line:
    """A stage that has WebSocket again, for a line that was sent away from it."""
    away = line.mode == "auto" and line.transport == "sse" and line.banned == "websocket"
    if stage not in ("fallback", "websocket") or not away or line.move_to is not None:
        return line
    return replace(line, banned=None, move_to="websocket", move_at=at)


def _ended(line: Line, code: int, reason: str, now: float, draw: float) -> Line:
    code = line.told or code
    line = replace(line, code=reason or CLOSE_REASONS.get(code, "ended"))
    if _good(line, now):
        line = replace(line, attempt=0)
    if code == STAGE:  # its transport is not served to this user: the other one is
        if line.mode != "auto":
            return stop(line, line.code)
        return _now(_on_the_other(line), now, draw)
    if code in (UNAUTHORIZED, TOKEN_EXPIRED):
        return _other_token(line, now, draw, give_up=code == UNAUTHORIZED)
    if 4000 <= code < 4100:
        return stop(line, line.code)
    if 4200 <= code < 4300:
        return _now(line, now, draw)
    if line.phase == "opening" and not 4100 <= code < 4200 and line.retry_s is None:
        return _failed(line, now, draw)
    return _later(line, now, draw)


def _refused(line: Line, what: Refused, now: float, draw: float) -> Line:
    status = what.status
    line = replace(line, code=what.code or f"http-{status}")
    if what.retry_after_s is not None:
        line = replace(line, retry_s=_limited(line, what.retry_after_s))
    if status == 401 and (line.transport == "sse" or line.mode == "websocket"):
        return _other_token(line, now, draw, give_up=True, status=status)
    if line.transport == "sse":
        if status in SSE_REFUSED:
            return stop(line, what.code or SSE_REFUSED[status], status)
        if status == 204:
            if line.mode != "auto":
                return stop(line, "sse-ended", status)
            return _now(_on_the_other(line), now, draw)
    return _failed(line, now, draw)


def _on_the_other(line: Line) -> Line:
    other: Transport = "sse" if line.transport == "websocket" else "websocket"
    return replace(line, transport=other, banned=line.transport, fallen="", probing=False)


def _other_token(line: Line, now: float, draw: float, *, give_up: bool, status: int = 0) -> Line:
    """The token did not do."""
    if not line.renewable or (give_up and line.renewed):
        return stop(line, line.code, status)
    again = replace(line, fresh=True, renewed=True)
    return _later(again, now, draw) if line.renewed else _now(again, now, draw)


def _failed(line: Line, now: float, draw: float, weight: int = 1) -> Line:
    """It did not come to a welcome."""
    if line.phase == "live" or line.mode != "auto":
        return _later(line, now, draw)
    if line.transport == "sse":
        if not line.fallen:
            return _later(line, now, draw)
        # So it was not the socket's fault.
        return _later(replace(line, transport="websocket", fallen="", socket_failures=0), now, draw)
    if line.code in UNREACHED and not line.probing:
        return _later(line, now, draw)
    failures = line.socket_failures + weight
    if line.banned == "sse" or (failures < FAILURES and not line.probing):
        return _later(replace(line, socket_failures=failures), now, draw)
    probe_s = min(line.rules.probe_cap_s, line.probe_s * 2) if line.probing else line.rules.probe_s
    fallen = replace(
        line,
        transport="sse",
        fallen=line.code,
        telling=True,
        socket_failures=0,
        probing=False,
        probe_s=probe_s,
        probe_at=now + probe_s * (0.5 + draw),
        retry_s=None,
    )
    return _waiting(replace(fallen, attempt=min(line.attempt + 1, 30)), now, line.code)


def _now(line: Line, now: float, draw: float) -> Line:
    """At once; but not one useless connection after the other."""
    if line.attempt:
        return _later(line, now, draw)
    return _waiting(replace(line, attempt=1), now, line.code)


def _later(line: Line, now: float, draw: float) -> Line:
    attempt = 0 if _good(line, now) else line.attempt
    rules = line.rules
    wait = draw * min(rules.cap_s, rules.base_s * 2.0 ** min(attempt, 30))
    if line.retry_s is not None:
        # The server has told every client another delay; more is added only where that does not help.
        wait = line.retry_s + (wait if attempt else 0.0)
    return _waiting(replace(line, attempt=min(attempt + 1, 30)), now + wait, line.code)


def _waiting(line: Line, due: float, code: str) -> Line:
    return replace(line, phase="waiting", due=due, code=code, move_to=None)


def _good(line: Line, now: float) -> bool:
    return line.phase == "live" and (line.progressed or now - line.since >= line.rules.settle_s)


def _limited(line: Line, seconds: float) -> float:
    return max(0.0, min(seconds, line.rules.server_cap_s))
