"""State first on the wire: at connect on both transports and by `subscribe`, while others publish."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any

import pytest

from dualcast.bus.announcing import Announcer
from dualcast.model.errors import BusUnavailable
from support.clients import Client, Got, WsClient, open_client, open_socket
from support.node import ENGINES, Node, running_node

pytestmark = pytest.mark.anyio
CHANNEL = "batch:lobby"
SETUPS = [*((engine, True) for engine in ENGINES), ("memory", False)]


@pytest.fixture(params=SETUPS, ids=lambda setup: f"{setup[0]}-{'detached' if setup[1] else 'plain'}")
async def node(request: pytest.FixtureRequest) -> AsyncIterator[Node]:
    engine, detach = request.param
    async with running_node(engine, detach=detach) as running:
        yield running


class Lobby:
    """A room that stores a change first and announces it then. `during` changes happen while its state is
    being read: after the store was looked at, before the answer is there."""

    def __init__(self, node: Node, *, during: int = 0) -> None:
        self.announcer = Announcer(node.composition.bus)
        self.during = during
        self.revision = 0
        self.reads = 0
        self.away = False
        node.composition.node.states.sources["batch"] = self.state

    async def change(self) -> None:
        self.revision += 1
        data = json.dumps({"revision": self.revision}, separators=(",", ":")).encode()
        await self.announcer.announce("default", [CHANNEL], "batch", data)

    async def state(self, tenant: str, channel: str) -> bytes | None:
        assert (tenant, channel) == ("default", CHANNEL)
        self.reads += 1
        if self.away:
            raise BusUnavailable("away")
        found = b'{"revision":%d}' % self.revision
        for _ in range(self.during):
            await self.change()
        return found


def heard(client: Client) -> list[Got]:
    """What the client was told of the channel, in order, each publication once."""
    seen: set[str] = set()
    found = []
    for got in client.history:
        if got.body.get("channel") != CHANNEL or got.kind == "gap":
            continue
        ident = got.body.get("id", "")
        if ident not in seen:
            found.append(got)
        if ident:
            seen.add(ident)
    return found


def check_whole(client: Client, last: int) -> None:
    """First the state; then every change after it, without a hole and in order."""
    state, *changes = heard(client)
    assert state.kind == "state", state
    assert {got.kind for got in changes} <= {"publication"}
    numbers = [got.data["revision"] for got in changes]
    known = state.body["data"]["revision"]
    assert numbers == sorted(numbers)
    assert [number for number in numbers if number > known] == list(range(known + 1, last + 1))


async def follow(client: Client, last: int) -> None:
    """Reads until the change `last` was told."""
    while not any(got.data == {"revision": last} for got in heard(client)):
        await client.next()


def token(node: Node, sub: str = "alice") -> str:
    return node.token(sub, channels=["batch:*", "topic:*", "task:*"])


@pytest.mark.parametrize("transport", ["sse", "ws"])
async def test_at_connect_the_state_is_the_first_thing_after_the_welcome(node: Node, transport: str) -> None:
    lobby = Lobby(node, during=3)
    await lobby.change()
    async with await open_client(transport, node.port, token(node), channels=[CHANNEL]) as client:
        welcome = await client.welcome()
        state = await client.next()
        assert (state.kind, state.body) == ("state", {"channel": CHANNEL, "data": {"revision": 1}})
        assert state.cursor in (None, welcome.cursor), "a state moves no position"
        await lobby.change()
        await follow(client, 5)
        check_whole(client, 5)
        assert lobby.reads == 1


@pytest.mark.parametrize("transport", ["sse", "ws"])
async def test_coming_back_with_a_cursor_the_state_comes_first_and_then_what_was_missed(
    node: Node, transport: str
) -> None:
    lobby = Lobby(node)
    async with await open_client(transport, node.port, token(node), channels=[CHANNEL]) as client:
        cursor = (await client.welcome()).cursor
    for _ in range(5):
        await lobby.change()
    lobby.during = 2
    async with await open_client(
        transport, node.port, token(node), channels=[CHANNEL], cursor=cursor
    ) as client:
        await follow(client, 7)
        check_whole(client, 7)
        state, *changes = heard(client)
        assert state.body["data"] == {"revision": 5}
        assert [got.data["revision"] for got in changes] == [1, 2, 3, 4, 5, 6, 7]


async def test_by_subscribe_the_state_comes_before_what_follows(node: Node) -> None:
    lobby = Lobby(node, during=3)
    async with await open_socket(node.port, token(node)) as client:
        start = (await client.welcome()).cursor
        reply = await client.ask("subscribe", channels=["topic:a", CHANNEL])
        assert reply.kind == "subscribed"
        await lobby.change()
        await follow(client, 4)
        check_whole(client, 4)
        # A cursor from before the state is still good for everything after it.
        assert start is not None and client.cursor is not None


@pytest.mark.parametrize("how", ["sse", "ws", "subscribe"])
async def test_no_change_is_lost_to_a_client_that_comes_while_everything_changes(
    node: Node, how: str
) -> None:
    lobby = Lobby(node, during=1)
    stop = asyncio.Event()

    async def changing() -> None:
        while not stop.is_set():
            await lobby.change()
            await node.composition.bus.append(_other(lobby.revision))
            await asyncio.sleep(0)

    async def coming(number: int) -> Client:
        await asyncio.sleep(number * 0.005)
        if how != "subscribe":
            return await open_client(how, node.port, token(node, f"u{number}"), channels=[CHANNEL])
        client = await open_socket(node.port, token(node, f"u{number}"))
        await client.ask("subscribe", channels=[CHANNEL])
        return client

    task = asyncio.create_task(changing())
    clients = await asyncio.gather(*(coming(number) for number in range(8)))
    stop.set()
    await task
    try:
        last = lobby.revision
        for client in clients:
            await follow(client, last)
            check_whole(client, last)
    finally:
        for client in clients:
            await client.close()


def _other(number: int) -> Any:
    """A publication on a channel that every session has: it moves their positions."""
    from dualcast.model.publication import Draft

    return Draft(
        tenant="default", channels=("all",), id=f"other-{number}", type="note", data=b"{}", time_ms=1
    )


@pytest.mark.parametrize("transport", ["sse", "ws"])
async def test_a_store_that_is_away_lets_everybody_in_and_says_so(node: Node, transport: str) -> None:
    lobby = Lobby(node)
    lobby.away = True
    async with await open_client(transport, node.port, token(node), channels=[CHANNEL]) as client:
        await client.welcome()
        state = await client.next()
        assert state.body == {"channel": CHANNEL, "data": None, "status": "away"}
        await lobby.change()
        assert (await client.next()).data == {"revision": 1}
        lobby.away = False
        if isinstance(client, WsClient):
            await client.send("subscribe", channels=[CHANNEL])
            again = await client.next()
            assert (again.kind, again.body["data"]) == ("state", {"revision": 1})
            assert (await client.next()).kind == "subscribed"


async def test_a_store_that_hangs_holds_nobody_up(node: Node) -> None:
    states = node.composition.node.states
    states._timeout_s = 0.05

    async def hung(tenant: str, channel: str) -> bytes | None:
        await asyncio.Event().wait()
        return None

    states.sources["task"] = hung
    async with await open_client("sse", node.port, token(node), channels=["task:1"]) as client:
        await client.welcome()
        assert (await client.next()).body["status"] == "away"


async def test_what_is_not_known_yet_is_told_and_comes_later(node: Node) -> None:
    async def nothing(tenant: str, channel: str) -> bytes | None:
        return None

    node.composition.node.states.sources["task"] = nothing
    async with await open_socket(node.port, token(node)) as client:
        await client.welcome()
        await client.send("subscribe", channels=["task:1", "topic:a"])
        state, reply = await client.next(), await client.next()
        assert (state.kind, state.body) == ("state", {"channel": "task:1", "data": None, "status": "none"})
        assert (reply.kind, reply.body["channels"]) == ("subscribed", ["task:1", "topic:a"])


async def test_states_are_of_the_tenant_of_the_token(node: Node) -> None:
    asked = []

    async def source(tenant: str, channel: str) -> bytes | None:
        asked.append((tenant, channel))
        return json.dumps({"tenant": tenant}).encode()

    node.composition.node.states.sources["task"] = source
    for tenant in ("default", "other"):
        bearer = node.token(tenant=tenant, channels=["task:*"])
        async with await open_socket(node.port, bearer, channels=["task:1"]) as client:
            await client.welcome()
            assert (await client.next()).body["data"] == {"tenant": tenant}
    assert asked == [("default", "task:1"), ("other", "task:1")]


async def test_a_channel_that_is_not_allowed_has_no_state_either(node: Node) -> None:
    lobby = Lobby(node)
    async with await open_socket(node.port, node.token()) as client:
        await client.welcome()
        reply = await client.ask("subscribe", channels=[CHANNEL])
        assert (reply.kind, reply.body["code"]) == ("error", "forbidden-channel")
        assert lobby.reads == 0 and not heard(client)
