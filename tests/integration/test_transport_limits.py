"""Limits that hold before any application code runs: slow and large headers, slow bodies, floods from one
address, log lines.
"""

from __future__ import annotations

import asyncio
import io
import logging
from typing import Any

import pytest

from dualcast.transport import logs, selfcheck
from dualcast.transport.asgi import AsgiTransport
from dualcast.transport.edge import Connections, Edge
from dualcast.transport.http import HttpProtocol
from dualcast.transport.options import TransportSettings
from support.live_server import running_server
from support.raw_http import connect, open_sse, open_websocket, upgrade_request
from support.toy_sessions import Toy

pytestmark = pytest.mark.anyio


@pytest.fixture(params=["uvloop", "asyncio"])
def anyio_backend(request: pytest.FixtureRequest) -> tuple[str, dict[str, Any]]:
    return "asyncio", {"use_uvloop": request.param == "uvloop"}


@pytest.fixture
async def toy() -> Toy:
    return Toy()


def quick(**changes: Any) -> TransportSettings:
    return TransportSettings(**{"grace_s": 1.0, "header_s": 0.2, "body_s": 0.2, "keep_alive_s": 60} | changes)


@pytest.mark.parametrize(
    ("said", "status"),
    [
        (b"", None),
        (b"\r\n\r\n", None),
        (b"G", 408),
        (b"GET /hello HTTP/1.1\r\nhost: a\r\nx-slow: ", 408),
        (upgrade_request()[:-2], 408),
    ],
)
async def test_a_slow_header_dies_and_touches_no_other(toy: Toy, said: bytes, status: int | None) -> None:
    async with (
        running_server(toy.app, quick()) as live,
        await open_websocket(live.port) as other,
        await connect(live.port) as slow,
    ):
        await other.frame()
        slow.write(said)
        answer = await slow.rest()
        assert answer.startswith(b"HTTP/1.1 408 ") if status else answer == b""
        other.send(1, b"fine")
        assert (await other.frame()).payload == b"echo:fine"


async def test_a_trickle_does_not_renew_the_deadline(toy: Toy) -> None:
    async with running_server(toy.app, quick()) as live, await connect(live.port) as slow:
        slow.write(b"GET /hello HTTP/1.1\r\n")

        async def trickle() -> None:
            while True:
                slow.write(b"a: b\r\n")
                await asyncio.sleep(0.02)

        task = asyncio.create_task(trickle())
        assert (await slow.rest()).startswith(b"HTTP/1.1 408 ")
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


@pytest.mark.parametrize("second", [b"GET /hel", b"\r\n"])
async def test_the_deadline_holds_for_later_requests_of_a_connection(toy: Toy, second: bytes) -> None:
    async with running_server(toy.app, quick()) as live, await connect(live.port) as wire:
        wire.write(b"GET /hello HTTP/1.1\r\nhost: a\r\n\r\n")
        assert (await wire.read_response()).body == b"hello"
        wire.write(second)
        assert (await wire.rest())[:13] in (b"HTTP/1.1 408 ", b"")


async def test_detached_connections_have_no_deadline(toy: Toy) -> None:
    async with (
        running_server(toy.app, quick()) as live,
        await open_sse(live.port) as sse,
        await connect(live.port) as slow,
    ):
        assert await slow.rest() == b""  # its deadline came later than the stream's would have
        session = await toy.session()
        session.publish("still")
        assert [await sse.event(), await sse.event()][1] == {"data": "still"}


@pytest.mark.parametrize("how", ["one header", "many headers", "url", "in one read", "never ending"])
async def test_large_headers_are_refused(toy: Toy, how: str) -> None:
    settings = quick(header_s=10.0, header_bytes=2000)
    start = b"GET /hello HTTP/1.1\r\nhost: a\r\n"
    async with running_server(toy.app, settings) as live, await connect(live.port) as wire:
        if how == "one header":
            wire.write(start + b"x: " + b"y" * 3000)
        elif how == "many headers":
            wire.write(start + b"x: y\r\n" * 600)
        elif how == "url":
            wire.write(b"GET /" + b"h" * 3000)
        elif how == "in one read":
            wire.write(start + b"x: " + b"y" * 3000 + b"\r\n\r\n")
        else:
            wire.write(start)
            for _ in range(50):
                wire.write(b"x: " + b"y" * 100 + b"\r\n")
                await asyncio.sleep(0)
        assert (await wire.rest()).startswith(b"HTTP/1.1 431 ")


async def test_a_large_body_does_not_count_as_headers(toy: Toy) -> None:
    async with running_server(toy.app, quick(header_bytes=2000)) as live, await connect(live.port) as wire:
        wire.write(b"POST /echo HTTP/1.1\r\nhost: a\r\ncontent-length: 50000\r\n\r\n" + b"x" * 50_000)
        assert (await wire.read_response()).body == b"50000"


async def test_a_stalled_body_dies(toy: Toy) -> None:
    async with running_server(toy.app, quick()) as live:
        async with await connect(live.port) as wire:
            wire.write(b"POST /echo HTTP/1.1\r\nhost: a\r\ncontent-length: 10\r\n\r\nabc")
            assert (await wire.rest()).startswith(b"HTTP/1.1 408 ")
        await live.until_idle()


async def test_garbage_is_a_400(toy: Toy) -> None:
    async with running_server(toy.app) as live, await connect(live.port) as wire:
        wire.write(b"\x16\x03\x01 this is TLS\r\n\r\n")
        assert (await wire.rest()).startswith(b"HTTP/1.1 400 ")


async def test_endless_pipelining_is_refused(toy: Toy) -> None:
    async with running_server(toy.app) as live, await connect(live.port) as wire:
        wire.write(b"GET /hello HTTP/1.1\r\nhost: a\r\n\r\n" * 1000)
        answers = await wire.rest()
        assert answers.count(b"HTTP/1.1 200") <= 17


async def test_connections_per_address(toy: Toy) -> None:
    async with running_server(toy.app, quick(header_s=10.0, max_connections_per_address=2)) as live:
        live.server.edge.counted_address = lambda host: "203.0.113.1"  # loopback is exempt
        first = await open_websocket(live.port)
        async with await open_sse(live.port) as second:
            async with await open_websocket(live.port) as third:
                assert third.response is not None and third.response.status == 503
                async with (
                    await connect(live.port),
                    await connect(live.port),
                    await connect(live.port) as last,
                ):
                    assert await last.rest() == b""  # more than twice the limit: no answer at all
            await first.frame()
            await second.event()
        connections: Any = live.connections
        await toy.sessions[1].lost.wait()  # a detached session gives its slot back
        async with asyncio.timeout(10):
            while connections.count("203.0.113.1") > 1:
                await asyncio.sleep(0.01)
        async with await open_websocket(live.port) as again:
            assert again.response is not None and again.response.status == 101
        await first.close()
        await live.until_idle()
        assert connections.count("203.0.113.1") == 0


def test_which_addresses_are_counted() -> None:
    edge = Edge(TransportSettings(trusted_proxies=("10.0.0.0/8", "192.0.2.7")))
    assert edge.counted_address("198.51.100.4") == "198.51.100.4"
    assert (
        edge.counted_address("2001:db8:1:2::9")
        == edge.counted_address("2001:db8:1:2:ffff::1")
        == "2001:db8:1:2::/64"
    )
    assert edge.counted_address("::ffff:198.51.100.4") == "198.51.100.4"
    for exempt in ("127.0.0.1", "::1", "10.1.2.3", "192.0.2.7", "/run/socket"):
        assert edge.counted_address(exempt) is None


def test_connection_slots_move_and_return() -> None:
    connections = Connections()
    connections.add("http")
    assert connections.take("http", "a") == 1
    connections.move("http", "session")
    connections.discard("http")
    assert connections.count("a") == 1
    connections.add("session")
    connections.discard("session")
    connections.discard("session")
    assert connections.count("a") == 0 and not connections


SECRET = "s3cr3t-token"


@pytest.mark.parametrize("stock", [False, True])
async def test_no_log_line_holds_a_query_string(toy: Toy, stock: bool) -> None:
    written = io.StringIO()
    handler = logging.StreamHandler(written)
    loggers = [
        logging.getLogger(),
        *(logging.getLogger(f"uvicorn{name}") for name in ("", ".error", ".access", ".asgi")),
    ]
    before = [(logger.level, logger.propagate, list(logger.handlers)) for logger in loggers]
    try:
        async with running_server(toy.app, stock=stock) as live:
            for logger in loggers:
                logger.setLevel(logging.DEBUG)
                logger.addHandler(handler)
            live.server.config.access_log = True  # even if somebody switches it on
            for path in ("/ws", "/deny-ws", "/nowhere", "/plain-ws"):
                async with await open_websocket(
                    live.port, f"{path}?token={SECRET}", authorization=f"Bearer {SECRET}"
                ):
                    pass
            async with await open_sse(live.port, f"/sse?token={SECRET}"):
                pass
            async with await connect(live.port) as wire:
                wire.write(
                    f"GET /hello?token={SECRET} HTTP/1.1\r\nhost: a\r\nx: {SECRET}\r\n bad\r\n\r\n".encode()
                )
                await wire.read_response()
    finally:
        for logger, (level, propagate, handlers) in zip(loggers, before, strict=True):
            logger.setLevel(level)
            logger.propagate = propagate
            logger.handlers = handlers
    text = written.getvalue()
    assert SECRET not in text.replace(f"x: {SECRET}", "")
    if stock:
        assert "[accepted]" in text, "the stock accept line was not even written: the test proves nothing"


def test_the_filter_cleans_messages_arguments_and_tracebacks() -> None:
    logs.install()
    logs.install()
    logger = logging.getLogger("uvicorn.error")
    assert sum(isinstance(item, logs.QueryStringFilter) for item in logger.filters) == 1
    written = io.StringIO()
    handler = logging.StreamHandler(written)
    logger.addHandler(handler)
    level = logger.level
    logger.setLevel(logging.DEBUG)
    try:
        logger.error(f"GET /a?token={SECRET} failed")
        logger.error("%s - %d", f"/a?token={SECRET}", 7)
        logger.error("%(path)s", {"path": f"/a?token={SECRET}"})
        logger.debug("< %s: %s", "Authorization", f"Bearer {SECRET}")
        logger.debug("scope %s", f"{{'query_string': b'token={SECRET}', 'path': '/a'}}")
        try:
            raise ValueError(f"bad /a?token={SECRET}")
        except ValueError:
            logger.exception("failed")
    finally:
        logger.removeHandler(handler)
        logger.setLevel(level)
    assert SECRET not in written.getvalue()
    assert "GET /a failed" in written.getvalue() and "'path': '/a'" in written.getvalue()


async def test_the_selfcheck_passes_on_the_installed_uvicorn() -> None:
    assert await selfcheck.problem() is None


async def test_a_changed_uvicorn_switches_detach_off(
    toy: Toy, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(selfcheck, "_METHODS", [*selfcheck._METHODS, "on_something_new"])
    async with running_server(toy.app) as live, await open_websocket(live.port) as wire:
        assert (await wire.frame()).payload == b"hello"
        assert isinstance((await toy.session()).transport, AsgiTransport)
    assert "detach is off" in caplog.text and "on_something_new" in caplog.text


async def test_a_broken_detach_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(self: HttpProtocol, session: Any) -> None:
        raise KeyError("cycle")

    monkeypatch.setattr(HttpProtocol, "detach", broken)
    problem = await selfcheck.problem()
    assert problem is not None and "trial" in problem
