"""Ids that make a repetition harmless, and numbers that put the reports of a task in order."""

from __future__ import annotations

import os
import threading
import time


def new_id() -> str:
    """A UUIDv7 (RFC 9562 5.7): unique, and later ones sort behind."""
    ms = time.time_ns() // 1_000_000
    value = (ms << 80) | int.from_bytes(os.urandom(10), "big")
    value = (value & ~(0xF << 76) & ~(0x3 << 62)) | (0x7 << 76) | (0x2 << 62)
    text = f"{value:032x}"
    return f"{text[:8]}-{text[8:12]}-{text[12:16]}-{text[16:20]}-{text[20:]}"


class Sequence:
    """Calling it gives a number above the one before: microseconds since 1970, so that the numbers of a
    process grow beyond those of the process that did its work before. Safe between threads."""

    def __init__(self) -> None:
        self._last = 0
        self._lock = threading.Lock()

    def __call__(self) -> int:
        with self._lock:
            self._last = max(self._last + 1, time.time_ns() // 1000)
            return self._last


next_sequence = Sequence()
"""The sequence of this process."""
