"""Open connections of a subscription for asyncio: a WebSocket or an SSE stream, both giving the same frames.

Reading waits no longer than it is told and may be cancelled at any time without losing anything. What the
program does not read stays in the sockets' buffers, so a slow program slows the server down.
"""

from __future__ import annotations

import asyncio
import logging
import ssl
import time
from collections import deque
from collections.abc import AsyncIterator, Mapping
from contextlib import suppress
from typing import Any

import httpx
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, InvalidStatus, WebSocketException

from .common import USER_AGENT
from .events import BadFrame, Frame, Positioned, socket_frame, stream_frame
from .flow import Answer, refusal, retry_after_s
from .line import Ended, GivenUp, Happening, Mute, Refused, Transport, Unreached
from .sse import SseParser, TooBig

MAX_FRAME = 4 * 1024 * 1024
MAX_FRAMES = 16
"""WebSocket frames read before the program wants them."""
MAX_REFUSAL = 65_536
CLOSE_S = 1.0
GRACE_S = 2.0
"""A program that was away reads what waits for it before the line is called silent."""


class Broken(Exception):
    """The connection did not open, or is gone: `why`, for `reconnect.decide`."""

    def __init__(self, why: Happening) -> None:
        super().__init__(type(why).__name__)
        self.why = why


class Received:
    """A frame with the cursor after it, and the delay an SSE block said."""

    __slots__ = ("cursor", "frame", "retry_ms")

    def __init__(self, frame: Frame, cursor: str | None, retry_ms: int | None = None) -> None:
        self.frame = frame
        self.cursor = cursor
        self.retry_ms = retry_ms


class Connection:
    """What both have."""

    transport: Transport

    def __init__(self) -> None:
        self.heard_at = time.monotonic()
        self._suspected = (0.0, 0.0)
        self._patience: asyncio.Timeout | None = None

    async def receive(self, wait_s: float) -> Received | None:
        """The next frame; None: none came in time, or `hurry`. Raises Broken."""
        try:
            async with asyncio.timeout(max(0.0, wait_s)) as self._patience:
                return await self._next()
        except TimeoutError:
            return None
        finally:
            self._patience = None

    def hurry(self) -> None:
        """Whoever waits in `receive` comes back now."""
        if self._patience is not None and not self._patience.expired():
            self._patience.reschedule(asyncio.get_running_loop().time())

    async def _next(self) -> Received:
        raise NotImplementedError

    async def send(self, text: str) -> None:
        """Sends a command; nothing on SSE."""

    async def close(self) -> None:
        """Ends it."""
        raise NotImplementedError

    def silence_s(self, limit_s: float, now: float) -> float:
        """Seconds until it has been silent for too long; 0 or less: it has."""
        left = self.heard_at + limit_s - now
        if left > 0:
            return left
        if self._suspected[0] != self.heard_at:
            self._suspected = (self.heard_at, now)
        return self._suspected[1] + GRACE_S - now


class _Silent(logging.LoggerAdapter[logging.Logger]):
    """websockets writes request headers, and with them the token, at level DEBUG."""

    def isEnabledFor(self, level: int) -> bool:
        return level > logging.DEBUG and super().isEnabledFor(level)


_log = _Silent(logging.getLogger("dualcast_client.websocket"), {})


class _Connect(connect):
    """Follows no redirects, as the other transport: what is said to one server is not for another."""

    def process_redirect(self, exc: Exception) -> Exception | str:
        return exc


class _Heard(ClientConnection):
    """Knows when anything came: the server's pings are answered unseen."""

    heard_at = 0.0

    def data_received(self, data: bytes) -> None:
        self.heard_at = time.monotonic()
        super().data_received(data)


class SocketConnection(Connection):
    """A WebSocket."""

    transport = "websocket"

    def __init__(self, socket: _Heard) -> None:
        super().__init__()
        self._socket = socket
        self._socket.heard_at = self.heard_at

    @classmethod
    async def open(
        cls, url: str, headers: Mapping[str, str], timeout_s: float, tls: ssl.SSLContext | None
    ) -> SocketConnection:
        """Raises Broken."""
        options: dict[str, Any] = {"ssl": tls} if tls is not None else {}
        try:
            socket = await _Connect(
                url,
                additional_headers=headers,
                user_agent_header=USER_AGENT,
                compression=None,
                open_timeout=timeout_s,
                ping_interval=None,
                close_timeout=CLOSE_S,
                max_size=MAX_FRAME,
                max_queue=MAX_FRAMES,
                logger=_log,
                create_connection=_Heard,
                **options,
            )
        except InvalidStatus as error:
            after = retry_after_s(error.response.headers.get("Retry-After", ""))
            raise Broken(Refused(error.response.status_code, after)) from None
        except TimeoutError:
            raise Broken(Mute()) from None
        except OSError as error:
            raise Broken(Unreached(_unreached(error))) from None
        except WebSocketException:
            raise Broken(Refused(0)) from None
        assert isinstance(socket, _Heard)
        return cls(socket)

    async def _next(self) -> Received:
        try:
            text = await self._socket.recv(decode=False)
        except ConnectionClosed as closed:
            if closed.rcvd is None and closed.sent is not None and closed.sent.code == 1009:
                raise Broken(GivenUp("frame-too-big")) from None
            got = closed.rcvd
            raise Broken(Ended(got.code, got.reason) if got else Ended(1006)) from None
        finally:
            self.heard_at = self._socket.heard_at
        try:
            frame = socket_frame(text)
        except BadFrame:
            raise Broken(Ended(1002, "bad-frame")) from None
        return Received(frame, getattr(frame, "cursor", None))

    async def send(self, text: str) -> None:
        with suppress(ConnectionClosed):  # the next receive tells
            await self._socket.send(text)

    async def close(self) -> None:
        try:
            with suppress(TimeoutError, OSError):
                async with asyncio.timeout(CLOSE_S):
                    await self._socket.close()
        finally:
            self._socket.transport.abort()


class StreamConnection(Connection):
    """An SSE stream. One read is under way at a time, in a task of its own that `close` ends: cancelling
    whoever waits for it must not end the stream."""

    transport = "sse"

    def __init__(self, response: httpx.Response) -> None:
        super().__init__()
        self._response = response
        self._chunks: AsyncIterator[bytes] = response.aiter_bytes()
        self._parser = SseParser()
        self._frames: deque[Received] = deque()
        self._reading: asyncio.Task[bytes] | None = None
        self._broken: Broken | None = None

    @classmethod
    async def open(
        cls, http: httpx.AsyncClient, url: str, headers: Mapping[str, str], timeout_s: float
    ) -> StreamConnection:
        """Raises Broken."""
        request = http.build_request("GET", url, headers=headers)
        try:
            async with asyncio.timeout(timeout_s):
                response = await http.send(request, stream=True)
        except (TimeoutError, httpx.ReadTimeout, httpx.WriteTimeout):
            raise Broken(Mute()) from None
        except httpx.HTTPError as error:
            raise Broken(Unreached(_unreached(error.__cause__))) from None
        media_type = response.headers.get("content-type", "").partition(";")[0].strip()
        if response.status_code == 200 and media_type == "text/event-stream":
            return cls(response)
        try:
            refused = await _refused(response, timeout_s)
        finally:
            await response.aclose()
        raise Broken(refused)

    async def _next(self) -> Received:
        while not self._frames:
            if self._broken is not None:
                raise self._broken
            if self._reading is None:
                self._reading = asyncio.create_task(self._chunk())
            await asyncio.wait({self._reading})
            reading, self._reading = self._reading, None
            try:
                self._take(b"" if reading.cancelled() else reading.result())
            except Broken as broken:
                self._broken = broken  # what came before it counts
        return self._frames.popleft()

    async def _chunk(self) -> bytes:
        try:
            data = await anext(self._chunks, b"")
        except (httpx.HTTPError, httpx.StreamError, OSError):
            raise Broken(Ended(1006)) from None
        self.heard_at = time.monotonic()
        return data

    def _take(self, data: bytes) -> None:
        if not data:
            raise Broken(Ended())
        try:
            blocks = self._parser.feed(data)
        except TooBig:
            raise Broken(GivenUp("frame-too-big")) from None
        for block in blocks:
            frame: Frame = Positioned()
            if block.data is not None:
                try:
                    frame = stream_frame(block.event, block.data, block.id or None)
                except BadFrame:
                    raise Broken(Ended(1002, "bad-frame")) from None
            self._frames.append(Received(frame, block.id or None, block.retry_ms))

    async def close(self) -> None:
        try:
            reading, self._broken = self._reading, Broken(Ended())
            if reading is not None:
                reading.cancel()
                await asyncio.wait({reading})
                if not reading.cancelled():
                    reading.exception()  # it has been looked at
        finally:
            await self._response.aclose()


async def _refused(response: httpx.Response, timeout_s: float) -> Refused:
    body = b""
    with suppress(TimeoutError, httpx.HTTPError):
        async with asyncio.timeout(timeout_s):
            async for chunk in response.aiter_bytes():
                body += chunk
                if len(body) > MAX_REFUSAL:
                    break
    error = refusal(Answer(response.status_code, response.headers, body))
    return Refused(response.status_code, error.retry_after_s, error.code, error.channels)


def _unreached(error: BaseException | None) -> str:
    """`unreachable`: nobody listens, or the name is not known; `tls`: it is not whom it should be."""
    while error is not None:
        if isinstance(error, ssl.SSLError):
            return "tls"
        error = error.__cause__ or error.__context__
    return "unreachable"
