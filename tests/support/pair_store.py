"""A PairStore in memory, with a clock of its own: what several nodes of one process share in tests."""

from __future__ import annotations

from collections.abc import Callable

from dualcast.model.errors import BusUnavailable
from dualcast.pairing.port import Answer, Row, Told

NEWS = 500
REAP = 500


class MemoryPairs:
    """As `pairing/lua/sync.lua`. `clock` gives milliseconds."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self.clock = clock
        self.away = False
        self.lose()

    def lose(self) -> None:
        """Everything is gone, as after a restart of Redis without its data."""
        self.leases: dict[str, float] = {}
        self.rows: dict[str, dict[str, tuple[str, Row]]] = {}
        self.dirty: dict[str, dict[str, int]] = {}
        self.number = 0
        self.called_at = 0.0
        self.patient_until = 0.0

    async def sync(self, told: Told) -> Answer:
        if self.away:
            raise BusUnavailable("away")
        now, node = self.clock(), told.node
        if self.called_at and now - self.called_at > told.lease_ms / 2:
            self.patient_until = now + told.lease_ms
        self.called_at = now
        if not told.new and self.leases.get(node, 0) <= 0:
            return Answer(lost=True)
        self.leases[node] = now + told.lease_ms
        for key, row in told.rows:
            rows = self.rows.setdefault(key, {})
            old = rows.get(row.connection)
            rows[row.connection] = node, row
            self._tell(key, node, both=told.anew or old is None or old[0] != node)
        for key, connection in told.gone:
            self._take(key, connection, node)
        if now >= self.patient_until:
            for dead in [name for name, lease in self.leases.items() if lease < now]:
                self._reap(dead)
        news = self.dirty.setdefault(node, {})
        for key in [key for key, number in news.items() if number <= told.ack]:
            del news[key]
        found = sorted(news.items(), key=lambda item: item[1])[:NEWS]
        answers = [(key, self._others(key, node)) for key, _ in found]
        return Answer(False, found[-1][1] if found else 0, len(news) > NEWS, answers)

    def _others(self, key: str, node: str) -> list[Row]:
        now, base = self.clock(), node.partition(".")[0]
        return [
            row
            for owner, row in self.rows.get(key, {}).values()
            if owner.partition(".")[0] != base
            and self.leases.get(owner, 0) > 0
            and (self.leases[owner] >= now or now < self.patient_until)
        ]

    def _tell(self, key: str, teller: str, *, both: bool) -> None:
        others = {owner for owner, _ in self.rows.get(key, {}).values()} - {teller}
        for owner in [*others, *([teller] if both and others else [])]:
            self.number += 1
            self.dirty.setdefault(owner, {})[key] = self.number

    def _take(self, key: str, connection: str, owner: str) -> None:
        rows = self.rows.get(key, {})
        if connection in rows and rows[connection][0] == owner:
            del rows[connection]
            if not rows:
                del self.rows[key]
            self._tell(key, owner, both=False)

    def _reap(self, dead: str) -> None:
        for key, rows in list(self.rows.items()):
            for connection in [one for one, (owner, _) in rows.items() if owner == dead]:
                self._take(key, connection, dead)
        del self.leases[dead]
        self.dirty.pop(dead, None)
