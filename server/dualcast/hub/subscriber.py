"""What the hub sees of a session."""

from __future__ import annotations

from typing import Any, Protocol

from dualcast.model.principal import Principal
from dualcast.model.publication import Audience, Gap
from dualcast.telemetry.counters import DeliveryCounters

from .encoding import Encoding

BEHIND = 1 << 62
"""`gate` of a session that is not live: above every offset, so that one comparison skips it."""


class Subscriber(Protocol):
    """A session, as fan-out touches it. `gate` is the last offset written to it, or BEHIND."""

    id: str
    gate: int
    out: bytes | list[bytes] | None
    transport: Any
    encoding: Encoding
    counters: DeliveryCounters
    principal: Principal
    device: str

    @property
    def offset(self) -> int:
        """Everything due up to here has been written to it."""
        ...

    def due(self, audience: Audience) -> bool:
        """Whether the session belongs to the audience."""
        ...

    def fall_behind(self) -> None:
        """Leaves live delivery; catches up from its gate."""
        ...

    def gap(self, gap: Gap) -> None: ...

    def epoch_changed(self, epoch: str, after: int) -> None:
        """The log was renewed; it had been given everything up to `after`."""
        ...

    def bus_status(self, available: bool) -> None: ...

    def write_failed(self) -> None:
        """Its transport refused a write; it ends alone, the fan-out goes on."""
        ...
