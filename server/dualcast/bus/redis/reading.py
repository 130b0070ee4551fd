"""Pages of history and positions of the log, as the scripts answer them."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

import msgspec

from dualcast.bus.history import merge_page
from dualcast.bus.keeping import Keeping
from dualcast.bus.record import decode
from dualcast.bus.rules import new_epoch
from dualcast.model.publication import Entry, Gap, Page, Publication

from .calls import Calls
from .feed import Feeds, TenantFeed
from .keys import part
from .options import RedisSettings

MAX_NAMES = 1000
_pack = msgspec.msgpack.Encoder().encode


class Position(msgspec.Struct, frozen=True):
    """Where a tenant's log stood when the script ran."""

    epoch: str
    top: int
    base: int
    """The epoch began above this offset."""
    floor: int
    """Heads up to this offset may be forgotten."""
    earlier: frozenset[str]
    """Earlier epochs this one continues above."""
    heads: tuple[tuple[bytes, int], ...]
    """(channel part, last offset) by rising offset, as far as asked."""
    named: tuple[int | None, ...]
    """Last offset per asked name; None: none known."""


class Reader:
    """Asks Redis for pages and positions. Every method raises BusUnavailable."""

    def __init__(self, calls: Calls, feeds: Feeds, settings: RedisSettings, keeping: Keeping) -> None:
        self._calls = calls
        self._feeds = feeds
        self._settings = settings
        self._keeping = keeping
        self.malformed = 0

    async def page(
        self, feed: TenantFeed, channels: Sequence[str], after: int, limit: int, *, expired: bool = False
    ) -> Page:
        """The page the port describes; with `expired`, expired publications are in it too."""
        names = list(dict.fromkeys(channels))
        now_ms = int(time.time() * 1000)
        reply = await self._calls.run(
            "read",
            feed.meta,
            _pack(
                (
                    feed.epoch,
                    feed.seen,
                    new_epoch(),
                    after,
                    limit,
                    now_ms,
                    self._keeping.of(feed.tenant).seconds,
                    self._settings.page_bytes,
                    [part(name) for name in names],
                )
            ),
        )
        raw_epoch, top, bound, flat_gaps, flat_runs, skipped = reply
        epoch = raw_epoch.decode()
        self._feeds.saw(feed, epoch, top)
        reason = "epoch" if skipped else "trimmed"
        gaps = [Gap(names[i], after, oldest, reason) for i, oldest in _pairs(flat_gaps)]
        runs = [
            [(offset, index, fields[1]) for ident, fields in entries if (offset := int(ident[:-2])) <= bound]
            for index, entries in _pairs(flat_runs)
        ]
        latest: Publication | None = None
        latest_body = b""

        def load(item: tuple[int, int, bytes]) -> Entry:
            nonlocal latest, latest_body
            offset, index, value = item
            prev, _, body = value.split(b" ", 2)
            # What is kept in inboxes has another badge, so another record, in every channel.
            if latest is None or latest.offset != offset or body != latest_body:
                latest = decode(feed.tenant, epoch, offset, body)
                latest_body = body
            return Entry(latest, names[index], int(prev))

        page = merge_page(
            epoch,
            top,
            limit,
            runs,
            gaps,
            load,
            now_ms=0 if expired else now_ms,
            max_bytes=self._settings.page_bytes,
        )
        if page.next == top and bound < top:
            page = msgspec.structs.replace(page, next=bound)
        return page

    def pack_position(
        self, feed: TenantFeed, after: int = -1, limit: int = 0, names: Sequence[str] = ()
    ) -> bytes:
        """The argument of script `position`: heads with offset > `after` (-1: no list), at most `limit`."""
        return _pack((feed.epoch, feed.seen, new_epoch(), after, limit, [part(name) for name in names]))

    async def position(
        self, feed: TenantFeed, after: int = -1, limit: int = 0, names: Sequence[str] = ()
    ) -> Position:
        """The log's position; at most MAX_NAMES names."""
        return position_of(
            await self._calls.run("position", feed.meta, self.pack_position(feed, after, limit, names))
        )


def position_of(reply: list[Any]) -> Position:
    """The Position in the reply of script `position`."""
    epoch, top, base, floor, earlier, heads, named = reply
    return Position(
        epoch.decode(),
        top,
        base,
        floor,
        frozenset(item.partition("=")[0] for item in earlier.decode().split()),
        tuple((name, int(score)) for name, score in _pairs(heads)),
        tuple(None if score is None else int(score) for score in named),
    )


def _pairs(flat: list[Any]) -> Any:
    return zip(flat[::2], flat[1::2], strict=True)
