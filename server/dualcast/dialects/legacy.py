"""What a legacy contract is made of: endpoints, and pure functions from publications and client text to
frames.

A contract is a list of `Endpoint`s, made by a callable that takes `LegacySettings`. Those of this package are
found by name; an installed package adds its own by an entry point in the group `dualcast.dialects`
(docs/guides/write-a-dialect.md). Nothing here does I/O: what a client asks for is returned as an `Action`,
and `gateway.legacy` carries it out.

Frames are the text of one WebSocket message or one SSE block, UTF-8, canonical form of the contract (compact
JSON, keys in the printed order). An encoder is called once per publication, whatever the number of sessions.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from msgspec import Struct

from dualcast.model.publication import Entry

GROUP = "dualcast.dialects"


class LegacySettings(Struct, frozen=True, kw_only=True):
    """Settings that older deployments know by their own names (contract section 9)."""

    tenant: str = "default"
    """`legacy_tenant`: that of callers without a token."""
    ws_heartbeat_s: float | None = None
    """`WS_HEARTBEAT_INTERVAL`; None: 30 s for the server's heartbeat, 45 s for the conversations client."""
    max_connections_per_user: int = 0
    """`WS_MAX_CONNECTIONS_PER_USER`; 0: no limit."""
    connection_timeout_ms: int = 20_000
    max_reconnect_attempts: int = 15
    task_heartbeat_s: float = 10.0
    task_idle_s: float = 300.0
    batch_idle_s: float = 600.0
    progress_ping_s: float = 30.0
    progress_max_connections: int = 0
    """0: only the server's own limit."""
    topics_idle_s: float = 90.0
    """0: off."""
    topics_public: tuple[str, ...] = ()
    stats_public: bool = False
    stream_ids: bool = True
    """`id:` lines on streams."""
    cut_on_expiry: bool = False
    dev: bool = False
    """Demo tokens and demo endpoints (section 1.9)."""


class Facts:
    """One connection as the pure functions see it. The framework keeps `now_ms` and the counts fresh."""

    __slots__ = (
        "address",
        "admin",
        "client_id",
        "connection",
        "device",
        "device_id",
        "now_ms",
        "opened_ms",
        "own_connections",
        "params",
        "query",
        "role",
        "tenant",
        "user",
    )

    def __init__(self, *, tenant: str, user: str, role: str = "", admin: bool = False) -> None:
        self.tenant = tenant
        self.user = user
        """"": anonymous."""
        self.role = role
        """The `role` claim; "" without one."""
        self.admin = admin
        self.connection = ""
        """dualcast's connection id."""
        self.client_id = ""
        """The id the contract gives or lets the client choose (`client_id`, `connectionId`); unique on the
        node."""
        self.params: Mapping[str, str] = {}
        """Values of the path's parameters."""
        self.query: Mapping[str, str] = {}
        """Decoded query parameters, the token left out; the last of equal names."""
        self.device = ""
        self.device_id = ""
        self.address = ""
        self.opened_ms = 0
        self.now_ms = 0
        self.own_connections = 1
        """Of this user in this dialect on this node, this one included."""


class Opening(Struct, frozen=True, kw_only=True):
    """What an endpoint asked for with `wants`, for its first frames."""

    state: Any = None
    """The decoded state of `Admission.state_of` (a task or batch), None when there is none."""
    resumed: bool = False
    """The stream goes on where `Last-Event-ID` says: what was published since follows the first frames, so
    they should not tell of `state`."""
    unread: int = 0
    total: int = 0
    unread_by_kind: Mapping[str, int] = {}


class Stats(Struct, frozen=True, kw_only=True):
    """Live connections of all dialects, summed over all nodes."""

    total_connections: int
    users: Mapping[str, int]
    """User → connections; anonymous ones are in the total only."""
    groups: Mapping[str, int]
    """Channel → subscribers on this node, of the kind the endpoint names (`room:` or `topic:`)."""
    own_groups: Sequence[str] = ()
    """Those of `groups` this connection is in."""


class Admission(Struct, frozen=True, kw_only=True):
    """The connection may come in. The own user channel is added by the framework, so encoders must leave out
    what
    is not theirs."""

    channels: tuple[str, ...] = ()
    owner_of: str = ""
    """A `task:` or `batch:` channel that must exist and be the user's (admins: must exist); else `Refusal` by
    `Endpoint.not_found`."""
    state_of: str = ""
    """Channel whose state goes into `Opening.state`."""
    inbox_of: str = ""
    """The user whose inbox `Opening` counts; "": the caller."""
    client_id: str = ""
    """Chosen by the caller; a taken one is replaced by `Endpoint.fresh_id`."""
    device: str = ""
    device_id: str = ""
    stream: str = ""
    """What is counted together per user (section 1.7)."""


class Refusal(Struct, frozen=True, kw_only=True):
    """The connection may not come in: how a socket is closed, or a stream answered."""

    code: int = 1008
    reason: str = "Unauthorized"
    status: int = 401
    detail: str = "Unauthorized"


NOT_FOUND = Refusal(code=4004, reason="task not found", status=404, detail="Task not found")


class Reply(Struct, frozen=True):
    """Answer this one connection."""

    text: bytes


class Join(Struct, frozen=True, kw_only=True):
    """Subscribe to `channel`, then answer `done`; `refused` when it is not allowed."""

    channel: str
    done: bytes
    refused: bytes = b""
    owner_of: str = ""
    """If a task of this channel's id is known, it must be the user's (or the user an admin)."""
    too_many: bytes = b""
    """Answer when the connection has as many channels as it may."""


class Leave(Struct, frozen=True, kw_only=True):
    """Unsubscribe, then answer."""

    channel: str
    done: bytes


class Tell(Struct, frozen=True, kw_only=True):
    """Answer with statistics."""

    render: Callable[[Facts, Stats], bytes]


class Call(Struct, frozen=True, kw_only=True):
    """Call a service of the server by name (`typing`, `read`), then answer."""

    name: str
    arguments: Mapping[str, Any]
    done: bytes
    failed: Callable[[str], bytes]
    """From the error's code (never its text) to the answer."""


class Close(Struct, frozen=True, kw_only=True):
    """Close the socket."""

    code: int
    reason: str
    last: bytes = b""
    """A frame before it."""


Action = Reply | Join | Leave | Tell | Call | Close
Encode = Callable[[Entry], bytes | Sequence[bytes]]
"""b"" or (): the publication is not of this contract. Several: several messages, in order."""


class Farewell(Struct, frozen=True, kw_only=True):
    """An ephemeral publication when the connection has ended."""

    channel: str
    event: str
    data: bytes
    roles: tuple[str, ...] = ()
    """Only principals with one of these roles."""


def _nothing(facts: Facts, opening: Opening) -> Sequence[bytes]:
    return ()


def _deaf(text: str, facts: Facts) -> Sequence[Action]:
    return ()


@dataclass(frozen=True, kw_only=True)
class Endpoint:
    """One path of a contract."""

    dialect: str
    path: str
    """Litestar path, parameters as `{task_id:str}`."""
    transport: Literal["ws", "sse"]
    admit: Callable[[Facts], Admission | Refusal]
    """Called with a verified caller (or, with `anonymous`, without one)."""
    encode: Encode
    everywhere: bool = False
    """`encode` does not look at the channel: what is published to many channels has the same text on each,
    and is encoded once."""
    first: Callable[[Facts, Opening], Sequence[bytes]] = _nothing
    """Frames right after the connection is open."""
    wants: frozenset[str] = frozenset()
    """Of the opening: `state`, `inbox`."""
    decode: Callable[[str, Facts], Sequence[Action]] = _deaf
    """Client text to actions. Never raises."""
    anonymous: bool = False
    """A missing token is no refusal (a bad one is)."""
    missing: Refusal = field(default_factory=Refusal)
    """Refusal without a token."""
    malformed: Refusal = field(default_factory=Refusal)
    """Refusal for an Authorization header that is none."""
    bad: Refusal = field(default_factory=Refusal)
    """Refusal of a bad token."""
    assumed: Callable[[Facts], tuple[str, bool]] | None = None
    """Who a caller without a token is taken for, and whether as an admin. Only with `LegacySettings.dev`."""
    unregistered: tuple[int, str] = (1013, "try again later")
    """Close when the connection cannot be registered (the bus or a store does not answer)."""
    not_found: Refusal = NOT_FOUND
    """Refusal when `Admission.owner_of` does not hold."""
    heartbeat: Callable[[Facts], bytes] | None = None
    heartbeat_s: float = 0.0
    heartbeat_always: bool = False
    """Beats also while there is traffic."""
    silent_s: float = 0.0
    """Sockets: nothing received for so long: close 4408 `idle timeout`. Streams: no publication delivered for
    so
    long: plain end. 0: off."""
    ends: Callable[[Entry], bool] | None = None
    """Streams: whether the stream ends after this publication."""
    ended: Callable[[Opening], bool] | None = None
    """Streams: whether the stream ends right after its first frames (a batch that had ended before)."""
    max_connections: int = 0
    """Of this dialect on this node; 0: no limit but the server's."""
    full: Callable[[Facts], Sequence[bytes]] | None = None
    """Frames before the close with 1013 when `max_connections` is reached."""
    replaced: Callable[[int], bytes] | None = None
    """Streams: last block when a newer connection takes its place (argument: the limit)."""
    internal: tuple[int, str] = (1011, "Internal error")
    groups: str = ""
    """Kind of channel that `Stats.groups` counts: `room:` or `topic:`."""
    fresh_id: Callable[[Facts], str] | None = None
    """A client id when none was chosen, or the chosen one is taken."""
    farewell: Callable[[Facts], Farewell | None] | None = None
    view: str = ""
    """Streams: the name by which clients of the native protocol get the same events (`?view=`, PROTO-66). Of
    a path with a parameter the view has its value: `name:<value>`. "": they cannot."""


Contract = Callable[[LegacySettings], Sequence[Endpoint]]
