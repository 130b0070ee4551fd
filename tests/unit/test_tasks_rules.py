"""What registrations and reports do to a task, and what a batch says of its counters."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from dualcast.tasks.announcements import publication_id
from dualcast.tasks.errors import BadReport
from dualcast.tasks.model import BatchFacts, Counts, Task, batch_state, decode_task, encode, make_batch
from dualcast.tasks.rules import Registration, Report, merged, put, registered, reported


def task(**fields: Any) -> Task:
    return Task(**{"id": "t", "owner": "alice", "revision": 1, "updated_ms": 5, "created_ms": 5, **fields})


@pytest.mark.parametrize(
    ("known", "report", "expected"),
    [
        ({}, Report(step=1), None),
        ({}, Report(total_steps=4), None),
        ({"total_steps": 3}, Report(step=1), 33.3),
        ({"total_steps": 3, "step": 1, "percent": 33.3}, Report(message="m"), 33.3),
        ({"total_steps": 3, "step": 1, "percent": 33.3}, Report(percent=40), 40.0),
        ({"total_steps": 3, "step": 1, "percent": 40.0}, Report(message="m"), 40.0),
        ({"total_steps": 3, "step": 1, "percent": 40.0}, Report(step=2), 66.7),
        ({"total_steps": 0}, Report(step=0), 0.0),
        ({"total_steps": 0}, Report(state="completed"), 100.0),
        ({"total_steps": 3, "step": 1, "percent": 33.3}, Report(state="failed"), 33.3),
        ({"percent": 12.5}, Report(state="cancelled"), 12.5),
        ({}, Report(state="completed"), 100.0),
        ({}, Report(state="completed", percent=99), 99.0),
    ],
)
def test_percent(known: dict[str, Any], report: Report, expected: float | None) -> None:
    assert reported(task(**known), report, 9).percent == expected


def test_a_failure_repeats_the_last_numbers() -> None:
    before = task(step=2, total_steps=5, percent=40.0, message="m", data={"success": 1})
    after = reported(before, Report(state="failed", error="reason", message="失败"), 9)
    assert (after.step, after.total_steps, after.percent, after.error) == (2, 5, 40.0, "reason")
    assert (after.data, after.completed_ms, after.updated_ms, after.revision) == ({"success": 1}, 9, 9, 2)


def test_back_to_the_queue_keeps_the_start() -> None:
    began = reported(task(), Report(), 7)
    waits = reported(began, Report(state="queued"), 8)
    again = reported(waits, Report(), 9)
    assert (began.started_ms, waits.started_ms, again.started_ms) == (7, 7, 7)
    assert (waits.state, again.state, again.revision) == ("queued", "processing", 4)


def test_the_same_report_again_is_a_sign_of_life() -> None:
    first = reported(task(), Report(step=1), 7)
    second = reported(first, Report(step=1), 8)
    assert (second.revision, second.updated_ms) == (first.revision + 1, 8)


def test_data_is_merged_key_by_key() -> None:
    assert merged({"a": 1, "b": {"c": 1}}, {"b": {"d": 2}, "a": None, "e": None}) == {"b": {"d": 2}}
    assert merged({"a": 1}, None) == {"a": 1}


def test_values_nest_so_deep() -> None:
    deep: Any = 1
    for _ in range(64):
        deep = [deep]
    assert reported(task(), Report(state="completed", result=deep), 9).result == deep
    with pytest.raises(BadReport) as refused:
        reported(task(), Report(state="completed", result={"a": deep}), 9)
    assert refused.value.code == "too-deep"


def test_one_write_is_one_revision() -> None:
    asked = Registration(owner="alice", title="T")
    assert put(None, "t", asked, Report(step=1), 9).revision == 1
    present = task()
    assert put(present, "t", asked, Report(step=1), 9).revision == 2
    assert put(present, "t", Registration(owner="alice"), None, 9) is present
    ended = task(state="completed", completed_ms=6)
    assert put(ended, "t", asked, Report(state="completed"), 9) is ended


def test_registering_more_steps_moves_the_percentage() -> None:
    present = task(step=1, total_steps=2, percent=50.0)
    assert registered(present, "t", Registration(owner="alice", total_steps=4), 9).percent == 25.0


@pytest.mark.parametrize(
    ("counts", "total", "expected"),
    [
        (Counts(), 0, "processing"),
        (Counts(), 3, "processing"),
        (Counts(queued=1, completed=2), 3, "processing"),
        (Counts(completed=2), 3, "processing"),
        (Counts(completed=3), 3, "completed"),
        (Counts(failed=3), 3, "failed"),
        (Counts(cancelled=3), 3, "failed"),
        (Counts(completed=1, failed=2), 3, "partial"),
        (Counts(completed=1, cancelled=2), 3, "partial"),
        (Counts(failed=1, cancelled=2), 3, "failed"),
    ],
)
def test_batch_state(counts: Counts, total: int, expected: str) -> None:
    assert batch_state(counts, total) == expected
    times = {"created_ms": 1, "updated_ms": 1, "completed_ms": 0, "revision": 1}
    batch = make_batch(BatchFacts("b", "alice"), counts, total, **times)
    assert batch.state == expected and batch.finished == (expected != "processing")
    open_end = make_batch(BatchFacts("b", "alice"), counts, 0, **times)
    assert not open_end.finished and open_end.total == counts.joined


def test_a_state_survives_its_json() -> None:
    before = task(result=[1, {"二": 2**70}], data={"\u2028": "\n"}, percent=33.3, sequence=2**53 - 1)
    text = encode(before)
    assert decode_task(text) == before and b"\n" not in text
    assert set(msgspec.json.decode(text)) == set(Task.__struct_fields__), "every key is always there"


def test_publication_ids_name_one_state() -> None:
    ids = {
        publication_id(task()),
        publication_id(task(revision=2)),
        publication_id(task(id="u")),
        publication_id(task(created_ms=6)),
    }
    assert len(ids) == 4 and publication_id(task(message="m")) in ids
    assert all(len(ident) <= 128 and ident.isascii() and ident.isprintable() for ident in ids)
    long = publication_id(task(id="文" * 85, revision=2**53))
    assert len(long) <= 128
