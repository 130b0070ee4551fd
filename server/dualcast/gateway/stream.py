"""`GET /v1/stream`: the native SSE endpoint (docs/protocol.md).

Any status but 200 ends an `EventSource` for good. So: no valid token 401, a channel that may not be read 403,
a malformed channel 422 (coming back cannot help); over a limit, draining, or the bus cannot be asked: 200,
`retry:` and the end of the stream (come back).
"""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any, cast

from litestar.handlers import asgi
from litestar.handlers.asgi_handlers import ASGIRouteHandler
from litestar.types import Receive, Send
from litestar.types import Scope as TypedScope

from dualcast.dialects.native_signals import STREAM
from dualcast.model.cursor import parse_cursor
from dualcast.model.errors import BadCursor, DualcastError
from dualcast.session.moving import SOCKET_URL, STREAM_URL, delay_ms, invitation
from dualcast.session.session import Session
from dualcast.transport.asgi import respond_sse
from dualcast.transport.encodings import NATIVE_SSE
from dualcast.transport.sse import HEADERS, SseSession

from .authentication import AUTHENTICATES
from .body import header
from .connect import REFUSED, STALE_RETRY_S, Delivery, Scope, admit, is_final, make_session, query
from .problems import MethodNotAllowed, send_problem
from .sunset import Headers, browned_out, deprecation_headers
from .visitors import note_fallback

PATH = STREAM_URL


def stream_route(delivery: Delivery) -> ASGIRouteHandler:
    """The route handler."""

    @asgi(PATH, copy_scope=False, opt={AUTHENTICATES: True}, name="stream")
    async def stream(scope: TypedScope, receive: Receive, send: Send) -> None:
        await serve(cast(Scope, scope), receive, send)

    async def serve(scope: Scope, receive: Receive, send: Send) -> None:
        try:
            if scope["type"] != "http" or scope["method"] != "GET":
                raise MethodNotAllowed("GET")
            request = await admit(delivery, scope, "sse")
            decision = request.decision
            headers = deprecation_headers(decision.deprecation, SOCKET_URL)
            if not decision.sse and not await is_final(delivery, request.principal, "sse"):
                await send_away(scope, send, STALE_RETRY_S)
                return
            if not decision.sse:
                await send_empty(send, headers)  # 204: an `EventSource` stops for good
                return
            if wait_s := browned_out(decision):
                delivery.services.counters.delivery(request.tenant.id, "sse").refused += 1
                await send_away(scope, send, wait_s, headers)
                return
            make: Callable[..., Session] = SseSession
            parts: dict[str, Any] = {"encoding": NATIVE_SSE, "dialect": STREAM}
            if request.view is not None:
                make, parts = request.view.parts("sse")
            session = await make_session(delivery, request, make, **parts)
            if decision.websocket:
                # Not before it is let in: whoever is sent away comes back with the same URL.
                note_fallback(delivery.node, scope, request.principal, query(scope))
            decision = request.decision  # the tenant may have been changed meanwhile
            if decision.deprecation is not None:
                session.introduction += NATIVE_SSE.wrap(
                    invitation(session, decision, delay_ms(session)) or b""
                )
        except DualcastError as error:
            delivery.services.counters.delivery(REFUSED, "sse").refused += 1
            if error.retryable:
                jitter_s = random.uniform(0, delivery.node.settings.retry_max_ms / 1000)  # noqa: S311
                await send_away(scope, send, (error.retry_after_s or 2) + jitter_s)
            else:
                await send_problem(send, error)
            return
        await respond_sse(scope, receive, send, session, [*HEADERS, *headers])

    return stream


async def send_away(scope: Scope, send: Send, wait_s: float, headers: Headers | None = None) -> None:
    """Answers 200, `retry:` and the end of the stream: an `EventSource` comes back after `wait_s`, with the
    id it came with."""
    head = [*HEADERS, *(headers or ())]
    await send({"type": "http.response.start", "status": 200, "headers": head})
    body = b"retry: %d\n%b\n" % (int(wait_s * 1000), _same_id(header(scope, b"last-event-id")))
    await send({"type": "http.response.body", "body": body, "more_body": False})


def _same_id(text: str) -> bytes:
    """The `id` line that keeps a client's last id; none where it has none of ours. A blank line sets it to
    that of the stream, which begins with an empty one (WHATWG HTML, 9.2.6)."""
    try:
        return b"id: %b\n" % str(parse_cursor(text)).encode()
    except BadCursor:
        return b""


async def send_empty(send: Send, headers: Headers | None = None) -> None:
    """Answers 204."""
    await send({"type": "http.response.start", "status": 204, "headers": headers or []})
    await send({"type": "http.response.body", "body": b"", "more_body": False})
