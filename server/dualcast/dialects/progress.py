"""The contract `progress`: how far batch jobs, imports and uploads are, per client id
(docs/contracts/legacy-wire.md section 7).

In: publications of event type `progress_frame`, whose data is the frame object, on the user's channel or on
the channel of one client id (`client_channel`); `progress_left`. Out: frames of section 7.1, completed with
`percentage`, the numbers a failure leaves out, and a `timestamp`.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping, Sequence
from hashlib import blake2b
from math import isfinite
from typing import Any

import msgspec

from dualcast.model.channel import ALL, check_channel, user_channel
from dualcast.model.errors import BadChannel
from dualcast.model.principal import ADMIN
from dualcast.model.publication import Entry
from dualcast.model.times import to_utc, utc_text

from .legacy import (
    Action,
    Admission,
    Endpoint,
    Facts,
    Farewell,
    LegacySettings,
    Opening,
    Refusal,
    Reply,
)
from .legacy_text import canonical, contract_times

DIALECT = "progress"
PATH = "/ws/{client_id:str}"
FRAME = "progress_frame"
LEFT = "progress_left"
CHANNELS = "topic:progress-client"
"""What the channels of this contract begin with; they are no topics that anybody knows."""
LEAVING = CHANNELS + "s"
"""Where LEFT is told: administrators' sockets only have it. On a channel that everybody has, each socket that
ends would cost a look at every connection there is."""
FOREIGN = Refusal(code=4003, reason="forbidden", status=403, detail="Forbidden")
BATCH, IMPORT, UPLOAD, INDUSTRIES = (
    "batch_report_progress",
    "data_import_progress",
    "file_upload_progress",
    "multi_industry_progress",
)
_SUBJECTS = {BATCH: "batch_id", IMPORT: "import_id", UPLOAD: "filename", INDUSTRIES: "task_id"}
"""Type of a progress frame → the key that says what the progress is of."""
_TOTALS = {IMPORT: 100, UPLOAD: 100}
"""`total` where the publisher does not say."""
_EXTRAS = (
    "current_report",
    "completed",
    "failed",
    "imported_records",
    "total_records",
    "import_id",
    "reports",
    "error",
)
MAX_NUMBER = 2**53
_BROKEN = "消息处理失败"
_decode = msgspec.json.Decoder().decode


def endpoints(settings: LegacySettings) -> Sequence[Endpoint]:
    """The one socket of the contract."""
    return (
        Endpoint(
            dialect=DIALECT,
            path=PATH,
            transport="ws",
            admit=admit,
            assumed=assumed if settings.dev else None,
            first=connected,
            encode=Frames(),
            decode=decode,
            heartbeat=ping,
            heartbeat_s=settings.progress_ping_s,
            heartbeat_always=True,
            max_connections=settings.progress_max_connections,
            full=full,
            farewell=left,
        ),
    )


def client_channel(client: str) -> str:
    """The channel of one client id with a suffix (`u1:tab2`)."""
    return f"{CHANNELS}:{client}"


def target_channel(client: str) -> str:
    """Where a frame for client id `client` goes: a user, or with a suffix that client id alone. Raises
    BadChannel."""
    return check_channel(client_channel(client)) if ":" in client else user_channel(client)


def admit(facts: Facts) -> Admission | Refusal:
    """A client id is the user's, or the user's with a suffix; an administrator may take any, and then gets
    what its user gets. (A user id may hold a colon itself, so whose an administrator's is cannot be told: the
    whole id and what is in front of the first colon are meant.)"""
    client = facts.params.get("client_id", "")
    if client == facts.user or client.startswith(facts.user + ":"):
        users = [facts.user]
    elif facts.admin:
        users = [client, client.partition(":")[0]]
    else:
        return FOREIGN
    try:
        channels = [*map(user_channel, users), ALL]
        if ":" in client:
            channels.append(check_channel(client_channel(client)))
    except BadChannel:
        return FOREIGN
    if facts.admin:
        channels.append(LEAVING)
    return Admission(channels=tuple(dict.fromkeys(channels)), client_id=client, stream=DIALECT)


def assumed(facts: Facts) -> tuple[str, bool]:
    """With `--dev`, whoever has no token is the user the client id names; no administrator."""
    return facts.params.get("client_id", "").partition(":")[0], False


def connected(facts: Facts, opening: Opening) -> Sequence[bytes]:
    """The confirmation."""
    client, now = facts.params["client_id"], utc_text(facts.now_ms)
    return (
        canonical(
            {
                "type": "connection",
                "status": "connected",
                "message": f"WebSocket连接成功，客户端ID: {client}",
                "client_id": client,
                "server_time": now,
                "connection_count": facts.own_connections,
                "timestamp": now,
            }
        ),
    )


def ping(facts: Facts) -> bytes:
    """The server's ping. It names the caller's own connections only (R34)."""
    now = utc_text(facts.now_ms)
    return canonical(
        {
            "type": "ping",
            "server_time": now,
            "active_connections": facts.own_connections,
            "timestamp": now,
        }
    )


def left(facts: Facts) -> Farewell:
    """A client has gone, for administrators (R34)."""
    data = canonical({"client_id": facts.params["client_id"]})
    return Farewell(channel=LEAVING, event=LEFT, data=data, roles=(ADMIN,))


def full(facts: Facts) -> Sequence[bytes]:
    """Before the close with 1013."""
    return (_error("连接数已达上限", "CONNECTION_LIMIT_EXCEEDED", facts.now_ms),)


# ── client text to actions ──


def decode(text: str, facts: Facts) -> Sequence[Action]:
    """Section 7.2: whatever has no meaning is echoed; what is no JSON object is an error, and the connection
    goes on (R26)."""
    now = utc_text(facts.now_ms)
    try:
        said = _decode(text)
    except (msgspec.MsgspecError, ValueError, OverflowError, RecursionError):
        return (Reply(_error("无效的JSON格式", "INVALID_JSON", facts.now_ms)),)
    try:
        answer = _answer(said, now)
    except (msgspec.MsgspecError, TypeError, ValueError, OverflowError, RecursionError):
        # It can be read and not be written: a number beyond 64 bits, half a character.
        answer = None
    if answer is None:
        return (Reply(_error(_BROKEN, "MESSAGE_PROCESSING_ERROR", facts.now_ms)),)
    return (Reply(answer),) if answer else ()


def _answer(said: object, now: str) -> bytes | None:
    """b"": none is due; None: the message makes no sense."""
    if not isinstance(said, dict):
        return None
    kind = said.get("type")
    if kind == "pong":
        return b""
    if kind == "ping":
        original = said.get("timestamp")
        return canonical(
            {"type": "pong", "timestamp": now, "original_timestamp": original, "server_timestamp": now}
        )
    if kind in ("subscribe", "unsubscribe"):
        event = said.get("event_type")
        if not isinstance(event, str) or not event:
            return None
        verb = "已订阅" if kind == "subscribe" else "已取消订阅"
        return canonical(
            {
                "type": "subscription",
                "event_type": event,
                "status": kind + "d",
                "message": f"{verb} {event} 事件",
                "timestamp": now,
            }
        )
    return canonical({"type": "echo", "original_message": said, "timestamp": now})


# ── publications to frames ──


class Frames:
    """The encoder. It remembers, of the last `kept` jobs it saw, how far they were: a failure that names no
    numbers repeats those (R33)."""

    def __init__(self, kept: int = 10_000) -> None:
        self._kept = kept
        self._known: OrderedDict[bytes, tuple[float, float]] = OrderedDict()

    def __call__(self, entry: Entry) -> bytes:
        """The frame of a publication; b"" when it is not of this contract."""
        publication = entry.publication
        if publication.type == LEFT:
            return _left(_decode(publication.data), publication.time_ms)
        if publication.type != FRAME:
            return b""
        said = _decode(publication.data)
        if not isinstance(said, dict):
            return b""
        given = contract_times(said)
        time = given.pop("timestamp", None)
        kind = given.get("type")
        if isinstance(kind, str) and kind in _SUBJECTS:
            given = self._completed(kind, given, _place(entry, kind, given.get(_SUBJECTS[kind])))
        given["timestamp"] = _time(time) or utc_text(publication.time_ms)
        return canonical(given)

    def _completed(self, kind: str, given: Mapping[str, Any], place: bytes) -> dict[str, Any]:
        """With all three numbers, keys in the printed order and the publisher's own behind them."""
        done, total = self._known.get(place, (0, _TOTALS.get(kind, 0)))
        done = _number(given.get("progress"), done)
        total = _number(given.get("total"), total)
        self._known[place] = (done, total)
        self._known.move_to_end(place)
        if len(self._known) > self._kept:
            self._known.popitem(last=False)
        head = ("type", _SUBJECTS[kind], "status", "message")
        frame = {key: given[key] for key in head if key in given}
        frame["progress"] = done
        frame["total"] = total
        frame["percentage"] = percentage(done, total, completed=given.get("status") == "completed")
        for key in (*_EXTRAS, *given):
            if key in given:
                frame.setdefault(key, given[key])
        return frame


def percentage(done: float, total: float, *, completed: bool) -> float:
    """`round(progress / total * 100, 1)`; of nothing to do, all is done once it is completed."""
    if not total:
        return 100.0 if completed else 0.0
    value = round(done / total * 100, 1)
    return float(value) if isfinite(value) else 0.0


def _place(entry: Entry, kind: str, subject: object) -> bytes:
    """Names the job a frame is of; as long as any other, whatever the publisher put there."""
    named = repr((entry.publication.tenant, entry.channel, kind, str(subject)))
    return blake2b(named.encode(errors="replace"), digest_size=16).digest()


def _time(value: object) -> str | None:
    return to_utc(value) if isinstance(value, str) else None


def _number(value: object, otherwise: float) -> float:
    """`value` when it is a number that JavaScript can count with."""
    if isinstance(value, bool) or not isinstance(value, int | float) or abs(value) > MAX_NUMBER:
        return otherwise
    return value


def _left(said: Any, time_ms: int) -> bytes:
    client = said.get("client_id") if isinstance(said, dict) else None
    if not isinstance(client, str):
        return b""
    return canonical(
        {
            "type": "connection",
            "status": "disconnected",
            "client_id": client,
            "message": f"客户端 {client} 已断开连接",
            "timestamp": utc_text(time_ms),
        }
    )


def _error(message: str, code: str, time_ms: int) -> bytes:
    return canonical(
        {"type": "error", "message": message, "error_code": code, "timestamp": utc_text(time_ms)}
    )
