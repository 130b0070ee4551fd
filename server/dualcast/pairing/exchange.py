"""The node's side of instances over all nodes: tells what changed here, hears what changed elsewhere."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from typing import NoReturn, Protocol

import structlog

from dualcast.model.errors import BusUnavailable

from .port import Answer, Name, PairSettings, PairStore, Row, Told

log = structlog.get_logger("dualcast.pairing")


class Listener(Protocol):
    """Who knows this node's sessions: `session.pairing.Pairing`. Called on the loop, must not raise."""

    def row(self, name: Name) -> Row | None:
        """The session as it is now; None: it is gone."""
        ...

    def names(self) -> Iterable[Name]:
        """All sessions there are."""
        ...

    def news(self, key: str, rows: Sequence[Row]) -> None:
        """All there is of an instance on other nodes."""
        ...

    def doubt(self) -> None:
        """What was told may be over; who still is will be told again."""
        ...

    def settle(self) -> None:
        """What was doubted and not told again is over."""
        ...

    def forget(self) -> None:
        """Everything that was told is over."""
        ...


class Exchange:
    """One per node. `changed` is called by the sessions' index, `run` is the loop, `close` takes everything
    off. Must be made on the running loop."""

    def __init__(
        self,
        store: PairStore,
        settings: PairSettings | None = None,
        *,
        node: str,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._store = store
        self._settings = settings or PairSettings()
        self._node = node
        self._now = monotonic
        self._listener: Listener | None = None
        self._dirty: dict[Name, bool] = {}
        """What is to be told, and whether all there is of its instance is to be heard anew."""
        self._wake = asyncio.Event()
        self._incarnation = 0
        self._new = True
        self._ack = 0
        self._heard_at = self._now()
        self._settle_at = 0.0
        self._away = False
        self.failures = 0
        """Calls of the store that failed."""
        self.lost = 0
        """How often the store did not know this node any more."""

    def connect(self, listener: Listener) -> None:
        """Who is asked and told; once, before `run`."""
        self._listener = listener

    def changed(self, name: Name, *, anew: bool = False) -> None:
        """A session came, went or changed. It is looked at with the next call. `anew`: it may be known, and
        what was heard of its instance is not."""
        self._dirty[name] = anew or self._dirty.get(name, False)
        self._wake.set()

    async def run(self) -> NoReturn:
        """Calls once per tick, sooner when something changed, for ever."""
        while True:
            more = await self.tick()
            await asyncio.sleep(self._settings.pause_s)
            rest_s = max(0.0, self._settings.tick_s - self._settings.pause_s)
            if self._away:
                await asyncio.sleep(rest_s)
            elif not more:
                with suppress(TimeoutError):
                    async with asyncio.timeout(rest_s):
                        await self._wake.wait()

    async def tick(self) -> bool:
        """One call. True: there is more to tell or to hear."""
        listener = self._listener
        assert listener is not None, "connect first"
        self._wake.clear()
        batch, rows, gone = self._batch(listener)
        told = Told(
            node=f"{self._node}.{self._incarnation}",
            new=self._new,
            lease_ms=int(self._settings.lease_s * 1000),
            ack=self._ack,
            anew=any(batch.values()),
            rows=rows,
            gone=gone,
        )
        begun = self._now()
        try:
            answer = await self._store.sync(told)
        except BusUnavailable:
            self._failed(listener, batch)
            return False
        except BaseException:
            self._put_back(batch)
            raise
        return self._heard(listener, answer, begun)

    def _batch(self, listener: Listener) -> tuple[dict[Name, bool], list[tuple[str, Row]], list[Name]]:
        """What is told now, bounded in rows and bytes; taken out of what waits."""
        batch: dict[Name, bool] = {}
        rows: list[tuple[str, Row]] = []
        gone: list[Name] = []
        size = 0
        for name, anew in self._dirty.items():
            if len(batch) >= self._settings.batch or size >= self._settings.batch_bytes:
                break
            batch[name] = anew
            row = listener.row(name)
            if row is None:
                gone.append(name)
                continue
            rows.append((name[0], row))
            if row.socket is not None:
                size += sum(map(len, row.socket.channels)) + sum(map(len, row.socket.roles))
        for name in batch:
            del self._dirty[name]
        return batch, rows, gone

    def _put_back(self, batch: dict[Name, bool]) -> None:
        for name, anew in batch.items():
            self.changed(name, anew=anew)

    def _failed(self, listener: Listener, batch: dict[Name, bool]) -> None:
        self.failures += 1
        self._put_back(batch)
        if not self._away:
            self._away = True
            log.warning("instances cannot be exchanged with other nodes now")
        if self._now() - self._heard_at > self._settings.lease_s:
            listener.forget()

    def _heard(self, listener: Listener, answer: Answer, begun: float) -> bool:
        now = self._now()
        self._away = False
        if now - self._heard_at > self._settings.lease_s:
            # The store was away or the loop stood still: nobody knows what happened meanwhile. To the store
            # it may be no news, so it is asked for.
            listener.forget()
            self._dirty.update(dict.fromkeys(listener.names(), True))
        self._heard_at = begun
        if answer.lost:
            self.lost += 1
            self._incarnation += 1
            self._new, self._ack = True, 0
            self._dirty = dict.fromkeys(listener.names(), False)
            self._settle_at = now + self._settings.doubt_s
            listener.doubt()
            return True
        self._new = False
        for key, rows in answer.news:
            listener.news(key, rows)
        if answer.news:
            self._ack = answer.ack
        if self._settle_at and now >= self._settle_at:
            self._settle_at = 0.0
            listener.settle()
        return answer.more or bool(self._dirty)

    async def close(self) -> None:
        """Takes this node's sessions off, as far as one call does; `run` must have been cancelled. The rest
        ends with the lease."""
        try:
            async with asyncio.timeout(1.0):
                while self._dirty and await self.tick():
                    pass
        except TimeoutError:
            return

    def gauges(self) -> dict[str, float]:
        """For `/metrics`."""
        return {
            "pairing_pending": float(len(self._dirty)),
            "pairing_failures": float(self.failures),
            "pairing_leases_lost": float(self.lost),
        }
