"""What is published, and what comes back: Draft → append → Receipt; Publication and Entry on the way out."""

from __future__ import annotations

from msgspec import Struct

from .inbox import Badge, InboxRider, PushRider


class Audience(Struct, frozen=True, omit_defaults=True):
    """Who, of the sessions a publication reaches, is due a copy. Evaluated per session; what it filters
    counts as passed. Empty tuples mean "no restriction" for the include lists and "nobody" for the exclude
    lists."""

    users: tuple[str, ...] | None = None
    """Only these user ids. None: no restriction. An empty tuple reaches nobody."""
    devices: tuple[str, ...] = ()
    """Only sessions with one of these device kinds."""
    roles: tuple[str, ...] = ()
    """Only principals with one of these roles."""
    connections: tuple[str, ...] = ()
    """Only these connection ids."""
    exclude_users: tuple[str, ...] = ()
    exclude_connections: tuple[str, ...] = ()


class Draft(Struct, frozen=True, kw_only=True):
    """A validated publication that has no offset yet."""

    tenant: str
    channels: tuple[str, ...]
    """1 to 1,000 distinct canonical channel names."""
    id: str
    """Unique id (the publisher's or a UUIDv7); clients drop duplicates by it."""
    type: str
    """Event type: what the publisher says happened. No CR, LF, NUL."""
    data: bytes
    """Valid UTF-8, minified JSON, without raw newlines: spliced into frames, never re-serialised."""
    time_ms: int
    """Publication time, Unix milliseconds."""
    expires_ms: int = 0
    """Unix milliseconds after which recovery leaves it out; 0: never."""
    conflation_key: str = ""
    terminal: bool = False
    """A terminal state is never replaced by a later non-terminal one of the same conflation key."""
    audience: Audience | None = None
    ephemeral: bool = False
    """No offset, no history, never recovered."""
    dedupe_key: str = ""
    """Key under which the receipt is remembered (publisher's idempotency key scoped to its principal); "" =
    by id."""
    fingerprint: str = ""
    """Hash of the publisher's request body; another one under the same dedupe key is an
    IdempotencyConflict."""
    inbox: InboxRider | None = None
    """Stored in the same atomic step; never on an ephemeral draft."""
    push: PushRider | None = None


class Quota(Struct, frozen=True):
    """A publish quota, enforced inside the append (GCRA)."""

    rate_per_s: float
    burst: int


class Receipt(Struct, frozen=True):
    """What a publisher gets back. `offset` 0: ephemeral."""

    epoch: str
    offset: int
    id: str
    duplicate: bool = False
    """True when this id or idempotency key was appended before; epoch, offset and id are those of the first
    time."""

    @property
    def cursor(self) -> str:
        """The publication's cursor, "" when it is ephemeral."""
        return f"{self.epoch}-{self.offset}" if self.offset else ""


class Publication(Struct, frozen=True):
    """One immutable bus entry, without the channels it went to (a reader sees only the channel it came
    by)."""

    tenant: str
    epoch: str
    offset: int
    """The tenant's counter at append; 0: ephemeral."""
    id: str
    type: str
    data: bytes
    time_ms: int
    expires_ms: int = 0
    conflation_key: str = ""
    terminal: bool = False
    audience: Audience | None = None
    badge: Badge | None = None
    """Counters of the inbox this channel belongs to, as the append left them."""


class Entry:
    """One publication as it stands in one channel. `prev` is the channel's previous offset (0: none, -1:
    unknown).

    `frames` memoises the encoded bytes per encoding, so a publication is encoded once however many sessions
    it reaches, live or in recovery.
    """

    __slots__ = ("channel", "frames", "offset", "prev", "publication")

    def __init__(self, publication: Publication, channel: str, prev: int = -1) -> None:
        self.publication = publication
        self.channel = channel
        self.prev = prev
        self.offset = publication.offset
        self.frames: dict[object, bytes] = {}

    def __repr__(self) -> str:
        return f"Entry({self.channel}@{self.publication.epoch}-{self.offset} id={self.publication.id})"

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Entry):
            return NotImplemented
        return (self.publication, self.channel, self.prev) == (other.publication, other.channel, other.prev)

    __hash__ = None  # type: ignore[assignment]


class Gap(Struct, frozen=True):
    """A hole that cannot be filled: publications of `channel` after offset `after` and before `oldest` are
    gone.

    `oldest` 0: nothing of the channel is left. `reason`: `trimmed`, `epoch` (the log was restored or lost),
    `unknown` (the cursor is not one of ours), or `late` (a lost entry was found when later ones had been
    delivered: the hole is in the past, and history has what belongs there).
    """

    channel: str
    after: int
    oldest: int
    reason: str = "trimmed"


class Page(Struct, frozen=True):
    """One snapshot of history over several channels, merged in offset order.

    `entries` may hold one publication more than once, by different channels. Everything due in the asked
    channels with after < offset ≤ `next` is in it, but for what `gaps` names. `next` == `top`: nothing is
    left to read at the snapshot.
    """

    epoch: str
    top: int
    next: int
    entries: tuple[Entry, ...] = ()
    gaps: tuple[Gap, ...] = ()
