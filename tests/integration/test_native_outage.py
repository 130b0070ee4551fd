"""Redis away and back: clients stay or are let in, are told, and get everything that was acknowledged."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from support.clients import Client, open_socket, open_stream
from support.node import Node, place, running_node
from support.redis_server import RedisServer

pytestmark = pytest.mark.anyio

IMPATIENT = {"connect_timeout_s": 1.0, "command_timeout_s": 1.0}
"""A Redis that hangs is given up on sooner than by default, so that the tests do not wait for it."""
PLAIN = [pytest.param(True, id="detached"), pytest.param(False, id="plain-asgi")]


@asynccontextmanager
async def on_own_redis(*, detach: bool = True) -> AsyncIterator[tuple[Node, RedisServer]]:
    with RedisServer(aof="always") as server:
        async with (
            place("redis", redis_url=server.url) as where,
            running_node(where, detach=detach, redis=IMPATIENT) as node,
        ):
            try:
                yield node, server
            finally:
                server.thaw() if server._process is not None else server.start()


async def gone(server: RedisServer, how: str) -> None:
    server.freeze() if how == "freeze" else server.kill()


async def back(server: RedisServer, how: str) -> None:
    if how == "freeze":
        server.thaw()
    else:
        await asyncio.to_thread(server.start)


async def status(client: Client, bus: str) -> None:
    got = await client.until("status")
    assert got.body["bus"] == bus, client.history


async def publishable(node: Node, data: str) -> str:
    """Publishes as soon as the bus takes it; the cursor."""
    async with asyncio.timeout(15):
        while True:
            answer = await node.http.post(
                "/v1/publish",
                json={"channel": "all", "type": "note", "data": data, "id": data},
                headers=node.auth("backend", "publisher"),
            )
            if answer.status_code in (200, 201):
                return str(answer.json()["cursor"])
            assert answer.status_code == 503, answer.text
            assert answer.json()["code"] == "bus-unavailable"
            assert int(answer.headers["retry-after"]) >= 0
            await asyncio.sleep(0.1)


@pytest.mark.parametrize("detach", PLAIN)
@pytest.mark.parametrize("how", ["freeze", "kill"])
async def test_clients_are_told_and_get_everything_after(how: str, detach: bool) -> None:
    async with (
        on_own_redis(detach=detach) as (node, server),
        await open_stream(node.port, node.token()) as stream,
        await open_socket(node.port, node.token()) as socket,
    ):
        for client in (stream, socket):
            await client.welcome()
        first = await publishable(node, "before")
        for client in (stream, socket):
            assert [got.cursor for got in await client.publications(1)] == [first]
        await gone(server, how)
        for client in (stream, socket):
            await status(client, "away")
        answer = await node.http.post(
            "/v1/publish",
            json={"channel": "all", "type": "note"},
            headers=node.auth("backend", "publisher"),
        )
        assert (answer.status_code, answer.json()["code"]) == (503, "bus-unavailable")
        await back(server, how)
        after = await publishable(node, "after")
        for client in (stream, socket):
            await client.until("publication", lambda got: got.cursor == after)
            if not any(got.kind == "status" and got.body["bus"] == "ok" for got in client.history):
                await status(client, "ok")
            assert not [got for got in client.history if got.kind == "gap"], client.history
            ids = [got.body["id"] for got in client.history if got.kind == "publication"]
            assert len(ids) == len(set(ids))
            assert {"before", "after"} <= set(ids)
        await publishable(node, "later")
        for client in (stream, socket):
            await client.until("publication", lambda got: got.data == "later")


@pytest.mark.parametrize("how", ["freeze", "kill"])
async def test_new_clients_are_let_in_while_redis_is_away(how: str) -> None:
    async with on_own_redis() as (node, server):
        async with await open_stream(node.port, node.token()) as stream:
            start = (await stream.welcome()).cursor
        sent = await publishable(node, "missed")
        await gone(server, how)
        await node.until(lambda: not node.composition.hub.available, "the outage to be noticed")
        async with (
            await open_stream(node.port, node.token(), last_event_id=start) as stream,
            await open_socket(node.port, node.token()) as fresh,
        ):
            assert stream.status == 200
            for client in (stream, fresh):
                await client.welcome()
                assert (await client.next()).body["bus"] == "away"
            await back(server, how)
            got = await stream.until("publication")
            assert got.cursor == sent
            after = await publishable(node, "after")
            for client in (stream, fresh):
                await client.until("publication", lambda got: got.cursor == after)
                assert not [got for got in client.history if got.kind == "gap"]
            if not any(got.kind == "status" and got.body["bus"] == "ok" for got in fresh.history):
                await status(fresh, "ok")


async def test_readiness_follows_redis_and_liveness_does_not() -> None:
    async with on_own_redis() as (node, server):
        answer = await node.http.get("/readyz")
        assert (answer.status_code, answer.json()["engine"]) == (200, "redis")
        assert answer.json()["command_s"] >= 0 and answer.json()["echo_s"] >= 0  # rounded to milliseconds
        for how in ("freeze", "kill"):
            await gone(server, how)
            async with asyncio.timeout(15):
                while (answer := await node.http.get("/readyz")).status_code == 200:
                    await asyncio.sleep(0.05)
            assert answer.status_code == 503
            assert answer.headers["retry-after"]
            assert (await node.http.get("/healthz")).status_code == 200
            await back(server, how)
            async with asyncio.timeout(15):
                while (answer := await node.http.get("/readyz")).status_code == 503:
                    await asyncio.sleep(0.05)
            assert answer.status_code == 200


async def test_a_lost_subscriber_connection_loses_nothing() -> None:
    async with (
        on_own_redis() as (node, server),
        await open_stream(node.port, node.token()) as stream,
        await open_socket(node.port, node.token()) as socket,
    ):
        for client in (stream, socket):
            await client.welcome()
        for number in range(20):
            if number % 5 == 2:
                for row in server.clients():
                    server.command("CLIENT", "KILL", "ID", row["id"])
            await publishable(node, f"n{number}")
        for client in (stream, socket):
            await client.until("publication", lambda got: got.data == "n19")
            seen = [got.data for got in client.history if got.kind == "publication"]
            assert seen == [f"n{number}" for number in range(20)]
            assert not [got for got in client.history if got.kind == "gap"]


async def test_a_log_that_lost_its_tail_is_announced_as_a_gap_of_its_epoch() -> None:
    async with on_own_redis() as (node, server):
        async with (
            await open_stream(node.port, node.token()) as stream,
            await open_socket(node.port, node.token()) as socket,
        ):
            for client in (stream, socket):
                await client.welcome()
            await publishable(node, "kept")
            copy = server.copy_data()
            lost = await publishable(node, "lost")
            for client in (stream, socket):
                await client.publications(2)
            server.kill()
            server.restore_data(copy)
            await back(server, "kill")
            after = await publishable(node, "after")
            assert after.split("-")[0] != lost.split("-")[0], "the epoch was renewed"
            assert int(after.split("-")[1]) > int(lost.split("-")[1]), "offsets go on above"
            for client in (stream, socket):
                await client.until("publication", lambda got: got.cursor == after)
                gaps = [got for got in client.history if got.kind == "gap"]
                assert {got.body["reason"] for got in gaps} == {"epoch"}
                assert {got.body["channel"] for got in gaps} == {"all", "user:alice"}
        # The old cursor is announced as a gap on the next connect, too, and read on from.
        async with await open_socket(node.port, node.token(), cursor=lost) as socket:
            await socket.welcome()
            gaps = [await socket.until("gap"), await socket.until("gap")]  # a `status` may stand between
            assert {got.body["reason"] for got in gaps} == {"epoch"}
            got = await socket.until("publication")
            assert got.cursor == after
