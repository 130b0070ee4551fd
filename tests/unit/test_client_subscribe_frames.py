"""Pieces of a subscription without a server: the event stream format, frames, cursors, options, gaps."""

from __future__ import annotations

import contextlib
import itertools
import os
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

import dualcast_client
from dualcast.dialects import native_types
from dualcast_client import sse
from dualcast_client.cursors import FileCursorStore, MemoryCursorStore
from dualcast_client.errors import DualcastError
from dualcast_client.events import (
    BadFrame,
    Bye,
    ChannelState,
    Gap,
    Positioned,
    Published,
    Welcome,
    socket_frame,
    stream_frame,
)
from dualcast_client.flow import Call
from dualcast_client.history import HistoryEntry, HistoryGap, HistoryPage, fill
from dualcast_client.wanted import wanted
from support.clients import SseParser as Other

STREAM = (
    b"\xef\xbb\xbfretry: 2000\nid: e-1\nevent: welcome\ndata: {}\n\n"
    b": comment\r\n\r\nid: e-2\r\rdata\ndata:  two\r\ndata: lines\n\nid: bad\0id\nevent: x\ndata: y\n\n"
    b"retry: 12a\nfoo: bar\n\nid\ndata: none\n\n"
)


@given(st.lists(st.integers(0, len(STREAM)), max_size=30))
def test_an_event_stream_is_read_the_same_in_whatever_pieces_it_comes(cuts: list[int]) -> None:
    parser, found = sse.SseParser(), []
    places = [0, *sorted(cuts), len(STREAM)]
    for start, end in itertools.pairwise(places):
        found += parser.feed(STREAM[start:end])
    assert found == [
        sse.Block("welcome", "{}", "e-1", 2000),
        sse.Block("message", None, "e-2", None),
        sse.Block("message", "\n two\nlines", None, None),
        sse.Block("x", "y", None, None),
        sse.Block("message", "none", "", None),
    ]


LINES = st.sampled_from(["data: a", "data", "id: 7", "event: e", ": c", "", "", "retry: 5", "x: y", "data:b"])


@given(st.lists(LINES), st.sampled_from(["\n", "\r\n", "\r"]))
def test_another_reader_of_the_format_finds_the_same_events(lines: list[str], end: str) -> None:
    data = "".join(line + end for line in lines).encode() + b":"
    mine = [(one.event, one.data) for one in sse.SseParser().feed(data) if one.data]
    assert mine == [(event, text) for event, text, _, _ in Other().feed(data) if text]


def test_an_event_without_end_is_not_kept_for_ever() -> None:
    with pytest.raises(sse.TooBig):
        sse.SseParser().feed(b"data: " + b"x" * (sse.MAX_EVENT + 1))
    parser = sse.SseParser()
    with pytest.raises(sse.TooBig):
        for _ in range(100):
            parser.feed(b"data: " + b"x" * 65_536 + b"\n")


def test_frames_and_what_is_added_to_them_later() -> None:
    body = '"channel":"all","id":"i","event":"x","time":"t","data":[1]}'
    got = socket_frame('{"type":"publication","cursor":"e-1","new":1,' + body)
    assert got == Published(cursor="e-1", channel="all", id="i", event="x", time="t", data=[1])
    assert stream_frame("x", "{" + body, "e-1") == got
    assert socket_frame('{"type":"unheard-of","cursor":"e-2"}') == Positioned(cursor="e-2")
    assert stream_frame("drain", '{"retry_ms":5}', None) == Bye(code=4100, reason="drain", retry_ms=5)
    state = stream_frame("state", '{"channel":"task:t","data":null,"status":"none"}', None)
    assert state == ChannelState(channel="task:t", status="none")
    for bad in ("", "[]", "{}", '{"type":5}', '{"type":"publication"}', "\x00", '{"type":"bye","code":"x"}'):
        with pytest.raises(BadFrame):
            socket_frame(bad)


@given(st.binary() | st.text())
def test_anything_else_is_no_frame(text: Any) -> None:
    with contextlib.suppress(BadFrame):
        socket_frame(text)


def test_a_publication_named_like_a_signal_is_a_publication() -> None:
    body = '{"channel":"user:a","id":"i","event":"inbox","time":"t","data":{}}'
    assert isinstance(stream_frame("inbox", body, None), Published)
    welcome = native_types.Welcome(
        connection="c", tenant="t", user="u", stage="s", channels=["all"], heartbeat_s=25
    )
    fields = set(Welcome.__struct_fields__)
    assert fields <= set(type(welcome).__struct_fields__), "the server says all that the client reads"
    assert set(Published.__struct_fields__) == set(native_types.Published.__struct_fields__)
    assert set(Gap.__struct_fields__) - {"filled"} == set(native_types.GapFrame.__struct_fields__)


def test_a_file_keeps_a_cursor_whole(tmp_path: Path) -> None:
    store = FileCursorStore(tmp_path / "cursor")
    assert store.load() is None
    for cursor in ("e-1", "e-22"):
        store.save(cursor)
        assert FileCursorStore(tmp_path / "cursor").load() == cursor
    assert os.listdir(tmp_path) == ["cursor"]
    (tmp_path / "cursor.new").write_text("left by a process that was killed")
    store.save("e-2")
    assert os.listdir(tmp_path) == ["cursor"]
    for content in (b"", b"x" * 10_000, b"\xff\xfe", b"a\nb"):
        (tmp_path / "cursor").write_bytes(content)
        assert store.load() == "unreadable", "the server tells a gap; None would skip what is missing"
    with pytest.raises(OSError):
        FileCursorStore(tmp_path / "no" / "cursor").save("e-1")
    memory = MemoryCursorStore()
    memory.save("e-3")
    assert memory.load() == "e-3"


def test_options_are_checked_at_once() -> None:
    client = dualcast_client.AsyncClient("http://127.0.0.1:9", "a.b.c")
    for bad in ({"transport": "pigeon"}, {"on_gap": "ignore"}, {"open_timeout_s": 0}, {"patience_s": -1}):
        with pytest.raises(ValueError):
            client.subscribe(["topic:a"], **bad)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="list"):
        client.subscribe("topic:a")
    with pytest.raises(ValueError, match="kind:id"):
        client.subscribe([""])
    stream = client.subscribe(["topic:a", "topic:b"])
    assert repr(stream) == "Stream(topic:a, topic:b: not open)"
    one, other = wanted(), wanted()
    assert one.instance and one.instance != other.instance


class Pages:
    """History as a server has it."""

    def __init__(self, *pages: HistoryPage) -> None:
        self.pages = list(pages)
        self.asked: list[dict[str, Any]] = []

    async def __call__(self, call: Call[HistoryPage]) -> HistoryPage:
        assert call.path == "/v1/channels/topic%3Aa/history"
        self.asked.append(dict(call.query))
        if not self.pages:
            raise DualcastError("bus-unavailable", 503)
        return self.pages.pop(0)


def page(*numbers: int, more: bool = False, gaps: int = 0) -> HistoryPage:
    entries = [HistoryEntry(cursor=f"e-{n}", id=f"i{n}", event="n", time="t", data=n) for n in numbers]
    missing = [HistoryGap(channel="topic:a", reason="trimmed")] * gaps
    after = f"e-{numbers[-1]}" if numbers else "e-0"
    return HistoryPage(channel="topic:a", publications=entries, gaps=missing, next=after, more=more)


@pytest.mark.anyio
@pytest.mark.parametrize(
    "reason, pages, found, whole, asked",
    [
        ("late", [page(3, 4, more=True), page(5)], [3, 4, 5], True, ["e-2", "e-4"]),
        ("late", [page(4, gaps=1)], [4], False, ["e-2"]),
        ("unknown", [page(1, 2)], [1, 2], False, [None]),
        ("trimmed", [], [], False, []),
        ("epoch", [], [], False, []),
        ("late", [page(more=True), page(more=True)], [], True, ["e-2", "e-0"]),
    ],
)
async def test_a_gap_is_filled_with_what_history_has(
    reason: str, pages: Any, found: Any, whole: bool, asked: Any
) -> None:
    server = Pages(*pages)
    got, all_of_it = await fill(Gap(channel="topic:a", reason=reason, after="e-2"), server)
    assert [one.data for one in got] == found and all_of_it is whole
    assert all(one.recovered and one.cursor is None for one in got)
    assert [query.get("after") for query in server.asked] == asked
