"""What comes back. Fields a newer server adds are ignored."""

from __future__ import annotations

from typing import Any

from msgspec import Struct


class Receipt(Struct, frozen=True):
    """What became of a publication."""

    id: str
    cursor: str = ""
    """Its position in the tenant's log; "": it was ephemeral, or reached nobody."""
    duplicate: bool = False
    """It had been published before: by an attempt whose answer was lost, or by an earlier call with the same
    id or key."""


class FieldError(Struct, frozen=True):
    path: str
    message: str


class ItemResult(Struct, frozen=True, kw_only=True):
    """What became of one notification of a batch; accepted when `code` is empty."""

    status: int
    id: str = ""
    cursor: str = ""
    duplicate: bool = False
    code: str = ""
    detail: str = ""
    retryable: bool = False
    retry_after_s: float | None = None
    errors: tuple[FieldError, ...] = ()


class BatchAnswer(Struct, frozen=True):
    results: list[ItemResult]


class Task(Struct, frozen=True, kw_only=True):
    """The last known state of a task. Times are Unix milliseconds."""

    id: str
    owner: str
    batch: str = ""
    kind: str = ""
    title: str = ""
    state: str = "queued"
    step: int | None = None
    total_steps: int | None = None
    percent: float | None = None
    message: str = ""
    result: Any = None
    error: str = ""
    data: dict[str, Any] = {}
    sequence: int | None = None
    created_ms: int = 0
    started_ms: int | None = None
    updated_ms: int = 0
    completed_ms: int | None = None
    revision: int = 0


class Batch(Struct, frozen=True, kw_only=True):
    """A batch of tasks and how many of them are where."""

    id: str
    owner: str
    title: str = ""
    state: str = "processing"
    declared: bool = False
    total: int = 0
    queued: int = 0
    processing: int = 0
    completed: int = 0
    failed: int = 0
    cancelled: int = 0
    progress: float = 0.0
    data: dict[str, Any] = {}
    created_ms: int = 0
    updated_ms: int = 0
    completed_ms: int | None = None
    revision: int = 0


class BatchPage(Struct, frozen=True):
    batch: Batch
    tasks: list[Task]
    next: str


class Participants(Struct, frozen=True):
    conversation_id: str
    participants: tuple[str, ...]
    revision: int


class StoredMessage(Struct, frozen=True, kw_only=True):
    """A message as it is kept. `time`: RFC 3339, UTC."""

    id: str
    conversation_id: str
    seq: int
    content: str | dict[str, Any]
    message_type: str
    sender_id: str
    sender_type: str | None = None
    sender_name: str | None = None
    sender_avatar: str | None = None
    is_important: bool = False
    reply_to: str | None = None
    extra: dict[str, Any] = {}
    time: str


class MessagePage(Struct, frozen=True):
    """Messages, newest first; ask again with `before=next` until `next` is 0."""

    messages: list[StoredMessage]
    next: int


class UserPresence(Struct, frozen=True):
    """One user over all nodes."""

    user: str
    online: bool
    devices: tuple[str, ...]
    """Kinds of device the user is connected with."""
    connections: int


class Member(Struct, frozen=True):
    user: str
    devices: tuple[str, ...]


class PresencePage(Struct, frozen=True):
    """Who is online; ask again with `after=next` until `next` is empty."""

    channel: str
    count: int
    revision: int
    members: list[Member]
    next: str


class Device(Struct, frozen=True):
    """A registered device. Times are RFC 3339, UTC."""

    id: str
    kind: str
    name: str
    first_seen: str
    last_seen: str
    connected: bool


class Devices(Struct, frozen=True):
    devices: list[Device]


class Connection(Struct, frozen=True, kw_only=True):
    """A live connection on any node."""

    id: str
    user: str
    transport: str
    dialect: str
    connected_at: str
    """RFC 3339, UTC."""
    device: str = ""
    device_id: str = ""
    instance: str = ""
    """What the client calls it."""
    node: str = ""
    token_id: str = ""
    channels: tuple[str, ...] = ()
    """Empty where another node than the one asked holds it."""


class ConnectionPage(Struct, frozen=True):
    connections: list[Connection]
    next: str


class Problem(Struct, frozen=True):
    """RFC 9457 problem details."""

    code: str = ""
    title: str = ""
    detail: str = ""
    retryable: bool = False
    errors: tuple[FieldError, ...] = ()
    channels: tuple[str, ...] = ()
