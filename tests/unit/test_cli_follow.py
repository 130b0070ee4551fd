"""Reading SSE blocks, resuming, duplicates: the parts of `dualcast tail` that need no server."""

from __future__ import annotations

import pytest

from dualcast.cli.follow import Event, _query, _socket_event, _stream_event, parse_block
from dualcast.cli.load import Result
from dualcast.cli.tail import Tail


def test_a_block_is_read_as_the_standard_says() -> None:
    lines = ["id: e-1", "event: note", "data: a", "data:b", ": comment", "retry: 50", "other: x"]
    assert parse_block(lines) == ({"id": "e-1", "event": "note", "data": "a\nb"}, 50)
    assert parse_block(["retry: soon"]) == ({}, None)


def test_publications_and_signals_are_told_apart() -> None:
    body = '{"channel":"all","id":"1","event":"x","time":"t","data":null}'
    assert _stream_event({"id": "e-1", "event": "x", "data": body}).publication
    gap = _stream_event({"event": "gap", "data": '{"channel":"all","reason":"trimmed"}'})
    assert not gap.publication and gap.name == "gap"
    frame = _socket_event(
        '{"type":"publication","cursor":"e-2","channel":"all","id":"1","event":"x","data":1}'
    )
    assert frame.publication and frame.cursor == "e-2" and frame.name == "x"
    assert _socket_event('{"type":"welcome","cursor":"e-3"}').cursor == "e-3"


def test_each_channel_is_a_parameter_of_its_own_so_that_an_id_may_hold_a_comma() -> None:
    assert _query(["topic:a,b", "all"], "e-1") == "?channel=topic:a%2Cb&channel=all&cursor=e-1"
    assert _query([]) == ""


def test_duplicates_are_dropped_by_id_and_the_cursor_kept(capsys: pytest.CaptureFixture[str]) -> None:
    tail = Tail(cursor="", count=2, as_json=True)

    def event(ident: str, cursor: str) -> Event:
        return Event("x", {"channel": "all", "id": ident, "data": 1}, cursor, publication=True)

    assert tail.take(event("a", "e-1")) and tail.take(event("a", "e-1"))
    assert tail.take(Event("", {}, "e-7"))
    assert tail.cursor == "e-7"
    assert not tail.take(event("b", "e-8"))
    assert [line.count('"id"') for line in capsys.readouterr().out.splitlines()] == [1, 1]


def test_quantiles() -> None:
    result = Result(1, 1.0, 1, 4, 3, 1.0, [1.0, 2.0, 3.0])
    assert (result.lost, result.quantile(0.5), result.quantile(0.99)) == (1, 2.0, 3.0)
    assert Result(1, 1.0, 0, 0, 0, 1.0, []).quantile(0.5) == 0
