"""What a connection to a task or batch is told first: how it stands, or what it missed (docs/contracts/
legacy-wire.md section 3)."""

from __future__ import annotations

from typing import Any
from weakref import WeakValueDictionary

from msgspec import json

from dualcast.hub.encoding import Encoding
from dualcast.model.errors import BusUnavailable
from dualcast.session.channel_state import AWAY
from dualcast.session.session import FROM_NOW
from dualcast.transport.legacy_told import Told


class Openings:
    """Reads states for connections of endpoints. Those that were told the same share one encoding."""

    def __init__(self) -> None:
        self._told: WeakValueDictionary[tuple[Encoding, str, int, int], Told] = WeakValueDictionary()

    async def open(
        self, session: Any, channel: str, *, resumed: bool, required: bool
    ) -> tuple[Any, bool, tuple[int, int] | None]:
        """The decoded state of `channel` (None: there is none), whether the session goes on where its cursor
        says, and, where it does not, (revision, created_ms) of the state: none of that is written again.

        Raises BusUnavailable when it is `required` and cannot be read.
        """
        if resumed and not await self._can_resume(session, channel):
            session.epoch, session.position, resumed = "", FROM_NOW, False
        # The position is settled first: a change is in the state, or follows it.
        session.settle()
        found = (await session.node.states.read(session.principal.tenant, [channel]))[channel]
        if found == AWAY and not resumed and required:
            # It may have said its last already: without its state the client would wait for ever.
            raise BusUnavailable("the state cannot be read now", retry_after_s=2)
        if found.data is None:
            return None, resumed, None
        state = json.decode(found.data)
        revision = state.get("revision") if isinstance(state, dict) else None
        if resumed or not isinstance(revision, int):
            return state, resumed, None
        told = revision, state.get("created_ms", 0)
        self.leave_out(session, channel, told)
        return state, resumed, told

    def leave_out(self, session: Any, channel: str, told: tuple[int, int]) -> None:
        """What is in both the state that was told and in what follows is left out, though it be announced
        later."""
        key = session.encoding, channel, *told
        session.encoding = self._told.setdefault(key, Told(session.encoding, channel, *told))

    @staticmethod
    async def _can_resume(session: Any, channel: str) -> bool:
        """Whether what was missed of `channel` can be told. If not, the client is told how it stands: there
        may be no further change. While the bus does not answer, it may yet."""
        try:
            page = await session.node.bus.read(session.principal.tenant, [channel], session.position, 1)
        except BusUnavailable:
            return True
        known: bool = page.epoch == session.epoch and session.position <= page.top and not page.gaps
        return known
