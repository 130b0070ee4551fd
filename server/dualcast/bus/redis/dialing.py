"""Who a connection is made to: the one server of the settings, or whichever the sentinels name as master.

In: what kind of link is wanted. Out: an open link to a server that takes writes, or LinkLost.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from .options import RedisSettings
from .sentinels import Sentinels
from .wire import L, open_link, parse_address


class Dialer(Protocol):
    """Opens the connections of a node, all to the same server."""

    async def dial(self, factory: Callable[[], L], name: str, timeout_s: float) -> L:
        """An open link, `name` in CLIENT LIST. Raises LinkLost, or TimeoutError."""
        ...

    @property
    def connections(self) -> int:
        """Open ones beside the links."""
        ...

    def is_demoted(self, error: str) -> bool:
        """Whether this error reply means that another server has to be found; nothing was run then."""
        ...

    async def run(self) -> None:
        """Ends the links to a server that is not the one any more, until cancelled. Never raises for Redis's
        sake."""
        ...

    async def close(self) -> None:
        """Ends what is open beside the links; `run` must have been cancelled."""
        ...


class Direct:
    """A `Dialer` to the server the URL names. An error reply is the server's last word."""

    def __init__(self, url: str) -> None:
        self._address = parse_address(url)

    async def dial(self, factory: Callable[[], L], name: str, timeout_s: float) -> L:
        return await open_link(self._address, factory, name, timeout_s)

    @property
    def connections(self) -> int:
        return 0

    def is_demoted(self, error: str) -> bool:
        return False

    async def run(self) -> None:
        return

    async def close(self) -> None:
        return


def open_dialer(settings: RedisSettings) -> Dialer:
    """The dialer of the settings; connects nothing yet. Raises ValueError."""
    return Sentinels(settings) if settings.sentinels else Direct(settings.url)
