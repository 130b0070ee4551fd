"""Incoming WebSocket bytes, without a parser per connection.

The common frame (masked, final, below 126 bytes, whole in one read) is parsed in place. Anything else
(fragments, long frames, frames split between reads, compressed messages) goes to a parser on `websockets`'
sans-I/O frame reader, made only then and dropped as soon as it holds no partial state. Checks follow RFC 6455
sections 5.2 to 5.5 and 7.4; limits come before buffering.
"""

from __future__ import annotations

import codecs
from collections.abc import Generator
from typing import Final, Protocol

from websockets.exceptions import PayloadTooBig, ProtocolError
from websockets.extensions.permessage_deflate import PerMessageDeflate
from websockets.frames import Frame
from websockets.streams import StreamReader

from dualcast.transport.frames import (
    BINARY,
    CLOSE,
    CONTINUATION,
    MAX_CONTROL_BYTES,
    PING,
    PONG,
    TEXT,
    valid_close_code,
)

try:
    from websockets.speedups import apply_mask
except ImportError:  # pragma: no cover - a platform without the C extension
    from websockets.utils import apply_mask

PROTOCOL_ERROR: Final = 1002
BAD_DATA: Final = 1007
TOO_BIG: Final = 1009

CLOSED: Final = object()
"""Value of `sink.inbound` after a close frame or violation; a sink that closes by itself may set it to stop
the parsing at once.
"""


class Sink(Protocol):
    """Who takes the parsed messages. `on_close` and `on_violation` come at most once and nothing comes after
    them.
    """

    inbound: object | None
    """Parser state: None while nothing is held."""
    max_frame_bytes: int
    """Largest message, summed over its fragments, before and after decompression."""

    def on_text(self, text: str) -> None: ...
    def on_binary(self, data: bytes) -> None: ...
    def on_ping(self, payload: bytes) -> None: ...
    def on_pong(self, payload: bytes) -> None: ...
    def on_close(self, code: int, reason: str) -> None:
        """The peer's close frame: 1005 stands for a frame without a code."""

    def on_violation(self, close_code: int, reason: str) -> None:
        """The peer broke the protocol: close with `close_code`; `reason` is safe to send."""


def receive(sink: Sink, data: bytes, *, deflate: bool = False) -> None:
    """Parses `data` as it came from the socket and calls `sink`. Never raises for what the peer sent.

    `deflate`: permessage-deflate without context takeover was negotiated.
    """
    held = sink.inbound
    if held is not None:
        if held is not CLOSED:
            assert isinstance(held, _Parser)
            held.feed(sink, data)
        return
    start, end = 0, len(data)
    limit = sink.max_frame_bytes
    while start + 6 <= end:
        first, second = data[start], data[start + 1]
        stop = start + second - 122  # 6 bytes of header and mask + (second - 128) bytes of payload
        if not 128 <= second < 254 or stop > end or second - 128 > limit:
            break
        if first == 0x81:
            payload = apply_mask(data[start + 6 : stop], data[start + 2 : start + 6])
            try:
                message = payload.decode()
            except UnicodeDecodeError:
                _violation(sink, BAD_DATA, "text is not UTF-8")
                return
            sink.on_text(message)
        elif 0x88 <= first <= 0x8A:
            _control(sink, first & 0xF, apply_mask(data[start + 6 : stop], data[start + 2 : start + 6]))
        else:
            break
        if sink.inbound is not None:
            return
        start = stop
    if start < end:
        parser = _Parser(deflate)
        sink.inbound = parser
        parser.feed(sink, data[start:] if start else data)


def stop(sink: Sink) -> None:
    """Nothing more is parsed for `sink`: the session has decided to close."""
    sink.inbound = CLOSED


def _violation(sink: Sink, code: int, reason: str) -> None:
    sink.inbound = CLOSED
    sink.on_violation(code, reason)


def _control(sink: Sink, opcode: int, payload: bytes) -> None:
    if opcode == PONG:
        sink.on_pong(payload)
    elif opcode == PING:
        sink.on_ping(payload)
    elif not payload:
        sink.inbound = CLOSED
        sink.on_close(1005, "")
    elif len(payload) == 1:
        _violation(sink, PROTOCOL_ERROR, "close frame of one byte")
    elif not valid_close_code(code := int.from_bytes(payload[:2], "big")):
        _violation(sink, PROTOCOL_ERROR, "bad close code")
    else:
        try:
            reason = payload[2:].decode()
        except UnicodeDecodeError:
            _violation(sink, BAD_DATA, "close reason is not UTF-8")
            return
        sink.inbound = CLOSED
        sink.on_close(code, reason)


class _Parser:
    """One connection's partial frame and partial message. Holds at most one message of the limit and one
    read.
    """

    __slots__ = ("extensions", "message", "opcode", "pending", "reader", "utf8")

    def __init__(self, deflate: bool) -> None:
        self.reader = StreamReader()
        self.pending: Generator[None, None, Frame] | None = None
        self.opcode = CONTINUATION  # of the fragmented message; CONTINUATION while there is none
        self.message = bytearray()
        self.utf8: codecs.IncrementalDecoder | None = None
        self.extensions = [PerMessageDeflate(True, True, 15, 15)] if deflate else []

    def feed(self, sink: Sink, data: bytes) -> None:
        self.reader.feed_data(data)
        while sink.inbound is self:
            if self.pending is None:
                buffer = self.reader.buffer
                if len(buffer) < 2:
                    if not buffer and self.opcode == CONTINUATION:
                        sink.inbound = None
                    return
                problem = self._header_problem(buffer[0], buffer[1])
                if problem is not None:
                    _violation(sink, PROTOCOL_ERROR, problem)
                    return
                control = buffer[0] & 0x8
                self.pending = Frame.parse(
                    self.reader.read_exact,
                    mask=True,
                    max_size=MAX_CONTROL_BYTES if control else sink.max_frame_bytes - len(self.message),
                    extensions=self.extensions,
                )
            try:
                next(self.pending)
            except StopIteration as stop:
                self.pending = None
                frame: Frame = stop.value
                self._take(sink, int(frame.opcode), frame.fin, bytes(frame.data))
            except PayloadTooBig:
                _violation(sink, TOO_BIG, "message too big")
            except ProtocolError as exc:
                _violation(sink, PROTOCOL_ERROR, str(exc))
            else:
                return  # the frame is incomplete

    def _header_problem(self, first: int, second: int) -> str | None:
        """What is wrong with a frame that starts with these bytes, before any of its payload is awaited."""
        opcode = first & 0x0F
        if not second & 0x80:
            return "frame is not masked"
        if opcode not in (CONTINUATION, TEXT, BINARY, CLOSE, PING, PONG):
            return "unknown opcode"
        if first & 0x30 or (first & 0x40 and (not self.extensions or opcode not in (TEXT, BINARY))):
            return "reserved bits are set"
        if opcode & 0x8:
            if not first & 0x80:
                return "control frame is fragmented"
            if second & 0x7F > MAX_CONTROL_BYTES:
                return "control frame is too long"
        elif opcode == CONTINUATION and self.opcode == CONTINUATION:
            return "continuation of nothing"
        elif opcode != CONTINUATION and self.opcode != CONTINUATION:
            return "message inside a fragmented message"
        return None

    def _take(self, sink: Sink, opcode: int, final: bool, payload: bytes) -> None:
        """One frame whose header was accepted."""
        if opcode & 0x8:
            _control(sink, opcode, payload)
            return
        if len(self.message) + len(payload) > sink.max_frame_bytes:
            _violation(sink, TOO_BIG, "message too big")
            return
        if opcode != CONTINUATION and not final:
            self.opcode = opcode
            self.utf8 = codecs.getincrementaldecoder("utf-8")() if opcode == TEXT else None
        if self.utf8 is not None:
            try:
                self.utf8.decode(
                    payload, final
                )  # fails at the first bad byte, before the rest of the message came
            except UnicodeDecodeError:
                _violation(sink, BAD_DATA, "text is not UTF-8")
                return
        if not final:
            self.message += payload
            return
        if opcode == CONTINUATION:
            opcode, payload = self.opcode, bytes(self.message + payload)
            self.opcode, self.message, self.utf8 = CONTINUATION, bytearray(), None
        if opcode == BINARY:
            sink.on_binary(payload)
            return
        try:
            message = payload.decode()
        except UnicodeDecodeError:
            _violation(sink, BAD_DATA, "text is not UTF-8")
            return
        sink.on_text(message)
