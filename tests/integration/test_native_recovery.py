"""One cursor resumes on either transport, over restarts; what cannot be filled is announced as a gap."""

from __future__ import annotations

from typing import Any

import pytest

from support.clients import TRANSPORTS, Client, open_client, open_socket, open_stream
from support.node import ENGINES, Node, Place, place, running_node

pytestmark = pytest.mark.anyio

DIRECTIONS = [(one, other) for one in TRANSPORTS for other in TRANSPORTS]
PLAIN = [pytest.param(True, id="detached"), pytest.param(False, id="plain-asgi")]
KEPT = ("sqlite", "redis")


async def offsets(client: Client, count: int) -> list[Any]:
    return [got.data for got in await client.publications(count)]


@pytest.mark.parametrize("detach", PLAIN)
@pytest.mark.parametrize(("first", "second"), DIRECTIONS)
@pytest.mark.parametrize("engine", ENGINES)
async def test_a_cursor_of_one_transport_resumes_on_the_other(
    engine: str, first: str, second: str, detach: bool
) -> None:
    channels = ["topic:a"]
    async with running_node(engine, detach=detach) as node:
        token = node.token(channels=["topic:*"])
        async with await open_client(first, node.port, token, channels=channels) as client:
            await client.welcome()
            for number in range(3):
                await node.publish(["topic:a", "all"][number % 2], number)
            assert await offsets(client, 3) == [0, 1, 2]
            cursor = client.cursor
        for number in range(3, 8):
            await node.publish(["topic:a", "all", "user:alice"][number % 3], number)
        await node.publish("user:bob", "not hers")
        async with await open_client(second, node.port, token, channels=channels, cursor=cursor) as client:
            assert (await client.welcome()).cursor == cursor
            assert await offsets(client, 5) == [3, 4, 5, 6, 7]
            await node.publish("all", "live")
            assert await offsets(client, 1) == ["live"]


@pytest.mark.parametrize("engine", ENGINES)
async def test_resume_works_below_the_rings_in_pages(engine: str) -> None:
    # Rings of two entries and pages of three: the bus has to be read again and again.
    quick = {"page_limit": 3}
    async with running_node(engine, delivery={"ring_entries": 2}, session=quick) as node:
        async with await open_socket(node.port, node.token()) as client:
            start = (await client.welcome()).cursor
        for number in range(25):
            await node.publish(["all", "user:alice"][number % 2], number)
        for transport in TRANSPORTS:
            async with await open_client(transport, node.port, node.token(), cursor=start) as client:
                await client.welcome()
                assert await offsets(client, 25) == list(range(25))


@pytest.mark.parametrize("engine", ENGINES)
async def test_last_event_id_beats_the_cursor_of_the_url(engine: str) -> None:
    async with running_node(engine) as node:
        async with await open_stream(node.port, node.token()) as stream:
            old = (await stream.welcome()).cursor
            await node.publish("all", 1)
            (got,) = await stream.publications(1)
        await node.publish("all", 2)
        async with await open_stream(node.port, node.token(), cursor=old, last_event_id=got.cursor) as stream:
            assert (await stream.welcome()).cursor == got.cursor
            assert await offsets(stream, 1) == [2]


@pytest.mark.parametrize("detach", PLAIN)
@pytest.mark.parametrize(("first", "second"), DIRECTIONS)
@pytest.mark.parametrize("engine", KEPT)
async def test_a_restart_of_the_node_loses_and_doubles_nothing(
    engine: str, first: str, second: str, detach: bool
) -> None:
    async with place(engine) as where:
        async with running_node(where, detach=detach) as node:
            client = await open_client(first, node.port, node.token())
            await client.welcome()
            await node.publish("all", 1)
            await node.publish("user:alice", 2)
            assert await offsets(client, 1) == [1]
            cursor = client.cursor
            await client.close()
        async with running_node(where, detach=detach) as node:
            await node.publish("all", 3)
            async with await open_client(second, node.port, node.token(), cursor=cursor) as client:
                assert (await client.welcome()).cursor == cursor
                await node.publish("all", 4)
                assert await offsets(client, 3) == [2, 3, 4]


async def test_a_restart_of_the_memory_engine_is_announced_as_a_gap() -> None:
    async with running_node("memory") as node, await open_socket(node.port, node.token()) as socket:
        cursor = (await socket.welcome()).cursor
    async with running_node("memory") as node:
        for transport in TRANSPORTS:
            async with await open_client(transport, node.port, node.token(), cursor=cursor) as client:
                await client.welcome()
                gaps = [await client.next(), await client.next()]
                assert {gap.body["channel"] for gap in gaps} == {"all", "user:alice"}
                assert {gap.body["reason"] for gap in gaps} == {"unknown"}


def bad_cursors(good: str) -> dict[str, str]:
    epoch, offset = good.split("-")
    return {
        "future": f"{epoch}-{int(offset) + 1000}",
        "far-future": f"{epoch}-{2**53 - 1}",
        "beyond": f"{epoch}-{2**53}",
        "unknown-epoch": f"zzzzzzzz-{offset}",
        "nonsense": "what is this?",
        "negative": f"{epoch}--1",
        "letters": "é☃",
        "long": "a" * 5000,
        "injection": "x\r\ndata: evil",
    }


@pytest.mark.parametrize("transport", TRANSPORTS)
@pytest.mark.parametrize("engine", ENGINES)
async def test_an_unknown_or_future_cursor_is_a_gap_and_delivery_goes_on(engine: str, transport: str) -> None:
    async with running_node(engine) as node:
        receipt = await node.publish("all", "before")
        for name, cursor in bad_cursors(receipt["cursor"]).items():
            async with await open_client(transport, node.port, node.token(), cursor=cursor) as client:
                await client.welcome()
                gaps = [await client.next(), await client.next()]
                assert [gap.kind for gap in gaps] == ["gap", "gap"], name
                assert {gap.body["channel"] for gap in gaps} == {"all", "user:alice"}, name
                assert {gap.body["reason"] for gap in gaps} == {"unknown"}, name
                # Delivery goes on at a cursor that is good on the next connect.
                assert client.cursor is not None
                good = client.cursor
                sent = await node.publish("user:alice", name)
                (got,) = await client.publications(1)
                assert (got.data, got.cursor) == (name, sent["cursor"])
            await node.settled()
            async with await open_client(transport, node.port, node.token(), cursor=good) as client:
                await client.welcome()
                assert await offsets(client, 1) == [name]


@pytest.mark.parametrize("transport", TRANSPORTS)
@pytest.mark.parametrize("engine", ENGINES)
async def test_a_cursor_of_another_tenant_is_a_gap(engine: str, transport: str) -> None:
    async with running_node(engine) as node:
        foreign = [await node.publish("all", n, tenant="other") for n in range(5)][1]
        await node.publish("all", "mine")
        async with await open_client(transport, node.port, node.token(), cursor=foreign["cursor"]) as client:
            await client.welcome()
            gaps = [await client.next(), await client.next()]
            assert {(gap.kind, gap.body["reason"]) for gap in gaps} == {("gap", "unknown")}
            await node.publish("all", "next")
            assert await offsets(client, 1) == ["next"]


@pytest.mark.parametrize("transport", TRANSPORTS)
@pytest.mark.parametrize("engine", ENGINES)
async def test_trimmed_history_is_a_gap_for_the_channel_it_happened_in(engine: str, transport: str) -> None:
    small = {"history_entries": 3}
    async with running_node(engine, bus=small, delivery={"ring_entries": 2}) as node:
        async with await open_client(transport, node.port, node.token()) as client:
            start = (await client.welcome()).cursor
        await node.publish("user:alice", "mine")
        sent = [await node.publish("all", number) for number in range(10)]
        async with await open_client(transport, node.port, node.token(), cursor=start) as client:
            await client.welcome()
            gap = await client.next()
            assert (gap.kind, gap.body["channel"], gap.body["reason"]) == ("gap", "all", "trimmed")
            assert gap.body["after"] == start
            assert gap.body["oldest"] == sent[7]["cursor"]
            got = await client.publications(4)
            assert [one.data for one in got] == ["mine", 7, 8, 9]
            answer = await node.http.get(gap.body["history_url"], headers=node.auth("alice"))
            assert answer.status_code == 200


async def test_a_gap_names_a_history_url_that_works_for_odd_channel_names() -> None:
    name = "topic:a/b?c#d&e%f ü"
    async with running_node("memory", bus={"history_entries": 1}, delivery={"ring_entries": 1}) as node:
        token = node.token(channels=["topic:*"])
        async with await open_socket(node.port, token, channels=[name]) as socket:
            start = (await socket.welcome()).cursor
        for number in range(3):
            await node.publish(name, number)
        async with await open_socket(node.port, token, channels=[name], cursor=start) as socket:
            await socket.welcome()
            gap = await socket.next()
            assert gap.body["channel"] == name
            answer = await node.http.get(
                gap.body["history_url"], headers={"Authorization": f"Bearer {token}"}
            )
            assert answer.status_code == 200, answer.text
            assert answer.json()["channel"] == name


@pytest.mark.parametrize("transport", TRANSPORTS)
async def test_expired_publications_are_left_out_of_recovery(transport: str) -> None:
    async with running_node("memory") as node:
        async with await open_client(transport, node.port, node.token()) as client:
            start = (await client.welcome()).cursor
        await node.publish("all", "short", ttl_s=1)
        await node.publish("all", "long", ttl_s=3600)
        node_clock = node.composition.node
        later = node_clock.now_s() + 2
        node_clock.now_s = lambda: later  # type: ignore[method-assign]
        async with await open_client(transport, node.port, node.token(), cursor=start) as client:
            await client.welcome()
            assert await offsets(client, 1) == ["long"]


async def test_two_nodes_on_redis_share_one_position(two_nodes: tuple[Node, Node]) -> None:
    one, two = two_nodes
    async with (
        await open_stream(one.port, one.token()) as stream,
        await open_socket(two.port, two.token()) as socket,
    ):
        await stream.welcome()
        await socket.welcome()
        for number in range(20):
            await (one, two)[number % 2].publish("all", number)
        here, there = await stream.publications(20), await socket.publications(20)
        assert [got.cursor for got in here] == [got.cursor for got in there]
        cursor = here[9].cursor
    async with await open_stream(two.port, two.token(), last_event_id=cursor) as stream:
        await stream.welcome()
        assert [got.cursor for got in await stream.publications(10)] == [got.cursor for got in here[10:]]


@pytest.fixture
async def shared_place() -> Any:
    async with place("redis") as where:
        yield where


@pytest.fixture
async def two_nodes(shared_place: Place) -> Any:
    async with running_node(shared_place) as one, running_node(shared_place) as two:
        yield one, two
