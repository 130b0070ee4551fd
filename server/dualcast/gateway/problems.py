"""Errors as RFC 9457 problem details: the only place (beside `transport`) that knows HTTP status codes of
errors.

Every error answer of the service has media type `application/problem+json` and the members `type`, `title`,
`status`, `detail`, `code` (stable, what programs compare), `retryable`, `errors` for bodies of the wrong
shape, and `channels` where it is about some of those asked for. No answer holds exception text.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from http import HTTPStatus
from typing import Any

import msgspec
import structlog
from litestar import Request, Response
from litestar.exceptions import HTTPException, ValidationException
from litestar.types import Send
from msgspec import Struct

from dualcast.model.errors import DualcastError, NotFound, Unauthorized
from dualcast.publishing.payload import Invalid

log = structlog.get_logger("dualcast.gateway")

MEDIA_TYPE = "application/problem+json"
TYPE_PREFIX = "/docs/errors#"

CODES: dict[str, str] = {
    "address-limit": "Too many connections from one address",
    "admin-only": "The role admin is needed",
    "batch-exists": "The batch belongs to another owner",
    "batch-finished": "The batch has ended",
    "batch-full": "The batch takes no more tasks",
    "bad-channel": "Not a channel name",
    "bad-cursor": "Not a cursor",
    "bad-device": "Not a device kind",
    "bad-id": "Not a valid id",
    "bad-idempotency-key": "Not a valid idempotency key",
    "bad-key": "Not a valid key",
    "bad-origin": "Not an origin",
    "bad-push": "It cannot be pushed to devices",
    "bad-reason": "A change needs a reason",
    "bad-request": "The request is malformed",
    "bad-store": "It cannot be stored in an inbox",
    "bad-target": "Not exactly one kind of target",
    "bad-tenant": "Not a tenant id, or not an acceptable tenant",
    "no-old-channels": "Only the legacy tenant has channels on old servers",
    "bad-ttl": "Not a valid life time",
    "bad-type": "Not a valid type name",
    "bad-utf8": "The body is not UTF-8",
    "bad-report": "The parity report is not usable",
    "bad-version": "Not a version",
    "bus-unavailable": "The event bus cannot be reached",
    "connection-limit": "The server or the tenant has as many connections as it may",
    "data-too-large": "The data is too large",
    "draining": "This node is going down",
    "forbidden": "Not allowed",
    "foreign-batch": "The task's batch belongs to another owner",
    "forbidden-channel": "The channel is not yours",
    "guard-hold": "The guard stepped back and holds the tenant",
    "idempotency-conflict": "The idempotency key or id was used with another body",
    "illegal-stage-move": "The stage cannot be reached in one move",
    "internal": "Something went wrong in the server",
    "invalid-body": "The body does not have the expected shape",
    "invalid-query": "A query or path parameter is not valid",
    "keys-unavailable": "The keys of the tenant cannot be fetched",
    "length-mismatch": "The body is not as long as announced",
    "limit-exceeded": "A limit was exceeded",
    "malformed-json": "The body is not JSON",
    "method-not-allowed": "The method is not allowed here",
    "not-a-participant": "Only participants may do this",
    "not-found": "There is no such thing",
    "not-ready": "This node is not ready",
    "nothing-to-roll-back": "The stage was never changed",
    "operator-only": "The role operator of the operators' tenant is needed",
    "origin": "Pages of this origin are not allowed",
    "payload-too-large": "The body is too large",
    "provider-unusable": "The push provider cannot work as it is configured",
    "publisher-only": "The role publisher is needed",
    "rate-limited": "Too many requests",
    "request-timeout": "The body did not arrive in time",
    "reserved-type": "The event type belongs to the protocol",
    "sunset-passed": "The sunset has passed already",
    "task-exists": "The task belongs to another owner or batch",
    "task-finished": "The task has ended already",
    "tenant-busy": "Too much of the tenant waits to be published",
    "tenant-exists": "There is such a tenant already",
    "token-expired": "The token has expired",
    "too-deep": "JSON nests too deeply",
    "too-many-channels": "Too many channels",
    "too-many-items": "Too many items in one batch",
    "too-many-members": "Too many granted members",
    "too-many-participants": "Too many participants",
    "too-many-targets": "Too many target channels",
    "too-many-tasks": "Too many tasks and batches",
    "unauthorized": "A valid token is needed",
    "unknown-conversation": "There is no such conversation",
    "unknown-connection": "No such connection is open",
    "unknown-notification": "No such notification is in this inbox",
    "unknown-device": "The user has no such device",
    "unknown-key": "The tenant has no such key",
    "unknown-batch": "There is no such batch",
    "unknown-task": "There is no such task",
    "unknown-tenant": "There is no such tenant",
    "unknown-view": "There is no such view",
    "unsupported-encoding": "Compressed bodies are not accepted",
    "unsupported-media-type": "The media type is not accepted",
    "value-too-big": "The value is too big",
    "upgrade-required": "A WebSocket handshake is expected here",
    "version-conflict": "Somebody else changed it meanwhile",
    "version-needed": "The change does not say which version it is meant for",
}
"""Every stable code and its title. Listed at `/docs/errors`."""

_BY_STATUS = {
    400: "bad-request",
    401: "unauthorized",
    403: "forbidden",
    404: "not-found",
    405: "method-not-allowed",
    413: "payload-too-large",
    415: "unsupported-media-type",
    429: "rate-limited",
    503: "not-ready",
}


class FieldError(Struct, frozen=True):
    """What is wrong where: `path` is a JSON path (`$.title`) or the name of a parameter."""

    path: str
    message: str


class Problem(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """RFC 9457 problem details with our extension members."""

    type: str
    title: str
    status: int
    detail: str
    code: str
    retryable: bool
    errors: tuple[FieldError, ...] = ()
    channels: tuple[str, ...] = ()
    """With `forbidden-channel`: all of those asked for that may not be had."""


class MethodNotAllowed(DualcastError):
    """405; `allow` is the value of the Allow header."""

    code = "method-not-allowed"
    status = 405

    def __init__(self, allow: str) -> None:
        super().__init__(f"allowed here: {allow}")
        self.allow = allow


class UnsupportedMediaType(DualcastError):
    code = "unsupported-media-type"
    status = 415


class NotReady(DualcastError):
    code = "not-ready"
    status = 503
    retryable = True


_encode = msgspec.json.Encoder().encode


def problem_of(error: BaseException, names: Mapping[str, str] | None = None) -> Problem:
    """The problem that tells a client about `error`. Anything unforeseen becomes `internal` without its
    text. `names`: what clients call parameters that our handlers call otherwise.
    """
    if isinstance(error, DualcastError):
        errors = tuple(FieldError(path, text) for path, text in getattr(error, "errors", ()))
        retryable = error.retryable or error.retry_after_s is not None
        return _problem(error.code, error.status, error.reason, retryable, errors, error.channels)
    if isinstance(error, ValidationException):
        return _of_parameters(error, names or {})
    if isinstance(error, HTTPException) and error.status_code < 500:
        code = _BY_STATUS.get(error.status_code, "bad-request")
        return _problem(code, error.status_code, HTTPStatus(error.status_code).phrase, False)
    return _problem("internal", 500, "the server failed to answer; the log of the server has the cause", True)


def headers_of(error: BaseException) -> dict[str, str]:
    """Header fields that belong to the problem of `error`: Retry-After, WWW-Authenticate, Allow."""
    headers: dict[str, str] = {}
    if isinstance(error, DualcastError):
        if error.retry_after_s is not None:
            headers["Retry-After"] = str(max(1, math.ceil(error.retry_after_s)))
        elif error.status == 503:
            headers["Retry-After"] = "1"
        if isinstance(error, Unauthorized):
            # RFC 6750 3: no error code when there were no credentials at all.
            known = ', error="invalid_token"' if error.code != "unauthorized" else ""
            headers["WWW-Authenticate"] = f'Bearer realm="dualcast"{known}'
        if isinstance(error, MethodNotAllowed):
            headers["Allow"] = error.allow
        if error.status in (408, 413, 415):
            # The rest of the body is not read: the connection cannot be used again.
            headers["Connection"] = "close"
    elif isinstance(error, HTTPException):
        headers.update(error.headers or {})
        if error.status_code == 413:
            headers["Connection"] = "close"
    return headers


def body_of(problem: Problem) -> bytes:
    """The JSON of a problem."""
    return _encode(problem)


async def send_problem(send: Send, error: BaseException) -> None:
    """Answers an HTTP request with the problem of `error` over plain ASGI."""
    problem = problem_of(error)
    body = _encode(problem)
    headers = [
        (b"content-type", MEDIA_TYPE.encode()),
        (b"content-length", str(len(body)).encode()),
        (b"cache-control", b"no-store"),
        *((name.lower().encode(), value.encode()) for name, value in headers_of(error).items()),
    ]
    await send({"type": "http.response.start", "status": problem.status, "headers": headers})
    await send({"type": "http.response.body", "body": body, "more_body": False})


def exception_handler(request: Request[Any, Any, Any], error: Exception) -> Response[bytes]:
    """Litestar's handler for every exception that leaves a route, the router included."""
    if isinstance(error, HTTPException) and error.status_code == 405:
        # A parameter that is none (`/v1/push/dead/x`) leaves no method at all.
        allowed = allowed_methods(request)
        error = MethodNotAllowed(", ".join(allowed)) if allowed else NotFound("there is no such thing")
    problem = problem_of(error, _names(request) if isinstance(error, ValidationException) else None)
    if problem.code == "internal":
        log.error("request_failed", method=request.method, route=_route(request), exc_info=error)
    return Response(
        _encode(problem),
        status_code=problem.status,
        media_type=MEDIA_TYPE,
        headers={"Cache-Control": "no-store", **headers_of(error)},
    )


def allowed_methods(request: Request[Any, Any, Any]) -> list[str]:
    """The methods that the path of `request` has a route for."""
    found = []
    for method in ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"):
        try:
            request.app.asgi_router.handle_routing(path=request.scope["path"], method=method)
        except HTTPException:
            continue
        found.append(method)
    return found


def _problem(
    code: str,
    status: int,
    detail: str,
    retryable: bool,
    errors: tuple[FieldError, ...] = (),
    channels: tuple[str, ...] = (),
) -> Problem:
    title = CODES.get(code) or HTTPStatus(status).phrase
    return Problem(
        type=TYPE_PREFIX + code,
        title=title,
        status=status,
        detail=detail,
        code=code,
        retryable=retryable,
        errors=errors,
        channels=channels,
    )


def _names(request: Request[Any, Any, Any]) -> dict[str, str]:
    """Parameters of the handler that have another name in the URL (`state` is a word of Litestar's own)."""
    known = request.route_handler.parsed_fn_signature.parameters
    named = {key: getattr(field.kwarg_definition, "name", None) for key, field in known.items()}
    return {key: name for key, name in named.items() if name}


def _of_parameters(error: ValidationException, names: Mapping[str, str]) -> Problem:
    """Litestar reports parameters and the body alike; the body's paths are written as JSON paths here."""
    extra = (
        [item for item in error.extra if isinstance(item, Mapping)] if isinstance(error.extra, list) else []
    )
    in_body = any(item.get("source") == "body" for item in extra)
    # Litestar calls the body `data`, and a field `data` of it the same; only the cause tells them apart.
    whole = "$.data" if str(error.__cause__).endswith("`$.data.data`") else "$"
    errors = []
    for item in extra:
        key, message = str(item.get("key", ""))[:200], str(item.get("message", ""))[:200]
        if item.get("source") == "body":
            key = whole if key == "data" else "$." + key
            message = "a body is required" if message == "'data'" else message
        errors.append(FieldError(names.get(key, key), message))
    if in_body:
        return _problem(
            "invalid-body", 422, "the body does not have the expected shape", False, tuple(errors)
        )
    return _problem("invalid-query", 422, "a parameter is not valid", False, tuple(errors))


def _route(request: Request[Any, Any, Any]) -> str:
    return str(request.scope.get("path_template", ""))


__all__ = [
    "CODES",
    "MEDIA_TYPE",
    "FieldError",
    "Invalid",
    "MethodNotAllowed",
    "NotReady",
    "Problem",
    "UnsupportedMediaType",
    "allowed_methods",
    "body_of",
    "exception_handler",
    "headers_of",
    "problem_of",
    "send_problem",
]
