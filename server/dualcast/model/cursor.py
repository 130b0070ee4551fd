"""The cursor `<epoch>-<offset>`: one string valid on SSE, WebSocket and REST.

Meaning of cursor c for a session: everything due up to c, for the subscriptions it held then, has been
written. Clients treat it as opaque. `epoch` is 1 to 32 characters of `[0-9a-z]`, `offset` a decimal number
below 2**53.
"""

from __future__ import annotations

import re
from typing import NamedTuple

from .errors import BadCursor

_CURSOR = re.compile(r"([0-9a-z]{1,32})-(0|[1-9][0-9]{0,15})\Z")
MAX_OFFSET = 2**53 - 1


class Cursor(NamedTuple):
    """A total position in a tenant's log."""

    epoch: str
    offset: int

    def __str__(self) -> str:
        return f"{self.epoch}-{self.offset}"


def parse_cursor(text: str) -> Cursor:
    """The cursor written in `text`; raises BadCursor when it is not one."""
    match = _CURSOR.match(text)
    if match is None or (offset := int(match[2])) > MAX_OFFSET:
        raise BadCursor("a cursor is <epoch>-<offset>, as the server gave it")
    return Cursor(match[1], offset)
