"""The contract `conversations`: chat between participants, presence, devices (docs/contracts/legacy-wire.md
section 6).

In: publications `conversation.*` (their shapes: `conversations/broadcasts.py`) and `presence` of the channel
PRESENCE, which every connection of this contract joins, so that its members are who is online in the
contract's sense. Out: the frames of section 6.1, keys in the printed order.
"""

from __future__ import annotations

import logging
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import msgspec
from msgspec import Raw

from dualcast.conversations.model import StoredMessage
from dualcast.model.publication import Entry, Publication
from dualcast.model.times import to_utc, utc_text
from dualcast.presence.devices import KINDS, MAX_DEVICE_ID

from .legacy import (
    Action,
    Admission,
    Call,
    Endpoint,
    Facts,
    LegacySettings,
    Opening,
    Refusal,
    Reply,
)
from .legacy_text import canonical, chosen_id, contract_times

log = logging.getLogger(__name__)

DIALECT = "conversations"
PATH = "/api/v1/ws"
PRESENCE = "presence:conversations"
"""Members: users with a connection of this contract on any instance (section 6.5)."""
UNKNOWN = "unknown"
"""`device_type` of a client that named a kind there is none of."""
COLLIDING = "publisher_keys"
"""Key in a message's `extra`: an object of publishers' keys that have names of the message's own."""
MAX_CLIENT_ID = 256
FAILED = "消息处理失败"
_message = msgspec.json.Decoder(StoredMessage).decode
_object = msgspec.json.Decoder(dict[str, Any]).decode
_raws = msgspec.json.Decoder(dict[str, Raw]).decode
_decode = msgspec.json.Decoder().decode


def endpoints(settings: LegacySettings) -> Sequence[Endpoint]:
    """The one socket of the contract."""
    bad = Refusal(code=4001, reason="Invalid credentials")
    return (
        Endpoint(
            dialect=DIALECT,
            path=PATH,
            transport="ws",
            admit=admit,
            first=connected,
            encode=Frames(),
            everywhere=True,  # presence is announced on one channel each
            decode=decode,
            missing=Refusal(code=4001, reason="Authentication required"),
            malformed=bad,
            bad=bad,
            internal=(4000, "Internal error"),
            unregistered=(4002, "Connection failed"),
            fresh_id=FreshIds(),
        ),
    )


def client_config(settings: LegacySettings) -> dict[str, int]:
    """`GET /api/ws/config` (section 6.7): milliseconds, and a count."""
    beat = 45.0 if settings.ws_heartbeat_s is None else settings.ws_heartbeat_s
    return {
        "heartbeatInterval": round(beat * 1000),
        "connectionTimeout": settings.connection_timeout_ms,
        "reconnectInterval": 2000,
        "maxReconnectDelay": 30_000,
        "maxReconnectAttempts": settings.max_reconnect_attempts,
    }


def admit(facts: Facts) -> Admission | Refusal:
    """Whoever has a good token. Ids that are none (too long, control characters) count as not given."""
    kind = facts.query.get("deviceType", "")
    return Admission(
        channels=(PRESENCE,),
        client_id=chosen_id(facts.query.get("connectionId", ""), MAX_CLIENT_ID),
        device=kind if kind in KINDS else "",
        device_id=chosen_id(facts.query.get("deviceId", ""), MAX_DEVICE_ID),
    )


class FreshIds:
    """`{user_id}_{deviceType or unknown}_{milliseconds}` for those who chose no id, or one that is taken. No
    two are equal on a node: whoever would share a millisecond gets the next."""

    def __init__(self) -> None:
        self._last_ms = 0

    def __call__(self, facts: Facts) -> str:
        self._last_ms = max(facts.now_ms, self._last_ms + 1)
        return f"{facts.user}_{facts.device or UNKNOWN}_{self._last_ms}"


def connected(facts: Facts, opening: Opening) -> Sequence[bytes]:
    """The confirmation. `device_type` and `device_id` are null when not given."""
    given = bool(facts.query.get("deviceType"))
    data = {
        "user_id": facts.user,
        "user_role": facts.role or "customer",
        "connection_id": facts.client_id,
        "device_type": (facts.device or UNKNOWN) if given else None,
        "device_id": facts.device_id or None,
        "status": "connected",
    }
    return (_frame("connected", data, facts.now_ms),)


# ── publications to frames ──


class Frames:
    """The encoder. Of the last `kept` users it saw coming or going it remembers the revision: two nodes may
    publish two changes of one user in the wrong order, and clients of this contract would believe the older
    one."""

    def __init__(self, kept: int = 20_000) -> None:
        self._kept = kept
        self._revisions: OrderedDict[tuple[str, str], int] = OrderedDict()

    def __call__(self, entry: Entry) -> bytes | Sequence[bytes]:
        """The frames of a publication; b"" or () when it is not of this contract."""
        publication = entry.publication
        if publication.type == "presence":
            return self._presence(publication) if entry.channel == PRESENCE else ()
        make = _FRAMES.get(publication.type)
        return make(publication.data, publication.time_ms) if make is not None else b""

    def _presence(self, publication: Publication) -> Sequence[bytes]:
        """One frame per user who came or went."""
        change = _object(publication.data)
        time = utc_text(publication.time_ms)
        return [
            _frame(
                "presence_update",
                {"user_id": user, "status": status, "timestamp": time},
                publication.time_ms,
            )
            for status, users in (("online", change["joined"]), ("offline", change["left"]))
            for user in users
            if self._is_newest(publication.tenant, user, change["revision"])
        ]

    def _is_newest(self, tenant: str, user: str, revision: int) -> bool:
        known = self._revisions
        if known.get((tenant, user), revision) > revision:
            return False
        known[tenant, user] = revision
        known.move_to_end((tenant, user))
        if len(known) > self._kept:
            known.popitem(last=False)
        return True


def _new_message(data: bytes, time_ms: int) -> bytes:
    message = _message(data)
    extra = contract_times(message.extra)
    own = extra.pop(COLLIDING, None)
    known: dict[str, Any] = {
        "id": message.id,
        "conversation_id": message.conversation_id,
        "content": message.content,
        "type": message.message_type,
        "message_type": message.message_type,
        "sender_id": message.sender_id,
        "sender_type": message.sender_type,
        "sender_name": message.sender_name,
        "sender_avatar": message.sender_avatar,
        "timestamp": _time(extra.get("timestamp")) or _time(message.time),
        "is_read": extra.get("is_read") is True,
        "is_important": message.is_important,
    }
    if message.reply_to is not None:
        known["reply_to_message_id"] = message.reply_to
    for key, value in {**extra, **(own if isinstance(own, dict) else {})}.items():
        known.setdefault(key, value)
    return _frame("new_message", known, time_ms, {"conversation_id": message.conversation_id})


def _typing(data: bytes, time_ms: int) -> bytes:
    said = _object(data)
    body = {"user_id": said["user_id"], "is_typing": said["is_typing"]}
    return _frame("typing_status", body, time_ms, _where(said), event_type="typing_update")


def _read(data: bytes, time_ms: int) -> bytes:
    said = _object(data)
    body = {"user_id": said["user_id"], "message_ids": said["message_ids"]}
    return _frame("read_status", body, time_ms, _where(said))


def _where(said: Mapping[str, Any]) -> dict[str, Any]:
    return {"conversation_id": said["conversation_id"]}


def _forwarding(name: str, *keys: str) -> Callable[[bytes, int], bytes]:
    """The publisher's object in `data`, unchanged but for its times, and `keys` behind it."""

    def make(data: bytes, time_ms: int) -> bytes:
        said = _raws(data)
        body = contract_times(_raws(bytes(said["data"])))
        return _frame(name, body, time_ms, {key: said[key] for key in keys})

    return make


_FRAMES: Mapping[str, Callable[[bytes, int], bytes]] = {
    "conversation.frame": lambda data, time_ms: data,  # of an older backend, complete (section 6.6)
    "conversation.message": _new_message,
    "conversation.typing": _typing,
    "conversation.read": _read,
    "conversation.system": _forwarding("system_notification", "conversation_id"),
    "conversation.direct": _forwarding("direct_message"),
    "conversation.mobile": _forwarding("mobile_notification", "conversation_id"),
    "conversation.reply": _forwarding("consultation_reply", "conversation_id", "consultant_id"),
}


# ── client text to actions ──


def decode(text: str, facts: Facts) -> Sequence[Action]:
    """Section 6.2. What is not understood is ignored, and logged at DEBUG without its contents."""
    if text == "ping":
        return (Reply(b"pong"),)
    said = _decoded(text)
    if said.get("type") == "heartbeat":
        number = said.get("timestamp")
        same = number if isinstance(number, int | float) and not isinstance(number, bool) else None
        return (Reply(canonical({"type": "heartbeat", "timestamp": same})),)
    action = said.get("action")
    if action == "ping" or said.get("type") == "ping":
        return (Reply(_frame("pong", {}, facts.now_ms)),)
    if action in ("typing", "read"):
        return (_call(action, said, facts.now_ms),)
    log.debug("a frame of a conversations client was ignored: %d characters", len(text))
    return ()


def _decoded(text: str) -> Mapping[str, Any]:
    """The object a client sent; empty when it is none."""
    try:
        said = _decode(text)
    except (msgspec.MsgspecError, ValueError, OverflowError, RecursionError):
        return {}
    return said if isinstance(said, dict) else {}


def _call(action: str, said: Mapping[str, Any], now_ms: int) -> Action:
    """The same as the HTTP call. `conversation_id` may stand at the top or in `data`."""
    failed = _frame("error", {"status": "error", "message": FAILED}, now_ms)
    data = said.get("data")
    body: Mapping[str, Any] = data if isinstance(data, dict) else {}
    conversation = said.get("conversation_id") or body.get("conversation_id")
    key = "is_typing" if action == "typing" else "message_ids"
    value = body.get(key)
    if action == "typing":
        good = isinstance(value, bool)
    else:
        good = isinstance(value, list) and all(isinstance(one, str) for one in value)
    if not good or not isinstance(conversation, str):
        return Reply(failed)
    return Call(
        name=action,
        arguments={"conversation_id": conversation, key: value},
        done=_frame("response", {"status": "success", "message": "ok"}, now_ms),
        failed=lambda _code: failed,
    )


# ── pieces ──


def _frame(
    name: str,
    data: Mapping[str, Any],
    time_ms: int,
    between: Mapping[str, Any] | None = None,
    *,
    event_type: str = "",
) -> bytes:
    """A frame: the name three times, for older clients disagree about the key (R30). `between`: keys behind
    `data`."""
    head = {"event": name, "action": name, "event_type": event_type or name, "data": data}
    return canonical({**head, **(between or {}), "timestamp": utc_text(time_ms)})


def _time(value: object) -> str | None:
    return to_utc(value) if isinstance(value, str) else None
