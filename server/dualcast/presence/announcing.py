"""Joins and leaves as publications on their `presence:` channels (event `presence`)."""

from __future__ import annotations

import asyncio
import hashlib
from collections import deque
from collections.abc import Iterable, Iterator, Sequence

import msgspec
import structlog
from msgspec import Struct

from dualcast.bus.announcing import Announcer
from dualcast.model.errors import BusUnavailable, DualcastError

from .port import PREFIX, Delta, PresenceSettings

log = structlog.get_logger("dualcast.presence")
EVENT = "presence"
MAX_NAMES = 500
"""Users named in one publication, joined and left together."""
MAX_NAME_BYTES = 32_768
"""The same in bytes of their ids."""
TOGETHER = 50
"""Publications on their way at a time."""
_encode = msgspec.json.Encoder().encode


class Change(Struct, frozen=True):
    """The data of an event `presence`. A change of more than MAX_NAMES users is several events of the same
    revision and count."""

    joined: Sequence[str]
    left: Sequence[str]
    count: int
    """Members after all of it."""
    revision: int
    """A state with this revision or a higher one has it already. Of two events about one user the one with
    the higher revision is right, in whatever order they come."""


class Announcements:
    """Group changes on their way to the bus. A bus that is away keeps them waiting (bounded); it never keeps
    presence itself from going on."""

    def __init__(self, announcer: Announcer, settings: PresenceSettings) -> None:
        self._announcer = announcer
        self._settings = settings
        self._waiting: dict[str, deque[Delta]] = {}
        self._sending: dict[str, asyncio.Future[None]] = {}
        self.announced = 0
        """Publications made."""
        self.dropped = 0
        """Changes nobody was told of."""

    @property
    def waiting(self) -> int:
        """Changes of groups not published yet."""
        return sum(map(len, self._waiting.values()))

    @property
    def tenants(self) -> list[str]:
        """Those for which something waits."""
        return list(self._waiting)

    def add(self, tenant: str, deltas: Iterable[Delta]) -> None:
        """Takes over what is to be published of `deltas`. To be followed by `send` before more is added: only
        what the bus then does not take counts against the bound."""
        found = [delta for delta in deltas if delta.group.startswith(PREFIX)]
        if found:
            self._waiting.setdefault(tenant, deque()).extend(found)

    async def send(self, tenant: str) -> None:
        """Publishes what waits, oldest first. Raises BusUnavailable: the rest goes on waiting. While another
        call is doing it, returns when that one is through, which takes along what was added meanwhile."""
        if (under_way := self._sending.get(tenant)) is not None:
            await asyncio.wait({under_way})
            return
        under_way = self._sending[tenant] = asyncio.get_running_loop().create_future()
        try:
            await self._send(tenant)
        except BusUnavailable:
            self._shorten(tenant)
            raise
        finally:
            del self._sending[tenant]
            under_way.set_result(None)

    def _shorten(self, tenant: str) -> None:
        queue = self._waiting[tenant]
        before = self.dropped
        while len(queue) > self._settings.max_unannounced:
            queue.popleft()
            self.dropped += 1
        if self.dropped != before:
            log.warning("presence changes were dropped", tenant=tenant, dropped=self.dropped)

    async def _send(self, tenant: str) -> None:
        queue = self._waiting.get(tenant)
        while queue:
            part = [queue[i] for i in range(min(TOGETHER, len(queue)))]
            results = await asyncio.gather(
                *(self._announce(tenant, delta) for delta in part), return_exceptions=True
            )
            for result in results:
                if isinstance(result, BusUnavailable):
                    raise result
                if isinstance(result, DualcastError):
                    self.dropped += 1
                    log.warning("a presence change was refused", tenant=tenant, code=result.code)
                elif isinstance(result, BaseException):
                    raise result
                queue.popleft()
        self._waiting.pop(tenant, None)

    async def _announce(self, tenant: str, delta: Delta) -> None:
        name = hashlib.blake2b(delta.group.encode(), digest_size=8).hexdigest()
        for number, change in enumerate(parts(delta)):
            # The same change always has the same id: the bus drops it when two nodes announce it.
            await self._announcer.announce(
                tenant,
                (delta.group,),
                EVENT,
                _encode(change),
                ident=f"presence-{delta.revision}-{name}-{number}",
                ttl_s=self._settings.ttl_s,
            )
            self.announced += 1


def parts(delta: Delta) -> Iterator[Change]:
    """The events that tell a change: one, unless it names too many."""
    joined: list[str] = []
    left: list[str] = []
    size = 0
    for names, into in ((delta.joined, joined), (delta.left, left)):
        for user in names:
            size += len(user.encode())
            if len(joined) + len(left) >= MAX_NAMES or size > MAX_NAME_BYTES:
                yield Change(tuple(joined), tuple(left), delta.count, delta.revision)
                joined.clear()
                left.clear()
                size = len(user.encode())
            into.append(user)
    yield Change(tuple(joined), tuple(left), delta.count, delta.revision)
