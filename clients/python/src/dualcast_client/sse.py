"""The event stream format (WHATWG HTML 9.2.6), piece by piece. No I/O."""

from __future__ import annotations

from dataclasses import dataclass

MAX_EVENT = 4 * 1024 * 1024
"""Characters of one event, and bytes of one line; a publication is far smaller."""


class TooBig(Exception):
    """An event or a line without end."""


@dataclass(frozen=True, slots=True)
class Block:
    """What stood before an empty line. A block without `data` fires no event but may move the position."""

    event: str
    data: str | None
    id: str | None
    """None: the block has no `id`."""
    retry_ms: int | None


class SseParser:
    """Bytes in, blocks out; CR, LF and CRLF end lines, one BOM is skipped, an `id` with NUL is ignored."""

    def __init__(self) -> None:
        self._rest = bytearray()
        self._begun = False
        self._skip_lf = False
        self._event = ""
        self._data: list[str] = []
        self._size = 0
        self._id: str | None = None
        self._retry_ms: int | None = None

    def feed(self, data: bytes) -> list[Block]:
        """The blocks `data` completes. Raises TooBig."""
        if not data:
            return []
        if self._skip_lf:
            data = data.removeprefix(b"\n")
        self._skip_lf = data.endswith(b"\r")
        first, *more = data.replace(b"\r\n", b"\n").replace(b"\r", b"\n").split(b"\n")
        self._rest += first
        found = []
        for part in more:
            if (block := self._line(self._rest.decode("utf-8", "replace"))) is not None:
                found.append(block)
            self._rest = bytearray(part)
        if len(self._rest) > MAX_EVENT:
            raise TooBig
        return found

    def _line(self, line: str) -> Block | None:
        if not self._begun:
            self._begun = True
            line = line.removeprefix("\ufeff")
        if not line:
            return self._end()
        name, _, value = line.partition(":")
        value = value.removeprefix(" ")
        if name == "data":
            self._size += len(value) + 1
            if self._size > MAX_EVENT:
                raise TooBig
            self._data.append(value)
        elif name == "event":
            self._event = value
        elif name == "id" and "\0" not in value:
            self._id = value
        elif name == "retry" and value.isascii() and value.isdigit():
            self._retry_ms = int(value[:15])
        return None

    def _end(self) -> Block | None:
        data = "\n".join(self._data) if self._data else None
        block = Block(self._event or "message", data, self._id, self._retry_ms)
        self._clear()
        if block.data is None and block.id is None and block.retry_ms is None:
            return None
        return block

    def _clear(self) -> None:
        self._event, self._data, self._size, self._id, self._retry_ms = "", [], 0, None, None
