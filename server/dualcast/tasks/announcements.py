"""Says what changed: `task` on `task:<id>`, `batch` on `batch:<id>`; later, when the bus fails."""

from __future__ import annotations

import logging
from collections import OrderedDict
from hashlib import blake2b

from dualcast.bus.announcing import Announcer
from dualcast.model.errors import DualcastError

from .model import Batch, Task, encode

_log = logging.getLogger(__name__)
Channel = tuple[str, str]


class Announcements:
    """The latest state of at most `most` channels waits here when it could not be announced; earlier ones are
    contained in it. Beyond that the oldest is dropped and counted: who connects gets the stored state anyway.
    """

    def __init__(self, announcer: Announcer, most: int) -> None:
        self._announcer = announcer
        self._most = most
        self._waiting: OrderedDict[Channel, Task | Batch] = OrderedDict()
        self.failed = 0
        """Announcements that failed at first."""
        self.dropped = 0

    @property
    def waiting(self) -> int:
        return len(self._waiting)

    async def announce(self, tenant: str, changed: Task | Batch) -> None:
        """Announces a stored state. Never fails: the state is stored already."""
        channel = (tenant, channel_of(changed))
        waiting = self._waiting.get(channel)
        if waiting is not None and waiting.revision > changed.revision:
            return
        try:
            await self._send(channel, changed)
        except DualcastError as error:
            self.failed += 1
            _log.warning("the state of %s is stored but not announced yet: %s", channel[1], error.code)
            self._keep(channel, changed)
        else:
            self._done(channel, changed)

    async def again(self) -> None:
        """Tries once more what waits, oldest first; stops at the first that fails."""
        for channel, changed in list(self._waiting.items()):
            if self._waiting.get(channel) is not changed:
                continue
            try:
                await self._send(channel, changed)
            except DualcastError:
                return
            self._done(channel, changed)

    async def _send(self, channel: Channel, changed: Task | Batch) -> None:
        await self._announcer.announce(
            channel[0],
            (channel[1],),
            "task" if isinstance(changed, Task) else "batch",
            encode(changed),
            ident=publication_id(changed),
            conflation_key=channel[1],
            terminal=changed.finished,
        )

    def _keep(self, channel: Channel, changed: Task | Batch) -> None:
        waiting = self._waiting.get(channel)
        if waiting is not None and waiting.revision >= changed.revision:
            return
        self._waiting[channel] = changed
        if len(self._waiting) > self._most:
            self._waiting.popitem(last=False)
            self.dropped += 1

    def _done(self, channel: Channel, changed: Task | Batch) -> None:
        waiting = self._waiting.get(channel)
        if waiting is not None and waiting.revision <= changed.revision:
            del self._waiting[channel]


def channel_of(changed: Task | Batch) -> str:
    """The channel a state is announced on."""
    return f"{'task' if isinstance(changed, Task) else 'batch'}:{changed.id}"


def publication_id(changed: Task | Batch) -> str:
    """The same for the same state, so that a repetition is no second publication: made of id, revision and
    the time it was first registered (an id may be used again when retention has ended).
    """
    digest = blake2b(f"{channel_of(changed)} {changed.created_ms}".encode(), digest_size=12).hexdigest()
    return f"{'t' if isinstance(changed, Task) else 'b'}-{digest}-{changed.revision}"
