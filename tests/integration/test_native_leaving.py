"""When clients have left, nothing of them is left: not in the hub, not in the node, not in the server."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack

import pytest

from dualcast.session.session import Session
from support.clients import TRANSPORTS, Client, WsClient, open_client, open_socket, open_stream
from support.node import ENGINES, Node, running_node
from support.raw_http import open_websocket

pytestmark = pytest.mark.anyio

SETUPS = [*((engine, True) for engine in ENGINES), ("memory", False)]


@pytest.fixture(params=SETUPS, ids=lambda setup: f"{setup[0]}-{'detached' if setup[1] else 'plain'}")
async def node(request: pytest.FixtureRequest) -> AsyncIterator[Node]:
    engine, detach = request.param
    async with running_node(engine, detach=detach) as running:
        yield running


async def leave(client: Client, how: str) -> None:
    if how == "close":
        await client.close()
    elif isinstance(client, WsClient):
        client.socket.transport.abort()
    else:
        client.wire.reset()  # type: ignore[attr-defined]


async def nothing_left(node: Node) -> None:
    inside, hub = node.composition.node, node.composition.hub
    await node.until(lambda: not hub.sessions, "sessions to go")
    await node.until(lambda: not inside.closing, "closing connections to go")
    await node.until(lambda: not inside.per_address, "addresses to go")
    assert not any(inside.sweep_buckets)
    assert not inside.held
    assert all(not feed.sessions for tenant in hub.tenants.values() for feed in tenant.channels.values())
    assert all(c.connections == 0 for c in inside.counters.by_label.values())

    def forgotten() -> bool:
        # A handshake that lost its client may still be under way and ask for its channels once more.
        node.sweep()
        return not hub.tenants

    await node.until(forgotten, "channels to be forgotten")
    assert hub.rings.bytes == 0
    await node.until(lambda: not inside.behind, "the queue to be worked off")
    assert not inside._tasks


@pytest.mark.parametrize("how", ["close", "reset"])
async def test_nothing_is_left_of_clients_that_left(node: Node, how: str) -> None:
    async with AsyncExitStack() as stack:
        clients: list[Client] = []
        for number in range(6):
            text = node.token(f"u{number}", channels=["topic:*"])
            client = await open_client(
                TRANSPORTS[number % 2], node.port, text, channels=[f"topic:{number % 3}"]
            )
            clients.append(await stack.enter_async_context(client))
            await client.welcome()
        await node.publish(["all", "topic:0", "topic:1"], "x")
        for client in clients:
            await client.publications(1)
        gone = {one.id for one in node.sessions}
        assert len(gone) == 6
        for client in clients:
            await leave(client, how)
    await nothing_left(node)

    def collected() -> bool:
        gc.collect()
        return not [one for one in gc.get_objects() if isinstance(one, Session) and one.id in gone]

    await node.until(collected, "the session objects to be freed")
    assert not [one for one in node.live.connections if isinstance(one, Session)]


async def test_nothing_is_left_of_refused_clients(node: Node) -> None:
    for transport in TRANSPORTS:
        for bearer in ("rubbish", node.token(life_s=-5)):
            async with await open_client(transport, node.port, bearer) as client:
                if isinstance(client, WsClient):
                    await client.end()
        async with await open_client(transport, node.port, node.token(), channels=["room:no"]) as client:
            if isinstance(client, WsClient):
                await client.end()
    await nothing_left(node)


async def test_nothing_is_left_of_clients_that_leave_in_the_middle_of_the_handshake(node: Node) -> None:
    async def flash(transport: str, number: int) -> None:
        try:
            async with asyncio.timeout(0.001 * (number % 7)):
                client = await open_client(transport, node.port, node.token(f"u{number}"))
            await leave(client, "reset")
        except (TimeoutError, OSError):
            pass

    await asyncio.gather(*(flash(TRANSPORTS[number % 2], number) for number in range(40)))
    await node.until(
        lambda: not [one for one in node.live.connections if isinstance(one, Session)], "sessions to end"
    )
    await nothing_left(node)


async def test_nothing_is_left_of_sockets_that_leave_while_a_command_is_under_way(node: Node) -> None:
    for _ in range(5):
        socket = await open_socket(node.port, node.token(channels=["topic:*"]))
        start = (await socket.welcome()).cursor
        for number in range(5):
            await socket.send("subscribe", channels=[f"topic:{number}"], since=start)
        await leave(socket, "reset")
    await nothing_left(node)


async def test_a_reconnect_soon_finds_the_ring_of_its_channel(node: Node) -> None:
    async with await open_stream(node.port, node.token()) as stream:
        cursor = (await stream.welcome()).cursor
    await node.until(lambda: not node.sessions, "the session to go")
    node.sweep(2)
    await node.publish("user:alice", "kept in the ring")
    async with await open_stream(node.port, node.token(), last_event_id=cursor) as stream:
        await stream.welcome()
        assert [got.data for got in await stream.publications(1)] == ["kept in the ring"]


async def test_a_slow_reader_gets_all_of_it_later_and_costs_no_memory_meanwhile(node: Node) -> None:
    async with (
        await open_stream(node.port, node.token("slow")) as slow,
        await open_socket(node.port, node.token("fast")) as fast,
    ):
        await slow.welcome()
        await fast.welcome()
        session: Session = await node.session_of("slow")
        slow.wire.writer.transport.pause_reading()  # type: ignore[attr-defined]
        text, count = "x" * 50_000, 0
        while not session.paused or count < 60:
            await node.publish("all", [count, text])
            count += 1
            assert count < 400, "the kernel's buffers cannot be that large"
        assert [got.data[0] for got in await fast.publications(count)] == list(range(count))
        assert session.transport.get_write_buffer_size() < 1_000_000
        slow.wire.writer.transport.resume_reading()  # type: ignore[attr-defined]
        assert [got.data[0] for got in await slow.publications(count)] == list(range(count))
        assert node.composition.node.counters.delivery("default", "sse").fell_behind >= 1


@pytest.mark.parametrize("transport", TRANSPORTS)
async def test_a_reader_that_is_too_slow_for_too_long_is_sent_away(transport: str) -> None:
    quick = {"sweep_s": 1, "close_timeout_s": 1}
    async with (
        running_node("memory", delivery={"lag_limit_s": 0.5}, session=quick) as node,
        await open_client(transport, node.port, node.token("slow")) as client,
    ):
        await client.welcome()
        session = await node.session_of("slow")
        line = client.socket.transport if isinstance(client, WsClient) else client.wire.writer.transport  # type: ignore[attr-defined]
        line.pause_reading()
        while not session.paused:
            await node.publish("all", "x" * 50_000)
        await node.until(lambda: session.closed, "the session to be closed")
        label = "ws" if transport == "ws" else "sse"
        assert node.composition.node.counters.delivery("default", label).lag_closed == 1
        await node.until(lambda: not node.composition.node.per_address, "the connection to be aborted")


async def test_a_silent_peer_is_found_by_its_unanswered_ping() -> None:
    quick = {"sweep_s": 1, "heartbeat_ws_s": 1, "dead_after_s": 1}
    async with running_node("memory", session=quick) as node:
        bearer = f"Bearer {node.token()}"
        async with await open_websocket(node.port, "/v1/socket", authorization=bearer) as wire:
            while (frame := await wire.frame()).opcode != 0x8:
                pass  # reads, and answers nothing
            assert frame.close_code == 4202
        async with await open_socket(node.port, node.token("bob")) as socket:
            await socket.welcome()
            # This one answers by itself, so it stays while the other one would have been closed twice.
            await node.until(
                lambda: node.composition.node.counters.delivery("default", "ws").stale_closed == 1
            )
            node.sweep()
            assert (await socket.ask("ping")).kind == "pong"
