"""Tables of tasks in SQLite, and the steps a write is made of. Everything here runs in one transaction."""

from __future__ import annotations

import secrets
import sqlite3

from dualcast.bus.storage import SqlPart

from .errors import batch_refusal, too_many_tasks
from .model import Batch, BatchFacts, Counts, Task, decode_facts, encode, make_batch
from .port import TaskSettings

TIDY_ROWS = 50
PART = SqlPart(
    schema="""
CREATE TABLE IF NOT EXISTS task_tenant (
  tenant TEXT PRIMARY KEY, last INTEGER NOT NULL, kept INTEGER NOT NULL
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS task_item (
  tenant TEXT NOT NULL, id TEXT NOT NULL, number INTEGER NOT NULL, owner TEXT NOT NULL, batch TEXT NOT NULL,
  state TEXT NOT NULL, token TEXT NOT NULL, expires_ms INTEGER NOT NULL, record BLOB NOT NULL,
  UNIQUE (tenant, id)
);
CREATE INDEX IF NOT EXISTS task_item_all ON task_item (tenant, number);
CREATE INDEX IF NOT EXISTS task_item_state ON task_item (tenant, state, number);
CREATE INDEX IF NOT EXISTS task_item_owner ON task_item (tenant, owner, number);
CREATE INDEX IF NOT EXISTS task_item_owner_state ON task_item (tenant, owner, state, number);
CREATE INDEX IF NOT EXISTS task_item_batch ON task_item (tenant, batch, number) WHERE batch <> '';
CREATE INDEX IF NOT EXISTS task_item_expiry ON task_item (tenant, expires_ms);
CREATE TABLE IF NOT EXISTS task_batch (
  tenant TEXT NOT NULL, id TEXT NOT NULL, owner TEXT NOT NULL, declared INTEGER NOT NULL,
  queued INTEGER NOT NULL DEFAULT 0, processing INTEGER NOT NULL DEFAULT 0,
  completed INTEGER NOT NULL DEFAULT 0, failed INTEGER NOT NULL DEFAULT 0,
  cancelled INTEGER NOT NULL DEFAULT 0, created_ms INTEGER NOT NULL, updated_ms INTEGER NOT NULL,
  completed_ms INTEGER NOT NULL, revision INTEGER NOT NULL, token TEXT NOT NULL, expires_ms INTEGER NOT NULL,
  record BLOB NOT NULL, UNIQUE (tenant, id)
);
CREATE INDEX IF NOT EXISTS task_batch_expiry ON task_batch (tenant, expires_ms)
"""
)
"""What the sqlite and memory engines are given for this room."""
_BATCH = (
    "SELECT token, declared, expires_ms, queued, processing, completed, failed, cancelled, created_ms, "
    "updated_ms, completed_ms, revision, record FROM task_batch WHERE tenant = ? AND id = ?"
)


class BatchRow:
    """A batch as it is stored."""

    def __init__(self, row: tuple[str, int, int, int, int, int, int, int, int, int, int, int, bytes]) -> None:
        self.token = row[0]
        self.declared = row[1]
        self.expires_ms = row[2]
        self.counts = Counts(*row[3:8])
        self.batch: Batch = make_batch(
            decode_facts(row[12]),
            self.counts,
            self.declared,
            created_ms=row[8],
            updated_ms=row[9],
            completed_ms=row[10],
            revision=row[11],
        )


def find_batch(db: sqlite3.Connection, tenant: str, ident: str) -> BatchRow | None:
    """The stored batch, also one that retention has ended."""
    row = db.execute(_BATCH, (tenant, ident)).fetchone()
    return None if row is None else BatchRow(row)


class TaskRows:
    """The writes of one transaction for one tenant at one time (Unix ms)."""

    def __init__(self, db: sqlite3.Connection, tenant: str, now_ms: int, settings: TaskSettings) -> None:
        self._db = db
        self._tenant = tenant
        self._now_ms = now_ms
        self._settings = settings

    def token(self, ident: str) -> tuple[str, str, str]:
        """Token, state and batch of a stored task; three times "" when there is none."""
        found = self._db.execute(
            "SELECT token, state, batch FROM task_item WHERE tenant = ? AND id = ?", (self._tenant, ident)
        ).fetchone()
        return found or ("", "", "")

    def insert(self, task: Task, token: str) -> None:
        """A new task, in its batch. Raises TaskConflict, LimitExceeded."""
        self._room()
        if task.batch:
            self._join(task)
        number = self._db.execute(
            "UPDATE task_tenant SET last = last + 1 WHERE tenant = ? RETURNING last", (self._tenant,)
        ).fetchall()[0][0]
        self._db.execute(
            "INSERT INTO task_item VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)",
            (
                self._tenant,
                task.id,
                number,
                task.owner,
                task.batch,
                task.state,
                token,
                self._expires(task.finished),
                encode(task),
            ),
        )

    def update(self, task: Task, token: str) -> None:
        """The next state of a stored task."""
        self._db.execute(
            "UPDATE task_item SET state = ?, token = ?, expires_ms = ?, record = ? "
            "WHERE tenant = ? AND id = ?",
            (task.state, token, self._expires(task.finished), encode(task), self._tenant, task.id),
        )

    def put_batch(self, facts: BatchFacts, total: int, token: str, old: BatchRow | None) -> None:
        """A new batch, or other facts of a stored one. Raises TaskConflict, LimitExceeded."""
        if old is None:
            self._room()
            self._db.execute(
                "INSERT INTO task_batch (tenant, id, owner, declared, created_ms, updated_ms, completed_ms, "
                "revision, token, expires_ms, record) VALUES (?, ?, ?, ?, ?, ?, 0, 0, ?, 0, ?)",
                (
                    self._tenant,
                    facts.id,
                    facts.owner,
                    total,
                    self._now_ms,
                    self._now_ms,
                    token,
                    encode(facts),
                ),
            )
            return
        if old.batch.finished and total != old.declared:
            raise batch_refusal("batch-finished")
        if total and old.counts.joined > total:
            raise batch_refusal("batch-full")
        self._db.execute(
            "UPDATE task_batch SET declared = ?, token = ?, record = ? WHERE tenant = ? AND id = ?",
            (total, token, encode(facts), self._tenant, facts.id),
        )

    def count(self, batch: str, state: str, by: int) -> None:
        """Moves one counter; when the batch has ended, it is now that it has (`settle`)."""
        # `state` is one of ours: a column name.
        moved = f"SET {state} = {state} + ?, completed_ms = 0"
        sql = f"UPDATE task_batch {moved} WHERE tenant = ? AND id = ?"
        self._db.execute(sql, (by, self._tenant, batch))

    def settle(self, ident: str, *, changed: bool) -> Batch | None:
        """The batch with its end, its retention and (if `changed`) its revision as the counters now say."""
        row = find_batch(self._db, self._tenant, ident)
        if row is None:
            return None
        old, ended = row.batch, row.batch.state != "processing"
        at_ms = max(self._now_ms, old.updated_ms) if changed else old.updated_ms
        # A second longer than its tasks: a batch never goes before them.
        expires_ms = self._expires(ended) + 1000
        self._db.execute(
            "UPDATE task_batch SET revision = revision + ?, updated_ms = ?, completed_ms = ?, expires_ms = ? "
            "WHERE tenant = ? AND id = ?",
            (
                int(changed),
                at_ms,
                (old.completed_ms or at_ms) if ended else 0,
                expires_ms,
                self._tenant,
                ident,
            ),
        )
        settled = find_batch(self._db, self._tenant, ident)
        return settled.batch if settled else None

    def tidy(self, ident: str = "", batch: str = "") -> tuple[str, ...]:
        """Removes some of what retention has ended: task `ident` and batch `batch` for certain, and the
        oldest.
        """
        due = "SELECT id, batch, state FROM task_item WHERE tenant = ? AND expires_ms <= ? "
        rows = self._db.execute(due + "AND id = ?", (self._tenant, self._now_ms, ident)).fetchall()
        rows += self._db.execute(
            due + "ORDER BY expires_ms LIMIT ?", (self._tenant, self._now_ms, TIDY_ROWS)
        ).fetchall()
        gone = self._forget_tasks(list(dict.fromkeys(rows)))
        due = "SELECT id FROM task_batch WHERE tenant = ? AND expires_ms <= ? "
        rows = self._db.execute(due + "AND id = ?", (self._tenant, self._now_ms, batch)).fetchall()
        rows += self._db.execute(
            due + "ORDER BY expires_ms LIMIT ?", (self._tenant, self._now_ms, TIDY_ROWS)
        ).fetchall()
        for (name,) in dict.fromkeys(rows):
            self._db.execute("DELETE FROM task_batch WHERE tenant = ? AND id = ?", (self._tenant, name))
            # Those left of its tasks are due as well; none may count in a later batch of this id.
            self._db.execute(
                "UPDATE task_item SET batch = '' WHERE tenant = ? AND batch = ? AND batch <> ''",
                (self._tenant, name),
            )
            gone.append("batch:" + name)
        if gone:
            self._db.execute(
                "UPDATE task_tenant SET kept = kept - ? WHERE tenant = ?", (len(gone), self._tenant)
            )
        return tuple(gone)

    def _forget_tasks(self, rows: list[tuple[str, str, str]]) -> list[str]:
        for name, batch, state in rows:
            self._db.execute("DELETE FROM task_item WHERE tenant = ? AND id = ?", (self._tenant, name))
            row = find_batch(self._db, self._tenant, batch) if state in ("queued", "processing") else None
            if row is not None and row.expires_ms > self._now_ms:
                # Nobody will ever report it: its batch ends without it.
                self.count(batch, state, -1)
                self.count(batch, "failed", 1)
                self.settle(batch, changed=True)
        return ["task:" + row[0] for row in rows]

    def _join(self, task: Task) -> None:
        row = find_batch(self._db, self._tenant, task.batch)
        if row is None:
            self.put_batch(BatchFacts(task.batch, task.owner), 0, secrets.token_hex(8), None)
        elif row.batch.owner != task.owner:
            raise batch_refusal("foreign-batch")
        elif row.batch.finished:
            raise batch_refusal("batch-finished")
        elif row.counts.joined >= (row.declared or self._settings.max_tasks_per_batch):
            raise batch_refusal("batch-full")

    def _room(self) -> None:
        """Counts one more task or batch of the tenant. Raises LimitExceeded."""
        most = self._settings.max_tasks
        kept = self._db.execute("SELECT kept FROM task_tenant WHERE tenant = ?", (self._tenant,)).fetchone()
        if kept is not None and kept[0] >= most:
            raise too_many_tasks(most)
        self._db.execute(
            "INSERT INTO task_tenant VALUES (?, 0, 1) ON CONFLICT (tenant) DO UPDATE SET kept = kept + 1",
            (self._tenant,),
        )

    def _expires(self, finished: bool) -> int:
        kept_s = self._settings.finished_s if finished else self._settings.unfinished_s
        return self._now_ms + int(kept_s * 1000)
