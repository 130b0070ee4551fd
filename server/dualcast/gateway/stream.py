"""`GET /v1/stream`: the native SSE endpoint (docs/protocol.md).

Any status but 200 ends an `EventSource` for good. So: no valid token 401, a channel that may not be read 403,
a malformed channel 422 (coming back cannot help); over a limit, draining, or the bus cannot be asked: 200,
`retry:` and the end of the stream (come back).
"""

from __future__ import annotations

import random
from typing import cast

from litestar.handlers import asgi
from litestar.handlers.asgi_handlers import ASGIRouteHandler
from litestar.types import Receive, Send
from litestar.types import Scope as TypedScope

from dualcast.dialects.native_signals import STREAM
from dualcast.model.errors import DualcastError
from dualcast.transport.asgi import respond_sse
from dualcast.transport.encodings import NATIVE_SSE
from dualcast.transport.sse import HEADERS, SseSession

from .authentication import AUTHENTICATES
from .connect import REFUSED, Delivery, Scope, admit, make_session
from .problems import MethodNotAllowed, send_problem

PATH = "/v1/stream"


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
            if not request.decision.sse:
                await _empty(send)  # 204: an `EventSource` stops for good
                return
            session = await make_session(delivery, request, SseSession, encoding=NATIVE_SSE, dialect=STREAM)
        except DualcastError as error:
            delivery.services.counters.delivery(REFUSED, "sse").refused += 1
            if error.retryable:
                await _come_back(delivery, send, error)
            else:
                await send_problem(send, error)
            return
        await respond_sse(scope, receive, send, session, list(HEADERS))

    return stream


async def _come_back(delivery: Delivery, send: Send, error: DualcastError) -> None:
    """200, `retry:`, end."""
    wait_ms = int((error.retry_after_s or 2) * 1000)
    wait_ms += random.randint(0, delivery.node.settings.retry_max_ms)  # noqa: S311 — jitter
    await send({"type": "http.response.start", "status": 200, "headers": list(HEADERS)})
    await send({"type": "http.response.body", "body": b"retry: %d\n\n" % wait_ms, "more_body": False})


async def _empty(send: Send) -> None:
    await send({"type": "http.response.start", "status": 204, "headers": []})
    await send({"type": "http.response.body", "body": b"", "more_body": False})
