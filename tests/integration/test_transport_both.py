"""What must be the same for a client whether its session is detached or runs over plain ASGI, on both event
loops.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import pytest

from dualcast.transport import frames
from dualcast.transport.asgi import AsgiTransport
from support.live_server import LiveServer, running_server
from support.raw_http import connect, open_sse, open_websocket
from support.toy_sessions import Toy

pytestmark = pytest.mark.anyio


@pytest.fixture(params=["uvloop", "asyncio"])
def anyio_backend(request: pytest.FixtureRequest) -> tuple[str, dict[str, Any]]:
    return "asyncio", {"use_uvloop": request.param == "uvloop"}


@pytest.fixture(params=["ours", "stock"])
def stock(request: pytest.FixtureRequest) -> bool:
    return request.param == "stock"


@pytest.fixture
async def toy() -> Toy:
    return Toy()


@pytest.fixture
async def live(toy: Toy, stock: bool) -> AsyncIterator[LiveServer]:
    async with running_server(toy.app, stock=stock) as server:
        yield server


async def test_sse_arrives_and_ends_cleanly(toy: Toy, live: LiveServer, stock: bool) -> None:
    async with await open_sse(live.port) as wire:
        assert wire.response is not None and wire.response.status == 200
        assert wire.response.headers["content-type"] == "text/event-stream"
        assert await wire.event() == {"data": "hello"}
        session = await toy.session()
        assert isinstance(session.transport, AsgiTransport) is stock
        session.publish("a")
        session.publish("b")
        assert [await wire.event(), await wire.event()] == [{"data": "a"}, {"data": "b"}]
        assert live.server.pumped == ({session} if stock else set())
        session.bye()
        with pytest.raises(EOFError):
            await wire.event()
        await session.lost.wait()
    await live.until_idle()
    assert not live.server.pumped


async def test_writelines_of_several_chunks(toy: Toy, live: LiveServer) -> None:
    async with await open_sse(live.port) as wire:
        session = await toy.session()
        session.transport.writelines([frames.chunk(b"data: 1\n\n"), frames.chunk(b"data: 2\n\n")])
        assert [(await wire.event())["data"] for _ in range(3)] == ["hello", "1", "2"]


async def test_websocket_echo_and_client_close(toy: Toy, live: LiveServer, stock: bool) -> None:
    async with await open_websocket(live.port, sec_websocket_protocol="one, two") as wire:
        assert wire.response is not None and wire.response.status == 101
        assert wire.response.headers["sec-websocket-protocol"] == "two"
        assert (await wire.frame()).payload == b"hello"
        session = await toy.session()
        assert session.can_ping is not stock
        wire.send(frames.TEXT, "grüß".encode())
        assert (await wire.frame()).payload == "echo:grüß".encode()
        wire.send(frames.BINARY, b"\x00\xff")
        await session.wait_for("binary", b"\x00\xff")
        wire.send(frames.PING, b"are you there")
        pong = await wire.frame()
        assert (pong.opcode, pong.payload) == (frames.PONG, b"are you there")
        wire.send(frames.CLOSE, b"\x03\xe8")
        close = await wire.frame()
        assert (close.opcode, close.close_code) == (frames.CLOSE, 1000)
        assert await wire.rest() == b""
        await session.lost.wait()
    await live.until_idle()


async def test_server_close_carries_code_and_reason(toy: Toy, live: LiveServer) -> None:
    async with await open_websocket(live.port) as wire:
        await wire.frame()
        session = await toy.session()
        session.publish("last")
        session.bye(4100)
        assert (await wire.frame()).payload == b"last"
        close = await wire.frame()
        assert (close.close_code, close.payload[2:]) == (4100, b"bye")
        wire.send(frames.CLOSE, close.payload[:2])
        await session.lost.wait()


@pytest.mark.parametrize("how", ["fin", "reset"])
@pytest.mark.parametrize("kind", ["sse", "ws"])
async def test_a_leaving_client_is_noticed(toy: Toy, live: LiveServer, kind: str, how: str) -> None:
    wire = await (open_sse(live.port) if kind == "sse" else open_websocket(live.port))
    session = await toy.session()
    if how == "reset":
        wire.reset()
    await wire.close()
    await session.wait_for("lost")
    await live.until_idle()
    assert session.events.count(("lost",)) == 1


@pytest.mark.parametrize("kind", ["sse", "ws"])
async def test_a_slow_reader_pauses_and_resumes_the_session(toy: Toy, live: LiveServer, kind: str) -> None:
    async with await (open_sse(live.port) if kind == "sse" else open_websocket(live.port)) as wire:
        session = await toy.session()
        block = "x" * 50_000
        sent = 0
        while not session.paused:
            session.publish(block)
            sent += 1
            assert sent < 1_000
        assert session.transport.get_write_buffer_size() > 0
        received = 0
        await (wire.event() if kind == "sse" else wire.frame())
        while received < sent:
            if kind == "sse":
                assert (await wire.event())["data"] == block
            else:
                assert (await wire.frame()).payload == block.encode()
            received += 1
        await session.wait_for("resumed")
        session.publish("on")
        last = (await wire.event())["data"] if kind == "sse" else (await wire.frame()).payload.decode()
        assert last == "on"


@pytest.mark.parametrize("kind", ["sse", "ws"])
async def test_abort_drops_what_a_stuck_reader_does_not_take(toy: Toy, live: LiveServer, kind: str) -> None:
    async with await (open_sse(live.port) if kind == "sse" else open_websocket(live.port)) as wire:
        session = await toy.session()
        while not session.paused:
            session.publish("x" * 50_000)
        wire.writer.transport.pause_reading()  # type: ignore[attr-defined]
        session.transport.abort()
        assert session.transport.is_closing()
        await session.wait_for("lost")
        wire.writer.transport.resume_reading()  # type: ignore[attr-defined]


async def test_oversized_message_is_refused_with_1009(toy: Toy, live: LiveServer) -> None:
    async with await open_websocket(live.port) as wire, await open_websocket(live.port) as other:
        await wire.frame()
        await other.frame()
        wire.send(frames.TEXT, b"x" * 1001)
        assert (await wire.frame()).close_code == 1009
        other.send(frames.TEXT, b"fine")
        assert (await other.frame()).payload == b"echo:fine"


async def test_head_gets_headers_and_no_session(toy: Toy, live: LiveServer) -> None:
    async with await connect(live.port) as wire:
        wire.write(b"HEAD /sse HTTP/1.1\r\nhost: a\r\n\r\nGET /hello HTTP/1.1\r\nhost: a\r\n\r\n")
        assert (await wire.read_response(body=False)).status == 200
        assert (await wire.read_response()).body == b"hello"
    assert toy.sessions == []


async def test_shutdown_closes_everybody(toy: Toy, stock: bool) -> None:
    drained: list[int] = []

    async def on_drain() -> None:
        drained.append(len(toy.sessions))

    async with running_server(toy.app, stock=stock, on_drain=on_drain) as live:
        sse = await open_sse(live.port)
        ws = await open_websocket(live.port)
        await sse.event()
        await ws.frame()
    assert drained == [2]
    with pytest.raises(EOFError):
        await sse.event()
    close = await ws.frame()
    assert (close.opcode, close.close_code, close.payload[2:]) == (frames.CLOSE, 1012, b"bye")
    assert all(session.lost.is_set() for session in toy.sessions)
    await sse.close()
    await ws.close()


async def test_scope_says_what_stock_uvicorn_says(toy: Toy, live: LiveServer) -> None:
    async with await open_websocket(
        live.port, "/ws?token=a%20b&x=1", x_forwarded_for="203.0.113.9", x_forwarded_proto="https"
    ) as wire:
        await wire.frame()
    (scope,) = toy.scopes
    assert scope["query_string"] == b"token=a%20b&x=1"
    assert scope["client"] == ("203.0.113.9", 0)
    assert scope["scheme"] == "wss"
    assert scope["raw_path"].startswith(b"/ws")
    assert scope["asgi"]["spec_version"] == "2.4"
    assert scope["http_version"] == "1.1"
    assert scope["server"] == ("127.0.0.1", live.port)
    assert "state" in scope and "method" not in scope
    assert (b"host", b"test") in scope["headers"]
    assert "websocket.http.response" in scope["extensions"]
