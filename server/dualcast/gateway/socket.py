"""`GET /v1/socket`: the native WebSocket endpoint (docs/protocol.md).

A refusal is accepted first and closed with a code of ours: a browser can read neither status nor body of a
denied handshake.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, cast

from litestar.handlers import asgi
from litestar.handlers.asgi_handlers import ASGIRouteHandler
from litestar.types import Receive, Send
from litestar.types import Scope as TypedScope

from dualcast.dialects.native import socket_frame
from dualcast.dialects.native_signals import SOCKET
from dualcast.dialects.native_types import Bye
from dualcast.identity.credentials import SUBPROTOCOL
from dualcast.model.codes import Close
from dualcast.model.errors import DualcastError, Forbidden, TokenExpired, Unauthorized
from dualcast.session.moving import SOCKET_URL
from dualcast.session.session import Session
from dualcast.transport.asgi import respond_websocket
from dualcast.transport.detach import DEFLATE
from dualcast.transport.encodings import NATIVE_WS, NATIVE_WS_DEFLATE
from dualcast.transport.websocket import WebSocketSession

from .authentication import AUTHENTICATES
from .connect import REFUSED, Delivery, Scope, admit, is_final, make_session
from .problems import send_problem
from .visitors import note_refusal

PATH = SOCKET_URL


class NotAnUpgrade(DualcastError):
    """A plain HTTP request where a WebSocket handshake is expected."""

    code = "upgrade-required"
    status = 426


def close_code(error: DualcastError) -> Close:
    """What a refused handshake is closed with."""
    if isinstance(error, TokenExpired):
        return Close.TOKEN_EXPIRED
    if isinstance(error, Unauthorized):
        return Close.UNAUTHORIZED
    if isinstance(error, Forbidden):
        return Close.FORBIDDEN
    if error.retryable:
        return Close.TRY_LATER
    return Close.BAD_REQUEST


def socket_route(delivery: Delivery) -> ASGIRouteHandler:
    """The route handler."""

    @asgi(PATH, copy_scope=False, opt={AUTHENTICATES: True}, name="socket")
    async def socket(scope: TypedScope, receive: Receive, send: Send) -> None:
        await serve(cast(Scope, scope), receive, send)

    async def serve(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "websocket":
            await send_problem(send, NotAnUpgrade("open a WebSocket here"))
            return
        try:
            request = await admit(delivery, scope, "websocket")
            if request.decision.websocket_refusal is not None:
                final = await is_final(delivery, request.principal, "websocket")
                code = request.decision.websocket_refusal if final else Close.TRY_LATER
                await _refuse(scope, receive, send, Bye(code=int(code), reason=code.reason))
                return
            deflate = (scope.get("extensions") or {}).get(DEFLATE)
            encoding = NATIVE_WS_DEFLATE if deflate else NATIVE_WS
            make: Callable[..., Session] = WebSocketSession
            parts: dict[str, Any] = {"encoding": encoding, "dialect": SOCKET}
            if request.view is not None:
                make, parts = request.view.parts("ws", deflate=bool(deflate))
            session = await make_session(delivery, request, make, receiver=delivery.commands, **parts)
        except DualcastError as error:
            delivery.services.counters.delivery(REFUSED, "ws").refused += 1
            note_refusal(delivery.node, scope, "ws", error)
            channels = list(error.channels) or None
            bye = Bye(code=int(close_code(error)), reason=error.code, channels=channels)
            await _refuse(scope, receive, send, bye)
            return
        headers = [(b"sec-websocket-extensions", deflate)] if deflate else []
        subprotocol = request.authenticated.subprotocol
        await respond_websocket(scope, receive, send, session, subprotocol=subprotocol, headers=headers)

    return socket


async def _refuse(scope: Any, receive: Any, send: Any, bye: Bye) -> None:
    """Accepts and closes; what does not fit into a close, the names of channels, is said before it. A browser
    that offered subprotocols hears the code only if one is chosen."""
    if (await receive())["type"] != "websocket.connect":
        return
    subprotocol = SUBPROTOCOL if SUBPROTOCOL in (scope.get("subprotocols") or ()) else None
    await send({"type": "websocket.accept", "subprotocol": subprotocol, "headers": []})
    if bye.channels:
        await send({"type": "websocket.send", "text": socket_frame(bye).decode()})
    await send({"type": "websocket.close", "code": bye.code, "reason": bye.reason})
