"""Log lines that a flood must not repeat."""

from __future__ import annotations

import time

QUIET_S = 1.0


class Quiet:
    """Calling it tells whether a line may be written: one a second."""

    def __init__(self) -> None:
        self._until = 0.0

    def __call__(self) -> bool:
        now = time.monotonic()
        if now < self._until:
            return False
        self._until = now + QUIET_S
        return True
