"""Back from wire bytes to ASGI messages, for sessions that run over plain ASGI. Pure; the input is ours, so
it is trusted to be whole.
"""

from __future__ import annotations

import zlib
from typing import Any

from dualcast.transport.frames import BINARY, CLOSE, TEXT

Message = dict[str, Any]


def unframe_sse(data: bytes) -> tuple[list[Message], bool, int]:
    """Whole HTTP/1.1 chunks → one http.response.body; True when the last chunk is among them; skipped pings:
    none.

    Raises ValueError for bytes that are no whole chunks.
    """
    parts: list[bytes] = []
    start, ended = 0, False
    while start < len(data):
        line = data.index(b"\r\n", start)
        size = int(data[start:line], 16)
        if size == 0:
            ended = True
            break
        parts.append(data[line + 2 : line + 2 + size])
        start = line + 4 + size
        if start > len(data):
            raise ValueError("half a chunk was written")
    return [{"type": "http.response.body", "body": b"".join(parts), "more_body": not ended}], ended, 0


def unframe_websocket(data: bytes) -> tuple[list[Message], bool, int]:
    """Whole unmasked frames → ASGI messages; True when a close frame is among them; the number of pings left
    out (pongs too, silently).

    Raises ValueError for bytes that are no whole frames.
    """
    messages: list[Message] = []
    start, skipped = 0, 0
    while start < len(data):
        first, length, body = data[start], data[start + 1], start + 2
        if length == 126:
            length, body = int.from_bytes(data[start + 2 : start + 4], "big"), start + 4
        elif length == 127:
            length, body = int.from_bytes(data[start + 2 : start + 10], "big"), start + 10
        start = body + length
        if start > len(data) or first & 0xB0 != 0x80:
            raise ValueError("half a frame or a fragment was written")
        payload, opcode = data[body:start], first & 0x0F
        if first & 0x40:  # negotiated with our own class, but the detach was refused
            payload = zlib.decompressobj(wbits=-15).decompress(payload + b"\x00\x00\xff\xff")
        if opcode == TEXT:
            messages.append({"type": "websocket.send", "text": payload.decode()})
        elif opcode == BINARY:
            messages.append({"type": "websocket.send", "bytes": payload})
        elif opcode == CLOSE:
            code = int.from_bytes(payload[:2], "big") if payload else 1000
            messages.append({"type": "websocket.close", "code": code, "reason": payload[2:].decode()})
            return messages, True, skipped
        elif opcode == 0x9:
            skipped += 1
    return messages, False, skipped
