"""`@dualcast/react` in a real Chromium, in StrictMode, with React 18 and 19, against a server over Redis."""

from __future__ import annotations

import asyncio
import json
import re
from asyncio.subprocess import PIPE
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Literal

import pytest

from support.bundle import BundleDoor, bundle, page
from support.chromium import Chromium
from support.react_page import Room, World, site
from support.redis_server import RedisServer
from support.server_process import ServerProcess, token

pytestmark = pytest.mark.anyio

PACKAGE = Path(__file__).parents[2] / "clients" / "react"
SETTINGS = {
    "delivery.retry_min_ms": 100,
    "delivery.retry_max_ms": 300,
    "bus.history_entries": 20,
    "delivery.ring_entries": 2,
    "server.drain_s": 1,
}


@pytest.fixture(scope="module")
def room(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Room]:
    folder = tmp_path_factory.mktemp("react")
    with RedisServer() as redis:
        server = ServerProcess("redis", folder, redis_url=redis.url, settings=SETTINGS)
        server.launch()
        yield Room(server, {18: site(folder / "18", 18), 19: site(folder / "19", 19)})
        server.kill()


@pytest.fixture(params=[18, 19], ids=["react18", "react19"])
async def world(request: pytest.FixtureRequest, room: Room) -> AsyncIterator[World]:
    await room.server.ready()
    room.users += 1
    async with BundleDoor(room.sites[request.param], room.server.port) as door, Chromium() as browser:
        await browser.open(door.base_url + "/site/page.html")
        await browser.until("document.body?.dataset.ready === 'yes'")
        assert (await browser.run("version")).startswith(f"{request.param}.")
        yield World(browser, room.server, door, f"user{room.users}")
        assert browser.console == [], "React and the page have nothing to complain about"


@pytest.mark.covers("S0.26", "S0.28", "S0.49", "S3.5", "S3.46", "S3.99")
async def test_the_status_shows_the_connection_and_controls_it(world: World) -> None:
    browser = world.browser
    text = ".dc-header .dc-status-text"
    await world.start({"part": "header"}, auto=False)
    await world.says(text, "未连接")
    assert world.door.open["socket"] == 0
    await world.start({"part": "header"})
    await world.says(text, "已连接")
    assert world.door.open["socket"] == 1, "StrictMode mounts twice, and connects once"
    look = (
        "(() => { const node = document.querySelector('.dc-header .dc-status');"
        "const text = node.querySelector('.dc-status-text');"
        "return [node.dataset.status, text.getAttribute('role'), text.getAttribute('aria-live'),"
        "getComputedStyle(node.querySelector('.dc-status-dot')).borderTopColor]; })()"
    )
    status, role, told, colour = await browser.run(look)
    assert [status, role, told] == ["live", "status", "polite"]
    await world.away(True)
    await world.says(text, "未连接")
    assert (await browser.run(look))[3] != colour
    await world.away(False)
    await world.says(text, "已连接")
    await world.show({"part": "status", "labels": {}}, {"part": "english"})
    await world.says(".dc-header .dc-status-text", "Connected")
    await world.says("#root > .dc-status .dc-button", "断开")
    await world.click("#root > .dc-status .dc-button")
    await world.says(".dc-header .dc-status-text", "Not connected")
    await world.says("#root > .dc-status .dc-button", "连接")
    await world.click("#root > .dc-status .dc-button")
    await world.says("#root > .dc-status .dc-status-text", "已连接")
    assert await browser.run("statuses.at(-1)") is True


async def test_a_client_of_the_application_takes_the_place_of_the_provider_s(world: World) -> None:
    browser = world.browser
    part = json.dumps([{"part": "client"}, {"part": "list"}])
    await world.start({"part": "list"})
    await browser.until("inbox.status === 'ready'")
    await browser.run("void (window.former = client)")
    await browser.run(f"give({token('ben' + world.user)!r}, ...{part})")
    await browser.until(f"client !== former && client.user === 'ben{world.user}' && inbox.status === 'ready'")
    await browser.until("former.status.status === 'off'")
    await browser.run("stop()")
    await browser.until("inbox.status === 'ready' && client.status.status === 'live'")
    assert world.door.open["socket"] == 1, "it is the application's"


async def test_the_bell_lists_marks_and_tells_other_pages(world: World) -> None:
    browser = world.browser
    await world.notify("first", "second", link="/orders/7")
    await world.notify("third", link=" JavaScript:window.evil=1")
    await world.start({"part": "bell", "limit": 2})
    other = await browser.tab()
    await other.open(world.door.base_url + "/site/page.html")
    await other.until("document.body?.dataset.ready === 'yes'")
    await world.start({"part": "bell"}, {"part": "list"}, tab=other)
    for tab in (browser, other):
        await world.says(".dc-badge", "3", tab)
    assert await browser.run("document.querySelector('.dc-bell-button').ariaLabel") == "通知, 3 条未读"
    await world.press("Tab", "Enter")
    await browser.until("document.querySelectorAll('.dc-item').length === 2")
    assert await browser.run("document.activeElement.getAttribute('role')") == "dialog"
    assert await browser.run("[...document.querySelectorAll('.dc-item a')].map((a) => a.pathname)") == [
        "/orders/7"
    ]
    await browser.until("document.querySelectorAll('.dc-item[data-state=seen]').length === 2")
    states = "[...document.querySelectorAll('#inbox li')].map((li) => li.dataset.state)"
    await other.until(f"{states}.join() === 'seen,seen,unseen'")
    await world.press("ArrowDown", "Enter")  # the first one: it is read, and given to the application
    await world.says(".dc-badge", "2")
    await world.says(".dc-badge", "2", other)
    assert len(await browser.run("opened")) == 1 and not await browser.run("window.evil")
    await world.click(".dc-more")
    await browser.until("document.querySelectorAll('.dc-item').length === 3")
    await world.notify("fourth")
    await world.says(".dc-item .dc-item-title", "fourth")
    await world.click(".dc-item:first-child .dc-icon:last-child")
    await browser.until("document.querySelectorAll('.dc-item').length === 3")
    await world.click(".dc-panel-head .dc-button")
    for tab in (browser, other):
        await tab.until("document.querySelector('.dc-bell') && !document.querySelector('.dc-badge')")
    await other.until(f"{states}.every((state) => state === 'read')")
    await world.press("Escape")
    await browser.until("!document.querySelector('.dc-panel')")
    assert await browser.run("document.activeElement.className") == "dc-bell-button"
    assert (await world.call("GET", f"/v1/users/{world.user}/unread-count"))["unread"] == 0


@pytest.mark.parametrize("world", [19], indirect=True)
async def test_the_focus_outlives_the_buttons_of_the_bell(world: World) -> None:
    browser = world.browser
    await world.notify("first", "second", "third")
    await world.start({"part": "bell", "limit": 2})
    await world.says(".dc-badge", "3")
    # A browser takes the focus away with the next frame only.
    frames = "new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(() => done(true))))"

    async def use(selector: str) -> None:
        await browser.run(f"document.querySelector({selector!r}).focus()")
        await world.press("Enter")

    await use(".dc-bell-button")
    await browser.until("document.querySelectorAll('.dc-item[data-state=seen]').length === 2")
    await use(".dc-item:first-child .dc-icon:first-child")
    await world.says(".dc-badge", "2")
    await browser.run(frames)
    assert await browser.run("document.activeElement.textContent") == "third"
    await use(".dc-more")
    await browser.until("!document.querySelector('.dc-more')")
    await browser.run(frames)
    assert await browser.run("document.activeElement.textContent") == "second"
    await use(".dc-panel-head .dc-button")
    await browser.until("!document.querySelector('.dc-badge')")
    await browser.run(frames)
    assert await browser.run("document.querySelector('.dc-panel').contains(document.activeElement)")
    await world.press("Escape")
    await browser.until("!document.querySelector('.dc-panel')")
    assert await browser.run("document.activeElement.className") == "dc-bell-button"


@pytest.mark.parametrize("world", [19], indirect=True)
async def test_what_an_open_bell_shows_of_a_burst_is_told_in_one_command(world: World) -> None:
    browser = world.browser
    await world.start({"part": "bell"}, {"part": "list"})
    await world.click(".dc-bell-button")
    await world.says(".dc-empty", "暂无通知")
    gate = "(() => { const { seen } = client.inbox, { promise, resolve } = Promise.withResolvers();"
    gate += "client.inbox.seen = (ids) => told.push(ids.length) && promise.then(() => seen(ids));"
    await browser.run(f"{gate} Object.assign(window, {{ told: [], answer: resolve }}); }})()")
    await world.notify("first")
    await browser.until("told.length === 1")
    await world.notify("second", "third", "fourth")
    await browser.until("inbox.notifications.length === 4")
    await browser.run("answer()")
    await browser.until("inbox.unseen === 0 && inbox.notifications.every(({ state }) => state === 'seen')")
    assert await browser.run("told") == [1, 3]


async def test_the_bell_on_a_phone_when_empty_and_with_own_items(world: World) -> None:
    browser = world.browser
    await browser.viewport(360, 640)
    await world.start({"part": "header", "controls": True})
    await world.click(".dc-bell-button")
    await world.says(".dc-empty", "暂无通知")
    await world.notify("x" * 100, content="y" * 100)
    await browser.until("document.querySelectorAll('.dc-item').length === 1")
    for direction in ("ltr", "rtl"):
        box = await browser.run(
            f"(() => {{ document.dir = {direction!r};"
            "const { left, right } = document.querySelector('.dc-panel').getBoundingClientRect();"
            "return [left, right, document.documentElement.scrollWidth]; })()"
        )
        assert box[0] >= 0 and box[1] <= 360 and box[2] <= 360, box
    await world.show({"part": "custom"})
    await world.click(".dc-bell-button")
    await world.says(".dc-panel .own", "x" * 100)
    await world.click(".dc-panel .own")
    await browser.until("!document.querySelector('.dc-badge')")
    await browser.run("document.dispatchEvent(new PointerEvent('pointerdown', { bubbles: true }))")
    await browser.until("!document.querySelector('.dc-panel')")


@pytest.mark.parametrize("world", [19], indirect=True)
async def test_an_action_the_server_refuses_is_undone(world: World) -> None:
    browser = world.browser
    await world.notify("one")
    await world.start({"part": "list"})
    await browser.until("inbox.unread === 1 && inbox.notifications.length === 1")
    # An id with a control character is refused, and all of the command with it.
    await browser.run("void (window.marking = inbox.markRead([inbox.notifications[0].id, 'a\\u0001']))")
    await browser.until("inbox.actionError?.code")
    assert "read" in await browser.run("shown"), "it was shown before the answer"
    assert await browser.run("marking") is False
    await browser.until("inbox.unread === 1 && inbox.notifications[0].state === 'unseen'")
    assert await browser.run("inbox.archive(inbox.notifications[0].id)") is True
    await browser.until("inbox.unread === 0 && inbox.notifications.length === 0 && !inbox.actionError")


async def test_components_share_a_subscription_that_ends_with_the_last(world: World) -> None:
    browser = world.browser
    feeds = [
        {"part": "feed", "name": name, "channel": f"topic:{channel}-{world.user}", "key": name, "limit": 3}
        for name, channel in (("a", "x"), ("b", "x"), ("c", "y"))
    ]
    topics = [f"topic:x-{world.user}", f"topic:y-{world.user}"]
    denied = {"part": "feed", "name": "d", "channel": "room:nobody"}
    await world.start(*feeds, denied)
    await browser.until("['a', 'b', 'c'].every((name) => feeds[name].status === 'subscribed')")
    await browser.until("feeds.d.status === 'refused' && feeds.d.error.code === 'forbidden-channel'")
    await world.subscribed(topics)
    await world.publish(topics[0], *range(5))
    for name in ("a", "b"):
        await world.says(f"#{name}", "4")
    assert await browser.run("feeds.a.events.map(({ data }) => data)") == [2, 3, 4]
    assert await browser.run("heard.filter((one) => one.startsWith('a'))") == [f"a {n}" for n in range(5)]
    await world.show(feeds[1], feeds[2])  # the first leaves: nobody notices
    await world.show({**feeds[1], "limit": 2}, {**feeds[2], "events": ["price"]})
    assert await world.channels() == topics
    await world.show(feeds[1])
    await world.subscribed(topics[:1])
    await world.publish(topics[0], 5)
    await world.says("#b", "5")
    moved = {**feeds[1], "channel": topics[1]}
    await world.show(moved)
    await world.subscribed(topics[1:])
    await world.show()
    await world.subscribed([])
    await world.show({"part": "list"}, {"part": "bell"}, *feeds)
    await browser.until("feeds.c.status === 'subscribed' && inbox.status === 'ready'")
    await browser.run("stop()")
    async with asyncio.timeout(20):
        while world.door.open["socket"] or world.door.open["stream"]:
            await asyncio.sleep(0.02)
    await browser.until("timers.size === 0")


@pytest.mark.parametrize("world", [18], indirect=True)
async def test_presence_is_the_state_and_who_comes_and_goes(world: World) -> None:
    browser = world.browser
    channel = f"presence:{world.user}"
    room = {"part": "presence", "channel": channel}
    await world.start(room)
    who = f"presences[{channel!r}].members.map(({{ user }}) => user).join()"
    await browser.until(f"{who} === {world.user!r} && presences[{channel!r}].status === 'ready'")
    other = await browser.tab()
    await other.open(world.door.base_url + "/site/page.html")
    await other.until("document.body?.dataset.ready === 'yes'")
    await world.start(room, room, tab=other, user="zoe")
    for tab in (browser, other):
        await tab.until(f"{who} === '{world.user},zoe' && presences[{channel!r}].count === 2")
    await other.run("stop()")
    await browser.until(f"{who} === {world.user!r} && presences[{channel!r}].count === 1")


async def test_a_reconnect_keeps_the_list_and_a_gap_loads_it_again(world: World) -> None:
    browser = world.browser
    topic = f"topic:{world.user}"
    await world.notify("n0")
    await world.start({"part": "list", "limit": 25}, {"part": "feed", "name": "a", "channel": topic})
    await browser.until("inbox.status === 'ready' && feeds.a.status === 'subscribed'")
    titles = "inbox.notifications.map(({ title }) => title).join()"
    await world.away(True)
    await world.notify("n1", "n2")
    await world.away(False)
    await browser.until(f"{titles} === 'n2,n1,n0' && inbox.unread === 3")
    assert await browser.run("inbox.stale") is False
    await world.away(True)
    many = [f"n{n}" for n in range(3, 40)]  # more than history keeps
    await world.notify(*many)
    await world.notify(*many, to={"channel": topic})
    await world.away(False)
    newest = ",".join(reversed(many))
    await browser.until(f"inbox.unread === 40 && !inbox.stale && {newest!r}.startsWith({titles})")
    assert await browser.run("inbox.notifications.length >= 25 && inbox.hasMore")
    await browser.until("feeds.a.gap?.reason === 'trimmed' && feeds.a.last.data.title === 'n39'")
    await browser.run("feeds.a.clear()")
    await browser.until("feeds.a.gap === null && feeds.a.events.length === 0")


@pytest.mark.parametrize("world", [19], indirect=True)
async def test_a_stream_goes_on_without_a_channel_that_is_refused(world: World) -> None:
    browser = world.browser
    good = {"part": "feed", "name": "a", "channel": f"topic:{world.user}"}
    denied = {"part": "feed", "name": "d", "channel": "room:nobody"}
    await world.start(good, denied, {"part": "list"}, transports=["fetch"])
    await browser.until("feeds.d.status === 'refused' && feeds.a.status === 'subscribed'")
    await world.publish(f"topic:{world.user}", 7)
    await world.says("#a", "7")
    await world.notify("one")
    await browser.until("inbox.notifications.length === 1 && inbox.unread === 1")
    assert await browser.run("inbox.markRead('all')") is True
    await browser.until("inbox.unread === 0 && client.status.transport === 'sse'")


APP = """
import { AppHeader, DualcastProvider, useChannel, useNotifications, usePresence } from "@dualcast/react";
function Page() {
  const { notifications, status } = useNotifications({ kinds: ["alert"] });
  const presence = usePresence("presence:x");
  const { last } = useChannel("topic:x", { onEvent() {} });
  return <p>{status} {notifications.length} {presence.count} {String(last)}</p>;
}
export const app = (
  <DualcastProvider options={{ getToken: () => globalThis.given }}>
    <AppHeader title="Shop" /><Page />
  </DualcastProvider>
);
"""
SERVER = (
    APP + 'import { renderToString } from "react-dom/server.browser";'
    "process.stdout.write(renderToString(app), () => process.exit());"
)
HYDRATION = (
    APP
    + 'import { hydrateRoot } from "react-dom/client"; hydrateRoot(document.getElementById("root"), app, '
    + "{ onRecoverableError: (error) => console.error(error) });"
)


@pytest.mark.parametrize("world", [18, 19], indirect=True)
async def test_a_server_renders_it_and_a_page_takes_it_over(world: World, tmp_path: Path) -> None:
    react: Literal[18, 19] = 18 if (await world.browser.run("version")).startswith("18") else 19
    (tmp_path / "package.json").write_text('{"type": "module"}')
    rendering = bundle(SERVER, tmp_path, react=react, name="server", platform="node")
    done = await asyncio.create_subprocess_exec("node", str(rendering), stdout=PIPE, stderr=PIPE)
    out, told = [text.decode() for text in await done.communicate()]
    assert done.returncode == 0 and not told, told
    assert "未连接" in out and "loading" in out
    bundle(HYDRATION, tmp_path, react=react, name="hydration")
    page(tmp_path, name="hydration")
    html = (tmp_path / "hydration.html").read_text()
    given = f"<script>globalThis.given = {token(world.user)!r}</script>"
    html = html.replace('<div id="root"></div>', f'<div id="root">{out}</div>{given}')
    (tmp_path / "hydration.html").write_text(html)
    world.door.folder = tmp_path
    await world.browser.open(world.door.base_url + "/site/hydration.html")
    await world.says(".dc-status-text", "已连接")


@pytest.mark.parametrize("world", [19], indirect=True)
async def test_the_example_of_the_readme(world: World, tmp_path: Path) -> None:
    found = re.search(r"```jsx\n(.*?)```", (PACKAGE / "README.md").read_text(), re.DOTALL)
    assert found
    bundle(found[1], tmp_path)
    page(tmp_path, style=True)
    given = token(world.user, channels=("topic:*", "presence:*"))
    session = f"""<body><script>
const real = fetch;
window.fetch = async (url, init) => (url === "/session/token" ? new Response({given!r}) : real(url, init));
</script>"""
    html = (tmp_path / "page.html").read_text().replace("<body>", session)
    (tmp_path / "page.html").write_text(html)
    world.door.folder = tmp_path
    await world.notify("hello")
    await world.browser.open(world.door.base_url + "/site/page.html")
    await world.says("h2", "1 unread")
    await world.says("li[data-state=unseen]", "hello read")
    await world.says("#root > p", "1 here")
    async with asyncio.timeout(20):
        while "topic:coffee" not in await world.channels():
            await asyncio.sleep(0.02)
    await world.publish("topic:coffee", {"EUR": 9})
    await world.says("output", "9")
    await world.click("li button")
    await world.says("h2", "0 unread")
