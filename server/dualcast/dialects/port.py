"""What a session asks of its dialect: its signals as text, or None where the contract knows no such
signal."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

from dualcast.model.publication import Gap


class Deprecation(Protocol):
    """When SSE was deprecated and when it ends: Unix seconds, 0: not set (`dualcast_migration.policy`)."""

    @property
    def deprecated_at(self) -> int: ...
    @property
    def sunset_at(self) -> int: ...
    @property
    def link(self) -> str: ...


class Dialect(Protocol):
    """One per (dialect, transport). Pure: session facts in, bytes out (SSE block or JSON text).

    `session` is a `session.Session`; a dialect reads its `id`, `epoch`, `cursor`, `principal`, `channels` and
    `node.settings`.
    """

    name: str

    def welcome(self, session: Any) -> bytes | None: ...

    def gap(self, session: Any, gap: Gap) -> bytes | None: ...

    def state(self, session: Any, channel: str, data: bytes | None, status: str) -> bytes | None:
        """How `channel` stands. `data`: minified JSON; None: there is none, and `status` says why."""
        ...

    def unsubscribed(self, names: Sequence[str]) -> bytes | None:
        """Channels were taken away."""
        ...

    def status(self, session: Any, *, available: bool) -> bytes | None: ...

    def stage(self, stage: str) -> bytes | None:
        """The migration stage in force is another one."""
        ...

    def migrate(
        self, session: Any, to: str, url: str, after_ms: int, deprecation: Deprecation | None
    ) -> bytes | None:
        """Please move to the transport `to` (`sse` or `websocket`) at `url`."""
        ...

    def auth_expiring(self, expires_at: int) -> bytes | None: ...

    def auth_expired(self, reason: str) -> bytes | None: ...

    def bye(self, session: Any, code: int, reason: str, retry_ms: int) -> bytes | None:
        """Last words; on SSE they set `retry:`."""
        ...

    def position(self, cursor: str) -> bytes | None:
        """Moves the client's cursor without an event; None where the transport has no such thing."""
        ...
