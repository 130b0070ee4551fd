"""What was published on a channel, page by page (`GET /v1/channels/{channel}/history`), and filling a gap
with it."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

import msgspec
from msgspec import Struct

from .calls import given, segment
from .events import Gap, Published
from .flow import Call

PAGE = 500
MAX_FILL = 10_000
"""Publications read to fill one gap."""


class HistoryEntry(Struct, frozen=True, kw_only=True):
    """One publication of the channel. `time`: RFC 3339, UTC."""

    cursor: str
    id: str
    event: str
    time: str
    data: Any = None


class HistoryGap(Struct, frozen=True, kw_only=True):
    """Publications after `after` and before `oldest` are gone."""

    channel: str
    reason: str
    after: str = ""
    oldest: str = ""


class HistoryPage(Struct, frozen=True, kw_only=True):
    """Oldest first; ask again with `after=next` while `more`."""

    channel: str
    publications: list[HistoryEntry]
    gaps: list[HistoryGap]
    next: str
    more: bool


_page = msgspec.json.Decoder(HistoryPage).decode


def history(channel: str, after: str = "", limit: int = 100) -> Call[HistoryPage]:
    query = given(after=after, limit=limit)
    return Call("GET", f"/v1/channels/{segment(channel)}/history", _page, query=query)


async def fill(
    gap: Gap, call: Callable[[Call[HistoryPage]], Awaitable[HistoryPage]]
) -> tuple[list[Published], bool]:
    """What history has of a gap, oldest first, and whether that is all of it. Raises DualcastError.

    Only what came `late` can be whole. Of a position that is `unknown` it is all that is kept of the channel.
    What is left of the others (`trimmed`, `epoch`) comes by itself as the stream goes on.
    """
    found: list[Published] = []
    if gap.reason in ("trimmed", "epoch"):
        return found, False
    after = "" if gap.reason == "unknown" else gap.after or ""
    whole = gap.reason == "late"
    while len(found) < MAX_FILL:
        page = await call(history(gap.channel, after, PAGE))
        whole = whole and not page.gaps
        for one in page.publications:
            body = {name: getattr(one, name) for name in ("id", "event", "time", "data")}
            found.append(Published(channel=gap.channel, recovered=True, **body))
        if not page.more or page.next == after:
            return found, whole
        after = page.next
    return found, False
