"""The `rooms` contract (docs/contracts/legacy-wire.md section 4): notifications, device sync, system messages
and rooms on one socket per user, `/api/v1/ws/{user_id}`.

A room is the channel `room:<name>`, so whoever publishes to it reaches its members on every node. Frames are
compact JSON in the printed order.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import msgspec
from msgspec import Raw

from dualcast.model.channel import check_channel
from dualcast.model.errors import BadChannel
from dualcast.model.publication import Entry, Publication
from dualcast.model.times import utc_text

from .legacy import (
    Action,
    Admission,
    Endpoint,
    Facts,
    Join,
    Leave,
    LegacySettings,
    Opening,
    Refusal,
    Reply,
    Stats,
    Tell,
)
from .legacy_notification import EVENT as NOTIFICATION
from .legacy_notification import for_rooms, parse
from .legacy_text import canonical, contract_times, frame_time, with_utc_times

DIALECT = "rooms"
PREFIX = "room:"
ROOM_MESSAGE = "room_message"
PLAIN = frozenset({"sync_update", "knowledge_update", "system_message"})
"""Frames whose `data` is the publisher's object, unchanged."""
CATEGORIES = ("sync", "knowledge", "system", "import")
MAX_ECHO = 100
"""Characters of a client's unknown type in the answer."""

_decode = msgspec.json.Decoder().decode
_members = msgspec.json.Decoder(dict[str, Raw]).decode


def endpoints(settings: LegacySettings) -> Sequence[Endpoint]:
    """The one socket."""
    bad = Refusal(code=4001, reason="Invalid credentials")
    return (
        Endpoint(
            dialect=DIALECT,
            path="/api/v1/ws/{user_id:str}",
            transport="ws",
            admit=admit,
            encode=encode,
            everywhere=True,
            first=first,
            wants=frozenset({"inbox"}),
            decode=decode,
            missing=Refusal(code=4001, reason="Authentication required"),
            malformed=bad,
            bad=bad,
            internal=(4000, "Internal error"),
            groups=PREFIX,
        ),
    )


def admit(facts: Facts) -> Admission | Refusal:
    """The path names the token's user; an admin may name anybody, and gets what is for that user, too."""
    named = facts.params.get("user_id", "")
    if named == facts.user:
        return Admission(channels=("all",), stream=DIALECT)
    if not facts.admin:
        return Refusal(code=4003, reason="forbidden", status=403, detail="Forbidden")
    try:
        own = check_channel("user:" + named)
    except BadChannel:
        return Refusal(code=4003, reason="forbidden", status=403, detail="Forbidden")
    return Admission(channels=("all", own), stream=DIALECT, inbox_of=named)


def first(facts: Facts, opening: Opening) -> Sequence[bytes]:
    """`connection_established`, then `notification_stats`."""
    now = utc_text(facts.now_ms)
    user = facts.params.get("user_id", facts.user)
    return (
        canonical(
            {
                "type": "connection_established",
                "message": "WebSocket connection established",
                "timestamp": now,
                "user_id": user,
            }
        ),
        canonical(
            {
                "type": "notification_stats",
                "data": {
                    "total": opening.total,
                    "unread": opening.unread,
                    "categories": {kind: opening.unread_by_kind.get(kind, 0) for kind in CATEGORIES},
                },
                "timestamp": now,
            }
        ),
    )


# ── publications ──


def encode(entry: Entry) -> bytes:
    """The frame of a publication, b"" for what is not of this contract."""
    publication = entry.publication
    event = publication.type
    if event in PLAIN:
        time = utc_text(publication.time_ms)
        return b'{"type":"%b","data":%b,"timestamp":"%b"}' % (event.encode(), publication.data, time.encode())
    if event == NOTIFICATION:
        note = parse(publication.data)
        return canonical({"type": NOTIFICATION, "data": for_rooms(note), "timestamp": note.created_at})
    if event == ROOM_MESSAGE:
        return _room_message(publication)
    return b""


def _room_message(publication: Publication) -> bytes:
    """A message with a `type` is the frame, with a `timestamp` if it has none; any other value is the `data`
    of a `room_message`. It says nothing of the channel: who is in the room and a target user besides gets one
    copy, by either."""
    data = publication.data
    message = _members(data) if data.startswith(b"{") else {}
    kind = message.get("type")
    if kind is None or not _is_text(kind):
        time = utc_text(publication.time_ms)
        return canonical({"type": ROOM_MESSAGE, "data": with_utc_times(Raw(data)), "timestamp": time})
    frame: dict[str, Any] = {"type": kind, **message}
    if "data" in message:
        frame["data"] = with_utc_times(message["data"])
    frame["timestamp"] = frame_time(frame.pop("timestamp", None), publication.time_ms)
    return canonical(contract_times(frame))


def _is_text(value: Raw) -> bool:
    text = bytes(value)
    return text.startswith(b'"') and text != b'""'


# ── what clients send ──


def decode(text: str, facts: Facts) -> Sequence[Action]:
    """`ping`, `subscribe`, `unsubscribe`, `get_stats`; anything else is answered with an error frame."""
    try:
        frame = _decode(text)
    except (msgspec.MsgspecError, RecursionError, ValueError):
        return (Reply(_error("Invalid JSON format", facts)),)
    if not isinstance(frame, dict):
        return (Reply(_error("Message must be a JSON object", facts)),)
    kind = frame.get("type")
    if kind == "ping":
        return (Reply(canonical({"type": "pong", "timestamp": utc_text(facts.now_ms)})),)
    if kind in ("subscribe", "room_subscribe"):
        return (_subscribe(frame, facts),)
    if kind in ("unsubscribe", "room_unsubscribe"):
        return (_unsubscribe(frame, facts),)
    if kind == "get_stats":
        return (Tell(render=stats_frame),)
    return (Reply(_error("Unknown message type: " + shown(kind), facts)),)


def _subscribe(frame: Mapping[str, Any], facts: Facts) -> Action:
    room = frame.get("room")
    if not isinstance(room, str) or not room:
        return Reply(_error("Missing room", facts))
    failed = _error("Message handling error", facts)
    channel = _channel(room)
    if not channel:
        return Reply(failed)
    done = canonical({"type": "room_subscribed", "room": room, "timestamp": utc_text(facts.now_ms)})
    return Join(channel=channel, done=done, refused=failed, too_many=failed)


def _unsubscribe(frame: Mapping[str, Any], facts: Facts) -> Action:
    room = frame.get("room")
    if not isinstance(room, str) or not room:
        return Reply(_error("Missing room", facts))
    channel = _channel(room)
    if not channel:
        return Reply(_error("Message handling error", facts))
    done = canonical({"type": "room_unsubscribed", "room": room, "timestamp": utc_text(facts.now_ms)})
    return Leave(channel=channel, done=done)


def _channel(room: str) -> str:
    """The channel of a room, "" when no room can have this name."""
    try:
        return check_channel(PREFIX + room)
    except BadChannel:
        return ""


def _error(text: str, facts: Facts) -> bytes:
    return canonical({"type": "error", "message": text, "timestamp": utc_text(facts.now_ms)})


def shown(kind: object) -> str:
    """A client's `type` in errors: itself, or its JSON when it is no text; at most MAX_ECHO characters."""
    text = kind if isinstance(kind, str) else canonical(kind).decode()
    return text[:MAX_ECHO]


# ── statistics ──


def stats_frame(facts: Facts, stats: Stats) -> bytes:
    """The answer to `get_stats`."""
    data = stats_data(facts.user, facts.admin, stats)
    return canonical({"type": "stats", "data": data, "timestamp": utc_text(facts.now_ms)})


def stats_data(user: str, everything: bool, stats: Stats) -> dict[str, Any]:
    """Complete totals; `rooms` and `users` with the caller's own entries only, or with `everything`."""
    rooms = {name: stats.groups[name] for name in sorted(stats.groups)}
    users = {name: stats.users[name] for name in sorted(stats.users)}
    if not everything:
        own = frozenset(stats.own_groups)
        rooms = {name: count for name, count in rooms.items() if name in own}
        users = {name: count for name, count in users.items() if name == user}
    return {
        "total_connections": stats.total_connections,
        "total_users": len(stats.users),
        "total_rooms": len(stats.groups),
        "rooms": {name.removeprefix(PREFIX): count for name, count in rooms.items()},
        "users": users,
    }
