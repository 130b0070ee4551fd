"""Legacy sessions without a socket, under a clock of the test's own."""

from __future__ import annotations

from typing import Any

from dualcast.dialects.legacy import Endpoint, Facts, Opening
from dualcast.model.principal import Principal
from dualcast.session.legacy_registry import Registry
from dualcast.session.session import FROM_NOW
from dualcast.session.wheel import Wheel
from dualcast.transport.legacy import LegacySignals, LegacySocket, LegacyState, LegacyStream, legacy_encoding
from dualcast.transport.unframe import unframe_sse, unframe_websocket
from support.engine_room import Room
from support.model_bus import TENANT


class Clock:
    """The loop's clock as the node sees it; everything else is the loop's own."""

    def __init__(self, loop: Any) -> None:
        self._loop = loop
        self.now = 1000.0

    def time(self) -> float:
        return self.now

    def __getattr__(self, name: str) -> Any:
        return getattr(self._loop, name)


class Transport:
    """Keeps what is written, un-framed."""

    def __init__(self, unframe: Any) -> None:
        self._unframe = unframe
        self.sent: list[Any] = []
        """Texts and blocks; a close as (code, reason), the end of a stream as None."""
        self.writes = 0
        self.buffered = 0
        self.closed = self.aborted = False

    def set_write_buffer_limits(self, high: int, low: int) -> None:
        return

    def get_write_buffer_size(self) -> int:
        return self.buffered

    def write(self, data: bytes) -> None:
        assert not self.closed, "written after close"
        self.writes += 1
        messages, ended, _ = self._unframe(data)
        for message in messages:
            match message["type"]:
                case "websocket.send":
                    self.sent.append(message["text"])
                case "websocket.close":
                    self.sent.append((message["code"], message["reason"]))
                case _ if message.get("body"):
                    blocks = message["body"].decode().split("\n\n")
                    assert blocks[-1] == ""
                    self.sent += blocks[:-1]
        if ended and self._unframe is unframe_sse:
            self.sent.append(None)

    def can_write_eof(self) -> bool:
        return True

    def write_eof(self) -> None:
        self.closed = True

    def close(self) -> None:
        self.closed = True

    def abort(self) -> None:
        self.closed = self.aborted = True

    def take(self) -> list[Any]:
        """What was written since the last call."""
        taken, self.sent = self.sent, []
        return taken


class Deaf:
    """A receiver that does nothing."""

    def text(self, session: Any, text: str) -> None:
        return

    def binary(self, session: Any, data: bytes) -> None:
        return


class LegacyRoom:
    """Legacy sessions of an `engine_room.Room`."""

    def __init__(self, room: Room, registry: Registry | None = None) -> None:
        self.room = room
        self.clock = Clock(room.node.loop)
        room.node.loop = self.clock  # type: ignore[assignment]
        room.node.wheel = Wheel(self.clock.now)
        room.node.now_s = lambda: room.clock + self.clock.now  # type: ignore[method-assign]
        self.registry = registry or Registry()
        self._encodings: dict[int, Any] = {}

    def open(
        self,
        endpoint: Endpoint,
        *channels: str,
        user: str = "u",
        opening: Opening | None = None,
        position: int = FROM_NOW,
        client_id: str = "",
        receiver: Any = None,
    ) -> tuple[Any, Transport]:
        """An attached session; its channels are watched."""
        names = list(channels or ("user:" + user, "all"))
        for name in names:
            self.room.hub.channel(TENANT, name)
        self.room.bus.confirm()
        facts = Facts(tenant=TENANT, user=user)
        facts.client_id = client_id
        state = LegacyState(endpoint, facts, opening or Opening(), self.registry, stream=endpoint.path)
        encoding = self._encodings.setdefault(id(endpoint), legacy_encoding(endpoint, self.registry))
        signals = LegacySignals(endpoint.dialect, self.registry)
        given: list[Any] = [self.room.node, Principal(TENANT, user), encoding, signals, names]
        epoch = self.room.bus.epoch if position != FROM_NOW else ""
        session: Any
        if endpoint.transport == "ws":
            transport = Transport(unframe_websocket)
            session = LegacySocket(*given, receiver or Deaf(), legacy=state, epoch=epoch, position=position)
            session.can_ping = False
        else:
            transport = Transport(unframe_sse)
            session = LegacyStream(*given, legacy=state, epoch=epoch, position=position)
        session.attached(transport, set(), paused=False, initial=b"")
        return session, transport

    def later(self, seconds: float) -> None:
        """Time passes, second by second, and the wheel turns."""
        end = self.clock.now + seconds
        while self.clock.now < end:
            self.clock.now = min(self.clock.now + 1, end)
            self.room.node.wheel.turn(self.clock.now)

    def say(self, kind: str, data: bytes = b"{}", *channels: str) -> int:
        """Publishes now."""
        time_ms = int(self.room.node.now_s() * 1000)
        return self.room.say("i", *(channels or ("all",)), kind=kind, data=data, time_ms=time_ms)
