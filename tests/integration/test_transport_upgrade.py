"""Our own WebSocket upgrade: header checks, denials, plain ASGI applications, abuse. Both event loops."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import logging
from collections.abc import AsyncIterator
from typing import Any

import pytest

from dualcast.transport import frames
from dualcast.transport.options import TransportSettings
from support.live_server import LiveServer, running_server
from support.raw_http import connect, masked, open_websocket, upgrade_request
from support.toy_sessions import Toy

pytestmark = pytest.mark.anyio


@pytest.fixture(params=["uvloop", "asyncio"])
def anyio_backend(request: pytest.FixtureRequest) -> tuple[str, dict[str, Any]]:
    return "asyncio", {"use_uvloop": request.param == "uvloop"}


@pytest.fixture
async def toy() -> Toy:
    return Toy()


@pytest.fixture
async def live(toy: Toy) -> AsyncIterator[LiveServer]:
    async with running_server(toy.app, TransportSettings(grace_s=1.0, compression=True)) as server:
        yield server


async def test_the_handshake_answers_as_rfc_6455_says(live: LiveServer) -> None:
    key = base64.b64encode(b"sixteen bytes!!!").decode()
    async with await open_websocket(live.port, sec_websocket_key=key) as wire:
        assert wire.response is not None and wire.response.status == 101
        headers = wire.response.headers
        digest = hashlib.sha1(key.encode() + b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11").digest()
        assert headers["sec-websocket-accept"] == base64.b64encode(digest).decode()
        assert headers["upgrade"].lower() == "websocket" and headers["connection"].lower() == "upgrade"
        assert "sec-websocket-protocol" not in headers and "sec-websocket-extensions" not in headers
        assert "server" not in headers


@pytest.mark.parametrize(
    "headers",
    [{"connection": "keep-alive, Upgrade"}, {"upgrade": "WebSocket"}, {"upgrade": "h2c, websocket"}],
)
async def test_header_forms_of_real_clients(live: LiveServer, headers: dict[str, str]) -> None:
    async with await open_websocket(live.port, **headers) as wire:
        assert wire.response is not None and wire.response.status == 101


BAD_KEY = base64.b64encode(b"fifteen bytes!!").decode()


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"sec_websocket_version": "12"}, 426),
        ({"sec_websocket_version": None}, 426),
        ({"sec_websocket_key": None}, 400),
        ({"sec_websocket_key": BAD_KEY}, 400),
        ({"sec_websocket_key": "not base64 at all!!!!!!!"}, 400),
        (
            {"sec_websocket_key": "AAAAAAAAAAAAAAAAAAAAAA==\r\nsec-websocket-key: AAAAAAAAAAAAAAAAAAAAAA=="},
            400,
        ),
        ({"host": None}, 400),
        ({"content_length": "3"}, 400),
    ],
)
async def test_bad_upgrade_requests(toy: Toy, live: LiveServer, headers: dict[str, Any], status: int) -> None:
    async with await open_websocket(live.port, behind=b"abc", **headers) as wire:
        assert wire.response is not None and wire.response.status == status
        assert wire.response.headers["content-type"] == "application/problem+json"
        if status == 426:
            assert wire.response.headers["sec-websocket-version"] == "13"
        assert await wire.rest() == b""
    assert toy.sessions == []


async def test_a_post_cannot_upgrade(live: LiveServer) -> None:
    async with await connect(live.port) as wire:
        wire.write(upgrade_request().replace(b"GET ", b"POST ", 1))
        response = await wire.read_response()
        assert response.status == 405 and response.headers["allow"] == "GET"


async def test_an_unknown_upgrade_is_served_as_http(live: LiveServer) -> None:
    async with await connect(live.port) as wire:
        wire.write(upgrade_request("/hello", upgrade="h2c"))
        assert (await wire.read_response()).body == b"hello"


@pytest.mark.parametrize(
    ("how", "status", "body"),
    [("close", 403, b""), ("return", 500, None), ("", 429, b"slow down")],
)
async def test_denials(live: LiveServer, how: str, status: int, body: bytes | None) -> None:
    async with await open_websocket(live.port, f"/deny-ws?{how}") as wire:
        assert wire.response is not None and wire.response.status == status
        assert wire.response.headers["connection"] == "close"
        if body is not None:
            assert wire.response.body == body
        if status == 429:
            assert wire.response.headers["retry-after"] == "7"
        assert b"asked for" not in wire.response.body
        assert await wire.rest() == b""
    await live.until_idle()


async def test_an_unknown_path_is_denied_through_litestar(live: LiveServer) -> None:
    async with await open_websocket(live.port, "/nowhere") as wire:
        assert wire.response is not None and wire.response.status in (403, 404)


async def test_an_application_that_never_answers(toy: Toy) -> None:
    async with running_server(toy.app, TransportSettings(grace_s=1.0, handshake_s=0.2)) as live:
        async with await open_websocket(live.port, "/deny-ws?silent") as wire:
            assert wire.response is not None and wire.response.status == 503
        await live.until_idle()


async def test_plain_asgi_echo_with_fragments_and_ping(toy: Toy, live: LiveServer) -> None:
    async with await open_websocket(live.port, "/plain-ws") as wire:
        wire.send(frames.TEXT, b"a")
        assert await wire.frame() == (frames.TEXT, b"a", True, False)
        wire.write(masked(2, b"b" * 40_000, final=False) + masked(9, b"p") + masked(0, b"c"))
        assert (await wire.frame()).payload == b"p"
        assert (await wire.frame()).payload == b"b" * 40_000 + b"c"
        wire.send(frames.TEXT, b"close")
        close = await wire.frame()
        assert (close.close_code, close.payload[2:]) == (4001, b"done")
        wire.send(frames.CLOSE, close.payload[:2])
        assert await wire.rest() == b""
    await live.until_idle()


async def test_plain_asgi_bounds_what_an_idle_application_has_not_read(toy: Toy, live: LiveServer) -> None:
    async with await open_websocket(live.port, "/gated-ws") as wire:
        (upgrade,) = live.connections
        upgrade._start_reading()
        for _ in range(200):
            wire.send(frames.TEXT, b"x" * 60_000)
        async with asyncio.timeout(10):
            while len(upgrade.received) <= 16:
                await asyncio.sleep(0.01)
        for _ in range(10):
            await asyncio.sleep(0.01)
        assert len(upgrade.received) < 40
        wire.reset()
        toy.gate.set()
    await live.until_idle()


async def test_exceptions_of_the_application(caplog: pytest.LogCaptureFixture) -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "lifespan":
            return
        await receive()
        if scope["path"] == "/after":
            await send({"type": "websocket.accept"})
        raise ValueError("a secret")

    async with running_server(app, TransportSettings(grace_s=1.0)) as live:
        async with await open_websocket(live.port, "/before") as wire:
            assert wire.response is not None and wire.response.status == 500
            assert b"secret" not in wire.response.body
            assert await wire.rest() == b""
        async with await open_websocket(live.port, "/after") as wire:
            close = await wire.frame()
            assert (close.close_code, close.payload[2:]) == (1011, b"")
            wire.send(frames.CLOSE, close.payload)
            assert await wire.rest() == b""
        await live.until_idle()
    assert [record.levelname for record in caplog.records if "exception" in record.message] == [
        "ERROR",
        "ERROR",
    ]


async def test_plain_asgi_client_close_reaches_the_application(toy: Toy, live: LiveServer) -> None:
    async with await open_websocket(live.port, "/plain-ws") as wire:
        wire.send(frames.CLOSE, b"\x0f\xa1why")
        assert (await wire.frame()).close_code == 4001
        assert await wire.rest() == b""
    await live.until_idle()
    assert toy.scopes == [{"type": "websocket.disconnect", "code": 4001, "reason": "why"}]


async def test_a_peer_that_ignores_our_close_is_aborted(toy: Toy) -> None:
    async with (
        running_server(toy.app, TransportSettings(grace_s=1.0, handshake_s=0.2)) as live,
        await open_websocket(live.port, "/plain-ws") as wire,
    ):
        wire.send(frames.TEXT, b"close")
        assert (await wire.frame()).close_code == 4001
        assert await wire.rest() == b""


ABUSE = [
    pytest.param(frames.text(b"x"), 1002, id="unmasked"),
    pytest.param(masked(3, b"x"), 1002, id="bad opcode"),
    pytest.param(masked(9, b"x", final=False), 1002, id="fragmented control"),
    pytest.param(masked(1, b"x", rsv=2), 1002, id="reserved bit"),
    pytest.param(masked(1, b"\xff"), 1007, id="bad utf-8"),
    pytest.param(b"\x81\xff" + b"\x7f" + b"\xff" * 7, 1009, id="huge length"),
]


@pytest.mark.parametrize(("wire_bytes", "code"), ABUSE)
@pytest.mark.parametrize("path", ["/ws", "/plain-ws"])
async def test_abuse_ends_one_connection_and_touches_no_other(
    toy: Toy, live: LiveServer, path: str, wire_bytes: bytes, code: int
) -> None:
    async with await open_websocket(live.port, path) as good, await open_websocket(live.port, path) as bad:
        bad.write(wire_bytes)
        while (frame := await bad.frame()).opcode != frames.CLOSE:
            assert frame.payload == b"hello"
        assert frame.close_code == code
        bad.write(masked(8, frame.payload[:2]))
        await bad.close()
        good.send(frames.TEXT, b"still here")
        while not (answer := (await good.frame()).payload).endswith(b"still here"):
            assert answer == b"hello"


async def test_deflate_is_negotiated_without_context_takeover(toy: Toy, live: LiveServer) -> None:
    offer = "permessage-deflate; client_max_window_bits"
    async with await open_websocket(live.port, sec_websocket_extensions=offer) as wire:
        assert wire.response is not None
        answer = wire.response.headers["sec-websocket-extensions"]
        assert answer == "permessage-deflate; server_no_context_takeover; client_no_context_takeover"
        assert (await wire.frame()).rsv1
        wire.write(masked(1, frames.deflate(b"packed " * 20), rsv=4))
        session = await toy.session()
        await session.wait_for("text", "packed " * 20)


@pytest.mark.parametrize(
    "offer",
    [
        "permessage-deflate; server_max_window_bits=10",
        "permessage-deflate; nonsense",
        "x-webkit-deflate-frame",
        "permessage-deflate; server_no_context_takeover; server_no_context_takeover",
        ";;,,=",
    ],
)
async def test_unacceptable_compression_offers_are_ignored(live: LiveServer, offer: str) -> None:
    async with await open_websocket(live.port, sec_websocket_extensions=offer) as wire:
        assert wire.response is not None and wire.response.status == 101
        assert "sec-websocket-extensions" not in wire.response.headers
        assert not (await wire.frame()).rsv1


async def test_compression_is_off_by_default(toy: Toy) -> None:
    async with (
        running_server(toy.app) as live,
        await open_websocket(live.port, sec_websocket_extensions="permessage-deflate") as wire,
    ):
        assert wire.response is not None and "sec-websocket-extensions" not in wire.response.headers


async def test_shutdown_denies_what_still_waits(toy: Toy, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    async with running_server(toy.app) as live:
        wire = await connect(live.port)
        wire.write(upgrade_request("/deny-ws?silent"))
        async with asyncio.timeout(10):
            while not live.server.server_state.tasks:
                await asyncio.sleep(0.005)
    assert (await wire.read_response()).status == 503
    await wire.close()
