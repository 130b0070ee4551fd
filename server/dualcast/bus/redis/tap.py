"""The subscriber connection: everything one read brings goes on as one batch per tenant."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from itertools import islice

import hiredis

from .feed import Feeds
from .wire import Link, pack

CHUNK = 512
"""Names per SUBSCRIBE."""


class Tap(Link):
    """A Link that, from the first SUBSCRIBE on, gets pushes instead of replies.

    `confirmed(name)` is called per confirmed SUBSCRIBE, `echo(payload)` for messages on `echo_name`.
    """

    def __init__(
        self,
        feeds: Feeds,
        echo_name: bytes,
        confirmed: Callable[[bytes], None],
        echo: Callable[[bytes], None],
    ) -> None:
        super().__init__()
        self._feeds = feeds
        self._echo_name = echo_name
        self._confirmed = confirmed
        self._echo = echo

    def subscribe(self, names: Iterable[bytes]) -> None:
        """Asks for the names. Raises LinkLost."""
        self._ask(b"SUBSCRIBE", names)

    def unsubscribe(self, names: Iterable[bytes]) -> None:
        """No more of the names. Raises LinkLost."""
        self._ask(b"UNSUBSCRIBE", names)

    def _ask(self, command: bytes, names: Iterable[bytes]) -> None:
        rest = iter(names)
        while chunk := list(islice(rest, CHUNK)):
            self.send(pack(command, *chunk))

    def data_received(self, data: bytes) -> None:
        if self._waiting:
            super().data_received(data)
            return
        self.received += 1
        gets = self._gets
        arrive = self._feeds.arrive
        try:
            self._feed(data)
            while (reply := gets()) is not False:
                kind = reply[0]
                if kind == b"message":
                    if reply[1] == self._echo_name:
                        self._feeds.flush()
                        self._echo(reply[2])
                    else:
                        arrive(reply[1], reply[2])
                elif kind == b"subscribe":
                    self._confirmed(reply[1])
        except (hiredis.HiredisError, TypeError, IndexError):
            self.abort()
        self._feeds.flush()
