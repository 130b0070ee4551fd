"""Calls that take more than one request."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, TypeVar

from . import answers, bodies, calls
from .errors import DualcastError
from .flow import Ask, Call, Flow, Policy, Sleep, pause_s, perform

T = TypeVar("T")


def each(policy: Policy, several: Sequence[Call[T]]) -> Flow[tuple[T, ...]]:
    """One after the other; of none, nothing is sent."""
    done: list[T] = []
    for call in several:
        done.append((yield from perform(policy, call)))
    return tuple(done)


def notify_many(
    policy: Policy, notifications: Sequence[bodies.Notification]
) -> Flow[tuple[answers.ItemResult, ...]]:
    """Batches as large as the server takes; items that failed for the moment are sent again, under their
    ids."""
    items = [calls.encode(calls.identified(one)) for one in notifications]
    results: list[answers.ItemResult | None] = [None] * len(items)
    for places in _batches(items):
        waiting, repetition, begun = places, 0, policy.clock()
        while True:
            answered = yield from perform(policy, calls.batch([items[place] for place in waiting]))
            if len(answered) != len(waiting):
                raise DualcastError("bad-answer", 200, "the batch has another number of results")
            for place, result in zip(waiting, answered, strict=True):
                results[place] = result
            failed = [(place, one) for place, one in zip(waiting, answered, strict=True) if one.retryable]
            if not failed:
                break
            repetition += 1
            after = max((one.retry_after_s or 0.0 for _, one in failed), default=0.0)
            try:
                pause = pause_s(policy, repetition, begun, DualcastError("not-accepted", retry_after_s=after))
            except DualcastError:
                break  # the results say what failed
            yield Sleep(pause)
            waiting = [place for place, _ in failed]
    return tuple(one for one in results if one is not None)


def _batches(items: Sequence[bytes]) -> list[list[int]]:
    found: list[list[int]] = []
    size = 0
    for place, item in enumerate(items):
        full = found and (
            len(found[-1]) >= calls.MAX_BATCH_ITEMS or size + len(item) + 1 > calls.MAX_BATCH_BYTES
        )
        if not found or full:
            found.append([])
            size = 2
        found[-1].append(place)
        size += len(item) + 1
    return found


def in_conversation(
    policy: Policy, conversation: str, call: Call[T], participants: Callable[[str], Any] | None
) -> Flow[T]:
    """`call`; where the server does not know the conversation, the application is asked who is in it."""
    try:
        return (yield from perform(policy, call))
    except DualcastError as error:
        if error.code != "unknown-conversation" or participants is None:
            raise
    users = yield Ask(participants, conversation)
    yield from perform(policy, calls.set_participants(conversation, users))
    return (yield from perform(policy, call))


def progressed(
    task_id: str,
    message: str | None,
    step: int | None,
    total_steps: int | None,
    owner: str | int | None,
    status: bodies.State | None,
    result: Any,
    error: str | None,
) -> Call[answers.Task]:
    """A report of a task; with an owner, of one that may not be known yet."""
    if owner is None:
        report = bodies.TaskReport(
            state=status, step=step, total_steps=total_steps, message=message, result=result, error=error
        )
        return calls.report_task(task_id, report)
    registration = bodies.TaskRegistration(
        owner=str(owner),
        state=status or "processing",
        step=step,
        total_steps=total_steps,
        message=message,
        result=result,
        error=error,
    )
    return calls.register_task(task_id, registration)


def connections_of(policy: Policy, user: str) -> Flow[list[answers.Connection]]:
    """All live connections of a user, on all nodes."""
    if not user:
        raise ValueError("a user id is not empty")  # it would ask for everybody's
    found: list[answers.Connection] = []
    after = ""
    while True:
        page = yield from perform(policy, calls.connections(user, after, 1000))
        found += page.connections
        if not page.next:
            return found
        after = page.next
