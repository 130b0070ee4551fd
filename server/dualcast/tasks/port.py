"""The TaskStore port, its values, and the settings of the room."""

from __future__ import annotations

from typing import Protocol

from msgspec import Struct

from .model import Batch, BatchFacts, State, Task


class TaskSettings(Struct, frozen=True):
    """Retention and bounds. Times in seconds."""

    finished_s: float = 7 * 86_400.0
    """How long a finished task, and a batch that has ended, is kept."""
    unfinished_s: float = 30 * 86_400.0
    """How long after its last report an unfinished one is kept."""
    max_tasks: int = 200_000
    """Tasks and batches of one tenant together."""
    max_tasks_per_batch: int = 10_000
    max_unannounced: int = 10_000
    """Channels whose latest state waits on this node to be announced, after the bus failed."""
    retry_s: float = 1.0
    """Between attempts to announce them."""
    tidy_s: float = 60.0
    """Between removals of what retention ended, per tenant this node has written for."""


class Loaded(Struct, frozen=True):
    """A task as it stands, and the engine's clock."""

    task: Task | None
    token: str
    """Names this very write of the task; "": there is no task."""
    now_ms: int


class LoadedBatch(Struct, frozen=True):
    """A batch as it stands."""

    batch: Batch | None
    token: str
    now_ms: int


class Registered(Struct, frozen=True):
    """What a registration found or made."""

    task: Task
    created: bool


class RegisteredBatch(Struct, frozen=True):
    """The same of a batch."""

    batch: Batch
    created: bool


class Saved(Struct, frozen=True):
    """A write that took place."""

    batch: Batch | None = None
    """The task's batch afterwards, when this write has changed it."""
    forgotten: tuple[str, ...] = ()
    """Channels of tasks and batches that retention has ended meanwhile."""


class SavedBatch(Struct, frozen=True):
    """A batch that was written."""

    batch: Batch
    forgotten: tuple[str, ...] = ()


class TaskPage(Struct, frozen=True):
    """Tasks; ask again with `after=next` until `next` is empty."""

    tasks: list[Task]
    next: str


class TaskStore(Protocol):
    """Tasks and batches of tenants. Every write of a task moves the counters of its batch in the same atomic
    step. What retention has ended is not there, whether it is removed yet or not.

    All methods raise BusUnavailable. `ident`, `batch`, `owner`: checked ids.
    """

    async def load(self, tenant: str, ident: str) -> Loaded: ...

    async def save(self, tenant: str, task: Task, expected: str) -> Saved | None:
        """Writes `task` if its present token is `expected` ("": it must not exist); None: it is another one.

        A new task joins its batch, which is made when there is none. Raises TaskConflict `foreign-batch`,
        `batch-full`, `batch-finished`, LimitExceeded `too-many-tasks`; then nothing was written.
        """
        ...

    async def load_batch(self, tenant: str, ident: str) -> LoadedBatch: ...

    async def save_batch(
        self, tenant: str, facts: BatchFacts, total: int, expected: str
    ) -> SavedBatch | None:
        """Writes what does not follow from the tasks, if the batch's token is `expected`; None: it is not.
        `total`: tasks there will be, 0: not known.

        Raises TaskConflict `batch-full` (more joined already), `batch-finished` (another total after the
        end), LimitExceeded `too-many-tasks`.
        """
        ...

    async def list(self, tenant: str, owner: str, state: State | None, after: str, limit: int) -> TaskPage:
        """Newest first. `owner` "": everybody's."""
        ...

    async def members(self, tenant: str, batch: str, after: str, limit: int) -> TaskPage:
        """The tasks of a batch in the order they joined."""
        ...

    async def tidy(self, tenant: str) -> tuple[str, ...]:
        """Removes a bounded number of what retention has ended, and names the channels."""
        ...
