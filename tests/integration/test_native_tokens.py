"""How a token gets in, and how a bad one does not, on both transports."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest

from support.clients import TRANSPORTS, Client, SseClient, open_client, open_socket, open_stream
from support.node import ENGINES, Node, running_node
from support.raw_http import open_websocket
from support.tokens import claims, forge, key, token

pytestmark = pytest.mark.anyio

ALLOWED = "https://app.example"
FOREIGN = "https://evil.example"
SETUPS = [*((engine, True) for engine in ENGINES), ("memory", False)]


@pytest.fixture(params=SETUPS, ids=lambda setup: f"{setup[0]}-{'detached' if setup[1] else 'plain'}")
async def node(request: pytest.FixtureRequest) -> AsyncIterator[Node]:
    engine, detach = request.param
    async with running_node(engine, detach=detach, identity={"origins": (ALLOWED,)}) as running:
        yield running


async def works(node: Node, client: Client) -> None:
    """The client is alice's, and is served."""
    assert (await client.welcome()).body["user"] == "alice"
    await node.publish("user:alice", "hello")
    await client.until("publication", lambda got: got.data == "hello")


async def refused(client: Client, code: int, *, status: int = 401) -> None:
    """The stream answers `status` as a problem, the socket closes with `code`; nothing was delivered."""
    if isinstance(client, SseClient):
        assert client.status == status, client.wire.response
        assert client.headers["content-type"] == "application/problem+json"
    else:
        assert (await client.end()).code == code
    assert not client.history


# ── where it comes from ─────────


@pytest.mark.parametrize("transport", TRANSPORTS)
async def test_a_token_in_the_header_or_the_query(node: Node, transport: str) -> None:
    async with await open_client(transport, node.port, node.token()) as client:
        await works(node, client)
    async with await open_client(transport, node.port, token=node.token()) as client:
        await works(node, client)
    async with await open_client(transport, node.port) as client:
        await refused(client, 4001)


async def test_a_token_in_the_subprotocol_list(node: Node) -> None:
    offered = ["dualcast", "bearer." + node.token()]
    async with await open_socket(node.port, subprotocols=offered) as socket:
        assert socket.socket.subprotocol == "dualcast"
        await works(node, socket)
    async with await open_socket(node.port, subprotocols=["dualcast", "bearer.rubbish"]) as socket:
        assert (await socket.end()).code == 4001


async def test_a_websocket_ticket_opens_one_connection(node: Node) -> None:
    ticket = await node.ticket("websocket")
    async with await open_socket(node.port, ticket=ticket) as socket:
        await works(node, socket)
        async with await open_socket(node.port, ticket=ticket) as again:
            await refused(again, 4001)
    async with await open_socket(node.port, ticket=ticket) as again:
        await refused(again, 4001)
    async with await open_stream(node.port, ticket=await node.ticket("websocket")) as stream:
        await refused(stream, 4001)


async def test_a_websocket_ticket_used_many_times_at_once_opens_one_connection(node: Node) -> None:
    ticket = await node.ticket("websocket")
    sockets = await asyncio.gather(*(open_socket(node.port, ticket=ticket) for _ in range(8)))
    kinds = []
    for socket in sockets:
        async with socket:
            try:
                kinds.append((await socket.next()).kind)
            except Exception as error:
                kinds.append(str(getattr(error, "code", error)))
    assert sorted(kinds) == ["4001"] * 7 + ["welcome"]


async def test_an_sse_ticket_stays_good_for_reconnects_of_its_stream(node: Node) -> None:
    ticket = await node.ticket("sse")
    async with await open_stream(node.port, ticket=ticket) as stream:
        await works(node, stream)
        cursor = stream.cursor
    await node.publish("user:alice", "meanwhile")
    for _ in range(2):
        async with await open_stream(node.port, ticket=ticket, last_event_id=cursor) as stream:
            await stream.welcome()
            assert (await stream.next()).data == "meanwhile"
    async with await open_socket(node.port, ticket=await node.ticket("sse")) as socket:
        await refused(socket, 4001)


@pytest.mark.parametrize("transport", TRANSPORTS)
async def test_a_made_up_ticket_is_refused(node: Node, transport: str) -> None:
    good = await node.ticket("sse" if transport == "sse" else "websocket")
    for ticket in ("x", good[:-1], good[:-1] + ("A" if good[-1] != "A" else "B"), "é", "%00"):
        async with await open_client(transport, node.port, ticket=ticket) as client:
            await refused(client, 4001)


@pytest.mark.parametrize("transport", TRANSPORTS)
async def test_the_cookie_counts_from_an_allowed_origin_only(node: Node, transport: str) -> None:
    cookie = {"Cookie": f"a=b; dualcast_token={node.token()}; c=d"}
    own = "http://test" if transport == "sse" else f"http://127.0.0.1:{node.port}"
    for origin in (ALLOWED, own):
        async with await open_client(transport, node.port, headers={**cookie, "Origin": origin}) as client:
            await works(node, client)
    for origin in (FOREIGN, "null", ALLOWED + ".evil.example", "http://app.example"):
        async with await open_client(transport, node.port, headers={**cookie, "Origin": origin}) as client:
            await refused(client, 4003, status=403)
    async with await open_client(transport, node.port, headers=cookie) as client:
        await refused(client, 4003, status=403)


async def test_a_foreign_page_opens_no_websocket_whatever_its_token(node: Node) -> None:
    for origin in (FOREIGN, "null", "http://app.example", ALLOWED + ":444"):
        async with await open_socket(node.port, node.token(), headers={"Origin": origin}) as socket:
            ended = await socket.end()
            assert (ended.code, ended.reason) == (4003, "origin")
    async with await open_socket(node.port, node.token(), headers={"Origin": ALLOWED}) as socket:
        await works(node, socket)


async def test_a_foreign_page_cannot_read_a_stream(node: Node) -> None:
    async with await open_stream(node.port, node.token(), headers={"Origin": FOREIGN}) as stream:
        assert "access-control-allow-origin" not in stream.headers


async def test_credentials_given_twice_are_refused(node: Node) -> None:
    good, bad = node.token(), node.token("bob")
    for query in (
        f"token={good}&token={bad}",
        f"token={good}&%74oken={bad}",
        f"ticket=a&ticket=b&token={good}",
    ):
        answer = await node.http.get("/v1/stream?" + query)
        assert answer.status_code == 400, query
        async with await open_websocket(node.port, "/v1/socket?" + query) as wire:
            assert (await wire.frame()).close_code == 4000, query


# ── what it says ─────────


def bad_tokens(node: Node) -> dict[str, tuple[str, int]]:
    now = claims()["iat"]
    return {
        "rubbish": ("rubbish", 4001),
        "empty": ("", 4001),
        "expired": (node.token(life_s=-5), 4201),
        "no exp": (token(exp=None), 4001),
        "no sub": (token(sub=None), 4001),
        "empty sub": (token(sub=""), 4001),
        "number sub": (token(sub=7), 4001),
        "not yet": (token(nbf=now + 600), 4001),
        "alg none": (forge({"alg": "none", "typ": "JWT"}, claims()), 4001),
        "wrong key": (forge({"alg": "HS256"}, claims(), b"k" * 40), 4001),
        "other algorithm": (token(key("RS256")), 4001),
        "foreign key": (token(key(tenant="other"), tenant="default"), 4001),
        "unknown tenant": (token(tenant="nobody"), 4001),
        "tenant injection": (token(tenant="default:x"), 4001),
        "changed": (token()[:-4] + "AAAA", 4001),
        "control character in sub": (token(sub="a\nb"), 4001),
        "long sub": (token(sub="a" * 300), 4001),
    }


@pytest.mark.parametrize("transport", TRANSPORTS)
async def test_a_bad_token_is_refused(node: Node, transport: str) -> None:
    for name, (text, code) in bad_tokens(node).items():
        async with await open_client(transport, node.port, text) as client:
            try:
                await refused(client, code)
            except AssertionError as error:
                raise AssertionError(f"{name}: {error}") from error
            if isinstance(client, SseClient):
                assert client.headers["www-authenticate"].startswith("Bearer"), name
                body = client.wire.response.body if client.wire.response else b""
                assert text == "" or text.encode() not in body, name
    assert not node.sessions


@pytest.mark.parametrize("transport", TRANSPORTS)
async def test_a_revoked_token_is_refused(node: Node, transport: str) -> None:
    text = node.token(jti="t-1")
    answer = await node.http.put(
        "/v1/revocations", json={"token_id": "t-1"}, headers=node.auth("root", "admin")
    )
    assert answer.status_code == 202
    async with await open_client(transport, node.port, text) as client:
        await refused(client, 4001)
    async with await open_client(transport, node.port, node.token(jti="t-2")) as client:
        await works(node, client)
