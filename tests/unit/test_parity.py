"""Reading back what was written, and comparing it (dualcast_migration.parity)."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from dualcast_migration.parity import Arrival, Report, compare, compare_reports, read_socket, read_stream


def frame(offset: int, **other: Any) -> dict[str, Any]:
    base = {"channel": "all", "id": f"n{offset}", "event": "note", "time": "2026-01-01T00:00:00.000Z"}
    return {**base, "data": {"n": offset}, **other}


def block(offset: int, **other: Any) -> str:
    return f"id: e-{offset}\nevent: note\ndata: {msgspec.json.encode(frame(offset, **other)).decode()}\n\n"


def text(offset: int, **other: Any) -> str:
    head = {"type": "publication", "cursor": f"e-{offset}"}
    return msgspec.json.encode({**head, **frame(offset, **other)}).decode()


def kinds(sse: str, texts: list[str], excused: frozenset[int] = frozenset()) -> list[tuple[str, str]]:
    found = compare(read_stream(sse), read_socket(texts), excused)
    return [(one.kind, one.id) for one in found.differences]


def test_the_same_on_both_sides_is_the_same() -> None:
    sse, texts = block(1) + ": beat\n\n" + block(2), [text(1), text(2)]
    found = compare(read_stream(sse), read_socket(texts))
    assert (found.compared, found.mismatches) == (2, 0)


def test_signals_and_what_moves_no_position_are_left_out() -> None:
    stream = 'retry: 5\nid: e-3\nevent: welcome\ndata: {"connection":"c"}\n\nid: e-4\n\n'
    stream += block(5).partition("\n")[2]
    assert read_stream(stream) == []
    sockets = ['{"type":"welcome","cursor":"e-3"}', '{"type":"gap","channel":"all","cursor":"e-4"}']
    ephemeral = msgspec.json.encode({"type": "publication", **frame(5)}).decode()
    recovered = msgspec.json.encode({"type": "publication", "recovered": True, **frame(5)}).decode()
    assert read_socket([*sockets, ephemeral, recovered]) == []


@pytest.mark.parametrize(
    ("sse", "texts", "found"),
    [
        (block(1), [text(1), text(2)], [("missing-on-sse", "n2")]),
        (block(1) + block(2), [text(2)], [("missing-on-websocket", "n1")]),
        (block(2) + block(1), [text(1), text(2)], [("order-on-sse", "n1")]),
        (block(1) + block(2), [text(1), text(2), text(1)], [("order-on-websocket", "n1")]),
        (block(1), [text(1, data={"n": 2})], [("content", "n1")]),
        (block(1), [text(1, id="x")], [("content", "n1")]),
        (block(1), [text(1, channel="topic:t")], [("content", "n1")]),
        (block(1), [text(1, inbox={"unread": 1})], [("content", "n1")]),
    ],
)
def test_every_difference_is_found(sse: str, texts: list[str], found: list[tuple[str, str]]) -> None:
    assert kinds(sse, texts) == found


def test_what_one_side_may_leave_out_is_no_difference() -> None:
    assert kinds(block(2), [text(1), text(2)], frozenset({1})) == []


def test_many_differences_are_counted_and_few_are_kept() -> None:
    found = compare([], [Arrival("e", n, f"n{n}", b"") for n in range(1, 101)])
    assert found.mismatches == 100
    assert len(found.differences) == 20


def test_reports_of_a_client_are_compared_by_set_and_order() -> None:
    same = compare_reports(Report(("a", "b")), Report(("a", "b")))
    assert (same.compared, same.mismatches) == (2, 0)
    found = compare_reports(Report(("a", "b", "c")), Report(("b", "a", "d")))
    assert [(one.kind, one.id) for one in found.differences] == [
        ("missing-on-websocket", "c"),
        ("missing-on-sse", "d"),
        ("order-on-websocket", "b"),
    ]
