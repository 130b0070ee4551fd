"""Tokens that end while a connection lives: expiry, refresh, revocation, closing by command, on any node."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator

import pytest

from support.clients import TRANSPORTS, Client, SseClient, open_client, open_socket, open_stream
from support.node import ENGINES, Node, place, running_node

pytestmark = pytest.mark.anyio

SETUPS = [*((engine, True) for engine in ENGINES), ("memory", False)]
QUICK = {"sweep_s": 1}


@pytest.fixture(params=SETUPS, ids=lambda setup: f"{setup[0]}-{'detached' if setup[1] else 'plain'}")
async def node(request: pytest.FixtureRequest) -> AsyncIterator[Node]:
    engine, detach = request.param
    async with running_node(engine, detach=detach, session=QUICK) as running:
        yield running


def last_words(client: Client) -> list[str]:
    return [got.kind for got in client.history[-2:]]


async def test_a_stream_ends_with_its_token_and_the_reconnect_gets_401(node: Node) -> None:
    short = node.token(life_s=2)
    async with await open_stream(node.port, short) as stream:
        welcome = await stream.welcome()
        assert welcome.body["expires_at"] <= int(time.time()) + 2
        expiring = await stream.next()
        assert (expiring.kind, expiring.body) == ("auth_expiring", {"expires_at": welcome.body["expires_at"]})
        await stream.end()
        assert last_words(stream) == ["auth_expired", "bye"]
        assert stream.history[-1].retry_ms == 0
        cursor = stream.cursor
    async with await open_stream(node.port, short, last_event_id=cursor) as stream:
        assert stream.status == 401
    sent = await node.publish("user:alice", "meanwhile")
    async with await open_stream(node.port, node.token(), last_event_id=cursor) as stream:
        await stream.welcome()
        (got,) = await stream.publications(1)
        assert got.cursor == sent["cursor"]


async def test_a_socket_ends_with_its_token(node: Node) -> None:
    async with await open_socket(node.port, node.token(life_s=2)) as socket:
        await socket.welcome()
        assert (await socket.next()).kind == "auth_expiring"
        ended = await socket.end()
        assert (ended.code, ended.reason) == (4201, "token-expired")
        assert last_words(socket) == ["auth_expired", "bye"]


async def test_a_refresh_in_place_outlives_the_first_token(node: Node) -> None:
    async with (
        await open_socket(node.port, node.token(life_s=2)) as socket,
        await open_socket(node.port, node.token(life_s=2)) as idle,
    ):
        await socket.welcome()
        await idle.welcome()
        assert (await socket.next()).kind == "auth_expiring"
        assert (await socket.ask("authenticate", token=node.token())).kind == "authenticated"
        assert (await idle.end()).code == 4201
        await node.publish("user:alice", "after")
        assert [got.data for got in await socket.publications(1)] == ["after"]
        # The next warning comes for the new token.
        session = await node.session_of("alice")
        assert session.warned is False


@pytest.mark.parametrize("transport", TRANSPORTS)
@pytest.mark.parametrize("by", ["token_id", "user"])
async def test_a_revocation_ends_live_connections(node: Node, transport: str, by: str) -> None:
    text = node.token("mallory", jti="bad-1")
    async with (
        await open_client(transport, node.port, text) as client,
        await open_client(transport, node.port, node.token("alice", jti="good-1")) as other,
    ):
        await client.welcome()
        await other.welcome()
        body = {"token_id": "bad-1"} if by == "token_id" else {"user": "mallory"}
        answer = await node.http.put("/v1/revocations", json=body, headers=node.auth("root", "admin"))
        assert answer.status_code == 202
        ended = await client.end()
        assert ended.code in ((4004,) if transport == "ws" else (None,))
        assert last_words(client) == ["auth_expired", "bye"]
        await refuses(node, transport, text)
        await node.publish("all", "others go on")
        assert [got.data for got in await other.publications(1)] == ["others go on"]


async def refuses(node: Node, transport: str, text: str) -> None:
    async with await open_client(transport, node.port, text) as client:
        if isinstance(client, SseClient):
            assert client.status == 401
        else:
            assert (await client.end()).code == 4001


@pytest.mark.parametrize("transport", TRANSPORTS)
async def test_delete_ends_one_connection_and_leaves_the_user_his_other(node: Node, transport: str) -> None:
    boss = node.auth("root", "admin")
    async with (
        await open_client(transport, node.port, node.token()) as client,
        await open_client(transport, node.port, node.token()) as other,
    ):
        ident = (await client.welcome()).body["connection"]
        await other.welcome()
        stranger = await node.http.delete(f"/v1/connections/{ident}", headers=node.auth("bob"))
        assert stranger.status_code == 403
        assert (await node.http.delete(f"/v1/connections/{ident}", headers=boss)).status_code == 202
        ended = await client.end()
        assert ended.code in (4004, None)
        assert client.history[-1].body["reason"] == "revoked"
        await node.publish("user:alice", "on")
        assert [got.data for got in await other.publications(1)] == ["on"]


async def test_delete_by_user_without_revoking_sends_him_away_for_a_while(node: Node) -> None:
    async with await open_socket(node.port, node.token()) as socket:
        await socket.welcome()
        answer = await node.http.delete(
            "/v1/connections", params={"user": "alice", "revoke": "false"}, headers=node.auth("root", "admin")
        )
        assert answer.status_code == 202
        assert (await socket.end()).code == 4101
    async with await open_socket(node.port, node.token()) as socket:
        await socket.welcome()


async def test_an_sse_ticket_ends_with_the_revocation_of_its_user(node: Node) -> None:
    ticket = await node.ticket("sse")
    async with await open_stream(node.port, ticket=ticket) as stream:
        await stream.welcome()
        await node.http.put("/v1/revocations", json={"user": "alice"}, headers=node.auth("root", "admin"))
        await stream.end()
        cursor = stream.cursor
    async with await open_stream(node.port, ticket=ticket, last_event_id=cursor) as stream:
        assert stream.status == 401


@pytest.mark.parametrize("transport", TRANSPORTS)
@pytest.mark.parametrize("how", ["revoke", "delete connection", "delete user"])
async def test_a_command_reaches_the_second_node_over_redis(transport: str, how: str) -> None:
    async with place("redis") as where, running_node(where) as one, running_node(where) as two:
        text = two.token("mallory", jti="bad-1")
        async with await open_client(transport, two.port, text) as client:
            ident = (await client.welcome()).body["connection"]
            boss = one.auth("root", "admin")
            if how == "revoke":
                answer = await one.http.put("/v1/revocations", json={"token_id": "bad-1"}, headers=boss)
            elif how == "delete connection":
                answer = await one.http.delete(f"/v1/connections/{ident}", headers=boss)
            else:
                answer = await one.http.delete("/v1/connections", params={"user": "mallory"}, headers=boss)
            assert answer.status_code == 202
            ended = await client.end()
            assert ended.code in (4004, None)
        if how != "delete connection":
            await refuses(two, transport, text)


async def test_a_grant_given_on_one_node_counts_on_the_other() -> None:
    async with (
        place("redis") as where,
        running_node(where) as one,
        running_node(where) as two,
        await open_socket(two.port, two.token()) as socket,
    ):
        await socket.welcome()
        assert (await socket.ask("subscribe", channels=["room:1"])).kind == "error"
        await one.grant("room:1", "alice")
        while (await socket.ask("subscribe", channels=["room:1"])).kind == "error":
            pass
        await one.publish("room:1", "hello")
        assert [got.data for got in await socket.publications(1)] == ["hello"]
