"""A session on a transport without a socket, and a client that remembers what it was told."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from dualcast.hub.encoding import Encoding
from dualcast.model.codes import Close
from dualcast.model.principal import Principal
from dualcast.model.publication import Entry, Gap
from dualcast.session.node import Node
from dualcast.session.session import FROM_NOW, Session


def _encode(entry: Entry) -> bytes:
    return f"p {entry.publication.epoch} {entry.offset} {entry.publication.id} {entry.channel}\n".encode()


ENCODING = Encoding("test", "ws", _encode, lambda data: data, conflates=True)


class TestDialect:
    """Signals as text lines."""

    __test__ = False
    name = "native"

    def welcome(self, session: Any) -> bytes:
        return f"welcome {session.cursor}\n".encode()

    def gap(self, session: Any, gap: Gap) -> bytes:
        return f"gap {gap.channel} {gap.after} {gap.oldest} {gap.reason} {session.cursor}\n".encode()

    def state(self, session: Any, channel: str, data: bytes | None, status: str) -> bytes:
        return f"state {channel} {status if data is None else data.decode()}\n".encode()

    def unsubscribed(self, names: Sequence[str]) -> bytes:
        return f"unsubscribed {' '.join(names)}\n".encode()

    def status(self, session: Any, *, available: bool) -> bytes:
        return f"status {available}\n".encode()

    def auth_expiring(self, expires_at: int) -> bytes:
        return b"auth_expiring\n"

    def auth_expired(self, reason: str) -> bytes:
        return f"auth_expired {reason}\n".encode()

    def bye(self, session: Any, code: int, reason: str, retry_ms: int) -> bytes:
        return f"bye {code}\n".encode()

    def position(self, cursor: str) -> bytes:
        return f"position {cursor}\n".encode()


class RecordingSession(Session):
    """Beats do nothing; `farewell` is a line."""

    __slots__ = ()

    def farewell(self, code: Close, retry_ms: int) -> None:
        self.transport.write(self.dialect.bye(self, code, code.reason, retry_ms) or b"")

    def hang_up(self) -> None:
        self.transport.close()

    def beat(self) -> None:
        return


class RecordingTransport:
    """Keeps what is written. `take` is the peer reading: beyond `high` unread bytes the session is paused."""

    def __init__(self, high: int = 1 << 30) -> None:
        self.high = high
        self.session: Any = None
        self.unread = 0
        self.lines: list[str] = []
        self.writes = 0
        self.closed = self.aborted = False
        self.paused = False

    def set_write_buffer_limits(self, high: int, low: int) -> None:
        return

    def write(self, data: bytes) -> None:
        assert not self.closed, "written after close"
        self.writes += 1
        self.lines.extend(data.decode().splitlines())
        self.unread += len(data)
        if self.unread > self.high and not self.paused:
            self.paused = True
            self.session.pause_writing()

    def take(self) -> None:
        """The peer reads everything."""
        self.unread = 0
        if self.paused:
            self.paused = False
            self.session.resume_writing()

    def close(self) -> None:
        self.closed = True

    def abort(self) -> None:
        self.closed = self.aborted = True


def open_session(node: Node, channels: list[str], **how: Any) -> tuple[RecordingSession, RecordingTransport]:
    """An attached session; `how`: as of `made_session`."""
    session, transport = made_session(node, channels, **how)
    session.attached(transport, set(), paused=False, initial=b"")
    return session, transport


def made_session(
    node: Node,
    channels: list[str],
    *,
    sub: str = "u",
    epoch: str = "",
    position: int = FROM_NOW,
    high: int = 1 << 30,
    encoding: Encoding = ENCODING,
    **rest: Any,
) -> tuple[RecordingSession, RecordingTransport]:
    """A session that is not attached yet, and its transport."""
    session = RecordingSession(
        node,
        Principal("t", sub),
        encoding,
        TestDialect(),
        channels,
        epoch=epoch,
        position=position,
        **rest,
    )
    transport = RecordingTransport(high)
    transport.session = session
    return session, transport
