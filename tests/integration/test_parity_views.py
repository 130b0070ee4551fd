"""Stage `shadow` with pages that have a view (PROTO-66): their pairs are compared like all others."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import pytest

from dualcast.model.publication import Draft
from dualcast.transport.parity import Compared, ParityWatch
from support.clients import Client, open_client
from support.node import Node, running_node

pytestmark = pytest.mark.anyio


class Pages:
    """Pages of alice on a node, and a watch of our own over them."""

    def __init__(self, node: Node) -> None:
        self.node = node
        self.found: list[Compared] = []
        tenant: Any = node.composition.tenants.current("default")
        self.watch = ParityWatch(node.composition.node, lambda name: tenant.stage, self.found.append)

    async def open(self, transport: str, view: str) -> Client:
        token = self.node.token("alice")
        client = await open_client(transport, self.node.port, token, view=view, instance="page")
        await client.welcome()
        return client

    async def call(self, method: str, path: str, **body: Any) -> None:
        headers = self.node.auth("backend", "publisher")
        answer = await self.node.http.request(method, path, json=body, headers=headers)
        assert answer.is_success, answer.text

    async def notify(self, title: str) -> None:
        await self.call("POST", "/v1/notifications", to={"user": "alice"}, title=title)

    async def announce(self, channel: str, state: bytes) -> None:
        draft = Draft(tenant="default", channels=(channel,), id="late", type="task", data=state, time_ms=1)
        await self.node.composition.node.bus.append(draft)

    async def look(self) -> tuple[int, int]:
        """(compared, mismatches) of everything so far."""
        await self.watch.look()
        found = [one.comparison for one in self.found]
        return sum(one.compared for one in found), sum(one.mismatches for one in found)


@pytest.fixture
async def pages() -> AsyncIterator[Pages]:
    async with running_node("memory", tenancy={"stage": "shadow"}) as node:
        yield Pages(node)


async def view_events(client: Client, count: int) -> None:
    """The next frames of publications."""
    for _ in range(count):
        while not (await client.next()).body.get("id"):
            pass


@pytest.mark.parametrize("lost", [False, True])
async def test_both_connections_of_a_view_are_compared(
    pages: Pages, lost: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with (
        await pages.open("sse", "notifications") as stream,
        await pages.open("ws", "notifications") as socket,
    ):
        await pages.look()
        if lost:
            encoding = next(one.encoding for one in pages.node.sessions if one.encoding.transport == "ws")
            real = encoding.encode
            monkeypatch.setattr(encoding, "encode", lambda entry: b"" if entry.offset == 2 else real(entry))
        for n in range(3):
            await pages.notify(f"t{n}")
        await view_events(stream, 3)
        await view_events(socket, 2 if lost else 3)
        assert await pages.look() == (3, int(lost))
        (found,) = pages.found
        assert found.instance == "page notifications"
        assert [one.kind for one in found.comparison.differences] == ["missing-on-websocket"] * lost


async def test_what_the_state_of_one_connection_held_already_is_no_mismatch(pages: Pages) -> None:
    await pages.call("PUT", "/v1/tasks/T1", owner="alice", total_steps=3)
    async with await pages.open("sse", "task:T1") as stream:
        await pages.call("POST", "/v1/tasks/T1", state="processing", percent=50.0)
        await view_events(stream, 1)
        feed = next(one for one in pages.node.sessions[0].channels if one.name == "task:T1")
        states = [entry.publication.data for entry in feed.after(0)]
        async with await pages.open("ws", "task:T1") as socket:
            await pages.look()
            # Announced late: the state the socket was told first was ahead of the log.
            await pages.announce("task:T1", states[-1])
            await pages.call("POST", "/v1/tasks/T1", state="processing", percent=60.0)
            await view_events(stream, 2)
            await view_events(socket, 1)
            assert await pages.look() == (2, 0)
