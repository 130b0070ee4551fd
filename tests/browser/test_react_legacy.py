"""`@dualcast/react/legacy` in a real Chromium, in StrictMode, with React 18 and 19, against a server process.
Who tries to open a WebSocket is counted between the two."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any, Literal

import httpx
import pytest

from support.bundle import BundleDoor, bundle, page
from support.chromium import Chromium
from support.plain_http import http_client
from support.server_process import SECRET, ServerProcess, token

pytestmark = pytest.mark.anyio

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "tests" / "clients" / "react_legacy" / "support" / "page.js"
GUIDE = ROOT / "docs" / "guides" / "web-pages.md"
CONVERSATIONS = "/api/v1/ws"
STATUS = "document.querySelector('#plain .dc-status-text')?.textContent"


class CountingDoor(BundleDoor):
    """Knows the path of every WebSocket that somebody tried to open."""

    def __init__(self, folder: Path, port: int) -> None:
        super().__init__(folder, port)
        self.tried: list[str] = []

    async def _pass(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, head: bytes, target: str
    ) -> None:
        if b"upgrade: websocket" in head.lower():
            self.tried.append(target.partition("?")[0])
        await super()._pass(reader, writer, head, target)

    def live(self) -> int:
        """Sockets of the two contracts that are open."""
        return sum(count for kind, count in self.open.items() if kind.startswith(CONVERSATIONS))


class World:
    """A page in a browser, a server, and what is between them."""

    def __init__(
        self, browser: Chromium, server: ServerProcess, door: CountingDoor, http: httpx.AsyncClient, user: str
    ) -> None:
        self.browser = browser
        self.http = http
        self.server = server
        self.door = door
        self.user = user

    async def call(self, path: str, body: Any, sub: str = "root", method: str = "POST") -> Any:
        roles = ("admin", "publisher", "operator") if sub == "root" else ()
        headers = {"authorization": "Bearer " + token(sub, roles=roles)}
        url = self.server.base_url + path
        answer = await self.http.request(method, url, json=body, headers=headers, timeout=30)
        assert answer.is_success, (path, answer.status_code, answer.text)
        return answer.json()

    async def show(self, part: str, **props: Any) -> None:
        await self.browser.run(f"show({part!r}, {json.dumps(props)})")

    async def sign(self, user: str) -> None:
        await self.browser.run(f"sign({token(user) if user else ''!r})")

    async def go(self, path: str) -> None:
        """As a router does. Comes back when the page's socket knows."""
        await self.browser.run(f"go({path!r})")
        await self.browser.run("new Promise((done) => setTimeout(done))")

    async def click(self, selector: str) -> None:
        await self.browser.until(f"document.querySelector({selector!r})?.disabled === false")
        await self.browser.run(f"document.querySelector({selector!r}).click()")

    async def closed(self) -> None:
        async with asyncio.timeout(10):
            while self.door.live():
                await asyncio.sleep(0.01)


class Room:
    """What all tests of the file share."""

    def __init__(self, server: ServerProcess, sites: dict[int, Path]) -> None:
        self.server = server
        self.sites = sites
        self.users = 0


@pytest.fixture(scope="module")
def room(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Room]:
    folder = tmp_path_factory.mktemp("react_legacy")
    environ = {"DUALCAST_JWT_SECRET": SECRET}
    server = ServerProcess("sqlite", folder, dev=True, environ=environ)
    server.launch()
    yield Room(server, {18: _site(folder / "18", 18), 19: _site(folder / "19", 19)})
    server.kill()


def _site(folder: Path, react: Literal[18, 19]) -> Path:
    """The application of the tests, and the page of the guide, as `window.guide`."""
    folder.mkdir()
    recipe = folder / "recipe.js"
    recipe.write_text("\n".join(re.findall(r"```js\n(.*?)```", GUIDE.read_text(), re.DOTALL)))
    entry = f'import * as guide from "{recipe}"; import "{PAGE}"; window.guide = guide;'
    bundle(entry, folder, react=react)
    page(folder, style=True)
    return folder


@pytest.fixture(params=[18, 19], ids=["react18", "react19"])
async def world(request: pytest.FixtureRequest, room: Room) -> AsyncIterator[World]:
    await room.server.ready()
    room.users += 1
    async with (
        CountingDoor(room.sites[request.param], room.server.port) as door,
        Chromium() as browser,
        http_client() as http,
    ):
        await browser.open(door.base_url + "/site/page.html")
        await browser.until("document.body?.dataset.ready === 'yes'")
        assert (await browser.run("version")).startswith(f"{request.param}.")
        user = f"user{room.users}"
        await browser.run(f"void (window.conversation = {user!r})")
        yield World(browser, room.server, door, http, user)
        assert browser.console == [], "React and the page have nothing to complain about"


@pytest.mark.covers("S0.25", "S0.47", "S0.48", "S0.70", "S0.71", "S0.72")
async def test_the_hook_of_a_user(world: World) -> None:
    browser, door, user = world.browser, world.door, world.user
    given = token(user)
    await world.show("hook", userId=user, token=given, name="first")
    await browser.until("hook.isConnected && told.some(([, type]) => type === 'room_subscribed')")
    assert door.tried == [f"{CONVERSATIONS}/{user}"], "StrictMode mounts twice, and connects once"
    assert await browser.run("told.slice(0, 2)") == [
        ["first", "connect"],
        ["first", "connection_established", None],
    ]
    await browser.run("void (told.length = 0, window.before = hook)")
    assert await browser.run("hook.sendMessage({ type: 'ping' })") is True
    await browser.until("told.some(([, type]) => type === 'pong')")

    await world.show("hook", userId=user, token=token(user, life_s=60), name="second")
    await world.call(f"/api/v1/ws/notify/{user}", {"title": "T", "message": "M"})
    await browser.until("told.some(([name, , title]) => name === 'second' && title === 'T')")
    same = "['sendMessage', 'subscribe', 'connect', 'disconnect'].every((one) => before[one] === hook[one])"
    assert await browser.run(same), "effects that depend on them do not run again"
    assert len(door.tried) == 1, "neither another callback nor a renewed token is a reason to connect"

    await world.show("hook", userId=user + "b", token=token(user + "b"), name="third")
    await browser.until("told.some(([name, type]) => name === 'third' && type === 'connect')")
    assert door.tried[1:] == [f"{CONVERSATIONS}/{user}b"]
    assert await browser.run("told.find(([, type]) => type === 'disconnect')") == [
        "third",
        "disconnect",
        1000,
    ]
    await world.show("hook", userId=user + "b", token=None, name="out")
    await browser.until("hook.connectionStatus === 'disconnected'")
    await world.closed()
    await world.show("hook", userId=user, token=given, name="back")
    await browser.until("hook.isConnected")
    await world.show("none")
    await world.closed()
    assert len(door.tried) == 3 and browser.failures == []


@pytest.mark.covers(
    "S3.4", "S3.5", "S3.31", "S3.32", "S3.44", "S3.45", "S3.46", "S3.57", "S3.59", "S3.61", "S3.100"
)
async def test_a_socket_only_on_pages_that_ask_for_one(world: World) -> None:
    browser, door, user = world.browser, world.door, world.user
    await world.call(f"/v1/conversations/{user}/participants", {"participants": [user, "ben"]}, method="PUT")
    await world.go("/login")
    await world.show("site")
    for path in ("/home", "/about", "/login", "/admin/login", "/chat"):
        await world.go(path)
    assert await browser.run("page.config.connectionType") == "chat"
    await world.sign(user)
    await browser.until(f"{STATUS} === '已连接'")
    assert await browser.run("[page.isConnected, page.connectionStatus]") == [True, "connected"]
    assert door.tried == [CONVERSATIONS], "six pages, one socket: not before somebody signed in"

    texts = [f"m{number}" for number in range(100)]
    send = f"/api/v1/chat/{user}/send"
    await asyncio.gather(*(world.call(send, {"content": text, "sender_id": "ben"}) for text in texts))
    await browser.until("seen.length >= 100")
    assert sorted(await browser.run("seen")) == sorted(texts), "an effect on lastMessage sees each of them"

    await world.go("/admin")
    await browser.until(f"{STATUS} === '已连接' && page.config.connectionType === 'admin'")
    assert await browser.run("page.lastMessage?.action") != "new_message", "nothing of the page before"
    assert len(door.tried) == 2 and door.live() <= 2
    await browser.run("history.back()")
    await browser.until(f"{STATUS} === '已连接' && page.config.connectionType === 'chat'")
    await world.go("/login")
    await world.closed()
    assert await browser.run("[page.isConnected, page.lastMessage, page.config.enabled]") == [
        False,
        None,
        False,
    ]
    assert await browser.run(STATUS) == "未连接"
    assert await browser.run("document.querySelector('#plain .dc-status button')") is None
    assert len(door.tried) == 3 and browser.failures == []


@pytest.mark.parametrize("world", [18], indirect=True)
@pytest.mark.covers("S3.5", "S3.8", "S3.10", "S3.99")
async def test_the_status_while_the_network_is_away(world: World) -> None:
    browser, door = world.browser, world.door
    await world.go("/orders")
    await world.sign(world.user)
    await world.show("site")
    await browser.until(f"{STATUS} === '已连接'")
    door.away = True
    door.cut()
    await browser.until(f"{STATUS} === '未连接' && page.connectionStatus === 'reconnecting'")
    door.away = False
    await browser.until(f"{STATUS} === '已连接'")
    assert len(door.tried) == 2
    await world.click("#plain .dc-status button")
    await browser.until(f"{STATUS} === '未连接' && page.connectionStatus === 'disconnected'")
    await world.closed()
    await world.click("#plain .dc-status button")
    await browser.until(f"{STATUS} === '已连接'")


@pytest.mark.covers("S3.16", "S3.20")
async def test_a_chat_page(world: World) -> None:
    browser, door, user = world.browser, world.door, world.user
    await world.call(f"/v1/conversations/{user}/participants", {"participants": [user, "ben"]}, method="PUT")
    chat = f"/api/v1/chat/{user}/"
    await world.call(chat + "send", {"content": "before"}, "ben")
    await world.go("/chat")
    await world.sign(user)
    await world.show("site")
    shown = "[...document.querySelectorAll('.dc-chat li span')].map((span) => span.textContent).join()"
    await browser.until(f"{shown} === 'before'")
    await browser.until("page.isConnected")
    await world.call(chat + "typing", {"is_typing": True}, "ben")
    await browser.until("document.querySelector('[data-typing=ben]')")
    await world.call(chat + "send", {"content": "你好"}, "ben")
    await browser.until(f"{shown} === 'before,你好'")
    assert await browser.run("document.querySelector('[data-typing=ben]')") is None
    write = (
        "(() => { const input = document.querySelector('.dc-chat input');"
        "Object.getOwnPropertyDescriptor(HTMLInputElement.prototype, 'value').set.call(input, 'hello');"
        "input.dispatchEvent(new Event('input', { bubbles: true }));"
        "input.form.requestSubmit(); })()"
    )
    await browser.run(write)
    await browser.until("document.querySelector('[data-from=me]')?.dataset.status === 'sent'")
    found = await world.call(f"/v1/conversations/{user}/messages", None, "ben", "GET")
    sent = next(one for one in found["messages"] if one["sender_id"] == user)
    assert sent["content"] == "hello"
    await world.call(chat + "read", {"message_ids": [sent["id"]]}, "ben")
    await browser.until("document.querySelector('[data-from=me] [data-read=\"1\"]')")
    door.away = True
    door.cut()
    await browser.until("page.connectionStatus === 'reconnecting'")
    await world.call(chat + "send", {"content": "meanwhile"}, "ben")
    door.away = False
    await browser.until(f"{shown} === 'before,你好,hello,meanwhile'")
    await world.sign(user + "-other")
    await browser.until(f"page.isConnected && {shown} === ''")


@pytest.mark.parametrize("world", [19], indirect=True)
@pytest.mark.covers("S0.27", "S0.29", "S0.50", "S0.51", "S0.76", "S3.19", "S3.82", "S3.83")
async def test_the_test_pages_are_complete_and_can_be_navigated_to(world: World) -> None:
    browser, door = world.browser, world.door
    await world.show("site")
    await browser.run("document.querySelector('a[href=\"/websocket-test\"]').click()")
    await browser.until("location.pathname === '/websocket-test' && document.querySelector('.dc-test form')")
    assert door.tried == []
    field = "document.querySelector('[name={}]').value"
    assert await browser.run(field.format("user")) == "demo-user", "in development"
    await browser.viewport(360, 700)
    light = "document.querySelector('.dc-status').dataset.status"
    assert await browser.run(light) == "off"
    await world.click("[name=connect]")
    await browser.until(f"{light} === 'live'")
    assert door.tried == [f"{CONVERSATIONS}/demo-user"], "the page's origin, where no build says another"
    fact = "document.querySelector('[data-fact=\"{}\"] dd').textContent"
    await browser.until(f"Number({fact.format('connections at the server')}) >= 1")
    await world.click("[name=subscribe]")
    await browser.until(f"{fact.format('rooms')} === 'notifications'")
    await world.click("[name=unsubscribe]")
    await browser.until(f"{fact.format('rooms')} === '–'")
    await world.click("[name=ping]")
    await browser.until(f"{fact.format('round trip')}.endsWith(' ms')")
    await world.click("form[aria-label=Send] button")
    lines = "[...document.querySelectorAll('[role=log] li')].map((li) => li.dataset.way + li.textContent)"
    await browser.until(f"{lines}.filter((line) => line.includes('\"pong\"')).length >= 3")
    await world.call("/api/v1/ws/notify/demo-user", {"title": "from the server", "message": "M"})
    await browser.until(f"{lines}[0].includes('from the server')")
    many = [{"to": {"user": "demo-user"}, "title": f"n{number}", "store": False} for number in range(250)]
    await world.call("/v1/notifications/batch", many)
    await browser.until("Number(document.querySelector('[data-count=received]').textContent) > 250")
    assert await browser.run(f"{lines}.length") == 200, "the log is bounded"
    assert await browser.run("document.documentElement.scrollWidth <= 360"), "it fits a phone"
    named = "[...document.querySelectorAll('input, select, textarea')].every((one) => one.labels.length)"
    assert await browser.run(named)
    assert "demo-token" not in await browser.run("document.body.innerText")
    await world.click("[name=disconnect]")
    await browser.until(f"{light} === 'off' && {fact.format('disconnects')} === '1'")
    await world.closed()
    await world.click("[name=connect]")
    await browser.until(f"{light} === 'live' && {fact.format('connects')} === '2'")

    await world.sign(world.user)
    await browser.run("document.querySelector('a[href=\"/test-websocket\"]').click()")
    await browser.until(f"{fact.format('status')} === 'disconnected'")
    await world.closed()
    await world.click(".dc-status button")
    await browser.until(f"{fact.format('status')} === 'connected'")
    await world.click("form[aria-label=Send] button")
    await browser.until(f"{lines}.some((line) => line.startsWith('out') && line.includes('heartbeat'))")
    await browser.run("history.back()")
    await browser.until("document.querySelector('[name=subscribe]')")


@pytest.mark.parametrize("world", [19], indirect=True)
@pytest.mark.covers("S3.74", "S3.75", "S3.84", "S3.96")
async def test_the_page_of_the_guide(world: World) -> None:
    browser, user = world.browser, world.user
    await world.go("/support/7")
    await world.sign(user)
    await world.show("SupportPage")
    await browser.until("document.querySelector('.dc-status-text').textContent === '已连接'")
    await world.call(f"/v1/conversations/{user}/participants", {"participants": [user, "ben"]}, method="PUT")
    await world.call(f"/api/v1/chat/{user}/send", {"content": "你好"}, "ben")
    await browser.until("document.querySelector('#support').textContent.includes('你好')")
    assert len(world.door.tried) == 1
