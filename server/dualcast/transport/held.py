"""The head of a response, kept back for a moment so that a session writes it with its first bytes: one
segment and one system call per stream instead of two.
"""

from __future__ import annotations

import asyncio
from typing import Any


class Held:
    """Stands for the transport of one request cycle and keeps what is written, in order; everything else is
    done by the transport itself."""

    __slots__ = ("_kept", "transport")

    def __init__(self, transport: asyncio.Transport) -> None:
        self.transport = transport
        self._kept: list[bytes] = []

    def write(self, data: bytes) -> None:
        self._kept.append(data)

    def take(self) -> bytes:
        """What was written; it is the caller's to write now."""
        kept, self._kept = self._kept, []
        return b"".join(kept)

    def flush(self) -> None:
        """Writes it."""
        data = self.take()
        if data and not self.transport.is_closing():
            self.transport.write(data)

    def close(self) -> None:
        self.flush()
        self.transport.close()

    def __getattr__(self, name: str) -> Any:
        return getattr(self.transport, name)
