"""The native dialect's signals on each transport (docs/protocol.md): what a session says besides
publications."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from dualcast.model.publication import Gap

from .native import gap_frame, socket_frame, socket_state, stream_frame, stream_position, stream_state
from .native_base import ServerFrame
from .native_types import (
    AuthExpired,
    AuthExpiring,
    Bye,
    Drain,
    Migrate,
    StageFrame,
    Status,
    Unsubscribed,
    Welcome,
)
from .port import Deprecation

REPLACED_RETRY_MS = 60_000
"""A replaced `EventSource` comes back by itself; a long delay keeps two pages from evicting each other in
turn."""


def welcome_frame(session: Any, heartbeat_s: int, **more: Any) -> Welcome:
    """The first frame of a session; `more`: further fields."""
    principal = session.principal
    return Welcome(
        connection=session.id,
        tenant=principal.tenant,
        user=principal.sub,
        stage=session.stage,
        channels=[feed.name for feed in session.channels],
        heartbeat_s=heartbeat_s,
        cursor=session.cursor,
        expires_at=principal.expires_at or None,
        **more,
    )


def _migrate(session: Any, to: str, url: str, after_ms: int, deprecation: Deprecation | None) -> Migrate:
    return Migrate(
        to=to,
        url=url,
        cursor=session.cursor,
        after_ms=after_ms,
        deprecated_at=(deprecation.deprecated_at or None) if deprecation else None,
        sunset_at=(deprecation.sunset_at or None) if deprecation else None,
        link=(deprecation.link or None) if deprecation else None,
    )


class NativeSocket:
    """Signals as JSON text frames."""

    name = "native"

    def welcome(self, session: Any) -> bytes:
        return socket_frame(welcome_frame(session, session.node.settings.heartbeat_ws_s))

    def gap(self, session: Any, gap: Gap) -> bytes:
        return socket_frame(gap_frame(gap, session.epoch, session.cursor))

    def state(self, session: Any, channel: str, data: bytes | None, status: str) -> bytes | None:
        return socket_state(channel, data, status)

    def unsubscribed(self, names: Sequence[str]) -> bytes:
        return socket_frame(Unsubscribed(channels=list(names)))

    def status(self, session: Any, *, available: bool) -> bytes:
        return socket_frame(Status(bus="ok" if available else "away", cursor=session.cursor))

    def stage(self, stage: str) -> bytes:
        return socket_frame(StageFrame(stage=stage))

    def migrate(
        self, session: Any, to: str, url: str, after_ms: int, deprecation: Deprecation | None
    ) -> bytes:
        return socket_frame(_migrate(session, to, url, after_ms, deprecation))

    def auth_expiring(self, expires_at: int) -> bytes:
        return socket_frame(AuthExpiring(expires_at=expires_at))

    def auth_expired(self, reason: str) -> bytes:
        return socket_frame(AuthExpired(reason=reason))

    def bye(self, session: Any, code: int, reason: str, retry_ms: int) -> bytes:
        stop = 4000 <= code < 4100
        return socket_frame(
            Bye(code=code, reason=reason, retry_ms=None if stop else retry_ms, cursor=session.cursor)
        )

    def position(self, cursor: str) -> None:
        return None


class NativeStream:
    """Signals as SSE events; those that move the position carry `id:`."""

    name = "native"

    def welcome(self, session: Any) -> bytes:
        frame = welcome_frame(session, session.node.settings.heartbeat_sse_s)
        return stream_frame(frame, cursor=session.cursor, retry_ms=session.retry_ms())

    def gap(self, session: Any, gap: Gap) -> bytes:
        return stream_frame(gap_frame(gap, session.epoch, session.cursor), cursor=session.cursor)

    def state(self, session: Any, channel: str, data: bytes | None, status: str) -> bytes | None:
        return stream_state(channel, data, status)

    def unsubscribed(self, names: Sequence[str]) -> bytes:
        return stream_frame(Unsubscribed(channels=list(names)))

    def status(self, session: Any, *, available: bool) -> bytes:
        return stream_frame(Status(bus="ok" if available else "away"), cursor=session.cursor)

    def stage(self, stage: str) -> bytes:
        return stream_frame(StageFrame(stage=stage))

    def migrate(
        self, session: Any, to: str, url: str, after_ms: int, deprecation: Deprecation | None
    ) -> bytes:
        return stream_frame(_migrate(session, to, url, after_ms, deprecation), cursor=session.cursor)

    def auth_expiring(self, expires_at: int) -> bytes:
        return stream_frame(AuthExpiring(expires_at=expires_at))

    def auth_expired(self, reason: str) -> bytes:
        return stream_frame(AuthExpired(reason=reason))

    def bye(self, session: Any, code: int, reason: str, retry_ms: int) -> bytes:
        frame: ServerFrame = Bye(code=code, reason=reason, retry_ms=retry_ms)
        if reason == "drain":
            frame = Drain(retry_ms=retry_ms)
        elif reason == "replaced":
            retry_ms = REPLACED_RETRY_MS
            frame = Bye(code=code, reason=reason, retry_ms=retry_ms)
        return stream_frame(frame, cursor=session.cursor, retry_ms=retry_ms)

    def position(self, cursor: str) -> bytes:
        return stream_position(cursor)


SOCKET = NativeSocket()
STREAM = NativeStream()
