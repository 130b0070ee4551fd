"""The detach under our protocol classes: nothing lost, nothing kept, refused where it would lose something.
Both event loops.
"""

from __future__ import annotations

import asyncio
import gc
import socket
import weakref
from collections.abc import AsyncIterator
from typing import Any

import pytest
from litestar import Litestar, WebSocket, websocket

from dualcast.transport import frames
from dualcast.transport.detach import EXTENSION
from dualcast.transport.http import HttpProtocol
from dualcast.transport.options import TransportSettings
from dualcast.transport.upgrade import Upgrade
from support.live_server import LiveServer, running_server
from support.raw_http import connect, masked, open_sse, open_websocket, upgrade_request
from support.toy_sessions import Toy, ToySession

pytestmark = pytest.mark.anyio


@pytest.fixture(params=["uvloop", "asyncio"])
def anyio_backend(request: pytest.FixtureRequest) -> tuple[str, dict[str, Any]]:
    return "asyncio", {"use_uvloop": request.param == "uvloop"}


@pytest.fixture
async def toy() -> Toy:
    return Toy()


@pytest.fixture
async def live(toy: Toy) -> AsyncIterator[LiveServer]:
    async with running_server(toy.app) as server:
        yield server


async def until(condition: Any) -> None:
    async with asyncio.timeout(10):
        while not condition():
            await asyncio.sleep(0.005)


async def test_no_task_stays_and_the_connection_set_holds_only_the_session(
    toy: Toy, live: LiveServer
) -> None:
    async with await open_sse(live.port) as sse, await open_websocket(live.port) as ws:
        await sse.event()
        await ws.frame()
        await until(lambda: not live.server.server_state.tasks)
        assert live.connections == set(toy.sessions)
        assert len(live.server.edge.headers) == len(live.server.edge.answers) == 0
        assert live.server.server_state.total_requests == 2
    await live.until_idle()


EARLY = [
    pytest.param(masked(1, b"yo"), b"", id="whole frame"),
    pytest.param(masked(1, b"yo")[:1], masked(1, b"yo")[1:], id="one byte"),
    pytest.param(masked(1, b"yo")[:4], masked(1, b"yo")[4:], id="half header"),
    pytest.param(masked(1, b"y", final=False), masked(0, b"o"), id="first fragment"),
    pytest.param(masked(9, b"p") + masked(1, b"yo"), b"", id="ping and frame"),
]


@pytest.mark.parametrize(("behind", "after"), EARLY)
@pytest.mark.parametrize("same_segment", [True, False])
async def test_bytes_before_the_detach_are_kept(
    toy: Toy, live: LiveServer, behind: bytes, after: bytes, same_segment: bool
) -> None:
    async with await open_websocket(live.port, "/gated-ws", behind=behind if same_segment else b"") as wire:
        if not same_segment:
            wire.write(behind)
        (upgrade,) = [c for c in live.connections if isinstance(c, Upgrade)]
        await until(lambda: upgrade.early_bytes == len(behind))
        toy.gate.set()
        session = await toy.session()
        assert session.initial == behind
        wire.write(after)
        await session.wait_for("text", "yo")
        assert [event for event in session.events if event[0] == "text"] == [("text", "yo")]


async def test_close_frame_before_the_detach(toy: Toy, live: LiveServer) -> None:
    async with await open_websocket(live.port, "/gated-ws", behind=masked(8, b"\x03\xe8")) as wire:
        toy.gate.set()
        session = await toy.session()
        await session.wait_for("close", 1000, "")
        assert (await wire.frame()).payload == b"hello"
        assert (await wire.frame()).close_code == 1000
        assert await wire.rest() == b""


async def test_early_bytes_beyond_the_bound_stay_in_the_kernel(toy: Toy) -> None:
    async with (
        running_server(toy.app, TransportSettings(grace_s=1.0, early_bytes=1000)) as live,
        await open_websocket(live.port, "/gated-ws") as wire,
    ):
        (upgrade,) = [c for c in live.connections if isinstance(c, Upgrade)]
        frame = masked(1, b"x" * 900)
        sent = 0
        while wire.writer.transport.get_write_buffer_size() < 200_000:  # until the kernel takes no more
            wire.write(frame)
            sent += 1
            if sent % 1000 == 0:
                await asyncio.sleep(0)
        await until(
            lambda: not upgrade.transport.is_reading() if hasattr(upgrade.transport, "is_reading") else True
        )
        assert upgrade.early_bytes < 600_000
        toy.gate.set()
        session = await toy.session()

        async def read() -> None:
            for _ in range(sent + 1):
                await wire.frame()

        async with asyncio.timeout(20):
            await read()
        assert session.events.count(("text", "x" * 900)) == sent


async def test_detach_while_write_paused_tells_the_session(toy: Toy, live: LiveServer) -> None:
    async with await open_websocket(live.port, "/gated-ws") as wire:
        (upgrade,) = [c for c in live.connections if isinstance(c, Upgrade)]
        sent = 0
        while upgrade.writable.is_set():
            upgrade.transport.write(frames.text(b"x" * 60_000))
            sent += 1
        toy.gate.set()
        session = await toy.session()
        assert session.paused
        for _ in range(sent):
            assert len((await wire.frame()).payload) == 60_000
        await session.wait_for("resumed")
        assert (await wire.frame()).payload == b"hello"


async def test_detach_after_the_application_read_is_refused_and_plain_asgi_goes_on(
    toy: Toy, live: LiveServer
) -> None:
    async with await open_websocket(live.port, "/plain-ws") as wire:
        wire.send(frames.TEXT, b"detach")
        assert (await wire.frame()).payload == b"refused"
        wire.send(frames.TEXT, b"x" * 300)
        assert (await wire.frame()).payload == b"x" * 300
    assert toy.refused == 1


@pytest.mark.parametrize("gone", ["fin", "reset"])
@pytest.mark.parametrize("path", ["/gated-ws", "/gated-sse"])
async def test_detach_of_a_connection_that_is_gone_is_refused(
    toy: Toy, live: LiveServer, path: str, gone: str
) -> None:
    wire = await (open_websocket(live.port, path) if "ws" in path else open_sse(live.port, path))
    await until(lambda: live.connections)
    if gone == "reset":
        wire.reset()
    await wire.close()
    await until(lambda: not live.connections)
    toy.gate.set()
    await until(lambda: toy.refused == 1)
    await live.until_idle()


async def test_a_request_pipelined_behind_the_stream_refuses_the_detach(toy: Toy, live: LiveServer) -> None:
    async with await open_sse(live.port, "/gated-sse") as wire:
        wire.write(b"GET /hello HTTP/1.1\r\nhost: a\r\n\r\n")
        (protocol,) = [c for c in live.connections if isinstance(c, HttpProtocol)]
        await until(lambda: protocol.pipeline)
        toy.gate.set()
        assert await wire.chunk() == b"refused"
        assert await wire.chunk() == b""
        assert (await wire.read_response()).body == b"hello"
    assert toy.refused == 1


async def test_half_a_request_behind_the_stream_refuses_the_detach(toy: Toy, live: LiveServer) -> None:
    async with await open_sse(live.port, "/gated-sse") as wire:
        wire.write(b"GET /hel")
        (protocol,) = [c for c in live.connections if isinstance(c, HttpProtocol)]
        await until(lambda: protocol.head_bytes)
        toy.gate.set()
        assert await wire.chunk() == b"refused"
        assert await wire.chunk() == b""
        wire.write(b"lo HTTP/1.1\r\nhost: a\r\n\r\n")
        assert (await wire.read_response()).body == b"hello"


async def test_http_1_0_is_not_detached(toy: Toy, live: LiveServer) -> None:
    async with await connect(live.port) as wire:
        wire.write(b"GET /sse HTTP/1.0\r\nhost: a\r\n\r\n")
        await wire.read_response(body=False)
        session = await toy.session()
        assert session.can_ping is False  # pumped
        session.bye()
        assert b"data: hello" in await wire.rest()


async def test_keep_alive_requests_before_the_stream(toy: Toy, live: LiveServer) -> None:
    async with await connect(live.port) as wire:
        for _ in range(3):
            wire.write(b"GET /hello HTTP/1.1\r\nhost: a\r\n\r\n")
            assert (await wire.read_response()).body == b"hello"
        wire.write(b"GET /sse HTTP/1.1\r\nhost: a\r\n\r\n")
        await wire.read_response(body=False)
        assert await wire.event() == {"data": "hello"}
        session = await toy.session()
        assert session.can_ping is True
        assert live.connections == {session}


async def test_tcp_options_reach_detached_sockets(toy: Toy, live: LiveServer) -> None:
    async with await open_websocket(live.port) as wire:
        await wire.frame()
        session = await toy.session()
        sock = session.transport.get_extra_info("socket")
        assert sock.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE) == 1
        assert sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT) == 30_000
        assert sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY) == 1


async def test_a_session_that_fails_to_attach_loses_its_socket_only(toy: Toy, live: LiveServer) -> None:
    class Broken(ToySession):
        def attached(self, *args: Any, **kwargs: Any) -> None:
            raise RuntimeError("asked for")

    toy.made = lambda kind: Broken(kind)  # type: ignore[method-assign]
    async with await open_websocket(live.port) as wire:
        assert await wire.rest() == b""
    await live.until_idle()
    toy.made = lambda kind: ToySession(kind)  # type: ignore[method-assign]
    async with await open_websocket(live.port) as wire:
        assert (await wire.frame()).payload == b"hello"


@pytest.mark.parametrize("path", ["/sse", "/ws", "/gated-sse", "/gated-ws"])
@pytest.mark.parametrize("refused", [False, True])
async def test_everything_is_freed_without_the_collector(
    toy: Toy, live: LiveServer, path: str, refused: bool
) -> None:
    if refused and "gated" not in path:
        pytest.skip("only a gated handler can be refused")
    gc.collect()
    gc.disable()
    try:
        kind = Upgrade if path.endswith("ws") else HttpProtocol
        wire = await connect(live.port)
        await until(lambda: live.connections)
        references = [weakref.ref(connection) for connection in live.connections]
        wire.write(
            upgrade_request(path)
            if path.endswith("ws")
            else f"GET {path} HTTP/1.1\r\nhost: a\r\n\r\n".encode()
        )
        await wire.read_response(body=False)
        if "gated" in path:
            references += [weakref.ref(c) for c in live.connections if isinstance(c, kind)]
            if refused:
                wire.reset()
                await until(lambda: not live.connections)
            toy.gate.set()
        if refused:
            await until(lambda: toy.refused)
        else:
            session = await toy.session()
            assert session.can_ping is True
        toy.scopes.clear()
        await until(lambda: not live.server.server_state.tasks)
        await until(lambda: all(reference() is None for reference in references))
        if not refused:
            sessions = [weakref.ref(session)]
            await wire.close()
            await session.lost.wait()
            toy.sessions.clear()
            del session
            await until(lambda: sessions[0]() is None)
        await wire.close()
    finally:
        gc.enable()


@pytest.mark.parametrize("ending", ["keep-alive", "reset in the handler"])
async def test_plain_requests_are_freed_without_the_collector(
    toy: Toy, live: LiveServer, ending: str
) -> None:
    gc.collect()
    gc.disable()
    try:
        wire = await connect(live.port)
        await until(lambda: live.connections)
        references = [weakref.ref(connection) for connection in live.connections]
        if ending == "keep-alive":
            for _ in range(2):
                wire.write(b"GET /hello HTTP/1.1\r\nhost: a\r\n\r\n")
                await wire.read_response()
        else:
            wire.write(b"POST /echo HTTP/1.1\r\nhost: a\r\ncontent-length: 9\r\n\r\nabc")
            await until(lambda: live.server.server_state.tasks)
            wire.reset()
        await wire.close()
        await live.until_idle()
        await until(lambda: all(reference() is None for reference in references))
    finally:
        gc.enable()


async def test_a_litestar_websocket_handler_can_detach() -> None:
    sessions: list[ToySession] = []

    @websocket("/ws")
    async def handler(socket: WebSocket[Any, Any, Any]) -> None:
        await socket.accept()
        sessions.append(ToySession("ws"))
        socket.scope["extensions"][EXTENSION](sessions[0])  # type: ignore[index, operator, typeddict-item]

    async with (
        running_server(Litestar([handler], openapi_config=None)) as live,
        await open_websocket(live.port) as wire,
    ):
        assert (await wire.frame()).payload == b"hello"
        wire.send(frames.TEXT, b"a")
        assert (await wire.frame()).payload == b"echo:a"


async def test_shutdown_with_slow_and_full_buffers_ends_and_aborts(toy: Toy) -> None:
    async with running_server(toy.app) as live:
        quiet, full = await open_sse(live.port), await open_websocket(live.port)
        await quiet.event()
        session = await toy.session()
        while not session.paused:
            session.publish("x" * 60_000)
        full.writer.transport.pause_reading()  # type: ignore[attr-defined]
    assert all(made.lost.is_set() for made in toy.sessions)
    with pytest.raises(EOFError):
        await quiet.event()
    full.reset()
    await full.close()
    await quiet.close()
