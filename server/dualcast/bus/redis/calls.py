"""Script calls over one connection: all calls of a loop turn are one write, replies come in order, nothing
waits for ever.

In: script, key, packed arguments. Out: the reply to a callback, or a BusUnavailable. A call whose connection
broke before its reply is sent once more, with the same arguments: scripts recognise what their first try
did.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Callable
from functools import partial
from typing import Any

import hiredis

from dualcast.model.errors import BusUnavailable

from .dialing import Dialer
from .options import RedisSettings
from .scripts import Scripts
from .wire import Link, LinkLost, pack, resolve

_log = logging.getLogger(__name__)
TELL_AGAIN_S = 10.0
TOLD_KINDS = 256
TICKS = 8
"""A call expires after this many ticks of the watch; ticks, not wall time, so a blocked event loop expires
nothing.
"""


def unavailable() -> BusUnavailable:
    """What every failure of Redis becomes."""
    return BusUnavailable("the event bus cannot be reached")


class _Call:
    __slots__ = ("arguments", "done", "key", "retried", "script", "size", "tick")

    def __init__(
        self, script: str, key: str, arguments: tuple[bytes, ...], done: Callable[[Any], None], tick: int
    ) -> None:
        self.script = script
        self.key = key
        self.arguments = arguments
        self.done = done
        self.tick = tick
        self.size = sum(map(len, arguments))
        self.retried = False


class Calls:
    """One lazily opened connection. Bounded: `pending_calls` and `pending_bytes` of the settings,
    `command_s` per call.
    """

    def __init__(self, dialer: Dialer, settings: RedisSettings, name: str, scripts: Scripts) -> None:
        self._dialer = dialer
        self._scripts = scripts
        self._settings = settings
        self._name = name
        self._loop = asyncio.get_running_loop()
        self._queue: deque[_Call] = deque()
        self._flying: deque[_Call] = deque()
        self._pending = 0
        self._pending_bytes = 0
        self._link: Link | None = None
        self._opening: asyncio.Task[None] | None = None
        self._scheduled = False
        self._watch: asyncio.TimerHandle | None = None
        self._tick = 0
        self._refused_until = 0.0
        self._closed = False
        self.retries = 0
        self.pipelines = 0
        self.timeouts = 0
        self.refusals = 0
        self._told: dict[tuple[str, str], float] = {}
        """By script and kind of refusal: when it is logged again."""

    @property
    def connections(self) -> int:
        return int(self._link is not None and self._link.up)

    @property
    def pending(self) -> int:
        """Calls not answered yet."""
        return self._pending

    def submit(
        self, script: str, key: str, arguments: tuple[bytes, ...], done: Callable[[Any], None]
    ) -> None:
        """Calls `script` for meta key `key`; `done` gets the reply or a BusUnavailable, later."""
        self._enter(_Call(script, key, arguments, done, self._tick))

    def command(self, packed: bytes, done: Callable[[Any], None]) -> None:
        """The same for a plain packed command, which must bear to be run twice."""
        self._enter(_Call("", "", (packed,), done, self._tick))

    async def run(self, script: str, key: str, *arguments: bytes) -> Any:
        """`submit`, awaited. Raises BusUnavailable, and KeyError when there is no such script."""
        if script not in self._scripts:
            raise KeyError(script)
        future: asyncio.Future[Any] = self._loop.create_future()
        self.submit(script, key, arguments, partial(resolve, future))
        reply = await future
        if isinstance(reply, BusUnavailable):
            raise reply
        return reply

    async def close(self) -> None:
        """Ends the connection; what waits is refused."""
        self._closed = True
        if self._opening is not None:
            self._opening.cancel()
            await asyncio.gather(self._opening, return_exceptions=True)
        if self._watch is not None:
            self._watch.cancel()
        link, self._link = self._link, None
        if link is not None:
            link.abort()
            if link.up:
                await link.ended()
        self._refuse_all()

    def _enter(self, call: _Call) -> None:
        full = (
            self._pending >= self._settings.pending_calls
            or self._pending_bytes + call.size > self._settings.pending_bytes
        )
        if self._closed or full or self._loop.time() < self._refused_until:
            self._loop.call_soon(call.done, unavailable())
            return
        self._pending += 1
        self._pending_bytes += call.size
        self._queue.append(call)
        if self._watch is None:
            self._watch = self._loop.call_later(self._settings.command_s / TICKS, self._look)
        self._schedule()

    def _schedule(self) -> None:
        if not self._scheduled:
            self._scheduled = True
            self._loop.call_soon(self._flush)

    def _flush(self) -> None:
        self._scheduled = False
        if self._closed or not self._queue:
            return
        link = self._link
        if link is None or not link.up or not self._scripts.shas:
            if self._opening is None:
                self._opening = self._loop.create_task(self._open())
            return
        shas = self._scripts.shas
        calls, self._queue = self._queue, deque()
        self._flying.extend(calls)
        self.pipelines += 1
        link.send(
            b"".join(
                pack("EVALSHA", shas[call.script], 1, call.key, *call.arguments)
                if call.script
                else call.arguments[0]
                for call in calls
            ),
            *(partial(self._answered, call) for call in calls),
        )

    async def _open(self) -> None:
        try:
            if self._link is None or not self._link.up:
                self._link = await self._dialer.dial(Link, self._name, self._settings.connect_s)
                # Maybe another run of the server, and one that knows the scripts of the last: Redis 6 writes
                # SCRIPT LOAD into the append-only file and hands it on to replicas.
                self._scripts.shas = {}
            if not self._scripts.shas:
                async with asyncio.timeout(self._settings.connect_s):
                    await self._scripts.load(self._link)
        except (LinkLost, TimeoutError):
            if self._link is not None:
                self._link.abort()
            # Others may ask at once: they are refused for a moment, so a dead server is not stormed.
            self._refused_until = self._loop.time() + self._settings.backoff_min_s
            self._refuse_all()
        finally:
            self._opening = None
        self._schedule()

    def _answered(self, call: _Call, reply: Any) -> None:
        if self._flying and self._flying[0] is call:
            self._flying.popleft()
        if isinstance(reply, LinkLost):
            if not call.retried and not self._closed and call.tick + TICKS > self._tick:
                call.retried = True
                self.retries += 1
                self._queue.append(call)
                self._schedule()
            else:
                self._finish(call, unavailable())
        elif isinstance(reply, hiredis.ReplyError):
            if str(reply).startswith("NOSCRIPT") and not self._closed:
                # Nothing was run. Another server process than before: look at it, load, and send again.
                self._scripts.shas = {}
                self._queue.append(call)
                self._schedule()
            elif self._dialer.is_demoted(str(reply)):
                self._leave(call)
            else:
                self._tell(call.script or "a command", reply)
                self.refusals += 1
                self._finish(call, unavailable())
        else:
            self._finish(call, reply)

    def _tell(self, what: str, reply: hiredis.ReplyError) -> None:
        """A full Redis refuses thousands a second: one line for each script and kind now and then."""
        kind, now = (what, str(reply).partition(" ")[0]), self._loop.time()
        if now < self._told.get(kind, 0.0):
            return
        if len(self._told) >= TOLD_KINDS:
            self._told.clear()
        self._told[kind] = now + TELL_AGAIN_S
        _log.warning("redis refused %s: %.200s", what, reply)

    def _leave(self, call: _Call) -> None:
        """`call` was refused unrun by a server that is no master any more: once more, at whoever is now."""
        if self._link is not None:
            self._link.abort()
        if call.retried or self._closed:
            self._finish(call, unavailable())
            return
        call.retried = True
        self.retries += 1
        self._queue.append(call)
        self._schedule()

    def _finish(self, call: _Call, outcome: Any) -> None:
        self._pending -= 1
        self._pending_bytes -= call.size
        call.done(outcome)

    def _refuse_all(self) -> None:
        calls, self._queue = self._queue, deque()
        for call in calls:
            self._finish(call, unavailable())

    def _look(self) -> None:
        """One tick: refuses queued calls that are too old, and drops the connection when a sent one is."""
        self._watch = None
        self._tick += 1
        while self._queue and self._queue[0].tick + TICKS <= self._tick:
            self._finish(self._queue.popleft(), unavailable())
        if self._flying and self._flying[0].tick + TICKS <= self._tick and self._link is not None:
            self.timeouts += 1
            self._refused_until = self._loop.time() + self._settings.backoff_min_s
            self._link.abort()
        if self._pending and not self._closed:
            self._watch = self._loop.call_later(self._settings.command_s / TICKS, self._look)
