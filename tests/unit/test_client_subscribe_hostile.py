"""Subscriptions of the Python client at servers that misbehave, and in threads that close or fork."""

from __future__ import annotations

import asyncio
import gzip
import os
import threading
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from typing import Any

import pytest
from websockets.asyncio.server import ServerConnection, serve

from dualcast_client import AsyncClient, Client, DualcastError, Reconnects
from dualcast_client.events import BadFrame, socket_frame
from dualcast_client.sse import MAX_EVENT, SseParser, TooBig
from support.scripted_line import AT_ONCE

pytestmark = pytest.mark.anyio


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


# ── servers that misbehave ──


def test_a_frame_nested_without_end_is_a_bad_frame() -> None:
    with pytest.raises(BadFrame):
        socket_frame('{"type":"publication","data":' + "[" * 200_000 + "]" * 200_000 + "}")


def test_an_event_without_end_is_too_big_however_it_comes() -> None:
    parser = SseParser()
    with pytest.raises(TooBig):
        for _ in range(MAX_EVENT // 65_536 + 2):
            parser.feed(b"data\n" * 65_536)
    parser, begun = SseParser(), time.process_time()
    with pytest.raises(TooBig):
        for _ in range(MAX_EVENT // 16 + 2):
            parser.feed(b"data: " + b"x" * 10)
    assert time.process_time() - begun < 60, "each byte is looked at once, not with all before it"


WELCOME = (
    '{"type":"welcome","connection":"c","tenant":"t","user":"u","stage":"fallback","channels":["all"],'
    '"heartbeat_s":25,"cursor":"e-1"}'
)


async def test_a_frame_too_big_for_the_client_ends_it_and_is_not_asked_for_again() -> None:
    served = 0

    async def accept(socket: ServerConnection) -> None:
        nonlocal served
        served += 1
        await socket.send(WELCOME)
        await socket.send("x" * (5 * 1024 * 1024))
        await socket.wait_closed()

    async with serve(accept, "127.0.0.1", 0, compression=None) as listening:
        port = next(iter(listening.sockets)).getsockname()[1]
        client = AsyncClient(f"http://127.0.0.1:{port}", "a.b.c")
        async with client, client.subscribe(transport="websocket", reconnects=AT_ONCE) as stream:
            with pytest.raises(DualcastError, match="frame-too-big"):
                await asyncio.wait_for(anext(stream), 20)
    assert served == 1


@asynccontextmanager
async def page(head: bytes, body: bytes) -> AsyncIterator[str]:
    """A server that says one thing only."""

    async def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 " + head + b"\r\nconnection: close\r\n\r\n" + body)
        await writer.drain()
        writer.close()

    async with await asyncio.start_server(accept, "127.0.0.1", 0) as listening:
        yield f"http://127.0.0.1:{listening.sockets[0].getsockname()[1]}"


async def test_a_stream_that_a_proxy_compresses_is_read() -> None:
    publication = '{"channel":"all","id":"i1","event":"n","time":"t","data":7}'
    text = f"event: welcome\ndata: {WELCOME}\n\nevent: n\nid: e-2\ndata: {publication}\n\n"
    head = b"200 OK\r\ncontent-type: text/event-stream\r\ncontent-encoding: gzip"
    async with (
        page(head, gzip.compress(text.encode())) as url,
        AsyncClient(url, "a.b.c") as client,
        client.subscribe(transport="sse") as stream,
    ):
        assert (await asyncio.wait_for(anext(stream), 20)).data == 7


@pytest.mark.parametrize(
    "head, body, code",
    [
        (b"200 OK\r\ncontent-type: text/html", b"<html>", "http-200"),
        (b"302 Found\r\nlocation: /login", b"", "http-302"),
        (b"503 Gone\r\ncontent-type: text/html", b"<html>" * 50_000, "http-503"),
        (b"204 No Content", b"", "sse-ended"),
        (b"200 OK\r\ncontent-type: text/event-stream\r\ncontent-encoding: gzip", b"no gzip", "ended"),
        (b"200 OK\r\ncontent-type: text/event-stream", b"event: welcome\ndata: []\n\n", "bad-frame"),
    ],
)
async def test_answers_that_are_no_stream_are_told_apart(head: bytes, body: bytes, code: str) -> None:
    async with page(head, body) as url, AsyncClient(url, "a.b.c") as client:
        with pytest.raises(DualcastError) as caught:
            rules = Reconnects(base_s=0.02, cap_s=0.02)
            async with client.subscribe(transport="sse", patience_s=0.2, reconnects=rules):
                pass
        assert caught.value.code == code


# ── threads ──


@asynccontextmanager
async def greeting() -> AsyncIterator[str]:
    """A server that says welcome, and nothing else."""

    async def accept(socket: ServerConnection) -> None:
        await socket.send(WELCOME)
        await socket.wait_closed()

    async with serve(accept, "127.0.0.1", 0) as listening:
        yield f"http://127.0.0.1:{next(iter(listening.sockets)).getsockname()[1]}"


async def in_thread(work: Callable[[], Any]) -> Any:
    return await asyncio.wait_for(asyncio.to_thread(work), 20)


def ours() -> list[threading.Thread]:
    return [one for one in threading.enumerate() if one.name == "dualcast-subscription"]


async def test_on_status_may_close_a_stream_of_threads_and_must_not_wait_for_it() -> None:
    refused: list[BaseException] = []
    stream: Any = None

    def on_status(status: Any) -> None:
        if status.state == "live":
            try:
                stream.ack()
            except RuntimeError as error:
                refused.append(error)
            stream.close()

    def work() -> None:
        nonlocal stream
        with Client(url, "a.b.c") as client:
            stream = client.subscribe(transport="websocket", on_status=on_status)
            with suppress(DualcastError):  # closed before it was entered
                stream.__enter__()
            assert stream.next_event() is None
            stream.close()

    async with greeting() as url:
        await in_thread(work)
    assert len(refused) == 1 and not ours()


async def test_a_close_from_another_thread_at_any_moment_ends_every_wait() -> None:
    def work() -> None:
        with Client(url, "a.b.c") as client:
            for n in range(12):
                stream = client.subscribe(transport="websocket")
                closer = threading.Timer(n / 500, stream.close)
                closer.start()
                try:
                    with stream:
                        assert all(event for event in stream.events())
                        assert stream.next_event() is None
                except DualcastError as error:
                    assert error.code == "closed"
                closer.join()
                stream.close()

    async with greeting() as url:
        await in_thread(work)
    assert not ours()


@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
async def test_a_forked_process_does_not_wait_for_the_thread_of_its_parent() -> None:
    def work() -> int:
        with Client(url, "a.b.c") as client, client.subscribe(transport="websocket") as stream:
            child = os.fork()
            if child == 0:
                try:
                    stream.next_event()
                except DualcastError as error:
                    stream.close()
                    os._exit(0 if error.code == "closed" else 1)
                os._exit(2)
            return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])

    async with greeting() as url:
        assert await in_thread(work) == 0
