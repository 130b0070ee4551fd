"""What older backends publish, taken in: heard by every node, appended once.

Every node hears every message and appends it, under a key that all of them make alike: the payload's `id`, or
its hash and which occurrence of it that was (`lua/sight.lua`). The first append counts, the others are
duplicates. So no node waits for another, whoever dies loses nothing that another heard, and the order is that
of the channel (but for frames to one connection, which each node that has one of that name takes in for it,
at its own pace). Redis's pub/sub promises no more: what is published while no node is subscribed is lost.

Everything is appended to the bus behind the copies, so what came in never goes out again; what dualcast said
itself is known by its `instance_id` or by a mark set together with it.
"""

from __future__ import annotations

import asyncio
import logging
import secrets
import time
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, NoReturn, Protocol

from msgspec import Struct

from dualcast.bus.port import EventBus
from dualcast.model.errors import BusUnavailable, DualcastError
from dualcast.model.publication import Audience, Draft
from dualcast.tasks.errors import UnknownTask
from dualcast.tasks.rules import Report

from .legacy_redis import Hearing, OlderRedis, Sight, Sighting, mark
from .older_drafts import frame_draft, notification_draft, task_draft
from .older_presence import OlderPresence
from .older_shapes import (
    Broadcast,
    Message,
    Notification,
    Presence,
    Progress,
    Unreadable,
    read,
)
from .quiet import Quiet

_log = logging.getLogger(__name__)
AT_ONCE = 256


class IngestSettings(Struct, frozen=True, kw_only=True):
    """Bounds of what waits to be taken in."""

    max_payload_bytes: int = 65_536
    max_waiting: int = 30_000
    """Messages, some seconds' work; beyond, new ones are dropped here (other nodes may have them), counted
    and logged."""
    max_bytes: int = 16 * 1024 * 1024
    patience_s: float = 15.0
    """How long a message waits for Redis to come back. With the time a process may stand still
    (`Listening.stale_s`) less than the bus remembers keys (60 s at least)."""
    retry_s: float = 0.2
    close_s: float = 3.0
    """How long closing may take to take in what was heard."""


class Tasks(Protocol):
    """`tasks.service.TaskService`, announcing on the bus that makes no copies."""

    async def report(self, tenant: str, ident: str, report: Report) -> Any: ...

    async def run(self) -> NoReturn: ...


Owner = Callable[[str, str], Awaitable[str | None]]
"""(tenant, `task:` channel) → whose task of the older queue it is; None or "": nobody's
(`tasks.older_queue.OlderQueue.owner`)."""
FindConnection = Callable[[str], tuple[str, str] | None]
"""A name of a connection of this node → (user, dualcast's id). Nodes that do not have it leave the message to
the one that has."""


class Heard(Struct, frozen=True):
    """A message as it came."""

    subscription: str
    since: int
    number: int
    channel: str
    payload: bytes
    hash: str


class Ingest:
    """See the module docstring. `run` is owned by the application; `bus`: the one that makes no copies."""

    def __init__(
        self,
        hearing: Hearing,
        redis: OlderRedis,
        bus: EventBus,
        tasks: Tasks,
        presence: OlderPresence,
        owner: Owner,
        find: FindConnection,
        *,
        tenant: str,
        settings: IngestSettings | None = None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._hearing = hearing
        self._redis = redis
        self._bus = bus
        self._tasks = tasks
        self._presence = presence
        self._owner = owner
        self._find = find
        self._tenant = tenant
        self._settings = settings or IngestSettings()
        self._clock = clock
        self._subscription, self._since, self._number = "", 0, 0
        self._waiting: deque[Heard] = deque()
        self._queue: list[list[tuple[Heard, Message]]] = []
        """What is being taken in, in the portions it is tried in."""
        self._bytes = 0
        self._changed = asyncio.Event()
        self._may_log_unreadable, self._may_log_dropped = Quiet(), Quiet()
        self.heard = 0
        self.taken = 0
        """Publications and changes this node was the first to make."""
        self.repeated = 0
        """Those another node was faster with, and comings and goings that are not so any more."""
        self.own = 0
        """Messages dualcast had published itself."""
        self.unreadable = 0
        self.unknown = 0
        """Messages for tasks nobody knows and for connections this node does not have."""
        self.refused = 0
        self.dropped = 0
        """Too many waited, or Redis stayed away."""

    @property
    def waiting(self) -> int:
        return len(self._waiting)

    async def run(self) -> NoReturn:
        """Hears and takes in until cancelled."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self._hearing.run(self._hear, self._opened))
            group.create_task(self._work())
        raise AssertionError("neither loop ends")

    def _opened(self, since: int) -> None:
        self._subscription, self._since, self._number = secrets.token_hex(8), since, 0

    def _hear(self, channel: bytes, payload: bytes) -> None:
        self.heard += 1
        self._number += 1
        settings = self._settings
        if len(payload) > settings.max_payload_bytes:
            self._unreadable(channel, f"it has more than {settings.max_payload_bytes} bytes")
            return
        try:
            name = channel.decode()
        except UnicodeDecodeError:
            self._unreadable(channel, "its channel is not UTF-8")
            return
        if len(self._waiting) >= settings.max_waiting or self._bytes + len(payload) > settings.max_bytes:
            self.dropped += 1
            if self._may_log_dropped():
                _log.warning("older backends say more than is taken in: %d messages dropped", self.dropped)
            return
        self._bytes += len(payload)
        self._waiting.append(
            Heard(self._subscription, self._since, self._number, name, payload, mark(name, payload))
        )
        self._changed.set()

    def _unreadable(self, channel: bytes, why: str) -> None:
        self.unreadable += 1
        if self._may_log_unreadable():  # a backend that says nothing else must not fill the log
            # Without the payload: it is somebody's message.
            _log.warning("a message on %.100r of an older backend was dropped: %s", channel, why)

    async def close(self) -> None:
        """Takes in what was heard, within `close_s`; `run` must have been cancelled."""
        try:
            async with asyncio.timeout(self._settings.close_s):
                while self._queue or self._waiting:
                    await self._next_in()
        except TimeoutError:
            left = sum(map(len, self._queue)) + len(self._waiting)
            self.dropped += left
            _log.warning("%d messages of older backends were dropped: the server stops", left)

    async def _work(self) -> NoReturn:
        while True:
            if not self._queue and not self._waiting:
                self._changed.clear()
                await self._changed.wait()
            await self._next_in()

    async def _next_in(self) -> None:
        """Takes in some messages. Cancelled, they are begun again by the next call, which is harmless."""
        if not self._queue:
            self._queue = [self._read(self._next())]
        messages = self._queue[0]
        until = asyncio.get_running_loop().time() + self._settings.patience_s
        parts: list[list[tuple[Heard, Message]]] = []
        while messages:
            try:
                await self._take(messages)
                break
            except BusUnavailable:
                if asyncio.get_running_loop().time() > until:
                    self.dropped += len(messages)
                    _log.warning("%d messages of older backends were dropped: no bus", len(messages))
                    break
                await asyncio.sleep(self._settings.retry_s)
            except Exception:  # noqa: BLE001 — a loop's edge: one odd message must not end taking in
                if len(messages) == 1:
                    _log.exception("a message of an older backend could not be taken in")
                    self.dropped += 1
                else:
                    # Each by itself: the others are not to be lost with it, and those taken in stay so.
                    parts = [[one] for one in messages]
                break
        self._queue[:1] = parts

    def _next(self) -> list[Heard]:
        """What waits, in order: of one subscription, and no message twice (`lua/sight.lua` knows a call that
        is repeated by the last number of each)."""
        batch: list[Heard] = []
        hashes: set[str] = set()
        while self._waiting and len(batch) < AT_ONCE:
            one = self._waiting[0]
            if batch and (one.subscription != batch[0].subscription or one.hash in hashes):
                break
            hashes.add(one.hash)
            batch.append(self._waiting.popleft())
        self._bytes -= sum(len(one.payload) for one in batch)
        return batch

    def _read(self, batch: Sequence[Heard]) -> list[tuple[Heard, Message]]:
        """Those of `batch` that are for us, with what they say."""
        found: list[tuple[Heard, Message]] = []
        for one in batch:
            try:
                said = read(one.channel, one.payload)
            except Unreadable as error:
                self._unreadable(one.channel.encode(), str(error))
                continue
            if said is None:
                self.own += 1
            else:
                found.append((one, said))
        return found

    async def _take(self, messages: Sequence[tuple[Heard, Message]]) -> None:
        """Takes messages in; doing it again is harmless. Raises BusUnavailable."""
        first = messages[0][0]
        seen = [Sighting(one.hash, one.number, _subject(said)) for one, said in messages]
        sights = await self._redis.sight(first.subscription, first.since, seen)
        own = late = 0
        drafts: list[Draft] = []
        reports: dict[str, list[tuple[Progress, Sight, str]]] = {}
        presence: list[Presence] = []
        for (_, said), sighting, sight in zip(messages, seen, sights, strict=True):
            key = f"{sighting.hash}-{sight.place}"
            if not sight.place:
                own += 1
            elif isinstance(said, Notification):
                drafts.append(notification_draft(said, self._tenant, key, self._now_ms()))
            elif isinstance(said, Broadcast):
                drafts += self._broadcast(said, key)
            elif isinstance(said, Progress):
                reports.setdefault(said.task, []).append((said, sight, key))
            elif sight.latest:
                presence.append(said)
            else:
                late += 1
        results = await asyncio.gather(
            self._append(drafts),
            self._present(presence),
            *(self._report(one) for one in reports.values()),
            return_exceptions=True,
        )
        for result in results:
            if isinstance(result, BaseException):
                raise result
        self.own += own
        self.repeated += late

    # ── each kind ──

    def _broadcast(self, said: Broadcast, key: str) -> list[Draft]:
        user, audience = said.user, None
        if said.connection:
            found = self._find(said.connection)
            if found is None or user not in ("", found[0]):
                # Another node's, or an older backend's own; or somebody else's who chose that name.
                self.unknown += 1
                return []
            user, audience = found[0], Audience(connections=(found[1],))
            # Another node may have one of that name as well, half open or half closed: each tells its own.
            key = f"{key}-{found[1]}"
        elif said.device:
            audience = Audience(devices=(said.device,))
        try:
            return [frame_draft(said, self._tenant, key, self._now_ms(), user, audience)]
        except Unreadable as error:
            self._unreadable(b"ws:broadcast", str(error))
            return []

    async def _report(self, reports: Sequence[tuple[Progress, Sight, str]]) -> None:
        """The messages about one task, in order. Of a registered one they are reports, of one in the older
        queue publications of what they say; others have no owner and are left out. The sequence makes all
        nodes' reports of one message one, so a worker of such a task gives no sequence of its own."""
        for said, sight, key in reports:
            report = Report(
                state=said.state,  # type: ignore[arg-type]
                step=said.step,
                total_steps=said.total_steps,
                percent=said.percent,
                message=said.message,
                result=said.result,
                error=said.error,
                sequence=sight.sequence,
            )
            try:
                await self._tasks.report(self._tenant, said.task, report)
                self.taken += 1
            except UnknownTask:
                await self._unregistered(said, sight, key)
            except BusUnavailable:
                raise
            except DualcastError as error:
                self.refused += 1
                _log.info("a report of an older backend was refused: %s", error.code)

    async def _unregistered(self, said: Progress, sight: Sight, key: str) -> None:
        owner = await self._owner(self._tenant, "task:" + said.task)
        if not owner:
            self.unknown += 1
            return
        await self._append([task_draft(said, self._tenant, key, self._now_ms(), owner, sight.sequence)])

    async def _present(self, said: Sequence[Presence]) -> None:
        for one in said:
            await self._presence.take(one, self._now_ms())
            self.taken += 1

    async def _append(self, drafts: Sequence[Draft]) -> None:
        if not drafts:
            return
        unavailable: BusUnavailable | None = None
        for result in await self._bus.append_many(drafts):
            if isinstance(result, BusUnavailable):
                unavailable = result
            elif isinstance(result, DualcastError):
                self.refused += 1
                _log.warning("a message of an older backend was refused: %s", result.code)
            elif result.duplicate:
                self.repeated += 1
            else:
                self.taken += 1
        if unavailable is not None:
            raise unavailable

    def _now_ms(self) -> int:
        return int(self._clock() * 1000)


def _subject(said: Message) -> str:
    return mark(said.instance, said.user.encode()) if isinstance(said, Presence) else ""
