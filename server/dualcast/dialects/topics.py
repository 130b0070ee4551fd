"""The `topics` contract (docs/contracts/legacy-wire.md section 5): topic subscriptions on one socket,
`/api/ws`, with or without a token.

A topic is the channel `topic:<name>`. Frames are compact JSON in the printed order.
"""

from __future__ import annotations

import uuid
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import msgspec
from msgspec import Raw

from dualcast.model.channel import check_channel
from dualcast.model.errors import BadChannel
from dualcast.model.publication import Entry
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
    Reply,
    Stats,
    Tell,
)
from .legacy_notification import EVENT as NOTIFICATION
from .legacy_notification import for_topics, parse
from .legacy_text import canonical, chosen_id, with_utc_times
from .rooms import shown
from .topics_messages import topic_frame

DIALECT = "topics"
PREFIX = "topic:"
TOPIC_MESSAGE = "topic_message"
ADMIN_BROADCAST = "admin_broadcast"
NOTIFICATIONS = "notifications"
"""The topic that notifications say they are of; nobody has to subscribe to it."""
IMPORT = "import:"
MAX_CLIENT_ID = 64
MAX_TOPIC = 200
"""Characters."""

_decode = msgspec.json.Decoder().decode
_members = msgspec.json.Decoder(dict[str, Raw]).decode


def endpoints(settings: LegacySettings) -> Sequence[Endpoint]:
    """The one socket."""
    return (
        Endpoint(
            dialect=DIALECT,
            path="/api/ws",
            transport="ws",
            admit=admit,
            encode=encode,
            first=first,
            decode=decoder(frozenset(settings.topics_public)),
            anonymous=True,
            silent_s=settings.topics_idle_s,
            groups=PREFIX,
            fresh_id=fresh_id,
        ),
    )


def admit(facts: Facts) -> Admission:
    """Everybody; the caller may choose a `client_id`."""
    chosen = chosen_id(facts.query.get("client_id", ""), MAX_CLIENT_ID)
    return Admission(channels=("all",), client_id=chosen, stream=DIALECT)


def fresh_id(facts: Facts) -> str:
    """A client id nobody else has."""
    return str(uuid.uuid4())


def first(facts: Facts, opening: Opening) -> Sequence[bytes]:
    """`connection`."""
    return (
        canonical(
            {
                "type": "connection",
                "status": "connected",
                "client_id": facts.client_id,
                "timestamp": utc_text(facts.now_ms),
            }
        ),
    )


# ── publications ──


def encode(entry: Entry) -> bytes:
    """The frame of a publication, b"" for what is not of this contract."""
    publication = entry.publication
    event = publication.type
    if event == TOPIC_MESSAGE:
        return topic_frame(entry.channel, publication.data, publication.time_ms)
    if event == NOTIFICATION:
        note = parse(publication.data)
        return canonical(
            {
                "type": NOTIFICATION,
                "topic": NOTIFICATIONS,
                "data": for_topics(note),
                "timestamp": note.created_at,
            }
        )
    if event == ADMIN_BROADCAST and publication.data.startswith(b"{"):
        told = _members(publication.data)
        data, sender = told.get("data", Raw(b"{}")), told.get("sender", Raw(b'""'))
        return canonical({"type": ADMIN_BROADCAST, "data": with_utc_times(data), "sender": sender})
    return b""


# ── what clients send ──


def decoder(public: frozenset[str]) -> Callable[[str, Facts], Sequence[Action]]:
    """The decoder for a server whose `topics_public` are these."""

    def decode(text: str, facts: Facts) -> Sequence[Action]:
        """`ping`, `subscribe`, `unsubscribe`, `get_stats`; anything else is answered with an error frame."""
        try:
            frame = _decode(text)
        except (msgspec.MsgspecError, RecursionError, ValueError):
            return (Reply(_error("Invalid JSON")),)
        if not isinstance(frame, dict):
            return (Reply(_error("Message must be a JSON object")),)
        kind = frame.get("type")
        if kind == "ping":
            return (Reply(canonical({"type": "pong", "timestamp": utc_text(facts.now_ms)})),)
        if kind == "subscribe":
            return (_subscribe(frame, facts, public),)
        if kind == "unsubscribe":
            return (_unsubscribe(frame),)
        if kind == "get_stats":
            return (Tell(render=stats_frame) if facts.user else Reply(_error("Authentication required")),)
        return (Reply(_error("未知消息类型: " + shown(kind))),)

    return decode


def _subscribe(frame: Mapping[str, Any], facts: Facts, public: frozenset[str]) -> Action:
    topic = frame.get("topic")
    if not isinstance(topic, str) or not topic:
        return Reply(_error("Missing topic"))
    done = canonical({"type": "subscribed", "topic": topic, "success": True})
    if not facts.user and (topic not in public or topic.startswith(IMPORT)):
        # Notifications come anyway; what is published to a topic of that name is not for everybody.
        return Reply(done if topic == NOTIFICATIONS else _error("Authentication required"))
    refused = _error("Not allowed: " + topic[:MAX_TOPIC])
    channel = _channel(topic)
    if not channel:
        return Reply(refused)
    owner_of = "task:" + topic[len(IMPORT) :] if topic.startswith(IMPORT) and len(topic) > len(IMPORT) else ""
    return Join(channel=channel, done=done, refused=refused, owner_of=owner_of, too_many=refused)


def _unsubscribe(frame: Mapping[str, Any]) -> Action:
    topic = frame.get("topic")
    if not isinstance(topic, str) or not topic:
        return Reply(_error("Missing topic"))
    done = canonical({"type": "unsubscribed", "topic": topic[:MAX_TOPIC], "success": True})
    channel = _channel(topic)
    return Leave(channel=channel, done=done) if channel else Reply(done)


def _channel(topic: str) -> str:
    """The channel of a topic, "" when no topic can have this name."""
    if len(topic) > MAX_TOPIC:
        return ""
    try:
        return check_channel(PREFIX + topic)
    except BadChannel:
        return ""


def _error(text: str) -> bytes:
    return canonical({"type": "error", "message": text})


# ── statistics ──


def stats_frame(facts: Facts, stats: Stats) -> bytes:
    """The answer to `get_stats`."""
    return canonical({"type": "stats", "data": stats_data(facts.user, facts.admin, stats)})


def stats_data(user: str, everything: bool, stats: Stats) -> dict[str, Any]:
    """Complete totals; `topics` and `users` with the caller's own only, or with `everything`."""
    topics = sorted(stats.groups if everything else stats.own_groups)
    users = sorted(stats.users if everything else {user} & stats.users.keys())
    return {
        "total_connections": stats.total_connections,
        "total_users": len(stats.users),
        "total_subscriptions": sum(stats.groups.values()),
        "topics": [name.removeprefix(PREFIX) for name in topics],
        "users": users,
    }
