"""A publication reaches both transports with one cursor, on every engine and either set of classes."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest

from support.clients import TRANSPORTS, SseClient, open_client, open_socket, open_stream
from support.node import ENGINES, Node, running_node

pytestmark = pytest.mark.anyio

# Every engine on our classes; the stock classes and the plain loop where they make a difference.
SETUPS = [
    *(pytest.param((engine, True, True), id=f"{engine}-detached") for engine in ENGINES),
    pytest.param(("memory", False, True), id="memory-plain-asgi"),
    pytest.param(("redis", False, True), id="redis-plain-asgi"),
    pytest.param(("memory", True, False), id="memory-detached-asyncio"),
    pytest.param(("redis", False, False), id="redis-plain-asgi-asyncio"),
]


@pytest.fixture(params=SETUPS)
def setup(request: pytest.FixtureRequest) -> tuple[str, bool, bool]:
    found: tuple[str, bool, bool] = request.param
    return found


@pytest.fixture
def anyio_backend(setup: tuple[str, bool, bool]) -> tuple[str, dict[str, Any]]:
    return "asyncio", {"use_uvloop": setup[2]}


@pytest.fixture
async def node(setup: tuple[str, bool, bool]) -> AsyncIterator[Node]:
    async with running_node(
        setup[0], detach=setup[1], identity={"origins": ("https://app.example",)}
    ) as running:
        yield running


async def test_one_publication_reaches_both_transports_with_the_same_cursor(node: Node) -> None:
    async with (
        await open_stream(node.port, node.token()) as stream,
        await open_socket(node.port, node.token()) as socket,
    ):
        for client in (stream, socket):
            welcome = await client.welcome()
            assert welcome.body["channels"] == ["user:alice", "all"]
            assert welcome.cursor
        receipt = await node.publish("user:alice", {"text": "grüß\u2028 \n"}, id="p-1")
        (one,), (two,) = await stream.publications(1), await socket.publications(1)
        assert one.cursor == two.cursor == receipt["cursor"]
        two.body.pop("cursor")
        assert one.body == two.body
        assert one.body["id"] == "p-1" and one.body["event"] == "note" and one.body["channel"] == "user:alice"
        assert one.data == {"text": "grüß\u2028 \n"}


async def test_publications_arrive_in_offset_order_each_once(node: Node) -> None:
    channels = ["topic:a", "topic:b"]
    token = node.token(channels=["topic:*"])
    async with (
        await open_stream(node.port, token, channels=channels) as stream,
        await open_socket(node.port, token, channels=channels) as socket,
    ):
        for client in (stream, socket):
            await client.welcome()
        targets: list[Any] = [
            "topic:a",
            "user:alice",
            ["topic:b", "topic:a", "all"],
            "all",
            ["topic:a", "topic:b"],
        ]
        receipts = await asyncio.gather(
            *(node.publish(targets[number % 5], {"n": number}, id=f"n{number}") for number in range(40))
        )
        wanted = [r["cursor"] for r in sorted(receipts, key=lambda r: int(r["cursor"].split("-")[1]))]
        for client in (stream, socket):
            got = await client.publications(40)
            assert [one.cursor for one in got] == wanted


async def test_a_notification_over_rest_is_delivered_as_event_notification(node: Node) -> None:
    async with (
        await open_stream(node.port, node.token()) as stream,
        await open_socket(node.port, node.token("bob")) as socket,
    ):
        for client in (stream, socket):
            await client.welcome()
        answer = await node.http.post(
            "/v1/notifications",
            json={"to": {"users": ["alice", "bob"]}, "title": "Hello"},
            headers=node.auth("backend", "publisher"),
        )
        assert answer.status_code == 201
        for client, channel in ((stream, "user:alice"), (socket, "user:bob")):
            (got,) = await client.publications(1)
            assert (got.body["event"], got.body["channel"], got.data["title"]) == (
                "notification",
                channel,
                "Hello",
            )
            assert got.cursor == answer.json()["cursor"]


async def test_ephemeral_publications_arrive_live_without_a_cursor_and_are_never_recovered(
    node: Node,
) -> None:
    token = node.token()
    async with (
        await open_stream(node.port, token) as stream,
        await open_socket(node.port, token) as socket,
    ):
        starts = [(await client.welcome()).cursor for client in (stream, socket)]
        await node.session_of("alice", 2)
        receipt = await node.publish("user:alice", {"typing": True}, ephemeral=True)
        assert receipt["cursor"] == ""
        for client, start in zip((stream, socket), starts, strict=True):
            (got,) = await client.publications(1)
            assert got.data == {"typing": True}
            assert client.cursor == start
    last = await node.publish("user:alice", {"n": 1})
    async with await open_socket(node.port, token, cursor=starts[0]) as socket:
        await socket.welcome()
        (got,) = await socket.publications(1)
        assert got.cursor == last["cursor"]


@pytest.mark.parametrize("transport", TRANSPORTS)
async def test_an_audience_narrows_who_gets_a_copy_and_what_it_filters_counts_as_passed(
    node: Node, transport: str
) -> None:
    token = node.token()
    async with (
        await open_client(transport, node.port, token, device="mobile") as phone,
        await open_client(transport, node.port, token, device="desktop") as desk,
    ):
        await phone.welcome()
        connection = (await desk.welcome()).body["connection"]
        await node.publish("all", "phones", audience={"devices": ["mobile"]})
        await node.publish("all", "not bob", audience={"exclude_users": ["bob"]})
        await node.publish("all", "nobody", audience={"users": []})
        await node.publish("all", "admins", audience={"roles": ["admin"]})
        await node.publish("all", "not desk", audience={"exclude_connections": [connection]})
        end = await node.publish("all", "end")
        assert [got.data for got in await phone.publications(4)] == ["phones", "not bob", "not desk", "end"]
        assert [got.data for got in await desk.publications(2)] == ["not bob", "end"]
        assert phone.cursor == desk.cursor == end["cursor"]


async def test_the_stream_says_what_proxies_and_browsers_need_to_hear(node: Node) -> None:
    headers = {"origin": "https://app.example"}
    async with await open_stream(node.port, node.token(), headers=headers) as stream:
        assert stream.status == 200
        assert stream.headers["content-type"] == "text/event-stream; charset=utf-8"
        assert stream.headers["cache-control"] == "no-cache, no-transform"
        assert stream.headers["x-accel-buffering"] == "no"
        assert stream.headers["access-control-allow-origin"] == "https://app.example"
        assert "content-length" not in stream.headers
        welcome = await stream.welcome()
        settings = node.composition.node.settings
        assert welcome.retry_ms is not None
        assert settings.retry_min_ms <= welcome.retry_ms <= settings.retry_max_ms


@pytest.mark.parametrize("transport", TRANSPORTS)
async def test_the_welcome_names_who_and_what(node: Node, transport: str) -> None:
    token = node.token("zoë|1", channels=["topic:*"])
    async with await open_client(transport, node.port, token, channels=["topic:x,y", "topic:大厅"]) as client:
        body = (await client.welcome()).body
        assert body["channels"] == ["user:zoë|1", "all", "topic:x,y", "topic:大厅"]
        assert (body["tenant"], body["user"], body["stage"]) == ("default", "zoë|1", "fallback")
        listed = await node.http.get("/v1/connections", headers=node.auth("zoë|1"))
        assert [row["id"] for row in listed.json()["connections"]] == [body["connection"]]


async def test_a_head_request_on_the_stream_opens_no_session(node: Node) -> None:
    answer = await node.http.head("/v1/stream", headers=node.auth("alice"))
    assert answer.status_code in (200, 405)
    assert not node.sessions


async def test_a_large_publication_arrives_whole(node: Node) -> None:
    text = "€" * 20_000
    async with (
        await open_stream(node.port, node.token()) as stream,
        await open_socket(node.port, node.token()) as socket,
    ):
        for client in (stream, socket):
            await client.welcome()
        await node.publish("all", {"text": text})
        for client in (stream, socket):
            (got,) = await client.publications(1)
            assert got.data == {"text": text}


async def test_a_stream_that_is_quiet_is_kept_current_by_id_only_blocks(node: Node) -> None:
    async with (
        await open_stream(node.port, node.token()) as stream,
        await open_socket(node.port, node.token("bob")) as other,
    ):
        assert isinstance(stream, SseClient)
        await stream.welcome()
        await other.welcome()
        receipt = await node.publish("user:bob")
        await other.publications(1)
        await node.settled()
        node.sweep(4)
        while stream.parser.last_event_id != receipt["cursor"]:
            await stream.read_some()
        assert not stream.history[1:]
