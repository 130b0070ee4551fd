"""Tasks in SQLite: the engines `memory` and `sqlite`."""

from __future__ import annotations

import secrets
import sqlite3
import time
from collections.abc import Callable, Sequence

from dualcast.bus.storage import Database

from .model import BatchFacts, State, Task, decode_task
from .port import Loaded, LoadedBatch, Saved, SavedBatch, TaskPage, TaskSettings
from .sql_rows import TaskRows, find_batch

_KEPT = "tenant = ? AND +expires_ms > ?"
"""The `+` keeps SQLite from taking the index of expiry, which would read and sort everything for one page."""


class SqlTasks:
    """TaskStore over the database of an embedded engine, which was given `sql_rows.PART`. `clock` gives Unix
    seconds.
    """

    def __init__(
        self,
        database: Database,
        settings: TaskSettings | None = None,
        *,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._database = database
        self._settings = settings or TaskSettings()
        self._clock = clock

    async def load(self, tenant: str, ident: str) -> Loaded:
        now_ms = self._now_ms()

        def work(db: sqlite3.Connection) -> Loaded:
            row = db.execute(
                "SELECT record, token FROM task_item WHERE tenant = ? AND id = ? AND expires_ms > ?",
                (tenant, ident, now_ms),
            ).fetchone()
            return Loaded(None, "", now_ms) if row is None else Loaded(decode_task(row[0]), row[1], now_ms)

        return await self._database.read(work)

    async def save(self, tenant: str, task: Task, expected: str) -> Saved | None:
        token = secrets.token_hex(8)
        now_ms = self._now_ms()

        def work(db: sqlite3.Connection) -> Saved | None:
            rows = TaskRows(db, tenant, now_ms, self._settings)
            forgotten = rows.tidy(task.id, task.batch)
            found, state, batch = rows.token(task.id)
            if found != expected:
                return None
            if found:
                rows.update(task, token)
            else:
                rows.insert(task, token)
                batch = task.batch
            if not batch:
                return Saved(None, forgotten)
            moved = state != task.state
            if moved:
                rows.count(batch, task.state, 1)
                if state:
                    rows.count(batch, state, -1)
            settled = rows.settle(batch, changed=moved)
            return Saved(settled if moved else None, forgotten)

        return await self._database.write(work)

    async def load_batch(self, tenant: str, ident: str) -> LoadedBatch:
        now_ms = self._now_ms()

        def work(db: sqlite3.Connection) -> LoadedBatch:
            row = find_batch(db, tenant, ident)
            if row is None or row.expires_ms <= now_ms:
                return LoadedBatch(None, "", now_ms)
            return LoadedBatch(row.batch, row.token, now_ms)

        return await self._database.read(work)

    async def save_batch(
        self, tenant: str, facts: BatchFacts, total: int, expected: str
    ) -> SavedBatch | None:
        token = secrets.token_hex(8)
        now_ms = self._now_ms()

        def work(db: sqlite3.Connection) -> SavedBatch | None:
            rows = TaskRows(db, tenant, now_ms, self._settings)
            forgotten = rows.tidy(batch=facts.id)
            old = find_batch(db, tenant, facts.id)
            if (old.token if old else "") != expected:
                return None
            rows.put_batch(facts, total, token, old)
            settled = rows.settle(facts.id, changed=True)
            assert settled is not None
            return SavedBatch(settled, forgotten)

        return await self._database.write(work)

    async def list(self, tenant: str, owner: str, state: State | None, after: str, limit: int) -> TaskPage:
        where = _KEPT
        values: tuple[str | int, ...] = (tenant, self._now_ms())
        if owner:
            where, values = where + " AND owner = ?", (*values, owner)
        if state:
            where, values = where + " AND state = ?", (*values, state)
        if after:
            where, values = where + " AND number < ?", (*values, int(after))
        return await self._page(where, values, "DESC", limit)

    async def members(self, tenant: str, batch: str, after: str, limit: int) -> TaskPage:
        where = _KEPT + " AND batch = ? AND batch <> '' AND number > ?"
        return await self._page(where, (tenant, self._now_ms(), batch, int(after or "0")), "ASC", limit)

    async def tidy(self, tenant: str) -> tuple[str, ...]:
        now_ms = self._now_ms()
        return await self._database.write(lambda db: TaskRows(db, tenant, now_ms, self._settings).tidy())

    async def _page(self, where: str, values: Sequence[str | int], order: str, limit: int) -> TaskPage:
        # Only constant text is put together; every value is bound.
        text = f"SELECT record, number FROM task_item WHERE {where} ORDER BY number {order} LIMIT ?"  # noqa: S608

        def work(db: sqlite3.Connection) -> TaskPage:
            rows = db.execute(text, (*values, limit)).fetchall()
            tasks = [decode_task(row[0]) for row in rows]
            return TaskPage(tasks, str(rows[-1][1]) if len(rows) == limit else "")

        return await self._database.read(work)

    def _now_ms(self) -> int:
        return int(self._clock() * 1000)
