"""Whose messages these are: clients of all older contracts in one real Chromium, on two nodes over one Redis
(docs/contracts/legacy-wire.md sections 1.1, 1.9, 4.5 and regressions R12, R13)."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from support.legacy_site import USER, Site, legacy_site

pytestmark = pytest.mark.anyio

OTHER = "bob"
NOTIFIED = ("notificationSocket", "notificationStream", "rooms", "topics")
"""Kinds of clients that get notifications."""


@pytest.fixture
async def site(tmp_path: Path) -> AsyncIterator[Site]:
    async with legacy_site(tmp_path) as found:
        yield found


async def say(site: Site, user: str, number: int) -> None:
    """To a user, in every contract: a notification, a chat message, a progress frame."""
    await site.call("POST", f"/api/v1/ws/notify/{user}", {"title": f"n{number}", "message": f"n{number}"})
    await site.call("POST", f"/api/v1/chat/of-{user}/send", {"content": f"n{number}"}, sub="carol")
    frame: dict[str, Any] = {"type": "data_import_progress", "import_id": "i", "status": "processing"}
    frame |= {"message": f"n{number}", "progress": number}
    await site.publish([f"user:{user}"], "progress_frame", frame)


async def start_all(site: Site, user: str) -> list[str]:
    """A client of every kind for a user, on both nodes; their names, once all are connected."""
    names = []
    for place, kind in enumerate((*NOTIFIED, "chat")):
        names.append(f"{user}_{kind}")
        more: dict[str, Any] = {"room": "news", "device": "desktop", "connection": f"c-{user}"}
        await site.start(names[-1], kind, place % 2, user=user, **more)
    names.append(f"{user}_progress")
    await site.start(names[-1], "progress", 0, user=user, mark=f"/ws/{user}", client=user)
    for name in names:
        await site.opened(name, 1)
    return names


@pytest.mark.covers("R12")
async def test_r12_nobody_gets_what_is_for_somebody_else(site: Site) -> None:
    for user in (USER, OTHER):
        body = {"participants": [user, "carol"]}
        await site.call("PUT", f"/v1/conversations/of-{user}/participants", body)
    mine, theirs = await start_all(site, USER), await start_all(site, OTHER)
    await say(site, OTHER, 1)
    await site.sees(1, *theirs)
    await say(site, USER, 2)
    await site.sees(2, *mine)
    for name in mine:
        assert await site.numbers(name) == [2], name
    for name in theirs:
        assert await site.numbers(name) == [1], name
    await site.call("PUT", "/v1/tasks/theirs", {"owner": OTHER, "total_steps": 2})
    await site.start("spy", "task", 0, task="theirs", pace=100)
    await site.browser.until("clients.spy.closes.length > 0")
    assert (await site.get("spy", "closes"))[0] == 4004
    assert await site.get("spy", "items") == []


@pytest.mark.covers("R13")
async def test_r13_what_is_published_for_a_sub_arrives_on_every_transport(site: Site) -> None:
    for place in (0, 1):
        for kind in NOTIFIED:
            await site.start(f"{kind}{place}", kind, place, room="news")
    names = [f"{kind}{place}" for kind in NOTIFIED for place in (0, 1)]
    for name in names:
        await site.opened(name, 1)
    ways: list[tuple[str, dict[str, Any]]] = [
        (f"/api/v1/ws/notify/{USER}", {"title": "n1", "message": "n1"}),
        ("/api/ws/notify", {"notification": {"title": "n2", "content": "n2"}, "target_users": [USER]}),
        ("/v1/notifications", {"to": {"user": USER}, "title": "n3", "content": "n3"}),
        ("/v1/notifications", {"to": {"all": True}, "title": "n4", "content": "n4"}),
    ]
    for path, body in ways:
        await site.call("POST", path, body)
    await site.sees(4, *names)
    for name in names:
        assert await site.numbers(name) == [1, 2, 3, 4], name


async def test_demo_pages_connect_with_their_demo_tokens(site: Site) -> None:
    people = {"demo-user": "demo-token", "test-user-123": "test-token-456", "test-user-x1": "test-token-x1"}
    names = []
    for place, (user, given) in enumerate(people.items()):
        names.append(f"demo{place}")
        await site.start(names[-1], "rooms", place % 2, user=user, given=given, room="news")
        await site.opened(names[-1], 1)
    for number, user in enumerate(people):
        await site.call("POST", f"/api/v1/ws/notify/{user}", {"title": f"n{number}"})
    for number, name in enumerate(names):
        await site.sees(number, name)
        assert await site.numbers(name) == [number]


async def test_a_page_without_a_token_has_the_public_topics(site: Site) -> None:
    topics = ["wallet_updates", "import:t1"]
    await site.start("page", "topics", 1, given="", mark="/api/ws", topics=topics, pingPace=100)
    await site.browser.until("clients.page.types.includes('error') && clients.page.types.includes('pong')")
    assert (await site.get("page", "types")).count("subscribed") == 1
    await site.call("POST", "/api/ws/broadcast", {"text": "n1"})
    for topic, number in (("import:t1", 2), ("wallet_updates", 3)):
        await site.publish([f"topic:{topic}"], "topic_message", {"type": "t", "data": {"note": f"n{number}"}})
    await site.call("POST", "/api/ws/notify", {"notification": {"title": "T", "content": "n4"}})
    await site.sees(4, "page")
    assert await site.numbers("page") == [3, 4]
    assert "admin_broadcast" not in await site.get("page", "types")
