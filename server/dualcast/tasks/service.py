"""Tasks and batches: registered with an owner, reported, finished; stored first, announced afterwards."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Iterable, Mapping
from typing import Any, NoReturn

from dualcast.bus.announcing import Announcer
from dualcast.model.channel import check_channel, check_id
from dualcast.model.errors import BadCursor, DualcastError
from dualcast.tenancy.grants import Grant, Grants, make_grant

from .access import ChannelAccess
from .announcements import Announcements
from .errors import BadReport, TaskConflict, UnknownBatch, UnknownTask
from .model import FINISHED, MAX_NUMBER, MAX_TITLE, Batch, BatchFacts, State, Task, encode
from .port import Registered, RegisteredBatch, Saved, TaskPage, TaskSettings, TaskStore
from .rules import Registration, Report, merged, put, reported
from .turns import Turns

_log = logging.getLogger(__name__)
ATTEMPTS = 64
MAX_TENANTS = 10_000
REPEAT_MS = 60_000
"""A registration or an end that comes again within this time is announced again, under the same id: the first
try may have died between storing and announcing. The bus remembers ids at least as long."""


class TaskService:
    """What backends say about tasks, and what is known of them. All methods raise BusUnavailable and, for
    ids that are none, BadChannel; they take the tenant from the caller's principal. `run` belongs to the
    application.
    """

    def __init__(
        self,
        store: TaskStore,
        announcer: Announcer,
        grants: Grants,
        settings: TaskSettings | None = None,
    ) -> None:
        self._store = store
        self._settings = settings or TaskSettings()
        self._announcements = Announcements(announcer, self._settings.max_unannounced)
        self._access = ChannelAccess(grants, store, self._settings.max_unannounced)
        self._turns = Turns()
        self._tenants: set[str] = set()
        self.conflicts = 0
        """Writes repeated because another node was first."""

    async def register(
        self,
        tenant: str,
        ident: str,
        owner: str,
        *,
        batch: str = "",
        kind: str | None = None,
        title: str | None = None,
        total_steps: int | None = None,
        data: Mapping[str, Any] | None = None,
        members: Iterable[str] = (),
        report: Report | None = None,
    ) -> Registered:
        """Registers a task, or completes what is known of it; `report` is taken in the same step. `owner` and
        `members` may subscribe to its channel. Equal registrations change nothing.

        Raises TaskConflict `task-exists`, `foreign-batch`, `batch-full`, `batch-finished`, what `report`
        raises, LimitExceeded `too-many-tasks`, `data-too-large`, `too-many-members`.
        """
        check_id(owner)
        if batch:
            check_id(batch)
        grant = make_grant(owner, members)
        asked = Registration(
            owner=owner, batch=batch, kind=kind, title=title, total_steps=total_steps, data=data
        )

        async def let_in(task: Task, saved: Saved | None) -> None:
            await self._access.let_in(tenant, "task:" + ident, grant, made=task.revision == 1)
            if task.batch:
                made = saved is not None and saved.batch is not None and saved.batch.revision == 1
                await self._access.let_in(tenant, "batch:" + task.batch, Grant(owner), made=made)

        task, created = await self._change(
            tenant, ident, lambda present, now_ms: put(present, ident, asked, report, now_ms), let_in
        )
        return Registered(task, created)

    async def report(self, tenant: str, ident: str, report: Report) -> Task:
        """Progress or end of a registered task; the state afterwards. A late report (by `sequence`) and the
        same end again change nothing.

        Raises UnknownTask, TaskConflict `task-finished`, BadReport, LimitExceeded `data-too-large`.
        """
        task, _ = await self._change(tenant, ident, lambda present, now_ms: reported(present, report, now_ms))
        return task

    async def progress(self, tenant: str, ident: str, **facts: Any) -> Task:
        """`report` with the fields of Report as keywords, for a task that goes on."""
        return await self.report(tenant, ident, Report(**facts))

    async def finish(self, tenant: str, ident: str, state: State, **facts: Any) -> Task:
        """`report` of the end: `state` is `completed`, `failed` or `cancelled`."""
        if state not in FINISHED:
            raise BadReport("$.state", "a task finishes as completed, failed or cancelled")
        return await self.report(tenant, ident, Report(state=state, **facts))

    async def get(self, tenant: str, ident: str) -> Task:
        """The last known state. Raises UnknownTask."""
        found = await self._store.load(tenant, check_id(ident))
        if found.task is None:
            raise UnknownTask
        return found.task

    async def list(
        self, tenant: str, *, owner: str = "", state: State | None = None, after: str = "", limit: int = 50
    ) -> TaskPage:
        """Tasks newest first. `owner` "": everybody's; `after`: `next` of the page before."""
        if owner:
            check_id(owner)
        return await self._store.list(tenant, owner, state, _number(after), limit)

    async def put_batch(
        self,
        tenant: str,
        ident: str,
        owner: str,
        *,
        total: int | None = None,
        title: str | None = None,
        data: Mapping[str, Any] | None = None,
        members: Iterable[str] = (),
    ) -> RegisteredBatch:
        """Registers a batch, or completes what is known of it (`total`, `title` None: as it is). With `total`
        it takes that many tasks and has ended for good when they have; without, it is open to more.

        Raises TaskConflict `batch-exists`, `batch-full`, `batch-finished`, BadReport, LimitExceeded.
        """
        check_id(ident)
        check_id(owner)
        grant = make_grant(owner, members)
        if title is not None and len(title) > MAX_TITLE:
            raise BadReport("$.title", f"has more than {MAX_TITLE} characters")
        most = self._settings.max_tasks_per_batch
        if total is not None and not 1 <= total <= most:
            raise BadReport("$.total", f"a batch has between 1 and {most} tasks")
        async with self._turns.of((tenant, "batch", ident)):
            batch, created, now_ms = await self._put_batch(tenant, ident, owner, total, title, data)
            await self._access.let_in(tenant, "batch:" + ident, grant, made=created)
            if now_ms - batch.updated_ms < REPEAT_MS:
                await self._announcements.announce(tenant, batch)
        return RegisteredBatch(batch, created)

    async def batch(self, tenant: str, ident: str) -> Batch:
        """A batch with its counters. Raises UnknownBatch."""
        found = await self._store.load_batch(tenant, check_id(ident))
        if found.batch is None:
            raise UnknownBatch
        return found.batch

    async def members(self, tenant: str, batch: str, *, after: str = "", limit: int = 50) -> TaskPage:
        """The tasks of a batch in the order they joined; none of an unknown batch."""
        return await self._store.members(tenant, check_id(batch), _number(after), limit)

    async def state(self, tenant: str, channel: str) -> bytes | None:
        """The last known state of a `task:` or `batch:` channel: the JSON of a Task or Batch, as it is
        announced. None: not known, or another kind of channel.
        """
        kind, _, ident = check_channel(channel).partition(":")
        if kind == "task":
            task = (await self._store.load(tenant, ident)).task
            return None if task is None else encode(task)
        if kind == "batch":
            batch = (await self._store.load_batch(tenant, ident)).batch
            return None if batch is None else encode(batch)
        return None

    def stats(self) -> dict[str, int]:
        """Counters for metrics."""
        return {
            "announcements_failed": self._announcements.failed,
            "announcements_dropped": self._announcements.dropped,
            "announcements_waiting": self._announcements.waiting,
            "conflicts": self.conflicts,
            "grants_waiting": self._access.waiting,
            "grants_kept": self._access.kept,
        }

    async def run(self) -> NoReturn:
        """Announces what could not be announced, and removes what retention has ended; until cancelled."""
        tidy_in = 0.0
        while True:
            await asyncio.sleep(self._settings.retry_s)
            await self._announcements.again()
            await self._access.withdraw()
            tidy_in += self._settings.retry_s
            if tidy_in >= self._settings.tidy_s:
                tidy_in = 0.0
                await self.tidy()

    async def tidy(self) -> None:
        """One round of removals, for the tenants this node has written for. A store that is away is tried
        again next time.
        """
        for tenant in list(self._tenants):
            try:
                self._access.gone(tenant, await self._store.tidy(tenant))
            except DualcastError as error:
                _log.warning("tasks are not tidied now: %s", error.code)
                break
        await self._access.withdraw()

    async def _change(
        self,
        tenant: str,
        ident: str,
        decide: Callable[[Task | None, int], Task],
        let_in: Callable[[Task, Saved | None], Awaitable[None]] | None = None,
    ) -> tuple[Task, bool]:
        """The task after `decide`, and whether there was none before. `let_in` gives out its grants."""
        check_id(ident)
        async with self._turns.of((tenant, "task", ident)):
            for _ in range(ATTEMPTS):
                loaded = await self._store.load(tenant, ident)
                task = decide(loaded.task, loaded.now_ms)
                if task is loaded.task:
                    if let_in is not None:
                        await let_in(task, None)
                    if let_in is not None or task.finished:
                        await self._announce_again(tenant, task, loaded.now_ms)
                    return task, False
                saved = await self._store.save(tenant, task, loaded.token)
                if saved is not None:
                    break
                self.conflicts += 1
            else:
                raise _contended()
            self._wrote(tenant, saved.forgotten)
            if let_in is not None:
                await let_in(task, saved)
            if saved.batch is None:
                await self._announcements.announce(tenant, task)
            else:
                await asyncio.gather(
                    self._announcements.announce(tenant, task),
                    self._announcements.announce(tenant, saved.batch),
                )
        return task, loaded.task is None

    async def _announce_again(self, tenant: str, task: Task, now_ms: int) -> None:
        """Of a registration or an end that came again: who stored it first may not have announced it."""
        if now_ms - task.updated_ms >= REPEAT_MS:
            return
        await self._announcements.announce(tenant, task)
        if task.batch:
            batch = (await self._store.load_batch(tenant, task.batch)).batch
            if batch is not None and now_ms - batch.updated_ms < REPEAT_MS:
                await self._announcements.announce(tenant, batch)

    async def _put_batch(
        self,
        tenant: str,
        ident: str,
        owner: str,
        total: int | None,
        title: str | None,
        data: Mapping[str, Any] | None,
    ) -> tuple[Batch, bool, int]:
        """The batch, whether it was made, and the engine's clock."""
        for _ in range(ATTEMPTS):
            loaded = await self._store.load_batch(tenant, ident)
            present = loaded.batch
            if present is not None and present.owner != owner:
                raise TaskConflict("a batch of this id belongs to another owner", code="batch-exists")
            declared = total if total is not None else present.total if present and present.declared else 0
            facts = BatchFacts(
                ident,
                owner,
                title if title is not None else present.title if present else "",
                merged(present.data if present else {}, data),
            )
            if present is not None and (
                (facts.title, facts.data) == (present.title, present.data)
                and declared == (present.total if present.declared else 0)
            ):
                return present, False, loaded.now_ms
            saved = await self._store.save_batch(tenant, facts, declared, loaded.token)
            if saved is not None:
                self._wrote(tenant, saved.forgotten)
                return saved.batch, present is None, loaded.now_ms
            self.conflicts += 1
        raise _contended()

    def _wrote(self, tenant: str, forgotten: tuple[str, ...]) -> None:
        if len(self._tenants) < MAX_TENANTS:
            self._tenants.add(tenant)
        self._access.gone(tenant, forgotten)


def _contended() -> TaskConflict:
    return TaskConflict(
        "too many others change this at the same time", code="version-conflict", retry_after_s=1.0
    )


def _number(after: str) -> str:
    """`after` if it is one of our page marks; raises BadCursor."""
    if after and not (after.isascii() and after.isdecimal() and int(after) <= MAX_NUMBER):
        raise BadCursor("after is the `next` of an earlier page")
    return after
