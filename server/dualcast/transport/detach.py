"""The detach contract: ASGI admits a connection, then its socket is handed to a session object and no task
stays behind.

`scope["extensions"][EXTENSION]` is a callable `detach(session) -> None`, present for HTTP requests and
WebSocket upgrades served by our protocol classes. It raises `DetachUnavailable` where the hand-over would
lose or duplicate bytes; the caller then serves the same session over plain ASGI (`transport.asgi`). Sources:
uvicorn's own hand-over of a transport at the upgrade, `asyncio.BaseTransport.set_protocol`.
"""

from __future__ import annotations

import asyncio
from typing import Any, Final, Protocol

from dualcast.model.errors import DualcastError

EXTENSION: Final = "dualcast.detach"
HOLD: Final = "dualcast.hold"
"""Scope extension of HTTP requests: a callable that takes nothing. What the application then sends in this
turn of the loop, the head of its response, waits for the detach, which leaves it to the session (`prelude`);
without one it is written in the next turn.
"""
DEFLATE: Final = "dualcast.deflate"
"""Scope extension: the `Sec-WebSocket-Extensions` value (bytes) the application may send in its accept
headers to switch compression on.
"""


class DetachUnavailable(DualcastError):
    """This connection cannot be handed over now; it is untouched and plain ASGI goes on working."""

    code = "detach-unavailable"


class Session(Protocol):
    """What takes a socket over: an `asyncio.Protocol` with two more calls.

    A session with an attribute `prelude` (bytes) is given what is left of the handshake there and writes it
    before anything else; for any other it is written already.
    """

    def attached(
        self, transport: asyncio.Transport, connections: set[Any], *, paused: bool, initial: bytes
    ) -> None:
        """Called once, right after `set_protocol`. The session adds itself to `connections` and discards
        itself in `connection_lost`.

        `paused`: the transport has already called `pause_writing` and will call `resume_writing`. `initial`:
        bytes that came behind the upgrade request, to be treated like `data_received`. The session may write
        and even close in this call.
        """

    def shutdown(self) -> None:
        """The server is going down: end this connection soon."""

    def data_received(self, data: bytes) -> None: ...
    def eof_received(self) -> bool | None: ...
    def pause_writing(self) -> None: ...
    def resume_writing(self) -> None: ...
    def connection_lost(self, exc: Exception | None) -> None: ...


class _DeadTransport(asyncio.Transport):
    """Stands where the handed-over transport was: everything does nothing, so late calls of uvicorn reach no
    socket.
    """

    def write(self, data: object) -> None: ...
    def writelines(self, list_of_data: object) -> None: ...
    def close(self) -> None: ...
    def abort(self) -> None: ...
    def pause_reading(self) -> None: ...
    def resume_reading(self) -> None: ...
    def is_closing(self) -> bool:
        return True

    def get_write_buffer_size(self) -> int:
        return 0

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        return default


DEAD: Final = _DeadTransport()


def leave_prelude(transport: asyncio.Transport, session: Session, prelude: bytes) -> None:
    """Leaves the rest of the handshake to the session if it takes one, else writes it."""
    if hasattr(session, "prelude"):
        session.prelude = prelude
    elif prelude:
        transport.write(prelude)


def hand_over(
    transport: asyncio.Transport,
    session: Session,
    connections: set[Any],
    *,
    paused: bool,
    initial: bytes,
) -> None:
    """Makes `session` the protocol of `transport` and starts it. If the session refuses by raising, the
    socket is aborted.
    """
    transport.set_protocol(session)  # type: ignore[arg-type]
    transport.resume_reading()  # uvicorn or our early-bytes bound may have paused it
    try:
        session.attached(transport, connections, paused=paused, initial=initial)
    except BaseException:
        connections.discard(session)
        transport.abort()
        raise
