"""How presence, task and batch channels stand: where a node reads it, and how readers share one reading."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Coroutine, Iterable
from contextlib import suppress
from typing import Any, NamedTuple

from dualcast.model.errors import DualcastError

log = logging.getLogger("dualcast.session")

Source = Callable[[str, str], Awaitable[bytes | None]]
"""(tenant, channel) → its state as minified JSON without newlines, which holds the `revision` that later
publications count on from; None: there is no such thing."""

READ_TIMEOUT_S = 3.0
MAX_READS = 32
"""States a node reads at the same time."""
MAX_STATE_BYTES = 128 * 1024
MAX_SESSION_BYTES = 512 * 1024
"""All states together that one connection or command is given."""


class State(NamedTuple):
    """How a channel stands. `data` None: `status` says why, as in the frame."""

    data: bytes | None
    status: str = ""


AWAY = State(None, "away")
NONE = State(None, "none")
TOO_LARGE = State(None, "too-large")

_Key = tuple[str, str]


class ChannelStates:
    """The sources of a node's channel states, by kind of channel. Reads of one channel are shared: those who
    ask while it is being read wait for the next reading, all of them for the same one."""

    def __init__(
        self, spawn: Callable[[Coroutine[Any, Any, None]], None], *, timeout_s: float = READ_TIMEOUT_S
    ) -> None:
        self.sources: dict[str, Source] = {}
        self._spawn = spawn
        self._timeout_s = timeout_s
        self._slots = asyncio.Semaphore(MAX_READS)
        self._next: dict[_Key, asyncio.Future[State]] = {}
        self._reading: set[_Key] = set()

    def has(self, channel: str) -> bool:
        """Whether a channel of this kind has a state."""
        return channel.partition(":")[0] in self.sources

    async def read(self, tenant: str, channels: Iterable[str]) -> dict[str, State]:
        """The states of `channels`, each read after this call and within the time limit; `away` otherwise."""
        waiting = {name: self._ask((tenant, name)) for name in channels}
        if waiting:
            await asyncio.wait(waiting.values(), timeout=self._timeout_s)
        found: dict[str, State] = {}
        size = 0
        for name, future in waiting.items():
            done = future.done() and not future.cancelled()
            state = future.result() if done else AWAY
            size += len(state.data or b"")
            found[name] = state if size <= MAX_SESSION_BYTES else TOO_LARGE
        return found

    def _ask(self, key: _Key) -> asyncio.Future[State]:
        # A reading that has begun is of no use: it may be older than the position the caller goes by.
        future = self._next.get(key)
        if future is None:
            future = self._next[key] = asyncio.get_running_loop().create_future()
            if key not in self._reading:
                self._reading.add(key)
                self._spawn(self._serve(key))
        return future

    async def _serve(self, key: _Key) -> None:
        """Reads until nobody waits for the channel any more."""
        future: asyncio.Future[State] | None = None
        try:
            while key in self._next:
                state = AWAY
                with suppress(TimeoutError):
                    # Waiting for a slot counts: when a store hangs, nothing piles up behind it.
                    async with asyncio.timeout(self._timeout_s), self._slots:
                        future = self._next.pop(key)
                        state = await self._load(*key)
                future = future or self._next.pop(key)
                future.set_result(state)
                future = None
        finally:
            self._reading.discard(key)
            for left in (future, self._next.pop(key, None)):
                if left is not None:
                    left.cancel()

    async def _load(self, tenant: str, channel: str) -> State:
        try:
            data = await self.sources[channel.partition(":")[0]](tenant, channel)
        except DualcastError:
            return AWAY
        except TimeoutError:
            raise
        except Exception:
            # A room edge: whoever asks is let in without a state, and told so.
            log.exception("the state of a channel could not be read")
            return AWAY
        if data is None:
            return NONE
        return State(data) if len(data) <= MAX_STATE_BYTES else TOO_LARGE
