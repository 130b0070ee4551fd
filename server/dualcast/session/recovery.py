"""Recovery below the rings: sessions that are behind read pages from the bus, tenants in turn, by a fixed
number of workers.

Rule of one step (session at position p, of epoch e):
1. e unknown, or p in the future → `gap` (reason `unknown`) for every channel, and it starts from now.
2. e an earlier epoch of this log → `gap` (reason `epoch`) for every channel, and it reads on from p.
3. channels whose ring does not reach back to p are read from the bus. A page that joins the ring is put in
   front of it: the next session finds it there.
4. otherwise one page over all channels is written: gaps the page names are announced, entries written, p
moves to where all channels are known to be complete. Then `catch_up` again, until the session is live.
"""

from __future__ import annotations

import asyncio
import logging

from dualcast.bus.port import EventBus
from dualcast.model.codes import Close
from dualcast.model.errors import BusUnavailable
from dualcast.model.publication import Gap

from .catch_up import merge
from .node import Node
from .session import FROM_NOW, Session

log = logging.getLogger("dualcast.session")

SERVED_PER_TURN = 256
"""Sessions a worker brings up before it lets the loop turn."""


class Recovery:
    """Workers over the node's queue of sessions that are behind."""

    def __init__(self, node: Node) -> None:
        self._node = node
        self._bus: EventBus = node.bus

    async def run(self) -> None:
        """Serves until cancelled."""
        async with asyncio.TaskGroup() as group:
            for _ in range(self._node.settings.recovery_workers):
                group.create_task(self._worker())

    async def _worker(self) -> None:
        served = 0
        while True:
            session = await self._next()
            served += 1
            if served % SERVED_PER_TURN == 0:
                await asyncio.sleep(0)  # rings may serve a whole storm without ever waiting
            again = False
            try:
                # `queued` stays set: a session is never served by two workers, which would both write the
                # same page.
                again = await self._serve(session)
            except BusUnavailable:
                self._hold(session)
            except Exception:
                # A room edge: the fault of one session (its socket, one publication) is not the others'.
                log.exception("recovery of a session failed")
                session.close(Close.INTERNAL)
            finally:
                session.queued = False
            if again:
                self._node.enqueue(session)

    async def _next(self) -> Session:
        node = self._node
        while not node.behind:
            node.behind_event.clear()
            await node.behind_event.wait()
        # First tenant in, one session taken, to the end of the line: a storm of one tenant does not starve
        # another.
        tenant, queue = next(iter(node.behind.items()))
        del node.behind[tenant]
        session: Session = queue.popleft()
        if queue:
            node.behind[tenant] = queue
        return session

    def _hold(self, session: Session) -> None:
        """The bus is away: the session waits for it; if it came back in the meantime, at once."""
        if session.closed:
            return
        self._node.held.add(session)

    def release(self) -> None:
        """Puts every held session back into the queue. Called when the bus is there, and by the sweep."""
        held, self._node.held = self._node.held, set()
        for session in held:
            if not session.closed:
                self._node.enqueue(session)

    async def _serve(self, session: Session) -> bool:
        """Brings the session up; True: it wants another turn after the others."""
        while not session.catch_up():
            feeds = session.channels
            if not self._node.hub.when_watched(feeds, session.channels_ready):
                return False
            if session.position == FROM_NOW:
                continue
            turn = session.turn
            if session.epoch != session.feed.epoch and not await self._change_epoch(session, turn):
                continue
            position = session.position
            short = [feed for feed in feeds if feed.complete_from > position]
            if not short:
                await self._check(session, position, turn)
                continue
            tenant, limit = session.feed.name, self._node.settings.page_limit
            page = await self._bus.read(tenant, [feed.name for feed in short], position, limit)
            if page.epoch == session.feed.epoch and self._node.hub.backfill(short, page, position):
                continue  # the rings reach back far enough now, for this session and for those that follow
            if len(short) < len(feeds):
                page = await self._bus.read(tenant, [feed.name for feed in feeds], position, limit)
            if session.turn != turn or session.position != position or session.closed or session.paused:
                continue
            if page.epoch != session.feed.epoch:
                # The hub has not heard of this epoch yet. The news of it, or the next sweep, brings the
                # session back.
                self._node.held.add(session)
                return False
            if position > page.top:
                self._start_over(session)
                continue
            session.checked = True
            through = page.next
            for gap in page.gaps:
                session.tell_gap(gap)
            session.write_entries(merge([page.entries]), through)
            if through <= position:
                # The log shows less than the rings were promised (it is being repaired): come back with the
                # next sweep.
                self._node.held.add(session)
                return False
            if self._node.behind and not session.catch_up():
                return True
        return False

    async def _change_epoch(self, session: Session, turn: int) -> bool:
        """Brings a cursor of another epoch into the present one; False when the session changed meanwhile."""
        epoch = session.feed.epoch
        known = await self._bus.known_epoch(session.feed.name, session.epoch)
        if session.turn != turn or session.closed:
            return False
        if not known:
            self._start_over(session)
            return False
        position, session.epoch = session.position, epoch
        session.checked = False
        session.tell_gap(*(Gap(feed.name, position, 0, "epoch") for feed in session.channels))
        return True

    @staticmethod
    def _start_over(session: Session) -> None:
        """A cursor that is not one of ours: nothing can be promised for the time before now."""
        session.position = FROM_NOW
        session.settle()
        session.tell_gap(*(Gap(feed.name, session.position, 0, "unknown") for feed in session.channels))

    async def _check(self, session: Session, position: int, turn: int) -> None:
        """Finds out whether a position beyond what this node has seen exists at all."""
        top = (await self._bus.head(session.feed.name)).offset
        if session.turn == turn and session.position == position and not session.closed:
            if position > top:
                self._start_over(session)
            else:
                session.checked = True
