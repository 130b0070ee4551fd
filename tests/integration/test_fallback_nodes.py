"""Fallback over two nodes and one Redis: the socket on one node, the stream on the other, and what becomes of
them when a node or Redis dies."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest

from support.clients import SseClient, WsClient, open_socket, open_stream
from support.node import Node, Place, place, running_node
from support.redis_server import RedisServer
from support.server_process import ServerProcess, token

pytestmark = pytest.mark.anyio


@asynccontextmanager
async def two_nodes(where: Place) -> AsyncIterator[tuple[Node, Node]]:
    async with running_node(where) as first, running_node(where) as second:
        yield first, second


async def stream(node: Node, instance: str = "tab", **how: Any) -> SseClient:
    client = await open_stream(node.port, node.token(), instance=instance, **how)
    await client.welcome()
    return client


async def socket(node: Node, instance: str = "tab", **how: Any) -> WsClient:
    client = await open_socket(node.port, node.token(), instance=instance, **how)
    await client.welcome()
    return client


async def mute(node: Node, count: int = 1) -> None:
    def muted() -> int:
        return sum(session.muted for session in node.sessions)

    await node.until(lambda: muted() == count, f"{count} muted streams")


def numbers(client: SseClient | WsClient) -> list[int]:
    return [got.data["n"] for got in client.history if got.kind == "publication"]


async def until(client: SseClient | WsClient, number: int) -> list[int]:
    await client.until("publication", lambda got: bool(got.data["n"] == number))
    return numbers(client)


@pytest.fixture
async def nodes(anyio_backend: object) -> AsyncIterator[tuple[Node, Node]]:
    async with place("redis") as where, two_nodes(where) as both:
        yield both


async def test_the_stream_keeps_its_place_by_receipts_on_the_other_node(nodes: tuple[Node, Node]) -> None:
    far, near = nodes
    async with await stream(near) as sse, await socket(far) as ws:
        await mute(near)
        last = await near.publish("user:alice", {"n": 1})
        offset = int(last["cursor"].partition("-")[2])
        assert await until(ws, 1) == [1]
        await far.settled()
        far.sweep()
        (muted,) = near.sessions
        await near.until(lambda: muted.position >= offset, "the receipt")
        near.sweep()
        while sse.parser.last_event_id != last["cursor"]:
            await sse.read_some()
        assert numbers(sse) == []


async def test_the_end_of_the_socket_brings_the_stream_back(nodes: tuple[Node, Node]) -> None:
    far, near = nodes
    async with await stream(near) as sse:
        for number in (1, 2):  # by a close, then by a reset
            ws = await socket(far)
            await mute(near)
            if number == 1:
                await ws.close()
            else:
                ws.socket.transport.abort()
            await near.publish("user:alice", {"n": number})
            assert (await until(sse, number))[-1] == number


async def test_an_unsubscribed_channel_comes_by_the_stream(nodes: tuple[Node, Node]) -> None:
    far, near = nodes
    await near.grant("topic:x", "alice")
    async with (
        await stream(near, channels=["topic:x"]) as sse,
        await socket(far, channels=["topic:x"]) as ws,
    ):
        await mute(near)
        await ws.ask("unsubscribe", channels=["topic:x"])
        await near.publish("topic:x", {"n": 1})
        assert await until(sse, 1) == [1]


async def test_a_publication_to_the_muted_stream_goes_by_the_socket_elsewhere(
    nodes: tuple[Node, Node],
) -> None:
    far, near = nodes
    sse = await open_stream(near.port, near.token(), instance="tab")
    connection = (await sse.welcome()).body["connection"]
    async with sse, await socket(far) as ws:
        await mute(near)
        await near.publish("user:alice", {"n": 1}, audience={"connections": [connection]})
        assert await until(ws, 1) == [1]


async def test_tenants_and_users_with_the_same_instance_do_not_meet(nodes: tuple[Node, Node]) -> None:
    far, near = nodes
    bob = await open_stream(near.port, near.token("bob"), instance="tab")
    other = await open_stream(near.port, near.token(tenant="other"), instance="tab")
    async with bob, other, await stream(near), await socket(far):
        await mute(near)
        assert [s.muted for s in near.sessions if s.principal.sub == "bob"] == [False]
        assert [s.muted for s in near.sessions if s.principal.tenant == "other"] == [False]


async def test_redis_comes_back_empty() -> None:
    """Everybody registers again; what follows comes once, and by the stream when the socket ends."""
    with RedisServer() as server:
        async with (
            place("redis", redis_url=server.url) as where,
            two_nodes(where) as (far, near),
            await stream(near) as sse,
            await socket(far) as ws,
        ):
            await mute(near)
            server.kill()
            await near.until(lambda: not near.composition.hub.available, "the bus away")
            server.start()
            exchange = near.composition.features.exchange
            assert exchange is not None
            await near.until(lambda: exchange.lost > 0, "the loss of the leases")
            for node in (far, near):
                await node.until(lambda node=node: node.composition.hub.available, "the bus back")
            await near.publish("user:alice", {"n": 1})
            await until(ws, 1)
            far.sweep()
            await mute(near)
            await ws.close()
            await near.publish("user:alice", {"n": 2})
            assert (await until(sse, 2))[-1] == 2


async def publish(server: ServerProcess, number: int) -> None:
    async with httpx.AsyncClient(base_url=server.base_url) as http:
        answer = await http.post(
            "/v1/publish",
            json={"channel": "user:alice", "type": "note", "data": {"n": number}},
            headers={"Authorization": "Bearer " + token("backend", roles=["publisher"])},
        )
    assert answer.status_code == 201, answer.text


async def test_a_node_is_killed_with_the_socket_and_then_the_one_with_the_stream(tmp_path: Path) -> None:
    muted = "dualcast_sessions_muted"
    bearer = token("alice")
    with RedisServer() as redis:
        folders = [tmp_path / name for name in ("far", "near")]
        for folder in folders:
            folder.mkdir()
        async with (
            ServerProcess("redis", folders[0], redis_url=redis.url) as far,
            ServerProcess("redis", folders[1], redis_url=redis.url) as near,
        ):
            sse = await open_stream(near.port, bearer, instance="tab")
            ws = await open_socket(far.port, bearer, instance="tab")
            async with sse, ws:
                await sse.welcome()
                await ws.welcome()
                await near.until_metric(muted, lambda value: value == 1)
                await publish(near, 1)
                assert await until(ws, 1) == [1]
                far.kill()
                await publish(near, 2)
                await near.until_metric(muted, lambda value: value == 0)
                # Its lease is over, which takes as long as one read of the client waits.
                found = await until(sse, 2)
                assert found in ([1, 2], [2]), "1 is repeated unless it was confirmed"
            await far.start()
            sse = await open_stream(near.port, bearer, instance="tab", last_event_id=sse.cursor)
            ws = await open_socket(far.port, bearer, instance="tab", cursor=sse.cursor)
            async with sse, ws:
                await sse.welcome()
                await ws.welcome()
                await near.until_metric(muted, lambda value: value == 1)
                await publish(near, 3)
                assert await until(ws, 3) == [3]
                near.kill()
                again = await open_stream(far.port, bearer, instance="tab", last_event_id=sse.cursor)
                async with again:
                    await again.welcome()
                    await far.until_metric(muted, lambda value: value == 1)
                    await ws.close()
                    await publish(far, 4)
                    assert (await until(again, 4))[-1] == 4
