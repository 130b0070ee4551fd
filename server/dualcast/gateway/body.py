"""Request bodies over plain ASGI, bounded in bytes and time, and JSON answers."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, MutableMapping
from typing import Any

from litestar.types import Receive, Send

from dualcast.model.errors import BadRequest, DualcastError, LimitExceeded

from .problems import UnsupportedMediaType

JSON = "application/json"
NDJSON = "application/x-ndjson"

Scope = MutableMapping[str, Any]
"""An ASGI scope as the plain mapping it is; Litestar's typed one is cast where it comes in."""


class ClientGone(Exception):
    """The client went away while its body was read; there is nobody to answer."""


class BodyTimeout(DualcastError):
    """The body did not arrive in time."""

    code = "request-timeout"
    status = 408
    retryable = True


def header(scope: Scope, name: bytes) -> str:
    """The value of header `name` (lower case), "" when absent. Latin-1, as ASGI gives it, without the white
    space around it, which is no part of it (RFC 9110 5.5) and which parsers leave at its end."""
    for key, value in scope["headers"]:
        if key == name:
            return str(value, "latin-1").strip(" \t")
    return ""


def media_type(scope: Scope, accepted: Iterable[str]) -> str:
    """The media type of the request, one of `accepted`; raises UnsupportedMediaType.

    A wrong charset is refused as well: bodies are UTF-8 (RFC 8259 8.1).
    """
    value = header(scope, b"content-type")
    kind, _, rest = value.partition(";")
    kind = kind.strip().lower()
    charset = rest.strip().lower().replace('"', "")
    if kind not in accepted or (
        charset.startswith("charset=") and charset not in ("charset=utf-8", "charset=utf8")
    ):
        raise UnsupportedMediaType("the Content-Type must be " + " or ".join(accepted))
    return kind


def refuse_encoding(scope: Scope) -> None:
    """Raises UnsupportedMediaType `unsupported-encoding` for compressed bodies: a small one could unfold
    without bound.
    """
    if header(scope, b"content-encoding").strip().lower() not in ("", "identity"):
        raise UnsupportedMediaType("send the body without Content-Encoding", code="unsupported-encoding")


async def read_body(scope: Scope, receive: Receive, *, limit: int, deadline_s: float) -> bytes:
    """The whole body, at most `limit` bytes, read within `deadline_s`.

    Raises LimitExceeded `payload-too-large` (before anything is read when Content-Length says so),
    BodyTimeout, ClientGone.
    """
    length = header(scope, b"content-length")
    if length and (not length.isdecimal() or int(length) > limit):
        if not length.isdecimal():
            raise BadRequest("the Content-Length is not a number")
        raise _too_large(limit)
    try:
        async with asyncio.timeout(deadline_s):
            message = await receive()
            if message["type"] == "http.request" and not message.get("more_body"):
                body = message.get("body", b"")
                if len(body) > limit:
                    raise _too_large(limit)
                return body
            return await _read_rest(message, receive, limit)
    except TimeoutError:
        raise BodyTimeout(f"the body did not arrive within {deadline_s:g} s") from None


async def _read_rest(message: Any, receive: Receive, limit: int) -> bytes:
    chunks: list[bytes] = []
    size = 0
    while True:
        if message["type"] != "http.request":
            raise ClientGone
        chunk = message.get("body", b"")
        size += len(chunk)
        if size > limit:
            raise _too_large(limit)
        chunks.append(chunk)
        if not message.get("more_body"):
            return b"".join(chunks)
        message = await receive()


async def send_json(send: Send, status: int, body: bytes) -> None:
    """Answers with `body`, JSON that is not to be stored by caches."""
    await send(
        {
            "type": "http.response.start",
            "status": status,
            "headers": [
                (b"content-type", b"application/json"),
                (b"content-length", str(len(body)).encode()),
                (b"cache-control", b"no-store"),
            ],
        }
    )
    await send({"type": "http.response.body", "body": body, "more_body": False})


def _too_large(limit: int) -> LimitExceeded:
    return LimitExceeded(f"the body has more than {limit} bytes", code="payload-too-large")
