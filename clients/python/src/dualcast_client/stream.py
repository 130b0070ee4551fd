"""`Stream`: a subscription for asyncio that lasts over every break, without loss and without doubles.

A task of its own (`runner`) keeps the connection; a bounded buffer (`delivery`) is between it and the
program.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncIterator
from contextlib import suppress
from types import TracebackType
from typing import Self

from .controls import Controls
from .cursors import Position
from .delivery import Inlet
from .errors import DualcastError
from .events import Event, Gap, GapError, Published, Status, Welcome
from .line import GivenUp, Line
from .runner import Runner
from .wanted import Backend, Wanted

log = logging.getLogger("dualcast_client")
STATES = {"opening": "connecting", "live": "live", "waiting": "waiting", "stopped": "stopped"}


class Stream(Controls):
    """Made by `AsyncClient.subscribe`; `async with` opens it, `async for` gives publications, `events()` all
    there is. Whoever awaits the next one may be cancelled; nothing is lost by that. One task reads; the other
    methods may be called from any of the loop's."""

    def __init__(self, backend: Backend, wanted: Wanted) -> None:
        super().__init__(backend)
        self._wanted = wanted
        self._position = Position(wanted.store)
        self.inlet = Inlet(wanted.buffer, self._position, wanted.ack == "manual")
        self._task: asyncio.Task[None] | None = None

    def __repr__(self) -> str:
        status = self.status
        where = "not open" if self.runner is None else f"{status.state} {status.transport}".strip()
        return f"Stream({', '.join(self.channels)}: {where})"

    @property
    def cursor(self) -> str:
        """The position behind what was given last."""
        return self._position.given

    @property
    def acked(self) -> str:
        """The position behind what was dealt with: what a store keeps."""
        return self._position.done

    @property
    def channels(self) -> tuple[str, ...]:
        """What is subscribed, beside the own `user:` channel and `all`."""
        return (self._wanted if self.runner is None else self.runner.wanted).channels

    @property
    def welcome(self) -> Welcome | None:
        """Of the last connection."""
        return None if self.runner is None else self.runner.welcome

    @property
    def status(self) -> Status:
        """How the connection is."""
        if self.runner is None or self.closed:
            return Status(state="closed")
        line = self.runner.line
        live = line.phase == "live"
        return Status(
            state=STATES[line.phase],
            transport=line.transport,
            reason="" if live else line.code,
            fallback_reason=line.fallen,
            wait_s=max(0.0, line.due - time.monotonic()) if line.phase == "waiting" else 0.0,
        )

    @property
    def transport(self) -> str:
        """`websocket` or `sse`; "": it is not connected."""
        status = self.status
        return status.transport if status.state == "live" else ""

    # ── opening and closing ──

    async def __aenter__(self) -> Self:
        """Waits until the server says `welcome`: whatever is published from then on will be given. Raises
        DualcastError when coming back cannot help, or after `patience_s`."""
        if self.runner is not None or self.closed:
            raise RuntimeError("a stream is entered once")
        cursor = await self._position.load(self._wanted.cursor)
        runner = self.runner = Runner(self.backend, self._wanted, cursor, self.inlet, self._told)
        self._task = asyncio.create_task(runner.run(), name="dualcast-subscription")
        self._task.add_done_callback(lambda _: self.inlet.wake())
        try:
            while runner.welcome is None:
                self._open()
                self.check()
                await self.inlet.changed()
        except BaseException:
            await self.aclose()
            raise
        self._position.given = self._position.given or runner.line.cursor
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is None or issubclass(kind, GapError):
            self.inlet.dealt_with()
        await self.aclose()

    async def aclose(self) -> None:
        """Ends it; whoever waits for the next event gets the end of the iteration. Cancelled, it goes on by
        itself."""
        first, self.closed = not self.closed, True
        self.inlet.clear()
        self.inlet.wake()
        if self.runner is not None and self._task is not None:
            ending = self.runner.line.phase == "stopped"
            self.runner.feed(GivenUp("closed"))
            if first and not ending:  # else it is clearing up, and must not be cancelled in that
                self._task.cancel()
            await asyncio.wait({self._task})
            if not self._task.cancelled():
                self._task.exception()  # whoever reads was told
        if first and self.runner is not None:
            self._tell(Status(state="closed"))
        await self._position.save(now=True)

    # ── reading ──

    def __aiter__(self) -> AsyncIterator[Published]:
        return self

    async def __anext__(self) -> Published:
        while (event := await self.next_event()) is not None:
            if isinstance(event, Published):
                return event
        raise StopAsyncIteration

    async def events(self) -> AsyncIterator[Event]:
        """Publications and everything else the server says, and breaks of the line, in order."""
        while (event := await self.next_event()) is not None:
            yield event

    async def next_event(self) -> Event | None:
        """The next of `events()`; None: the stream was closed. Raises GapError unless `on_gap` is `event`;
        DualcastError when coming back cannot help."""
        if self.runner is None:
            raise RuntimeError("enter the stream first: async with client.subscribe(…) as stream")
        if self.inlet.asking:
            raise RuntimeError("one consumer at a time")
        self.inlet.asking = True
        try:
            self.inlet.dealt_with()
            event = await self._next()
        finally:
            self.inlet.asking = False
        if isinstance(event, Gap) and not event.filled and self._wanted.on_gap == "raise":
            raise GapError(event)
        return event

    async def _next(self) -> Event | None:
        warned = False
        while not self.closed:
            await self._position.save()
            unacked = self.inlet.unacked
            if unacked is not None and len(unacked) >= self._wanted.max_unacked:
                if not warned:
                    log.warning("%d publications are not acknowledged: the next one waits", len(unacked))
                warned = True
            elif (event := self.inlet.get()) is not None:
                return event
            else:
                self.check()
            await self._news()
        return None

    async def _news(self) -> None:
        """Waits for anything to happen, or for the time to save the position."""
        due_s = self._position.due_s(time.monotonic())
        with suppress(TimeoutError):
            async with asyncio.timeout(due_s):
                await self.inlet.changed()

    def check(self) -> None:
        """Raises why the task has ended, if it has."""
        if self.closed or self._task is None or self.runner is None:
            return
        if self._task.done() and not self._task.cancelled() and (error := self._task.exception()) is not None:
            raise error
        line = self.runner.line
        if line.phase == "stopped":
            words = "the subscription has ended for good"
            raise DualcastError(line.code, line.status, words, channels=line.channels)
        if self._task.done():
            raise DualcastError("closed", 0, "the task of the subscription was cancelled")

    # ── acknowledging ──

    async def ack(self, what: Published | str | None = None) -> None:
        """A publication was dealt with; or everything up to a cursor that was given, or (None) all that was.
        When it returns the store has the position behind the last of those before which everything is
        acknowledged, in whatever order that was. With `ack="auto"` nothing but "all" makes sense. Raises
        ValueError: the cursor was not given, or is acknowledged already; what the store raises."""
        unacked = self.inlet.unacked
        if unacked is None:
            self._position.done = self._position.given
        elif what is None:
            unacked.ack_all()
        elif isinstance(what, Published):
            unacked.ack(what.id)
        elif not unacked.ack_through(what) and what != self._position.done:
            raise ValueError("this cursor was not given, or is acknowledged already")
        self.inlet.wake()
        if self.runner is not None and self._position.done:
            self.runner.ack = self._position.done
            self.runner.wake()
        await self._position.save(now=True)

    # ── what the task tells ──

    def _told(self, old: Line, line: Line) -> None:
        self.inlet.wake()
        if line.code != "closed":
            self._tell(self.status)

    def _tell(self, status: Status) -> None:
        if self._wanted.on_status is not None:
            try:
                self._wanted.on_status(status)
            except Exception:
                log.exception("on_status failed")
