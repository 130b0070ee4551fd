"""What a subscription tells: publications, and what the server says about the line. The frames of the native
protocol (docs/protocol.md), the same on both transports. Fields a newer server adds are ignored.
"""

from __future__ import annotations

from typing import Any

import msgspec
from msgspec import Struct

from .errors import DualcastError


class Badge(Struct, frozen=True):
    """The counters of an inbox with a publication that was kept in it (PROTO-40 to 42). What was kept once
    for the whole tenant says only `tenant_revision`."""

    unread: int | None = None
    unseen: int | None = None
    revision: tuple[int, int] | None = None
    """Of the user's and of the tenant's part; neither ever falls."""
    tenant_revision: int | None = None


class Published(Struct, frozen=True, kw_only=True):
    """One publication. `time` is RFC 3339, UTC."""

    channel: str
    id: str
    """Unique in the tenant; a subscription gives each id once."""
    event: str
    """Its type."""
    time: str
    data: Any = None
    cursor: str | None = None
    """Its position; None where it does not move the position (ephemeral, recovered)."""
    recovered: bool = False
    """It was published before the channel was subscribed, or was read from history."""
    inbox: Badge | None = None


class Welcome(Struct, frozen=True, kw_only=True):
    """A connection stands."""

    connection: str
    tenant: str
    user: str
    stage: str
    channels: tuple[str, ...]
    heartbeat_s: float
    cursor: str | None = None
    expires_at: int | None = None
    """Unix seconds when the token expires."""


class Gap(Struct, frozen=True, kw_only=True):
    """Publications of `channel` after `after` and before `oldest` were not delivered (PROTO-26): reload what
    was made of them."""

    channel: str
    reason: str
    """`trimmed`, `epoch`, `unknown` or `late`."""
    after: str | None = None
    oldest: str | None = None
    cursor: str | None = None
    history_url: str = ""
    filled: bool = False
    """History had all of it; it was given as publications just before."""


class ChannelState(Struct, frozen=True, kw_only=True):
    """How a presence, task or batch channel stands (PROTO-43 to 45). `data` None: see `status`."""

    channel: str
    data: Any = None
    status: str | None = None


class BusStatus(Struct, frozen=True, kw_only=True):
    """The event bus is `away` (nothing is lost, delivery waits) or `ok`."""

    bus: str
    cursor: str | None = None


class StageChanged(Struct, frozen=True):
    """The migration stage in force for this user changed."""

    stage: str


class MoveAsked(Struct, frozen=True, kw_only=True):
    """The server asks to move to transport `to` (`websocket`, `sse`); `transport="auto"` does it."""

    to: str
    after_ms: int = 0
    cursor: str | None = None
    deprecated_at: int | None = None
    sunset_at: int | None = None
    link: str | None = None


class Unsubscribed(Struct, frozen=True, kw_only=True):
    """These channels are no longer allowed: nothing more of them will come."""

    channels: tuple[str, ...]


class Disconnected(Struct, frozen=True, kw_only=True):
    """The line broke; it is opened again after `wait_s`, and goes on where it was."""

    reason: str
    wait_s: float
    transport: str
    """The one that is tried next."""


class Status(Struct, frozen=True, kw_only=True):
    """How a subscription's connection is: what `Stream.status` and `on_status` say."""

    state: str
    """`connecting`, `live`, `waiting` (for the next attempt), `stopped` (for good) or `closed`."""
    transport: str = ""
    """`websocket` or `sse`: the one there is, or that is tried next."""
    reason: str = ""
    """Why it is not live: a word such as `drain`, `silent`, `unreachable`."""
    fallback_reason: str = ""
    """Why SSE stands in for WebSocket; "": it does not."""
    wait_s: float = 0.0
    """While `waiting`: how long, from the moment it was told."""


Event = (
    Published
    | Welcome
    | Gap
    | ChannelState
    | BusStatus
    | StageChanged
    | MoveAsked
    | Unsubscribed
    | Disconnected
)


class AuthExpiring(Struct, frozen=True):
    """Inside: a new token is asked for."""

    expires_at: int


class Bye(Struct, frozen=True, kw_only=True):
    """Inside: the last frame of a connection; `drain` on SSE."""

    code: int = 4100
    reason: str = "drain"
    retry_ms: int | None = None
    cursor: str | None = None
    channels: tuple[str, ...] = ()


class CommandFailed(Struct, frozen=True, kw_only=True):
    """Inside: a command was refused; the connection stays."""

    code: str
    reason: str = ""
    ref: str | None = None


class Positioned(Struct, frozen=True, kw_only=True):
    """Inside: nothing but a position, or the delay of an SSE block."""

    cursor: str | None = None


class Reply(Struct, frozen=True, kw_only=True):
    """Inside: the answer to a command, with the fields of its frame."""

    ref: str
    kind: str
    body: dict[str, Any]
    cursor: str | None = None


Frame = Event | AuthExpiring | Bye | CommandFailed | Positioned | Reply

_TYPES: dict[str, type[Frame]] = {
    "publication": Published,
    "welcome": Welcome,
    "gap": Gap,
    "state": ChannelState,
    "status": BusStatus,
    "stage": StageChanged,
    "migrate": MoveAsked,
    "unsubscribed": Unsubscribed,
    "auth_expiring": AuthExpiring,
    "bye": Bye,
    "drain": Bye,
    "error": CommandFailed,
    "pong": Positioned,
}


class GapError(DualcastError):
    """`gap` as an error. The subscription stays usable: what follows the gap comes with the next step."""

    def __init__(self, gap: Gap) -> None:
        super().__init__("gap", 0, f"publications of {gap.channel} are missing: {gap.reason}")
        self.gap = gap


class BadFrame(Exception):
    """Not a frame of the protocol."""


def socket_frame(text: str | bytes) -> Frame:
    """The frame in a text message; of an unknown type: `Positioned`. Raises BadFrame."""
    body = _object(text)
    kind = body.get("type")
    if not isinstance(kind, str):
        raise BadFrame("a frame without a type")
    ref, cursor = body.get("ref"), body.get("cursor")
    if isinstance(ref, str):
        return Reply(ref=ref, kind=kind, body=body, cursor=cursor if isinstance(cursor, str) else None)
    return _convert(kind, body)


def stream_frame(event: str, text: str, cursor: str | None) -> Frame:
    """The frame in an SSE event with this `id`. Raises BadFrame."""
    body = _object(text)
    published = "id" in body and "channel" in body and body.get("event") == event
    if not published:
        return _convert(event, body)
    return _convert("publication", body | {"cursor": cursor})


def _object(text: str | bytes) -> dict[str, Any]:
    try:
        body = msgspec.json.decode(text)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        raise BadFrame("not JSON") from None
    if not isinstance(body, dict):
        raise BadFrame("not an object")
    return body


def _convert(kind: str, body: dict[str, Any]) -> Frame:
    cls = _TYPES.get(kind, Positioned)
    try:
        return msgspec.convert(body, cls)
    except msgspec.ValidationError:
        raise BadFrame(f"a malformed {kind[:32]}") from None
