"""The session: live, or behind a cursor. Transports subclass it and add their wire (`transport.sse`,
`transport.websocket`).

A session *is* the asyncio protocol of its socket: no task, timer or queue belongs to it. Everything that
makes it leave live delivery (connect with a cursor, a full write buffer, repair, overflow) is one state,
*behind(position)*; everything that brings
it back is `catch_up` (from the rings, in one loop turn) or, below the rings, `recovery`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from dualcast.dialects.port import Dialect
from dualcast.hub.encoding import Encoding
from dualcast.hub.feed import ChannelFeed, TenantFeed
from dualcast.hub.subscriber import BEHIND
from dualcast.model.principal import Principal
from dualcast.model.publication import Audience, Entry, Gap

from .catch_up import conflate, merge
from .connection import Connection
from .node import Node

FROM_NOW = -1
"""Position of a session that asked for no history."""


class Session(Connection):
    """State machine of one connection's delivery. `gate` is the last offset written while live, or BEHIND."""

    __slots__ = (
        "away",
        "behind_since",
        "channels",
        "checked",
        "confirmed",
        "epoch",
        "feed",
        "gate",
        "muted",
        "out",
        "position",
        "queued",
        "resumed",
        "turn",
    )

    def __init__(
        self,
        node: Node,
        principal: Principal,
        encoding: Encoding,
        dialect: Dialect,
        channels: Sequence[str],
        *,
        epoch: str = "",
        position: int = FROM_NOW,
        **rest: Any,
    ) -> None:
        super().__init__(node, principal, encoding, dialect, **rest)
        self.channels: tuple[ChannelFeed, ...] = tuple(
            node.hub.channel(principal.tenant, name) for name in channels
        )
        self.feed: TenantFeed = self.channels[0].tenant
        self.epoch = epoch
        """Epoch of `position`; "" when it starts from now."""
        self.position = position
        """While behind: everything due up to here has been written."""
        self.checked = False
        """Whether `position` is known not to lie in the future."""
        self.gate = BEHIND
        self.out: bytes | list[bytes] | None = None
        self.queued = False
        self.confirmed = 0
        """Offset up to which the client's stack is known to have read."""
        self.behind_since = 0.0
        self.turn = 0
        """Changes whenever a recovery under way must start over."""
        self.resumed = 0
        """How often its client named another cursor."""
        self.away = False
        """Whether the client was told that the bus is away."""
        self.muted = False
        """Behind, and staying there: its client reads over a socket (`pairing.Pairing`). `position` is what
        was written here or read there."""

    # ── joining and parting ──

    def join(self) -> None:
        node = self.node
        self.behind_since = self.attached_at
        # A channel may have been dropped as idle between admission and now: take the feed that is followed.
        self.channels = tuple(node.hub.channel(feed.tenant.name, feed.name) for feed in self.channels)
        self.feed = self.channels[0].tenant
        for feed in self.channels:
            feed.sessions[self] = None
        self.settle()

    def begin(self) -> None:
        if not self.node.hub.available:
            self.bus_status(False)
        if not self.catch_up():
            self.node.enqueue(self)

    def part(self) -> None:
        self.gate = BEHIND
        self.turn += 1
        self.node.hub.stop_waiting(self.channels, self.channels_ready)
        for feed in self.channels:
            feed.sessions.pop(self, None)

    # ── position ──

    @property
    def live(self) -> bool:
        return self.gate != BEHIND

    @property
    def offset(self) -> int:
        """Everything due up to here has been written; FROM_NOW while that is not known yet."""
        return self.position if self.gate == BEHIND else max(self.gate, self.feed.head)

    @property
    def cursor(self) -> str | None:
        """The cursor a client may resume from, or None while it is not known."""
        offset = self.offset
        return f"{self.epoch}-{offset}" if offset >= 0 and self.epoch else None

    def settle(self) -> None:
        """Gives a session that starts from now its position, once all its channels are watched."""
        if self.position == FROM_NOW and all(feed.complete_from >= 0 for feed in self.channels):
            self.position = max(
                self.feed.head, self.feed.tail, *(feed.complete_from for feed in self.channels)
            )
            self.epoch = self.feed.epoch
            self.checked = True

    # ── live and behind ──

    def pause_writing(self) -> None:
        self.paused = True
        if self.muted:
            self.behind_since = self.node.loop.time()  # of one that does not even take its heartbeats
        self.fall_behind()

    def resume_writing(self) -> None:
        self.paused = False
        if not self.closed and self.gate == BEHIND and not self.catch_up():
            self.node.enqueue(self)

    def fall_behind(self) -> None:
        """Leaves live delivery at its gate. Nothing is buffered for it: what comes now is in the ring and on
        the bus."""
        if self.gate == BEHIND:
            return
        self.position = self.offset
        self.gate = BEHIND
        self.checked = True
        self.behind_since = self.node.loop.time()
        self.counters.fell_behind += 1
        if not self.paused:
            self.node.enqueue(self)

    def catch_up(self) -> bool:
        """Writes what the rings hold after the position and turns live in this very turn.

        True: nothing more to do now (live, closed, or waiting for the client to read). False: the bus is
        needed.
        """
        if self.closed or self.paused or self.gate != BEHIND or self.muted:
            return True
        self.settle()
        feed, position = self.feed, self.position
        if position == FROM_NOW or self.epoch != feed.epoch:
            return False
        seen = max(feed.head, feed.tail)
        for channel in self.channels:
            start = channel.complete_from
            if start < 0 or start > position:
                return False
            seen = max(seen, start)
        if position > seen and not self.checked:
            return False
        behind = [feed for feed in self.channels if feed.ring and feed.ring[-1].offset > position]
        if behind:
            pending = merge(channel.after(position) for channel in behind)
            if not self.write_entries(pending, pending[-1].offset):
                return True
        self.gate = self.position
        self.turn += 1  # a page that is being read for it must not be written any more
        if self.away and self.node.hub.available:
            self.away = False
            self.send(self.dialect.status(self, available=True))
        if self.pair is not None:
            self.node.pairing.caught_up(self)
        return True

    def mute(self) -> None:
        """From now on its client reads over a socket. Nothing is written but its position."""
        self.position = self.offset
        self.gate = BEHIND
        self.muted = True
        self.turn += 1

    def unmute(self) -> None:
        """Delivers again, from its position on: as if the client had come back with it."""
        self.muted = False
        self.resume(self.epoch, self.position)

    def write_entries(self, entries: list[Entry], through: int) -> bool:
        """Writes recovered entries in order and moves the position to `through`; False when the transport
        paused on the way (the position then names what was written)."""
        now_ms = int(self.node.now_s() * 1000)
        entries = [entry for entry in entries if self._wants(entry, now_ms)]
        if self.encoding.conflates:
            entries, superseded = conflate(entries)
            self.counters.conflated += superseded
        size, part = 0, []
        limit = self.node.settings.catch_up_write_bytes
        for entry in entries:
            frame = self.encoding.frame(entry)
            if not frame:
                continue
            part.append(frame)
            size += len(frame)
            if size >= limit:
                self._write_part(part, size, entry.offset)
                size, part = 0, []
                if self.paused or self.closed:
                    return False
        if part:
            self._write_part(part, size, through)
        if self.closed:
            return False
        self.position = max(self.position, through)
        return not self.paused

    def _wants(self, entry: Entry, now_ms: int) -> bool:
        publication = entry.publication
        if 0 < publication.expires_ms <= now_ms:
            return False
        return publication.audience is None or self.due(publication.audience)

    def _write_part(self, part: list[bytes], size: int, offset: int) -> None:
        self.position = max(self.position, offset)
        self.counters.delivered += len(part)
        self.counters.recovered += len(part)
        self.counters.bytes += size
        try:
            self.transport.write(b"".join(part))
        except Exception:  # noqa: BLE001 — called in loops over all sessions: one broken socket ends alone
            self.write_failed()

    def due(self, audience: Audience) -> bool:
        """Whether the session belongs to the audience (PROTO: what it filters counts as passed)."""
        principal = self.principal
        if audience.users is not None and principal.sub not in audience.users:
            return False
        if audience.devices and self.device not in audience.devices:
            return False
        if audience.roles and principal.roles.isdisjoint(audience.roles):
            return False
        if (
            audience.connections
            and self.id not in audience.connections
            and (self.pair is None or self.pair.stands_for.isdisjoint(audience.connections))
        ):
            return False
        left_out = audience.exclude_connections
        if left_out and (self.id in left_out or self.instance in left_out):
            return False  # by our id, or by the one its client chose
        return principal.sub not in audience.exclude_users

    # ── what the hub says ──

    def gap(self, gap: Gap) -> None:
        """A hole nobody can fill. One that is behind finds what lies ahead of it by its own reading."""
        if self.gate != BEHIND or (self.position > gap.after and self.epoch == self.feed.epoch):
            self.tell_gap(gap)

    def tell_gap(self, *gaps: Gap) -> None:
        """Announces holes. Those of several channels are one write: the first of them already carries the
        cursor behind them all, and who came back with it would never hear of the others."""
        self.counters.gaps += len(gaps)
        self.send(*(self.dialect.gap(self, gap) for gap in gaps))
        if self.pair is not None and not self.muted:
            self.node.pairing.broken(self, self.offset)

    def epoch_changed(self, epoch: str, after: int) -> None:
        """The log was restored or lost. What was published after offset `after` may be gone: say so for every
        channel."""
        if self.gate == BEHIND:
            # Recovery compares epochs and announces it; it may have been waiting for this very news.
            if self in self.node.held:
                self.node.held.discard(self)
                self.node.enqueue(self)
            if self.muted:
                self.node.pairing.broken(self, self.position)  # it is told what its socket is told
            return
        self.epoch = epoch
        self.tell_gap(*(Gap(channel.name, after, 0, "epoch") for channel in self.channels))

    def bus_status(self, available: bool) -> None:
        """The bus went away or came back. "ok" is said once the session has caught up: then nothing is held
        any more."""
        if self.closed:
            return
        if not available:
            if not self.away:
                self.away = True
                self.send(self.dialect.status(self, available=False))
            return
        self.behind_since = self.node.loop.time()
        if self.gate != BEHIND or self.muted:
            self.away = False
            self.send(self.dialect.status(self, available=True))
        elif not self.catch_up():
            self.node.enqueue(self)

    def channels_ready(self) -> None:
        """A channel it waited for is watched now."""
        if not self.catch_up():
            self.node.enqueue(self)

    def resume(self, epoch: str, position: int) -> None:
        """Goes back (or forward) to a cursor the client names."""
        through = self.offset
        self.resumed += 1
        self.gate = BEHIND
        self.epoch, self.position, self.checked = epoch, position, False
        self.turn += 1
        self.behind_since = self.node.loop.time()
        if self.pair is not None:
            self.node.pairing.broken(self, through)
        if not self.catch_up():
            self.node.enqueue(self)

    def subscribe(self, feeds: Sequence[ChannelFeed]) -> int:
        """Adds channels (all watched): they start at the present position, which is returned.

        A fan-out of theirs may be under way, or they may be watched only from a later offset on: what came
        after the position is caught up with, like anything else.
        """
        self.settle()
        since = self.offset
        self.turn += 1
        if self.gate != BEHIND:
            self.position, self.gate, self.checked = since, BEHIND, True
            self.behind_since = self.node.loop.time()
        self.channels = (*self.channels, *feeds)
        for feed in feeds:
            feed.sessions[self] = None
        self._changed()
        if not self.catch_up():
            self.node.enqueue(self)
        return since

    def unsubscribe(self, names: Sequence[str]) -> None:
        """Removes channels; unknown names are ignored."""
        self.turn += 1
        self.node.hub.stop_waiting(self.channels, self.channels_ready)
        for feed in self.channels:
            if feed.name in names:
                feed.sessions.pop(self, None)
        self.channels = tuple(feed for feed in self.channels if feed.name not in names)
        self._changed()
        if self.gate == BEHIND and not self.catch_up():
            self.node.enqueue(self)  # it may have been waiting for one that is gone

    def _changed(self) -> None:
        self.node.presence.changed(self)
        if self.pair is not None:
            self.node.pairing.changed(self)

    def authenticated(self, principal: Principal) -> None:
        """Its client has shown a new token."""
        self.principal = principal
        self.warned = False
        self._changed()  # the other nodes know its token by id

    def withdraw(self, names: Sequence[str]) -> None:
        """Takes channels away that it may not have any more, and says so."""
        if not self.closed:
            self.unsubscribe(names)
            self.send(self.dialect.unsubscribed(names))

    def confirm(self, epoch: str, offset: int) -> bool:
        """Takes a receipt: everything up to `offset` was read. False when it names what was never written
        (forged)."""
        if epoch != self.epoch or offset > self.offset:
            return False
        self.confirmed = max(self.confirmed, offset)
        if self.pair is not None:
            self.node.pairing.receipt(self, offset)
        return True
