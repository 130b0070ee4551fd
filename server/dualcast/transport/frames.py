"""Outgoing bytes: server WebSocket frames (RFC 6455 section 5.2, unmasked, never fragmented) and HTTP/1.1
chunks (RFC 9112 section 7.1).

Pure functions from payload bytes to wire bytes. The results are shared between sessions by reference, so they
are always `bytes`.
"""

from __future__ import annotations

import zlib
from typing import Final

CONTINUATION: Final = 0x0
TEXT: Final = 0x1
BINARY: Final = 0x2
CLOSE: Final = 0x8
PING: Final = 0x9
PONG: Final = 0xA

MAX_CONTROL_BYTES: Final = 125
LAST_CHUNK: Final = b"0\r\n\r\n"
"""Ends a chunked body; with it an `EventSource` sees a clean end and reconnects."""
_SYNC_TAIL: Final = b"\x00\x00\xff\xff"


def frame(opcode: int, payload: bytes, *, rsv1: bool = False) -> bytes:
    """One complete frame. `rsv1` marks a payload already compressed by `deflate`.

    Raises ValueError for a control frame above 125 bytes.
    """
    length = len(payload)
    head = (0xC0 if rsv1 else 0x80) | opcode
    if length < 126:
        return bytes((head, length)) + payload
    if opcode >= CLOSE:
        raise ValueError(f"control frame of {length} bytes, the limit is {MAX_CONTROL_BYTES}")
    if length < 65536:
        return bytes((head, 126)) + length.to_bytes(2, "big") + payload
    return bytes((head, 127)) + length.to_bytes(8, "big") + payload


def text(payload: bytes) -> bytes:
    """A text frame; `payload` must be UTF-8."""
    return frame(TEXT, payload)


def deflated_text(payload: bytes) -> bytes:
    """A text frame whose message is compressed here, once, for every peer that negotiated no context takeover
    (RFC 7692).
    """
    return frame(TEXT, deflate(payload), rsv1=True)


def deflate(payload: bytes) -> bytes:
    """`payload` as one permessage-deflate message with a fresh window (RFC 7692 section 7.2.1)."""
    compressor = zlib.compressobj(wbits=-15)
    return (compressor.compress(payload) + compressor.flush(zlib.Z_SYNC_FLUSH)).removesuffix(_SYNC_TAIL)


def ping(payload: bytes = b"") -> bytes:
    """A ping frame, at most 125 bytes of payload."""
    return frame(PING, payload)


def pong(payload: bytes = b"") -> bytes:
    """A pong frame; answers a ping with the ping's own payload."""
    return frame(PONG, payload)


def close(code: int, reason: str = "") -> bytes:
    """A close frame. 1005 (no status) gives the empty one; a reason above 123 bytes is cut at a character.

    Raises ValueError for a code that must not be sent (RFC 6455 section 7.4).
    """
    if code == 1005:
        return frame(CLOSE, b"")
    if not valid_close_code(code):
        raise ValueError(f"close code {code} must not be sent")
    reason_bytes = reason.encode()
    if len(reason_bytes) > MAX_CONTROL_BYTES - 2:
        reason_bytes = reason_bytes[: MAX_CONTROL_BYTES - 2].decode(errors="ignore").encode()
    return frame(CLOSE, code.to_bytes(2, "big") + reason_bytes)


def valid_close_code(code: int) -> bool:
    """Whether `code` may stand in a close frame: RFC 6455 section 7.4 and the IANA registry."""
    return 3000 <= code <= 4999 or (1000 <= code <= 1014 and code not in (1004, 1005, 1006))


def chunk(data: bytes) -> bytes:
    """`data` as one HTTP/1.1 chunk. Raises ValueError for empty data, which would end the body."""
    if not data:
        raise ValueError("an empty chunk would end the body")
    return b"%x\r\n%b\r\n" % (len(data), data)
