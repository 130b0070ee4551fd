"""What the native dialect does with a client's commands (docs/protocol.md, commands).

Commands of one socket are carried out in order. Those that must ask somebody (may I subscribe, is this token
good) run in a short task the node owns; what the client sends meanwhile waits in a bounded list.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable
from typing import Any

from dualcast.dialects.native import command_ref, decode_command, socket_frame
from dualcast.dialects.native_base import ServerFrame
from dualcast.dialects.native_person import PersonCommand
from dualcast.dialects.native_types import (
    Ack,
    Authenticate,
    Authenticated,
    ClientCommand,
    ErrorFrame,
    Ping,
    Pong,
    Resume,
    Subscribe,
    Subscribed,
    Unsubscribe,
    Unsubscribed,
)
from dualcast.hub.feed import ChannelFeed
from dualcast.model.channel import ALL, check_channel
from dualcast.model.codes import Close
from dualcast.model.cursor import Cursor, parse_cursor
from dualcast.model.errors import BusUnavailable, DualcastError, Forbidden, ForbiddenChannels
from dualcast.model.principal import Principal
from dualcast.model.publication import Gap

from .admission import check_channels
from .arriving import Arrival
from .catch_up import merge
from .person_commands import NotAvailable, PersonCommands
from .watching import watched, writable

log = logging.getLogger("dualcast.session")

MaySubscribe = Callable[[Principal, str], Awaitable[bool]]
Refresh = Callable[[Principal, str], Awaitable[Principal]]


MAX_UNREAD_BYTES = 512 * 1024
"""Commands are answered while so much is not taken by the client."""


class NativeCommands:
    """The receiver of native WebSocket sessions; one per process."""

    def __init__(
        self,
        may_subscribe: MaySubscribe,
        refresh: Refresh,
        *,
        person: PersonCommands | None = None,
        max_per_sweep: int = 500,
    ) -> None:
        self._may_subscribe = may_subscribe
        self._person = person
        self._refresh = refresh
        self._max_per_sweep = max_per_sweep

    def binary(self, session: Any, data: bytes) -> None:
        """Native frames are text."""
        self.error(session, None, DualcastError("frames are JSON text", code="binary-frame"))

    def text(self, session: Any, text: str) -> None:
        """One client frame. A bad one is answered with `error`; the connection stays."""
        if session.commands > self._max_per_sweep:
            session.close(Close.RATE_LIMITED)
            return
        if session.paused and session.transport.get_write_buffer_size() > MAX_UNREAD_BYTES:
            session.close(Close.LAGGING)  # it asks and does not read: the answers must not pile up
            return
        try:
            command = decode_command(text)
        except DualcastError as error:
            self.error(session, command_ref(text), error)
            return
        if session.pending is not None:
            if len(session.pending) >= session.node.settings.max_pending_commands:
                session.close(Close.RATE_LIMITED)
            else:
                session.pending.append(command)
            return
        self._carry_out(session, command)

    def error(self, session: Any, ref: str | None, error: DualcastError) -> None:
        """Tells the client that a command failed."""
        channels = list(error.channels) or None
        session.send(
            socket_frame(ErrorFrame(ref=ref, code=error.code, reason=error.reason, channels=channels))
        )

    def _carry_out(self, session: Any, command: ClientCommand) -> None:
        match command:
            case Ping():
                session.send(socket_frame(Pong(ref=command.ref, cursor=session.cursor)))
            case Ack() | Resume() | Unsubscribe():
                try:
                    self._now(session, command)
                except DualcastError as error:
                    self.error(session, command.ref, error)
            case _:
                session.pending = []
                session.node.spawn(self._later(session, command))

    def _now(self, session: Any, command: Ack | Resume | Unsubscribe) -> None:
        if isinstance(command, Unsubscribe):
            _own_channels(session)
            names = [check_channel(name) for name in command.channels]
            own = "user:" + session.principal.sub
            if ALL in names or own in names:
                raise Forbidden("the own user channel and 'all' stay", code="fixed-channel")
            session.unsubscribe(names)
            session.send(socket_frame(Unsubscribed(ref=command.ref, channels=names)))
            return
        cursor = parse_cursor(command.cursor)
        if isinstance(command, Resume):
            session.resume(*cursor)
        elif not session.confirm(*cursor):
            raise DualcastError("this cursor was never written to this connection", code="future-ack")

    async def _later(self, session: Any, command: Subscribe | Authenticate | PersonCommand) -> None:
        try:
            try:
                if isinstance(command, Subscribe):
                    await self._subscribe(session, command)
                elif isinstance(command, Authenticate):
                    await self._authenticate(session, command)
                else:
                    session.send(socket_frame(await self._for_person(session, command)))
            except DualcastError as error:
                self.error(session, command.ref, error)
            except Exception:
                # A room edge: the client waits for an answer to its `ref`, and the connection stays.
                log.exception("a client's command failed")
                self.error(session, command.ref, DualcastError("something went wrong in the server"))
        finally:
            pending, session.pending = session.pending or [], None
            while pending and not session.closed:
                self._carry_out(session, pending.pop(0))
                if session.pending is not None:
                    session.pending = pending
                    break

    async def _for_person(self, session: Any, command: PersonCommand) -> ServerFrame:
        if self._person is None:
            raise NotAvailable
        return await self._person.carry_out(session, command)

    async def _authenticate(self, session: Any, command: Authenticate) -> None:
        """Swaps the principal; channels the new token does not allow are taken away."""
        old, node = session.principal, session.node
        new = await self._refresh(old, command.token)
        while True:
            changes = node.grant_changes
            asked = [feed.name for feed in session.channels if not new.owns(feed.name)]
            lost = [name for name in asked if not await self._may_subscribe(new, name)]
            if asked:
                # It may have been revoked while others were asked.
                new = await self._refresh(old, command.token)
            if node.grant_changes == changes:  # else it was the old principal that was looked at
                break
        session.authenticated(new)
        if lost:
            session.withdraw(lost)
        session.send(socket_frame(Authenticated(ref=command.ref, expires_at=new.expires_at)))

    async def _subscribe(self, session: Any, command: Subscribe) -> None:
        _own_channels(session)
        names = list(dict.fromkeys(check_channel(name) for name in command.channels))
        since = parse_cursor(command.since) if command.since is not None else None
        changes = session.node.grant_changes
        await self._allowed(session, names)
        have = {feed.name for feed in session.channels}
        new = [name for name in names if name not in have]
        check_channels(session.node, [*have, *new])
        hub, tenant = session.node.hub, session.principal.tenant
        feeds = [hub.channel(tenant, name) for name in new]
        if not await watched(session.node, [*session.channels, *feeds]):
            raise BusUnavailable("the event bus is away; try again")
        await self._bring_up(session, feeds)
        arrival = Arrival(session, names, have)
        await arrival.read()
        while session.node.grant_changes != changes:
            changes = session.node.grant_changes
            await self._allowed(session, names)
            await arrival.read()
        if session.closed:
            return
        arrival.tell()
        joined_at = session.subscribe([hub.channel(tenant, name) for name in new])
        cursor = session.cursor
        if since is not None:
            try:
                await self._history(session, names, since, joined_at)
                _still_in(session, names)
            except DualcastError:
                session.unsubscribe(new)  # all or nothing: the answer is an error
                raise
        session.send(socket_frame(Subscribed(ref=command.ref, channels=names, cursor=cursor)))

    async def _allowed(self, session: Any, names: list[str]) -> None:
        refused = [name for name in names if not await self._may_subscribe(session.principal, name)]
        if refused:
            raise ForbiddenChannels(refused)

    async def _bring_up(self, session: Any, feeds: list[ChannelFeed]) -> None:
        """Moves a quiet live session to where the new channels are watched from, so that nothing older of
        them comes as if it were new. One that is not quiet catches up from where it stands."""
        start, turn = session.offset, session.turn
        if not session.live or all(feed.complete_from <= start for feed in feeds):
            return
        own = [feed.name for feed in session.channels]
        page = await session.node.bus.read(session.feed.name, own, start, 1)
        quiet = not page.entries and not page.gaps and page.epoch == session.feed.epoch
        if quiet and session.live and (session.turn, session.offset) == (turn, start):
            session.gate = max(start, page.next)

    async def _history(self, session: Any, names: list[str], since: Cursor, through: int) -> None:
        """Writes what the channels had after `since`, marked recovered: it never moves the cursor."""
        node, feed = session.node, session.feed
        if since.epoch != feed.epoch and not await node.bus.known_epoch(feed.name, since.epoch):
            for name in names:
                session.tell_gap(Gap(name, since.offset, 0, "unknown"))
            return
        after = since.offset
        encode = session.encoding.encode_recovered or session.encoding.encode
        while after < through and not session.closed:
            page = await node.bus.read(feed.name, names, after, node.settings.page_limit)
            _still_in(session, names)
            for gap in page.gaps:
                session.tell_gap(gap)
            for entry in merge([page.entries]):
                audience = entry.publication.audience
                if entry.offset <= through and (audience is None or session.due(audience)):
                    if session.paused:
                        if not await writable(session):
                            return
                        _still_in(session, names)
                    session.counters.recovered += 1
                    session.send(encode(entry))
            if page.next <= after:
                return
            after = page.next


def _own_channels(session: Any) -> None:
    """Raises Forbidden on a view, whose channels are its own (PROTO-66)."""
    if session.view_name:
        raise Forbidden("the channels of a view are its own", code="fixed-channel")


def _still_in(session: Any, names: list[str]) -> None:
    """Raises Forbidden when one of the channels was withdrawn meanwhile."""
    have = {feed.name for feed in session.channels}
    gone = [name for name in names if name not in have]
    if gone and not session.closed:
        raise ForbiddenChannels(gone)
