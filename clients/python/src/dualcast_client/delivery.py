"""What was received, to the program: each publication once, in order, and what of it is dealt with."""

from __future__ import annotations

import asyncio
from collections import OrderedDict, deque
from collections.abc import Iterable

from .cursors import Position
from .events import Event, Gap, Published

REMEMBERED = 8192
"""Ids that are known to have been given."""
GAP = ""
"""In place of an id: a gap, of which one at a time is dealt with."""
MAX_OVER = 10_000
"""Events beyond the buffer's size while a command waits for its reply, which stands behind them."""


class Inlet:
    """A bounded buffer between the one who reads connections and the program. When it is full, reading stops;
    the server then waits, and brings the rest from its history."""

    def __init__(self, size: int, position: Position, manual: bool) -> None:
        self.position = position
        self.unacked = Unacked(position) if manual else None
        self._size = size
        self._ready: deque[tuple[Event | None, str | None]] = deque()
        self._known: OrderedDict[str, None] = OrderedDict()
        self._changed = asyncio.Event()
        self._room = asyncio.Event()
        self._room.set()
        self.commands = 0
        """Commands that wait for a reply."""
        self.asking = False
        """The program waits for the next event: it has dealt with the last."""

    @property
    def full(self) -> bool:
        return len(self._ready) >= self._size + (MAX_OVER if self.commands else 0)

    @property
    def flooded(self) -> bool:
        """It is so full that a command's reply will not be waited for."""
        return len(self._ready) >= self._size + MAX_OVER

    # ── from the connections ──

    def first(self, ident: str) -> bool:
        """Whether a publication is given for the first time."""
        if ident in self._known:
            self._known.move_to_end(ident)
            return False
        self._known[ident] = None
        if len(self._known) > REMEMBERED:
            self._known.popitem(last=False)
        return True

    def put(self, event: Event, cursor: str | None) -> None:
        """An event, and the position behind it."""
        self._ready.append((event, cursor))
        if self.full:
            self._room.clear()
        self.wake()

    def move(self, cursor: str) -> None:
        """A position with nothing to give."""
        if not self._ready:
            self._given(None, cursor)
        elif self._ready[-1][0] is None:
            self._ready[-1] = (None, cursor)
        else:
            self._ready.append((None, cursor))

    async def room(self) -> bool:
        """Waits until there is room; whether that took any time."""
        if not self.full:
            return False
        self._room.clear()
        await self._room.wait()
        return True

    def wake(self) -> None:
        """Whoever waits looks again."""
        if self.commands:
            self._room.set()
        self._changed.set()

    def take_back(self, channels: Iterable[str]) -> None:
        """What waits of these channels will not be given; the positions stay."""
        gone = set(channels)
        self._ready = deque(
            (None, cursor) if isinstance(event, Published) and event.channel in gone else (event, cursor)
            for event, cursor in self._ready
        )

    # ── to the program ──

    def get(self) -> Event | None:
        """The next event; None: there is none now."""
        while self._ready:
            event, cursor = self._ready.popleft()
            if not self.full:
                self._room.set()
            self._given(event, cursor)
            if event is not None:
                return event
        return None

    def dealt_with(self) -> None:
        """The program asks for the next event: what it was given last is done. With an `Unacked` that is so
        of a gap only."""
        if self.unacked is None:
            self.position.done = self.position.given
        else:
            self.unacked.ack(GAP)

    async def changed(self) -> None:
        """Waits for `wake`."""
        self._changed.clear()
        await self._changed.wait()

    def _given(self, event: Event | None, cursor: str | None) -> None:
        if cursor is not None:
            self.position.given = cursor
        if self.unacked is not None:
            gap = GAP if isinstance(event, Gap) else None
            self.unacked.given(event.id if isinstance(event, Published) else gap, cursor)
        elif event is None and self.asking and cursor is not None:
            self.position.done = cursor

    def clear(self) -> None:
        self._ready.clear()
        self._room.set()


class Unacked:
    """What was given and not acknowledged, in order. The position that is done is behind the last of those
    before which all are acknowledged, in whatever order that happens."""

    def __init__(self, position: Position) -> None:
        self._position = position
        self._entries: deque[_Entry] = deque()
        self._by_id: dict[str, _Entry] = {}

    def __len__(self) -> int:
        return len(self._by_id)

    def given(self, ident: str | None, cursor: str | None) -> None:
        if ident is None and cursor is None:
            return
        entry = _Entry(ident, cursor)
        if ident is not None:
            self._by_id[ident] = entry
        elif self._entries and self._entries[-1].ident is None:
            self._entries.pop()  # only the newest of positions with nothing between them counts
        self._entries.append(entry)
        self._advance()

    def ack(self, ident: str) -> bool:
        """One publication; False: it waits for none."""
        entry = self._by_id.pop(ident, None)
        if entry is not None:
            entry.ident = None
            self._advance()
        return entry is not None

    def ack_through(self, cursor: str) -> bool:
        """Everything up to a position that was given; False: it is none of these."""
        if all(entry.cursor != cursor for entry in self._entries):
            return False
        for entry in self._entries:
            if entry.ident is not None:
                del self._by_id[entry.ident]
                entry.ident = None
            if entry.cursor == cursor:
                break
        self._advance()
        return True

    def ack_all(self) -> None:
        self._by_id.clear()
        for entry in self._entries:
            entry.ident = None
        self._advance()

    def _advance(self) -> None:
        while self._entries and self._entries[0].ident is None:
            entry = self._entries.popleft()
            if entry.cursor is not None:
                self._position.done = entry.cursor


class _Entry:
    __slots__ = ("cursor", "ident")

    def __init__(self, ident: str | None, cursor: str | None) -> None:
        self.ident = ident
        """Of a publication that is not acknowledged; None: nothing is waited for."""
        self.cursor = cursor
