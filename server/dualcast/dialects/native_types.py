"""Frames of the native WebSocket protocol as msgspec tagged unions (docs/protocol.md; `asyncapi.yaml` is
generated from them).

Text frames of one JSON object each, tag field `type`. Unknown fields are refused in client frames. The
server's SSE events carry the same objects without `type`, which is the event name there.
"""

from __future__ import annotations

from typing import Annotated, Any

from msgspec import Meta, Struct

from .native_base import ChannelName, ClientFrame, CursorText, InboxBadge, ServerFrame
from .native_person import (
    CountersReply,
    Done,
    InboxPageReply,
    Marked,
    PersonCommand,
    PresenceReply,
    Sent,
)


class Subscribe(ClientFrame, tag="subscribe", frozen=True, kw_only=True):
    """Adds channels. They start at the current cursor; with `since`, older history comes first, marked
    `recovered`."""

    channels: Annotated[list[ChannelName], Meta(min_length=1, max_length=128)]
    since: CursorText | None = None


class Unsubscribe(ClientFrame, tag="unsubscribe", frozen=True, kw_only=True):
    """Removes channels. The own user channel and `all` stay."""

    channels: Annotated[list[ChannelName], Meta(min_length=1, max_length=128)]


class Resume(ClientFrame, tag="resume", frozen=True, kw_only=True):
    """Goes back to `cursor` and delivers everything due after it, in place of `?cursor=` at connect."""

    cursor: CursorText


class Ack(ClientFrame, tag="ack", frozen=True, kw_only=True):
    """The application has processed everything up to `cursor`. Outranks the receipt taken from pongs. No
    reply."""

    cursor: CursorText


class Authenticate(ClientFrame, tag="authenticate", frozen=True, kw_only=True):
    """A fresh token for the same user, before the present one expires."""

    token: Annotated[str, Meta(max_length=8192)]


class Ping(ClientFrame, tag="ping", frozen=True, kw_only=True):
    """Answered with `pong`."""


ClientCommand = Subscribe | Unsubscribe | Resume | Ack | Authenticate | Ping | PersonCommand


class ViewEvent(Struct, frozen=True, kw_only=True):
    """One event of an older event stream."""

    event: str
    data: str
    """The text that the stream writes behind `data:`, byte for byte."""


class Welcome(ServerFrame, tag="welcome", frozen=True, kw_only=True):
    """First frame. Everything published after `cursor` on `channels` will arrive."""

    connection: str
    """Connection id, as in `GET /v1/connections`."""
    tenant: str
    user: str
    stage: str
    """Migration stage in force for this user."""
    channels: list[str]
    heartbeat_s: int
    """Silence longer than this plus 10 s means the connection is dead."""
    cursor: str | None = None
    """Missing while the event bus is away; a `status` frame follows."""
    expires_at: int | None = None
    """Unix seconds when the token expires."""
    view: list[ViewEvent] | None = None
    """With `?view=`: what that stream says first."""
    told: Annotated[str, Meta(max_length=64)] | None = None
    """With `?view=`: for `?told=` of the connections that follow."""


class ViewFrame(ServerFrame, tag="view", frozen=True, kw_only=True):
    """With `?view=`, in place of `publication` and `state`: events of an older event stream."""

    cursor: str | None = None
    id: str | None = None
    """Of the publication; missing: it is none (a heartbeat)."""
    events: list[ViewEvent]


class Published(ServerFrame, tag="publication", frozen=True, kw_only=True):
    """One publication. Drop duplicates by `id`; remember `cursor`."""

    cursor: str | None = None
    """Missing on ephemeral publications and on recovered ones of a channel that was added later."""
    recovered: bool = False
    channel: str
    id: str
    event: str
    time: str
    """RFC 3339, UTC, milliseconds."""
    inbox: InboxBadge | None = None
    """Counters of the own inbox after it was kept there; missing on what no inbox keeps."""
    data: Any


class StateFrame(ServerFrame, tag="state", frozen=True, kw_only=True):
    """How a presence, task or batch channel stands, before anything that is published on it afterwards."""

    channel: str
    data: Any
    """null: see `status`."""
    status: str | None = None
    """`none` (there is no such thing yet), `away` (it could not be read now: ask again) or `too-large`
    (read it over REST); missing with `data`."""


class Subscribed(ServerFrame, tag="subscribed", frozen=True, kw_only=True):
    """`channels` are subscribed; everything published on them after `cursor` will arrive."""

    ref: str | None = None
    channels: list[str]
    cursor: str | None = None


class Unsubscribed(ServerFrame, tag="unsubscribed", frozen=True, kw_only=True):
    """Nothing more of `channels` will arrive."""

    ref: str | None = None
    channels: list[str]


class GapFrame(ServerFrame, tag="gap", frozen=True, kw_only=True):
    """Publications of `channel` after `after` and before `oldest` cannot be delivered on this connection."""

    channel: str
    after: str | None = None
    oldest: str | None = None
    """First cursor still available; missing: nothing is."""
    reason: str
    """`trimmed`, `epoch`, `unknown`, or `late`: history has what was found too late to be delivered in
    order."""
    cursor: str | None = None
    """Where delivery goes on."""
    history_url: str


class Status(ServerFrame, tag="status", frozen=True, kw_only=True):
    """The event bus is `away` (delivery is held, nothing is lost) or `ok` again (everything held has been
    delivered)."""

    bus: str
    cursor: str | None = None


class StageFrame(ServerFrame, tag="stage", frozen=True, kw_only=True):
    """The migration stage in force for this user changed."""

    stage: str


class Migrate(ServerFrame, tag="migrate", frozen=True, kw_only=True):
    """Please move to the transport `to` after `after_ms`, with this cursor. Where SSE is deprecated it says
    what the headers of the stream say (RFC 9745, RFC 8594); times are Unix seconds."""

    to: str
    url: str
    cursor: str | None = None
    after_ms: int
    deprecated_at: int | None = None
    sunset_at: int | None = None
    link: str | None = None


class AuthExpiring(ServerFrame, tag="auth_expiring", frozen=True, kw_only=True):
    """The token expires at `expires_at` (Unix seconds): send `authenticate` with a new one."""

    expires_at: int


class AuthExpired(ServerFrame, tag="auth_expired", frozen=True, kw_only=True):
    """The token has expired or was revoked; the connection ends."""

    reason: str


class Authenticated(ServerFrame, tag="authenticated", frozen=True, kw_only=True):
    """The fresh token was accepted."""

    ref: str | None = None
    expires_at: int


class ErrorFrame(ServerFrame, tag="error", frozen=True, kw_only=True):
    """A command failed; the connection stays."""

    ref: str | None = None
    code: str
    reason: str
    channels: list[str] | None = None
    """With `forbidden-channel`: all of those asked for that may not be had."""


class Pong(ServerFrame, tag="pong", frozen=True, kw_only=True):
    """Answer to `ping`, with the session's cursor."""

    ref: str | None = None
    cursor: str | None = None


class Bye(ServerFrame, tag="bye", frozen=True, kw_only=True):
    """Last frame before the server closes; the close code says the same."""

    code: int
    reason: str
    retry_ms: int | None = None
    cursor: str | None = None
    channels: list[str] | None = None
    """Of a refused handshake (`forbidden-channel`): all of those asked for that may not be had."""


class Drain(ServerFrame, tag="drain", frozen=True, kw_only=True):
    """This node is going down; the stream ends. Come back after `retry_ms`."""

    retry_ms: int


ServerMessage = (
    Welcome
    | Published
    | ViewFrame
    | StateFrame
    | Subscribed
    | Unsubscribed
    | GapFrame
    | Status
    | StageFrame
    | Migrate
    | AuthExpiring
    | AuthExpired
    | Authenticated
    | ErrorFrame
    | Pong
    | Bye
    | Drain
    | InboxPageReply
    | CountersReply
    | Marked
    | Sent
    | Done
    | PresenceReply
)
