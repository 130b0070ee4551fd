"""`Stream`: a subscription for asyncio that lasts over every break, without loss and without doubles.

Whoever asks for the next event drives it: `reconnect` decides, `connections` does. What it has begun when
nobody asks any more is one task at most, which ends with it.
"""

from __future__ import annotations

import asyncio
import logging
import random
import time
from collections import OrderedDict, deque
from collections.abc import AsyncIterator, Coroutine
from types import TracebackType
from typing import Any, Self

import httpx
from msgspec.structs import replace

from .connections import Broken, Connection
from .cursors import Position
from .errors import DualcastError
from .events import (
    AuthExpiring,
    Bye,
    CommandFailed,
    Disconnected,
    Event,
    Frame,
    Gap,
    GapError,
    MoveAsked,
    Positioned,
    Published,
    StageChanged,
    Unsubscribed,
    Welcome,
)
from .history import fill
from .reconnect import (
    Asked,
    Delay,
    GivenUp,
    Happening,
    Line,
    Moved,
    Mute,
    Staged,
    Tick,
    Told,
    Welcomed,
    begin,
    decide,
)
from .wanted import Backend, Wanted, authenticate

log = logging.getLogger("dualcast_client")
HEARTBEAT_MORE_S = 10.0
"""A line is dead when it is silent for so much longer than its heartbeat (PROTO-15, PROTO-24)."""
FOREVER_S = 3600.0
REMEMBERED = 8192
"""Ids that are known to have been given."""


class Stream:
    """Made by `AsyncClient.subscribe`; `async with` opens it, `async for` gives publications, `events()` all
    there is. Whoever awaits the next one may be cancelled; nothing is lost by that."""

    def __init__(self, backend: Backend, wanted: Wanted) -> None:
        self._backend = backend
        self._wanted = wanted
        self._line: Line | None = None
        self._connection: Connection | None = None
        self._opened_at = 0.0
        self._silence_s = 0.0
        self._lost_at = time.monotonic()
        self._http: httpx.AsyncClient | None = None
        self._token = ""
        self._ready: deque[tuple[Event, str | None]] = deque()
        self._gap: Gap | None = None
        self._reauthenticate = False
        self._known: OrderedDict[str, None] = OrderedDict()
        self._position = Position(wanted.store)
        self._pulling = False
        self._work: asyncio.Task[None] | None = None
        self._closing = asyncio.Event()
        self._welcome: Welcome | None = None

    def __repr__(self) -> str:
        where = "not open" if self._line is None else f"{self._line.phase}, {self._line.transport}"
        return f"Stream({', '.join(self._wanted.channels)}: {where})"

    @property
    def cursor(self) -> str:
        """The position behind what was given last."""
        return self._position.given

    @property
    def welcome(self) -> Welcome | None:
        """Of the last connection."""
        return self._welcome

    @property
    def transport(self) -> str:
        """`websocket` or `sse`; "": it is not connected."""
        return "" if self._line is None or self._line.phase != "live" else self._line.transport

    # ── opening and closing ──

    async def __aenter__(self) -> Self:
        """Waits until the server says `welcome`: whatever is published from then on will be given. Raises
        DualcastError when coming back cannot help, or after `patience_s`."""
        if self._line is not None:
            raise RuntimeError("a stream is entered once")
        wanted = self._wanted
        cursor = await self._position.load(wanted.cursor)
        self._line = begin(wanted.transport, cursor, self._backend.renewable, wanted.reconnects)
        self._lost_at = time.monotonic()
        try:
            while self._line.phase != "live":
                self._ready.clear()
                await self._step()
        except BaseException:
            await self.aclose()
            raise
        self._position.given = self._position.given or self._line.cursor
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is None or issubclass(kind, GapError):
            self._position.done = self._position.given  # what was given was dealt with
        await self.aclose()

    async def aclose(self) -> None:
        """Ends it; whoever waits for the next event gets the end of the iteration."""
        if self._line is not None:
            self._feed(GivenUp("closed"))
        self._closing.set()
        self._ready.clear()
        try:
            if (work := self._work) is not None:
                work.cancel()
                await asyncio.wait({work})
                if not work.cancelled():
                    work.exception()  # nobody asks for it any more
            await self._drop()
        finally:
            if self._http is not None:
                await self._http.aclose()
        await self._position.save(now=True)

    # ── reading ──

    def __aiter__(self) -> AsyncIterator[Published]:
        return self

    async def __anext__(self) -> Published:
        while True:
            event = await self.next_event()
            if event is None:
                raise StopAsyncIteration
            if isinstance(event, Published):
                return event
            if isinstance(event, Gap) and not event.filled:
                log.warning("publications of %s are missing: %s", event.channel, event.reason)

    async def events(self) -> AsyncIterator[Event]:
        """Publications and everything else the server says, and breaks of the line, in order."""
        while (event := await self.next_event()) is not None:
            yield event

    async def next_event(self) -> Event | None:
        """The next of `events()`; None: the stream was closed. Raises GapError unless `on_gap` is `event`;
        DualcastError when coming back cannot help."""
        if self._line is None:
            raise RuntimeError("enter the stream first: async with client.subscribe(…) as stream")
        if self._pulling:
            raise RuntimeError("one consumer at a time")
        self._pulling = True
        try:
            self._position.done = self._position.given  # whoever asks for the next has dealt with the last
            await self._position.save()
            while not self._ready:
                if self._closing.is_set():
                    return None
                await self._step()
            event, cursor = self._ready.popleft()
        finally:
            self._pulling = False
        if cursor is not None:
            self._position.given = cursor
        if isinstance(event, Gap) and not event.filled and self._wanted.on_gap == "raise":
            raise GapError(event)
        return event

    # ── one step ──

    async def _step(self) -> None:
        """Does what the line's phase says, once. Cancelled, it is done again, or goes on."""
        line = self._line
        assert line is not None
        if self._work is not None:
            await self._finish(self._work)
        elif line.phase in ("waiting", "stopped") and self._connection is not None:
            await self._begin(self._drop())
        elif line.phase == "stopped":
            if not self._closing.is_set():
                raise DualcastError(line.code, line.status, "the subscription has ended for good")
        elif line.phase == "waiting":
            await self._wait(line)
        elif self._connection is None:
            await self._begin(self._open(line))
        elif self._gap is not None:
            await self._begin(self._fill(self._gap))
        elif self._reauthenticate:
            await self._begin(self._renew())
        else:
            await self._read(line)

    async def _begin(self, work: Coroutine[Any, Any, None]) -> None:
        """What takes several answers goes on when whoever waits is cancelled; else one who waits for less
        time than that takes would never get there."""
        self._work = asyncio.create_task(work)
        await self._finish(self._work)

    async def _finish(self, work: asyncio.Task[None]) -> None:
        await asyncio.wait({work})
        if self._work is work:
            self._work = None
        if not work.cancelled():
            work.result()

    async def _wait(self, line: Line) -> None:
        now = time.monotonic()
        patience_s = self._wanted.patience_s
        left = FOREVER_S if patience_s is None else self._lost_at + patience_s - now
        if left <= 0:
            self._feed(GivenUp(line.code or "unreachable"))
        elif line.due > now:
            await self._position.save(now=True)
            try:
                async with asyncio.timeout(min(line.due - now, left)):
                    await self._closing.wait()
            except TimeoutError:
                pass
        else:
            self._feed(Tick())

    async def _open(self, line: Line) -> None:
        wanted = self._wanted
        try:
            refused = self._token if line.fresh else ""
            self._token = await self._backend.take_token(refused, wanted.open_timeout_s)
            if line.transport == "sse" and self._http is None:
                self._http = self._backend.streaming(wanted.open_timeout_s)
            opened = await self._backend.connect(wanted, line, self._token, self._http)
        except Broken as broken:
            self._feed(broken.why)
            return
        self._connection = opened
        self._opened_at = time.monotonic()
        self._reauthenticate = False

    async def _renew(self) -> None:
        assert self._connection is not None
        try:
            token = await self._backend.take_token(self._token, self._wanted.open_timeout_s)
        except Broken:
            pass  # it ends with 4201 and is opened anew
        else:
            if token != self._token:
                self._token = token
                await self._connection.send(authenticate(token))
        self._reauthenticate = False

    async def _read(self, line: Line) -> None:
        connection = self._connection
        assert connection is not None
        now = time.monotonic()
        if line.phase == "opening":
            left = self._opened_at + self._wanted.open_timeout_s - now
        else:
            left = connection.silence_s(self._silence_s, now)
        if left <= 0:
            self._feed(Mute())
            return
        waits = [left]
        if line.wake is not None:
            waits.append(max(0.0, line.wake - now))
        if (save_s := self._position.due_s(now)) is not None:
            waits.append(save_s)
        try:
            got = await connection.receive(min(waits))
        except Broken as broken:
            self._feed(broken.why)
            return
        if got is not None:
            if got.retry_ms is not None:
                self._feed(Delay(got.retry_ms))
            self._take(got.frame, got.cursor)
        self._feed(Tick())
        await self._position.save()

    def _take(self, frame: Frame, cursor: str | None) -> None:
        """Takes in one frame."""
        if isinstance(frame, Welcome):
            self._welcome = frame
            self._silence_s = frame.heartbeat_s + HEARTBEAT_MORE_S
            self._feed(Welcomed(cursor or frame.cursor))
        elif isinstance(frame, Bye):
            self._feed(Told(frame.code, frame.retry_ms))
        elif isinstance(frame, MoveAsked):
            self._feed(Asked(frame.to, frame.after_ms / 1000))
        elif isinstance(frame, StageChanged):
            self._feed(Staged(frame.stage))
        elif isinstance(frame, AuthExpiring):
            # A stream takes no commands: it ends with 4201, and the next one begins with another token.
            self._reauthenticate = self._backend.renewable and self.transport == "websocket"
        elif isinstance(frame, Unsubscribed):
            # To ask for them again would refuse the whole connection.
            left = tuple(name for name in self._wanted.channels if name not in frame.channels)
            self._wanted = replace(self._wanted, channels=left)
            log.warning("no longer allowed: %s", ", ".join(frame.channels))
        elif isinstance(frame, CommandFailed):
            log.warning("a command of the subscription was refused: %s", frame.code)
        elif isinstance(frame, Gap) and self._wanted.backfill:
            self._gap = frame
        elif isinstance(frame, Published) and not self._first(frame.id):
            frame = Positioned(cursor=cursor)
        if cursor is not None:
            self._feed(Moved(cursor))
        if isinstance(frame, Event) and frame is not self._gap:
            self._ready.append((frame, cursor))
        elif cursor is not None and self._gap is None and not self._ready:
            self._position.given = self._position.done = cursor

    def _first(self, ident: str) -> bool:
        """Whether a publication is given for the first time."""
        if ident in self._known:
            self._known.move_to_end(ident)
            return False
        self._known[ident] = None
        if len(self._known) > REMEMBERED:
            self._known.popitem(last=False)
        return True

    async def _fill(self, gap: Gap) -> None:
        try:
            found, filled = await fill(gap, self._backend.call)
        except DualcastError as error:
            log.warning("history of %s could not be read: %s", gap.channel, error.code)
            found, filled = [], False
        self._gap = None
        self._ready.extend((one, None) for one in found if self._first(one.id))
        told = gap if not filled else replace(gap, filled=True)
        self._ready.append((told, gap.cursor))

    def _feed(self, what: Happening) -> None:
        old = self._line
        assert old is not None
        now = time.monotonic()
        line = self._line = decide(old, what, now, random.random())  # noqa: S311 jitter
        if line.phase == old.phase:
            return
        if line.phase == "live":
            log.info("subscribed over %s", line.transport)
        elif line.phase == "waiting" or (line.phase == "stopped" and line.code != "closed"):
            wait_s = max(0.0, line.due - now)
            if old.phase == "live":
                self._lost_at = now
            log.info("the subscription broke (%s), %s in %.1f s", line.code, line.transport, wait_s)
            if line.phase == "waiting":
                self._ready.append(
                    (Disconnected(reason=line.code, wait_s=wait_s, transport=line.transport), None)
                )

    async def _drop(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            await connection.close()
