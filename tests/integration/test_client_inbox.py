"""Inboxes over the Python client, for asyncio and for threads."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest

from support.client_package import bodies, package
from support.node import Node, running_node

pytestmark = pytest.mark.anyio


@pytest.fixture(params=["memory", "redis"])
async def node(request: pytest.FixtureRequest) -> AsyncIterator[Node]:
    async with running_node(request.param) as running:
        yield running


async def fill(node: Node, count: int) -> list[str]:
    """Notifications to alice, oldest first; their ids."""
    token = node.token("backend", roles=["publisher"])
    async with package.AsyncClient(node.base_url, token) as client:
        notes = [
            bodies.Notification(
                to=bodies.Target(user="alice"), title=f"T{n}", type="alert" if n % 2 else "system"
            )
            for n in range(count)
        ]
        return [result.id for result in await client.notify_many(notes)]


async def test_an_inbox_is_read_in_pages_counted_marked_and_emptied(node: Node) -> None:
    ids = await fill(node, 130)
    async with package.AsyncClient(node.base_url, node.token("alice")) as client:
        inbox = client.inbox("alice")
        listed = [item async for item in inbox.items()]
        assert [item.id for item in listed] == ids[::-1]
        assert (listed[0].title, listed[0].state, listed[0].scope) == ("T129", "unseen", "user")
        page = await inbox.page(limit=2, kinds=["alert"])
        assert [item.title for item in page.notifications] == ["T129", "T127"] and page.next
        counts = await inbox.counts(by_kind=True)
        assert (counts.unread, counts.unseen, counts.kinds) == (130, 130, {"alert": 65, "system": 65})
        marked = await inbox.mark_read([ids[0], ids[1], "unknown"])
        assert set(marked.changed) == set(ids[:2]) and marked.unknown == ("unknown",)
        assert (marked.unread, marked.count) == (128, 2)
        assert (await inbox.mark_seen()).unseen == 0
        assert (await inbox.mark_unread([ids[0]])).unread == 129
        read = [item.id async for item in inbox.items(states=["read"])]
        assert read == [ids[1]]
        await inbox.archive([ids[2], ids[3]])
        archived = [item.id async for item in inbox.items(states=["archived"], kinds=["alert", "system"])]
        assert archived == [ids[3], ids[2]]
        await inbox.delete(ids[5])
        with pytest.raises(package.DualcastError, match="unknown-notification"):
            await inbox.delete(ids[5])
        assert (await inbox.delete_all("archived")).count == 2
        assert (await inbox.delete_all("all")).unread == 0
        assert [item async for item in inbox.items()] == []
        with pytest.raises(package.DualcastError) as caught:
            await client.inbox("bob").counts()
        assert caught.value.status == 403
        with pytest.raises(TypeError, match="list"):
            await inbox.mark_read("n1")


async def in_thread(work: Callable[[], Any]) -> Any:
    return await asyncio.to_thread(work)


async def test_the_same_from_threads(node: Node) -> None:
    ids = await fill(node, 105)
    token = node.token("backend", roles=["publisher"])

    def work() -> None:
        with package.Client(node.base_url, token) as client:
            inbox = client.inbox("alice")
            assert [item.id for item in inbox.items()] == ids[::-1]
            assert len(inbox.page().notifications) == 50
            assert inbox.mark_seen(ids[:1]).unseen == 104
            assert inbox.mark_read(ids[:1]).unread == 104
            assert inbox.mark_unread(ids[:1]).unread == 105
            assert inbox.archive(ids[:1]).count == 1
            assert inbox.counts().unread == 104
            inbox.delete(ids[1])
            inbox.mark_read(ids[2:4])
            assert inbox.delete_all("read").count == 2
            to_all = client.notify(bodies.Notification(to=bodies.Target(all=True), title="all"))
            assert next(inbox.items()).scope == "tenant"
            client.admin.withdraw(to_all.id)
            assert next(inbox.items()).scope == "user"

    await in_thread(work)


async def test_the_badge_comes_with_the_publication_and_a_subscriber_hears_of_marks(node: Node) -> None:
    async with (
        package.AsyncClient(node.base_url, node.token("alice")) as client,
        client.subscribe() as stream,
    ):
        (ident,) = await fill(node, 1)
        note = await anext(stream)
        assert note.id == ident and note.inbox is not None
        assert (note.inbox.unread, note.inbox.unseen) == (1, 1)
        marked = await client.inbox("alice").mark_read([ident])
        told = await anext(stream)
        assert told.event == "inbox" and told.data["revision"] == list(marked.revision)
