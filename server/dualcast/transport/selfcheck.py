"""Whether the installed uvicorn still has the internals our protocol class stands on, tried out on a real
socket pair.

In: nothing. Out: None, or one line saying what is missing; the server then uses uvicorn's own classes and
plain ASGI. Names first, since a missing one explains more than a failed exchange; then one detached stream
and one detached WebSocket end to end.
"""

from __future__ import annotations

import asyncio
import inspect
import socket
from functools import cache
from typing import Any, Final

import uvicorn
from uvicorn.protocols.http import httptools_impl
from uvicorn.server import ServerState

from dualcast.transport import asgi, frames
from dualcast.transport.edge import Connections, Edge
from dualcast.transport.http import EdgeConfig, HttpProtocol
from dualcast.transport.options import TransportSettings

_METHODS: Final = [
    "connection_made",
    "connection_lost",
    "data_received",
    "eof_received",
    "on_message_begin",
    "on_url",
    "on_header",
    "on_headers_complete",
    "on_body",
    "on_message_complete",
    "on_response_complete",
    "pause_writing",
    "resume_writing",
    "shutdown",
    "_unset_keepalive_if_required",
    "_should_upgrade",
    "_get_upgrade",
    "_should_upgrade_to_ws",
    "_start_asgi_task",
]
_CYCLE: Final = [
    "scope",
    "transport",
    "flow",
    "disconnected",
    "message_event",
    "more_body",
    "response_started",
    "response_complete",
    "chunked_encoding",
    "on_response",
]
_TIMEOUT_S: Final = 5.0


@cache
def _source(of: type) -> str:
    return inspect.getsource(of)


def missing_names() -> list[str]:
    """Names of uvicorn's HTTP class and request cycle that are gone."""
    missing = [
        f"HttpToolsProtocol.{name}"
        for name in _METHODS
        if not hasattr(httptools_impl.HttpToolsProtocol, name)
    ]
    cycle = getattr(httptools_impl, "RequestResponseCycle", None)
    source = _source(cycle) if cycle is not None else ""
    missing += [f"RequestResponseCycle.{name}" for name in _CYCLE if f"self.{name}" not in source]
    return missing


async def problem() -> str | None:
    """Runs the check in the running loop; a few milliseconds. Returns the reason why detach must stay off, or
    None.
    """
    missing = missing_names()
    if missing:
        return f"uvicorn {uvicorn.__version__} lacks {', '.join(missing)}"
    try:
        async with asyncio.timeout(_TIMEOUT_S):
            for request, greeting, marker in _EXCHANGES:
                answer = await _exchange(request, marker)
                if not answer.endswith(marker) or greeting not in answer:
                    return f"uvicorn {uvicorn.__version__}: the trial {greeting.decode()} exchange failed"
    except Exception as exc:  # noqa: BLE001 - whatever an unknown uvicorn does, the server must start without detach
        return f"uvicorn {uvicorn.__version__}: the trial exchange raised {type(exc).__name__}"
    return None


_UPGRADE: Final = (
    b"GET / HTTP/1.1\r\nhost: a\r\nupgrade: websocket\r\nconnection: upgrade\r\nsec-websocket-version: 13\r\n"
    b"sec-websocket-key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n"
)
_EXCHANGES: Final = (
    (b"GET / HTTP/1.1\r\nhost: a\r\n\r\n", b"200 OK", frames.chunk(b": ok\n\n") + frames.LAST_CHUNK),
    (
        _UPGRADE,
        b"101 Switching",
        frames.text(b"ok") + frames.close(1000),
    ),
)


class _Trial(asyncio.Protocol):
    """Writes its marker and closes as soon as it is attached; pumped instead of detached, it is silent."""

    def __init__(self, marker: bytes) -> None:
        self.marker = marker

    def attached(self, transport: Any, connections: set[Any], *, paused: bool, initial: bytes) -> None:
        if not isinstance(transport, asgi.AsgiTransport):
            transport.write(self.marker)
        transport.close()

    def shutdown(self) -> None:
        """Nothing is left to end."""


async def _exchange(request: bytes, marker: bytes) -> bytes:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "websocket":
            await asgi.respond_websocket(scope, receive, send, _Trial(marker))
        else:
            await asgi.respond_sse(
                scope, receive, send, _Trial(marker), [(b"content-type", b"text/event-stream")]
            )

    settings = TransportSettings(max_connections_per_address=0)
    edge = Edge(settings)
    config = EdgeConfig(app, edge, log_config=None, http=HttpProtocol, ws="none", lifespan="off")
    config.load()
    state = ServerState()
    state.connections = Connections()
    loop = asyncio.get_running_loop()
    ours, theirs = socket.socketpair()
    received = b""
    try:
        theirs.setblocking(False)
        await loop.connect_accepted_socket(lambda: HttpProtocol(config, state, {}, loop), ours)
        await loop.sock_sendall(theirs, request)
        while data := await loop.sock_recv(theirs, 65536):
            received += data
    finally:
        theirs.close()
        edge.sweep.stop()
        await asyncio.gather(*state.tasks, return_exceptions=True)
    return received
