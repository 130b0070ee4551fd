"""Tasks and batches of the contract `notifications` (sections 3.2, 3.4, 3.5).

In: publications of type `task` on `task:<id>` and `batch` on `batch:<id>`, whose data is the full state
(tasks/model.py), and the same states at the opening. Out: progress, and how it ended.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import msgspec

from dualcast.model.channel import check_id
from dualcast.model.errors import BadChannel
from dualcast.model.publication import Entry
from dualcast.model.times import utc_text
from dualcast.tasks.model import Batch, Task, share

from .legacy import NOT_FOUND, Admission, Endpoint, Facts, LegacySettings, Opening, Refusal
from .legacy_text import canonical
from .notifications_base import DIALECT, block, frame, replaced, socket_beat, stream_id

UNKNOWN_BATCH = Refusal(code=4004, reason="batch not found", status=404, detail="Batch not found")
MISSING = Refusal(detail="No authorization header")
MALFORMED = Refusal(detail="Invalid authorization format")
BAD = Refusal(detail="Invalid token")
FLAT_STATUS = {"queued": "pending", "processing": "running"}
"""Other states have the same name on the flat socket."""
BATCH_FAULT = "获取批次状态失败"

T = TypeVar("T", Task, Batch)

_task = msgspec.json.Decoder(Task).decode
_batch = msgspec.json.Decoder(Batch).decode


def task_endpoints(
    settings: LegacySettings, beat_s: float, clock: Callable[[], float]
) -> tuple[Endpoint, ...]:
    """Both task sockets, the task stream, the batch stream. `beat_s`: heartbeat of the socket; `clock`:
    monotonic seconds."""

    def stream_first(facts: Facts, opening: Opening) -> Sequence[bytes]:
        first = block("connected", {"task_id": facts.params["task_id"], "message": "已连接进度流"})
        task = _opened(opening, Task)
        if opening.resumed or task is None or not _tells(task):
            return (first,)
        return (first, *task_blocks(task))

    def stream_task(entry: Entry) -> Sequence[bytes]:
        task = _task_of(entry)
        return () if task is None else task_blocks(task, stream_id(entry, settings))

    def stream_beat(facts: Facts) -> bytes:
        return block("heartbeat", {"timestamp": f"{clock():.3f}"})

    def stream_batch(entry: Entry) -> Sequence[bytes]:
        batch = _batch_of(entry)
        return () if batch is None else batch_blocks(batch, stream_id(entry, settings))

    def admit_flat(facts: Facts) -> Admission | Refusal:
        admission = _admit_task("flat", facts)
        if facts.user or isinstance(admission, Refusal):
            return admission
        # `--dev` lets in whoever comes without a token; there is no user who could own the task.
        return msgspec.structs.replace(admission, owner_of="")

    return (
        Endpoint(
            dialect=DIALECT,
            path="/api/ws/tasks/{task_id:str}",
            transport="ws",
            admit=lambda facts: _admit_task("socket", facts),
            encode=socket_task,
            first=socket_first,
            wants=frozenset({"state"}),
            heartbeat=socket_beat,
            heartbeat_s=beat_s,
            heartbeat_always=True,
        ),
        Endpoint(
            dialect=DIALECT,
            path="/api/analysis/ws/task/{task_id:str}",
            transport="ws",
            admit=admit_flat,
            encode=flat_task,
            first=flat_first,
            wants=frozenset({"state"}),
            anonymous=settings.dev,
        ),
        Endpoint(
            dialect=DIALECT,
            path="/api/stream/tasks/{task_id:str}",
            transport="sse",
            admit=lambda facts: _admit_task("stream", facts),
            encode=stream_task,
            first=stream_first,
            wants=frozenset({"state"}),
            missing=MISSING,
            malformed=MALFORMED,
            bad=BAD,
            heartbeat=stream_beat,
            heartbeat_s=settings.task_heartbeat_s,
            heartbeat_always=True,
            silent_s=settings.task_idle_s,
            replaced=replaced,
            view="task",
        ),
        Endpoint(
            dialect=DIALECT,
            path="/api/stream/batches/{batch_id:str}",
            transport="sse",
            admit=_admit_batch,
            encode=stream_batch,
            first=batch_first,
            wants=frozenset({"state"}),
            missing=MISSING,
            malformed=MALFORMED,
            bad=BAD,
            not_found=UNKNOWN_BATCH,
            silent_s=settings.batch_idle_s,
            ends=batch_ends,
            ended=batch_ended,
            replaced=replaced,
            view="batch",
        ),
    )


def _admit_task(stream: str, facts: Facts) -> Admission | Refusal:
    return _admit("task:", facts.params["task_id"], f"task-{stream}:", NOT_FOUND)


def _admit_batch(facts: Facts) -> Admission | Refusal:
    return _admit("batch:", facts.params["batch_id"], "batch:", UNKNOWN_BATCH)


def _admit(kind: str, ident: str, stream: str, unknown: Refusal) -> Admission | Refusal:
    try:
        channel = kind + check_id(ident)
    except BadChannel:
        return unknown
    return Admission(channels=(channel,), owner_of=channel, state_of=channel, stream=stream + ident)


# ── the task socket ──


def socket_first(facts: Facts, opening: Opening) -> Sequence[bytes]:
    """`connected`, the last known progress, and how the task ended if it has."""
    connected = {
        "task_id": facts.params["task_id"],
        "timestamp": utc_text(facts.now_ms),
        "message": "已连接任务进度流",
    }
    frames = [frame("connected", connected)]
    task = _opened(opening, Task)
    if task is not None and _tells(task):
        frames.append(frame("progress", _socket_progress(task)))
        if task.finished:
            frames.append(_socket_end(task))
    return frames


def socket_task(entry: Entry) -> bytes:
    """`progress`, `completed` or `error`; b"" for everything else."""
    task = _task_of(entry)
    if task is None:
        return b""
    return _socket_end(task) if task.finished else frame("progress", _socket_progress(task))


def _socket_progress(task: Task) -> dict[str, Any]:
    head = {"task_id": task.id, "message": task.message}
    return {**head, **_numbers(task), "timestamp": utc_text(task.updated_ms)}


def _socket_end(task: Task) -> bytes:
    kind = "completed" if task.state == "completed" else "error"
    return frame(kind, {**_socket_progress(task), **_outcome(task)})


# ── the flat socket ──


def flat_first(facts: Facts, opening: Opening) -> Sequence[bytes]:
    """`connection_established`, and the last known progress."""
    task_id = facts.params["task_id"]
    hello = {"type": "connection_established", "task_id": task_id, "message": "WebSocket 连接已建立"}
    task = _opened(opening, Task)
    return (canonical(hello),) if task is None or not _has_progress(task) else (canonical(hello), _flat(task))


def flat_task(entry: Entry) -> bytes:
    """`progress_update`, whatever the state; b"" for everything else."""
    task = _task_of(entry)
    return b"" if task is None else _flat(task)


def _flat(task: Task) -> bytes:
    return canonical(
        {
            "type": "progress_update",
            "task_id": task.id,
            "status": FLAT_STATUS.get(task.state, task.state),
            "progress": round(task.percent or 0),
            "message": task.message,
            "current_step": "" if task.step is None else str(task.step),
            "timestamp": utc_text(task.updated_ms),
        }
    )


# ── the task stream ──


def task_blocks(task: Task, cursor: str = "") -> tuple[bytes, ...]:
    """`progress`; of a finished task, then `completed` or `failed`. `cursor`: for the `id:` of the last."""
    data = {
        "task_id": task.id,
        "message": task.message,
        "timestamp": utc_text(task.updated_ms),
        **_numbers(task),
    }
    if not task.finished:
        return (block("progress", data, cursor),)
    event = "completed" if task.state == "completed" else "failed"
    return block("progress", data), block(event, {**data, **_outcome(task)}, cursor)


# ── the batch stream ──


def batch_first(facts: Facts, opening: Opening) -> Sequence[bytes]:
    """`connected` and the progress as it is; a batch that has ended gets its `finished`."""
    connected = block("connected", {"batch_id": facts.params["batch_id"], "message": "已连接批次进度流"})
    if opening.resumed:
        return (connected,)
    batch = _opened(opening, Batch)
    if batch is None:
        return connected, block("error", {"error": BATCH_FAULT})
    return (connected, *batch_blocks(batch))


def batch_ends(entry: Entry) -> bool:
    """Whether the stream ends after this publication."""
    batch = _batch_of(entry)
    return batch is not None and batch.state != "processing"


def batch_ended(opening: Opening) -> bool:
    """Whether the stream ends after its first blocks."""
    batch = _opened(opening, Batch)
    return batch is None or batch.state != "processing"


def batch_blocks(batch: Batch, cursor: str = "") -> tuple[bytes, ...]:
    """`progress`; of a batch that has ended, then `finished`. `cursor`: for the `id:` of the last."""
    if not batch.total:
        data: dict[str, Any] = {"batch_id": batch.id, "message": "批次无任务", "progress": 0}
        return (block("progress", data, cursor),)
    # The contract has no cancelled tasks in a batch: whatever ended without success is a failure.
    failed = batch.failed + batch.cancelled
    data = {
        "batch_id": batch.id,
        "status": batch.state,
        "message": _summary(batch, failed),
        "progress": batch.progress,
        "total_tasks": batch.total,
        "completed": batch.completed,
        "failed": failed,
        "processing": batch.processing,
        # The engine's clock, which never runs backwards: the same number on every node.
        "timestamp": batch.updated_ms / 1000,
    }
    if batch.state == "processing":
        return (block("progress", data, cursor),)
    finished = {"batch_id": batch.id, "final_status": batch.state}
    return block("progress", data), block("finished", finished, cursor, retry=True)


def _summary(batch: Batch, failed: int) -> str:
    done, total = batch.completed, batch.total
    match batch.state:
        case "completed":
            return f"批次完成: {done}/{total} 成功"
        case "failed":
            return f"批次失败: {failed}/{total} 失败"
        case "partial":
            return f"批次部分成功: {done} 成功, {failed} 失败"
        case _:
            return f"批次处理中: {done}/{total} 已完成, {batch.processing} 处理中"


# ── shared ──


def _numbers(task: Task) -> dict[str, Any]:
    """`step`, `total_steps`, `progress`: all of them or none."""
    if task.step is None or task.total_steps is None:
        return {}
    progress = share(task.step, task.total_steps)
    return {"step": task.step, "total_steps": task.total_steps, "progress": progress}


def _outcome(task: Task) -> dict[str, Any]:
    if task.state == "completed":
        return {"status": task.state, "result": task.result}
    return {"status": task.state, "error": task.error or task.message}


def _has_progress(task: Task) -> bool:
    """A task that was registered, and of which nobody has reported yet, has none."""
    return task.state != "queued" or bool(task.message) or task.step is not None or task.percent is not None


def _tells(task: Task) -> bool:
    """Whether there is a last known progress: of a task in the older queue there may be nothing but its
    state."""
    known = task.message or task.step is not None or task.percent is not None
    return task.finished or bool(known)


def _task_of(entry: Entry) -> Task | None:
    publication = entry.publication
    if publication.type != "task":
        return None
    task = _task(publication.data)
    return task if _has_progress(task) else None


def _batch_of(entry: Entry) -> Batch | None:
    publication = entry.publication
    return _batch(publication.data) if publication.type == "batch" else None


def _opened(opening: Opening, kind: type[T]) -> T | None:
    return None if opening.state is None else msgspec.convert(opening.state, kind)
