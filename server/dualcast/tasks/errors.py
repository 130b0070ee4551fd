"""What this room refuses. Codes and their titles are listed in `gateway.problems`."""

from __future__ import annotations

from dualcast.model.errors import BadRequest, DualcastError, LimitExceeded, NotFound


class UnknownTask(NotFound):
    """No such task for this caller; a foreign one looks the same."""

    code = "unknown-task"

    def __init__(self) -> None:
        super().__init__("there is no such task")


class UnknownBatch(NotFound):
    code = "unknown-batch"

    def __init__(self) -> None:
        super().__init__("there is no such batch")


class TaskConflict(DualcastError):
    """The request does not fit what is stored. `code`: `task-exists`, `task-finished`, `batch-exists`,
    `foreign-batch`, `batch-full`, `batch-finished` or `version-conflict`.
    """

    code = "task-exists"
    status = 409


class BadReport(BadRequest):
    """A report that contradicts itself or what is known. `errors` holds (JSON path, message) pairs."""

    code = "invalid-body"
    status = 422

    def __init__(self, path: str, message: str, *, code: str | None = None) -> None:
        super().__init__(message, code=code)
        self.errors = ((path, message),)


def finished(state: str) -> TaskConflict:
    """The task has ended already."""
    return TaskConflict(f"the task is {state} already", code="task-finished")


def too_many_tasks(limit: int) -> LimitExceeded:
    """The tenant has as many tasks as it may."""
    return LimitExceeded(f"a tenant keeps at most {limit} tasks and batches", code="too-many-tasks")


def batch_refusal(code: str) -> TaskConflict:
    """Why a store did not take a task into its batch, or a new total."""
    return TaskConflict(_REFUSALS[code], code=code)


_REFUSALS = {
    "batch-exists": "the batch belongs to another owner",
    "foreign-batch": "the task's batch belongs to another owner",
    "batch-full": "the batch has no room for that many tasks",
    "batch-finished": "the batch has ended",
}
