"""A node that goes down sends its clients away in time, in batches, with a delay for each."""

from __future__ import annotations

import asyncio

import pytest

from support.clients import open_socket, open_stream
from support.node import Node, place, running_node

pytestmark = pytest.mark.anyio

PLAIN = [pytest.param(True, id="detached"), pytest.param(False, id="plain-asgi")]


@pytest.mark.parametrize("detach", PLAIN)
async def test_a_drain_tells_every_client_when_to_come_back(detach: bool) -> None:
    async with running_node("memory", detach=detach) as node:
        settings = node.composition.node.settings
        async with (
            await open_stream(node.port, node.token()) as stream,
            await open_socket(node.port, node.token()) as socket,
        ):
            for client in (stream, socket):
                await client.welcome()
            sent = await node.publish("all", "last")
            draining = asyncio.create_task(node.composition.drain())
            assert (await socket.end()).code == 4100
            assert (await stream.end()).code is None
            await draining
            words, bye = stream.history[-1], socket.history[-1]
            assert words.kind == "drain" and words.body == {"retry_ms": words.retry_ms}
            assert (bye.kind, bye.body["code"], bye.body["reason"]) == ("bye", 4100, "drain")
            for retry in (words.retry_ms, bye.body["retry_ms"]):
                assert settings.retry_min_ms <= retry <= settings.retry_max_ms
            for client in (stream, socket):
                assert client.cursor == sent["cursor"]
                assert client.history[-2].data == "last"
        assert not node.sessions
        # While it drains, whoever comes is told the same, and the node is not ready.
        assert (await node.http.get("/readyz")).json()["code"] == "draining"
        async with await open_socket(node.port, node.token()) as late:
            assert (await late.end()).code in (4100, 4101)
        async with await open_stream(node.port, node.token()) as late_stream:
            assert late_stream.status == 200
            await late_stream.end()
            assert late_stream.parser.retry_ms is not None


@pytest.mark.parametrize("detach", PLAIN)
async def test_a_drain_is_paced_and_delays_differ(detach: bool) -> None:
    async with running_node("memory", detach=detach, server={"drain_s": 0.9}) as node:
        clients = [await open_socket(node.port, node.token(f"u{number}")) for number in range(24)]
        for client in clients:
            await client.welcome()
        closed: list[int] = []
        drain = asyncio.create_task(node.composition.drain())
        while not drain.done():
            closed.append(24 - len(node.sessions))
            await asyncio.sleep(0.02)
        assert len(set(closed)) > 3, "not all at once"
        delays = set()
        for client in clients:
            assert (await client.end()).code == 4100
            delays.add(client.history[-1].body["retry_ms"])
            await client.close()
        assert len(delays) > 12


@pytest.mark.parametrize("detach", PLAIN)
async def test_the_end_of_the_server_drains(detach: bool) -> None:
    """What SIGTERM does: `should_exit`, then uvicorn's shutdown with our drain before it."""
    async with running_node("memory", detach=detach) as node:
        stream = await open_stream(node.port, node.token())
        socket = await open_socket(node.port, node.token())
        for client in (stream, socket):
            await client.welcome()
        node.live.server.should_exit = True
        assert (await socket.end()).code == 4100
        await stream.end()
        assert stream.history[-1].kind == "drain"
        await stream.close()
        await socket.close()


@pytest.mark.parametrize("detach", PLAIN)
async def test_a_client_that_reads_nothing_does_not_hold_the_drain_up(detach: bool) -> None:
    async with running_node("memory", detach=detach) as node:
        stream = await open_stream(node.port, node.token())
        await stream.welcome()
        stream.wire.writer.transport.pause_reading()  # type: ignore[attr-defined]
        session = await node.session_of("alice")
        text = "x" * 60_000
        number = 0
        while not session.paused:
            await node.publish("all", text, id=f"n{number}")
            number += 1
        async with asyncio.timeout(10):
            await node.composition.drain()
        await node.until(lambda: not node.composition.node.per_address, "the session to be aborted")
        await stream.close()


@pytest.mark.parametrize("engine", ["sqlite", "redis"])
async def test_nothing_is_lost_over_a_drain_and_a_restart(engine: str) -> None:
    async with place(engine) as where:
        seen: dict[str, list[int]] = {"sse": [], "ws": []}
        cursors: dict[str, str | None] = {}

        async def some(node: Node, start: int) -> None:
            stream = await open_stream(node.port, node.token(), last_event_id=cursors.get("sse"))
            socket = await open_socket(node.port, node.token(), cursor=cursors.get("ws"))
            for client in (stream, socket):
                await client.welcome()
            publishing = asyncio.create_task(publish(node, start))
            await stream.until("publication", lambda got: got.data >= start + 3)
            await asyncio.gather(node.composition.drain(), stream.end(), socket.end())
            await publishing
            for client in (stream, socket):
                cursors[client.transport] = client.cursor
                seen[client.transport] += [got.data for got in client.history if got.kind == "publication"]
                await client.close()

        async def publish(node: Node, start: int) -> None:
            for number in range(start, start + 30):
                await node.publish("all", number)

        for start in (0, 30):
            async with running_node(where) as node:
                await some(node, start)
        async with running_node(where) as node:
            end = await node.publish("all", 60)
            async with (
                await open_stream(node.port, node.token(), last_event_id=cursors["sse"]) as stream,
                await open_socket(node.port, node.token(), cursor=cursors["ws"]) as socket,
            ):
                for client in (stream, socket):
                    await client.until("publication", lambda got: got.cursor == end["cursor"])
                    seen[client.transport] += [
                        got.data for got in client.history if got.kind == "publication"
                    ]
        for transport, numbers in seen.items():
            assert numbers == list(range(61)), transport
