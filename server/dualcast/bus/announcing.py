"""What dualcast itself publishes: inbox changes, presence, task progress, conversation events."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence

from dualcast.model.inbox import PushRider
from dualcast.model.publication import Audience, Draft, Receipt
from dualcast.model.uuid7 import Uuid7

from .port import EventBus


class Announcer:
    """Appends publications of event types that are reserved for dualcast. Their `data` is encoded by the room
    that announces. `clock` gives Unix seconds."""

    def __init__(self, bus: EventBus, *, clock: Callable[[], float] = time.time) -> None:
        self._bus = bus
        self._clock = clock
        self._new_id = Uuid7()

    async def announce(
        self,
        tenant: str,
        channels: Sequence[str],
        event: str,
        data: bytes,
        *,
        ident: str = "",
        ephemeral: bool = False,
        audience: Audience | None = None,
        conflation_key: str = "",
        terminal: bool = False,
        ttl_s: int = 0,
        push: PushRider | None = None,
    ) -> Receipt:
        """Publishes to `channels` (canonical names, at most 1,000). `data`: minified JSON without newlines.
        `ident`: the publication's id, which makes a repetition harmless; a UUIDv7 without one. Raises
        BusUnavailable, TooManyTargets. Publish quotas do not apply.
        """
        time_ms = int(self._clock() * 1000)
        return await self._bus.append(
            Draft(
                tenant=tenant,
                channels=tuple(dict.fromkeys(channels)),
                id=ident or self._new_id(),
                type=event,
                data=data,
                time_ms=time_ms,
                expires_ms=time_ms + ttl_s * 1000 if ttl_s else 0,
                conflation_key=conflation_key,
                terminal=terminal,
                audience=audience,
                ephemeral=ephemeral,
                push=push,
            )
        )
