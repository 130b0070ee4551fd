"""Limits at the door, and what they mean to a client: an `EventSource` gets no status that ends it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest

from dualcast.tenancy.model import Tenant, TenantSettings
from dualcast_migration.policy import StageRecord
from dualcast_migration.stage import Stage
from support.clients import TRANSPORTS, Client, SseClient, open_client, open_socket, open_stream
from support.node import Node, running_node

pytestmark = pytest.mark.anyio

PLAIN = [pytest.param(True, id="detached"), pytest.param(False, id="plain-asgi")]


@pytest.fixture(params=PLAIN)
def detach(request: pytest.FixtureRequest) -> bool:
    return bool(request.param)


@pytest.fixture
async def three(detach: bool) -> AsyncIterator[Node]:
    """A node with three connections per user."""
    async with running_node("memory", detach=detach, limits={"connections_per_user": 3}) as node:
        yield node


async def opened(node: Node, transport: str, sub: str = "alice", **how: Any) -> Client:
    client = await open_client(transport, node.port, node.token(sub), **how)
    await client.welcome()
    return client


@pytest.mark.parametrize("transport", TRANSPORTS)
async def test_the_newest_connection_wins_and_the_oldest_is_told(three: Node, transport: str) -> None:
    other = await opened(three, transport, "bob")
    clients = [await opened(three, transport) for _ in range(5)]
    for replaced in clients[:2]:
        ended = await replaced.end()
        assert ended.code == (4009 if transport == "ws" else None)
        bye = replaced.history[-1]
        assert (bye.kind, bye.body["code"], bye.body["reason"]) == ("bye", 4009, "replaced")
        if transport == "sse":
            # It comes back by itself; a long delay keeps two pages from evicting each other in turn.
            assert bye.retry_ms == 60_000
        else:
            assert bye.retry_ms is None
    await three.publish("all", "hello")
    for client in (*clients[2:], other):
        assert [got.data for got in await client.publications(1)] == ["hello"]
    for client in (*clients, other):
        await client.close()


async def test_the_limit_counts_both_transports_together(three: Node) -> None:
    clients = [await opened(three, transport) for transport in ("sse", "ws", "sse", "ws")]
    await clients[0].end()
    assert clients[0].history[-1].body["reason"] == "replaced"
    assert len(three.sessions) == 3
    for client in clients:
        await client.close()


@pytest.mark.parametrize("transport", TRANSPORTS)
async def test_many_connects_at_once_stay_within_the_users_limit(three: Node, transport: str) -> None:
    clients = await asyncio.gather(*(open_client(transport, three.port, three.token()) for _ in range(20)))
    for client in clients:
        await client.welcome()
    await three.until(lambda: len(three.sessions) <= 3, "the surplus to be replaced")
    assert len(three.sessions) == 3
    for client in clients:
        await client.close()


async def test_a_connection_to_the_users_channel_by_somebody_else_does_not_count(three: Node) -> None:
    boss = await open_socket(three.port, three.token("root", roles=["admin"]), channels=["user:alice"])
    await boss.welcome()
    clients = [await opened(three, "ws") for _ in range(3)]
    await three.publish("user:alice", "hello")
    for client in (boss, *clients):
        assert [got.data for got in await client.publications(1)] == ["hello"]
        await client.close()


def forwarded(address: str) -> dict[str, str]:
    """As a trusted proxy on this machine passes it on."""
    return {"X-Forwarded-For": address}


async def comes_back(stream: SseClient) -> None:
    """200, `retry:`, end."""
    assert stream.status == 200
    assert stream.headers["content-type"].startswith("text/event-stream")
    await stream.end()
    assert not stream.history
    assert stream.parser.retry_ms is not None and stream.parser.retry_ms >= 1000


async def test_too_many_connections_of_an_address(detach: bool) -> None:
    async with running_node("memory", detach=detach, limits={"connections_per_ip": 2}) as node:
        here, there = forwarded("192.0.2.1"), forwarded("192.0.2.2")
        clients = [await opened(node, transport, headers=here) for transport in TRANSPORTS]
        async with await open_stream(node.port, node.token(), headers=here) as stream:
            await comes_back(stream)
        async with await open_socket(node.port, node.token(), headers=here) as socket:
            ended = await socket.end()
            assert (ended.code, ended.reason) == (4101, "address-limit")
        clients.append(await opened(node, "sse", headers=there))
        await clients[0].close()
        await node.until(lambda: node.composition.node.per_address.get("192.0.2.1") == 1, "one to leave")
        clients.append(await opened(node, "ws", headers=here))
        # This machine itself is not limited.
        clients += [await opened(node, "sse") for _ in range(3)]
        for client in clients:
            await client.close()
        await node.until(lambda: not node.composition.node.per_address, "all addresses to be forgotten")


async def test_too_many_handshakes_of_an_address_in_a_second(detach: bool) -> None:
    limits = {"handshakes_per_ip_per_s": 1, "burst_s": 2}
    async with running_node("memory", detach=detach, limits=limits) as node:
        here = forwarded("192.0.2.1")
        for _ in range(2):
            await (await opened(node, "sse", headers=here)).close()
        async with await open_stream(node.port, node.token(), headers=here) as stream:
            await comes_back(stream)
        async with await open_socket(node.port, node.token(), headers=here) as socket:
            assert (await socket.end()).code == 4101
        await (await opened(node, "ws", headers=forwarded("192.0.2.9"))).close()


async def test_a_full_node_sends_new_clients_away_for_a_while(detach: bool) -> None:
    async with running_node("memory", detach=detach, limits={"connections": 2}) as node:
        clients = [await opened(node, transport) for transport in TRANSPORTS]
        async with await open_stream(node.port, node.token("bob")) as stream:
            await comes_back(stream)
        async with await open_socket(node.port, node.token("bob")) as socket:
            assert (await socket.end()).code == 4101
        for client in clients:
            await client.close()


async def set_stage(node: Node, stage: str) -> None:
    await node.composition.tenants.put(Tenant(id="default", stage=StageRecord(stage=Stage(stage))))


@pytest.mark.parametrize("stage", ["sse", "shadow", "fallback", "websocket"])
async def test_the_stage_decides_whether_there_is_a_websocket(detach: bool, stage: str) -> None:
    async with running_node("memory", detach=detach, tenancy={"stage": stage, "file": ""}) as node:
        async with await open_socket(node.port, node.token()) as socket:
            if stage == "sse":
                ended = await socket.end()
                assert (ended.code, ended.reason) == (4010, "stage")
                assert not socket.history
            else:
                assert (await socket.welcome()).body["stage"] == stage
        async with await open_stream(node.port, node.token()) as stream:
            assert (await stream.welcome()).body["stage"] == stage


async def test_a_change_of_stage_counts_for_the_next_connect(detach: bool) -> None:
    async with running_node("memory", detach=detach) as node:
        await set_stage(node, "sse")
        async with await open_socket(node.port, node.token()) as socket:
            assert (await socket.end()).code == 4010
        # One stage at a time.
        await set_stage(node, "shadow")
        await set_stage(node, "fallback")
        async with await open_socket(node.port, node.token()) as socket:
            await socket.welcome()


@pytest.mark.parametrize("transport", TRANSPORTS)
async def test_a_tenant_may_set_its_own_limit_per_user(detach: bool, transport: str) -> None:
    async with running_node("memory", detach=detach) as node:
        await node.composition.tenants.put(
            Tenant(id="default", settings=TenantSettings(max_connections_per_user=1))
        )
        first = await opened(node, transport)
        second = await opened(node, transport)
        await first.end()
        assert first.history[-1].body["reason"] == "replaced"
        await first.close()
        await second.close()


async def test_presence_channels_of_one_connection_are_few() -> None:
    """Each join and leave of one is a publication: a client that toggles many would flood its tenant."""
    async with running_node("memory") as node:
        token = node.token(channels=["presence:*"])
        many = [f"presence:{number}" for number in range(17)]
        async with await open_client("ws", node.port, token, channels=many) as refused:
            ended = await refused.end()
            assert (ended.code, ended.reason) == (4000, "too-many-channels")
        async with await open_client("ws", node.port, token, channels=many[:16]) as client:
            assert len((await client.welcome()).body["channels"]) == 18
            assert (await client.ask("subscribe", channels=many[16:])).body["code"] == "too-many-channels"
