"""What registrations and reports do to a task. Pure: the present state and the engine's clock in, the next
state out.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec
from msgspec import Struct
from msgspec.structs import replace

from dualcast.model.errors import LimitExceeded
from dualcast.model.nesting import nests_deeper

from .errors import BadReport, TaskConflict, UnknownTask, finished
from .model import (
    FINISHED,
    MAX_DEPTH,
    MAX_KIND,
    MAX_MESSAGE,
    MAX_NUMBER,
    MAX_TITLE,
    MAX_VALUE_BYTES,
    State,
    Task,
    share,
)


class Registration(Struct, frozen=True, kw_only=True):
    """Who a task belongs to and what it is. None: as it is (of a new task: empty)."""

    owner: str
    batch: str = ""
    kind: str | None = None
    title: str | None = None
    total_steps: int | None = None
    data: Mapping[str, Any] | None = None


class Report(Struct, frozen=True, kw_only=True):
    """What a worker says. None: as it was. Every accepted report is a change, also one that says the same
    again: it shows that the worker lives.
    """

    state: State = "processing"
    step: int | None = None
    total_steps: int | None = None
    percent: float | None = None
    message: str | None = None
    result: Any = None
    error: str | None = None
    data: Mapping[str, Any] | None = None
    """Merged into the task's data key by key; null takes a key away."""
    sequence: int | None = None
    """Grows with every report of one worker: what arrives late is left out."""


def registered(present: Task | None, ident: str, asked: Registration, now_ms: int) -> Task:
    """The task after registration; `present` itself when nothing is to change (also when it has finished).

    Raises TaskConflict `task-exists` (another owner, another batch), BadReport, LimitExceeded.
    """
    if present is None:
        return Task(
            id=ident,
            owner=asked.owner,
            batch=asked.batch,
            kind=_text(asked.kind or "", "$.kind", MAX_KIND),
            title=_text(asked.title or "", "$.title", MAX_TITLE),
            total_steps=_number(asked.total_steps, "$.total_steps"),
            data=_merged({}, asked.data),
            created_ms=now_ms,
            updated_ms=now_ms,
            revision=1,
        )
    if present.owner != asked.owner:
        raise TaskConflict("a task of this id belongs to another owner")
    if asked.batch and asked.batch != present.batch:
        raise TaskConflict("the task is registered outside this batch")
    if present.finished:
        return present
    total = _number(asked.total_steps, "$.total_steps")
    step, steps = _steps(present, None, total)
    changed = replace(
        present,
        kind=present.kind if asked.kind is None else _text(asked.kind, "$.kind", MAX_KIND),
        title=present.title if asked.title is None else _text(asked.title, "$.title", MAX_TITLE),
        total_steps=steps,
        percent=present.percent if steps == present.total_steps else _percent(present, step, steps),
        data=_merged(present.data, asked.data),
    )
    return present if changed == present else _advanced(changed, now_ms)


def reported(present: Task | None, report: Report, now_ms: int) -> Task:
    """The task after a report; `present` itself when the report is late or says the same end again.

    Raises UnknownTask, TaskConflict `task-finished`, BadReport, LimitExceeded.
    """
    if present is None:
        raise UnknownTask
    sequence = _number(report.sequence, "$.sequence")
    if sequence is not None and present.sequence is not None and sequence <= present.sequence:
        return present
    if present.finished:
        if report.state == present.state:
            return present
        raise finished(present.state)
    ends = report.state in FINISHED
    if not ends and report.result is not None:
        raise BadReport("$.result", "only a finished task has a result")
    if report.error is not None and report.state not in ("failed", "cancelled"):
        raise BadReport("$.error", "only a failed or cancelled task has an error")
    step, total = _steps(
        present, _number(report.step, "$.step"), _number(report.total_steps, "$.total_steps")
    )
    if report.state == "completed" and report.step is None and total is not None:
        step = total
    started = report.state != "queued" and present.started_ms is None
    percent = report.percent
    if percent is None:
        told = report.step is not None or report.total_steps is not None
        percent = _percent(present, step, total) if told else present.percent
        percent = 100.0 if report.state == "completed" else percent
    elif not 0 <= percent <= 100:
        raise BadReport("$.percent", "a percentage is between 0 and 100")
    return _advanced(
        replace(
            present,
            state=report.state,
            step=step,
            total_steps=total,
            percent=None if percent is None else float(percent),
            message=present.message
            if report.message is None
            else _text(report.message, "$.message", MAX_MESSAGE),
            result=_checked(report.result, "$.result") if ends else None,
            error=_text(report.error or "", "$.error", MAX_MESSAGE),
            data=_merged(present.data, report.data),
            sequence=present.sequence if sequence is None else sequence,
            started_ms=max(now_ms, present.created_ms) if started else present.started_ms,
            completed_ms=max(now_ms, present.updated_ms) if ends else None,
        ),
        now_ms,
    )


def put(present: Task | None, ident: str, asked: Registration, report: Report | None, now_ms: int) -> Task:
    """`registered`, and then `reported` when there is a report: one change, one revision."""
    task = registered(present, ident, asked, now_ms)
    if report is not None:
        task = reported(task, report, now_ms)
    revision = 1 if present is None else present.revision + 1
    return task if task.revision <= revision else replace(task, revision=revision)


def merged(present: Mapping[str, Any], more: Mapping[str, Any] | None) -> dict[str, Any]:
    """`present` with the keys of `more`; null takes a key away (as RFC 7396, one level). Raises BadReport,
    LimitExceeded.
    """
    return _merged(present, more)


def _advanced(task: Task, now_ms: int) -> Task:
    return replace(task, updated_ms=max(now_ms, task.updated_ms), revision=task.revision + 1)


def _steps(present: Task, step: int | None, total: int | None) -> tuple[int | None, int | None]:
    step_now = present.step if step is None else step
    total_now = present.total_steps if total is None else total
    if step_now is not None and total_now is not None and step_now > total_now:
        path = "$.step" if step is not None else "$.total_steps"
        raise BadReport(path, f"step {step_now} is beyond total_steps {total_now}")
    return step_now, total_now


def _percent(present: Task, step: int | None, total: int | None) -> float | None:
    return present.percent if step is None or total is None else share(step, total)


def _merged(present: Mapping[str, Any], more: Mapping[str, Any] | None) -> dict[str, Any]:
    if more is None:
        return dict(present)
    result = {key: value for key, value in {**present, **more}.items() if value is not None}
    _checked(result, "$.data")
    return result


def _checked(value: Any, path: str) -> Any:
    if nests_deeper(value, MAX_DEPTH):
        raise BadReport(path, f"nests deeper than {MAX_DEPTH} levels", code="too-deep")
    try:
        size = len(msgspec.json.encode(value))
    except (UnicodeEncodeError, msgspec.MsgspecError, TypeError, RecursionError):
        raise BadReport(path, "contains a value that is not valid JSON") from None
    if size > MAX_VALUE_BYTES:
        raise LimitExceeded(f"{path[2:]} has more than {MAX_VALUE_BYTES} bytes", code="data-too-large")
    return value


def _text(text: str, path: str, limit: int) -> str:
    if len(text) > limit:
        raise BadReport(path, f"has more than {limit} characters")
    try:
        text.encode()
    except UnicodeEncodeError:
        raise BadReport(path, "is not valid UTF-8") from None
    return text


def _number(number: int | None, path: str) -> int | None:
    if number is not None and not 0 <= number <= MAX_NUMBER:
        raise BadReport(path, f"is between 0 and {MAX_NUMBER}")
    return number
