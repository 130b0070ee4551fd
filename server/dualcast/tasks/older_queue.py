"""Tasks and batches of the older queue, which keeps them in Redis (contract sections 3.10 and 10): read,
never written.

| key | type | fields |
|---|---|---|
| `qa:task:{id}` | hash | as in TASK_FIELDS, and some more |
| `qa:batch:{id}` | hash | user, status, submitted, created_at |
| `qa:batch_tasks:{id}` | set | task ids |

The older queue knows no tenants: everything in it belongs to one. It does not say what changes, so a batch
somebody watches is read again and again, once per node however many watch, and changes are announced as those
of dualcast's own batches.
"""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from hashlib import blake2b
from typing import NoReturn, Protocol

from msgspec import Struct

from dualcast.bus.announcing import Announcer
from dualcast.model.channel import check_channel, check_id
from dualcast.model.errors import BadChannel, DualcastError
from dualcast.model.publication import Receipt

from .model import STATES, Batch, BatchFacts, Counts, State, Task, encode, make_batch
from .older_values import number, text, time_ms, value

_log = logging.getLogger(__name__)
TASK_FIELDS = (
    "user",
    "symbol",
    "status",
    "created_at",
    "batch_id",
    "started_at",
    "completed_at",
    "result",
    "error",
)
BATCH_FIELDS = ("user", "submitted", "created_at")
MEMBER_FIELDS = ("status", "started_at")


class Keys(Protocol):
    """Where it is read; `bus.redis.plain.PlainKeys` is one. Raises BusUnavailable."""

    async def fields(self, keys: Sequence[str], names: Sequence[str]) -> list[list[bytes | None]]: ...

    async def members(self, key: str, most: int) -> list[bytes]: ...

    async def time_us(self) -> int: ...


class OlderQueueSettings(Struct, frozen=True, kw_only=True):
    """Whose it is, and bounds."""

    tenant: str = "default"
    batch_poll_s: float = 2.0
    """Between two readings of a batch (`SSE_BATCH_POLL_INTERVAL_SECONDS`)."""
    max_batch_tasks: int = 10_000
    """Of a larger batch no more are counted."""
    max_followed: int = 1_000
    """Batches this node reads again and again; of more, watchers see the state of their opening."""
    ttl_s: int = 600
    """Life of an announced change."""


@dataclass(slots=True)
class _Followed:
    """A batch that is watched here. `shown`: counts and total as last told; `told_at`: the offset of the
    latest telling, 0 before the first."""

    shown: tuple[Counts, int]
    told_at: int = 0
    idle: bool = False
    """Nobody watched at the last look."""


class OlderQueue:
    """`watched`: whether this node has subscribers of a channel of the tenant. Methods raise BusUnavailable;
    `run` belongs to the application.
    """

    def __init__(
        self,
        keys: Keys,
        announcer: Announcer,
        watched: Callable[[str, str], bool],
        settings: OlderQueueSettings | None = None,
    ) -> None:
        self._keys = keys
        self._announcer = announcer
        self._watched = watched
        self._settings = settings or OlderQueueSettings()
        self._followed: dict[str, _Followed] = {}
        self.failed = 0
        """Readings and announcements that failed."""

    @property
    def followed(self) -> int:
        """Batches that are read again and again."""
        return len(self._followed)

    async def owner(self, tenant: str, channel: str) -> str | None:
        """The user of a `task:` or `batch:` channel's task or batch; "": it has none; None: not known."""
        kind, ident = self._mine(tenant, channel)
        if kind == "task":
            found = await self._task(ident)
            return None if found is None else found.owner
        if kind == "batch":
            row = (await self._keys.fields([f"qa:batch:{ident}"], BATCH_FIELDS))[0]
            return None if row == [None] * len(BATCH_FIELDS) else _user(row[0])
        return None

    async def state(self, tenant: str, channel: str) -> bytes | None:
        """The JSON of a Task or Batch, as dualcast's own are told; None: not known. A batch that has not
        ended is followed from now on, while it is watched.
        """
        kind, ident = self._mine(tenant, channel)
        if kind == "task":
            task = await self._task(ident)
            return None if task is None else encode(task)
        if kind != "batch":
            return None
        found = await self._batch(ident)
        if found is None:
            return None
        batch, _ = found
        if batch.state == "processing":
            self._follow(batch)
        return encode(batch)

    async def task(self, tenant: str, ident: str) -> Task | None:
        """A task by its id."""
        kind, ident = self._mine(tenant, "task:" + ident)
        return await self._task(ident) if kind else None

    async def run(self) -> NoReturn:
        """Reads what is followed again, until cancelled."""
        while True:
            await asyncio.sleep(self._settings.batch_poll_s)
            await self.look()

    async def look(self) -> None:
        """Reads every followed batch once and tells what has changed. Stops when Redis or the bus is away."""
        for ident, followed in list(self._followed.items()):
            if not self._watched(self._settings.tenant, "batch:" + ident):
                # One look of grace: whoever asked for the state may be about to subscribe.
                if followed.idle:
                    del self._followed[ident]
                followed.idle = True
                continue
            followed.idle = False
            try:
                await self._tell(ident, followed)
            except DualcastError as error:
                self.failed += 1
                _log.warning("batches of the older queue cannot be read or told now: %s", error.code)
                return

    async def _tell(self, ident: str, followed: _Followed) -> None:
        found = await self._batch(ident)
        if found is None:
            del self._followed[ident]
            return
        batch, print_ = found
        if _shown(batch) == followed.shown:
            return
        # Other nodes that watch the batch find the same and give it the same id: it is told once.
        receipt = await self._announce(batch, f"q-{print_}")
        if receipt.duplicate and receipt.offset < followed.told_at:
            # It was like that before, and has been otherwise since.
            receipt = await self._announce(batch, f"q-{print_}-{followed.told_at}")
        followed.told_at = max(followed.told_at, receipt.offset)
        followed.shown = _shown(batch)
        if batch.state != "processing":
            del self._followed[ident]

    async def _announce(self, batch: Batch, ident: str) -> Receipt:
        channel = "batch:" + batch.id
        return await self._announcer.announce(
            self._settings.tenant,
            (channel,),
            "batch",
            encode(batch),
            ident=ident,
            conflation_key=channel,
            terminal=batch.finished,
            ttl_s=self._settings.ttl_s,
        )

    def _follow(self, batch: Batch) -> None:
        if batch.id in self._followed:
            return
        if len(self._followed) >= self._settings.max_followed:
            _log.warning("more batches of the older queue are watched than are followed")
            return
        self._followed[batch.id] = _Followed(_shown(batch))

    def _mine(self, tenant: str, channel: str) -> tuple[str, str]:
        """Kind and id; ("", "") for what the older queue cannot know."""
        kind, _, ident = check_channel(channel).partition(":")
        known = tenant == self._settings.tenant and kind in ("task", "batch")
        return (kind, ident) if known else ("", "")

    async def _task(self, ident: str) -> Task | None:
        row = (await self._keys.fields([f"qa:task:{ident}"], TASK_FIELDS))[0]
        if row == [None] * len(TASK_FIELDS):
            return None
        user, symbol, status, created, batch, started, completed, result, error = row
        state = _state(status)
        ended = state in ("completed", "failed", "cancelled")
        created_ms, started_ms, completed_ms = time_ms(created), time_ms(started), time_ms(completed)
        return Task(
            id=ident,
            owner=_user(user),
            batch=text(batch),
            title=text(symbol),
            state=state,
            percent=100.0 if state == "completed" else None,
            result=value(result) if ended else None,
            error=text(error) if ended else "",
            created_ms=created_ms,
            started_ms=started_ms or None,
            updated_ms=max(created_ms, started_ms, completed_ms),
            completed_ms=(completed_ms or None) if ended else None,
            # Below whatever is published of it later (`revision` of ingested progress begins at 1).
            revision=0,
        )

    async def _batch(self, ident: str) -> tuple[Batch, str] | None:
        """A batch, and a fingerprint of its tasks' states."""
        # Redis's own clock, and before anything is read: of two nodes' readings the later one has the higher
        # revision, whatever their clocks say.
        now_us = await self._keys.time_us()
        row = (await self._keys.fields([f"qa:batch:{ident}"], BATCH_FIELDS))[0]
        if row == [None] * len(BATCH_FIELDS):
            return None
        user, submitted, created = row
        tasks = sorted(await self._keys.members(f"qa:batch_tasks:{ident}", self._settings.max_batch_tasks))
        names = [f"qa:task:{text(task)}" for task in tasks]
        rows = await self._keys.fields(names, MEMBER_FIELDS) if names else []
        states = Counter(_state(status) for status, _ in rows)
        counts = Counts(*(states[state] for state in STATES))
        print_ = blake2b(repr((ident, row, tasks, rows)).encode(), digest_size=16).hexdigest()
        now_ms = now_us // 1000
        declared = number(submitted)
        batch = make_batch(
            BatchFacts(ident, _user(user)),
            counts,
            declared,
            created_ms=time_ms(created),
            updated_ms=now_ms,
            completed_ms=now_ms if counts.ended and counts.ended >= max(declared, counts.joined) else 0,
            revision=now_us,
        )
        return batch, print_


def _shown(batch: Batch) -> tuple[Counts, int]:
    counts = Counts(batch.queued, batch.processing, batch.completed, batch.failed, batch.cancelled)
    return counts, batch.total


def _state(raw: bytes | None) -> State:
    """A task without a state, or with one nobody knows, has not begun."""
    found = text(raw)
    return next((state for state in STATES if state == found), "queued")


def _user(raw: bytes | None) -> str:
    """A user id, "" when it is none."""
    try:
        return check_id(text(raw))
    except BadChannel:
        return ""
