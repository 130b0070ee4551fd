"""Follows a server's channels over SSE or WebSocket: one attempt. `tail` reconnects."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from typing import Any
from urllib.parse import quote

import httpx
import msgspec
from msgspec import Struct
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed, InvalidHandshake, InvalidStatus

from dualcast.model.codes import Close, action

from .console import CommandFailed
from .remote import DISTRUSTED, Remote, distrusted, refusal

SILENCE_S = 45.0
"""Longer than any heartbeat interval: nothing at all for this long means the connection is dead."""
CONNECT_S = 10.0
MAX_LINE_BYTES = 1 << 20


class Event(Struct, frozen=True):
    """A publication (`name`: its event type) or a signal. `cursor` "": it does not move."""

    name: str
    body: dict[str, Any]
    cursor: str = ""
    publication: bool = False


class Dropped(Exception):
    """The connection ended; coming back with the cursor is right. `retry_ms`: the server's wish."""

    def __init__(self, reason: str, retry_ms: int | None = None) -> None:
        super().__init__(reason)
        self.reason = reason
        self.retry_ms = retry_ms


def parse_block(lines: Sequence[str]) -> tuple[dict[str, str], int | None]:
    """The fields `id`, `event`, `data` of one SSE block, and its `retry` (WHATWG HTML, 9.2.6)."""
    fields: dict[str, str] = {}
    retry_ms = None
    for line in lines:
        name, _, value = line.partition(":")
        value = value.removeprefix(" ")
        if name == "data" and "data" in fields:
            fields["data"] += "\n" + value
        elif name in ("data", "event", "id"):
            fields[name] = value
        elif name == "retry" and value.isascii() and value.isdigit():
            retry_ms = int(value)
    return fields, retry_ms


async def follow_sse(there: Remote, channels: Sequence[str], cursor: str) -> AsyncIterator[Event]:
    """One SSE connection, from `cursor` on where given.

    Raises Dropped at its end, CommandFailed where retrying cannot help.
    """
    headers = there.headers | {"Accept": "text/event-stream"} | ({"Last-Event-ID": cursor} if cursor else {})
    timeout = httpx.Timeout(CONNECT_S, read=SILENCE_S)
    retry_ms: int | None = None
    try:
        async with (
            httpx.AsyncClient(timeout=timeout) as client,
            client.stream("GET", there.url + "/v1/stream" + _query(channels), headers=headers) as response,
        ):
            if response.status_code != 200:
                await response.aread()
                _refused(response)
            async for fields, wish in _blocks(response):
                retry_ms = retry_ms if wish is None else wish
                if "data" in fields:
                    event = _stream_event(fields)
                    if not event.publication and "retry_ms" in event.body:
                        retry_ms = int(event.body["retry_ms"])
                    yield event
                elif fields.get("id"):
                    yield Event(name="", body={}, cursor=fields["id"])
    except httpx.HTTPError as error:
        raise Dropped(_words(error), retry_ms) from None
    raise Dropped("the server ended the stream", retry_ms)


async def _blocks(response: httpx.Response) -> AsyncIterator[tuple[dict[str, str], int | None]]:
    """SSE blocks as (fields, retry)."""
    lines: list[str] = []
    rest = ""
    async for text in response.aiter_text():
        *whole, rest = (rest + text).replace("\r\n", "\n").split("\n")
        if len(rest) > MAX_LINE_BYTES:
            raise CommandFailed("the server sends a line that is too long")
        for line in whole:
            if line:
                lines.append(line)
            elif lines:
                yield parse_block(lines)
                lines = []


def _stream_event(fields: dict[str, str]) -> Event:
    body = _object(fields["data"])
    publication = "channel" in body and "id" in body and "data" in body
    return Event(fields.get("event", "message"), body, fields.get("id", ""), publication)


async def follow_ws(there: Remote, channels: Sequence[str], cursor: str) -> AsyncIterator[Event]:
    """The same over one WebSocket."""
    url = there.socket_url + "/v1/socket" + _query(channels, cursor)
    retry_ms: int | None = None
    try:
        async with connect(
            url,
            additional_headers=there.headers,
            open_timeout=CONNECT_S,
            ping_interval=SILENCE_S,
            compression=None,
        ) as socket:
            async for text in socket:
                event = _socket_event(text)
                if event.name == "bye":
                    retry_ms = event.body.get("retry_ms")
                yield event
        code, reason = socket.close_code, socket.close_reason or ""
    except InvalidStatus as error:
        response = error.response
        _refused(httpx.Response(response.status_code, content=bytes(response.body or b"")))
    except ConnectionClosed as error:
        frame = error.rcvd
        code, reason = (frame.code, frame.reason) if frame else (1006, "connection lost")
    except (OSError, InvalidHandshake, TimeoutError) as error:
        raise Dropped(_words(error), retry_ms) from None
    if code is not None and action(code) == "stop":
        hint = " (this tenant's stage has no WebSocket: leave --ws out)" if code == Close.STAGE else ""
        raise CommandFailed(f"the server closed the connection for good: {code} {reason}{hint}")
    raise Dropped(f"closed: {code} {reason}".rstrip(), retry_ms)


def _socket_event(text: str | bytes) -> Event:
    body = _object(text)
    kind = str(body.pop("type", ""))
    if kind == "publication":
        return Event(str(body.get("event", "")), body, str(body.pop("cursor", "") or ""), publication=True)
    return Event(kind, body, str(body.get("cursor") or ""))


def _query(channels: Sequence[str], cursor: str = "") -> str:
    """The query with its `?`. One `channel` each, so that an id may hold a comma."""
    parts = ["channel=" + quote(name, safe=":") for name in channels]
    parts += ["cursor=" + quote(cursor)] if cursor else []
    return "?" + "&".join(parts) if parts else ""


def _object(text: str | bytes) -> dict[str, Any]:
    try:
        return msgspec.json.decode(text, type=dict[str, Any])
    except (msgspec.DecodeError, UnicodeDecodeError):
        raise CommandFailed(
            "the server sends something that is no event: is this a dualcast server?"
        ) from None


def _refused(response: httpx.Response) -> None:
    """Raises Dropped for what may pass, CommandFailed for what will not."""
    if response.status_code >= 500 or response.status_code == 429:
        wait = response.headers.get("Retry-After", "")
        raise Dropped(refusal(response), int(wait) * 1000 if wait.isdigit() else None)
    raise CommandFailed(f"the server refused it: {refusal(response)}")


def _words(error: Exception) -> str:
    if isinstance(error, httpx.ReadTimeout):
        return f"nothing heard for {SILENCE_S:.0f} s"
    if distrusted(error):
        return DISTRUSTED
    if isinstance(error, httpx.ConnectError | OSError):
        return "cannot reach the server"
    return f"the connection broke ({type(error).__name__})"
