"""What `rooms` and `topics` have in common on the wire: limits, other pages, broken and slow connections."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any, NamedTuple

import pytest

from dualcast.sections import Server
from support.legacy_sockets import LegacySocket, legacy_socket
from support.node import WAIT_S, Node, place, running_node
from support.raw_http import open_websocket

pytestmark = pytest.mark.anyio


class Contract(NamedTuple):
    """How a test speaks one of the two."""

    path: str
    first: int
    """Frames before anything else."""
    kind: str
    """Event type of a message."""
    channel: str
    key: str
    """Of the name of a room or topic in client texts."""


ROOMS = Contract("/api/v1/ws/{user}", 2, "room_message", "room:", "room")
TOPICS = Contract("/api/ws", 1, "topic_message", "topic:", "topic")
both = pytest.mark.parametrize(
    "contract", [pytest.param(ROOMS, id="rooms"), pytest.param(TOPICS, id="topics")]
)


@asynccontextmanager
async def opened(
    node: Node, contract: Contract, user: str = "u1", **headers: str | None
) -> AsyncIterator[LegacySocket]:
    """A user's socket, its first frames read."""
    path = contract.path.format(user=user)
    async with legacy_socket(node, path, node.token(user), **headers) as socket:
        for _ in range(contract.first):
            await socket.text()
        yield socket


async def join(socket: LegacySocket, contract: Contract, name: str) -> None:
    answer = await socket.ask({"type": "subscribe", contract.key: name})
    assert answer[contract.key] == name, answer


@both
@pytest.mark.covers("S0.66", "R23")
async def test_the_newest_connection_of_a_user_wins(contract: Contract) -> None:
    async with AsyncExitStack() as stack:
        node = await stack.enter_async_context(running_node("memory", legacy={"connections_per_user": 2}))
        other = await stack.enter_async_context(opened(node, contract, "u2"))
        sockets = [await stack.enter_async_context(opened(node, contract)) for _ in range(3)]
        assert await sockets[0].closed() == (4409, "connection limit")
        for socket in (*sockets[1:], other):
            await socket.quiet()


@both
@pytest.mark.covers("S0.83", "R23")
async def test_a_full_server_asks_to_come_later(contract: Contract) -> None:
    async with running_node("memory", limits={"connections": 1}) as node, opened(node, contract) as socket:
        path = contract.path.format(user="u2")
        async with legacy_socket(node, path, node.token("u2")) as late:
            assert await late.closed() == (1013, "try again later")
        await socket.quiet()


@both
@pytest.mark.covers("R23")
async def test_a_message_beyond_64_kib(contract: Contract) -> None:
    async with running_node("memory") as node, opened(node, contract) as socket:
        socket.say({"type": "ping", "x": "x" * 65_000})
        assert (await socket.json())["type"] == "pong"
        socket.say({"type": "ping", "x": "x" * 66_000})
        assert await socket.closed() == (1009, "message too big")


@both
@pytest.mark.covers("R23")
async def test_a_draining_server_says_so(contract: Contract) -> None:
    async with running_node("memory") as node, opened(node, contract) as socket:
        drained = asyncio.create_task(node.composition.drain())
        assert await socket.closed() == (1012, "service restart")
        await drained


@both
@pytest.mark.covers("S0.79")
async def test_pages_of_any_origin_may_connect(contract: Contract) -> None:
    async with (
        running_node("memory") as node,
        opened(node, contract, origin="https://pages.example.org") as socket,
    ):
        await socket.quiet()


@both
@pytest.mark.covers("S0.33", "S0.54", "S0.55", "S0.58", "S2.55", "S2.62", "R46")
async def test_a_broken_connection_is_cleaned_up_and_hurts_nobody(contract: Contract) -> None:
    async with running_node("memory") as node, opened(node, contract, "u2") as other:
        async with opened(node, contract) as socket:
            await join(socket, contract, "a")
            socket.wire.reset()
            body = {"title": "T"}
            answer = await node.http.post(
                "/api/v1/ws/notify/u1", json=body, headers=node.auth("root", "admin")
            )
            assert answer.status_code == 200
        await node.until(lambda: len(node.sessions) == 1, "the end of the broken session")
        feed = node.composition.hub.tenants["default"].channels.get(contract.channel + "a")
        assert feed is None or not feed.sessions
        headers = node.auth("u1")
        found = await node.http.get("/api/v1/ws/connections/u1", headers=headers)
        assert found.json() == {"user_id": "u1", "connections": 0, "is_online": False}
        stored = (await node.http.get("/v1/users/u1/unread-count", headers=headers)).json()
        assert stored["unread"] == 1
        await other.quiet()


@both
@pytest.mark.covers("S0.56", "S0.58", "S2.61", "S2.62", "R49")
async def test_r49_a_stalled_reader_delays_nobody(contract: Contract) -> None:
    async with AsyncExitStack() as stack:
        node = await stack.enter_async_context(running_node("memory"))
        lively = await stack.enter_async_context(opened(node, contract, "u2"))
        path = contract.path.format(user="u1") + "?token=" + node.token("u1")
        stalled = await stack.enter_async_context(await open_websocket(node.port, path))
        stalled.send(1, f'{{"type":"subscribe","{contract.key}":"a"}}'.encode())
        session = await node.session_of("u1")
        feeds = node.composition.hub.tenants["default"].channels
        await node.until(lambda: session in getattr(feeds.get(contract.channel + "a"), "sessions", ()), "a")
        await join(lively, contract, "a")
        text = "x" * 60_000
        for number in range(150):
            await node.publish(
                contract.channel + "a", {"type": "x", "n": number, "text": text}, kind=contract.kind
            )
            assert (await lively.json())["n"] == number
        assert session.paused
        await lively.quiet()


@both
@pytest.mark.covers("S0.53", "S2.58", "S2.59", "S0.69")
async def test_what_a_node_keeps_of_a_connection_goes_with_it(contract: Contract) -> None:
    async with running_node("memory") as node:
        async with opened(node, contract) as socket:
            for number in range(50):
                await join(socket, contract, f"a{number}")
            (session,) = node.sessions
            feeds = node.composition.hub.tenants["default"].channels
            # By name, and by session: neither joining nor leaving looks at anybody else.
            assert isinstance(feeds, dict) and isinstance(feeds[contract.channel + "a7"].sessions, dict)
            assert session in feeds[contract.channel + "a7"].sessions
        await node.until(lambda: not node.sessions, "the session's end")
        assert not any(feed.sessions for feed in feeds.values())


@both
async def test_a_connection_has_a_bounded_number_of_channels(contract: Contract) -> None:
    async with (
        running_node("memory", limits={"channels_per_session": 4}) as node,
        opened(node, contract) as socket,
    ):
        await join(socket, contract, "a")
        await join(socket, contract, "b")
        assert (await socket.ask({"type": "subscribe", contract.key: "c"}))["type"] == "error"
        socket.say({"type": "unsubscribe", contract.key: "a"})
        await socket.text()
        await join(socket, contract, "c")


@both
@pytest.mark.covers("S0.84", "S2.57", "S2.65", "S2.72")
async def test_connections_are_measured(contract: Contract) -> None:
    async with running_node("memory") as node:
        async with opened(node, contract), opened(node, contract):
            assert await node.metric("dualcast_connections") == 2
            assert await node.metric("process_resident_memory_bytes") > 0
        await node.until(lambda: not node.sessions, "the sessions' end")
        assert await node.metric("dualcast_connections") == 0


@both
async def test_many_publications_at_a_time_all_come(contract: Contract) -> None:
    async with running_node("memory") as node, opened(node, contract) as socket:
        await join(socket, contract, "a")
        await asyncio.gather(
            *(
                node.publish(contract.channel + "a", {"type": "x", "n": number}, kind=contract.kind)
                for number in range(40)
            )
        )
        came = [(await socket.json())["n"] for _ in range(40)]
        assert sorted(came) == list(range(40))
        await socket.quiet()


@pytest.mark.covers("S2.75", "S2.76")
async def test_several_nodes_are_one_server() -> None:
    async with (
        place("redis") as where,
        running_node(where) as near,
        running_node(where) as far,
        opened(near, ROOMS, "u1") as room,
        opened(far, TOPICS, "u1") as topic,
        legacy_socket(far, "/api/ws") as anonymous,
    ):
        await anonymous.text()
        headers = near.auth("root", "admin")
        note: dict[str, Any] = {"title": "T", "message": "M"}
        await near.http.post("/api/v1/ws/notify/u1", json=note, headers=headers)
        first, second = await room.json(), await topic.json()
        assert first["data"]["id"] == second["data"]["id"]
        assert (first["data"]["message"], second["data"]["content"]) == ("M", "M")
        await far.http.post("/api/ws/notify", json={"title": "for all"}, headers=headers)
        for socket in (room, topic, anonymous):
            assert (await socket.json())["data"]["title"] == "for all"
            await socket.quiet()
        for node in (near, far):
            async with asyncio.timeout(WAIT_S):
                while await connections(node, headers) != 2:
                    await asyncio.sleep(0.02)  # one node hears of the other's a moment later


async def connections(node: Node, headers: dict[str, str]) -> int:
    """How many connections u1 has, as this node knows."""
    answer = await node.http.get("/api/v1/ws/connections/u1", headers=headers)
    return int(answer.json()["connections"])


@pytest.mark.covers("S0.80")
def test_the_default_port() -> None:
    assert Server().port == 8000
