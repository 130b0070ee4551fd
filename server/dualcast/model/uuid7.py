"""UUIDv7 (RFC 9562 5.7), monotonic inside a process (6.2 method 2: a random part that is incremented)."""

from __future__ import annotations

import os
import time
from random import Random

_RANDOM_BITS = 74
_RANDOM_MASK = (1 << _RANDOM_BITS) - 1
_LOW_62 = (1 << 62) - 1


class Uuid7:
    """Calling it gives the next id as text; every id is greater than the one before."""

    __slots__ = ("_bits", "_ms", "_random")

    def __init__(self) -> None:
        self._ms = 0
        self._random = 0
        # Ids are unique, not secret (RFC 9562 8): no system call for each.
        self._bits = Random(os.urandom(32)).getrandbits  # noqa: S311

    def __call__(self, now_ms: int | None = None) -> str:
        """The next id. `now_ms`: Unix milliseconds; a clock that goes back is waited out by counting."""
        ms = int(time.time() * 1000) if now_ms is None else now_ms
        if ms > self._ms:
            self._ms = ms
            # The top bit starts clear: room for at least 2**73 / 2**32 ids in one millisecond.
            self._random = self._bits(_RANDOM_BITS - 1)
        else:
            self._random += 1 + self._bits(32)
            if self._random > _RANDOM_MASK:
                self._ms += 1
                self._random = self._bits(_RANDOM_BITS - 1)
        high, low = self._random >> 62, self._random & _LOW_62
        text = f"{(self._ms << 80) | (0x7000 | high) << 64 | (1 << 63) | low:032x}"
        return f"{text[:8]}-{text[8:12]}-{text[12:16]}-{text[16:20]}-{text[20:]}"
