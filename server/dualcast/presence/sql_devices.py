"""The device registry in SQL: for the engines of one process."""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Callable, Sequence

from dualcast.bus.storage import Database, SqlPart

from .devices import MAX_DEVICES, Device, Sighting

SCHEMA = """
CREATE TABLE IF NOT EXISTS presence_device (
  tenant TEXT NOT NULL,
  user TEXT NOT NULL,
  device TEXT NOT NULL,
  kind TEXT NOT NULL,
  name TEXT NOT NULL,
  first_ms INTEGER NOT NULL,
  last_ms INTEGER NOT NULL,
  PRIMARY KEY (tenant, user, device)
) WITHOUT ROWID
"""
_SEEN = """
INSERT INTO presence_device VALUES (?, ?, ?, ?, '', ?, ?)
ON CONFLICT DO UPDATE SET last_ms = MAX(last_ms, excluded.last_ms),
  kind = CASE excluded.kind WHEN '' THEN kind ELSE excluded.kind END
"""
_MAKE_ROOM = """
DELETE FROM presence_device WHERE tenant = ?1 AND user = ?2 AND device IN (
  SELECT device FROM presence_device WHERE tenant = ?1 AND user = ?2
  ORDER BY device = ?3 DESC, last_ms DESC, device LIMIT -1 OFFSET ?4)
"""
"""All but the one that just came, however the clock was set."""
_REGISTER = """
INSERT INTO presence_device VALUES (?, ?, ?, ?, '', ?, ?)
ON CONFLICT DO UPDATE SET kind = excluded.kind
"""
_NAME = """
UPDATE presence_device SET name = ? WHERE tenant = ? AND user = ? AND device = ?
RETURNING device, kind, name, first_ms, last_ms
"""
_LIST = """
SELECT device, kind, name, first_ms, last_ms FROM presence_device
WHERE tenant = ? AND user = ? ORDER BY last_ms DESC, device
"""


def sql_part() -> SqlPart:
    """The table, for the engines' `parts`."""
    return SqlPart(schema=SCHEMA)


class SqlDevices:
    """A `DeviceStore` over the bus's database. `clock` gives Unix seconds."""

    def __init__(self, database: Database, *, clock: Callable[[], float] = time.time) -> None:
        self._database = database
        self._clock = clock

    async def seen(self, tenant: str, sightings: Sequence[Sighting]) -> None:
        if not sightings:
            return
        now_ms = int(self._clock() * 1000)

        def work(connection: sqlite3.Connection) -> None:
            for user, device, kind in sightings:
                connection.execute(_SEEN, (tenant, user, device, kind, now_ms, now_ms))
                connection.execute(_MAKE_ROOM, (tenant, user, device, MAX_DEVICES))

        await self._database.write(work)

    async def devices(self, tenant: str, user: str) -> list[Device]:
        def work(connection: sqlite3.Connection) -> list[tuple[str, str, str, int, int]]:
            return connection.execute(_LIST, (tenant, user)).fetchall()

        return [_device(row) for row in await self._database.read(work)]

    async def name_device(self, tenant: str, user: str, device: str, name: str, kind: str) -> Device | None:
        now_ms = int(self._clock() * 1000)

        def work(connection: sqlite3.Connection) -> tuple[str, str, str, int, int] | None:
            if kind:
                connection.execute(_REGISTER, (tenant, user, device, kind, now_ms, now_ms))
                connection.execute(_MAKE_ROOM, (tenant, user, device, MAX_DEVICES))
            row: tuple[str, str, str, int, int] | None
            row = connection.execute(_NAME, (name, tenant, user, device)).fetchone()
            return row

        row = await self._database.write(work)
        return _device(row) if row is not None else None

    async def forget_device(self, tenant: str, user: str, device: str) -> bool:
        def work(connection: sqlite3.Connection) -> bool:
            gone = connection.execute(
                "DELETE FROM presence_device WHERE tenant = ? AND user = ? AND device = ?",
                (tenant, user, device),
            )
            return gone.rowcount > 0

        return await self._database.write(work)


def _device(row: tuple[str, str, str, int, int]) -> Device:
    ident, kind, name, first_ms, last_ms = row
    return Device(id=ident, kind=kind, name=name, first_seen_ms=first_ms, last_seen_ms=last_ms)
