"""An event bus whose every delay is under the test's control: live entries come when `pump` says so, watches
are confirmed when `confirm` says so, reads take as many loop turns as asked, and the log can lose its tail (a
new epoch)."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Sequence

from dualcast.bus.port import Follower, Health
from dualcast.model.cursor import Cursor
from dualcast.model.errors import BusUnavailable
from dualcast.model.publication import Audience, Entry, Gap, Page, Publication

TENANT = "t"


class ModelBus:
    """Only what hub, sessions and recovery use of `EventBus`. One tenant."""

    def __init__(self, *, keep: int) -> None:
        self.keep = keep
        self.epoch_number = 1
        self.top = 0
        self.history: dict[str, deque[Entry]] = {}
        self.trimmed: dict[str, int] = {}
        """Channel → offset of the last entry dropped from its history."""
        self.heads: dict[str, int] = {}
        self.live: deque[list[Entry]] = deque()
        self.watching: set[str] = set()
        self.asked: list[str] = []
        self.follower: Follower | None = None
        self.read_turns = 0
        self.away = False
        self.untold: int | None = None
        """A new epoch the follower has not been told of: its base."""
        self.lost: set[str] = set()
        """Ids that were acknowledged and are gone with the log's tail."""

    @property
    def epoch(self) -> str:
        return f"e{self.epoch_number}"

    # ── what the test does ──

    def publish(
        self,
        ident: str,
        channels: Sequence[str],
        audience: Audience | None = None,
        *,
        kind: str = "e",
        data: bytes = b"{}",
        time_ms: int = 0,
    ) -> int:
        self.top += 1
        publication = Publication(TENANT, self.epoch, self.top, ident, kind, data, time_ms, audience=audience)
        entries = []
        for channel in channels:
            entry = Entry(publication, channel, self.heads.get(channel, 0))
            entries.append(entry)
            self.heads[channel] = self.top
            ring = self.history.setdefault(channel, deque())
            ring.append(entry)
            if len(ring) > self.keep:
                self.trimmed[channel] = ring.popleft().offset
        self.live.append(entries)
        return self.top

    def pump(self, batches: int = 1_000_000, *, split: bool = False) -> None:
        """Hands the next publications to the follower as one batch; `split`: the last one only up to its
        first channel."""
        assert self.follower is not None
        self.tell_epoch()
        batch: list[Entry] = []
        complete = 0
        while self.live and batches > 0:
            batches -= 1
            entries = self.live.popleft()
            if split and batches == 0 and len(entries) > 1 and entries[0].offset:
                self.live.appendleft(entries[1:])
                batch.append(entries[0])
                break
            batch.extend(entries)
            complete = entries[0].offset or complete
        # Of channels that are asked for entries may come before the watch is confirmed.
        batch = [entry for entry in batch if entry.channel in self.watching or entry.channel in self.asked]
        if batch:
            self.follower.entries(TENANT, batch)
        if complete:
            self.follower.advanced(TENANT, self.epoch, complete)

    def confirm(self) -> None:
        """Confirms every watch asked for so far."""
        assert self.follower is not None
        self.tell_epoch()
        asked, self.asked = self.asked, []
        for channel in asked:
            self.watching.add(channel)
            self.follower.watched(TENANT, channel, self.epoch, self.top)

    def whisper(self, ident: str, channels: Sequence[str]) -> None:
        """An ephemeral publication."""
        publication = Publication(TENANT, self.epoch, 0, ident, "e", b"{}", 0)
        self.live.append([Entry(publication, channel, 0) for channel in channels])

    def miss(self) -> None:
        """The next live publication is lost on its way and found only after the one behind it was handed
        over."""
        assert self.follower is not None
        self.tell_epoch()
        if len(self.live) < 2 or not self.live[0][0].offset or not self.live[1][0].offset:
            return
        lost, found = self.live.popleft(), self.live.popleft()
        if batch := [entry for entry in found if entry.channel in self.watching]:
            self.follower.entries(TENANT, batch)
        for entry in lost:
            if entry.channel in self.watching:
                gap = Gap(entry.channel, entry.offset - 1, entry.offset + 1, "late")
                self.follower.gap(TENANT, gap)
        self.follower.advanced(TENANT, self.epoch, found[0].offset)

    def tell_epoch(self) -> None:
        """The follower hears of a new epoch."""
        assert self.follower is not None
        base, self.untold = self.untold, None
        if base is not None:
            self.follower.epoch(TENANT, self.epoch, base)

    def lose_tail(self, count: int, *, tell: bool = True) -> None:
        """The newest `count` publications vanish, as after a kill -9 of a log that was not flushed. What this
        node saw live is known to it (fencing), so the new epoch goes on above it. Everything still on its way
        is lost too."""
        assert self.follower is not None
        for ring in self.history.values():
            for _ in range(min(count, len(ring))):
                self.lost.add(ring.pop().publication.id)
        self.lost.update(entry.publication.id for entries in self.live for entry in entries)
        self.live.clear()
        self.epoch_number += 1
        self.untold = self.top
        if tell:
            self.tell_epoch()

    # ── EventBus ──

    def watch(self, tenant: str, channel: str) -> None:
        self.asked.append(channel)

    def unwatch(self, tenant: str, channel: str) -> None:
        self.watching.discard(channel)

    async def read(self, tenant: str, channels: Sequence[str], after: int, limit: int) -> Page:
        for _ in range(self.read_turns):
            await asyncio.sleep(0)
        if self.away:
            raise BusUnavailable("away")
        offsets = sorted(
            {
                entry.offset
                for channel in channels
                for entry in self.history.get(channel, ())
                if entry.offset > after
            }
        )
        bound = offsets[limit - 1] if len(offsets) > limit else self.top
        entries = sorted(
            (
                entry
                for channel in channels
                for entry in self.history.get(channel, ())
                if after < entry.offset <= bound
            ),
            key=lambda entry: entry.offset,
        )
        gaps = [
            Gap(channel, after, next((e.offset for e in self.history.get(channel, ())), 0))
            for channel in channels
            if self.trimmed.get(channel, 0) > after
        ]
        return Page(self.epoch, self.top, bound, tuple(entries), tuple(gaps))

    async def head(self, tenant: str) -> Cursor:
        return Cursor(self.epoch, self.top)

    async def known_epoch(self, tenant: str, epoch: str) -> bool:
        return epoch.startswith("e") and 0 < int(epoch[1:]) <= self.epoch_number

    async def probe(self) -> Health:
        return Health(True, "model")

    def stats(self) -> dict[str, float]:
        return {}
