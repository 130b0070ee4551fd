"""Fallback on a running server: real sockets, one node on every engine."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import pytest
from msgspec.structs import replace

from dualcast.session.session import Session
from dualcast_migration.stage import Stage
from support.blackhole import Blackhole
from support.clients import Got, SseClient, WsClient, open_socket, open_stream
from support.legacy_notifications import event, legacy_node, opened_socket, opened_stream, said
from support.node import ENGINES, Node, running_node

pytestmark = pytest.mark.anyio


@pytest.fixture(params=ENGINES)
async def node(request: pytest.FixtureRequest, anyio_backend: object) -> AsyncIterator[Node]:
    async with running_node(request.param) as made:
        yield made


async def stream(node: Node, instance: str = "tab", **how: Any) -> SseClient:
    client = await open_stream(node.port, node.token(), instance=instance, **how)
    await client.welcome()
    return client


async def socket(node: Node, instance: str = "tab", *, port: int = 0, **how: Any) -> WsClient:
    client = await open_socket(port or node.port, node.token(), instance=instance, **how)
    await client.welcome()
    return client


def muted(node: Node) -> list[Session]:
    return [session for session in node.sessions if session.muted]


async def mute(node: Node, count: int = 1) -> None:
    await node.until(lambda: len(muted(node)) == count, f"{count} muted streams")


async def until(client: SseClient | WsClient, number: int) -> list[int]:
    """Reads on until the publication of that number; the numbers of all publications since the connect."""

    def is_it(got: Got) -> bool:
        return bool(got.data["n"] == number)

    await client.until("publication", is_it)
    return [got.data["n"] for got in client.history if got.kind == "publication"]


async def test_the_socket_speaks_and_the_stream_keeps_its_place(node: Node) -> None:
    async with await stream(node) as sse, await socket(node) as ws:
        await mute(node)
        assert await node.metric("dualcast_sessions_muted") == 1
        last = await node.publish("user:alice", {"n": 1})
        assert await until(ws, 1) == [1]
        await node.settled()
        node.sweep()  # asks
        await node.until(lambda: muted(node)[0].position >= int(last["cursor"].partition("-")[2]))
        node.sweep()  # says so
        while sse.parser.last_event_id != last["cursor"]:
            await sse.read_some()
        assert sse.history[1:] == [], "no event was fired"
        await ws.close()
        await node.publish("user:alice", {"n": 2})
        assert await until(sse, 2) == [2]


async def test_a_reset_unmutes_at_once(node: Node) -> None:
    async with await stream(node) as sse:
        ws = await socket(node)
        await mute(node)
        ws.socket.transport.abort()
        await node.publish("user:alice", {"n": 1})
        assert await until(sse, 1) == [1]
        assert not muted(node)


async def test_a_socket_that_falls_silent_is_found_and_what_it_was_written_comes_by_the_stream() -> None:
    async with (
        running_node("memory", session={"dead_after_s": 1, "sweep_s": 1}) as node,
        Blackhole("127.0.0.1", node.port) as hole,
        await stream(node) as sse,
    ):
        ws = await socket(node, port=hole.port)
        await mute(node)
        hole.swallow()
        await node.publish("user:alice", {"n": 1})
        assert await until(sse, 1) == [1], "by the server's own sweeps"
        assert not muted(node) and len(node.sessions) == 1
        hole.cut()
        await ws.close()


async def test_who_is_never_muted(node: Node) -> None:
    """No instance, another instance, another device's stream, more channels than the socket, another user."""
    await node.grant("topic:x", "alice")
    others = [
        await open_stream(node.port, node.token()),
        await stream(node, "other"),
        await stream(node, channels=["topic:x"]),
        await stream(node, device="mobile"),
    ]
    bob = await open_stream(node.port, node.token("bob"), instance="tab")
    async with await stream(node) as sse, await socket(node) as ws:
        await mute(node)
        await node.publish("all", {"n": 1})
        assert await until(ws, 1) == [1]
        for client in (*others, bob):
            await until(client, 1)
            await client.close()
        assert [got.kind for got in sse.history] == ["welcome"]


async def test_an_instance_silences_only_itself(node: Node) -> None:
    async with (
        await stream(node, "one") as first,
        await stream(node, "two") as second,
        await socket(node, "one") as one,
        await socket(node, "two") as two,
    ):
        await mute(node, 2)
        await one.close()
        await node.publish("user:alice", {"n": 1})
        assert await until(first, 1) == [1]
        assert await until(two, 1) == [1]
        assert [got.kind for got in second.history] == ["welcome"]


async def test_a_socket_that_gives_a_channel_up(node: Node) -> None:
    await node.grant("topic:x", "alice")
    async with (
        await stream(node, channels=["topic:x"]) as sse,
        await socket(node, channels=["topic:x"]) as ws,
    ):
        await mute(node)
        await ws.ask("unsubscribe", channels=["topic:x"])
        await node.publish("topic:x", {"n": 1})
        assert await until(sse, 1) == [1]
        await ws.ask("subscribe", channels=["topic:x"])
        node.sweep()
        await mute(node)
        await node.publish("topic:x", {"n": 2})
        await until(ws, 2)
        assert [got.data["n"] for got in sse.history[1:]] == [1]


async def test_a_withdrawn_grant_takes_the_channel_from_both(node: Node) -> None:
    await node.grant("topic:x", "alice")
    async with (
        await stream(node, channels=["topic:x"]) as sse,
        await socket(node, channels=["topic:x"]) as ws,
    ):
        await mute(node)
        await node.grant("topic:x")
        await ws.until("unsubscribed")
        await sse.until("unsubscribed")
        await node.publish("topic:x", {"n": 1})
        await node.publish("user:alice", {"n": 2})
        assert await until(ws, 2) == [2]


async def test_a_token_with_fewer_roles(node: Node) -> None:
    async with (
        await open_stream(node.port, node.token(roles=["vip"]), instance="tab") as sse,
        await open_socket(node.port, node.token(roles=["vip"]), instance="tab") as ws,
    ):
        await sse.welcome()
        await ws.welcome()
        await mute(node)
        assert (await ws.ask("authenticate", token=node.token())).kind == "authenticated"
        await node.publish("user:alice", {"n": 1}, audience={"roles": ["vip"]})
        assert await until(sse, 1) == [1]


async def test_what_is_addressed_to_the_muted_stream_comes_by_the_socket(node: Node) -> None:
    sse = await open_stream(node.port, node.token(), instance="tab")
    connection = (await sse.welcome()).body["connection"]
    async with sse, await socket(node) as ws:
        await mute(node)
        await node.publish("user:alice", {"n": 1}, audience={"connections": [connection]})
        assert await until(ws, 1) == [1]


async def test_resume_gives_what_was_asked_for_on_the_socket(node: Node) -> None:
    async with await stream(node) as sse, await socket(node) as ws:
        await mute(node)
        first = await node.publish("user:alice", {"n": 1})
        await node.publish("user:alice", {"n": 2})
        await until(ws, 2)
        await ws.send("resume", cursor=first["cursor"])
        assert await until(ws, 2) == [1, 2, 2]
        node.sweep()
        await mute(node)
        await ws.close()
        await node.publish("user:alice", {"n": 3})
        assert (await until(sse, 3))[-1] == 3


async def test_a_stage_change_reaches_live_streams(node: Node) -> None:
    async with await stream(node) as sse, await socket(node) as ws:
        await mute(node)
        tenants = node.composition.tenants
        record = await tenants.get("default")
        assert record is not None
        shadow = replace(record.tenant.stage, stage=Stage.SHADOW)
        await tenants.put(replace(record.tenant, stage=shadow), expected=record.version)
        await mute(node, 0)
        await node.publish("user:alice", {"n": 1})
        assert await until(sse, 1) == [1] and await until(ws, 1) == [1], "both"


async def test_a_socket_whose_pings_the_server_does_not_hear_answered_mutes_nobody() -> None:
    """Over plain ASGI no ping can be sent, so silence would not be noticed."""
    async with (
        running_node("memory", detach=False) as node,
        await stream(node) as sse,
        await socket(node) as ws,
    ):
        cursor = (await node.publish("user:alice", {"n": 1}))["cursor"]
        await until(ws, 1)
        await ws.send("ack", cursor=cursor)
        await ws.ask("ping")
        assert not muted(node)
        assert await until(sse, 1) == [1]


async def test_legacy_twins_are_never_silenced() -> None:
    """The two endpoints of the older contract, for one user and beside a native pair of the same user."""
    async with legacy_node("memory") as old:
        node = old.node
        twin_socket = await opened_socket(old, "/api/ws/notifications", "alice")
        twin_stream = await opened_stream(old, "/api/notifications/stream", "alice")
        async with await stream(node) as sse, await socket(node) as ws:
            await mute(node)
            twin_socket.send(10, b"")
            for _ in range(2):
                node.sweep()
            await old.notify("n1", {"user": "alice"})
            await ws.until("publication")
            assert (await event(twin_stream))[1]["id"] == "n1"
            assert (await said(twin_socket))[1]["id"] == "n1"
            assert len(muted(node)) == 1 and sse.history[1:] == []
