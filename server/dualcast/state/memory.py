"""State engine `memory`: one process, nothing kept. For tests and `--ephemeral`."""

from __future__ import annotations

import time
from bisect import bisect_left, bisect_right, insort
from collections.abc import Callable
from heapq import heapify, heappop, heappush
from typing import NamedTuple

from .limits import LOG_SIZE, check_log_size, check_name, check_write
from .port import Change, Changes, Value, VersionConflict


class _Item(NamedTuple):
    value: Value
    expires_at: float
    """On `clock`; infinite when it stays."""


class MemoryState:
    """A StateStore in dicts. `clock` gives seconds and only moves forward."""

    def __init__(self, *, log_size: int = LOG_SIZE, clock: Callable[[], float] = time.monotonic) -> None:
        self._log_size = check_log_size(log_size)
        self._clock = clock
        self._spaces: dict[str, dict[str, _Item]] = {}
        self._order: dict[str, list[str]] = {}
        self._log: dict[tuple[str, str], int] = {}
        self._revision = 0
        self._floor = 0
        self._expiries: list[tuple[float, int, str, str]] = []

    async def start(self) -> None:
        """Nothing to open."""

    async def close(self) -> None:
        """Nothing to close; the values stay until the object goes."""

    async def get(self, space: str, key: str) -> Value | None:
        check_name(space, key)
        return self._live(space, key)

    async def put(
        self,
        space: str,
        key: str,
        data: bytes,
        *,
        expected: int | None = None,
        ttl_s: float | None = None,
        quiet: bool = False,
    ) -> int:
        check_write(space, key, data, ttl_s)
        self._purge()
        have = self._live(space, key)
        if expected is not None and (have.version if have else 0) != expected:
            raise VersionConflict("the value was changed by somebody else")
        self._revision += 1
        version = self._revision
        expires_at = float("inf") if ttl_s is None else self._clock() + ttl_s
        if have is None:
            insort(self._order.setdefault(space, []), key)
        self._spaces.setdefault(space, {})[key] = _Item(Value(key, bytes(data), version), expires_at)
        if ttl_s is not None:
            self._remember_expiry(expires_at, version, space, key)
        if not quiet:
            self._record(space, key)
        return version

    async def delete(self, space: str, key: str) -> bool:
        check_name(space, key)
        if self._live(space, key) is None:
            return False
        self._drop(space, key)
        self._revision += 1
        self._record(space, key)
        return True

    async def take(self, space: str, key: str) -> Value | None:
        check_name(space, key)
        value = self._live(space, key)
        if value is not None:
            self._drop(space, key)
        return value

    async def list(self, space: str, *, prefix: str = "", after: str = "", limit: int = 100) -> list[Value]:
        self._purge()
        order = self._order.get(space, [])
        at = bisect_right(order, after) if after >= prefix and after else bisect_left(order, prefix)
        found: list[Value] = []
        while at < len(order) and len(found) < limit and order[at].startswith(prefix):
            found.append(self._spaces[space][order[at]].value)
            at += 1
        return found

    async def changes(self, after: int) -> Changes:
        if after > self._revision or after < self._floor:
            complete, after = False, self._floor
        else:
            complete = True
        fresh: list[Change] = []
        for (space, key), revision in reversed(self._log.items()):
            if revision <= after:
                break
            fresh.append(Change(revision, space, key))
        fresh.reverse()
        return Changes(self._revision, tuple(fresh), complete)

    def _live(self, space: str, key: str) -> Value | None:
        item = self._spaces.get(space, {}).get(key)
        if item is None:
            return None
        if item.expires_at <= self._clock():
            self._drop(space, key)
            return None
        return item.value

    def _drop(self, space: str, key: str) -> None:
        del self._spaces[space][key]
        order = self._order[space]
        del order[bisect_left(order, key)]

    def _record(self, space: str, key: str) -> None:
        self._log.pop((space, key), None)
        self._log[space, key] = self._revision
        while len(self._log) > self._log_size:
            self._floor = self._log.pop(next(iter(self._log)))

    def _remember_expiry(self, expires_at: float, version: int, space: str, key: str) -> None:
        heappush(self._expiries, (expires_at, version, space, key))
        live = sum(map(len, self._order.values()))
        if len(self._expiries) > 2 * live + 64:  # rewritten and taken keys leave their old due dates behind
            self._expiries = [
                due
                for due in self._expiries
                if (item := self._spaces.get(due[2], {}).get(due[3])) and item.value.version == due[1]
            ]
            heapify(self._expiries)

    def _purge(self) -> None:
        now = self._clock()
        while self._expiries and self._expiries[0][0] <= now:
            _, version, space, key = heappop(self._expiries)
            item = self._spaces.get(space, {}).get(key)
            if item is not None and item.value.version == version:
                self._drop(space, key)
