"""The paging cursor of an inbox: opaque text that holds an offset and whose inbox it belongs to."""

from __future__ import annotations

import re
from hashlib import blake2s

from dualcast.model.errors import BadCursor

_CURSOR = re.compile(r"([1-9][0-9]{0,15})-([0-9a-f]{8})")


def write_cursor(tenant: str, user: str, offset: int) -> str:
    """ "" for offset 0: there is no next page."""
    return f"{offset}-{_mark(tenant, user)}" if offset else ""


def read_cursor(tenant: str, user: str, cursor: str) -> int:
    """The offset; 0 for "". Raises BadCursor, also when it is a cursor of another inbox."""
    if not cursor:
        return 0
    found = _CURSOR.fullmatch(cursor)
    if found is None or found[2] != _mark(tenant, user):
        raise BadCursor("this is not a cursor of this inbox: take `next` of its last page")
    return int(found[1])


def _mark(tenant: str, user: str) -> str:
    return blake2s(f"{tenant}\0{user}".encode(), digest_size=4).hexdigest()
