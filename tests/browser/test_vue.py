"""`@dualcast/vue` in a real Chromium: the examples of its README, as they stand there, on a real server."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from support.bundle import CLIENTS, BundleDoor, bundle, page
from support.chromium import Chromium
from support.server_process import ServerProcess, token

pytestmark = pytest.mark.anyio

README = (CLIENTS / "vue" / "README.md").read_text()
NATIVE, LEGACY = re.findall(r"```js\n(.*?)```", README, re.DOTALL)
USER = "alice"
TOKEN = token(USER, channels=("topic:*", "presence:*"))
SETTINGS = {"delivery.retry_min_ms": 100, "delivery.retry_max_ms": 300}
PAGE = f"""
function fetch() {{ return Promise.resolve(new Response({json.dumps(TOKEN)})); }}
window.dualcast = dualcast;
"""
STORE = """
import { reactive } from "vue";
const auth = reactive({ token: localStorage.other ?? "", isAuthenticated: true });
window.auth = auth;
window.shown = [];
const Given = window.Notification;
window.Notification = class extends Given {
  constructor(title, { body, icon }) {
    super(title, { body, icon });
    window.shown.push({ title, body, icon });
  }
};
function useAuthStore() { return auth; }
window.store = () => useWebSocketStore();
window.list = () => useNotificationStore();
"""
ODD = """
import { createApp, h, KeepAlive, mergeProps, ref } from "vue";
import { createDualcast, EN, NotificationBell } from "@dualcast/vue";
window.shows = ref(true);
window.custom = ref(false);
window.opened = [];
window.loads = 0;
const tell = (name) => ({ onOpenItem: ({ title }) => window.opened.push(name + " " + title) });
const bell = mergeProps({ labels: EN }, tell("one"), tell("two"));
window.dualcast = createDualcast({ url: location.origin, getToken: () => TOKEN });
const { list } = window.dualcast.client.inbox;
window.dualcast.client.inbox.list = (...given) => ((window.loads += 1), list(...given));
const item = ({ item, markRead }) => h("button", { class: "own", onClick: markRead }, item.title);
const slots = () => (window.custom.value ? { item } : {});
const page = () => (window.shows.value ? h(NotificationBell, bell, slots()) : h("i"));
window.app = createApp({ render: () => h(KeepAlive, page) });
const shadow = document.querySelector("#root").attachShadow({ mode: "open" });
window.inside = (selector) => shadow.querySelector(selector);
window.app.use(window.dualcast).mount(shadow);
""".replace("TOKEN", json.dumps(TOKEN))


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The examples, each as a page: only the server's address is another one."""
    folder = tmp_path_factory.mktemp("vue")
    here = "location.origin"
    native = NATIVE.replace('"https://push.example.com"', here)
    bundle(native.replace("createApp(App)", "(window.app = createApp(App))") + PAGE, folder, name="native")
    page(folder, name="native", style=True)
    bundle(ODD, folder, name="odd")
    page(folder, name="odd")
    legacy = LEGACY.replace('"https://push.example.com", //', f"{here}, ...window.more, //")
    legacy = legacy.replace("createApp({", "(window.app = createApp({", 1).replace(
        "WebSocketRoot, () => h(Page)) })", "WebSocketRoot, () => h(Page)) }))"
    )
    more = 'window.more = location.hash ? { transport: "dualcast" } : {};\n'
    (folder / "more.js").write_text(more)
    source = f'import "{folder / "more.js"}";\n{STORE}{legacy}'
    bundle(source, folder, name="legacy")
    page(folder, name="legacy")
    return folder


@pytest.fixture(scope="module")
def anyio_backend() -> Iterator[tuple[str, dict[str, Any]]]:
    yield ("asyncio", {"use_uvloop": True})


class World:
    """A browser, a server, and the network between them."""

    def __init__(self, browser: Chromium, server: ServerProcess, door: BundleDoor) -> None:
        self.browser = browser
        self.server = server
        self.door = door

    async def call(self, path: str, body: Any) -> None:
        headers = {"authorization": "Bearer " + token("root", roles=("admin", "publisher"))}
        async with httpx.AsyncClient(base_url=self.server.base_url, headers=headers, timeout=30) as http:
            answer = await http.post(path, json=body)
        assert answer.is_success, (path, answer.status_code, answer.text)

    async def notify(self, title: str, **more: Any) -> None:
        await self.call("/v1/notifications", {"to": {"user": USER}, "title": title, **more})

    async def text(self, selector: str, text: str, seconds: float = 30) -> None:
        """Waits until an element says so."""
        found = f"document.querySelector({selector!r})?.innerText.includes({text!r})"
        await self.browser.until(found, seconds)

    async def press(self, key: str) -> None:
        await self.browser.on_page(lambda page: page.keyboard.press(key))

    async def nothing_open(self) -> None:
        async with asyncio.timeout(30):
            while sum(self.door.open.values()):
                await asyncio.sleep(0.02)


@pytest.fixture(scope="module")
async def started(site: Path, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[World]:
    folder = tmp_path_factory.mktemp("vue-server")
    async with (
        ServerProcess("sqlite", folder, settings=SETTINGS) as server,
        BundleDoor(site, server.port) as door,
        Chromium(permissions=["notifications"]) as browser,
    ):
        yield World(browser, server, door)


@pytest.fixture
async def world(started: World) -> World:
    started.browser.console.clear()
    started.door.sockets = True
    await started.browser.viewport(900, 700)
    return started


async def test_the_example_of_the_readme(world: World) -> None:
    """Status, counters, the list, marks, a channel and presence; unmounting leaves no connection."""
    browser = world.browser
    await world.notify("first", content="text", link="/site/native.html#there")
    await world.notify("second", link="javascript:alert(1)")
    await browser.open(world.door.base_url + "/site/native.html")
    await world.text(".dc-status", "Connected")
    await world.text(".dc-badge", "2")
    await world.text("#here", "1 here")
    await world.call("/v1/publish", {"channel": "topic:prices", "type": "price", "data": {"EUR": "1.25"}})
    await world.text("#price", "EUR 1.25")

    await browser.run("document.querySelector('.dc-bell-button').focus()")
    await world.press("Enter")
    await browser.until("document.activeElement.getAttribute('role') === 'dialog'")
    inside = "(({ left, right }) => left >= 0 && right <= innerWidth)"
    assert await browser.run(f"{inside}(document.activeElement.getBoundingClientRect())")
    titles = "[...document.querySelectorAll('.dc-item-title')].map((one) => one.lastChild.textContent)"
    assert await browser.run(titles) == ["second", "first"]
    links = "[...document.querySelectorAll('.dc-item a')].map((one) => one.getAttribute('href'))"
    assert await browser.run(links) == ["/site/native.html#there"], "only what may be followed is a link"
    await browser.until("dualcast.client.badge?.unseen === 0")  # shown is seen
    assert await browser.run("dualcast.client.badge.unread") == 2

    await world.notify("third")
    await browser.until(f"{titles}[0] === 'third'")
    label = "document.querySelector('.dc-bell-button').getAttribute('aria-label')"
    await browser.until(f"{label} === 'Notifications, 3 unread'")
    await browser.until("document.querySelector('.dc-bell > [role=status]').innerText === '3 unread'")
    await browser.run("""document.querySelector('[aria-label="Mark as read: third"]').focus()""")
    await world.press("Enter")
    await browser.until("dualcast.client.badge.unread === 2")
    await browser.until("document.activeElement.getAttribute('role') === 'dialog'")
    await browser.run("""document.querySelector('[aria-label="Delete: second"]').click()""")
    await browser.until(f"{titles}.join() === 'third,first'")
    await world.press("Escape")
    await browser.until("!document.querySelector('.dc-panel')")
    assert await browser.run("document.activeElement.className") == "dc-bell-button"

    await browser.run("document.querySelector('#all').click()")
    await browser.until("!document.querySelector('.dc-badge')")
    await world.text("#all", "mark 0 as read")
    assert browser.console == []
    await browser.run("app.unmount()")
    await world.nothing_open()
    assert await browser.run("dualcast.client.status.status") == "off"
    assert await browser.run("dualcast.client.channels.length") == 0


async def test_a_network_without_websockets_and_one_that_breaks(world: World) -> None:
    browser = world.browser
    world.door.sockets = False
    await browser.open(world.door.base_url + "/site/native.html?sse")
    await world.text(".dc-status", "sse")
    await world.notify("over sse")
    await world.text(".dc-badge", "1")
    world.door.away = True
    world.door.cut()
    await world.text(".dc-status", "Not connected")
    world.door.away = False
    await world.notify("while it was away")
    await world.text(".dc-badge", "2")
    await world.text(".dc-status", "Connected")
    await browser.run("document.querySelector('.dc-status button').click()")
    await browser.until("dualcast.client.status.status === 'off'")
    await world.nothing_open()
    await browser.run("document.querySelector('.dc-status button').click()")
    await world.text(".dc-status", "Connected")
    await browser.run("app.unmount()")


async def test_a_phone_in_the_dark_from_right_to_left(world: World) -> None:
    browser = world.browser
    await browser.viewport(360, 640)
    await browser.on_page(lambda page: page.emulate_media(color_scheme="dark"))
    await browser.open(world.door.base_url + "/site/native.html?phone")
    await browser.run("document.documentElement.style.colorScheme = 'light dark'")
    await world.text(".dc-status", "Connected")
    for direction in ("ltr", "rtl"):
        await browser.run(f"document.documentElement.dir = {direction!r}")
        await browser.run("document.querySelector('.dc-bell-button').click()")
        await browser.until("document.querySelector('.dc-panel')")
        box = await browser.run("document.querySelector('.dc-panel').getBoundingClientRect().toJSON()")
        assert box["left"] >= 0
        assert box["right"] <= 360, (direction, box)
        assert await browser.run("document.documentElement.scrollWidth") <= 360
        colour = await browser.run("getComputedStyle(document.querySelector('.dc-panel')).backgroundColor")
        assert colour == "rgb(22, 28, 38)"
        await browser.on_page(lambda page: page.mouse.click(180, 630))  # outside
        await browser.until("!document.querySelector('.dc-panel')")
    await browser.on_page(lambda page: page.emulate_media(color_scheme="light"))
    await browser.run("app.unmount()")


async def test_a_bell_inside_of_a_shadow_root_that_is_kept_alive_and_has_two_listeners(world: World) -> None:
    """A press inside is none outside, each listener is told, and what is put away does not count as seen."""
    browser = world.browser
    await world.notify("odd")
    await browser.open(world.door.base_url + "/site/odd.html")
    await browser.until("inside('.dc-badge')")
    assert await browser.run("loads") == 0, "the list is loaded when somebody looks"
    await browser.run("inside('.dc-bell-button').click()")
    await browser.until("inside('.dc-item-title')")
    await world.press("ArrowDown")
    focus = "document.querySelector('#root').shadowRoot.activeElement"
    assert await browser.run(f"{focus}.textContent") == "odd"
    await browser.on_page(lambda page: page.click(".dc-item-title"))
    await browser.until("opened.length")
    assert await browser.run("opened") == ["one odd", "two odd"]
    await browser.until("dualcast.client.badge.unseen === 0")
    await browser.until("inside('.dc-panel')")
    await browser.run("shows.value = false")
    await browser.until("!inside('.dc-bell')")
    await world.notify("while it is put away")
    await browser.until("dualcast.client.badge.unseen === 1")
    await browser.run("shows.value = true")
    await browser.until("inside('.dc-badge')")
    assert await browser.run("inside('.dc-panel') === null && dualcast.client.badge.unseen") == 1
    await browser.run("custom.value = true; inside('.dc-bell-button').click()")
    await browser.until("inside('.own')")
    unread = await browser.run("dualcast.client.badge.unread")
    await browser.run("inside('.own').click()")
    await browser.until(f"dualcast.client.badge.unread === {unread - 1}")
    await browser.run("dualcast.client.inbox.read('all')")  # as the next test finds it
    await browser.until("dualcast.client.badge.unread === 0")
    assert browser.console == []
    await browser.run("app.unmount()")


@pytest.mark.covers("S1.15", "S1.18", "S1.25", "S1.26", "S1.27", "S1.30", "S1.42")
async def test_a_page_of_the_older_contract(world: World) -> None:
    """The store by itself, then by one setting over the native protocol, where there are no WebSockets."""
    browser = world.browser
    await browser.open(world.door.base_url + "/site/legacy.html")
    assert await browser.run("store().ws === null"), "no token"
    await browser.run(f"localStorage.setItem('auth-token', {TOKEN!r})")
    browser.console.clear()
    await browser.reload()
    await world.text("#status", "connected")
    await browser.until("store().connected")
    assert "/api/ws/notifications?token=" in await browser.run("store().ws.url")
    await world.notify("分析完成", type="analysis", content="000001 分析已完成")
    await world.text("ul", "分析完成")
    await browser.until("shown.length === 1")
    wanted = {"title": "分析完成", "body": "000001 分析已完成", "icon": "/favicon.ico"}
    assert await browser.run("shown") == [wanted]

    world.door.cut()
    await browser.until("!store().connected")
    await browser.until("store().connected")
    await browser.run("store().maxReconnectAttempts = 0")
    world.door.cut()
    await browser.until("store().ws === null")
    assert any("gave up" in line for line in browser.console), browser.console
    assert not any(TOKEN[-20:] in line for line in browser.console)
    await browser.run("document.querySelector('#again').click()")
    await browser.until("store().connected")
    await browser.run("app.unmount()")
    await world.nothing_open()

    world.door.sockets = False
    browser.console.clear()
    await browser.open(world.door.base_url + "/site/legacy.html#dualcast")
    await browser.reload()
    await browser.until("store().connected && store().ws.status.transport === 'sse'")
    await world.notify("native")
    await world.text("ul", "native")
    await browser.run("auth.isAuthenticated = false")
    await world.nothing_open()
    assert await browser.run("store().ws === null && !store().connected")
    await browser.run("localStorage.clear()")
