"""Browser clients that behave as each older contract describes its own (docs/contracts/legacy-wire.md
sections 3.7, 4.5, 5.7, 6.8, 7.7), in a real Chromium, on a site with two nodes over one Redis.

One client of a user likes node 0, another one node 1. Node 0 is killed, comes back, and node 1 drains:
whoever comes back by its contract gets everything that was published while it was connected, once. None of
them knows what it has seen already, so a copy too many would show.
"""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Awaitable, Callable
from itertools import groupby
from pathlib import Path
from typing import Any

import pytest

from support.legacy_site import USER, Site, legacy_site

pytestmark = pytest.mark.anyio

A, B = "a", "b"
"""Clients that like node 0 and node 1."""


@pytest.fixture
async def site(tmp_path: Path) -> AsyncIterator[Site]:
    async with legacy_site(tmp_path) as found:
        yield found


Publish = Callable[[int], Awaitable[Any]]


async def through_it_all(site: Site, publish: Publish, a: str = A, b: str = B) -> None:
    """Numbers 1 to 7, a kill -9, a restart and a drain; asserts what `a` and `b` have seen of it."""
    await site.opened(a, 1)
    await site.opened(b, 1)
    for number in (1, 2):
        await publish(number)
    await site.sees(2, a, b)
    assert site.places(0) == {0} and site.places(1) == {1}, "the clients are not on two nodes"

    site.kill(0)
    await publish(3)
    await site.sees(3, b)
    await site.opened(a, 2)
    assert site.places(0) == {0, 1}
    await publish(4)
    await site.sees(4, a, b)

    await site.restart(0)
    await publish(5)
    await site.sees(5, a, b)
    await site.drain(1)
    await site.opened(a, 3)
    await site.opened(b, 2)
    await publish(6)
    await site.restart(1)
    await publish(7)  # published there, received here
    await site.sees(7, a, b)

    assert await site.numbers(b) == [1, 2, 3, 4, 5, 6, 7]
    seen = await site.numbers(a)
    assert [number for number in seen if number != 3] == [1, 2, 4, 5, 6, 7]
    assert seen == sorted(set(seen)), "something arrived twice or in another order"
    # A kill shows as 1006, a drain as 1012, never as 1000; a stream does not say.
    assert await site.get(a, "closes") in ([1006, 1012], ["error"] * 2)
    assert await site.get(b, "closes") in ([1012], ["error"])


def notice(site: Site) -> Publish:
    async def publish(number: int) -> None:
        body = {"title": f"n{number}", "message": "数据", "type": "success", "category": "analysis"}
        await site.call("POST", f"/api/v1/ws/notify/{USER}", body)

    return publish


# ── notifications (3.7) ──


@pytest.mark.parametrize("kind", ["notificationSocket", "notificationStream"])
async def test_notifications_reach_their_client_once(site: Site, kind: str) -> None:
    await site.start(A, kind, 0)
    await site.start(B, kind, 1)
    await through_it_all(site, notice(site))
    assert await site.get(B, "unread") == 7 == await site.get(B, "poll()"), "the bell and the inbox disagree"
    first = (await site.get(B, "items"))[0]
    assert [first[key] for key in ("title", "content", "type", "status")] == [
        "n1",
        "数据",
        "analysis",
        "unread",
    ]


async def test_a_stream_left_to_the_browser_loses_nothing(site: Site) -> None:
    """The `id:` line: `Last-Event-ID` brings what was published while the stream was away."""
    await site.start(A, "patientStream", 0)
    await site.start(B, "patientStream", 1)
    await through_it_all(site, notice(site))
    assert await site.numbers(A) == [1, 2, 3, 4, 5, 6, 7]


async def test_both_transports_of_one_page_get_one_copy_each(site: Site) -> None:
    await site.start(A, "notificationSocket", 0)
    await site.start(B, "notificationStream", 1)
    await through_it_all(site, notice(site))


async def test_the_variant_that_falls_back_stays_on_the_stream(site: Site) -> None:
    site.door.sockets = False
    await site.start(A, "fallback", 0, pace=50)
    await site.browser.until("clients.a.stream?.opens === 1")
    assert len(await site.get(A, "closes")) == 6, "the first attempt and five more"
    await notice(site)(1)
    await site.sees(1, A)
    site.door.sockets = True
    await notice(site)(2)
    await site.sees(2, A)
    assert await site.numbers(A) == [1, 2]
    assert await site.get(A, "opens") == 0


@pytest.mark.covers("R24")
async def test_r24_a_finished_task_does_not_make_its_client_loop(site: Site) -> None:
    await site.call("PUT", "/v1/tasks/T1", {"owner": USER, "total_steps": 4})
    await site.start(A, "task", 0, task="T1")
    await site.start(B, "task", 1, task="T1")

    async def report(step: int, *names: str) -> None:
        await site.call("POST", "/v1/tasks/T1", {"step": step, "message": f"n{step}"})
        for name in names:
            await site.browser.until(f"clients.{name}.items.some(([, step]) => step === {step})")

    await site.opened(A, 1)
    await site.opened(B, 1)
    await report(1, A, B)
    site.kill(0)
    await report(2, B)
    await site.opened(A, 2)
    await report(3, A, B)
    await site.call("POST", "/v1/tasks/T1", {"state": "completed", "step": 4})
    for name in (A, B):
        await site.browser.until(f"clients.{name}.items.some(([kind]) => kind === 'completed')")
    progress = [["progress", step] for step in (1, 2, 3)]
    assert await site.get(B, "items") == [*progress, ["completed", 4]]
    seen = await site.get(A, "items")  # after a reconnect the last known state is told (again)
    assert [item for item, _ in groupby(seen)] == [*progress, ["completed", 4]]
    assert len(seen) <= 5
    await site.start("bell", "notificationSocket", 1)
    await site.opened("bell", 1)
    await notice(site)(9)
    await site.sees(9, "bell")
    assert [await site.get(name, "socket.readyState") for name in (A, B)] == [1, 1], "it stays open"
    assert [await site.get(name, "opens") for name in (A, B)] == [2, 1]


# ── rooms (4.5) ──


async def test_rooms_clients_get_notifications_once(site: Site) -> None:
    await site.start(A, "rooms", 0, room="news")
    await site.start(B, "rooms", 1, room="news")
    await through_it_all(site, notice(site))
    assert await site.get(B, "items[0]") == ["notification", "n1", "success"]


@pytest.mark.covers("R28")
async def test_r28_a_room_and_a_target_user_are_one_copy(site: Site) -> None:
    await site.start(A, "rooms", 0, room="news", pingPace=100)
    await site.start(B, "rooms", 1, room="news")
    for name in (A, B):
        await site.browser.until(f"clients.{name}.types.includes('room_subscribed')")
    await site.publish(["room:news"], "room_message", {"text": "n1"})
    await site.publish(["room:news", f"user:{USER}"], "room_message", {"text": "n2"})
    body = {"message": {"message": "n3"}, "target_users": [USER, "somebody"]}
    await site.call("POST", "/api/v1/ws/broadcast", body)
    await site.call("POST", "/api/v1/ws/broadcast", {"message": "n4"})
    await site.call("POST", f"/api/v1/ws/sync-update/{USER}", {"n": "n5"})
    await site.sees(5, A, B)
    for name in (A, B):
        assert await site.numbers(name) == [1, 2, 3, 4, 5]
        kinds = [item[0] for item in await site.get(name, "items")]
        assert kinds == ["room", "room", "system", "system", "sync"]
    await site.browser.until("clients.a.types.includes('pong')")
    types = await site.get(A, "types")
    assert types[:2] == ["connection_established", "notification_stats"]
    assert (await site.get(A, "stats"))["total_connections"] >= 1
    await site.browser.run("clients.a.leave()")
    await site.browser.until("clients.a.closes.length === 1")
    assert await site.get(A, "closes") == [1000]
    assert await site.get(A, "opens") == 1


@pytest.mark.covers("R21", "R22")
async def test_r22_a_client_with_an_expired_token_gives_up(site: Site) -> None:
    """Its counter starts again in `onopen`, so only a refusal before the accept lets it count."""
    await site.start(A, "rooms", 0, life_s=-3600, pace=20)
    await site.browser.until("clients.a.stopped")
    assert await site.get(A, "closes") == [4001] * 3 + [1006] * 5
    assert await site.get(A, "opens") == 3


# ── topics (5.7) ──


async def test_topics_clients_get_notifications_once(site: Site) -> None:
    await site.start(A, "topics", 0)
    await site.start(B, "topics", 1)

    async def publish(number: int) -> None:
        notification = {"title": "T", "content": f"n{number}", "level": "warning"}
        body = {"notification": notification, "target_users": [USER] if number % 2 else None}
        await site.call("POST", "/api/ws/notify", body)

    await through_it_all(site, publish)
    assert await site.get(B, "items[0]") == ["notification", "n1", "warning"]


async def test_topics_reach_their_handlers_until_the_client_forgets_to_subscribe_again(site: Site) -> None:
    wallets = ["wallet_updates"]
    await site.start(A, "topics", 0, topics=["import:t1", *wallets], pingPace=100)
    await site.start(B, "topics", 1, topics=["import:t1", *wallets])
    for name in (A, B):
        await site.browser.until(f"clients.{name}.types.filter((t) => t === 'subscribed').length === 2")

    async def wallet(number: int) -> None:
        message = {"type": "wallet_update", "wallet_address": "0x1", "data": {"note": f"n{number}"}}
        await site.publish(["topic:wallet_updates"], "topic_message", message)

    progress = {"task_id": "t1", "status": "processing", "total": 1000, "processed": 500, "success": 480}
    message = {"type": "import_progress", "task_id": "t1", "data": progress}
    await site.publish(["topic:import:t1"], "topic_message", message)
    await wallet(1)
    await site.sees(1, A, B)
    for name in (A, B):
        seen = await site.get(name, "items.filter(([topic, type]) => type !== 'subscribed')")
        assert seen[0] == ["import:t1", "import_progress", ["t1", "processing", 1000, 480, 0, 0, 50, None]]
        assert seen[1:] == [["wallet_updates", "wallet_update", {"note": "n1"}]]
    await site.browser.until("clients.a.types.includes('pong')")
    assert await site.get(A, "client_id")

    site.kill(0)
    await wallet(2)
    await site.sees(2, B)
    await site.opened(A, 2)
    await wallet(3)
    await site.sees(3, B)
    await site.call("POST", "/api/ws/notify", {"notification": {"title": "T", "content": "n4"}})
    await site.sees(4, A, B)
    assert await site.numbers(B) == [1, 2, 3, 4]
    assert await site.numbers(A) == [1, 4]


# ── conversations (6.8) ──


async def test_chat_reaches_every_device_once_and_a_killed_node_makes_nobody_offline(site: Site) -> None:
    path = "/api/v1/chat/conv_1"
    await site.call("PUT", "/v1/conversations/conv_1/participants", {"participants": [USER, "bob"]})
    await site.start(A, "chat", 0, device="desktop", connection="c-desk", beatPace=100)
    await site.start(B, "chat", 1, device="mobile", connection="c-mobile")

    async def publish(number: int) -> None:
        await site.call("POST", f"{path}/send", {"content": f"n{number}"}, sub="bob")

    await through_it_all(site, publish)
    await site.call("POST", f"{path}/typing", {"is_typing": True}, sub="bob")
    for name in (A, B):
        await site.browser.until(f"clients.{name}.items.some(([kind]) => kind === 'typing')")
        assert (await site.get(name, "items"))[-1] == ["typing", "bob", True]
        assert ["presence", USER, "offline"] not in await site.get(name, "items")
        others = await site.get(name, "others")
        assert {kind for kind, _ in others} == {"connected"}
        assert others[0][1]["connection_id"] == ("c-desk" if name == A else "c-mobile")
    await site.browser.until("clients.a.alive > 0")
    await site.browser.run("clients.a.disconnect()")
    await site.browser.until("clients.a.closes.at(-1) === 1000")
    assert await site.get(A, "opens") == 3, "disconnect is final"


# ── progress (7.7) ──


async def test_progress_clients_get_everything_until_their_node_dies(site: Site) -> None:
    for name, place in ((A, 0), (B, 1)):
        await site.start(name, "progress", place, mark=f"{USER}:{name}", client=f"{USER}:{name}")
        await site.opened(name, 1)

    async def publish(number: int) -> None:
        frame = {"type": "batch_report_progress", "batch_id": "b1", "status": "processing"}
        await site.publish(
            [f"user:{USER}"],
            "progress_frame",
            {**frame, "message": f"n{number}", "progress": number, "total": 4},
        )

    await publish(1)
    await site.sees(1, A, B)
    site.kill(0)
    await site.browser.until("clients.a.closes.length === 1")
    await publish(2)
    await site.sees(2, B)
    await site.restart(0)
    await site.start("again", "progress", 0, mark=f"{USER}:again", client=f"{USER}:again")
    await site.opened("again", 1)
    for number in (3, 4):
        await publish(number)
    await site.sees(4, B, "again")
    expected = [[f"n{number}", "processing", f"{number * 25}%"] for number in (1, 2, 3, 4)]
    assert await site.get(B, "items") == expected
    assert await site.get("again", "items") == expected[2:]
    assert await site.get(A, "items") == expected[:1]
    assert await site.get(A, "opens") == 1, "it does not come back"


async def test_progress_scripts_find_the_order_they_expect(site: Site) -> None:
    await site.start(A, "progress", 0, mark="/ws/admin")  # the default client id
    await site.opened(A, 1)
    custom = {"type": "custom", "text": "hi"}
    for frame in ({"type": "ping"}, custom, {"type": "subscribe", "event_type": "batch_reports"}):
        await site.browser.run(f"clients.a.say({json.dumps(frame)})")
    await site.browser.until("clients.a.types.length >= 4")
    assert (await site.get(A, "types"))[:4] == ["connection", "pong", "echo", "subscription"]
    assert await site.get(A, "items") == [["echo", custom]]
