"""The writing half of the sqlite engine: appends a batch of drafts in one transaction. Synchronous, one
thread.

State that every append needs (counters, heads) is cached; after a failed transaction the cache is thrown
away, so it never differs from the file.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import NamedTuple

from dualcast.model.errors import DualcastError
from dualcast.model.inbox import Badge
from dualcast.model.publication import Draft, Quota, Receipt

from .keeping import Keeping
from .quota import Quotas
from .record import encode_body, with_badge
from .rules import badges_first, check_draft, check_repeat, is_remembered, remember_key
from .sqlite_parts import Outcome, Riders, Work, run

MAX_CACHED_CHANNELS = 200_000
SILENT_PER_TIDY = 20
FORGET_PER_TIDY = 2000
_UPSERT_CHANNEL = (
    "INSERT INTO channels VALUES (?, ?, ?, ?, ?, ?, ?) ON CONFLICT(no) DO UPDATE SET "
    "head = excluded.head, head_ms = excluded.head_ms, kept = excluded.kept, oldest_ms = excluded.oldest_ms"
)
_UPSERT_TENANT = (
    "INSERT INTO tenants VALUES (?, ?, ?, ?) ON CONFLICT(no) DO UPDATE SET "
    "top = excluded.top, floor = excluded.floor"
)


class Fresh(NamedTuple):
    """A new publication: what the live feed needs. `badges` are by channel."""

    draft: Draft
    offset: int
    channels: tuple[tuple[str, int], ...]
    """With the offset before it in that channel."""
    badges: Mapping[str, Badge] | None = None


class _Channel:
    __slots__ = ("head", "head_ms", "kept", "name", "no", "oldest_ms")

    def __init__(self, no: int, name: str, head: int, head_ms: int, kept: int, oldest_ms: int) -> None:
        self.no = no
        self.name = name
        self.head = head
        self.head_ms = head_ms
        self.kept = kept
        self.oldest_ms = oldest_ms


class _Tenant:
    __slots__ = ("channels", "floor", "name", "no", "top")

    def __init__(self, no: int, name: str, top: int, floor: int) -> None:
        self.no = no
        self.name = name
        self.top = top
        self.floor = floor
        self.channels: dict[str, _Channel] = {}


class _Batch:
    """What one transaction will write."""

    def __init__(self, now_ms: int) -> None:
        self.now_ms = now_ms
        self.fresh: list[Fresh] = []
        self.links: list[tuple[int, int, int, int, bytes | None]] = []
        self.bodies: list[tuple[int, int, int, bytes]] = []
        self.remembered: dict[tuple[int, str], tuple[str, int, str]] = {}
        self.tenants: dict[int, _Tenant] = {}
        self.channels: dict[int, tuple[_Tenant, _Channel]] = {}
        self.duplicates = 0


Answer = list[Receipt | DualcastError] | Outcome
"""To a job: a result per draft, or what its work came to."""


class AppendLog:
    """The log in an open bus file. `clock` gives Unix seconds; `max_heads` bounds the channels remembered."""

    def __init__(
        self,
        db: sqlite3.Connection,
        epoch: str,
        keeping: Keeping,
        *,
        clock: Callable[[], float],
        max_heads: int,
        riders: Riders,
    ) -> None:
        self._db = db
        self._epoch = epoch
        self._keeping = keeping
        self._clock = clock
        self._max_heads = max_heads
        self._riders = riders
        self._quotas = Quotas(clock)
        self._keep_ms = keeping.most.seconds * 1000
        self._now_ms = 0
        self.appended = 0
        self.duplicates = 0
        self.reload()

    def reload(self) -> None:
        """Forgets the cache and reads the counters from the file. Raises sqlite3.Error."""
        rows = self._db.execute("SELECT no, name, top, floor FROM tenants").fetchall()
        self._tenants = {name: _Tenant(no, name, top, floor) for no, name, top, floor in rows}
        self._next_tenant = 1 + max((row[0] for row in rows), default=0)
        self._next_channel = 1 + self._db.execute("SELECT coalesce(max(no), 0) FROM channels").fetchone()[0]
        self._channel_count = self._db.execute("SELECT count(*) FROM channels").fetchone()[0]
        self._cached = 0

    def tops(self) -> dict[str, int]:
        """The counter of every tenant."""
        return {tenant.name: tenant.top for tenant in self._tenants.values()}

    def commit(
        self, jobs: Iterable[tuple[Sequence[Draft], Quota | None, Work | None]]
    ) -> tuple[list[Answer], list[Fresh]]:
        """Appends all drafts and runs all work in one durable transaction, in order: the answer to every job,
        and what is new.

        Raises sqlite3.Error; then nothing was appended, as far as can be known, and the cache is stale:
        `rollback`.
        """
        batch = _Batch(self._time_ms())
        self._db.execute("BEGIN IMMEDIATE")
        results: list[Answer] = [
            [self._append(batch, draft, quota) for draft in drafts] if work is None else run(self._db, work)
            for drafts, quota, work in jobs
        ]
        self._write(batch)
        self._db.execute("COMMIT")
        self.appended += len(batch.fresh)
        self.duplicates += batch.duplicates
        if self._cached > MAX_CACHED_CHANNELS:
            self._cached = 0
            for tenant in self._tenants.values():
                tenant.channels.clear()
        return results, batch.fresh

    def rollback(self) -> None:
        """Ends a failed transaction and reloads. Raises sqlite3.Error when the file cannot be used."""
        if self._db.in_transaction:
            self._db.execute("ROLLBACK")
        self.reload()

    def check(self) -> None:
        """A durable write of nothing new. Raises sqlite3.Error."""
        self._db.execute("INSERT OR REPLACE INTO meta VALUES ('probe', ?)", (str(self._time_ms()),))

    def _time_ms(self) -> int:
        self._now_ms = max(self._now_ms, int(self._clock() * 1000))
        return self._now_ms

    def _append(self, batch: _Batch, draft: Draft, quota: Quota | None) -> Receipt | DualcastError:
        try:
            check_draft(draft)
            tenant = self._tenant(draft.tenant)
            key = (tenant.no, remember_key(draft))
            known = batch.remembered.get(key) or self._known(key, batch.now_ms)
            if known is not None:
                receipt = check_repeat(draft, known[0], self._epoch, known[1], known[2])
                batch.duplicates += 1
                return receipt
        except DualcastError as error:
            return error
        refused = self._quotas.take(draft.tenant, quota)
        if refused is not None:
            return refused
        badges: Mapping[str, Badge] | None = None
        if draft.inbox is not None or draft.push is not None:
            offset = 0 if draft.ephemeral else tenant.top + 1
            ridden = self._riders.ride(self._db, draft, offset, batch.now_ms)
            if isinstance(ridden, DualcastError):
                return ridden
            badges = ridden if draft.inbox is not None else None
        if draft.ephemeral:
            # Without a key nothing is written, so typing indicators cost no disk write.
            batch.fresh.append(Fresh(draft, 0, tuple((name, 0) for name in draft.channels)))
            if is_remembered(draft):
                batch.tenants[tenant.no] = tenant
                batch.remembered[key] = draft.fingerprint, 0, draft.id
            return Receipt(self._epoch, 0, draft.id)
        batch.tenants[tenant.no] = tenant
        tenant.top = offset = tenant.top + 1
        body = encode_body(draft)
        own: bytes | None = body
        if draft.inbox is None and len(draft.channels) > 1:
            own = None
            batch.bodies.append((tenant.no, offset, len(draft.channels), body))
        prevs = []
        channels = draft.channels if not badges else badges_first(draft)
        for name in channels:
            channel = self._channel(tenant, name, batch.now_ms)
            prevs.append(channel.head)
            if badges:
                own = with_badge(body, badges.get(name))
            batch.links.append((channel.no, offset, channel.head, batch.now_ms, own))
            channel.head = offset
            channel.head_ms = batch.now_ms
            channel.kept += 1
            batch.channels[channel.no] = tenant, channel
        batch.fresh.append(Fresh(draft, offset, tuple(zip(channels, prevs, strict=True)), badges))
        batch.remembered[key] = draft.fingerprint, offset, draft.id
        return Receipt(self._epoch, offset, draft.id)

    def _known(self, key: tuple[int, str], now_ms: int) -> tuple[str, int, str] | None:
        row: tuple[str, int, str] | None = self._db.execute(
            "SELECT fingerprint, offset, id FROM remembered WHERE tenant_no = ? AND key = ? AND until_ms > ?",
            (*key, now_ms),
        ).fetchone()
        return row

    def _tenant(self, name: str) -> _Tenant:
        tenant = self._tenants.get(name)
        if tenant is None:
            tenant = self._tenants[name] = _Tenant(self._next_tenant, name, 0, 0)
            self._next_tenant += 1
        return tenant

    def _channel(self, tenant: _Tenant, name: str, now_ms: int) -> _Channel:
        channel = tenant.channels.get(name)
        if channel is not None:
            if not channel.kept:
                channel.oldest_ms = now_ms
            return channel
        row = self._db.execute(
            "SELECT no, name, head, head_ms, kept, oldest_ms FROM channels WHERE tenant_no = ? AND name = ?",
            (tenant.no, name),
        ).fetchone()
        if row is not None:
            channel = _Channel(*row)
            if not channel.kept:
                channel.oldest_ms = now_ms
        else:
            # A channel never seen, or forgotten: it may have had anything up to the floor.
            channel = _Channel(self._next_channel, name, tenant.floor, now_ms, 0, now_ms)
            self._next_channel += 1
            self._channel_count += 1
        tenant.channels[name] = channel
        self._cached += 1
        return channel

    def _write(self, batch: _Batch) -> None:
        until_ms = batch.now_ms + self._keeping.most.idempotency_s * 1000
        db = self._db
        db.executemany("INSERT INTO links VALUES (?, ?, ?, ?, ?)", batch.links)
        if batch.bodies:
            db.executemany("INSERT INTO bodies VALUES (?, ?, ?, ?)", batch.bodies)
        db.executemany(
            "INSERT OR REPLACE INTO remembered VALUES (?, ?, ?, ?, ?, ?)",
            [(*key, *value, until_ms) for key, value in batch.remembered.items()],
        )
        kept = {tenant.no: self._keeping.of(tenant.name) for tenant in batch.tenants.values()}
        for tenant, channel in batch.channels.values():
            keep = kept[tenant.no]
            keep_ms = keep.seconds * 1000
            excess = channel.kept - keep.entries
            aged = channel.oldest_ms < batch.now_ms - keep_ms - max(1000, keep_ms // 10)
            if excess > keep.entries // 10 or aged:
                self._trim(tenant, channel, max(0, excess), batch.now_ms - keep_ms)
        self._save(batch)

    def _save(self, batch: _Batch) -> None:
        self._db.executemany(
            _UPSERT_CHANNEL,
            [
                (c.no, t.no, c.name, c.head, c.head_ms, c.kept, c.oldest_ms)
                for t, c in batch.channels.values()
            ],
        )
        self._db.executemany(_UPSERT_TENANT, [(t.no, t.name, t.top, t.floor) for t in batch.tenants.values()])

    def _trim(self, tenant: _Tenant, channel: _Channel, excess: int, before_ms: int) -> None:
        """Drops the `excess` oldest links of the channel and those older than `before_ms`."""
        last = dropped = 0
        shared: list[tuple[int, int]] = []
        channel.oldest_ms = channel.head_ms
        for offset, at_ms, is_shared in self._db.execute(
            "SELECT offset, at_ms, body IS NULL FROM links WHERE channel_no = ? ORDER BY offset",
            (channel.no,),
        ):
            if dropped >= excess and at_ms >= before_ms:
                channel.oldest_ms = at_ms
                break
            last = offset
            dropped += 1
            if is_shared:
                shared.append((tenant.no, offset))
        if dropped:
            self._db.execute("DELETE FROM links WHERE channel_no = ? AND offset <= ?", (channel.no, last))
            channel.kept -= dropped
        if shared:
            self._db.executemany(
                "UPDATE bodies SET refs = refs - 1 WHERE tenant_no = ? AND offset = ?", shared
            )
            self._db.executemany(
                "DELETE FROM bodies WHERE tenant_no = ? AND offset = ? AND refs <= 0", shared
            )

    def tidy(self) -> bool:
        """Forgets a bounded amount of what aged away: whether more is left. Raises sqlite3.Error; then
        `rollback`.
        """
        now_ms = self._time_ms()
        batch = _Batch(now_ms)
        names = {tenant.no: tenant for tenant in self._tenants.values()}
        self._db.execute("BEGIN IMMEDIATE")
        over = max(0, self._channel_count - self._max_heads)
        gone = self._oldest("kept = 0", now_ms - 2 * self._keep_ms, over, FORGET_PER_TIDY)
        for tenant_no, channel in gone:
            tenant = names[tenant_no]
            tenant.floor = max(tenant.floor, channel.head)
            tenant.channels.pop(channel.name, None)
            batch.tenants[tenant_no] = tenant
            self._db.execute("DELETE FROM channels WHERE no = ?", (channel.no,))
        silent = self._oldest("kept > 0", now_ms - self._keep_ms, over - len(gone), SILENT_PER_TIDY)
        for tenant_no, channel in silent:
            tenant = names[tenant_no]
            channel = tenant.channels.get(channel.name, channel)
            self._trim(tenant, channel, channel.kept, 0)
            batch.channels[channel.no] = tenant, channel
        self._save(batch)
        # Rows stand in the order of their time: only the oldest need a look.
        forgotten = self._db.execute(
            "DELETE FROM remembered WHERE until_ms <= ? AND rowid IN "
            "(SELECT rowid FROM remembered ORDER BY rowid LIMIT ?)",
            (now_ms, FORGET_PER_TIDY),
        ).rowcount
        self._db.execute("COMMIT")
        self._channel_count -= len(gone)
        return len(silent) == SILENT_PER_TIDY or FORGET_PER_TIDY in (len(gone), forgotten)

    def _oldest(self, which: str, before_ms: int, least: int, most: int) -> list[tuple[int, _Channel]]:
        """The channels longest silent: since before `before_ms`, `least` at least, `most` at most."""
        rows = self._db.execute(
            f"SELECT tenant_no, no, name, head, head_ms, kept, oldest_ms FROM channels WHERE {which} "  # noqa: S608
            "ORDER BY head_ms LIMIT ?",
            (most,),
        ).fetchall()
        return [(row[0], _Channel(*row[1:])) for n, row in enumerate(rows) if n < least or row[4] < before_ms]
