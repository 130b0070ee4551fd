"""A small load: many connections of one process, paced publishing, latencies. What `dualcast bench` runs.

It measures client and server together, on one machine mostly the client; `make bench` measures servers apart.
"""

from __future__ import annotations

import asyncio
import base64
import os
import re
import ssl
import time
from collections.abc import Sequence
from urllib.parse import quote, urlsplit

import httpx
import msgspec
from msgspec import Struct

from .console import CommandFailed
from .remote import refusal

_SENT = re.compile(rb'"sent_ns":(\d+)\}')
_TAIL_BYTES = 64
IN_FLIGHT = 64
GRACE_S = 3.0
HANDSHAKES_AT_ONCE = 50


class Result(Struct, frozen=True):
    """What came of it. Latencies: from before the publish request to the read at the client."""

    connections: int
    connect_s: float
    published: int
    expected: int
    delivered: int
    elapsed_s: float
    latencies_ms: list[float]

    @property
    def lost(self) -> int:
        return self.expected - self.delivered

    def quantile(self, part: float) -> float:
        """The latency below which `part` of the deliveries lie; 0 without deliveries."""
        values = self.latencies_ms
        return values[min(len(values) - 1, int(len(values) * part))] if values else 0.0


class Listener(asyncio.Protocol):
    """One client: sends its request, counts the marks in what arrives."""

    def __init__(self, request: bytes, status: bytes, arrivals: list[int]) -> None:
        self.ready: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.transport: asyncio.Transport | None = None
        self._request, self._status, self._arrivals = request, status, arrivals
        self._rest = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport
        transport.write(self._request)

    def data_received(self, data: bytes) -> None:
        data = self._rest + data
        if not self.ready.done():
            head, found, data = data.partition(b"\r\n\r\n")
            if not found:
                self._rest = head
                return
            if head.split(b" ", 2)[1:2] != [self._status]:
                line = head.partition(b"\r\n")[0].decode("ascii", "replace")
                self.ready.set_exception(CommandFailed(f"the server refused a connection: {line}"))
                return
            self.ready.set_result(None)
        now = time.perf_counter_ns()
        end = 0
        for match in _SENT.finditer(data):
            self._arrivals.append(now - int(match[1]))
            end = match.end()
        self._rest = data[max(end, len(data) - _TAIL_BYTES) :]

    def connection_lost(self, exc: Exception | None) -> None:
        if not self.ready.done():
            self.ready.set_exception(CommandFailed("the server closed a connection during the handshake"))


async def measure(
    url: str, tokens: Sequence[str], publisher: str, *, ws: bool, rate_per_s: int, seconds: int, size: int
) -> Result:
    """Opens one connection per token, publishes to all of them, closes. Raises CommandFailed."""
    channel = f"topic:bench-{os.urandom(6).hex()}"
    arrivals: list[int] = []
    started = time.perf_counter()
    listeners = await _connect(url, tokens, channel, arrivals, ws=ws)
    connect_s = time.perf_counter() - started
    try:
        started = time.perf_counter()
        published = await _publish(url, publisher, channel, rate_per_s=rate_per_s, seconds=seconds, size=size)
        expected = published * len(tokens)
        deadline = time.perf_counter() + GRACE_S
        while len(arrivals) < expected and time.perf_counter() < deadline:
            await asyncio.sleep(0.02)
        elapsed = time.perf_counter() - started
    finally:
        for listener in listeners:
            if listener.transport is not None:
                listener.transport.abort()
    latencies = sorted(nanos / 1e6 for nanos in arrivals)
    return Result(len(tokens), connect_s, published, expected, len(arrivals), elapsed, latencies)


async def _connect(
    url: str, tokens: Sequence[str], channel: str, arrivals: list[int], *, ws: bool
) -> list[Listener]:
    parts = urlsplit(url)
    secure = parts.scheme == "https"
    context = ssl.create_default_context() if secure else None
    port = parts.port or (443 if secure else 80)
    path, extra, status = "/v1/stream", "Accept: text/event-stream\r\n", b"200"
    if ws:
        key = base64.b64encode(os.urandom(16)).decode()
        path, status = "/v1/socket", b"101"
        extra = (
            "Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n"
            f"Sec-WebSocket-Key: {key}\r\n"
        )
    loop = asyncio.get_running_loop()
    gate = asyncio.Semaphore(HANDSHAKES_AT_ONCE)
    listeners: list[Listener] = []

    async def one(token: str) -> None:
        request = (
            f"GET {path}?channels={quote(channel)} HTTP/1.1\r\nHost: {parts.netloc}\r\n{extra}"
            f"Authorization: Bearer {token}\r\n\r\n"
        ).encode("ascii")
        async with gate:
            listener = Listener(request, status, arrivals)
            listeners.append(listener)
            await loop.create_connection(lambda: listener, parts.hostname or "", port, ssl=context)
            async with asyncio.timeout(10):
                await listener.ready

    try:
        async with asyncio.TaskGroup() as group:
            for token in tokens:
                group.create_task(one(token))
    except ExceptionGroup as errors:
        for listener in listeners:
            if listener.transport is not None:
                listener.transport.abort()
            if listener.ready.done() and not listener.ready.cancelled():
                listener.ready.exception()
        first = errors.exceptions[0]
        if isinstance(first, CommandFailed):
            raise first from None
        raise CommandFailed(f"cannot connect to {url} ({type(first).__name__})") from None
    return listeners


async def _publish(url: str, token: str, channel: str, *, rate_per_s: int, seconds: int, size: int) -> int:
    """Publishes at a steady pace; how many were acknowledged. Raises CommandFailed at the first refusal."""
    gate = asyncio.Semaphore(IN_FLIGHT)
    pad = "x" * size
    async with httpx.AsyncClient(headers={"Authorization": f"Bearer {token}"}, timeout=10.0) as client:

        async def one() -> None:
            async with gate:
                data = {"pad": pad, "sent_ns": time.perf_counter_ns()}
                body = msgspec.json.encode({"channel": channel, "type": "bench", "data": data})
                response = await client.post(
                    url + "/v1/publish", content=body, headers={"Content-Type": "application/json"}
                )
            if not response.is_success:
                raise CommandFailed(f"the server refused a publication: {refusal(response)}")

        count = rate_per_s * seconds
        start = time.perf_counter()
        try:
            async with asyncio.TaskGroup() as group:
                for number in range(count):
                    await asyncio.sleep(max(0.0, start + number / rate_per_s - time.perf_counter()))
                    group.create_task(one())
        except ExceptionGroup as errors:
            first = errors.exceptions[0]
            if isinstance(first, CommandFailed):
                raise first from None
            raise CommandFailed(f"publishing broke off ({type(first).__name__})") from None
    return count
