"""Attacks on the wire that need no credentials: what frames a request twice, what makes the server keep or
log without bound.
"""

from __future__ import annotations

import asyncio
import logging
from typing import Any

import pytest

from dualcast.transport.options import TransportSettings
from support.live_server import running_server
from support.node import running_node
from support.raw_http import Wire, connect, upgrade_request
from support.toy_sessions import Toy

pytestmark = pytest.mark.anyio

CHUNKED = b"POST %b HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n"


class Seen:
    """An application that reads the body and remembers the headers as they were then."""

    def __init__(self) -> None:
        self.headers: list[tuple[bytes, bytes]] = []
        self.calls = 0
        self.waits = asyncio.Event()

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "lifespan":
            while True:
                kind = (await receive())["type"]
                await send({"type": kind + ".complete"})
                if kind == "lifespan.shutdown":
                    return
        self.calls += 1
        if scope["path"] == "/early":
            await self._answer(send)
        while (message := await receive()).get("more_body"):
            self.waits.set()
        self.headers = list(scope["headers"])
        if scope["path"] != "/early" and message["type"] == "http.request":
            await self._answer(send)

    async def _answer(self, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"2")]})
        await send({"type": "http.response.body", "body": b"ok"})


async def test_trailers_do_not_become_headers() -> None:
    seen = Seen()
    async with running_server(seen) as live, await connect(live.port) as wire:
        wire.write(CHUNKED % b"/" + b"2\r\nhi\r\n0\r\nauthorization: Bearer forged\r\nhost: b\r\n\r\n")
        assert (await wire.read_response()).status == 200
        assert [name for name, _ in seen.headers] == [b"host", b"transfer-encoding"]


@pytest.mark.parametrize("trailer", [b"a: " + b"b" * 1000 + b"\r\n", b"a: endless" + b"b" * 1000])
async def test_trailers_are_bounded(trailer: bytes) -> None:
    seen = Seen()
    settings = TransportSettings(header_bytes=4096, grace_s=1.0)
    async with running_server(seen, settings) as live, await connect(live.port) as wire:
        wire.write(CHUNKED % b"/" + b"0\r\n")
        await until_refused(wire, trailer if trailer.endswith(b"\n") else trailer[3:])


async def until_refused(wire: Wire, more: bytes) -> None:
    """Writes until the server has had enough; it answers once."""
    answer = asyncio.create_task(wire.rest())
    while not answer.done():
        wire.write(more)
        await asyncio.sleep(0)
        if wire.writer.transport.get_write_buffer_size() > 8_000_000:
            break
    text = await answer
    assert text == b"" or (text.startswith(b"HTTP/1.1 400 ") and text.count(b"HTTP/1.1 ") == 1)


async def test_small_chunks_are_no_attack() -> None:
    seen = Seen()
    settings = TransportSettings(header_bytes=1024, grace_s=1.0)
    async with running_server(seen, settings) as live, await connect(live.port) as wire:
        wire.write(CHUNKED % b"/")
        for _ in range(50):
            wire.write(b"1\r\nx\r\n" * 100)
            await asyncio.sleep(0)
        wire.write(b"0\r\n\r\n")
        assert (await wire.read_response()).status == 200


async def test_a_bad_chunk_after_the_answer_brings_no_second_answer() -> None:
    """A proxy would give it to the next request on this connection."""
    seen = Seen()
    async with running_server(seen) as live, await connect(live.port) as wire:
        wire.write(CHUNKED % b"/early")
        assert (await wire.read_response()).status == 200
        wire.write(b"zz\r\nnot a chunk\r\n")
        assert await wire.rest() == b""


async def test_a_bad_chunk_before_the_answer_is_the_answer() -> None:
    seen = Seen()
    async with running_server(seen) as live, await connect(live.port) as wire:
        wire.write(CHUNKED % b"/" + b"1\r\nx\r\n")
        await seen.waits.wait()
        wire.write(b"zz\r\nnot a chunk\r\n")
        assert (await wire.rest()).count(b"HTTP/1.1 400 ") == 1


@pytest.mark.parametrize(
    ("lines", "status"),
    [
        (b"", 400),
        (b"host: a\r\nhost: b\r\n", 400),
        (b"host: a\r\ntransfer-encoding: gzip, chunked\r\n", 501),
        (b"host: a\r\ntransfer-encoding: chunked\r\ncontent-length: 3\r\n", 400),
        (b"host: a\r\ncontent-length: 3\r\ncontent-length: 4\r\n", 400),
        (b"host: a\r\ncontent-length: 3, 3\r\n", 400),
        (b"host: a\r\nx: a\r\n b\r\n", 400),
        (b"host: a\r\nx : a\r\n", 400),
        (b"host: a\nx: a\r\n", 400),
    ],
)
async def test_a_request_that_two_readers_could_frame_differently_is_refused(
    lines: bytes, status: int
) -> None:
    seen = Seen()
    async with running_server(seen) as live, await connect(live.port) as wire:
        wire.write(b"POST / HTTP/1.1\r\n" + lines + b"\r\n0\r\n\r\n")
        answer = await wire.rest()
        assert answer.startswith(b"HTTP/1.1 %d " % status)
        assert answer.count(b"HTTP/1.1 ") == 1
        assert seen.calls == 0


async def test_a_pipelining_flood_is_cut_off_without_a_traceback(caplog: pytest.LogCaptureFixture) -> None:
    toy = Toy()
    with caplog.at_level(logging.WARNING):
        async with running_server(toy.app) as live, await connect(live.port) as wire:
            wire.write(b"GET /hello HTTP/1.1\r\nhost: a\r\n\r\n" * 200)
            answer = await wire.rest()
            assert answer.count(b"HTTP/1.1 ") <= 17
            await live.until_idle()
    assert not caplog.records


@pytest.mark.parametrize("path", ["/v1/stream", "/v1/stream/", "/v1/publish", "/metrics", "/v1/nothing"])
async def test_a_handshake_to_a_route_without_sockets_is_denied_and_leaves_no_traceback(
    path: str, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING):
        async with running_node("memory") as node, await connect(node.port) as wire:
            wire.write(upgrade_request(path))
            status = (await wire.rest()).split(b" ")[1]
            assert status in (b"403", b"404", b"405")
    assert not caplog.records
