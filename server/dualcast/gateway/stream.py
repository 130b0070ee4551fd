"""`GET /v1/stream`: the native SSE endpoint (docs/protocol.md).

Any status but 200 ends an `EventSource` for good. So: no valid token 401, a channel that may not be read 403,
a malformed channel 422 (coming back cannot help); over a limit, draining, or the bus cannot be asked: 200,
`retry:` and the end of the stream (come back).
"""

from __future__ import annotations

import random

from litestar import get
from litestar.enums import MediaType
from litestar.response.base import ASGIResponse
from litestar.types import Receive, Scope, Send

from dualcast.dialects.native_signals import STREAM
from dualcast.model.errors import DualcastError
from dualcast.session.session import Session
from dualcast.transport.asgi import respond_sse
from dualcast.transport.encodings import NATIVE_SSE
from dualcast.transport.sse import HEADERS, SseSession

from .authentication import AUTHENTICATES
from .connect import Delivery, admit, make_session

REFUSED = "_refused"
"""Tenant label of refused handshakes: who called is not known for sure."""


class StreamResponse(ASGIResponse):
    """Starts the response and hands the socket to the session."""

    __slots__ = ("session",)
    _should_set_content_length = False

    def __init__(self, session: Session) -> None:
        super().__init__(media_type=MediaType.TEXT)
        self.session = session

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await respond_sse(scope, receive, send, self.session, list(HEADERS))


class ComeBack(ASGIResponse):
    """200, `retry:`, end."""

    __slots__ = ("retry_ms",)
    _should_set_content_length = False

    def __init__(self, retry_ms: int) -> None:
        super().__init__(media_type=MediaType.TEXT)
        self.retry_ms = retry_ms

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": list(HEADERS)})
        await send(
            {"type": "http.response.body", "body": b"retry: %d\n\n" % self.retry_ms, "more_body": False}
        )


class Ended(ASGIResponse):
    """204: an `EventSource` stops for good."""

    _should_set_content_length = False

    def __init__(self) -> None:
        super().__init__(media_type=MediaType.TEXT, status_code=204)


def stream_route(delivery: Delivery) -> object:
    """The route handler."""

    @get("/v1/stream", opt={AUTHENTICATES: True}, name="stream", media_type="text/event-stream")
    async def stream(scope: Scope) -> ASGIResponse:
        node = delivery.node
        try:
            request = await admit(delivery, scope, "sse")  # type: ignore[arg-type]
            if not request.decision.sse:
                return Ended()
            session = await make_session(delivery, request, SseSession, encoding=NATIVE_SSE, dialect=STREAM)
        except DualcastError as error:
            delivery.services.counters.delivery(REFUSED, "sse").refused += 1
            if not error.retryable:
                raise
            wait_ms = int((error.retry_after_s or 2) * 1000)
            return ComeBack(wait_ms + random.randint(0, node.settings.retry_max_ms))  # noqa: S311 — jitter
        return StreamResponse(session)

    return stream
