"""What a broken or hostile WebSocket peer sends: a clear answer to it, and nothing for anybody else."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from dualcast.transport import frames
from support.clients import SseClient, WsClient, open_socket, open_stream
from support.node import Node, running_node
from support.raw_http import Frame, Wire, masked, open_websocket

pytestmark = pytest.mark.anyio

MAX = 65_536


@pytest.fixture(params=[True, False], ids=["detached", "plain-asgi"])
async def node(request: pytest.FixtureRequest) -> AsyncIterator[Node]:
    async with running_node("memory", detach=request.param) as running:
        yield running


@pytest.fixture
async def witnesses(node: Node) -> AsyncIterator[tuple[SseClient, WsClient]]:
    """Two connections that nothing may touch: proven at the end of every test that has them."""
    async with (
        await open_stream(node.port, node.token("witness")) as stream,
        await open_socket(node.port, node.token("witness")) as socket,
    ):
        for client in (stream, socket):
            await client.welcome()
        yield stream, socket
        await node.publish("user:witness", "untouched")
        for client in (stream, socket):
            assert [got.data for got in await client.publications(1)] == ["untouched"]


@asynccontextmanager
async def raw(node: Node, sub: str = "mallory") -> AsyncIterator[Wire]:
    """A raw socket behind its welcome and first ping."""
    bearer = f"Bearer {node.token(sub)}"
    async with await open_websocket(node.port, "/v1/socket", authorization=bearer) as wire:
        assert wire.response is not None and wire.response.status == 101
        assert json.loads((await wire.frame()).payload)["type"] == "welcome"
        yield wire


async def until_close(wire: Wire) -> Frame:
    """The close frame; everything before it is read away."""
    while (frame := await wire.frame()).opcode != frames.CLOSE:
        pass
    return frame


async def reply(wire: Wire) -> dict[str, Any]:
    """The next text frame."""
    while (frame := await wire.frame()).opcode != frames.TEXT:
        pass
    found: dict[str, Any] = json.loads(frame.payload)
    return found


MALFORMED = {
    "malformed": ("{", "malformed-json"),
    "empty": ("", "malformed-json"),
    "two objects": ('{"type":"ping"}{"type":"ping"}', "malformed-json"),
    "not an object": ("[1,2]", "bad-command"),
    "a number": ("3", "bad-command"),
    "null": ("null", "bad-command"),
    "no type": ('{"ref":"1"}', "bad-command"),
    "unknown type": ('{"type":"launch"}', "bad-command"),
    "a server's type": ('{"type":"welcome"}', "bad-command"),
    "type of wrong type": ('{"type":7}', "bad-command"),
    "unknown field": ('{"type":"ping","admin":true}', "bad-command"),
    "missing field": ('{"type":"subscribe"}', "bad-command"),
    "wrong type of field": ('{"type":"subscribe","channels":"all"}', "bad-command"),
    "no channels": ('{"type":"subscribe","channels":[]}', "bad-command"),
    "null field": ('{"type":"resume","cursor":null}', "bad-command"),
    "long ref": (json.dumps({"type": "ping", "ref": "r" * 65}), "bad-command"),
    "long cursor": (json.dumps({"type": "resume", "cursor": "c" * 65}), "bad-command"),
    "many channels": (json.dumps({"type": "subscribe", "channels": ["topic:a"] * 129}), "bad-command"),
    "lone surrogate": ('{"type":"ping","ref":"\\ud800"}', "malformed-json"),
    "NaN": ('{"type":"ping","ref":NaN}', "malformed-json"),
    "single quotes": ("{'type':'ping'}", "malformed-json"),
    "bad channel": ('{"type":"subscribe","channels":["x"]}', "bad-channel"),
    "bad since": ('{"type":"subscribe","channels":["all"],"since":"x"}', "bad-cursor"),
}


@pytest.mark.parametrize("name", MALFORMED)
async def test_a_bad_message_is_answered_and_the_connection_stays(
    node: Node, witnesses: tuple[SseClient, WsClient], name: str
) -> None:
    text, code = MALFORMED[name]
    async with await open_socket(node.port, node.token("mallory")) as socket:
        await socket.welcome()
        await socket.socket.send(text)
        got = await socket.next()
        assert got.kind == "error"
        assert got.body["code"] == code, got
        assert "Traceback" not in got.body["reason"] and "dualcast" not in got.body["reason"]
        await node.publish("user:mallory", "still served")
        assert [got.data for got in await socket.publications(1)] == ["still served"]


async def test_what_is_no_command_is_answered_with_its_ref(
    node: Node, witnesses: tuple[SseClient, WsClient]
) -> None:
    async with await open_socket(node.port, node.token("mallory")) as socket:
        await socket.welcome()
        for fields, ref in [
            ({"type": "launch", "ref": "a"}, "a"),
            ({"type": "read", "ids": ["i" * 300], "ref": "b"}, "b"),
            ({"ref": "c", "type": "ping", "more": 1}, "c"),
            ({"type": "ping", "ref": "r" * 65}, None),
            ({"type": "ping", "ref": 7}, None),
            (["ref"], None),
        ]:
            await socket.socket.send(json.dumps(fields))
            got = await socket.next()
            assert (got.kind, got.body["code"], got.body.get("ref")) == ("error", "bad-command", ref)


@pytest.mark.parametrize(
    "text",
    [
        "[" * 60_000,
        '{"a":' * 10_000,
        '{"type":"ping","ref":' + "[" * 5_000 + "]" * 5_000 + "}",
        '{"type":"ping","x":' + "[" * 5_000 + "]" * 5_000 + "}",
        "[" * 30_000 + "]" * 30_000,
    ],
    ids=range(5),
)
async def test_deep_nesting_is_answered_with_an_error(
    node: Node, witnesses: tuple[SseClient, WsClient], text: str
) -> None:
    async with await open_socket(node.port, node.token("mallory")) as socket:
        await socket.welcome()
        await socket.socket.send(text)
        got = await socket.next()
        assert got.kind == "error"
        assert got.body["code"] in ("too-deep", "malformed-json", "bad-command")
        assert (await socket.ask("ping")).kind == "pong"


async def test_a_binary_message_is_answered_with_an_error(
    node: Node, witnesses: tuple[SseClient, WsClient]
) -> None:
    async with await open_socket(node.port, node.token("mallory")) as socket:
        await socket.welcome()
        await socket.socket.send(b'{"type":"ping"}')
        got = await socket.next()
        assert (got.kind, got.body["code"]) == ("error", "binary-frame")
        assert (await socket.ask("ping")).kind == "pong"


@pytest.mark.parametrize("how", ["one frame", "announced only", "fragments"])
async def test_a_message_beyond_the_limit_ends_its_connection(
    node: Node, witnesses: tuple[SseClient, WsClient], how: str
) -> None:
    async with raw(node) as wire:
        if how == "one frame":
            wire.send(frames.TEXT, b"x" * (MAX + 1))
        elif how == "announced only":
            wire.write(b"\x81\xff" + (1 << 40).to_bytes(8, "big") + b"\0\0\0\0")
        else:
            wire.send(frames.TEXT, b"x" * 40_000, final=False)
            wire.send(frames.CONTINUATION, b"x" * 40_000)
        close = await until_close(wire)
        # The stock classes judge frames themselves and know only RFC 6455's code.
        assert close.close_code in (4005, 1009)
        if detached(node):
            assert (close.close_code, close.payload[2:]) == (4005, b"frame-too-big")


async def test_a_message_of_exactly_the_limit_is_read(node: Node) -> None:
    async with raw(node) as wire:
        text = b'{"type":"ping","ref":"1"}'
        wire.send(frames.TEXT, text + b" " * (MAX - len(text)))
        assert (await reply(wire))["type"] == "pong"


def detached(node: Node) -> bool:
    return node.live.server.settings.detach


VIOLATIONS: dict[str, tuple[bytes, int]] = {
    "unmasked": (b"\x81\x02hi", 1002),
    "opcode 3": (masked(3, b"x"), 1002),
    "opcode 11": (masked(11), 1002),
    "reserved bit": (masked(frames.TEXT, b"x", rsv=4), 1002),
    "fragmented ping": (masked(frames.PING, b"x", final=False), 1002),
    "fragmented close": (masked(frames.CLOSE, b"\x03\xe8", final=False), 1002),
    "long ping": (masked(frames.PING, b"x" * 126), 1002),
    "continuation of nothing": (masked(frames.CONTINUATION, b"x"), 1002),
    "text inside text": (masked(frames.TEXT, b"x", final=False) + masked(frames.TEXT, b"y"), 1002),
    "bad UTF-8": (masked(frames.TEXT, b"\xff\xfe"), 1007),
    "overlong UTF-8": (masked(frames.TEXT, b"\xc0\xaf"), 1007),
    "surrogate UTF-8": (masked(frames.TEXT, b"\xed\xa0\x80"), 1007),
    "bad UTF-8 in fragments": (
        masked(frames.TEXT, b"ok\xe2\x82", final=False) + masked(frames.CONTINUATION, b"x"),
        1007,
    ),
    "bad UTF-8 in a long frame": (masked(frames.TEXT, b"x" * 200 + b"\xff"), 1007),
    "close of one byte": (masked(frames.CLOSE, b"\x03"), 1002),
    "close with 1005": (masked(frames.CLOSE, (1005).to_bytes(2, "big")), 1002),
    "close with 999": (masked(frames.CLOSE, (999).to_bytes(2, "big")), 1002),
    "close with a bad reason": (masked(frames.CLOSE, b"\x03\xe8\xff"), 1007),
}


@pytest.mark.parametrize("name", VIOLATIONS)
async def test_a_violation_of_the_protocol_ends_its_own_connection_only(
    node: Node, witnesses: tuple[SseClient, WsClient], name: str
) -> None:
    data, code = VIOLATIONS[name]
    async with raw(node) as wire:
        wire.write(data)
        assert (await until_close(wire)).close_code == code
        wire.send(frames.CLOSE, code.to_bytes(2, "big"))
        await wire.rest()
        await node.until(lambda: len(node.sessions) == 2, "the violator's session to go")
    if detached(node):
        counters = node.composition.node.counters.delivery("default", "ws")
        assert counters.violations == 1


@pytest.mark.parametrize("name", ["unmasked", "bad UTF-8", "reserved bit"])
async def test_what_comes_behind_a_violation_is_not_read(node: Node, name: str) -> None:
    async with raw(node) as wire:
        wire.write(VIOLATIONS[name][0] + masked(frames.TEXT, b'{"type":"ping"}'))
        received = []
        while (frame := await wire.frame()).opcode != frames.CLOSE:
            received.append(frame)
        assert b"pong" not in b"".join(frame.payload for frame in received)


async def test_a_forged_pong_is_not_a_receipt(node: Node, witnesses: tuple[SseClient, WsClient]) -> None:
    if not detached(node):
        pytest.skip("plain ASGI shows no pongs to the application")
    async with raw(node) as wire:
        session = await node.session_of("mallory")
        cursor = session.cursor
        assert cursor is not None
        epoch, offset = cursor.split("-")
        for forged in (f"{epoch}-{int(offset) + 1}", f"{epoch}-{2**53 - 1}", f"zz-{offset}", f"zz-{2**40}"):
            wire.send(frames.PONG, forged.encode())
        for harmless in (b"", b"hello", b"\xff\xff", b"a-b", f"{epoch}--1".encode(), f"{epoch}-01".encode()):
            wire.send(frames.PONG, harmless)
        wire.send(frames.TEXT, b'{"type":"ping"}')
        assert (await reply(wire))["type"] == "pong"
        assert node.composition.node.forged_receipts == 4
        assert session.confirmed <= int(offset)
        sent = await node.publish("user:mallory")
        assert (await reply(wire))["cursor"] == sent["cursor"]
        wire.send(frames.PONG, sent["cursor"].encode())
        wire.send(frames.TEXT, b'{"type":"ping"}')
        await reply(wire)
        assert session.confirmed == int(sent["cursor"].split("-")[1])
        assert await node.metric("dualcast_forged_receipts_total") == 4


async def test_a_ping_of_the_client_is_answered_with_its_own_payload(node: Node) -> None:
    async with raw(node) as wire:
        wire.send(frames.PING, b"\x00payload\xff")
        while (frame := await wire.frame()).opcode != frames.PONG:
            pass
        assert frame.payload == b"\x00payload\xff"


async def test_control_frames_inside_a_fragmented_message_are_served(node: Node) -> None:
    async with raw(node) as wire:
        wire.send(frames.TEXT, b'{"type":', final=False)
        wire.send(frames.PING, b"between")
        wire.send(frames.CONTINUATION, b'"ping"}')
        kinds: list[str] = []
        while len(kinds) < 2:
            frame = await wire.frame()
            if frame.payload == b"between":
                kinds.append("control")
            elif frame.opcode == frames.TEXT:
                kinds.append(json.loads(frame.payload)["type"])
        assert kinds == ["control", "pong"]


async def test_bytes_sent_one_by_one_are_a_message(node: Node) -> None:
    async with raw(node) as wire:
        for byte in masked(frames.TEXT, b'{"type":"ping","ref":"slow"}'):
            wire.write(bytes([byte]))
            await wire.writer.drain()
        assert (await reply(wire))["ref"] == "slow"


async def test_commands_sent_behind_the_upgrade_request_are_read(node: Node) -> None:
    if not detached(node):
        pytest.skip("uvicorn's own class drops what comes before its answer")
    early = masked(frames.TEXT, b'{"type":"ping","ref":"early"}')
    bearer = f"Bearer {node.token()}"
    async with await open_websocket(node.port, "/v1/socket", authorization=bearer, behind=early) as wire:
        assert (await reply(wire))["type"] == "welcome"
        assert (await reply(wire))["ref"] == "early"


async def test_a_close_of_the_client_is_echoed_and_the_session_gone(node: Node) -> None:
    async with raw(node) as wire:
        wire.send(frames.CLOSE, (3001).to_bytes(2, "big") + b"bye")
        assert (await until_close(wire)).close_code == 3001
        assert await wire.rest() == b""
    await node.until(lambda: not node.sessions, "the session to go")


@pytest.mark.parametrize(
    "headers",
    [
        {"sec_websocket_version": "12"},
        {"sec_websocket_key": "short"},
        {"sec_websocket_key": None},
        {"upgrade": "h2c"},
    ],
    ids=["version", "key", "no key", "no upgrade"],
)
async def test_a_bad_handshake_is_refused_as_http(node: Node, headers: dict[str, str | None]) -> None:
    bearer = f"Bearer {node.token()}"
    async with await open_websocket(node.port, "/v1/socket", authorization=bearer, **headers) as wire:
        assert wire.response is not None
        assert 400 <= wire.response.status < 500
    assert not node.sessions
