"""Nodes for tests of the redis engine: a started bus with its recorder, and quick settings."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any

from dualcast.bus.port import Retention
from dualcast.bus.redis.engine import RedisBus
from dualcast.bus.redis.options import RedisSettings
from dualcast.bus.storage import Extension
from dualcast.model.errors import BusUnavailable
from dualcast.model.publication import Receipt
from support.bus_engines import Recorder, draft

QUIET = 3600.0
"""A probe interval that never comes in a test: what is found is then not found by the probe."""


def settings(url: str = "redis://", **fields: Any) -> RedisSettings:
    fields = {
        "command_s": 1.0,
        "connect_s": 0.5,
        "echo_s": 0.5,
        "probe_every_s": QUIET,
        "fresh_s": 0.0,
        **fields,
    }
    return RedisSettings(url=url, **fields)


class Node:
    def __init__(self, bus: RedisBus, recorder: Recorder) -> None:
        self.bus = bus
        self.recorder = recorder

    def ids(self, tenant: str, channel: str | None = None) -> list[str]:
        """Ids of the entries fed so far."""
        return [entry.publication.id for entry in self.recorder.of(tenant, channel)]

    def offsets(self, tenant: str) -> list[int]:
        return [entry.offset for entry in self.recorder.of(tenant)]

    async def fed(self, tenant: str, ids: list[str]) -> None:
        """Waits until at least as many entries as `ids` were fed, and asserts that they are these, in this
        order.
        """
        await self.recorder.until(lambda: len(self.recorder.of(tenant)) >= len(ids))
        assert self.ids(tenant) == ids

    @property
    def statuses(self) -> list[bool]:
        return [call[1] for call in self.recorder.calls if call[0] == "status"]

    async def status(self, available: bool) -> None:
        """Waits until the last status is `available`."""
        await self.recorder.until(lambda: (self.statuses or [True])[-1] is available)

    async def health(self, *, ok: bool) -> str:
        """The detail of the first probe with this outcome; repair may be under way, and a probe is shared
        while it is fresh."""
        async with asyncio.timeout(30):
            while (found := await self.bus.probe()).ok is not ok:
                await asyncio.sleep(0.05)
        return found.detail


async def insist(bus: Node, tenant: str, *channels: str, ident: str) -> Receipt:
    """Appends with the same id until it is acknowledged."""
    async with asyncio.timeout(20):
        while True:
            try:
                return await bus.bus.append(draft(tenant, *channels, id=ident))
            except BusUnavailable:
                await asyncio.sleep(0.01)


@asynccontextmanager
async def node(
    url: str = "redis://",
    retention: Retention | None = None,
    *,
    extensions: Sequence[Extension] = (),
    **fields: Any,
) -> AsyncIterator[Node]:
    bus = RedisBus(settings(url, **fields), retention, extensions=extensions)
    recorder = Recorder()
    await bus.start(recorder)
    try:
        yield Node(bus, recorder)
    finally:
        await bus.close()
