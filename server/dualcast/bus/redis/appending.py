"""Drafts in, receipts out: the drafts of a loop turn become one script call per tenant.

Two packed arguments per call, not one per field: packing and parsing many arguments is what a batch would
cost most.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Sequence
from functools import partial
from typing import Any

import msgspec

from dualcast.bus.keeping import Keeping
from dualcast.bus.record import encode_body
from dualcast.bus.rules import badges_first, check_draft, check_repeat, is_remembered, new_epoch, remember_key
from dualcast.model.errors import BusUnavailable, DualcastError, RateLimited
from dualcast.model.publication import Draft, Quota, Receipt

from .calls import Calls, unavailable
from .feed import Feeds, TenantFeed
from .keys import part
from .options import RedisSettings

_log = logging.getLogger(__name__)
MAX_ITEMS = 256
MAX_BYTES = 1024 * 1024
MAX_TARGETS_PER_CALL = 2000
"""Bounds of one script call, so that none blocks the server for long; a single draft may always go."""

Result = Receipt | DualcastError
_pack = msgspec.msgpack.Encoder().encode


class _Order:
    """Results of one `append_many` (or `append`), filled as replies come."""

    __slots__ = ("future", "missing", "results")

    def __init__(self, size: int, loop: asyncio.AbstractEventLoop) -> None:
        self.results: list[Result | None] = [None] * size
        self.missing = size
        self.future: asyncio.Future[None] = loop.create_future()

    def put(self, index: int, result: Result) -> None:
        self.results[index] = result
        self.missing -= 1
        if not self.missing and not self.future.done():
            self.future.set_result(None)


_Place = tuple[Draft, _Order, int]


class Appender:
    """See the module docstring. All results come as values; `engine` raises them where the port says so."""

    def __init__(self, calls: Calls, feeds: Feeds, settings: RedisSettings, keeping: Keeping) -> None:
        self._calls = calls
        self._feeds = feeds
        self._settings = settings
        self._keeping = keeping
        self._loop = asyncio.get_running_loop()
        self._turn: dict[tuple[str, Quota | None], list[_Place]] = {}
        self.appended = 0
        self.duplicates = 0

    async def append(self, drafts: Sequence[Draft], quota: Quota | None) -> list[Result]:
        """A result per draft, in order; drafts of one tenant keep their order in the log."""
        order = _Order(len(drafts), self._loop)
        for index, draft in enumerate(drafts):
            try:
                check_draft(draft)
            except DualcastError as error:
                order.put(index, error)
                continue
            group = self._turn.get((draft.tenant, quota))
            if group is None:
                if not self._turn:
                    self._loop.call_soon(self._flush)
                group = self._turn[draft.tenant, quota] = []
            group.append((draft, order, index))
        if order.missing:
            await order.future
        return [result for result in order.results if result is not None]

    def _flush(self) -> None:
        turn, self._turn = self._turn, {}
        for (tenant, quota), places in turn.items():
            feed = self._feeds.of(tenant)
            items: list[Any] = []
            bodies: list[bytes] = []
            start = size = targets = 0
            for index, (draft, _, _) in enumerate(places):
                body = encode_body(draft)
                count = len(draft.channels)
                if items and (
                    len(items) >= MAX_ITEMS
                    or size + len(body) > MAX_BYTES
                    or targets + count > MAX_TARGETS_PER_CALL
                ):
                    self._send(feed, quota, items, bodies, places[start:index])
                    items, bodies, start, size, targets = [], [], index, 0, 0
                size += len(body)
                targets += count
                channels = part(draft.channels[0]) if count == 1 else [part(name) for name in draft.channels]
                key = remember_key(draft) if not draft.ephemeral or is_remembered(draft) else ""
                if draft.inbox is None and draft.push is None:
                    items.append((channels, key, draft.fingerprint, draft.id, len(body), draft.ephemeral))
                    bodies.append(body)
                    continue
                if draft.inbox is not None and count > 1:
                    channels = [part(name) for name in badges_first(draft)]
                riders, message = _riders(draft)
                size += len(message)
                items.append((channels, key, draft.fingerprint, draft.id, len(body), draft.ephemeral, riders))
                bodies += (body, message)
            self._send(feed, quota, items, bodies, places[start:])

    def _send(
        self,
        feed: TenantFeed,
        quota: Quota | None,
        items: list[Any],
        bodies: list[bytes],
        places: list[_Place],
    ) -> None:
        keep = self._keeping.of(feed.tenant)
        blob = _pack(
            (
                feed.epoch,
                feed.seen,
                new_epoch(),
                int(time.time() * 1000),
                max(60, keep.idempotency_s),
                keep.entries,
                keep.seconds,
                self._settings.max_heads,
                quota.rate_per_s if quota else 0,
                quota.burst if quota else 0,
                items,
            )
        )
        arguments = (blob, b"".join(bodies))
        self._calls.submit("append", feed.meta, arguments, partial(self._answered, feed, places))

    def _answered(self, feed: TenantFeed, places: list[_Place], reply: Any) -> None:
        if isinstance(reply, BusUnavailable):
            for _, order, index in places:
                order.put(index, unavailable())
            return
        epoch = reply[0].decode()
        self._feeds.saw(feed, epoch, reply[1])
        done = 0
        for (draft, order, index), outcome in zip(places, reply[3:], strict=True):
            if type(outcome) is int:
                done += 1
                order.put(index, Receipt(epoch, outcome, draft.id))
            else:
                order.put(index, self._special(draft, outcome))
        self.appended += done

    def _special(self, draft: Draft, outcome: list[Any]) -> Result:
        if outcome[0] == 2:
            return RateLimited("the tenant's publish quota is used up", retry_after_s=outcome[1] / 1e6)
        if outcome[0] == 3:
            _log.error("what rides along with a publication cannot be stored: %.200r", outcome[1])
            return DualcastError("the publication cannot be stored")
        _, epoch, offset, ident, fingerprint, own = outcome
        if own:
            # The first try of this very call appended it and its reply was lost.
            self.appended += 1
            return Receipt(epoch.decode(), offset, ident.decode())
        self.duplicates += 1
        try:
            return check_repeat(draft, fingerprint.decode(), epoch.decode(), offset, ident.decode())
        except DualcastError as error:
            return error


def _riders(draft: Draft) -> tuple[dict[str, Any], bytes]:
    """The riders as the script wants them: user names as key parts, and the push message apart, with its size
    in its place."""
    riders: dict[str, Any] = {}
    message = b""
    if (inbox := draft.inbox) is not None:
        riders["inbox"] = (_parts(inbox.users), inbox.wide, inbox.kind)
    if (push := draft.push) is not None:
        message = push.message
        riders["push"] = (_parts(push.users), len(message), push.always, push.devices, push.deadline_ms)
    return riders, message


def _parts(users: Sequence[str]) -> list[str]:
    return [part(f"user:{user}") for user in users]
