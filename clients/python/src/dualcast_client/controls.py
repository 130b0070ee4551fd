"""What a program may say to an open subscription: other channels, another token, commands."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Mapping
from typing import Any, TypeVar

from msgspec.structs import replace

from .commands import Lost
from .delivery import Inlet
from .errors import DualcastError
from .events import Gap, Published, Welcome
from .flow import Call
from .inbox import AsyncInbox
from .runner import Runner
from .wanted import Backend

T = TypeVar("T")
TRY_OVER_REST = frozenset({"timeout", "not-available", "bus-unavailable", "internal", "busy"})


class Controls:
    """A part of `Stream`."""

    inlet: Inlet

    def __init__(self, backend: Backend) -> None:
        self.backend = backend
        self.runner: Runner | None = None
        self.closed = False

    @property
    def channels(self) -> tuple[str, ...]:
        """What is subscribed, beside the own `user:` channel and `all`."""
        raise NotImplementedError

    @property
    def welcome(self) -> Welcome | None:
        raise NotImplementedError

    def check(self) -> None:
        raise NotImplementedError

    # ── channels ──

    async def subscribe(self, *channels: str, since: str = "") -> None:
        """Adds channels while it is open: when it returns, what is published on them will be given; `since` a
        cursor, what was before, too, marked `recovered`. All or nothing; waits while there is no connection.
        Over SSE the stream is opened anew, and what the channels had after `cursor` comes as well. Raises
        DualcastError (`forbidden-channel` …)."""
        runner = self._open()
        names = tuple(name for name in dict.fromkeys(channels) if name and name not in self.channels)
        if not names:
            return
        fields: dict[str, Any] = {"type": "subscribe", "channels": names}
        fields |= {"since": since} if since else {}
        with _Waiting(self.inlet):
            while True:
                await self._live()
                if (socket := runner.socket) is None:
                    await self._restarted(runner, names)
                    break
                try:
                    await self._ask(socket.send, fields)
                except Lost:
                    continue
                except asyncio.CancelledError:
                    runner.restart("channels")  # it may have been carried out: without it, then
                    raise
                runner.wanted = replace(runner.wanted, channels=_joined(self.channels, names))
                if runner.socket is not socket:  # left since the reply, and opened anew without them
                    runner.restart("channels")
                return
        if since:
            for name in names:
                gap = Gap(channel=name, reason="late", after=since)
                for one in (await runner.fill(gap))[0]:
                    if self.inlet.first(one.id):
                        self.inlet.put(one, None)

    async def unsubscribe(self, *channels: str) -> None:
        """Takes channels away: when it returns nothing more of them will be given."""
        runner = self._open()
        names = tuple(name for name in dict.fromkeys(channels) if name in self.channels)
        if not names:
            return
        left = tuple(name for name in self.channels if name not in names)
        runner.wanted = replace(runner.wanted, channels=left)  # so that no other connection brings them
        with _Waiting(self.inlet):
            while runner.line.phase in ("opening", "live"):
                if runner.line.phase == "opening":  # it was asked for with them
                    await self._change()
                    continue
                if (socket := runner.socket) is None:
                    runner.restart("channels")
                    break
                try:
                    await self._ask(socket.send, {"type": "unsubscribe", "channels": names})
                except Lost:
                    continue
                except BaseException:
                    runner.restart("channels")  # another connection, without them
                    raise
                break
        self.inlet.take_back(names)

    async def _restarted(self, runner: Runner, names: tuple[str, ...]) -> None:
        """A stream says in its URL what it wants: another one."""
        async with runner.turn:
            self._open()
            runner.refused, runner.trying = None, names
            runner.wanted = replace(runner.wanted, channels=_joined(self.channels, names))
            runner.restart("channels")
            try:
                while runner.trying:
                    await self._change()
            except BaseException:
                if runner.trying:
                    runner.give_way(DualcastError("cancelled"))
                raise
            if runner.refused is not None:
                raise runner.refused

    # ── commands ──

    async def authenticate(self, token: str = "") -> None:
        """Takes another token to the server, over an open WebSocket without a break; the client uses it from
        now on. "": the one that the client's `token` function gives. Before a token expires this happens by
        itself where the client has such a function."""
        runner = self._open()
        if token:
            self.backend.use_token(token)
        await runner.authenticate()

    @property
    def inbox(self) -> AsyncInbox:
        """The own inbox: over the WebSocket where there is one, else over REST. A WebSocket is not told of
        what was changed over it; the user's other connections are."""
        if self.welcome is None:
            raise RuntimeError("enter the stream first")
        return AsyncInbox(self.call, self.welcome.user)

    async def backfill(self, gap: Gap) -> list[Published]:
        """What history has of a gap and was not given yet, oldest first; up to 10,000. Of a gap `trimmed` or
        `epoch` there is nothing: what is left comes by itself."""
        found, _ = await self._open().fill(gap)
        return [one for one in found if self.inlet.first(one.id)]

    async def call(self, call: Call[T]) -> T:
        """One call: as a command where it has one and there is a WebSocket. Raises DualcastError."""
        runner = self._open()
        if call.command is not None and call.reply is not None and (socket := runner.socket) is not None:
            try:
                with _Waiting(self.inlet):
                    return call.reply(await self._ask(socket.send, call.command))
            except Lost:
                pass
            except DualcastError as error:
                if error.code not in TRY_OVER_REST:
                    raise
        return await self.backend.call(call)

    async def _ask(self, send: Callable[[str], Awaitable[None]], fields: Mapping[str, Any]) -> dict[str, Any]:
        if self.inlet.flooded:
            raise DualcastError("busy", 0, "too much is unread to wait for a reply", retryable=True)
        assert self.runner is not None
        return await self.runner.commands.ask(send, fields)

    def _open(self) -> Runner:
        if self.runner is None or self.closed:
            raise DualcastError("closed", 0, "the subscription is not open")
        return self.runner

    async def _live(self) -> None:
        while self._open().line.phase != "live":
            self.check()
            await self._change()

    async def _change(self) -> None:
        """Waits for another status, or the end."""
        self._open()
        self.check()
        await self.inlet.changed()


class _Waiting:
    """While a command waits for its reply the buffer may grow: the reply stands behind what is unread."""

    def __init__(self, inlet: Inlet) -> None:
        self._inlet = inlet

    def __enter__(self) -> None:
        self._inlet.commands += 1
        self._inlet.wake()

    def __exit__(self, *_: object) -> None:
        self._inlet.commands -= 1


def _joined(channels: Iterable[str], more: Iterable[str]) -> tuple[str, ...]:
    return tuple(dict.fromkeys((*channels, *more)))
