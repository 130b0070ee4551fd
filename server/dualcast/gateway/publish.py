"""`POST /v1/notifications`, `POST /v1/notifications/batch`, `POST /v1/publish`: the hot path of REST.

Plain ASGI handlers behind Litestar's router: the framework's request and response objects cost more than the
publish itself. The same requests are described to OpenAPI in `openapi`.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any, cast

import msgspec
from litestar.handlers import asgi
from litestar.handlers.asgi_handlers import ASGIRouteHandler
from litestar.types import Receive, Send
from litestar.types import Scope as TypedScope
from msgspec import Struct

from dualcast.model.codes import Close
from dualcast.model.errors import DualcastError
from dualcast.model.publication import Receipt
from dualcast.publishing.payload import decode
from dualcast.publishing.requests import NotificationRequest, PublishRequest
from dualcast.publishing.service import authorise

from .authentication import AUTHENTICATES, authenticate
from .batch import Item, Lines, common_failure, decode_array, result_of
from .body import JSON, NDJSON, ClientGone, Scope, header, media_type, read_body, refuse_encoding, send_json
from .problems import MethodNotAllowed, log, send_problem
from .services import Services


class Accepted(Struct, frozen=True):
    """What a publisher gets back: 201, or 200 when the id or idempotency key was known."""

    id: str
    cursor: str
    """Position in the tenant's log; "" for ephemeral publications."""
    duplicate: bool = False


_encode = msgspec.json.Encoder().encode
_notification = msgspec.json.Decoder(NotificationRequest)
_publish = msgspec.json.Decoder(PublishRequest)


def publish_routes(services: Services) -> list[ASGIRouteHandler]:
    """The three handlers."""

    @asgi("/v1/notifications", copy_scope=False, opt={AUTHENTICATES: True}, name="notify")
    async def notify(scope: TypedScope, receive: Receive, send: Send) -> None:
        await _single(services, _notification, cast(Scope, scope), receive, send)

    @asgi("/v1/publish", copy_scope=False, opt={AUTHENTICATES: True}, name="publish")
    async def publish(scope: TypedScope, receive: Receive, send: Send) -> None:
        await _single(services, _publish, cast(Scope, scope), receive, send)

    @asgi("/v1/notifications/batch", copy_scope=False, opt={AUTHENTICATES: True}, name="notify-batch")
    async def batch(scope: TypedScope, receive: Receive, send: Send) -> None:
        await _batch(services, cast(Scope, scope), receive, send)

    return [notify, publish, batch]


async def _single(
    services: Services,
    decoder: msgspec.json.Decoder[Any],
    scope: Scope,
    receive: Receive,
    send: Send,
) -> None:
    try:
        if await _options(scope, send):
            return
        settings = services.settings
        principal = await authenticate(services, scope)
        authorise(principal)
        media_type(scope, (JSON,))
        body = await read_body(
            scope, receive, limit=settings.max_body_bytes, deadline_s=settings.body_deadline_s
        )
        key = header(scope, b"idempotency-key")
        receipt = await services.publisher.publish(principal, decode(body, decoder), idempotency_key=key)
        await send_json(send, 200 if receipt.duplicate else 201, accepted(receipt))
    except DualcastError as error:
        await send_problem(send, error)
    except ClientGone:
        return
    except Exception as error:  # noqa: BLE001  (room edge: called around Litestar, whose handler would do the same)
        log.error("request_failed", method="POST", route=scope["path"], exc_info=error)
        await send_problem(send, error)


async def _batch(services: Services, scope: Scope, receive: Receive, send: Send) -> None:
    try:
        if await _options(scope, send):
            return
        settings = services.settings
        principal = await authenticate(services, scope)
        authorise(principal)
        kind = media_type(scope, (JSON, NDJSON))
        body = await read_body(
            scope, receive, limit=settings.max_batch_bytes, deadline_s=settings.body_deadline_s
        )
        publisher = services.publisher
        read = partial(
            Lines if kind == NDJSON else decode_array,
            body,
            max_items=settings.max_batch_items,
            max_item_bytes=settings.max_body_bytes,
        )
        items: Sequence[Item]
        # An array is decoded at once, which takes as long as a slice; lines are decoded slice by slice.
        items = read() if kind == NDJSON else await publisher.in_turn(principal, len(body), read)
        results = await publisher.publish_many(principal, items, size=len(body))
        failure = common_failure(results)
        if failure is not None:
            await send_problem(send, failure)
            return
        await send_json(send, 200, _encode(result_of(results)))
    except DualcastError as error:
        await send_problem(send, error)
    except ClientGone:
        return
    except Exception as error:  # noqa: BLE001  (room edge: called around Litestar, whose handler would do the same)
        log.error("request_failed", method="POST", route=scope["path"], exc_info=error)
        await send_problem(send, error)


def accepted(receipt: Receipt) -> bytes:
    """The JSON of `Accepted` for a receipt."""
    return _encode(Accepted(receipt.id, receipt.cursor, receipt.duplicate))


async def _options(scope: Scope, send: Send) -> bool:
    """Answers OPTIONS and WebSocket handshakes (True); raises MethodNotAllowed for anything but POST and
    what never reaches ASGI compressed.
    """
    if scope["type"] != "http":
        await send({"type": "websocket.close", "code": Close.BAD_REQUEST, "reason": ""})
        return True
    method = scope["method"]
    if method == "POST":
        refuse_encoding(scope)
        return False
    if method != "OPTIONS":
        raise MethodNotAllowed("POST, OPTIONS")
    await send({"type": "http.response.start", "status": 204, "headers": [(b"allow", b"POST, OPTIONS")]})
    await send({"type": "http.response.body", "body": b"", "more_body": False})
    return True
