"""Counting different users in little room: the smallest `size` of their hashes (K minimum values, Bar-Yossef
et al. 2002). Sketches are merged by joining and cutting; exact below `size`, then off by about
1/sqrt(size)."""

from __future__ import annotations

from collections.abc import Iterable
from functools import lru_cache
from hashlib import blake2b

WINDOW_SIZE = 256
"""Of a window: off by 6 %."""
ROW_SIZE = 64
"""Of a census row: off by 13 %."""
DIGITS = 12
_RANGE: int = 16**DIGITS


def mark(tenant: str, user: str) -> str:
    """What stands for `user`: 12 hex digits, from which nobody reads the name."""
    octets = user.encode("utf-8", "surrogatepass")
    return blake2b(octets, digest_size=DIGITS // 2, key=_key(tenant)).hexdigest()


@lru_cache(maxsize=1024)
def _key(tenant: str) -> bytes:
    return blake2b(tenant.encode("utf-8", "surrogatepass"), digest_size=16).digest()


def cut(marks: Iterable[str], size: int) -> list[str]:
    """The smallest `size` different ones, ascending: the sketch of all of them."""
    return sorted(set(marks))[:size]


def estimate(sketch: list[str], size: int) -> int:
    """How many users a sketch made by `cut` with the same `size` stands for."""
    if len(sketch) < size:
        return len(sketch)
    return round((size - 1) * _RANGE / (int(sketch[-1], 16) + 1))


class Sketch:
    """A sketch that grows: at most twice `size` marks are held."""

    __slots__ = ("_marks", "_size")

    def __init__(self, size: int) -> None:
        self._size = size
        self._marks: set[str] = set()

    def add(self, one: str) -> None:
        self._marks.add(one)
        if len(self._marks) >= 2 * self._size:
            self._marks = set(cut(self._marks, self._size))

    @property
    def marks(self) -> list[str]:
        """Ascending."""
        return cut(self._marks, self._size)


def packed(marks: Iterable[str]) -> str:
    """One text."""
    return "".join(marks)


def unpacked(text: str) -> list[str]:
    """The marks of one."""
    return [text[at : at + DIGITS] for at in range(0, len(text), DIGITS)]
