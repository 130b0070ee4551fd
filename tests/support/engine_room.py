"""Hub, node and recovery over the model bus, without a socket: what unit tests of sessions stand on."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

from dualcast.hub.hub import Hub, HubSettings
from dualcast.session.node import Node, SessionSettings
from dualcast.session.recovery import Recovery
from dualcast.session.sweep import Sweep
from dualcast.telemetry.counters import Counters
from support.model_bus import TENANT, ModelBus
from support.recording import RecordingSession, RecordingTransport, open_session

TURNS = 500


class Room:
    """`bus.publish` and `bus.pump` are the publisher; `clock` is what the node takes for Unix time."""

    def __init__(self, hub: HubSettings, session: SessionSettings, keep: int) -> None:
        self.bus = ModelBus(keep=keep)
        self.hub = Hub(self.bus, hub)  # type: ignore[arg-type]
        self.bus.follower = self.hub
        self.node = Node(self.bus, self.hub, Counters(), session)  # type: ignore[arg-type]
        self.recovery = Recovery(self.node)
        self.sweep = Sweep(self.node, self.recovery)
        self.clock = 1_000_000.0
        self.node.now_s = lambda: self.clock  # type: ignore[method-assign]

    def open(self, *channels: str, **how: Any) -> tuple[RecordingSession, RecordingTransport]:
        """An attached session whose channels are watched."""
        names = list(channels or ("user:u", "all"))
        for name in names:
            self.hub.channel(TENANT, name)
        self.bus.confirm()
        return open_session(self.node, names, **how)

    def open_unconfirmed(self, *channels: str, **how: Any) -> tuple[RecordingSession, RecordingTransport]:
        """An attached session; the watches it asks for wait for `bus.confirm`."""
        return open_session(self.node, list(channels), **how)

    def say(self, ident: str, *channels: str, **fields: Any) -> int:
        """Publishes and hands it to the hub; the offset."""
        offset = self.bus.publish(ident, channels or ("all",), **fields)
        self.bus.pump()
        return offset

    async def until(self, condition: Callable[[], bool]) -> None:
        """Lets the loop turn until the condition holds."""
        for _ in range(TURNS):
            if condition():
                return
            await asyncio.sleep(0)
        raise AssertionError("never came")

    def sweeps(self, times: int = 1) -> None:
        """Looks at every session so many times."""
        for _ in range(times * self.node.settings.sweep_s):
            self.sweep.tick()


@asynccontextmanager
async def room(
    *, hub: HubSettings | None = None, session: SessionSettings | None = None, keep: int = 1000
) -> AsyncIterator[Room]:
    """A room whose recovery works."""
    made = Room(hub or HubSettings(), session or SessionSettings(sweep_s=1), keep)
    worker = asyncio.create_task(made.recovery.run())
    try:
        yield made
    finally:
        worker.cancel()
        await asyncio.gather(worker, return_exceptions=True)
        await made.node.close()


def ids(transport: RecordingTransport) -> list[str]:
    """Ids of the publications written, in order."""
    return [line.split(" ")[3] for line in transport.lines if line.startswith("p ")]


def words(transport: RecordingTransport) -> list[str]:
    """First words of everything that is no publication."""
    return [line.split(" ")[0] for line in transport.lines if not line.startswith("p ")]
