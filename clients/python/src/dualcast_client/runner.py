"""Keeps a subscription's line: opens, reads, renews and leaves connections as `reconnect` says. One task of
the stream's own, which ends with it, and what it has begun ends with that task."""

from __future__ import annotations

import asyncio
import logging
import random
import time
from collections.abc import Callable
from contextlib import suppress

import httpx
from msgspec.structs import replace

from .commands import Lost, command
from .connections import Broken, Connection, Received
from .delivery import Inlet
from .errors import DualcastError
from .events import Disconnected, Welcome
from .intake import Intake, proven
from .line import Apart, Ended, GivenUp, Happening, Joined, Line, Mute, Refused, Restart, Tick, Unreached
from .reconnect import begin, decide, reason_of
from .wanted import Backend, Wanted

log = logging.getLogger("dualcast_client")
FOREVER_S = 3600.0
ACK_EVERY_S = 0.5
"""The server is told so often at most what is acknowledged."""
FORBIDDEN, FORBIDDEN_CLOSE = frozenset({400, 403, 413, 422}), frozenset({4000, 4003})


class Runner(Intake):
    """`run` is the task. `told`: is called whenever the line has changed."""

    def __init__(
        self,
        backend: Backend,
        wanted: Wanted,
        cursor: str,
        inlet: Inlet,
        told: Callable[[Line, Line], None],
    ) -> None:
        super().__init__(backend, wanted, inlet)
        self.line = begin(wanted.transport, cursor, backend.renewable, wanted.reconnects)
        self.ack = ""
        """What the server is to be told as acknowledged."""
        self.refused: DualcastError | None = None
        """Why the channels that were tried are not there."""
        self._told = told
        self._connection: Connection | None = None
        self._http: httpx.AsyncClient | None = None
        self.turn = asyncio.Lock()
        """Of whoever tries channels on a stream."""
        self._aside: asyncio.Task[tuple[Connection, list[Received]]] | None = None
        self._aside_with: tuple[tuple[str, ...], str] = ((), "")
        """The channels and the token it was opened with."""
        self._token = ""
        self._opened_at = 0.0
        self._full_at = 0.0
        self._lost_at = time.monotonic()
        self._acked_at = 0.0
        self._woken = asyncio.Event()

    @property
    def socket(self) -> Connection | None:
        """The live WebSocket."""
        return self._connection if self.line.phase == "live" and self.line.transport == "websocket" else None

    async def run(self) -> None:
        """Until the line has stopped for good. Raises what the program's own functions raise."""
        try:
            while self.line.phase != "stopped":
                await self._step(self.line)
        finally:
            await self._end()

    def wake(self) -> None:
        """There is something to do before the next frame."""
        self._woken.set()
        if self._connection is not None:
            self._connection.hurry()

    def restart(self, code: str) -> None:
        """Another connection, at once."""
        self.feed(Restart(code))
        self.wake()

    def feed(self, what: Happening) -> None:
        old = self.line
        now = time.monotonic()
        line = self.line = decide(old, what, now, random.random())  # noqa: S311 jitter
        if line.phase != old.phase:
            if old.phase == "live":
                self._lost_at = now
            if line.phase == "live":
                log.info("subscribed over %s", line.transport)
            elif line.phase == "waiting":
                wait_s = max(0.0, line.due - now)
                log.info("the subscription broke (%s), %s in %.1f s", line.code, line.transport, wait_s)
                if self.welcome is not None:
                    lost = Disconnected(reason=line.code, wait_s=wait_s, transport=line.transport)
                    self.inlet.put(lost, None)
        if (line.phase, line.transport, line.fallen) != (old.phase, old.transport, old.fallen):
            self._told(old, line)

    # ── one step ──

    async def _step(self, line: Line) -> None:
        self._woken.clear()
        if line.phase == "waiting":
            await self._drop()
            await self._wait(line)
        elif self._connection is None:
            await self._open(line)
        else:
            await self._read(line, self._connection)

    async def _wait(self, line: Line) -> None:
        now = time.monotonic()
        patience_s = self.wanted.patience_s
        left = FOREVER_S if patience_s is None else self._lost_at + patience_s - now
        if left <= 0:
            self.feed(GivenUp(line.code or "unreachable"))
        elif line.due > now:
            with suppress(TimeoutError):
                async with asyncio.timeout(min(line.due - now, left)):
                    await self._woken.wait()
        else:
            if await self.inlet.room():  # a connection nobody reads is not opened
                self._lost_at = time.monotonic()
            self.feed(Tick())

    async def _open(self, line: Line) -> None:
        try:
            self._token = await self.backend.take_token(
                self._token if line.fresh else "", self.wanted.open_timeout_s
            )
            opened = await self._connect(line)
        except Broken as broken:
            self.end(broken.why)
            return
        self._connection = opened
        self._opened_at = time.monotonic()
        self.overlap = False

    async def _connect(self, line: Line) -> Connection:
        if line.transport == "sse" and self._http is None:
            self._http = self.backend.streaming(self.wanted.open_timeout_s)
        return await self.backend.connect(self.wanted, line, self._token, self._http)

    def end(self, why: Happening) -> None:
        """The connection did not come about, or has ended."""
        status = why.status if isinstance(why, Refused) else 0
        forbidden = status in FORBIDDEN or (isinstance(why, Ended) and why.code in FORBIDDEN_CLOSE)
        if self.trying and self.line.phase == "opening" and forbidden:
            channels = why.channels if isinstance(why, Ended | Refused) else ()
            words = "the channels are not to be had"
            self.give_way(DualcastError(reason_of(why), status, words, channels=channels))
            self.feed(Restart("channels"))
        else:
            self.feed(why)

    def give_way(self, error: DualcastError) -> None:
        """The channels that were tried are given up: the rest goes on without them."""
        gone, self.trying, self.refused = self.trying, (), error
        left = tuple(name for name in self.wanted.channels if name not in gone)
        self.wanted = replace(self.wanted, channels=left)
        self.inlet.wake()

    async def _read(self, line: Line, connection: Connection) -> None:
        if line.phase == "live":
            if await self.inlet.room():
                self._full_at = time.monotonic()
                return
            await self._beside(line)
            await self._tell_acked()
            if line is not self.line:
                return
        now = time.monotonic()
        if line.phase == "opening":
            left = self._opened_at + self.wanted.open_timeout_s - now
        else:
            left = connection.silence_s(self.silence_s, now)
        if left <= 0:
            self.feed(Mute())
            return
        waits = [left]
        if line.wake is not None:
            waits.append(line.wake - now)
        if self.ack and self.socket is not None:
            waits.append(self._acked_at + ACK_EVERY_S - now)
        deaf_at = max(line.since, self._full_at) + line.rules.answer_s
        asked = line.phase == "live" and line.transport == "websocket" and not line.answered
        if asked:
            waits.append(deaf_at - now)
        if self._woken.is_set():
            return
        try:
            got = await connection.receive(min(waits))
        except Broken as broken:
            if connection is self._connection:
                self.end(broken.why)
            return
        if got is not None:
            await self.take(got, connection)
        elif asked and time.monotonic() >= deaf_at:
            self.feed(Mute())
        if self.line.phase == "live":
            self.feed(Tick())

    async def _tell_acked(self) -> None:
        if self.ack and self.socket is not None and time.monotonic() >= self._acked_at + ACK_EVERY_S:
            cursor, self.ack = self.ack, ""
            self._acked_at = time.monotonic()
            await self.socket.send(command("ack", {"type": "ack", "cursor": cursor}))

    # ── tokens ──

    async def renew(self) -> None:
        """Another token before the one there is expires. Where that fails the connection ends with 4201, and
        the next one begins with another."""
        try:
            await self.authenticate()
        except Broken as broken:
            log.info("the token was not renewed: %s", reason_of(broken.why))
        except DualcastError as error:
            log.warning("the token was not renewed: %s", error.code)
        except Exception as error:  # noqa: BLE001 of the program's function; it is asked again, and raises then
            log.warning("the token was not renewed: %s", type(error).__name__)
        finally:
            self.renewing = None

    async def authenticate(self) -> None:
        """Takes a token that is not the present one to the server."""
        token = await self.backend.take_token(self._token, self.wanted.open_timeout_s)
        while token != self._token:
            if (socket := self.socket) is None:
                self._token = token
                self.restart("token")  # a stream takes no commands: it begins again where it was
                return
            with suppress(Lost):
                await self.commands.ask(socket.send, {"type": "authenticate", "token": token})
                self._token = token

    # ── the other transport ──

    async def _beside(self, line: Line) -> None:
        """Opens what is to be opened beside the connection there is, and changes over when it works."""
        here = (self.wanted.channels, self._token)
        if line.beside is not None and self._aside is None:
            self._aside_with = here
            self._aside = asyncio.create_task(self._other(replace(line, transport=line.beside)))
            self._aside.add_done_callback(lambda _: self.wake())
        if self._aside is None or not self._aside.done():
            return
        aside, self._aside = self._aside, None
        try:
            other, frames = aside.result()
        except Broken as broken:
            why = broken.why
            self.feed(Apart(why if isinstance(why, Ended | Refused | Unreached) else Mute()))
            return
        if self._aside_with != here:  # other channels or another token meanwhile: it is opened anew
            self.wake()
            await other.close()
            return
        old, self._connection = self._connection, other
        self.commands.lost()
        self.overlap = True
        self.feed(Joined())
        try:
            for got in frames:
                await self.take(got, other, joined=isinstance(got.frame, Welcome))
        finally:
            if old is not None:
                await old.close()

    async def _other(self, line: Line) -> tuple[Connection, list[Received]]:
        return await proven(await self._connect(line), self.wanted.open_timeout_s)

    # ── ends ──

    async def _drop(self) -> None:
        """Ends the connections there are."""
        self.commands.lost()
        connection, self._connection = self._connection, None
        aside, self._aside = self._aside, None
        try:
            if connection is not None:
                await connection.close()
        finally:
            if aside is not None:
                await ended(aside)
                if not aside.cancelled() and aside.exception() is None:
                    await aside.result()[0].close()

    async def _end(self) -> None:
        try:
            await self._drop()
        finally:
            if (renewing := self.renewing) is not None:
                await ended(renewing)
            if self._http is not None:
                await self._http.aclose()


async def ended(task: asyncio.Task[object]) -> None:
    """Cancels a task and waits for its end."""
    task.cancel()
    await asyncio.wait({task})
    if not task.cancelled():
        task.exception()  # it has been looked at
