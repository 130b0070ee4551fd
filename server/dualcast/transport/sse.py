"""A session on Server-Sent Events: chunk-framed blocks out, nothing in (WHATWG HTML, server-sent events)."""

from __future__ import annotations

from dualcast.dialects.native import HEARTBEAT_COMMENT
from dualcast.model.codes import Close
from dualcast.session.session import Session

from .frames import LAST_CHUNK, chunk

HEADERS = (
    (b"content-type", b"text/event-stream; charset=utf-8"),
    (b"cache-control", b"no-cache, no-transform"),
    (b"x-accel-buffering", b"no"),
)
_HEARTBEAT = chunk(HEARTBEAT_COMMENT)


class SseSession(Session):
    """Writes a comment after `heartbeat_sse_s` without traffic; a full stop of the peer shows as a full write
    buffer."""

    __slots__ = ()

    def data_received(self, data: bytes) -> None:
        # A client has nothing to say on a stream; a pipelined request would wait for its end, so it is not
        # answered.
        return

    def farewell(self, code: Close, retry_ms: int) -> None:
        payload = self.dialect.bye(self, code, code.reason, retry_ms)
        self.transport.write((self.encoding.wrap(payload) if payload else b"") + LAST_CHUNK)

    def hang_up(self) -> None:
        self.transport.close()

    def beat(self) -> None:
        offset = self.gate if self.live else self.position
        if offset != self.seen:
            self.seen = offset
            self.silent_ticks = 0
            if self.muted and not self.paused and (cursor := self.cursor):
                # Read over a socket: whoever comes back must not ask for it again.
                self.transport.write(self.encoding.wrap(self.dialect.position(cursor) or b""))
            return
        self.silent_ticks += 1
        settings = self.node.settings
        if self.silent_ticks * settings.sweep_s < settings.heartbeat_sse_s:
            return
        self.silent_ticks = 0
        # A quiet stream is kept current: with an up-to-date id a late reconnect finds no hole that is not
        # one.
        cursor = self.cursor
        position = self.dialect.position(cursor) if cursor and (self.live or self.muted) else None
        self.transport.write(self.encoding.wrap(position) if position else _HEARTBEAT)
