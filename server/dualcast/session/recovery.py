"""Recovery below the rings: sessions that are behind read pages from the bus, tenants in turn, by a fixed
number of workers.

Rule of one step (session at position p, of epoch e):
1. e unknown, or p in the future → `gap` (reason `unknown`) for every channel, and it starts from now.
2. e an earlier epoch of this log → `gap` (reason `epoch`) for every channel, and it reads on from p.
3. channels whose ring does not reach back to p are read from the bus; the rest comes from the ring, up to
   what the node has seen.
4. gaps the page names are announced, entries written, p moves to where all channels are known to be complete.
Then `catch_up` again, until the session is live.
"""

from __future__ import annotations

import asyncio

from dualcast.bus.port import EventBus
from dualcast.hub.feed import ChannelFeed
from dualcast.model.errors import BusUnavailable
from dualcast.model.publication import Gap, Page

from .catch_up import merge
from .node import Node
from .session import FROM_NOW, Session


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
        while True:
            session = await self._next()
            again = False
            try:
                # `queued` stays set: a session is never served by two workers, which would both write the
                # same page.
                again = await self._serve(session)
            except BusUnavailable:
                self._hold(session)
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
            page, others = await self._read(session, feeds, position)
            if session.turn != turn or session.position != position or session.closed or session.paused:
                continue
            if page is None:
                continue
            if position > page.top:
                self._start_over(session)
                continue
            session.checked = True
            through = page.next if not others else min(page.next, session.feed.head)
            for gap in page.gaps:
                session.tell_gap(gap)
            entries = merge(
                [
                    [entry for entry in page.entries if entry.offset <= through],
                    *([e for e in feed.after(position) if e.offset <= through] for feed in others),
                ]
            )
            session.write_entries(entries, through)
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
        for feed in session.channels:
            session.tell_gap(Gap(feed.name, position, 0, "epoch"))
        return True

    @staticmethod
    def _start_over(session: Session) -> None:
        """A cursor that is not one of ours: nothing can be promised for the time before now."""
        session.position = FROM_NOW
        session.settle()
        for feed in session.channels:
            session.tell_gap(Gap(feed.name, session.position, 0, "unknown"))

    async def _read(
        self, session: Session, feeds: tuple[ChannelFeed, ...], position: int
    ) -> tuple[Page | None, list[ChannelFeed]]:
        """A page of the channels the rings cannot serve from `position`, and the channels they can."""
        tenant, limit = session.feed.name, self._node.settings.page_limit
        short = [feed for feed in feeds if feed.complete_from > position]
        others = [feed for feed in feeds if feed.complete_from <= position]
        head = session.feed.head
        if not short or (others and head < max(feed.complete_from for feed in short)):
            # The node's own position lags behind the log: one snapshot of everything is a total position.
            short, others = list(feeds), []
        page = await self._bus.read(tenant, [feed.name for feed in short], position, limit)
        if others and position < page.top and min(page.next, session.feed.head) <= position:
            page = await self._bus.read(tenant, [feed.name for feed in feeds], position, limit)
            others = []
        # A ring may have been evicted while we read.
        if any(feed.complete_from > position for feed in others):
            return None, []
        return page, others
