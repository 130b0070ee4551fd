"""What is sent: bodies of the native REST interface. Names and limits are the server's (`/docs`)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal

from msgspec import Struct

Level = Literal["info", "success", "warning", "error"]
Priority = Literal["low", "normal", "high", "urgent"]
State = Literal["queued", "processing", "completed", "failed", "cancelled"]


class Target(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Whom a notification is for: exactly one of these."""

    user: str | None = None
    users: Sequence[str] | None = None
    """1 to 1000."""
    channel: str | None = None
    channels: Sequence[str] | None = None
    all: bool | None = None
    """True: the whole tenant."""
    connection: str | None = None
    """A live connection's id."""


class Audience(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Who of those reached gets a copy."""

    users: Sequence[str] | None = None
    """Only these; an empty list reaches nobody."""
    devices: Sequence[str] = ()
    roles: Sequence[str] = ()
    connections: Sequence[str] = ()
    exclude_users: Sequence[str] = ()
    exclude_connections: Sequence[str] = ()


class Notification(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Something a person should see. Without `id` and `idempotency_key` it gets an id when it is sent."""

    to: Target
    title: str
    type: str = "system"
    """The kind: `system`, `analysis`, `alert` …"""
    content: str | None = None
    link: str | None = None
    level: Level = "info"
    source: str | None = None
    priority: Priority = "normal"
    data: Mapping[str, Any] = {}
    extra: Mapping[str, Mapping[str, Any]] = {}
    """Keys that only one older contract has: `rooms` and `topics`, each an object."""
    created_at: str | None = None
    """RFC 3339; without an offset it is taken as UTC."""
    ttl_s: int | None = None
    id: str | None = None
    idempotency_key: str | None = None
    conflation_key: str | None = None
    terminal: bool = False
    audience: Audience | None = None
    store: bool | None = None
    """None: kept in the inboxes where that can be."""
    push: Literal["never", "offline", "always"] | None = None
    push_devices: Sequence[str] = ()


class Grant(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Who may subscribe to the channel from now on, beside those who may already."""

    owner: str = ""
    members: Sequence[str] = ()


class Publication(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """An event of any type to one `channel` or to several `channels`."""

    channel: str | None = None
    channels: Sequence[str] | None = None
    type: str
    data: Any = {}
    """Any JSON value."""
    ttl_s: int | None = None
    id: str | None = None
    idempotency_key: str | None = None
    conflation_key: str | None = None
    terminal: bool = False
    audience: Audience | None = None
    ephemeral: bool = False
    """Live only, never recovered."""
    grant: Grant | None = None


class TaskReport(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What a worker says of a task; what is missing stays as it was."""

    state: State | None = None
    """None: `processing`. `completed`, `failed` and `cancelled` are final."""
    step: int | None = None
    total_steps: int | None = None
    percent: float | None = None
    message: str | None = None
    result: Any = None
    error: str | None = None
    data: Mapping[str, Any] | None = None
    sequence: int | None = None
    """A report whose number is not above the last one's is late and changes nothing. None: a progress report
    gets one by the clock of this process. Number all reports of a task yourself, or none."""


class TaskRegistration(TaskReport, frozen=True, kw_only=True, omit_defaults=True):
    """A task and whose it is; with a field of a report, a report in the same step."""

    owner: str
    members: Sequence[str] = ()
    batch: str = ""
    kind: str | None = None
    title: str | None = None


class BatchRegistration(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Tasks that belong together, and whose they are."""

    owner: str
    members: Sequence[str] = ()
    total: int | None = None
    title: str | None = None
    data: Mapping[str, Any] | None = None


class Message(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A message of a conversation. Without `id` it gets one when it is sent."""

    content: str | Mapping[str, Any]
    id: str | None = None
    message_type: str = "text"
    sender_id: str | None = None
    """None: the user of the token."""
    sender_type: str | None = None
    sender_name: str | None = None
    sender_avatar: str | None = None
    is_important: bool = False
    reply_to: str | None = None
    extra: Mapping[str, Any] = {}
    exclude_connection: str = ""
    """Only this connection gets no copy; without it the sender gets none on any device."""
    participants: Sequence[str] | None = None
    """Makes the conversation when it is not known."""


class Broadcast(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Something the participants of a conversation are told that is not among its messages.

    `message`: a message the caller keeps itself, `data` being a `Message`; `reply`: a consultant's; `mobile`:
    to mobile connections only; `system`: to all or to `targets`.
    """

    kind: Literal["message", "reply", "mobile", "system"]
    data: Any
    id: str | None = None
    consultant_id: str | None = None
    exclude_user: str | None = None
    exclude_connection: str = ""
    targets: Sequence[str] | None = None
