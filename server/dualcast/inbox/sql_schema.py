"""Tables of the SQL inbox. Whatever changes or deletes an item, triggers let counters and revisions follow in
the same transaction; adding one is counted where it is done (`sql_rider`), which spares reading again.

`state`: 0 unseen, 1 seen, 2 read, 3 archived; 4 (of marks) deleted. `due_ms` of an item: when it expires, by
itself (`ends` 1: before its age does it) or by age, so the oldest first; of users and tenants: not after the
earliest of theirs, so nobody looks before. `…_to` of a user: tenant-wide items up to this offset are at least
in that state, but for those in `inbox_mark`. `wide_…` of a user: what counting tenant-wide items gave at
tenant revision `wide_at`.
"""

from __future__ import annotations

NEVER_MS = 9_007_199_254_740_992

SCHEMA = """
CREATE TABLE IF NOT EXISTS inbox_tenant(
  no INTEGER PRIMARY KEY, name TEXT NOT NULL UNIQUE, birth INTEGER NOT NULL, revision INTEGER NOT NULL,
  items INTEGER NOT NULL DEFAULT 0, due_ms INTEGER NOT NULL DEFAULT 9007199254740992);
CREATE TABLE IF NOT EXISTS inbox_user(
  no INTEGER PRIMARY KEY, tenant_no INTEGER NOT NULL, name TEXT NOT NULL, revision INTEGER NOT NULL,
  items INTEGER NOT NULL DEFAULT 0, unread INTEGER NOT NULL DEFAULT 0, unseen INTEGER NOT NULL DEFAULT 0,
  due_ms INTEGER NOT NULL DEFAULT 9007199254740992, seen_to INTEGER NOT NULL DEFAULT 0,
  read_to INTEGER NOT NULL DEFAULT 0, archived_to INTEGER NOT NULL DEFAULT 0,
  deleted_to INTEGER NOT NULL DEFAULT 0, wide_at INTEGER NOT NULL DEFAULT -1,
  wide_unread INTEGER NOT NULL DEFAULT 0, wide_unseen INTEGER NOT NULL DEFAULT 0, UNIQUE(tenant_no, name));
CREATE INDEX IF NOT EXISTS inbox_user_due ON inbox_user(due_ms);
CREATE TABLE IF NOT EXISTS inbox_item(
  user_no INTEGER NOT NULL, offset INTEGER NOT NULL, id TEXT NOT NULL, kind TEXT NOT NULL,
  state INTEGER NOT NULL, due_ms INTEGER NOT NULL, ends INTEGER NOT NULL, record BLOB NOT NULL,
  PRIMARY KEY(user_no, offset)) WITHOUT ROWID;
CREATE UNIQUE INDEX IF NOT EXISTS inbox_item_id ON inbox_item(user_no, id);
CREATE INDEX IF NOT EXISTS inbox_item_state ON inbox_item(user_no, state, offset);
CREATE INDEX IF NOT EXISTS inbox_item_due ON inbox_item(user_no, due_ms) WHERE ends = 1;
CREATE TABLE IF NOT EXISTS inbox_wide(
  no INTEGER PRIMARY KEY, tenant_no INTEGER NOT NULL, offset INTEGER NOT NULL, id TEXT NOT NULL,
  kind TEXT NOT NULL, due_ms INTEGER NOT NULL, record BLOB NOT NULL);
CREATE UNIQUE INDEX IF NOT EXISTS inbox_wide_offset ON inbox_wide(tenant_no, offset);
CREATE UNIQUE INDEX IF NOT EXISTS inbox_wide_id ON inbox_wide(tenant_no, id);
CREATE INDEX IF NOT EXISTS inbox_wide_due ON inbox_wide(tenant_no, due_ms);
CREATE TABLE IF NOT EXISTS inbox_mark(
  user_no INTEGER NOT NULL, offset INTEGER NOT NULL, state INTEGER NOT NULL,
  PRIMARY KEY(user_no, offset)) WITHOUT ROWID;
CREATE TRIGGER IF NOT EXISTS inbox_item_changed AFTER UPDATE OF state ON inbox_item BEGIN
  UPDATE inbox_user SET unread = unread + (NEW.state < 2) - (OLD.state < 2),
    unseen = unseen + (NEW.state < 1) - (OLD.state < 1), revision = revision + 1 WHERE no = NEW.user_no;
END;
CREATE TRIGGER IF NOT EXISTS inbox_item_gone AFTER DELETE ON inbox_item BEGIN
  UPDATE inbox_user SET items = items - 1, unread = unread - (OLD.state < 2),
    unseen = unseen - (OLD.state < 1), revision = revision + 1 WHERE no = OLD.user_no;
END;
CREATE TRIGGER IF NOT EXISTS inbox_wide_added AFTER INSERT ON inbox_wide BEGIN
  UPDATE inbox_tenant SET items = items + 1, revision = revision + 1, due_ms = min(due_ms, NEW.due_ms)
    WHERE no = NEW.tenant_no;
END;
CREATE TRIGGER IF NOT EXISTS inbox_wide_gone AFTER DELETE ON inbox_wide BEGIN
  UPDATE inbox_tenant SET items = items - 1, revision = revision + 1 WHERE no = OLD.tenant_no;
END;
"""

# Revisions told after the copy was made are lost: they begin again at the time, as those of a new tenant do.
RESTORED = """
UPDATE inbox_tenant SET birth = CAST((julianday('now') - 2440587.5) * 86400000 AS INTEGER);
UPDATE inbox_tenant SET revision = max(revision + 1, birth);
UPDATE inbox_user SET revision = max(revision, (SELECT birth FROM inbox_tenant WHERE no = tenant_no));
"""
