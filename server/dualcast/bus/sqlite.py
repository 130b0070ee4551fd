"""The sqlite engine, the embedded default: one server, one file, nothing acknowledged is lost by kill -9 or
power cut.

WAL with synchronous=FULL and one writer thread: all appends of a loop turn, and all that came while the
transaction before was written, are one transaction. Receipts and live entries follow its commit. Reads are
snapshots on connections of their own. Offsets of the file are never given out twice, see `sqlite_file` for
files put back from a copy.
"""

from __future__ import annotations

import asyncio
import sqlite3
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

from msgspec.structs import replace

from dualcast.model.cursor import Cursor
from dualcast.model.errors import BusUnavailable, DualcastError
from dualcast.model.publication import Draft, Entry, Page, Quota, Receipt

from .keeping import Keeping, keeping
from .live import LiveFeed
from .port import Follower, Health, Retention
from .record import publication_of
from .sqlite_file import FileLock, connect, finish, prepare
from .sqlite_log import AppendLog, Fresh
from .sqlite_parts import Riders, Work
from .sqlite_read import read_page
from .sqlite_readers import Readers
from .sqlite_writer import Committed, Job, Results, Writer, refuse
from .storage import SqlPart

MAX_PAGE_BYTES = 4 * 1024 * 1024
DRAFT_OVERHEAD_BYTES = 500
T = TypeVar("T")


class SqliteBus:
    """`EventBus` in the file `path`, made when missing.

    At most `max_pending` drafts and works, of `max_pending_bytes`, wait for the disk; beyond, the answer is
    BusUnavailable. `max_heads` bounds the channels remembered. `parts`: what other rooms keep in the file,
    by way of `database`. `clock` gives Unix seconds. `start` raises
    BusUnavailable with code `bus-locked` (another server has the file) or `bus-file` (not a bus file, or it
    cannot be opened).
    """

    def __init__(
        self,
        path: Path,
        retention: Retention | Keeping | None = None,
        *,
        max_pending: int = 50_000,
        max_pending_bytes: int = 64 * 1024 * 1024,
        max_heads: int = 1_000_000,
        parts: Sequence[SqlPart] = (),
        clock: Callable[[], float] = time.time,
    ) -> None:
        self.database = _Beside(self)
        self._path = path
        self._keeping = keeping(retention)
        self._max_pending = max_pending
        self._max_pending_bytes = max_pending_bytes
        self._max_heads = max_heads
        self._parts = parts
        self._clock = clock
        self._feed = LiveFeed(self._position)
        self._tops: dict[str, int] = {}
        """Per tenant the highest offset that was handed to the feed."""
        self._epochs: list[str] = []
        self._turn: list[Job] = []
        self._pending = 0
        self._pending_bytes = 0
        self._refused = 0
        self._open = False
        self._follower: Follower | None = None
        self._writer: Writer | None = None
        self._readers: Readers | None = None
        self._lock: FileLock | None = None
        self._db: sqlite3.Connection | None = None

    async def start(self, follower: Follower) -> None:
        loop = asyncio.get_running_loop()
        self._follower = follower
        self._readers = Readers(self._path, self._max_pending)
        try:
            self._log = await self._readers.once(self._open_file)
        except BaseException:
            self._close_files()
            raise
        self._tops = self._log.tops()
        self._writer = Writer(self._log, loop, committed=self._committed, status=follower.status)
        self._feed.start(follower)
        self._open = True

    def _open_file(self) -> AppendLog:
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            self._lock = FileLock(self._path)
            self._db = connect(self._path)
            self._epochs = prepare(self._db, self._lock, self._parts)
            return AppendLog(
                self._db,
                self._epochs[-1],
                self._keeping,
                clock=self._clock,
                max_heads=self._max_heads,
                riders=Riders(self._parts),
            )
        except (sqlite3.Error, OSError) as error:
            raise BusUnavailable(
                f"the bus file {self._path} cannot be used: {error}", code="bus-file"
            ) from error

    async def close(self) -> None:
        if self._writer is None:
            return
        self._open = False
        self._hand_over()
        writer, self._writer = self._writer, None
        await writer.close()
        self._feed.stop()
        if self._readers is not None:
            await self._readers.once(self._stamp_close)
        self._close_files()

    def _stamp_close(self) -> None:
        try:
            if self._lock is not None and self._db is not None:
                finish(self._db, self._lock)
        except (sqlite3.Error, OSError):
            # Only costs a new epoch at the next start.
            return

    def _close_files(self) -> None:
        if self._readers is not None:
            self._readers.close()
        if self._db is not None:
            self._db.close()
            self._db = None
        if self._lock is not None:
            self._lock.release()
            self._lock = None

    async def append(self, draft: Draft, quota: Quota | None = None) -> Receipt:
        (result,) = await self._append((draft,), quota)
        if isinstance(result, DualcastError):
            raise result
        return result

    async def append_many(
        self, drafts: Sequence[Draft], quota: Quota | None = None
    ) -> list[Receipt | DualcastError]:
        if not drafts:
            return []
        try:
            return await self._append(drafts, quota)
        except BusUnavailable as error:
            return [error for _ in drafts]

    async def read(self, tenant: str, channels: Sequence[str], after: int, limit: int) -> Page:
        page = partial(
            read_page,
            epoch=self._epochs[-1] if self._epochs else "",
            tenant=tenant,
            channels=tuple(channels),
            after=after,
            limit=limit,
            now_ms=int(self._clock() * 1000),
            keep_ms=self._keeping.of(tenant).seconds * 1000,
            max_bytes=MAX_PAGE_BYTES,
        )
        try:
            return await self.run_read(page)
        except sqlite3.Error as error:
            raise BusUnavailable("the bus file cannot be read") from error

    async def head(self, tenant: str) -> Cursor:
        if not self._open:
            raise BusUnavailable("the bus is closed")
        return self._position(tenant)

    async def known_epoch(self, tenant: str, epoch: str) -> bool:
        return epoch in self._epochs

    def watch(self, tenant: str, channel: str) -> None:
        self._feed.watch(tenant, channel)

    def unwatch(self, tenant: str, channel: str) -> None:
        self._feed.unwatch(tenant, channel)

    async def probe(self) -> Health:
        if not self._open:
            return Health(False, "sqlite", detail="closed")
        loop = asyncio.get_running_loop()
        begun = loop.time()
        try:
            await self._append((), None)
        except BusUnavailable:
            return Health(False, "sqlite", detail="the bus file cannot be written")
        command_s = loop.time() - begun
        echo_s = await self._feed.echo()
        return Health(echo_s is not None, "sqlite", command_s=command_s, echo_s=echo_s)

    def stats(self) -> dict[str, float]:
        writer = self._writer
        running = writer is not None
        return {
            "appended": self._log.appended if running else 0,
            "duplicates": self._log.duplicates if running else 0,
            "commits": writer.commits if writer is not None else 0,
            "commit_failures": writer.failures if writer is not None else 0,
            "pending": self._pending,
            "pending_bytes": self._pending_bytes,
            "refused_full": self._refused,
            "reads": self._readers.reads if self._readers is not None else 0,
            "watched_channels": self._feed.watched,
            "held_entries": self._feed.depth,
            "tenants": len(self._tops),
        }

    def _position(self, tenant: str) -> Cursor:
        return Cursor(self._epochs[-1], self._tops.get(tenant, 0))

    async def run_write(self, work: Work) -> Any:
        """`storage.Database.write`."""
        done: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        self._submit(Job((), None, done, DRAFT_OVERHEAD_BYTES, 1, work))
        return await done

    async def run_read(self, work: Callable[[sqlite3.Connection], T]) -> T:
        """`storage.Database.read`."""
        if not self._open or self._readers is None:
            raise BusUnavailable("the bus is closed")
        return await self._readers.run(work)

    async def _append(self, drafts: Sequence[Draft], quota: Quota | None) -> Results:
        done: asyncio.Future[Results] = asyncio.get_running_loop().create_future()
        size = sum(map(_size, drafts))
        self._submit(Job(drafts, quota, done, size, len(drafts)))
        return await done

    def _submit(self, job: Job) -> None:
        if not self._open:
            raise BusUnavailable("the bus is closed")
        full = (
            self._pending + job.weight > self._max_pending
            or self._pending_bytes + job.size > self._max_pending_bytes
        )
        if full and job.weight:
            self._refused += job.weight
            raise BusUnavailable("too many publications wait for the disk", retry_after_s=1.0)
        self._pending += job.weight
        self._pending_bytes += job.size
        self._turn.append(job)
        if len(self._turn) == 1:
            job.done.get_loop().call_soon(self._hand_over)

    def _hand_over(self) -> None:
        jobs, self._turn = self._turn, []
        if jobs and self._writer is not None:
            self._writer.submit(jobs)

    def _committed(self, done: Committed) -> None:
        """On the loop, once per transaction and in their order: live entries first, then receipts."""
        for job in done.jobs:
            self._pending -= job.weight
            self._pending_bytes -= job.size
        if done.results is None:
            refuse(done.jobs, "the bus file cannot be written")
            return
        for fresh in done.fresh:
            self._follow(fresh)
        self._feed.flush()
        for job, answer in zip(done.jobs, done.results, strict=True):
            job.settle(answer)

    def _follow(self, fresh: Fresh) -> None:
        draft, offset, channels, badges = fresh
        tenant = draft.tenant
        if offset:
            self._tops[tenant] = offset
        watched = self._feed.channels(tenant)
        if not watched:
            return
        entries: list[Entry] = []
        due = [(name, prev) for name, prev in channels if name in watched]
        if due:
            publication = publication_of(draft, self._epochs[-1], offset)
            entries = [Entry(publication, name, prev) for name, prev in due]
            if badges:
                for entry in entries:
                    if (badge := badges.get(entry.channel)) is not None:
                        entry.publication = replace(publication, badge=badge)
        self._feed.add(tenant, entries)


def _size(draft: Draft) -> int:
    kept = 1 if draft.inbox is None else len(draft.channels)
    pushed = 0 if draft.push is None else len(draft.push.message)
    return len(draft.data) * kept + pushed + DRAFT_OVERHEAD_BYTES


class _Beside:
    """`storage.Database` of a SqliteBus."""

    __slots__ = ("_bus",)

    def __init__(self, bus: SqliteBus) -> None:
        self._bus = bus

    async def write(self, work: Callable[[sqlite3.Connection], T]) -> T:
        value: T = await self._bus.run_write(work)
        return value

    async def read(self, work: Callable[[sqlite3.Connection], T]) -> T:
        return await self._bus.run_read(work)
