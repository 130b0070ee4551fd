"""When a line is opened, on which transport, and when it is given up: a pure state machine.

`decide` takes a `Line`, what happened, the time and a random number, and gives the next `Line`. Whoever
drives it does what `phase` says: `waiting` (nothing is open; a `Tick` at `due` goes on), `opening` (open
`transport`, with a token that is not the last one when `fresh`; the `welcome` makes it live), `live` (read; a
`Tick` at `wake` may change it; what `beside` names is opened as well, until `Joined` or `Apart`), `stopped`
(nothing helps; `code` says why). Whenever the phase is `waiting` or `stopped` nothing stays open. The rules
are those of docs/protocol.md, the same as in the JavaScript client.
"""

from __future__ import annotations

from msgspec.structs import replace

from .line import (
    CLOSE_REASONS,
    FAILURES,
    FAILURES_PROVEN,
    SSE_REFUSED,
    STAGE,
    TOKEN_EXPIRED,
    UNAUTHORIZED,
    UNREACHED,
    Answered,
    Apart,
    Asked,
    Delay,
    Ended,
    GivenUp,
    Happening,
    Joined,
    Line,
    Mode,
    Moved,
    Mute,
    Reconnects,
    Refused,
    Restart,
    Staged,
    Tick,
    Told,
    Transport,
    Unreached,
    Welcomed,
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
            return _welcomed(line, what, now, draw)
        case Answered():
            return replace(line, answered=line.transport == "websocket")
        case Joined():
            return _joined(line, now)
        case Apart():
            return _apart(line, what.why, now, draw)
        case Restart():
            return _waiting(line, now, what.code)
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
            return _ended(replace(line, channels=what.channels), what.code, what.reason, now, draw)
        case Refused():
            return _refused(replace(line, channels=what.channels), what, now, draw)
        case Unreached():
            return _failed(replace(line, code=what.code), now, draw)
        case Mute():
            return _failed(replace(line, code="silent"), now, draw, FAILURES)


def stop(line: Line, code: str, status: int = 0) -> Line:
    return replace(line, phase="stopped", code=code, status=status, beside=None)


def _tick(line: Line, now: float) -> Line:
    if line.phase == "waiting" and now >= line.due:
        return replace(
            line, phase="opening", told=0, retry_s=None, progressed=False, answered=False, settled=False
        )
    if line.phase != "live":
        return line
    if line.answered and not line.settled and now >= line.since + line.rules.settle_s:
        line = replace(line, settled=True, proven=True, probing=False, outage=False)
        line = replace(line, socket_failures=0, attempt=0, probe_s=line.rules.probe_s)
    if line.beside is None and line.move_to is not None and now >= line.move_at:
        return replace(line, beside=line.move_to)
    if line.beside is None and line.fallen and now >= line.probe_at:
        return replace(line, beside="websocket")
    return line


def _welcomed(line: Line, what: Welcomed, now: float, draw: float) -> Line:
    if line.phase == "live":
        return line
    live = replace(line, phase="live", since=now, renewed=False, fresh=False, telling=False)
    if what.cursor is not None:
        live = replace(live, cursor=what.cursor)
    if live.banned == live.transport:
        live = replace(live, banned=None)
    if live.transport == "websocket":
        return replace(live, fallen="")
    if live.fallen and not live.probe_at:
        # When the network failed, or WebSocket has worked here: soon.
        doubtful = live.outage or live.proven
        within = draw * live.rules.move_spread_s if doubtful else (0.5 + draw / 2) * live.probe_s
        live = replace(live, probe_at=now + within, outage=False)
    return _staged(live, what.stage, now + draw * live.rules.move_spread_s)


def _joined(line: Line, now: float) -> Line:
    if line.beside is None:
        return line
    there = line.beside
    # To SSE it went at the server's word: this stage has no WebSocket. SSE stays to fall back to.
    banned: Transport | None = "websocket" if there == "sse" else None
    line = replace(line, transport=there, beside=None, move_to=None, since=now, probing=bool(line.fallen))
    line = replace(line, fallen="", probe_at=0.0, banned=banned, attempt=0, retry_s=None, told=0)
    return replace(line, answered=there == "websocket", settled=False, progressed=False)


def _apart(line: Line, why: Happening, now: float, draw: float) -> Line:
    if line.beside is None:
        return line
    line = replace(line, beside=None, move_to=None)
    if line.transport == "websocket":
        return line  # the server ends it when it has to
    if isinstance(why, Ended) and why.code == STAGE:
        return replace(line, banned="websocket", fallen="", probe_at=0.0)
    probe_s = min(line.rules.probe_cap_s, line.probe_s * 2)
    at = now + (0.5 + draw / 2) * line.probe_s
    return replace(line, fallen=line.fallen or reason_of(why), probe_s=probe_s, probe_at=at)


def reason_of(why: Happening) -> str:
    """A word for the end of a connection, as `fallback_reason` has it."""
    match why:
        case Ended():
            return why.reason or CLOSE_REASONS.get(why.code, "ended")
        case Refused():
            return why.code or f"http-{why.status}"
        case Unreached() | GivenUp() | Restart():
            return why.code
        case _:
            return "silent"


def _asked(line: Line, to: str, at: float, now: float) -> Line:
    if line.mode != "auto" or to == line.transport or to not in ("websocket", "sse"):
        return line
    if to == "websocket" and line.fallen:
        return line  # sockets do not work here: it is tried now and then
    return replace(line, move_to=to, move_at=at)


def _staged(line: Line, stage: str, at: float) -> Line:
    if line.mode != "auto" or line.transport == "websocket" or line.phase != "live":
        return line
    if stage == "sse" and line.fallen:  # why there is no WebSocket is explained
        return replace(line, fallen="", banned="websocket", probe_at=0.0)
    if stage not in ("fallback", "websocket") or line.banned != "websocket" or line.move_to is not None:
        return line
    # It was sent away from WebSocket, which its stage has again.
    return replace(line, banned=None, move_to="websocket", move_at=at)


def _ended(line: Line, code: int, reason: str, now: float, draw: float) -> Line:
    code = line.told or code
    line = replace(line, code=reason or CLOSE_REASONS.get(code, "ended"))
    if _lasted(line, now):
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
    if not 4100 <= code < 4200 and line.retry_s is None:
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
    return replace(
        line,
        transport=other,
        banned=line.transport,
        fallen="",
        probing=False,
        probe_at=0.0,
        socket_failures=0,
    )


def _other_token(line: Line, now: float, draw: float, *, give_up: bool, status: int = 0) -> Line:
    """The token did not do."""
    if not line.renewable or (give_up and line.renewed):
        return stop(line, line.code, status)
    again = replace(line, fresh=True, renewed=True)
    return _later(again, now, draw) if line.renewed else _now(again, now, draw)


def _failed(line: Line, now: float, draw: float, weight: int = 1) -> Line:
    """It did not come to a welcome, or ended without a word."""
    if line.mode != "auto" or (line.phase == "live" and (line.transport == "sse" or line.settled)):
        return _later(line, now, draw)
    if line.transport == "sse":
        if not line.fallen:
            return _later(line, now, draw)
        # So it was not the socket's fault.
        return _later(
            replace(line, transport="websocket", fallen="", socket_failures=0, outage=True), now, draw
        )
    if line.code in UNREACHED:
        return _later(replace(line, socket_failures=0), now, draw)
    failures = line.socket_failures + weight
    limit = FAILURES_PROVEN if line.proven else FAILURES
    if line.banned == "sse" or (failures < limit and not line.probing):
        return _later(replace(line, socket_failures=min(failures, limit)), now, draw)
    probe_s = min(line.rules.probe_cap_s, line.probe_s * 2) if line.probing else line.rules.probe_s
    fallen = replace(
        line,
        transport="sse",
        fallen=line.code,
        telling=not line.outage,
        socket_failures=0,
        probing=False,
        probe_s=probe_s,
        probe_at=0.0,
        retry_s=None,
    )
    due = now + (line.retry_s or 0.0)  # `Retry-After` is for this client, over whatever it comes
    return _waiting(replace(fallen, attempt=min(line.attempt + 1, 30)), due, line.code)


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
        wait = line.retry_s + (wait if line.attempt else 0.0)
    return _waiting(replace(line, attempt=min(attempt + 1, 30)), now + wait, line.code)


def _waiting(line: Line, due: float, code: str) -> Line:
    return replace(line, phase="waiting", due=due, code=code, move_to=None, beside=None)


def _good(line: Line, now: float) -> bool:
    return _lasted(line, now) or (line.phase == "live" and line.progressed)


def _lasted(line: Line, now: float) -> bool:
    return line.phase == "live" and now - line.since >= line.rules.settle_s


def _limited(line: Line, seconds: float) -> float:
    return max(0.0, min(seconds, line.rules.server_cap_s))
