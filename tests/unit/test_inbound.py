"""The inbound WebSocket parser: every way to cut the bytes gives the same messages, every violation its close
code.
"""

from __future__ import annotations

import os
import zlib
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dualcast.transport import frames, inbound
from dualcast.transport.frames import BINARY, CLOSE, CONTINUATION, PING, PONG, TEXT
from support.raw_http import masked

LIMIT = 1000


class Recorder:
    def __init__(self, limit: int = LIMIT) -> None:
        self.inbound: object | None = None
        self.max_frame_bytes = limit
        self.seen: list[tuple[Any, ...]] = []
        self.stop_at: str | None = None

    def on_text(self, text: str) -> None:
        self.seen.append(("text", text))
        if text == self.stop_at:
            inbound.stop(self)

    def on_binary(self, data: bytes) -> None:
        assert type(data) is bytes
        self.seen.append(("binary", data))

    def on_ping(self, payload: bytes) -> None:
        self.seen.append(("ping", payload))

    def on_pong(self, payload: bytes) -> None:
        assert type(payload) is bytes
        self.seen.append(("pong", payload))

    def on_close(self, code: int, reason: str) -> None:
        self.seen.append(("close", code, reason))

    def on_violation(self, close_code: int, reason: str) -> None:
        assert reason.isascii()
        self.seen.append(("violation", close_code))


def parse(*reads: bytes, limit: int = LIMIT, deflate: bool = False) -> Recorder:
    sink = Recorder(limit)
    for read in reads:
        inbound.receive(sink, read, deflate=deflate)
    return sink


@pytest.mark.parametrize("length", [0, 1, 125, 126, 127, 999, 1000])
def test_text_of_every_length_form(length: int) -> None:
    sink = parse(masked(TEXT, b"x" * length))
    assert sink.seen == [("text", "x" * length)]
    assert sink.inbound is None, "no parser may stay behind"


def test_many_frames_in_one_read() -> None:
    wire = (
        masked(TEXT, b"a")
        + masked(PING, b"p")
        + masked(PONG, b"q")
        + masked(BINARY, b"\xff")
        + masked(TEXT, b"b")
    )
    sink = parse(wire)
    assert sink.seen == [("text", "a"), ("ping", b"p"), ("pong", b"q"), ("binary", b"\xff"), ("text", "b")]
    assert sink.inbound is None


def test_common_frames_make_no_parser(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(inbound, "_Parser", None)
    sink = parse(
        masked(TEXT, b"x" * 125) + masked(PONG, b"1-2") + masked(PING), masked(CLOSE, b"\x03\xe8bye")
    )
    assert sink.seen[-1] == ("close", 1000, "bye")


MESSAGES = st.one_of(
    st.tuples(st.just("text"), st.text(max_size=80)),
    st.tuples(st.just("binary"), st.binary(max_size=300)),
    st.tuples(st.just("ping"), st.binary(max_size=125)),
    st.tuples(st.just("pong"), st.binary(max_size=125)),
)


@settings(max_examples=200)
@given(st.data(), st.lists(MESSAGES, max_size=6))
def test_any_fragmentation_and_any_split_gives_the_same_messages(
    data: st.DataObject, messages: list[tuple[str, Any]]
) -> None:
    wire, expected = b"", []
    for kind, content in messages:
        payload = content.encode() if kind == "text" else content
        mask = os.urandom(4)
        if kind in ("ping", "pong"):
            wire += masked({"ping": PING, "pong": PONG}[kind], payload, mask=mask)
            expected.append((kind, payload))
            continue
        cuts = sorted(data.draw(st.lists(st.integers(0, len(payload)), max_size=3)))
        pieces = [payload[a:b] for a, b in zip([0, *cuts], [*cuts, len(payload)], strict=True)]
        for index, piece in enumerate(pieces):
            opcode = CONTINUATION if index else {"text": TEXT, "binary": BINARY}[kind]
            wire += masked(opcode, piece, final=index == len(pieces) - 1, mask=mask)
            if index < len(pieces) - 1 and data.draw(st.booleans()):
                wire += masked(PONG, b"between")
                expected.append(("pong", b"between"))
        expected.append((kind, content))
    cuts = sorted(data.draw(st.lists(st.integers(0, len(wire)), max_size=6)))
    sink = parse(*(wire[a:b] for a, b in zip([0, *cuts], [*cuts, len(wire)], strict=True)))
    assert sink.seen == expected
    assert sink.inbound is None


def test_byte_by_byte() -> None:
    wire = (
        masked(TEXT, "grüße".encode(), final=False)
        + masked(PING)
        + masked(CONTINUATION, b"!" * 200)
        + masked(CLOSE)
    )
    sink = parse(*(wire[i : i + 1] for i in range(len(wire))))
    assert sink.seen == [("ping", b""), ("text", "grüße" + "!" * 200), ("close", 1005, "")]


BAD: dict[str, tuple[bytes, int]] = {
    "unmasked": (frames.text(b"x"), 1002),
    "unmasked, empty": (b"\x81\x00", 1002),
    "unknown data opcode": (masked(3, b"x"), 1002),
    "unknown control opcode": (masked(0xB, b"x"), 1002),
    "rsv1 without deflate": (masked(TEXT, b"x", rsv=4), 1002),
    "rsv2": (masked(TEXT, b"x", rsv=2), 1002),
    "rsv3 on a ping": (masked(PING, b"x", rsv=1), 1002),
    "fragmented ping": (masked(PING, b"x", final=False), 1002),
    "fragmented close": (masked(CLOSE, b"", final=False), 1002),
    "long ping": (masked(PING, b"x" * 126), 1002),
    "long close": (masked(CLOSE, b"\x03\xe8" + b"x" * 200), 1002),
    "continuation of nothing": (masked(CONTINUATION, b"x"), 1002),
    "message in a message": (masked(TEXT, b"x", final=False) + masked(TEXT, b"y"), 1002),
    "bad utf-8": (masked(TEXT, b"\xff"), 1007),
    "bad utf-8, long": (masked(TEXT, b"x" * 200 + b"\xff"), 1007),
    "lone surrogate": (masked(TEXT, b"\xed\xa0\x80"), 1007),
    "cut utf-8": (masked(TEXT, "ü".encode()[:1]), 1007),
    "cut utf-8 over fragments": (
        masked(TEXT, b"a", final=False) + masked(CONTINUATION, "ü".encode()[:1]),
        1007,
    ),
    "too big": (masked(TEXT, b"x" * (LIMIT + 1)), 1009),
    "too big in sum": (masked(TEXT, b"x" * 600, final=False) + masked(CONTINUATION, b"x" * 401), 1009),
    "close of one byte": (masked(CLOSE, b"\x03"), 1002),
    "close code 1005": (masked(CLOSE, b"\x03\xed"), 1002),
    "close code 999": (masked(CLOSE, b"\x03\xe7"), 1002),
    "close code 5000": (masked(CLOSE, b"\x13\x88"), 1002),
    "close reason not utf-8": (masked(CLOSE, b"\x03\xe8\xff"), 1007),
}


@pytest.mark.parametrize("name", BAD)
@pytest.mark.parametrize("split", ["whole", "bytes", "behind a good frame"])
def test_violations(name: str, split: str) -> None:
    wire, code = BAD[name]
    after = masked(TEXT, b"never seen")
    if split == "whole":
        sink = parse(wire + after, after)
    elif split == "bytes":
        sink = parse(*(wire[i : i + 1] for i in range(len(wire))), after)
    else:
        sink = parse(masked(TEXT, b"good") + wire + after, after)
        assert sink.seen.pop(0) == ("text", "good")
    assert sink.seen == [("violation", code)]
    assert sink.inbound is inbound.CLOSED


@pytest.mark.parametrize(
    "head", [b"\x81\xfe\x03\xe9", b"\x81\xff\x00\x00\x00\x00\x00\x00\x03\xe9", b"\x82\xff" + b"\xff" * 8]
)
def test_the_length_is_refused_before_any_payload(head: bytes) -> None:
    assert parse(head).seen == [("violation", 1009)]


@pytest.mark.parametrize("head", [b"\x89\xfe", b"\x09\x80", b"\x83\x80", b"\xa1\x80", b"\x81\x05"])
def test_bad_headers_are_refused_at_the_second_byte(head: bytes) -> None:
    assert parse(head[:1], head[1:]).seen == [("violation", 1002)]


def test_bad_utf8_is_noticed_before_the_message_ends() -> None:
    assert parse(masked(TEXT, b"ok", final=False) + masked(CONTINUATION, b"\xff", final=False)).seen == [
        ("violation", 1007)
    ]


def test_empty_fragments_take_no_memory() -> None:
    sink = parse(masked(BINARY, b"", final=False))
    inbound.receive(sink, masked(CONTINUATION, b"", final=False) * 10_000)
    parser: Any = sink.inbound
    assert len(parser.message) == 0 and len(parser.reader.buffer) == 0
    inbound.receive(sink, masked(CONTINUATION, b"end"))
    assert sink.seen == [("binary", b"end")]
    assert sink.inbound is None


def test_close_is_the_last_thing() -> None:
    sink = parse(masked(CLOSE, b"\x0f\xa1why") + masked(TEXT, b"x"), masked(TEXT, b"y"))
    assert sink.seen == [("close", 4001, "why")]


@pytest.mark.parametrize("stop_in_parser", [False, True])
def test_a_sink_can_stop_the_parsing(stop_in_parser: bool) -> None:
    sink = Recorder()
    sink.stop_at = "x" * (200 if stop_in_parser else 3)
    inbound.receive(sink, masked(TEXT, sink.stop_at.encode()) + masked(TEXT, b"y"))
    assert sink.seen == [("text", sink.stop_at)]


def test_deflated_messages_with_and_without_fragments() -> None:
    body = b"hello hello hello " * 10
    packed = frames.deflate(body)
    wire = masked(TEXT, packed, rsv=4)
    wire += masked(TEXT, packed[:5], final=False, rsv=4) + masked(PING) + masked(CONTINUATION, packed[5:])
    wire += masked(TEXT, b"plain")
    sink = parse(wire, deflate=True)
    assert sink.seen == [("text", body.decode()), ("ping", b""), ("text", body.decode()), ("text", "plain")]
    assert sink.inbound is None


@pytest.mark.parametrize("fragments", [1, 3])
def test_a_zip_bomb_is_refused_within_the_limit(fragments: int) -> None:
    compressor = zlib.compressobj(9, wbits=-15)
    bomb = (compressor.compress(b"\0" * 500_000) + compressor.flush(zlib.Z_SYNC_FLUSH))[:-4]
    assert len(bomb) < LIMIT
    step = -(-len(bomb) // fragments)
    pieces = [bomb[i : i + step] for i in range(0, len(bomb), step)]
    wire = b"".join(
        masked(CONTINUATION if i else BINARY, piece, final=i == len(pieces) - 1, rsv=0 if i else 4)
        for i, piece in enumerate(pieces)
    )
    assert parse(wire, deflate=True).seen == [("violation", 1009)]


def test_a_full_message_leaves_no_room_for_a_bomb() -> None:
    """The rest of the limit is 0 there, which zlib would read as no limit."""
    compressor = zlib.compressobj(9, wbits=-15)
    first = compressor.compress(b"\0" * LIMIT) + compressor.flush(zlib.Z_SYNC_FLUSH)
    second = compressor.compress(b"\0" * 500_000) + compressor.flush(zlib.Z_SYNC_FLUSH)
    wire = masked(BINARY, first, final=False, rsv=4) + masked(CONTINUATION, second[:-4])
    assert parse(wire, deflate=True).seen == [("violation", 1009)]


@pytest.mark.parametrize(
    "wire", [masked(TEXT, b"\xff\xff\xff", rsv=4), masked(CONTINUATION, b"", rsv=4), masked(PING, rsv=4)]
)
def test_bad_compression_is_a_violation(wire: bytes) -> None:
    assert parse(wire, deflate=True).seen == [("violation", 1002)]


@settings(max_examples=300)
@given(st.lists(st.binary(max_size=40), max_size=5), st.booleans())
def test_garbage_never_raises(reads: list[bytes], deflate: bool) -> None:
    sink = parse(*reads, deflate=deflate)
    ends = [event for event in sink.seen if event[0] in ("violation", "close")]
    assert len(ends) <= 1 and sink.seen[-len(ends) or len(sink.seen) :] == ends
