"""The queue of the memory and sqlite engines: tables beside the log; a job is born in the append's own
transaction.
"""

from __future__ import annotations

import logging
import sqlite3
import time
from collections.abc import Callable, Sequence

from dualcast.bus.storage import Database, SqlPart, SqlRider
from dualcast.model.publication import Draft

from .port import QUEUE_FULL, Claim, Claimed, DeadLetter, Facts, PushSettings

log = logging.getLogger("dualcast.push")
Online = Callable[[str, str, Sequence[str]], bool]
"""(tenant, user, device kinds; (): any) → whether the user has such a live connection. From any thread."""
_COUNTED = ("queued", "skipped", "sent", "retried", "dead")
_SCHEMA = """
CREATE TABLE IF NOT EXISTS push_message (
  tenant TEXT NOT NULL, id TEXT NOT NULL, jobs INTEGER NOT NULL, body BLOB NOT NULL,
  PRIMARY KEY (tenant, id)) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS push_job (
  tenant TEXT NOT NULL, id TEXT NOT NULL, user TEXT NOT NULL, attempts INTEGER NOT NULL DEFAULT 0,
  queued_ms INTEGER NOT NULL, due_ms INTEGER NOT NULL, deadline_ms INTEGER NOT NULL,
  token TEXT NOT NULL DEFAULT '', PRIMARY KEY (tenant, id, user)) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS push_job_due ON push_job (tenant, due_ms);
CREATE INDEX IF NOT EXISTS push_job_queued ON push_job (tenant, queued_ms);
CREATE TABLE IF NOT EXISTS push_dead (
  number INTEGER PRIMARY KEY AUTOINCREMENT, tenant TEXT NOT NULL, id TEXT NOT NULL, user TEXT NOT NULL,
  body BLOB NOT NULL, attempts INTEGER NOT NULL, queued_ms INTEGER NOT NULL, dead_ms INTEGER NOT NULL,
  reason TEXT NOT NULL, error TEXT NOT NULL);
CREATE INDEX IF NOT EXISTS push_dead_tenant ON push_dead (tenant, number);
CREATE INDEX IF NOT EXISTS push_dead_age ON push_dead (dead_ms);
CREATE TABLE IF NOT EXISTS push_total (
  tenant TEXT NOT NULL, name TEXT NOT NULL, n INTEGER NOT NULL, PRIMARY KEY (tenant, name)) WITHOUT ROWID
"""
# `waiting` and `buried` in push_total are depths, not totals: counting rows at every append would take time.


def part(is_online: Online, settings: PushSettings | None = None, *, enabled: bool = True) -> SqlPart:
    """What the SQL engines are given. `enabled` False: nothing is queued (provider `none`)."""
    rider = _rider(is_online, settings or PushSettings())
    return SqlPart(schema=_SCHEMA, rider=rider if enabled else None)


def _rider(is_online: Online, settings: PushSettings) -> SqlRider:
    def ride(db: sqlite3.Connection, draft: Draft, offset: int, now_ms: int) -> None:
        rider = draft.push
        if rider is None:
            return
        tenant = draft.tenant
        deadline_ms = rider.deadline_ms or now_ms + int(settings.deadline_s * 1000)
        room = settings.max_queued - _total(db, tenant, "waiting")
        away = rider.users
        if not rider.always:
            away = tuple(u for u in away if not _is_online(is_online, tenant, u, rider.devices))
        fitting, beyond = away[: max(0, room)], away[max(0, room) :]
        queued = _put(db, tenant, draft.id, fitting, rider.message, now_ms, deadline_ms)
        _add(db, tenant, "queued", queued)
        _add(db, tenant, "skipped", len(rider.users) - len(away))
        for user in beyond:
            if not _waits(db, tenant, draft.id, user):
                job = (tenant, draft.id, user, rider.message, 0, now_ms, now_ms)
                _letter(db, settings, *job, QUEUE_FULL, "")

    return ride


def _is_online(is_online: Online, tenant: str, user: str, devices: Sequence[str]) -> bool:
    try:
        return is_online(tenant, user, devices)
    except Exception as error:  # noqa: BLE001 - not knowing means pushing, and publishing goes on
        log.warning("presence cannot be asked: %s", type(error).__name__)
        return False


class SqlPushQueue:
    """`PushQueue` in the tables of `part`. `clock` gives Unix seconds."""

    def __init__(
        self,
        database: Database,
        settings: PushSettings | None = None,
        *,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._db = database
        self._settings = settings or PushSettings()
        self._clock = clock

    async def ensure(self, tenant: str) -> None:
        """Nothing to do: the tables know."""

    async def tenants(self) -> Sequence[str]:
        query = "SELECT tenant FROM push_total WHERE name = 'waiting' AND n > 0"
        return await self._db.read(lambda db: [row[0] for row in db.execute(query)])

    async def forget(self, tenants: Sequence[str]) -> None:
        """Nothing to do: the tables know."""

    async def tidy(self) -> None:
        before_ms = self._now_ms() - self._settings.dead_s * 1000

        def work(db: sqlite3.Connection) -> None:
            gone = db.execute("DELETE FROM push_dead WHERE dead_ms < ? RETURNING tenant", (before_ms,))
            for (tenant,) in gone.fetchall():
                _add(db, tenant, "buried", -1)

        old = "SELECT 1 FROM push_dead WHERE dead_ms < ? LIMIT 1"
        if await self._db.read(lambda db: db.execute(old, (before_ms,)).fetchone()):
            await self._db.write(work)

    async def claim(self, tenant: str, limit: int, lease_s: float, token: str) -> Claim:
        now_ms = self._now_ms()

        def look(db: sqlite3.Connection) -> Claim:
            return Claim((), _next_due(db, tenant), _facts(db, tenant, now_ms))

        def work(db: sqlite3.Connection) -> Claim:
            rows = db.execute(
                "SELECT j.id, user, attempts + 1, queued_ms, deadline_ms, coalesce(body, x'') "
                "FROM push_job j LEFT JOIN push_message m ON m.tenant = j.tenant AND m.id = j.id "
                "WHERE j.tenant = ? AND due_ms <= ? ORDER BY due_ms LIMIT ?",
                (tenant, now_ms, limit),
            ).fetchall()
            db.executemany(
                "UPDATE push_job SET attempts = attempts + 1, due_ms = ?, token = ? "
                "WHERE tenant = ? AND id = ? AND user = ?",
                [(now_ms + int(lease_s * 1000), token, tenant, row[0], row[1]) for row in rows],
            )
            jobs = [
                Claimed(
                    tenant=tenant,
                    id=row[0],
                    user=row[1],
                    message=row[5],
                    attempt=row[2],
                    queued_ms=row[3],
                    deadline_ms=row[4],
                    token=token,
                )
                for row in rows
            ]
            return Claim(jobs, _next_due(db, tenant), _facts(db, tenant, now_ms))

        found = await self._db.read(look)  # a look that finds nothing costs no disk write
        return await self._db.write(work) if 0 < found.next_due_ms <= now_ms else found

    async def done(self, job: Claimed) -> bool:
        def work(db: sqlite3.Connection) -> bool:
            if not _remove(db, job.tenant, job.id, job.user):
                return False
            _add(db, job.tenant, "sent", 1)
            return True

        return await self._db.write(work)

    async def retry(self, job: Claimed, delay_s: float) -> bool:
        due_ms = self._now_ms() + int(delay_s * 1000)

        def work(db: sqlite3.Connection) -> bool:
            changed = db.execute(
                "UPDATE push_job SET due_ms = ?, token = '' "
                "WHERE tenant = ? AND id = ? AND user = ? AND token = ?",
                (due_ms, job.tenant, job.id, job.user, job.token),
            ).rowcount
            _add(db, job.tenant, "retried", changed)
            return bool(changed)

        return await self._db.write(work)

    async def bury(self, job: Claimed, reason: str, error: str = "") -> bool:
        now_ms = self._now_ms()

        def work(db: sqlite3.Connection) -> bool:
            if not _remove(db, job.tenant, job.id, job.user, job.token):
                return False
            facts = (job.message, job.attempt, job.queued_ms, now_ms)
            _letter(db, self._settings, job.tenant, job.id, job.user, *facts, reason, error)
            return True

        return await self._db.write(work)

    async def facts(self, tenant: str) -> Facts:
        now_ms = self._now_ms()
        return await self._db.read(lambda db: _facts(db, tenant, now_ms))

    async def dead(self, tenant: str, after: int, limit: int) -> Sequence[DeadLetter]:
        after_ms = self._now_ms() - self._settings.dead_s * 1000

        def work(db: sqlite3.Connection) -> list[DeadLetter]:
            rows = db.execute(
                "SELECT number, id, user, body, attempts, queued_ms, dead_ms, reason, error FROM push_dead "
                "WHERE tenant = ? AND number > ? AND dead_ms >= ? ORDER BY number LIMIT ?",
                (tenant, after, after_ms, limit),
            )
            names = ("number", "id", "user", "message", "attempts", "queued_ms", "dead_ms", "reason", "error")
            return [DeadLetter(**dict(zip(names, row, strict=True))) for row in rows]

        return await self._db.read(work)

    async def revive(self, tenant: str, number: int) -> bool:
        now_ms = self._now_ms()
        deadline_ms = now_ms + int(self._settings.deadline_s * 1000)

        def work(db: sqlite3.Connection) -> bool:
            row = _take(db, tenant, number)
            if row is not None:
                ident, user, body = row
                queued = _put(db, tenant, ident, (user,), body, now_ms, deadline_ms)
                _add(db, tenant, "queued", queued)
            return row is not None

        return await self._db.write(work)

    async def discard(self, tenant: str, number: int) -> bool:
        return await self._db.write(lambda db: _take(db, tenant, number) is not None)

    def _now_ms(self) -> int:
        return int(self._clock() * 1000)


def _total(db: sqlite3.Connection, tenant: str, name: str) -> int:
    row = db.execute("SELECT n FROM push_total WHERE tenant = ? AND name = ?", (tenant, name)).fetchone()
    return row[0] if row else 0


def _add(db: sqlite3.Connection, tenant: str, name: str, n: int) -> None:
    if n:
        sql = "INSERT INTO push_total VALUES (?, ?, ?) ON CONFLICT (tenant, name) DO UPDATE SET n = n + ?"
        db.execute(sql, (tenant, name, n, n))


def _waits(db: sqlite3.Connection, tenant: str, ident: str, user: str) -> bool:
    query = "SELECT 1 FROM push_job WHERE tenant = ? AND id = ? AND user = ?"
    return db.execute(query, (tenant, ident, user)).fetchone() is not None


def _put(
    db: sqlite3.Connection,
    tenant: str,
    ident: str,
    users: Sequence[str],
    message: bytes,
    now_ms: int,
    deadline_ms: int,
) -> int:
    """Queues jobs of one publication, due now: how many were not queued already."""
    if not users:
        return 0
    fresh = db.executemany(
        "INSERT OR IGNORE INTO push_job (tenant, id, user, queued_ms, due_ms, deadline_ms) "
        "VALUES (?, ?, ?, ?, ?, ?)",
        [(tenant, ident, user, now_ms, now_ms, deadline_ms) for user in users],
    ).rowcount
    if fresh:
        db.execute(
            "INSERT INTO push_message VALUES (?, ?, ?, ?) "
            "ON CONFLICT (tenant, id) DO UPDATE SET jobs = jobs + excluded.jobs",
            (tenant, ident, fresh, message),
        )
        _add(db, tenant, "waiting", fresh)
    return fresh


def _remove(db: sqlite3.Connection, tenant: str, ident: str, user: str, token: str = "") -> bool:
    """Forgets a job; with `token` only when that is its lease."""
    sql = "DELETE FROM push_job WHERE tenant = ? AND id = ? AND user = ? AND (? = '' OR token = ?)"
    if not db.execute(sql, (tenant, ident, user, token, token)).rowcount:
        return False
    key = (tenant, ident)
    db.execute("UPDATE push_message SET jobs = jobs - 1 WHERE tenant = ? AND id = ?", key)
    db.execute("DELETE FROM push_message WHERE tenant = ? AND id = ? AND jobs <= 0", key)
    _add(db, tenant, "waiting", -1)
    return True


def _letter(
    db: sqlite3.Connection,
    settings: PushSettings,
    tenant: str,
    ident: str,
    user: str,
    message: bytes,
    attempts: int,
    queued_ms: int,
    now_ms: int,
    reason: str,
    error: str,
) -> None:
    """Writes a dead letter; the oldest make room."""
    db.execute(
        "INSERT INTO push_dead (tenant, id, user, body, attempts, queued_ms, dead_ms, reason, error) "
        "VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)",
        (tenant, ident, user, message, attempts, queued_ms, now_ms, reason, error),
    )
    excess = _total(db, tenant, "buried") + 1 - settings.max_dead
    gone = 0
    if excess > 0:
        gone = db.execute(
            "DELETE FROM push_dead WHERE number IN "
            "(SELECT number FROM push_dead WHERE tenant = ? ORDER BY number LIMIT ?)",
            (tenant, excess),
        ).rowcount
    _add(db, tenant, "buried", 1 - gone)
    _add(db, tenant, "dead", 1)


def _take(db: sqlite3.Connection, tenant: str, number: int) -> tuple[str, str, bytes] | None:
    """Takes a dead letter away: id, user and message."""
    sql = "DELETE FROM push_dead WHERE tenant = ? AND number = ? RETURNING id, user, body"
    row: tuple[str, str, bytes] | None = db.execute(sql, (tenant, number)).fetchone()
    if row is not None:
        _add(db, tenant, "buried", -1)
    return row


def _next_due(db: sqlite3.Connection, tenant: str) -> int:
    row = db.execute("SELECT min(due_ms) FROM push_job WHERE tenant = ?", (tenant,)).fetchone()
    return row[0] or 0


def _facts(db: sqlite3.Connection, tenant: str, now_ms: int) -> Facts:
    totals = dict(db.execute("SELECT name, n FROM push_total WHERE tenant = ?", (tenant,)).fetchall())
    oldest = db.execute("SELECT min(queued_ms) FROM push_job WHERE tenant = ?", (tenant,)).fetchone()
    return Facts(
        now_ms=now_ms,
        queued=totals.get("waiting", 0),
        oldest_ms=oldest[0] or 0,
        dead=totals.get("buried", 0),
        counts={name: totals[name] for name in _COUNTED if name in totals},
    )
