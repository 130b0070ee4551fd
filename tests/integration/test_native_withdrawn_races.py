"""A grant that is withdrawn in the very moment in which a session is let in or changes its token."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from dualcast.model.principal import Principal
from dualcast.tenancy.access import Access
from support.clients import TRANSPORTS, open_client, open_socket
from support.node import ENGINES, Node, running_node

pytestmark = pytest.mark.anyio
ROOM = "room:7"
Asked = Callable[[int], Awaitable[None]]


def after_asking(monkeypatch: pytest.MonkeyPatch, then: Asked) -> None:
    """Calls `then(n)` between the nth answer about the room and whoever asked."""
    original = Access.may_subscribe
    count = 0

    async def asked(self: Access, principal: Principal, channel: str) -> bool:
        nonlocal count
        answer = await original(self, principal, channel)
        if channel == ROOM:
            count += 1
            await then(count)
        return answer

    monkeypatch.setattr(Access, "may_subscribe", asked)


async def change(node: Node, **what: list[str]) -> None:
    answer = await node.http.post(
        f"/v1/channels/{ROOM}/grants", headers=node.auth("backend", "publisher"), json=what
    )
    assert answer.status_code == 200
    await node.composition.follower.refresh()


@pytest.mark.parametrize("transport", TRANSPORTS)
async def test_withdrawn_while_it_is_asked_again_at_connect(
    transport: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with running_node("memory") as node:
        await node.grant(ROOM, "alice")

        async def then(count: int) -> None:
            if count == 1:
                await change(node, add=["bob"])
            elif count == 2:
                await change(node, remove=["alice"])

        after_asking(monkeypatch, then)
        async with await open_client(transport, node.port, node.token("alice"), channels=[ROOM]) as client:
            if transport == "ws":
                assert (await client.end()).code == 4003
            else:
                assert client.status == 403
        assert node.sessions == []


async def test_withdrawn_while_a_token_is_refreshed(monkeypatch: pytest.MonkeyPatch) -> None:
    refreshing = asyncio.Event()

    async def then(count: int) -> None:
        if refreshing.is_set():
            refreshing.clear()  # the token the session still has allows the channel, the new one does not
            await change(node, remove=["alice"])

    after_asking(monkeypatch, then)
    async with running_node("memory") as node:
        await node.grant(ROOM, "alice")
        old = node.token("alice", channels=[ROOM])
        async with await open_socket(node.port, old, channels=[ROOM]) as client:
            await client.welcome()
            refreshing.set()
            await client.send("authenticate", token=node.token("alice"))
            told = await client.next()
            assert (told.kind, told.body) == ("unsubscribed", {"channels": [ROOM]})
            assert (await client.next()).kind == "authenticated"
            assert not refreshing.is_set()
            assert [feed.name for feed in node.sessions[0].channels] == ["user:alice", "all"]


@pytest.mark.parametrize("since", ["here", "elsewhere-1"])
async def test_withdrawn_while_history_is_read(since: str, monkeypatch: pytest.MonkeyPatch) -> None:
    async with running_node("memory") as node:
        await node.grant(ROOM, "alice")
        bus = node.composition.bus
        async with await open_socket(node.port, node.token("alice")) as client:
            cursor = (await client.welcome()).cursor
            await node.publish(ROOM, "secret")

            def withdrawn_behind(name: str) -> None:
                original = getattr(bus, name)

                async def read(*args: Any, **how: Any) -> Any:
                    found = await original(*args, **how)
                    await change(node, remove=["alice"])
                    return found

                monkeypatch.setattr(bus, name, read)

            withdrawn_behind("read" if since == "here" else "known_epoch")
            await client.send("subscribe", channels=[ROOM], since=cursor if since == "here" else since)
            told = [await client.next() for _ in range(2 if since == "here" else 3)]
            assert told[0].kind == "unsubscribed" and told[0].body["channels"] == [ROOM]
            assert (told[-1].kind, told[-1].body["code"]) == ("error", "forbidden-channel")
            assert [feed.name for feed in node.sessions[0].channels] == ["user:alice", "all"]


@pytest.mark.parametrize("engine", ENGINES)
async def test_a_refreshed_token_is_known_by_its_new_id_everywhere(engine: str) -> None:
    async with (
        running_node(engine) as node,
        await open_socket(node.port, node.token("alice", jti="first")) as client,
    ):
        welcome = await client.welcome()
        presence = node.composition.features.presence
        connection = welcome.body["connection"]

        async def known() -> str:
            found = await presence.connection("default", connection)
            return found.token_id if found is not None else ""

        assert await known() == "first"
        await client.ask("authenticate", token=node.token("alice", jti="second"))
        async with asyncio.timeout(10):
            while await known() != "second":
                await asyncio.sleep(0.01)
        counted = await presence.presence_of("default", "alice")
        assert counted.connections == 1
