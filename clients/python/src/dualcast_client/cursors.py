"""Where a subscription's position is kept, so that a program that starts again goes on where it was."""

from __future__ import annotations

import asyncio
import contextlib
import inspect
import os
import time
from collections.abc import Awaitable
from pathlib import Path
from typing import Protocol

MAX_CURSOR = 256
SAVE_EVERY_S = 1.0
UNREADABLE = "unreadable"
"""No cursor of any log: the server tells a gap, where "" would skip what is missing without a word."""


class CursorStore(Protocol):
    """Keeps one cursor: of one tenant, user and set of channels. Plain or awaitable. What `load` raises ends
    the opening of the subscription; what `save` raises comes out of the next step of it, which may be
    repeated."""

    def load(self) -> str | Awaitable[str | None] | None:
        """The cursor kept last; None or "": there is none, begin with what comes from now on."""

    def save(self, cursor: str) -> Awaitable[None] | None:
        """Keeps it. Called at most once a second, at each `ack`, and at the end."""


class MemoryCursorStore:
    """Lives as long as the object: for a subscription that is made anew in one process."""

    def __init__(self, cursor: str = "") -> None:
        self.cursor = cursor

    def load(self) -> str:
        return self.cursor

    def save(self, cursor: str) -> None:
        self.cursor = cursor


class FileCursorStore:
    """A small file, written to the disk and then replaced as a whole: a crash, of the machine too, leaves the
    old cursor or the new one. One file per subscription and process. Content that is no cursor leads to a
    gap, not to a silent beginning."""

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = Path(path)

    def load(self) -> str | None:
        try:
            content = self.path.read_bytes()
        except FileNotFoundError:
            return None
        text = content.decode("ascii", "replace").strip()
        good = text.isascii() and text.isprintable() and 0 < len(text) <= MAX_CURSOR
        return text if good else UNREADABLE

    def save(self, cursor: str) -> None:
        path = self.path.resolve()  # a link to the file stays one
        # Always the same name: what a killed process left is overwritten by the next.
        other = path.with_name(path.name + ".new")
        try:
            with open(other, "w", encoding="ascii", opener=_private) as file:
                file.write(cursor + "\n")
                file.flush()
                os.fsync(file.fileno())
            other.replace(path)
        except BaseException:
            with contextlib.suppress(OSError):
                other.unlink()
            raise


def _private(path: str, flags: int) -> int:
    return os.open(path, flags | getattr(os, "O_NOFOLLOW", 0), 0o600)


class Position:
    """Where a subscription is for its program: behind what was `given` last, and what of that is `done`,
    which is kept in the store now and then."""

    def __init__(self, store: CursorStore | None) -> None:
        self._store = store
        self.given = ""
        self.done = ""
        self._saved = ""
        self._saved_at = 0.0
        self._turn = asyncio.Lock()

    async def load(self, cursor: str) -> str:
        """Where to begin: at `cursor`, else at what was kept; "": now."""
        if not cursor and self._store is not None:
            kept = self._store.load()
            cursor = (await kept if inspect.isawaitable(kept) else kept) or ""
            self._saved = cursor
        self.given = self.done = cursor
        return cursor

    def due_s(self, now: float) -> float | None:
        """Seconds until something is to be saved; None: nothing is."""
        if self._store is None or self.done == self._saved:
            return None
        return max(0.0, self._saved_at + SAVE_EVERY_S - now)

    async def save(self, *, now: bool = False) -> None:
        """Saves when it is due, or at once."""
        if self._store is None or self.done == self._saved:
            return
        async with self._turn:  # an older position must not be written after a newer one
            due_s = self.due_s(time.monotonic())
            if due_s is None or (due_s > 0 and not now):
                return
            cursor, self._saved_at = self.done, time.monotonic()
            saved = self._store.save(cursor)
            if inspect.isawaitable(saved):
                await saved
            self._saved = cursor
