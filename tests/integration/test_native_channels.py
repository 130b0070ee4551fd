"""Who may listen to what, on both transports; tenants never see each other."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator

import pytest

from support.clients import TRANSPORTS, open_client, open_socket, open_stream
from support.node import ENGINES, Node, running_node

pytestmark = pytest.mark.anyio

SETUPS = [*((engine, True) for engine in ENGINES), ("memory", False)]


@pytest.fixture(params=SETUPS, ids=lambda setup: f"{setup[0]}-{'detached' if setup[1] else 'plain'}")
async def node(request: pytest.FixtureRequest) -> AsyncIterator[Node]:
    engine, detach = request.param
    async with running_node(engine, detach=detach, tenancy={"public_channels": ("topic:news-*",)}) as running:
        yield running


@pytest.mark.parametrize("transport", TRANSPORTS)
async def test_own_user_channel_and_all_need_no_asking(node: Node, transport: str) -> None:
    async with await open_client(transport, node.port, node.token("bob")) as client:
        assert (await client.welcome()).body["channels"] == ["user:bob", "all"]
        await node.publish("user:alice", "hers")
        await node.publish("user:bob", "his")
        await node.publish("all", "everybody's")
        assert [got.data for got in await client.publications(2)] == ["his", "everybody's"]


@pytest.mark.parametrize("transport", TRANSPORTS)
async def test_a_channel_by_claim_by_grant_and_by_public_pattern(node: Node, transport: str) -> None:
    await node.grant("room:7", "alice", "bob")
    wanted = ["task:9", "room:7", "topic:news-world"]
    token = node.token(channels=["task:9"])
    async with await open_client(transport, node.port, token, channels=wanted) as client:
        assert (await client.welcome()).body["channels"] == ["user:alice", "all", *wanted]
        state = await client.next()
        assert (state.kind, state.body) == ("state", {"channel": "task:9", "data": None, "status": "none"})
        for channel in wanted:
            await node.publish(channel, channel)
        assert [got.data for got in await client.publications(3)] == wanted


FORBIDDEN = ["user:bob", "room:7", "task:9", "topic:sports", "conversation:1", "batch:2", "presence:x"]


@pytest.mark.parametrize("channel", FORBIDDEN)
async def test_a_forbidden_channel_is_403_on_the_stream_and_4003_on_the_socket(
    node: Node, channel: str
) -> None:
    async with await open_stream(node.port, node.token(), channels=[channel]) as stream:
        assert stream.status == 403
        assert stream.wire.response is not None and b'"forbidden-channel"' in stream.wire.response.body
        assert stream.headers["content-type"] == "application/problem+json"
    async with await open_socket(node.port, node.token(), channels=[channel]) as socket:
        ended = await socket.end()
        assert (ended.code, ended.reason) == (4003, "forbidden-channel")
        named = {"code": 4003, "reason": "forbidden-channel", "channels": [channel]}
        assert [(got.kind, got.body) for got in socket.history] == [("bye", named)]
    async with await open_socket(node.port, node.token()) as socket:
        await socket.welcome()
        reply = await socket.ask("subscribe", channels=["topic:news-x", channel])
        assert (reply.kind, reply.body["code"]) == ("error", "forbidden-channel")
        # All or nothing: the allowed one was not taken either, and the connection stays.
        await node.publish(["topic:news-x"], "no")
        await node.publish(channel, "no")
        await node.publish("all", "yes")
        assert [got.data for got in await socket.publications(1)] == ["yes"]


async def test_a_refusal_names_every_channel_that_may_not_be_had_and_no_other(node: Node) -> None:
    """A client goes on without those it is told; it once had to guess which of them it was."""
    long = "topic:" + "ü" * 200
    wanted = ["topic:news-a", "room:closed", "topic:news-b", long]
    async with await open_stream(node.port, node.token(), channels=wanted) as stream:
        assert stream.status == 403 and stream.wire.response is not None
        problem = json.loads(stream.wire.response.body)
        assert (problem["code"], problem["channels"]) == ("forbidden-channel", ["room:closed", long])
    async with await open_socket(node.port, node.token(), channels=wanted) as socket:
        ended = await socket.end()
        assert (ended.code, ended.reason) == (4003, "forbidden-channel")
        assert [got.body["channels"] for got in socket.history] == [["room:closed", long]]
    async with await open_socket(node.port, node.token()) as socket:
        await socket.welcome()
        reply = await socket.ask("subscribe", channels=wanted)
        assert (reply.body["code"], reply.body["channels"]) == ("forbidden-channel", ["room:closed", long])
        assert reply.body["reason"] == "not allowed to subscribe to room:closed and 1 more"
        reply = await socket.ask("subscribe", channels=["topic:news-a", "topic:news-b"])
        assert reply.kind == "subscribed"


BAD_NAMES = ["nokind", "user:", "unknown:1", "topic:" + "x" * 1025, "topic:\x00", "topic:a\nb", "all:1"]


@pytest.mark.parametrize("name", BAD_NAMES, ids=range(len(BAD_NAMES)))
async def test_a_malformed_channel_is_422_on_the_stream_and_4000_on_the_socket(node: Node, name: str) -> None:
    async with await open_stream(node.port, node.token(), channels=[name]) as stream:
        assert stream.status == 422
    async with await open_socket(node.port, node.token(), channels=[name]) as socket:
        ended = await socket.end()
        assert (ended.code, ended.reason) == (4000, "bad-channel")
    async with await open_socket(node.port, node.token()) as socket:
        await socket.welcome()
        reply = await socket.ask("subscribe", channels=[name])
        assert (reply.kind, reply.body["code"]) in (("error", "bad-channel"), ("error", "bad-command"))
        assert (await socket.ask("ping")).kind == "pong"


async def test_a_channel_that_is_not_utf8_is_refused(node: Node) -> None:
    async with await open_stream(node.port, node.token()) as stream:
        await stream.welcome()
    answer = await node.http.get("/v1/stream?channels=topic:%ff%fe", headers=node.auth("alice"))
    assert (answer.status_code, answer.json()["code"]) == (422, "bad-utf8")


async def test_a_withdrawn_grant_lets_nobody_in_any_more(node: Node) -> None:
    await node.grant("room:7", "alice")
    async with await open_socket(node.port, node.token(), channels=["room:7"]) as socket:
        await socket.welcome()
    answer = await node.http.delete("/v1/channels/room:7/grants", headers=node.auth("b", "publisher"))
    assert answer.status_code == 204
    async with await open_stream(node.port, node.token(), channels=["room:7"]) as stream:
        assert stream.status == 403


async def test_more_channels_than_a_session_may_have_are_refused(node: Node) -> None:
    token = node.token(channels=["topic:*"])
    many = [f"topic:{number}" for number in range(127)]
    async with await open_socket(node.port, token, channels=many) as socket:
        assert (await socket.end()).code == 4000
    async with await open_socket(node.port, token, channels=many[:126]) as socket:
        await socket.welcome()
        reply = await socket.ask("subscribe", channels=["topic:one-more"])
        assert (reply.kind, reply.body["code"]) == ("error", "too-many-channels")
        assert (await socket.ask("subscribe", channels=many[:5])).kind == "subscribed"
    async with await open_stream(node.port, token, channels=many) as stream:
        assert stream.status == 413


@pytest.mark.parametrize("transport", TRANSPORTS)
async def test_tenants_never_see_each_other(node: Node, transport: str) -> None:
    channels = ["topic:shared", "room:7"]
    token = node.token(channels=channels)
    foreign = node.token(tenant="other", channels=channels)
    await node.grant("room:8", "alice")
    async with (
        await open_client(transport, node.port, token, channels=channels) as here,
        await open_client(transport, node.port, foreign, channels=channels) as there,
    ):
        welcome = await here.welcome()
        assert welcome.body["tenant"] == "default"
        assert (await there.welcome()).body["tenant"] == "other"
        for number, channel in enumerate(["all", "user:alice", "topic:shared", "room:7"]):
            await node.publish(channel, number, id=f"same-id-{number}")
            await node.publish(channel, -number - 1, tenant="other", id=f"same-id-{number}")
        assert [got.data for got in await here.publications(4)] == [0, 1, 2, 3]
        assert [got.data for got in await there.publications(4)] == [-1, -2, -3, -4]
        listed = await node.http.get("/v1/connections", headers=node.auth("root", "admin", tenant="other"))
        assert {row["id"] for row in listed.json()["connections"]}.isdisjoint({welcome.body["connection"]})
        # An admin of the other tenant cannot end it, nor revoke its user.
        boss = node.auth("root", "admin", tenant="other")
        await node.http.delete(f"/v1/connections/{welcome.body['connection']}", headers=boss)
        await node.http.delete("/v1/connections", params={"user": "alice"}, headers=boss)
        await there.end()
        await node.publish("all", "still here")
        assert [got.data for got in await here.publications(1)] == ["still here"]
    # A grant of one tenant says nothing in another.
    async with await open_stream(
        node.port, foreign.replace(foreign, node.token(tenant="other")), channels=["room:8"]
    ) as stream:
        assert stream.status in (401, 403)


@pytest.mark.parametrize("transport", TRANSPORTS)
async def test_history_grants_and_connections_of_another_tenant_stay_hidden(
    node: Node, transport: str
) -> None:
    await node.publish("topic:x", "secret")
    await node.grant("topic:x", "alice")
    async with await open_client(transport, node.port, node.token()) as client:
        await client.welcome()
        boss = node.auth("root", "admin", tenant="other")
        history = await node.http.get("/v1/channels/topic:x/history", headers=boss)
        assert history.status_code == 200 and "secret" not in history.text
        grants = await node.http.get("/v1/channels/topic:x/grants", headers=boss)
        assert grants.json()["members"] == []
        assert (await node.http.get("/v1/connections", headers=boss)).json()["connections"] == []


@pytest.mark.parametrize("transport", TRANSPORTS)
async def test_a_key_of_one_tenant_signs_for_no_other(node: Node, transport: str) -> None:
    from support.tokens import key, token

    forged = token(key(tenant="other"), sub="alice", tenant="default")
    async with await open_client(transport, node.port, forged) as client:
        if transport == "sse":
            assert client.status == 401  # type: ignore[attr-defined]
        else:
            assert (await client.end()).code == 4001
