"""`GET /v1/socket`: the native WebSocket endpoint (docs/protocol.md).

A refusal is accepted first and closed with a code of ours: a browser can read neither status nor body of a
denied handshake.
"""

from __future__ import annotations

from typing import Any

from litestar import WebSocket, websocket

from dualcast.dialects.native_signals import SOCKET
from dualcast.model.codes import Close
from dualcast.model.errors import DualcastError, Forbidden, TokenExpired, Unauthorized
from dualcast.transport.asgi import respond_websocket
from dualcast.transport.detach import DEFLATE
from dualcast.transport.encodings import NATIVE_WS, NATIVE_WS_DEFLATE
from dualcast.transport.websocket import WebSocketSession

from .authentication import AUTHENTICATES
from .connect import Delivery, admit, make_session
from .stream import REFUSED

SUBPROTOCOL = "dualcast"


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


def socket_route(delivery: Delivery) -> object:
    """The route handler."""

    @websocket("/v1/socket", opt={AUTHENTICATES: True}, name="socket")
    async def socket(socket: WebSocket[Any, Any, Any]) -> None:
        scope, receive, send = socket.scope, socket.receive, socket.send
        # The connection object and its closures would otherwise live in a reference cycle as long as the
        # socket.
        socket.receive = socket.send = None  # type: ignore[assignment]
        try:
            request = await admit(delivery, scope, "websocket")  # type: ignore[arg-type]
            if request.decision.websocket_refusal is not None:
                await _refuse(receive, send, request.decision.websocket_refusal, Close.STAGE.reason)
                return
            deflate = (scope.get("extensions") or {}).get(DEFLATE)
            session = await make_session(
                delivery,
                request,
                WebSocketSession,
                encoding=NATIVE_WS_DEFLATE if deflate else NATIVE_WS,
                dialect=SOCKET,
                receiver=delivery.commands,
            )
        except DualcastError as error:
            delivery.services.counters.delivery(REFUSED, "ws").refused += 1
            await _refuse(receive, send, close_code(error), error.code)
            return
        headers = [(b"sec-websocket-extensions", deflate)] if deflate else []
        subprotocol = request.authenticated.subprotocol
        await respond_websocket(scope, receive, send, session, subprotocol=subprotocol, headers=headers)  # type: ignore[arg-type]

    return socket


async def _refuse(receive: Any, send: Any, code: Close, reason: str) -> None:
    if (await receive())["type"] != "websocket.connect":
        return
    await send({"type": "websocket.accept", "subprotocol": None, "headers": []})
    await send({"type": "websocket.close", "code": int(code), "reason": reason})
