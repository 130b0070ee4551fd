"""What clients of the contracts ask for, carried out in order. Like `session.native_commands`: what must wait
runs in a short task the node owns, and what the client sends meanwhile waits in a bounded list.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

import structlog

from dualcast.dialects.legacy import Action, Call, Close, Endpoint, Join, Leave, Reply, Tell
from dualcast.model.channel import ALL, check_channel
from dualcast.model.codes import Close as Code
from dualcast.model.errors import BadChannel, BadRequest, DualcastError
from dualcast.session.native_commands import MAX_UNREAD_BYTES
from dualcast.session.node import SessionSettings
from dualcast.session.watching import watched

from .services import Legacy

log = structlog.get_logger("dualcast.gateway")

MAX_PER_SWEEP = 500
"""Client messages of one socket between two sweeps; beyond it is closed (1013)."""
QUIET_TRIES = 5


class Receiver:
    """The receiver of an endpoint's sockets (`transport.websocket.Receiver`)."""

    def __init__(self, legacy: Legacy, endpoint: Endpoint) -> None:
        self._legacy = legacy
        self._endpoint = endpoint

    def binary(self, session: Any, data: bytes) -> None:
        """Ignored and counted."""
        self._legacy.registry.counted["binary_ignored"] += 1
        if session.commands > MAX_PER_SWEEP:
            session.close(Code.RATE_LIMITED)

    def text(self, session: Any, text: str) -> None:
        """One client message."""
        if session.commands > MAX_PER_SWEEP:
            session.close(Code.RATE_LIMITED)
            return
        if session.paused and session.transport.get_write_buffer_size() > MAX_UNREAD_BYTES:
            session.close(Code.LAGGING)  # it asks and does not read: the answers must not pile up
            return
        try:
            actions = list(self._endpoint.decode(text, session.fresh_facts()))
        except Exception:
            # Anybody's contract; the connection goes on.
            self._legacy.registry.counted["decode_failed"] += 1
            log.exception("a client's message could not be read", path=self._endpoint.path)
            return
        if session.pending is None:
            self._carry_out(session, actions)
        elif _too_many([*session.pending, *actions], session.node.settings):
            session.close(Code.RATE_LIMITED)
        else:
            session.pending.extend(actions)

    def _carry_out(self, session: Any, actions: Sequence[Action]) -> None:
        """Does what needs no waiting; from the first that does on, the rest waits."""
        for done, action in enumerate(actions, 1):
            if session.closed:
                return
            if isinstance(action, Reply):
                _answer(session, action.text)
            elif isinstance(action, Leave):
                self._leave(session, action)
            elif isinstance(action, Close):
                session.end(action.code, action.reason, (action.last,) if action.last else ())
                return
            else:
                session.pending = list(actions[done:])
                session.node.spawn(self._later(session, action))
                return

    async def _later(self, session: Any, action: Join | Tell | Call) -> None:
        try:
            if isinstance(action, Join):
                await self._join(session, action)
            elif isinstance(action, Tell):
                await self._tell(session, action)
            else:
                await self._call(session, action)
        except Exception:
            # A room edge: the client is not told (its contract has no word for it), the connection stays.
            log.exception("what a client asked for failed", path=self._endpoint.path)
        finally:
            pending, session.pending = session.pending or [], None
            self._carry_out(session, pending)

    @staticmethod
    def _leave(session: Any, action: Leave) -> None:
        if action.channel not in (ALL, "user:" + session.principal.sub):
            session.unsubscribe([action.channel])
        _answer(session, action.done)

    async def _tell(self, session: Any, action: Tell) -> None:
        stats = await self._legacy.stats.read(
            session.principal.tenant, kind=self._endpoint.groups, session=session
        )
        _answer(session, action.render(session.fresh_facts(), stats))

    async def _call(self, session: Any, action: Call) -> None:
        service = self._legacy.calls.get(action.name)
        if service is None:
            _answer(session, action.failed("not-available"))
            return
        try:
            await service(session.principal, session.id, action.arguments)
        except DualcastError as error:
            _answer(session, action.failed(error.code))
        except Exception:
            # A room edge: the client waits for an answer.
            log.exception("a client's call failed", name=action.name)
            _answer(session, action.failed("internal"))
        else:
            _answer(session, action.done)

    async def _join(self, session: Any, action: Join) -> None:
        node, tenant = session.node, session.principal.tenant
        try:
            channel = check_channel(action.channel)
        except BadChannel:
            _answer(session, action.refused)
            return
        if action.owner_of and not await self._may_join(session, action.owner_of):
            _answer(session, action.refused)
            return
        if any(feed.name == channel for feed in session.channels):
            _answer(session, action.done)
            return
        if len(session.channels) >= node.settings.max_channels:
            _answer(session, action.too_many or action.refused)
            return
        feed = node.hub.channel(tenant, channel)
        # With the bus away it joins all the same: what comes then is caught up with.
        if await watched(node, [*session.channels, feed]):
            await self._forget_the_past(session, feed)
        if not session.closed:
            _answer(session, action.done)  # before anything of the channel
            session.subscribe([node.hub.channel(tenant, channel)])

    async def _may_join(self, session: Any, channel: str) -> bool:
        principal = session.principal
        try:
            owner = await self._legacy.owner(principal.tenant, channel)
        except BadRequest:
            owner = None  # no task can have this id
        except DualcastError:
            return False
        return owner is None or principal.is_admin or owner == principal.sub

    @staticmethod
    async def _forget_the_past(session: Any, feed: Any) -> None:
        """There is no replay: brings a session to where the new channel is watched from, since it would
        catch up with what is older otherwise. Only a session that has nothing of its own to come may be
        moved."""
        for _ in range(QUIET_TRIES):
            start, turn = session.offset, session.turn
            if session.closed or (session.live and feed.complete_from <= start):
                return
            if session.live:
                own = [channel.name for channel in session.channels]
                page = await session.node.bus.read(session.feed.name, own, start, 1)
                quiet = not page.entries and not page.gaps and page.epoch == session.feed.epoch
                if quiet and session.live and (session.turn, session.offset) == (turn, start):
                    session.gate = max(start, page.next)
                    continue
            await asyncio.sleep(0.02)


def _too_many(waiting: Sequence[Action], settings: SessionSettings) -> bool:
    """Pages join and leave all their channels at once, each by a message of its own: those are counted by
    what a connection may join."""
    channels = sum(isinstance(action, Join | Leave) for action in waiting)
    return channels > settings.max_channels or len(waiting) - channels > settings.max_pending_commands


def _answer(session: Any, text: bytes) -> None:
    if text:
        session.send(text)
