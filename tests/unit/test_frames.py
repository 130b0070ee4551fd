"""Outgoing bytes against the `websockets` library as the oracle."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from websockets.extensions.permessage_deflate import PerMessageDeflate
from websockets.frames import Close, Frame, Opcode

from dualcast.transport import frames
from dualcast.transport.unframe import unframe_sse, unframe_websocket

LENGTHS = [0, 1, 125, 126, 127, 65535, 65536, 70_000]


@pytest.mark.parametrize("length", LENGTHS)
@pytest.mark.parametrize("opcode", [frames.TEXT, frames.BINARY])
@pytest.mark.parametrize("rsv1", [False, True])
def test_data_frames_equal_the_oracle(length: int, opcode: int, rsv1: bool) -> None:
    payload = b"x" * length
    expected = bytearray(Frame(Opcode(opcode), payload).serialize(mask=False))
    if rsv1:
        expected[0] |= 0x40
    made = frames.frame(opcode, payload, rsv1=rsv1)
    assert made == expected
    assert type(made) is bytes


@pytest.mark.parametrize("length", [0, 1, 125])
def test_ping_and_pong_equal_the_oracle(length: int) -> None:
    payload = b"p" * length
    assert frames.ping(payload) == Frame(Opcode.PING, payload).serialize(mask=False)
    assert frames.pong(payload) == Frame(Opcode.PONG, payload).serialize(mask=False)


@pytest.mark.parametrize("make", [frames.ping, frames.pong])
def test_control_frames_above_125_bytes_are_refused(make: object) -> None:
    with pytest.raises(ValueError, match="control frame"):
        make(b"x" * 126)  # type: ignore[operator]


@pytest.mark.parametrize("code", [1000, 1001, 1011, 1012, 1014, 3000, 4000, 4999])
def test_close_equals_the_oracle(code: int) -> None:
    payload = Close(code, "grüße").serialize()
    assert frames.close(code, "grüße") == Frame(Opcode.CLOSE, payload).serialize(mask=False)


@pytest.mark.parametrize("code", [0, 999, 1004, 1006, 1015, 2999, 5000, 65536])
def test_close_refuses_codes_that_must_not_be_sent(code: int) -> None:
    with pytest.raises(ValueError, match="close code"):
        frames.close(code)


def test_close_without_status_is_empty() -> None:
    assert frames.close(1005) == b"\x88\x00"


@given(st.text(max_size=200))
def test_a_long_close_reason_is_cut_at_a_character(reason: str) -> None:
    made = frames.close(4000, reason)
    assert len(made) <= 127
    cut = made[4:].decode()
    assert reason.startswith(cut)
    assert cut == reason or len(made) > 127 - 4


@given(st.binary(max_size=5000))
def test_deflated_payload_inflates_in_the_oracle(payload: bytes) -> None:
    decoder = PerMessageDeflate(True, True, 15, 15)
    for _ in range(2):  # twice: no context is carried over
        frame = Frame(Opcode.TEXT, frames.deflate(payload), rsv1=True)
        assert bytes(decoder.decode(frame).data) == payload


def test_chunk_format() -> None:
    assert frames.chunk(b"x" * 26) == b"1a\r\n" + b"x" * 26 + b"\r\n"
    with pytest.raises(ValueError, match="empty"):
        frames.chunk(b"")


@given(st.lists(st.binary(min_size=1, max_size=300), min_size=1, max_size=5), st.booleans())
def test_chunks_come_back_as_one_body(blocks: list[bytes], ended: bool) -> None:
    wire = b"".join(map(frames.chunk, blocks)) + (frames.LAST_CHUNK if ended else b"")
    messages, end, _ = unframe_sse(wire)
    assert end is ended
    assert messages == [{"type": "http.response.body", "body": b"".join(blocks), "more_body": not ended}]


@given(st.lists(st.text(max_size=400), max_size=5), st.integers(0, 3))
def test_frames_come_back_as_messages(texts: list[str], pings: int) -> None:
    wire = (
        b"".join(frames.text(text.encode()) for text in texts)
        + frames.ping(b"1") * pings
        + frames.close(4001, "x")
    )
    messages, end, skipped = unframe_websocket(wire)
    assert (end, skipped) == (True, pings)
    assert [message["text"] for message in messages[:-1]] == texts
    assert messages[-1] == {"type": "websocket.close", "code": 4001, "reason": "x"}


def test_compressed_frames_come_back_as_text() -> None:
    messages, _, _ = unframe_websocket(frames.deflated_text(b"packed " * 50))
    assert messages == [{"type": "websocket.send", "text": "packed " * 50}]


@pytest.mark.parametrize("half", [b"5\r\nab", b"zz\r\n"])
def test_half_chunks_are_our_own_error(half: bytes) -> None:
    with pytest.raises(ValueError):
        unframe_sse(half)


def test_half_frames_are_our_own_error() -> None:
    with pytest.raises(ValueError, match="half"):
        unframe_websocket(frames.text(b"abc")[:-1])
