"""What a subscription's connections say: frames in, events and happenings out."""

from __future__ import annotations

import asyncio
import logging
import time

from msgspec.structs import replace

from .commands import PING, Commands, command
from .connections import Broken, Connection, Received
from .delivery import Inlet
from .errors import DualcastError
from .events import (
    AuthExpiring,
    Bye,
    CommandFailed,
    Event,
    Frame,
    Gap,
    MoveAsked,
    Published,
    Reply,
    StageChanged,
    Unsubscribed,
    Welcome,
)
from .history import fill
from .line import Answered, Asked, Delay, Ended, Happening, Moved, Mute, Staged, Told, Welcomed
from .wanted import Backend, Wanted

log = logging.getLogger("dualcast_client")
HEARTBEAT_MORE_S = 10.0
"""A line is dead when it is silent for so much longer than its heartbeat (PROTO-15, PROTO-24)."""
MAX_EARLY = 1000
"""Frames of a connection that is opened beside another, until it has answered."""


class Intake:
    """Takes in frames. What follows from them for the line is done by the `Runner`, which this is part of."""

    def __init__(self, backend: Backend, wanted: Wanted, inlet: Inlet) -> None:
        self.backend = backend
        self.wanted = wanted
        self.inlet = inlet
        self.commands = Commands()
        self.welcome: Welcome | None = None
        self.silence_s = 0.0
        self.trying: tuple[str, ...] = ()
        """Channels that a stream is opened with for the first time."""
        self.overlap = False
        """What comes may have come over the connection before: it does not move the position back."""
        self.renewing: asyncio.Task[None] | None = None

    @property
    def socket(self) -> Connection | None:
        """The live WebSocket."""
        raise NotImplementedError

    def feed(self, what: Happening) -> None:
        raise NotImplementedError

    def end(self, why: Happening) -> None:
        raise NotImplementedError

    async def renew(self) -> None:
        raise NotImplementedError

    async def take(self, got: Received, connection: Connection, *, joined: bool = False) -> None:
        """Takes in one frame."""
        frame, cursor = got.frame, got.cursor
        if got.retry_ms is not None:
            self.feed(Delay(got.retry_ms))
        event: Event | None = None
        if isinstance(frame, Published):
            if self.inlet.first(frame.id):
                event = frame
                self.overlap = self.overlap and cursor is None
            else:
                cursor = None if self.overlap else cursor
        elif isinstance(frame, Event):
            event, cursor = await self._signal(frame, cursor, connection, joined)
        else:
            self._inside(frame)
            if self.overlap:
                cursor = None
        if cursor is not None and not (isinstance(frame, Welcome) and joined):
            self.feed(Moved(cursor))
        if event is not None:
            self.inlet.put(event, cursor)
        elif cursor is not None:
            self.inlet.move(cursor)

    def _inside(self, frame: Frame) -> None:
        match frame:
            case Reply():
                if frame.ref == PING:
                    self.feed(Answered())
                self.commands.reply(frame)
            case Bye():
                self.feed(Told(frame.code, frame.retry_ms))
                self.end(Ended(frame.code, frame.reason, frame.channels))
            case AuthExpiring():
                if self.backend.renewable and self.renewing is None:
                    self.renewing = asyncio.create_task(self.renew())
            case CommandFailed():
                log.warning("a command of the subscription was refused: %s", frame.code)
            case _:
                pass

    async def _signal(
        self, frame: Event, cursor: str | None, connection: Connection, joined: bool
    ) -> tuple[Event | None, str | None]:
        """What is given of a signal, and the position behind it."""
        match frame:
            case Welcome():
                self.welcome = frame
                self.trying = ()
                self.silence_s = frame.heartbeat_s + HEARTBEAT_MORE_S
                if joined:
                    return frame, None
                self.feed(Welcomed(cursor or frame.cursor, frame.stage))
                if self.socket is not None:
                    await connection.send(command(PING, {"type": "ping"}))
            case MoveAsked():
                self.feed(Asked(frame.to, frame.after_ms / 1000))
            case StageChanged():
                self.feed(Staged(frame.stage))
            case Unsubscribed():
                # To ask for them again would refuse the whole connection.
                left = tuple(name for name in self.wanted.channels if name not in frame.channels)
                self.wanted = replace(self.wanted, channels=left)
                log.warning("no longer allowed: %s", ", ".join(frame.channels))
            case Gap() if self.wanted.backfill:
                self.overlap = False
                return await self._filled(frame), cursor
            case Gap():
                self.overlap = False
                if self.wanted.on_gap == "event":
                    log.warning("publications of %s are missing: %s", frame.channel, frame.reason)
            case _ if self.overlap:
                cursor = None
        return frame, cursor

    async def _filled(self, gap: Gap) -> Gap:
        """What history has of it is given first."""
        found, whole = await self.fill(gap)
        for one in found:
            if self.inlet.first(one.id):
                self.inlet.put(one, None)
        if not whole:
            log.warning("publications of %s are missing: %s", gap.channel, gap.reason)
        return replace(gap, filled=whole)

    async def fill(self, gap: Gap) -> tuple[list[Published], bool]:
        try:
            return await fill(gap, self.backend.call)
        except DualcastError as error:
            log.warning("history of %s could not be read: %s", gap.channel, error.code)
            return [], False


async def proven(connection: Connection, within_s: float) -> tuple[Connection, list[Received]]:
    """A new connection once it was welcomed and, if it is a WebSocket, has answered; and what came over it.
    Raises Broken."""
    frames: list[Received] = []
    until = time.monotonic() + within_s
    try:
        while (left := until - time.monotonic()) > 0 and len(frames) < MAX_EARLY:
            got = await connection.receive(left)
            if got is None:
                continue
            frames.append(got)
            if isinstance(got.frame, Bye):
                raise Broken(Ended(got.frame.code, got.frame.reason, got.frame.channels))
            if isinstance(got.frame, Welcome) and connection.transport == "websocket":
                await connection.send(command(PING, {"type": "ping"}))
            elif isinstance(got.frame, Welcome | Reply):
                return connection, frames
        raise Broken(Mute())
    except BaseException:
        await connection.close()
        raise
