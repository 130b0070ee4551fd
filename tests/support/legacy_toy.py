"""A small contract for tests of the framework: everything an endpoint may do, with short texts."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec

from dualcast.dialects.legacy import (
    NOT_FOUND,
    Action,
    Admission,
    Call,
    Close,
    Endpoint,
    Facts,
    Farewell,
    Join,
    Leave,
    LegacySettings,
    Opening,
    Refusal,
    Reply,
    Stats,
    Tell,
)
from dualcast.dialects.legacy_text import canonical, cursor_of, sse_block
from dualcast.model.publication import Entry

SOCKET = "/toy/ws"
STREAM = "/toy/stream"
TASK = "/toy/tasks"


def text(entry: Entry) -> bytes | Sequence[bytes]:
    """`note` data as it is, `pair` as two messages, `broken` raises; nothing else."""
    publication = entry.publication
    if publication.type == "broken":
        raise KeyError("secret-exception-text")
    if publication.type == "pair":
        return (b'{"part":1}', b'{"part":2}')
    return publication.data if publication.type in ("note", "task") else b""


def block(entry: Entry) -> bytes | Sequence[bytes]:
    """The same as blocks; of several the last has the id."""
    found = text(entry)
    texts = [found] if isinstance(found, bytes) else list(found)
    cursors = [""] * (len(texts) - 1) + [cursor_of(entry)]
    return [sse_block("note", one, cursor=at) for one, at in zip(texts, cursors, strict=True) if one]


def hello(facts: Facts, opening: Opening) -> Sequence[bytes]:
    """Two frames: who is there, and how things stand."""
    state = opening.state.get("state") if opening.state and not opening.resumed else None
    return (
        canonical({"hello": facts.user, "id": facts.client_id, "own": facts.own_connections}),
        canonical({"state": state, "unread": opening.unread}),
    )


def hello_blocks(facts: Facts, opening: Opening) -> Sequence[bytes]:
    """The same as blocks."""
    return [sse_block("hello", one) for one in hello(facts, opening)]


def beat(facts: Facts) -> bytes:
    """A heartbeat frame."""
    return canonical({"beat": facts.now_ms})


def beat_block(facts: Facts) -> bytes:
    """A heartbeat block."""
    return sse_block("beat", canonical({"beat": facts.now_ms}))


def told(facts: Facts, stats: Stats) -> bytes:
    """Statistics as they are."""
    return canonical(
        {
            "total": stats.total_connections,
            "users": stats.users,
            "groups": stats.groups,
            "own": list(stats.own_groups),
        }
    )


def heard(said: str, facts: Facts) -> Sequence[Action]:
    """`{"do": …}` to actions."""
    try:
        asked: Any = msgspec.json.decode(said)
    except msgspec.DecodeError:
        return (Reply(b'{"error":"Invalid JSON"}'),)
    if not isinstance(asked, dict):
        return (Reply(b'{"error":"not an object"}'),)
    match asked.get("do"):
        case "echo":
            return (Reply(canonical({"echo": asked["text"], "own": facts.own_connections})),)
        case "twice":
            return (Reply(b'{"n":1}'), Reply(b'{"n":2}'))
        case "join":
            channel = str(asked.get("channel"))
            done = canonical({"joined": channel})
            refused, full = canonical({"refused": channel}), b'{"error":"full"}'
            owner_of = str(asked.get("owner_of", ""))
            return (
                Join(channel=channel, done=done, refused=refused, owner_of=owner_of, too_many=full),
                Reply(b'{"after":"join"}'),
            )
        case "leave":
            return (Leave(channel=asked["channel"], done=canonical({"left": asked["channel"]})),)
        case "stats":
            return (Tell(render=told),)
        case "call":
            return (
                Call(
                    name=asked["name"],
                    arguments=asked.get("with", {}),
                    done=b'{"called":true}',
                    failed=lambda code: canonical({"failed": code}),
                ),
            )
        case "close":
            return (Close(code=4321, reason="as asked", last=b'{"last":1}'), Reply(b'{"never":1}'))
        case "raise":
            raise KeyError("secret-exception-text")
    return (Reply(b'{"error":"unknown"}'),)


def admit(facts: Facts) -> Admission | Refusal:
    """`mallory` may not come in, a client id may be chosen."""
    if facts.user == "mallory":
        return Refusal(code=4003, reason="forbidden", status=403, detail="Forbidden")
    if facts.query.get("raise"):
        raise KeyError("secret-exception-text")
    return Admission(
        channels=("all",), client_id=facts.query.get("client_id", ""), device=facts.query.get("device", "")
    )


def admit_task(facts: Facts) -> Admission | Refusal:
    """The task of the path."""
    channel = "task:" + facts.params["task_id"]
    return Admission(channels=(channel,), owner_of=channel, state_of=channel)


def finished(entry: Entry) -> bool:
    """Whether a task has ended."""
    return entry.publication.type == "task" and b'"state":"completed"' in entry.publication.data


def had_finished(opening: Opening) -> bool:
    """The same of the state."""
    return bool(opening.state) and opening.state["state"] == "completed"


def fresh(facts: Facts) -> str:
    """A made client id."""
    return f"fresh-{facts.own_connections}"


def gone(facts: Facts) -> Farewell:
    """Told to admins."""
    data = canonical({"gone": facts.client_id, "own": facts.own_connections})
    return Farewell(channel="all", event="note", data=data, roles=("admin",))


def socket_endpoint(**changes: Any) -> Endpoint:
    """A socket."""
    usual: dict[str, Any] = {
        "dialect": "toy",
        "path": SOCKET,
        "transport": "ws",
        "admit": admit,
        "encode": text,
        "first": hello,
        "decode": heard,
        "groups": "room:",
        "fresh_id": fresh,
        "missing": Refusal(code=4001, reason="Authentication required"),
        "bad": Refusal(code=4001, reason="Invalid credentials"),
        "malformed": Refusal(code=4001, reason="Invalid credentials"),
        "internal": (4000, "Internal error"),
    }
    return Endpoint(**{**usual, **changes})


def stream_endpoint(**changes: Any) -> Endpoint:
    """A stream."""
    usual: dict[str, Any] = {
        "dialect": "toy",
        "path": STREAM,
        "transport": "sse",
        "admit": admit,
        "encode": block,
        "first": hello_blocks,
        "missing": Refusal(detail="No authorization header"),
        "malformed": Refusal(detail="Invalid authorization format"),
        "bad": Refusal(detail="Invalid token"),
        "replaced": lambda limit: sse_block("replaced", canonical({"limit": limit}), retry_ms=300_000),
    }
    return Endpoint(**{**usual, **changes})


def task_endpoints(**changes: Any) -> tuple[Endpoint, Endpoint]:
    """A task, on a socket and on a stream that ends with it."""
    both: dict[str, Any] = {
        "admit": admit_task,
        "wants": frozenset({"state"}),
        "not_found": NOT_FOUND,
        **changes,
    }
    return (
        socket_endpoint(path=TASK + "/ws/{task_id:str}", **both),
        stream_endpoint(
            path=TASK + "/stream/{task_id:str}", **{"ends": finished, "ended": had_finished, **both}
        ),
    )


def endpoints(settings: LegacySettings) -> Sequence[Endpoint]:
    """All of them, without clocks."""
    return (socket_endpoint(), stream_endpoint(), *task_endpoints())
