"""The OpenAPI document: Litestar's own, from the REST handlers, plus typed descriptions of the plain ASGI
ones.

The described application is never served: its handlers stand in for the raw ones, with the very structs
these decode and encode.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from typing import Annotated, Any

import msgspec
from litestar import Litestar, get, post
from litestar.di import Provide
from litestar.openapi import OpenAPIConfig
from litestar.openapi.datastructures import ResponseSpec
from litestar.openapi.plugins import JsonRenderPlugin
from litestar.params import JSONBody, QueryParameter
from msgspec import Struct, defstruct

from dualcast.publishing.requests import NotificationRequest, PublishRequest

from .authentication import provide_caller, provide_services
from .batch import BatchResult
from .body import NDJSON
from .problems import MEDIA_TYPE as PROBLEM
from .problems import Problem
from .publish import Accepted

_PUBLIC = ("/healthz", "/readyz", "/metrics")
_COMPONENTS = "#/components/schemas/"


def _described(kind: type[Struct]) -> Any:
    """`kind` with its Raw field as any JSON value: Litestar's schema generator does not know
    `msgspec.Raw`.
    """
    fields = []
    for found in msgspec.structs.fields(kind):
        hint = Any if found.name == "data" else found.type
        fields.append((found.name, hint) if found.required else (found.name, hint, None))
    made = defstruct(kind.__name__, fields, kw_only=True, forbid_unknown_fields=True)
    made.__doc__ = kind.__doc__
    return made


def _body(kind: Any) -> Any:
    body: Any = JSONBody
    return body[kind]


def _stand_ins() -> list[Any]:
    notification: Any = _described(NotificationRequest)
    publication: Any = _described(PublishRequest)

    async def notify(data: Any) -> Accepted:
        raise NotImplementedError

    async def batch(data: Any) -> BatchResult:
        raise NotImplementedError

    async def publish(data: Any) -> Accepted:
        raise NotImplementedError

    async def stream(
        channels: Annotated[str, QueryParameter(description="Comma-separated channel names")] = "",
        channel: Annotated[str, QueryParameter(description="One channel name; may be repeated")] = "",
        cursor: Annotated[str, QueryParameter(description="Start after this; Last-Event-ID wins")] = "",
        instance: Annotated[str, QueryParameter(description="Names one page over its connections")] = "",
        device: Annotated[str, QueryParameter(description="mobile, desktop, tablet or web")] = "",
        device_id: Annotated[str, QueryParameter(description="A device of the user's registry")] = "",
        ticket: Annotated[str, QueryParameter(description="Of `POST /v1/tickets`")] = "",
        token: Annotated[str, QueryParameter(description="A token; a ticket is better")] = "",
    ) -> str:
        raise NotImplementedError

    notify.__annotations__["data"] = _body(notification)
    batch.__annotations__["data"] = _body(list[notification])
    publish.__annotations__["data"] = _body(publication)
    tags = ["publishing"]
    again = {200: ResponseSpec(Accepted, description="It was accepted before")}
    return [
        post(
            "/v1/notifications",
            responses=again,
            summary="Notify people",
            tags=tags,
            operation_id="Notify",
        )(notify),
        post(
            "/v1/notifications/batch",
            status_code=200,
            summary="Notify in a batch, a result per item",
            tags=tags,
            operation_id="NotifyBatch",
        )(batch),
        post(
            "/v1/publish",
            responses=again,
            summary="Publish to channels",
            tags=tags,
            operation_id="Publish",
        )(publish),
        get(
            "/v1/stream",
            media_type="text/event-stream",
            summary="Event stream (events: see /asyncapi.yaml)",
            tags=["connections"],
            operation_id="Stream",
        )(stream),
    ]


def describe(handlers: Sequence[Any], version: str) -> dict[str, Any]:
    """The document as plain values for the stand-ins and `handlers`."""
    app = Litestar(
        route_handlers=[*_stand_ins(), *handlers],
        dependencies={
            "services": Provide(provide_services, sync_to_thread=False),
            "caller": Provide(provide_caller, sync_to_thread=False),
        },
        openapi_config=OpenAPIConfig(
            title="dualcast",
            version=version,
            description="Notifications to EventSource and WebSocket clients over one event bus.",
            use_handler_docstrings=True,
            render_plugins=[JsonRenderPlugin()],
        ),
        logging_config=None,
    )
    document: dict[str, Any] = msgspec.to_builtins(app.openapi_schema.to_schema())
    _, problems = msgspec.json.schema_components((Problem,), ref_template=_COMPONENTS + "{name}")
    components = document.setdefault("components", {})
    components.setdefault("schemas", {}).update(problems)
    components["securitySchemes"] = {"bearer": {"type": "http", "scheme": "bearer", "bearerFormat": "JWT"}}
    document["security"] = [{"bearer": []}]
    refusal = {
        "description": "A problem (RFC 9457); the codes are listed at /docs/errors",
        "content": {PROBLEM: {"schema": {"$ref": _COMPONENTS + "Problem"}}},
    }
    for path, methods in document["paths"].items():
        for operation in methods.values():
            if not isinstance(operation, dict):
                continue
            operation["responses"].pop("400", None)
            operation["responses"]["default"] = refusal
            if path in _PUBLIC:
                operation["security"] = []
    content = document["paths"]["/v1/notifications/batch"]["post"]["requestBody"]["content"]
    content[NDJSON] = {"schema": {"type": "string", "description": "One notification request per line"}}
    return document


@cache
def _cached(handlers: tuple[Any, ...], version: str) -> dict[str, Any]:
    return describe(handlers, version)


def cached_document(handlers: Sequence[Any], version: str) -> dict[str, Any]:
    """`describe`, once per process: it takes some milliseconds."""
    return _cached(tuple(handlers), version)
