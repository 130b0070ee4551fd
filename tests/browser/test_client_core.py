"""`clients/core` in a real Chromium, against servers over Redis: what was sent arrives once and in order,
whatever happens in between.

`-rP` shows the account of each scenario: sent, received, missing, doubled.
"""

from __future__ import annotations

import asyncio
import json
import signal
from collections import Counter
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import Any

import httpx
import pytest

from support.blackhole import Blackhole
from support.chromium import Chromium, Tab
from support.client_door import Door
from support.redis_server import RedisServer
from support.server_process import ServerProcess, token

pytestmark = pytest.mark.anyio

USER = "alice"
FAST = {
    "spread": 100,
    "settle": 500,
    "probe": 300,
    "probeCap": 1500,
    "first": 100,
    "cap": 1000,
    "greet": 1500,
}


class World:
    """A page in a browser, a server, and the network between them."""

    def __init__(self, browser: Chromium, server: ServerProcess, door: Door, page: Tab | None = None) -> None:
        self.chromium = browser
        self.browser = page or browser
        self.server = server
        self.door = door
        self.sent: list[str] = []

    async def tab(self) -> World:
        """The page in another tab, and what was sent."""
        page = await self.chromium.tab()
        await page.open(self.door.base_url + "/site/")
        await page.until("document.body?.dataset.ready === 'yes'")
        tab = World(self.chromium, self.server, self.door, page)
        tab.sent = self.sent
        return tab

    async def call(self, method: str, path: str, body: Any) -> Any:
        headers = {"authorization": "Bearer " + token("root", roles=("admin", "operator")), "if-match": "*"}
        async with httpx.AsyncClient(base_url=self.server.base_url, headers=headers, timeout=30) as http:
            answer = await http.request(method, path, json=body)
        assert answer.is_success, (path, answer.status_code, answer.text)
        return answer.json()

    async def send(self, count: int) -> None:
        """So many notifications to the user, in order."""
        titles = [f"n{len(self.sent) + number}" for number in range(count)]
        for at in range(0, count, 1000):
            items = [
                {"to": {"user": USER}, "title": title, "store": False} for title in titles[at : at + 1000]
            ]
            await self.call("POST", "/v1/notifications/batch", items)
        self.sent += titles  # in place: tabs share it

    async def stage(self, *stages: str) -> None:
        for stage in stages:
            body = {"stage": stage, "why": "a test", "force": True}
            await self.call("PUT", "/v1/tenants/default/migration", body)

    async def start(self, name: str, tokens: Sequence[str] = (), **options: Any) -> None:
        fields = {"tokens": tokens or [token(USER)], "timing": FAST, **options}
        await self.browser.run(f"start({name!r}, {json.dumps(fields)})")

    async def live(self, name: str, transport: str, seconds: float = 30) -> None:
        await self.browser.until(f"clients.{name}.client.status.transport === {transport!r}", seconds)

    async def account(self, scenario: str, *names: str) -> None:
        """Waits until each has as many as were sent, and asserts that they are these, each once, in order."""
        for name in names:
            await self.browser.until(f"clients.{name}.titles.length >= {len(self.sent)}", 60)
            received: list[str] = await self.browser.run(f"clients.{name}.titles")
            doubled = sum(times - 1 for times in Counter(received).values())
            missing = len(set(self.sent) - set(received))
            line = f"{len(self.sent)} sent, {len(received)} received, {missing} missing, {doubled} doubled"
            print(f"{scenario} ({name}): {line}")
            assert received == self.sent, f"{scenario} ({name}): {line}"


@pytest.fixture
async def world(tmp_path: Path, request: pytest.FixtureRequest) -> AsyncIterator[World]:
    """With a browser of its own for a test that says so."""
    settings = {
        "delivery.retry_min_ms": 100,
        "delivery.retry_max_ms": 300,
        "delivery.move_spread_s": 1,
        "delivery.move_grace_s": 1,
        "server.drain_s": 1,
    }
    settings["bus.history_entries"] = 20_000
    with RedisServer() as redis:
        async with (
            ServerProcess("redis", tmp_path, redis_url=redis.url, settings=settings) as server,
            Door(server.port) as door,
            Chromium(alone=getattr(request, "param", False)) as browser,
        ):
            await browser.open(door.base_url + "/site/")
            await browser.until("document.body?.dataset.ready === 'yes'")
            yield World(browser, server, door)


@pytest.mark.covers("S1.7", "S4.5")
async def test_a_network_that_drops_again_and_again(world: World) -> None:
    transports = {"a": ["websocket", "fetch"], "b": ["fetch"], "c": ["eventsource"]}
    for name, given in transports.items():
        await world.start(name, transports=given)
    await world.live("a", "websocket")
    for name in ("b", "c"):
        await world.live(name, "sse")
    for _ in range(3):
        await world.send(20)
        world.door.cut()
        await world.send(20)
    world.door.away = True
    world.door.cut()
    await world.send(20)
    await world.browser.until("clients.a.client.status.transport === null")
    world.door.away = False
    await world.account("network drop", *transports)
    await world.live("a", "websocket")
    assert world.browser.console == []


async def test_a_server_that_is_killed_and_one_that_drains(world: World) -> None:
    await world.start("a")
    await world.start("b", transports=["fetch"])
    await world.start("c", transports=["eventsource"])
    await world.live("a", "websocket")
    for name in ("b", "c"):
        await world.live(name, "sse")
    await world.send(20)
    world.server.kill()
    await world.server.start()
    await world.send(20)
    await world.account("server killed", "a", "b", "c")
    for number, name in enumerate(("a", "b", "c")):
        await world.live(name, "websocket" if number == 0 else "sse")
    world.server.signal(signal.SIGTERM)
    await world.server.exited()
    await world.server.start()
    await world.send(20)
    await world.account("server drained", "a", "b", "c")
    codes = await world.browser.run("clients.a.closed.map(({ code }) => code)")
    assert "1006" in codes, "killed"


async def test_a_token_that_expires_is_renewed_on_the_connection(world: World) -> None:
    for name, transports in (("a", ["websocket"]), ("b", ["fetch"]), ("c", ["eventsource"])):
        await world.start(name, [token(USER, life_s=4), token(USER)], transports=transports)
    for name in ("a", "b", "c"):
        await world.browser.until(f"clients.{name}.asked === 2")
    await world.send(20)
    await asyncio.sleep(5)  # the first tokens are over
    await world.send(20)
    await world.account("token expiry", "a", "b", "c")
    assert await world.browser.run("clients.a.closed.length") == 0


async def test_a_proxy_that_swallows_frames(world: World) -> None:
    world.door.swallow = True
    await world.start("a")
    await world.live("a", "sse")
    await world.send(20)
    assert "silent" in await world.browser.run("JSON.stringify({ ...localStorage })")
    await world.account("blackhole", "a")
    world.door.swallow = False
    await world.live("a", "websocket")
    await world.send(20)
    await world.account("blackhole, and back up", "a")
    await world.browser.until("localStorage.length === 0")


async def test_a_reload_resumes_where_the_page_was(world: World) -> None:
    browser = world.browser
    await world.start("a")
    await world.live("a", "websocket")
    await world.send(20)
    await browser.until("clients.a.titles.length === 20")
    before = await browser.run("clients.a.titles")
    await browser.run("delete document.body.dataset.ready")
    await browser.reload()
    await world.send(20)
    await browser.until("document.body?.dataset.ready === 'yes'")
    await world.start("a")
    await world.send(20)
    await browser.until("clients.a.titles.length >= 40")
    received = before + await browser.run("clients.a.titles")
    print(f"reload: {len(world.sent)} sent, {len(received)} received")
    assert received == world.sent


async def test_a_tenant_moves_while_pages_are_open(world: World) -> None:
    """A page written for `EventSource` after changing one identifier, beside a page of the client."""
    await world.stage("sse")
    await world.start("a", parityMs=500)
    await world.browser.run(f"legacy('b', '/v1/stream?token={token(USER)}', {json.dumps(FAST)})")
    for name in ("a", "b"):
        await world.live(name, "sse")
    await world.send(20)
    for stage in ("shadow", "fallback", "websocket"):
        sending = asyncio.create_task(world.send(20))
        await world.stage(stage)
        await sending
        await world.send(20)
    for name in ("a", "b"):
        await world.live(name, "websocket")
    await world.send(20)
    await world.account("sse → shadow → fallback → websocket", "a", "b")
    await world.stage("sse")
    for name in ("a", "b"):
        await world.send(20)
        await world.live(name, "sse", 45)
    await world.send(20)
    await world.account("websocket → sse", "a", "b")
    assert await world.browser.run("clients.b.told") == ["open"], "the page noticed nothing"


@pytest.mark.parametrize("world", [True], indirect=True, ids=["alone"])
async def test_a_page_that_is_frozen_and_thawed(world: World) -> None:
    browser = world.browser
    await world.start("a")
    await world.start("b", transports=["fetch"])
    await world.live("a", "websocket")
    await world.live("b", "sse")
    await world.send(20)
    for name in ("a", "b"):
        await browser.until(f"clients.{name}.titles.length === 20")
    await browser.call("Page.setWebLifecycleState", state="frozen")
    async with asyncio.timeout(30):
        while world.door.open["socket"] + world.door.open["stream"]:
            await asyncio.sleep(0.05)
    await world.send(20)
    await browser.call("Page.setWebLifecycleState", state="active")
    await world.account("frozen and thawed", "a", "b")


async def test_ten_tabs_use_one_connection(world: World) -> None:
    tabs = [await world.tab() for _ in range(10)]
    for tab in tabs:
        await tab.start("a", group=USER)
    for tab in tabs:
        await tab.browser.until("clients.a.client.status.status === 'live'")
    assert world.door.open["socket"] == 1
    await world.send(50)
    for tab in tabs:
        await tab.account("ten tabs", "a")
    leading = [await tab.browser.run("clients.a.client.status.leader") for tab in tabs]
    assert leading.count(True) == 1
    await tabs.pop(leading.index(True)).browser.close()
    await world.send(50)
    for tab in tabs:
        await tab.account("ten tabs, the leader closed", "a")
    leading = [await tab.browser.run("clients.a.client.status.leader") for tab in tabs]
    assert leading.count(True) == 1
    assert world.door.open["socket"] == 1 and world.door.open["stream"] == 0


async def test_tabs_with_channels_of_their_own(world: World) -> None:
    """What each tab subscribed to survives the one that leads; a badge read in one is read in all."""
    tabs = {number: (await world.tab()).browser for number in range(3)}
    for number, tab in tabs.items():
        fields = {"tokens": [token(USER, channels=("topic:*",))], "timing": FAST, "group": USER}
        await tab.run(f"start('a', {json.dumps(fields)})")
        await tab.run("clients.a.client.on('badge', () => 0)")
        await tab.run(f"clients.a.client.subscribe('topic:{number}', 'topic:all')")
    with pytest.raises(AssertionError, match="forbidden-channel"):
        await tabs[1].run("clients.a.client.subscribe('task:nobody')")

    async def prices(value: int) -> None:
        for channel in ("topic:0", "topic:1", "topic:2", "topic:all"):
            body = {"channel": channel, "type": "price", "data": f"{channel} {value}"}
            await world.call("POST", "/v1/publish", body)

    async def seen(values: range) -> None:
        for number, tab in tabs.items():
            await tab.until(f"clients.a.prices.length >= {2 * len(values)}")
            wanted = [f"topic:{which} {value}" for value in values for which in (number, "all")]
            assert await tab.run("clients.a.prices") == wanted, number

    await prices(0)
    await seen(range(1))
    await world.call("POST", "/v1/notifications", {"to": {"user": USER}, "title": "one"})
    for tab in tabs.values():
        await tab.until("clients.a.client.badge?.unread === 1")
    await tabs[2].run("clients.a.client.inbox.read('all')")
    for tab in tabs.values():
        await tab.until("clients.a.client.badge.unread === 0")
    assert await tabs[0].run("clients.a.client.status.leader")
    await tabs.pop(0).close()
    for value in range(1, 6):
        await prices(value)
    await seen(range(6))


async def test_popups_that_are_paused_while_they_open_become_live(world: World) -> None:
    """Chromium refuses a lock to a page that is paused at that moment, and drops what is posted to it."""
    fields = json.dumps({"tokens": [token(USER)], "timing": FAST, "group": USER})
    opener = world.browser
    await opener.run("void (window.popups = [])")
    for number in range(10):
        await opener.run("void popups.push(window.open(location.href))")
        await opener.until(f"popups[{number}].document?.body?.dataset.ready === 'yes'")
        await opener.run(f"popups[{number}].start('a', {fields})")
    status = "popup.clients.a.client.status"
    await opener.until(f"popups.every((popup) => {status}.status === 'live')")
    assert await opener.run(f"popups.filter((popup) => {status}.leader).length") == 1
    assert world.door.open["socket"] == 1


async def test_connections_that_fall_silent(tmp_path: Path) -> None:
    """A dead route behind a middlebox: nothing ends, nothing comes."""
    settings = {"delivery.sse_heartbeat_s": 5, "delivery.ws_heartbeat_s": 5, "delivery.retry_max_ms": 300}
    settings |= {"delivery.retry_min_ms": 100}
    async with (
        ServerProcess("sqlite", tmp_path, settings=settings) as server,
        Blackhole(server.host, server.port) as route,
        Door(route.port) as door,
        Chromium() as browser,
    ):
        world = World(browser, server, door)
        await browser.open(door.base_url + "/site/")
        await browser.until("document.body?.dataset.ready === 'yes'")
        timing = {**FAST, "answer": 1000, "slack": 1000}
        await world.start("a", timing=timing)
        await world.start("b", timing=timing, transports=["fetch"])
        await world.live("a", "websocket")
        await world.live("b", "sse")
        await world.send(20)
        for name in ("a", "b"):
            await browser.until(f"clients.{name}.titles.length === 20")
        route.swallow()
        await world.send(20)
        await world.account("silence", "a", "b")


async def test_ten_thousand(world: World) -> None:
    await world.start("a")
    await world.start("b", transports=["fetch"])
    await world.start("c", transports=["eventsource"])
    await world.start("d", standby=True)
    for name in ("a", "d"):
        await world.live(name, "websocket")
    for name in ("b", "c"):
        await world.live(name, "sse")
    for number in range(10):
        await world.send(1000)
        if number in (3, 6):
            world.door.cut()
    await world.account("10,000", "a", "b", "c", "d")
    assert await world.browser.run("Object.values(clients).map(({ gaps }) => gaps)") == [0, 0, 0, 0]
