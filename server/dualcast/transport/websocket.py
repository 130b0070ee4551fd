"""A session on WebSocket (RFC 6455): frames out as bytes, commands in, receipts by ping and pong."""

from __future__ import annotations

from typing import Any, Protocol

from dualcast.dialects.port import Dialect
from dualcast.hub.encoding import Encoding
from dualcast.model.codes import Close
from dualcast.model.cursor import parse_cursor
from dualcast.model.errors import BadCursor
from dualcast.model.principal import Principal
from dualcast.session.node import Node
from dualcast.session.session import Session

from . import frames, inbound

NORMAL = 1000
NO_STATUS = 1005
_NATIVE_CODES = {inbound.TOO_BIG: Close.FRAME_TOO_BIG}
"""Violations keep the codes of RFC 6455 (1002, 1007); one that a client can avoid has a code of ours."""


class Receiver(Protocol):
    """What a dialect does with client messages."""

    def text(self, session: WebSocketSession, text: str) -> None: ...

    def binary(self, session: WebSocketSession, data: bytes) -> None: ...


class WebSocketSession(Session):
    """Pings carry the session's cursor: the pong shows what the peer's stack has read (design: receipts)."""

    __slots__ = (
        "can_ping",
        "commands",
        "inbound",
        "max_frame_bytes",
        "pending",
        "receiver",
        "said_close",
        "unanswered_ticks",
    )

    def __init__(
        self,
        node: Node,
        principal: Principal,
        encoding: Encoding,
        dialect: Dialect,
        channels: Any,
        receiver: Receiver,
        **rest: Any,
    ) -> None:
        super().__init__(node, principal, encoding, dialect, channels, **rest)
        self.receiver = receiver
        self.inbound: object | None = None
        self.can_ping = True
        self.said_close = False
        self.unanswered_ticks = -1
        """Sweeps since an unanswered ping; -1: none is."""
        self.commands = 0
        """Client messages since the last sweep."""
        self.max_frame_bytes = node.settings.max_frame_bytes
        self.pending: list[Any] | None = None
        """Commands waiting for one that is under way; None: nothing is."""

    # ── out ──

    def greeting(self) -> bytes:
        """The first ping goes right behind `welcome`, so that the first receipt comes at once."""
        return self._ping() if self.can_ping else b""

    def ping(self) -> None:
        """Asks for a receipt of everything written so far."""
        if self.can_ping and not self.closed:
            try:
                self.transport.write(self._ping())
            except Exception:  # noqa: BLE001 — asked for by others' sessions: one broken socket ends alone
                self.write_failed()

    def _ping(self) -> bytes:
        self.unanswered_ticks = max(self.unanswered_ticks, 0)
        return frames.ping((self.cursor or "").encode())

    def farewell(self, code: Close, retry_ms: int) -> None:
        payload = self.dialect.bye(self, code, code.reason, retry_ms)
        bye = self.encoding.wrap(payload) if payload else b""
        self.transport.write(bye + frames.close(code, code.reason))
        self.said_close = True

    def hang_up(self) -> None:
        """Waits for the peer's close frame (RFC 6455 section 7.1.1); the sweep aborts when it does not
        come."""
        if self.inbound is inbound.CLOSED:
            self._end_of_input()

    def _end_of_input(self) -> None:
        # Half-close: our close frame is read even if the peer is still sending, which a full close would
        # answer with RST.
        if self.transport.can_write_eof():
            self.transport.write_eof()
        else:
            self.transport.close()

    def beat(self) -> None:
        settings = self.node.settings
        self.commands = 0
        if self.unanswered_ticks >= 0:
            self.unanswered_ticks += 1
            if self.unanswered_ticks * settings.sweep_s > settings.dead_after_s:
                self.counters.stale_closed += 1
                self.close(Close.STALE)
                return
        self.silent_ticks += 1
        asked = self.pair is not None and self.node.pairing.asks(self) and self.unanswered_ticks < 0
        if asked or self.silent_ticks * settings.sweep_s >= settings.heartbeat_ws_s:
            self.silent_ticks = 0
            fresh = self.unanswered_ticks < 0
            self.ping()
            if fresh:
                # Sent right at a sweep: after n more, n times `sweep_s` have passed. One sent between two may
                # be younger than that, and is given one sweep more.
                self.unanswered_ticks = 1

    # ── in ──

    def data_received(self, data: bytes) -> None:
        self.unanswered_ticks = -1
        inbound.receive(self, data, deflate=self.encoding.wrap is frames.deflated_text)

    def on_text(self, text: str) -> None:
        if not self.closed:
            self.commands += 1
            self.receiver.text(self, text)

    def on_binary(self, data: bytes) -> None:
        if not self.closed:
            self.commands += 1
            self.receiver.binary(self, data)

    def on_ping(self, payload: bytes) -> None:
        if not self.closed and not self.paused:  # unread pongs must not pile up
            self.transport.write(frames.pong(payload))

    def on_pong(self, payload: bytes) -> None:
        if self.closed or not payload:
            return
        try:
            epoch, offset = parse_cursor(payload.decode("ascii"))
        except (BadCursor, UnicodeDecodeError):
            return  # an unsolicited pong may carry anything (RFC 6455 section 5.5.3)
        if not self.confirm(epoch, offset):
            self.node.forged_receipts += 1

    def on_close(self, code: int, reason: str) -> None:
        if not self.said_close:
            self.said_close = True
            self.ended = code
            self.leave()
            self.transport.write(frames.close(NORMAL if code == NO_STATUS else code))
        self.transport.close()

    def on_violation(self, close_code: int, reason: str) -> None:
        """The peer broke the protocol: this connection ends, no other notices."""
        self.counters.violations += 1
        if self.said_close:
            self.transport.close()
            return
        self.said_close = True
        self.ended = close_code
        self.leave()
        own = _NATIVE_CODES.get(close_code)
        self.transport.write(frames.close(own or close_code, own.reason if own else reason))
        self._end_of_input()
