"""What can be smuggled towards an SSE client: nothing. And bad requests, each answered, harming nobody."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from typing import Any

import pytest

from support.clients import open_socket, open_stream
from support.node import Node, running_node
from support.raw_http import connect

pytestmark = pytest.mark.anyio


@pytest.fixture(params=[True, False], ids=["detached", "plain-asgi"])
async def node(request: pytest.FixtureRequest) -> AsyncIterator[Node]:
    async with running_node("memory", detach=request.param) as running:
        yield running


EVIL = ["a\nb", "a\rb", "a\r\n\r\nid: 666\ndata: evil\n\n", "\n", "a\u0085b\nc", "\x00", "a\x0bb"]


@pytest.mark.parametrize("text", EVIL, ids=range(len(EVIL)))
async def test_line_ends_cannot_be_injected_into_sse_fields(node: Node, text: str) -> None:
    publisher = node.auth("backend", "publisher")
    async with (
        await open_stream(node.port, node.token()) as stream,
        await open_socket(node.port, node.token()) as socket,
    ):
        for client in (stream, socket):
            await client.welcome()
        good = {"channel": "all", "type": "note"}
        for bad in ({"type": text}, {"id": text}, {"channel": "topic:" + text}, {"idempotency_key": text}):
            answer = await node.http.post("/v1/publish", json={**good, **bad}, headers=publisher)
            assert 400 <= answer.status_code < 500, (bad, answer.text)
        if not any(mark in text for mark in "\x00"):
            body = {"to": {"all": True}, "title": "t", "content": text, "data": {text: text}}
            answer = await node.http.post("/v1/notifications", json=body, headers=publisher)
            assert answer.status_code == 201, answer.text
        await node.publish("all", {"text": text, text: [text]}, id="end")
        for client in (stream, socket):
            got = await client.until("publication", lambda got: got.body["id"] == "end")
            assert got.data == {"text": text, text: [text]}
            assert all("evil" not in one.kind for one in client.history)
            assert "666" not in (client.cursor or "")


async def test_unescaped_line_ends_in_the_json_of_a_publication_are_not_passed_on(node: Node) -> None:
    async with await open_stream(node.port, node.token()) as stream:
        await stream.welcome()
        raw = '{"channel":"all","type":"note",\r\n"data":\r\n{"a":\n\n[1,\r2]}}'
        answer = await node.http.post(
            "/v1/publish",
            content=raw.encode(),
            headers={**node.auth("b", "publisher"), "content-type": "application/json"},
        )
        assert answer.status_code == 201, answer.text
        (got,) = await stream.publications(1)
        assert got.data == {"a": [1, 2]}


@pytest.mark.parametrize(
    "name", ["bye", "welcome", "gap", "drain", "status", "auth_expired", "migrate", "open"]
)
async def test_a_publisher_cannot_speak_with_the_servers_voice(node: Node, name: str) -> None:
    answer = await node.http.post(
        "/v1/publish", json={"channel": "all", "type": name}, headers=node.auth("b", "publisher")
    )
    assert (answer.status_code, answer.json()["code"]) == (422, "reserved-type")


async def test_a_user_id_cannot_inject_into_the_welcome(node: Node) -> None:
    sub = 'a|b: c"d\\'
    async with await open_stream(node.port, node.token(sub)) as stream:
        assert (await stream.welcome()).body["user"] == sub


@pytest.mark.parametrize(
    "request_text",
    [
        "GET /v1/stream HTTP/1.1\r\nhost: x\r\nx: " + "y" * 20_000 + "\r\n\r\n",
        "GET /v1/stream?" + "a" * 20_000 + " HTTP/1.1\r\nhost: x\r\n\r\n",
        "BOGUS\r\n\r\n",
        "GET /v1/stream HTTP/1.1\r\nhost x\r\n\r\n",
    ],
    ids=["long header", "long query", "no request", "bad header"],
)
async def test_a_bad_request_is_answered_and_harms_nobody(node: Node, request_text: str) -> None:
    async with await open_stream(node.port, node.token()) as stream:
        await stream.welcome()
        async with await connect(node.port) as wire:
            wire.write(request_text.encode())
            answer = await wire.rest() if node.live.server.settings.detach else await wire.until(b"\r\n")
            assert answer == b"" or answer.startswith(b"HTTP/1.1 4"), answer[:100]
        await node.publish("all", "on")
        assert [got.data for got in await stream.publications(1)] == ["on"]


@pytest.mark.parametrize("name", ["instance", "device_id"])
@pytest.mark.parametrize("value", ["a\nb", "x" * 257, "\x00"])
async def test_bad_names_of_pages_and_devices_are_refused(node: Node, name: str, value: str) -> None:
    async with await open_stream(node.port, node.token(), **{name: value}) as stream:
        assert stream.status == 400
        assert stream.wire.response is not None
        body: dict[str, Any] = json.loads(stream.wire.response.body)
        assert body["code"] == "bad-id"
    async with await open_socket(node.port, node.token(), **{name: value}) as socket:
        assert (await socket.end()).code == 4000
