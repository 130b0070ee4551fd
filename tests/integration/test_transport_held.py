"""The head of a stream's response waits for the session and is written with its first bytes; whoever does not
detach is answered like anybody else. Both event loops.
"""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from dualcast.transport import asgi, frames
from dualcast.transport.detach import EXTENSION, HOLD
from dualcast.transport.held import Held
from support.live_server import running_server

pytestmark = pytest.mark.anyio
REQUEST = b"GET /s HTTP/1.1\r\nHost: a\r\n\r\n"
HEADERS = [(b"content-type", b"text/event-stream")]
START = {"type": "http.response.start", "status": 200, "headers": HEADERS}
HELLO = frames.chunk(b"data: hello\n\n")


@pytest.fixture(params=["uvloop", "asyncio"])
def anyio_backend(request: pytest.FixtureRequest) -> tuple[str, dict[str, Any]]:
    return "asyncio", {"use_uvloop": request.param == "uvloop"}


class Session(asyncio.Protocol):
    """Says hello and ends. It writes what it was left of the handshake itself."""

    def __init__(self) -> None:
        self.prelude = b""

    def attached(self, transport: Any, connections: set[Any], *, paused: bool, initial: bytes) -> None:
        transport.write(self.prelude + HELLO + frames.LAST_CHUNK)
        transport.close()

    def shutdown(self) -> None: ...


async def exchange(app: Any) -> bytes:
    """Everything the server writes until it closes, or for a moment after the end of the response."""
    async with running_server(app) as live:
        reader, writer = await asyncio.open_connection("127.0.0.1", live.port)
        try:
            writer.write(REQUEST)
            found = b""
            async with asyncio.timeout(10):
                while not found.endswith(frames.LAST_CHUNK) and (data := await reader.read(65536)):
                    found += data
            return found
        finally:
            writer.close()


def only_http(handle: Any) -> Any:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "http":
            await handle(scope, receive, send)

    return app


async def test_a_detached_session_is_left_the_head() -> None:
    session = Session()

    async def handle(scope: Any, receive: Any, send: Any) -> None:
        assert await asgi.respond_sse(scope, receive, send, session, HEADERS)
        assert HOLD not in scope["extensions"]

    found = await exchange(only_http(handle))
    assert session.prelude.startswith(b"HTTP/1.1 200 OK\r\n")
    assert session.prelude.endswith(b"\r\n\r\n")
    assert found == session.prelude + HELLO + frames.LAST_CHUNK


async def test_without_a_detach_the_response_is_whole_and_in_order() -> None:
    session = Session()

    async def handle(scope: Any, receive: Any, send: Any) -> None:
        del scope["extensions"][EXTENSION]
        await asgi.respond_sse(scope, receive, send, session, HEADERS)

    found = await exchange(only_http(handle))
    assert session.prelude == b""
    head, _, body = found.partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 200 OK\r\n")
    assert body == HELLO + frames.LAST_CHUNK


async def test_a_head_that_nobody_takes_is_written_in_the_next_turn() -> None:
    arrived = asyncio.Event()

    async def handle(scope: Any, receive: Any, send: Any) -> None:
        scope["extensions"][HOLD]()
        await send(START)
        await arrived.wait()  # comes only if the head does
        await send({"type": "http.response.body", "body": b"x", "more_body": False})

    async with running_server(only_http(handle)) as live:
        reader, writer = await asyncio.open_connection("127.0.0.1", live.port)
        writer.write(REQUEST)
        async with asyncio.timeout(10):
            assert (await reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 200 OK\r\n")
            arrived.set()
            assert await reader.readuntil(frames.LAST_CHUNK) == frames.chunk(b"x") + frames.LAST_CHUNK
        writer.close()


async def test_a_whole_response_in_the_same_turn_keeps_its_order() -> None:
    async def handle(scope: Any, receive: Any, send: Any) -> None:
        scope["extensions"][HOLD]()
        await send(START)
        await send({"type": "http.response.body", "body": b"a", "more_body": True})
        await send({"type": "http.response.body", "body": b"b", "more_body": False})

    found = await exchange(only_http(handle))
    assert found.endswith(b"\r\n\r\n" + frames.chunk(b"a") + frames.chunk(b"b") + frames.LAST_CHUNK)


async def test_an_application_that_fails_is_answered(caplog: pytest.LogCaptureFixture) -> None:
    async def handle(scope: Any, receive: Any, send: Any) -> None:
        scope["extensions"][HOLD]()
        raise RuntimeError("on purpose")

    found = await exchange(only_http(handle))
    assert found.startswith(b"HTTP/1.1 500 ")
    assert found.endswith(b"Internal Server Error")


def test_what_is_held_is_written_before_the_close() -> None:
    class Transport:
        def __init__(self) -> None:
            self.log: list[Any] = []

        def write(self, data: bytes) -> None:
            self.log.append(data)

        def close(self) -> None:
            self.log.append("close")

        def is_closing(self) -> bool:
            return "close" in self.log

    transport = Transport()
    held = Held(transport)  # type: ignore[arg-type]
    held.write(b"a")
    held.write(b"b")
    assert transport.log == []
    held.close()
    assert transport.log == [b"ab", "close"]
    held.write(b"c")
    held.flush()  # nobody is there
    assert transport.log == [b"ab", "close"]
