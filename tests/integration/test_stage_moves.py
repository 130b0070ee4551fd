"""What a changed migration stage does to live sessions, and how streams say that SSE ends."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from email.utils import parsedate_to_datetime
from typing import Any

import msgspec
import pytest

from dualcast_migration.cohort import Cohort
from dualcast_migration.policy import Brownout, StageRecord
from dualcast_migration.stage import Stage
from support.clients import Client, open_client, open_socket, open_stream
from support.legacy_node import refusal, socket
from support.node import ENGINES, Node, running_node

pytestmark = pytest.mark.anyio
QUICK = {"move_spread_s": 0.3, "move_grace_s": 0.1}
TOLD = {"deprecated_at": 1_700_000_000, "link": "https://docs.example.com/move"}


@asynccontextmanager
async def node_in(stage: Stage, engine: str = "memory", **more: Any) -> AsyncIterator[Node]:
    async with running_node(engine, tenancy={"stage": stage.value}, session={**QUICK, **more}) as node:
        yield node


async def put(node: Node, stage: Stage, **fields: Any) -> None:
    """Gives the tenant a new stage record."""
    tenants = node.composition.tenants
    tenant = tenants.current("default")
    assert tenant is not None
    await tenants.put(msgspec.structs.replace(tenant, stage=StageRecord(stage=stage, **fields)))


async def told(client: Client, kind: str) -> dict[str, Any]:
    return (await client.until(kind)).body


@pytest.mark.parametrize("engine", ENGINES)
async def test_a_socket_whose_tenant_goes_back_to_sse_is_moved_within_a_bounded_time(engine: str) -> None:
    async with (
        node_in(Stage.FALLBACK, engine) as node,
        await open_socket(node.port, node.token("ann")) as socket,
        await open_stream(node.port, node.token("bob")) as stream,
    ):
        cursor = (await socket.welcome()).cursor
        await stream.welcome()
        await put(node, Stage.SSE)
        assert (await told(socket, "stage"))["stage"] == "sse"
        migrate = await told(socket, "migrate")
        assert migrate["to"] == "sse"
        assert migrate["url"] == "/v1/stream"
        assert migrate["cursor"] == cursor
        assert 0 <= migrate["after_ms"] <= 300
        assert (await told(socket, "bye"))["code"] == 4010
        assert (await socket.end()).code == 4010
        assert (await told(stream, "stage"))["stage"] == "sse"
        await node.publish("user:bob", {"still": "here"})
        assert (await stream.publications(1))[0].data == {"still": "here"}


async def test_moves_are_spread_and_each_client_has_a_delay_of_its_own() -> None:
    async with node_in(Stage.FALLBACK, move_spread_s=60.0) as node:
        clients = [await open_socket(node.port, node.token(f"u{n}")) for n in range(12)]
        try:
            for client in clients:
                await client.welcome()
            await put(node, Stage.SSE)
            delays = [(await told(client, "migrate"))["after_ms"] for client in clients]
        finally:
            for client in clients:
                await client.close()
        assert len(set(delays)) > 6
        assert max(delays) <= 60_000


async def test_a_move_that_is_taken_back_in_time_ends_nobody() -> None:
    async with (
        node_in(Stage.FALLBACK, move_spread_s=0.0, move_grace_s=2.0) as node,
        await open_socket(node.port, node.token("ann")) as socket,
    ):
        await socket.welcome()
        await put(node, Stage.SSE)
        await told(socket, "migrate")
        await put(node, Stage.SHADOW)
        assert (await told(socket, "stage"))["stage"] == "shadow"
        await node.until(lambda: not node.composition.movements.gauges()["sessions_moving"], "the end passed")
        assert node.composition.movements.moved == 0
        await node.publish("user:ann", 1)
        assert (await socket.publications(1))[0].data == 1


async def test_users_outside_the_cohort_are_not_told_what_does_not_concern_them() -> None:
    async with (
        node_in(Stage.SHADOW) as node,
        await open_socket(node.port, node.token("in")) as inside,
        await open_socket(node.port, node.token("out")) as outside,
    ):
        for client in (inside, outside):
            await client.welcome()
        await put(node, Stage.FALLBACK, cohort=Cohort(percent=0, allow=("in",)))
        assert (await told(inside, "stage"))["stage"] == "fallback"
        await node.publish("user:out", 1)
        assert (await outside.next()).kind == "publication", "nothing came before it"


async def test_a_stream_in_the_last_stage_says_when_it_ends_in_headers_and_as_an_event() -> None:
    sunset = int(time.time()) + 3600
    async with (
        node_in(Stage.FALLBACK) as node,
        await open_stream(node.port, node.token("ann")) as before,
    ):
        await before.welcome()
        assert not {"deprecation", "sunset", "link"} & set(before.headers)
        await put(node, Stage.WEBSOCKET, sunset_at=sunset, **TOLD)
        assert (await told(before, "stage"))["stage"] == "websocket"
        facts = {"sunset_at": sunset, **TOLD}
        assert (await told(before, "migrate")).items() >= facts.items()
        async with await open_stream(node.port, node.token("ann")) as after:
            assert after.status == 200
            assert after.headers["deprecation"] == "@1700000000"
            assert int(parsedate_to_datetime(after.headers["sunset"]).timestamp()) == sunset
            assert after.headers["sunset"].endswith(" GMT")
            assert after.headers["link"] == (
                '</v1/socket>; rel="successor-version", <https://docs.example.com/move>; rel="deprecation", '
                '<https://docs.example.com/move>; rel="sunset"'
            )
            cursor = (await after.welcome()).cursor
            migrate = await told(after, "migrate")
            assert migrate.items() >= facts.items()
            assert migrate["to"] == "websocket"
            assert migrate["url"] == "/v1/socket"
            assert migrate["cursor"] == cursor
            await node.publish("user:ann", 1)
            assert (await after.publications(1))[0].data == 1


async def test_when_the_sunset_comes_live_streams_end_and_nobody_comes_back() -> None:
    sunset = int(time.time()) + 2
    async with (
        node_in(Stage.FALLBACK) as node,
        await open_stream(node.port, node.token("ann")) as stream,
        await open_socket(node.port, node.token("ann")) as socket,
    ):
        await put(node, Stage.WEBSOCKET, sunset_at=sunset, **TOLD)
        await told(stream, "migrate")
        assert (await told(stream, "bye"))["reason"] == "stage"
        await stream.end()
        assert time.time() >= sunset
        async with await open_stream(node.port, node.token("ann")) as again:
            assert again.status == 204
            assert again.headers["sunset"]
        await told(socket, "stage")
        await node.publish("user:ann", 1)
        assert (await socket.publications(1))[0].data == 1


@pytest.mark.parametrize("path", ["/v1/stream", "/api/notifications/stream"])
async def test_a_brownout_sends_streams_away_for_a_while_and_lets_them_back(path: str) -> None:
    now = int(time.time())
    async with node_in(Stage.FALLBACK) as node:
        for percent, open_ in ((100.0, False), (0.0, True)):
            await put(node, Stage.WEBSOCKET, brownouts=(Brownout(now - 10, percent),), **TOLD)
            async with node.http.stream("GET", path, headers=node.auth("ann")) as answer:
                assert answer.status_code == 200
                assert answer.headers["content-type"].startswith("text/event-stream")
                assert answer.headers["deprecation"] == "@1700000000"
                if open_:
                    assert "connect" in await anext(answer.aiter_text()) or path == "/v1/stream"
                else:
                    body = (await answer.aread()).decode()
                    assert body.startswith("retry: ")
                    assert 20_000 <= int(body.split()[1]) <= 40_000


@pytest.mark.parametrize("transport", ["sse", "ws"])
async def test_brownouts_count_in_the_last_stage_only(transport: str) -> None:
    brownouts = (Brownout(int(time.time()) - 10, 100.0),)
    async with node_in(Stage.FALLBACK) as node:
        await put(node, Stage.FALLBACK, brownouts=brownouts)
        async with await open_client(transport, node.port, node.token("ann")) as client:
            await client.welcome()


async def test_the_older_twins_are_moved_by_their_contract_and_the_other_sockets_stay() -> None:
    async with (
        node_in(Stage.FALLBACK) as node,
        await socket(node, "/api/ws/notifications", "ann") as twin,
        await socket(node, "/api/v1/ws/ann", "ann") as other,
    ):
        await put(node, Stage.SSE)
        await node.until(lambda: node.composition.movements.moved == 1, "the twin was moved")
        assert (await twin.end()).code not in (1000, 4010), "a code its clients know, and not the end"
        assert await refusal(node, "/api/ws/notifications", "ann") == 403
        await other.ask('{"type":"ping"}')
