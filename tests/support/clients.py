"""Clients of the native protocol for tests. Both transports give the same `Got`, so one test body runs over
either.

The SSE client takes the bytes off the socket itself and reads them as WHATWG HTML (server-sent events) says;
the WebSocket client stands on the `websockets` library.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any, Self
from urllib.parse import quote

from websockets.asyncio.client import ClientConnection
from websockets.asyncio.client import connect as websocket_connect
from websockets.exceptions import ConnectionClosed

from support.raw_http import Wire, connect

PATIENCE_S = 15.0
TRANSPORTS = ("sse", "ws")


class Ended(Exception):
    """The server ended the connection. `code`: WebSocket close code, None on SSE."""

    def __init__(self, code: int | None, reason: str = "") -> None:
        super().__init__(f"ended: {code} {reason}")
        self.code = code
        self.reason = reason


@dataclass(frozen=True)
class Got:
    """One thing a client was told."""

    kind: str
    """`publication`, or the name of a signal."""
    body: dict[str, Any]
    cursor: str | None = None
    """Where the client would resume from after it."""
    retry_ms: int | None = None

    @property
    def data(self) -> Any:
        """Data of a publication."""
        return self.body["data"]


@dataclass
class SseParser:
    """WHATWG HTML section 9.2.6, byte for byte: CR, LF and CRLF end lines; `id` with NUL is ignored."""

    last_event_id: str = ""
    retry_ms: int | None = None
    comments: int = 0
    positions: int = 0
    """Blocks that moved the id and fired no event."""
    _rest: bytes = b""
    _data: list[str] = field(default_factory=list)
    _event: str = ""
    _id: str | None = None
    _block_retry: int | None = None

    def feed(self, data: bytes) -> list[tuple[str, str, str, int | None]]:
        """(event, data, last event id, retry in this block) of every event completed by `data`."""
        self._rest += data
        found = []
        while (end := min((i for i in map(self._rest.find, (b"\r", b"\n")) if i >= 0), default=-1)) >= 0:
            if self._rest[end : end + 1] == b"\r" and end + 1 == len(self._rest):
                break  # a LF may follow
            line = self._rest[:end].decode("utf-8")
            self._rest = self._rest[end + (2 if self._rest[end : end + 2] == b"\r\n" else 1) :]
            if (event := self._line(line)) is not None:
                found.append(event)
        return found

    def _line(self, line: str) -> tuple[str, str, str, int | None] | None:
        if not line:
            return self._dispatch()
        name, _, value = line.partition(":")
        value = value.removeprefix(" ")
        if not name:
            self.comments += 1
        elif name == "event":
            self._event = value
        elif name == "data":
            self._data.append(value)
        elif name == "id" and "\0" not in value:
            self._id = value
        elif name == "retry" and value.isascii() and value.isdigit():
            self.retry_ms = self._block_retry = int(value)
        return None

    def _dispatch(self) -> tuple[str, str, str, int | None] | None:
        data, event, retry = "\n".join(self._data), self._event or "message", self._block_retry
        if self._id is not None:
            self.last_event_id = self._id
            self.positions += not self._data
        had = bool(self._data)
        self._data, self._event, self._id, self._block_retry = [], "", None, None
        return (event, data, self.last_event_id, retry) if had else None


class Client:
    """What both transports share. `cursor` is what a client keeps for its next connect."""

    transport = ""

    def __init__(self) -> None:
        self.cursor: str | None = None
        self.history: list[Got] = []
        """Everything received so far."""

    async def next(self, timeout_s: float = PATIENCE_S) -> Got:
        """The next event or frame; raises Ended, TimeoutError."""
        async with asyncio.timeout(timeout_s):
            got = await self._receive()
        self.history.append(got)
        if got.cursor is not None:
            self.cursor = got.cursor
        return got

    async def _receive(self) -> Got:
        raise NotImplementedError

    async def until(self, kind: str, where: Callable[[Got], bool] = lambda _got: True) -> Got:
        """The next of one kind for which `where` holds; whatever comes before it is kept in `history`."""
        while True:
            got = await self.next()
            if got.kind == kind and where(got):
                return got

    async def welcome(self) -> Got:
        """The first thing, which must be the welcome."""
        got = await self.next()
        assert got.kind == "welcome", got
        return got

    async def publications(self, count: int) -> list[Got]:
        """The next `count`; nothing else may come between."""
        found = [await self.next() for _ in range(count)]
        assert [got.kind for got in found] == ["publication"] * count, found
        return found

    async def end(self) -> Ended:
        """Reads on until the server ends it."""
        while True:
            try:
                await self.next()
            except Ended as ended:
                return ended

    async def close(self) -> None:
        raise NotImplementedError

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()


class SseClient(Client):
    """An open stream."""

    transport = "sse"

    def __init__(self, wire: Wire) -> None:
        super().__init__()
        self.wire = wire
        self.parser = SseParser()
        self._events: list[Got] = []

    @property
    def status(self) -> int:
        assert self.wire.response is not None
        return self.wire.response.status

    @property
    def headers(self) -> dict[str, str]:
        assert self.wire.response is not None
        return self.wire.response.headers

    async def _receive(self) -> Got:
        while not self._events:
            await self.read_some()
        return self._events.pop(0)

    async def read_some(self) -> None:
        """Takes one chunk; raises Ended at the end of the stream, or when there is none."""
        if self.status != 200:
            raise Ended(None, f"status {self.status}")
        try:
            data = await self.wire.chunk()
        except (asyncio.IncompleteReadError, ConnectionError):
            raise Ended(None, "reset") from None
        if not data:
            raise Ended(None)
        for event, text, last_id, retry in self.parser.feed(data):
            body = json.loads(text)
            published = "id" in body and "channel" in body and body.get("event") == event
            kind = "publication" if published else event
            self._events.append(Got(kind, body, last_id or None, retry))

    async def close(self) -> None:
        await self.wire.close()


class WsClient(Client):
    """An open WebSocket."""

    transport = "ws"

    def __init__(self, socket: ClientConnection) -> None:
        super().__init__()
        self.socket = socket
        self._refs = 0

    async def _receive(self) -> Got:
        try:
            text = await self.socket.recv()
        except ConnectionClosed as closed:
            received = closed.rcvd
            raise Ended(received.code if received else 1006, received.reason if received else "") from None
        assert isinstance(text, str), "the native protocol has no binary frames"
        body = json.loads(text)
        return Got(body.pop("type"), body, body.get("cursor"), body.get("retry_ms"))

    async def send(self, kind: str, **fields: Any) -> str:
        """Sends a command; its ref."""
        self._refs += 1
        ref = f"r{self._refs}"
        await self.socket.send(json.dumps({"type": kind, "ref": ref, **fields}))
        return ref

    async def ask(self, kind: str, **fields: Any) -> Got:
        """Sends a command and gives the reply with its ref."""
        ref = await self.send(kind, **fields)
        while True:
            got = await self.next()
            if got.body.get("ref") == ref:
                return got

    async def close(self) -> None:
        with contextlib.suppress(ConnectionClosed, OSError):
            await self.socket.close()


def query(
    channels: Sequence[str] = (), cursor: str | None = None, parameters: Mapping[str, str] | None = None
) -> str:
    """A query string, "" when there is nothing to say."""
    pairs: list[str] = []
    if channels:
        pairs.extend("channel=" + quote(name, safe="") for name in channels)
    if cursor is not None:
        pairs.append("cursor=" + quote(cursor, safe=""))
    pairs += [f"{name}={quote(value, safe='')}" for name, value in (parameters or {}).items()]
    return "?" + "&".join(pairs) if pairs else ""


async def open_stream(
    port: int,
    bearer: str | None = None,
    *,
    channels: Sequence[str] = (),
    cursor: str | None = None,
    last_event_id: str | None = None,
    headers: Mapping[str, str] | None = None,
    **parameters: str,
) -> SseClient:
    """Asks for `/v1/stream`; the status is in the client, a body with a length in `wire.response`.

    `bearer`: token for the Authorization header. `parameters`: further query ones (`token`, `ticket`, …).
    """
    wire = await connect(port)
    lines = ["host: test", "accept: text/event-stream"]
    if bearer is not None:
        lines.append(f"authorization: Bearer {bearer}")
    if last_event_id is not None:
        lines.append(f"last-event-id: {last_event_id}")
    lines += [f"{name}: {value}" for name, value in (headers or {}).items()]
    target = "/v1/stream" + query(channels, cursor, parameters)
    wire.write("\r\n".join([f"GET {target} HTTP/1.1", *lines, "", ""]).encode("latin-1"))
    try:
        response = await wire.read_response(body=False)
        if "content-length" in response.headers:
            body = await wire.exactly(int(response.headers["content-length"]))
            wire.response = response._replace(body=body)
    except BaseException:
        wire.reset()
        raise
    return SseClient(wire)


async def open_socket(
    port: int,
    bearer: str | None = None,
    *,
    channels: Sequence[str] = (),
    cursor: str | None = None,
    headers: Mapping[str, str] | None = None,
    subprotocols: Sequence[str] = (),
    compression: str | None = None,
    **parameters: str,
) -> WsClient:
    """Opens `/v1/socket`. A refusal comes as `Ended` from the first `next`."""
    given = dict(headers or {})
    if bearer is not None:
        given["Authorization"] = f"Bearer {bearer}"
    socket = await websocket_connect(
        f"ws://127.0.0.1:{port}/v1/socket" + query(channels, cursor, parameters),
        additional_headers=given,
        subprotocols=subprotocols or None,  # type: ignore[arg-type]
        compression=compression,
        ping_interval=None,
        max_queue=None,
        open_timeout=PATIENCE_S,
        close_timeout=1,
        proxy=None,
    )
    return WsClient(socket)


async def open_client(transport: str, port: int, bearer: str | None = None, **how: Any) -> Client:
    """`open_stream` or `open_socket`."""
    if transport == "sse":
        return await open_stream(port, bearer, **how)
    return await open_socket(port, bearer, **how)
