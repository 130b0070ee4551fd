"""The examples of `clients/examples` on a site of static files, as their READMEs say: another origin than the
server, which allows it."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

from support.chromium import Chromium
from support.client_door import Door
from support.plain_http import http_client
from support.redis_server import RedisServer
from support.server_process import SECRET, ServerProcess, token

CLIENTS = Path(__file__).parents[2] / "clients"
EXAMPLES = CLIENTS / "examples"
EVIL = "<img src=x onerror='window.evil=1'>"
SETTINGS = {"delivery.retry_min_ms": 100, "delivery.retry_max_ms": 300, "server.drain_s": 1}


class _Quiet(SimpleHTTPRequestHandler):
    def log_message(self, format: str, *args: object) -> None:
        return


@contextmanager
def static_site(folder: Path) -> Iterator[str]:
    """`python -m http.server` for a folder; its origin."""
    with ThreadingHTTPServer(("127.0.0.1", 0), partial(_Quiet, directory=str(folder))) as site:
        thread = Thread(target=site.serve_forever, daemon=True)
        thread.start()
        yield f"http://127.0.0.1:{site.server_address[1]}"
        site.shutdown()
        thread.join()


class ExampleSite:
    """A site, and a `serve --dev` over Redis that allows its origin. `root` is what the site serves:
    `clients` and what tests put there."""

    def __init__(self, root: Path, origin: str, server: ServerProcess) -> None:
        self.root = root
        self.origin = origin
        self.server = server


@contextmanager
def example_site(folder: Path) -> Iterator[ExampleSite]:
    root = folder / "site"
    root.mkdir()
    (root / "clients").symlink_to(CLIENTS)
    environ = {"DUALCAST_JWT_SECRET": SECRET}
    with static_site(root) as origin, RedisServer() as redis:
        environ["CORS_ORIGINS"] = origin
        server = ServerProcess(
            "redis", folder, redis_url=redis.url, dev=True, settings=SETTINGS, environ=environ
        )
        server.launch()
        try:
            asyncio.run(server.ready())
            yield ExampleSite(root, origin, server)
        finally:
            server.kill()


class ExamplePage:
    """One example in a browser; `door` is the network between it and the server."""

    def __init__(self, browser: Chromium, site: ExampleSite, door: Door) -> None:
        self.browser = browser
        self.site = site
        self.door = door
        self.socket_base = str(door.base_url).replace("http", "ws", 1)

    async def open(self, path: str) -> None:
        await self.browser.open(f"{self.site.origin}/{path}")

    async def fill(self, **fields: str) -> None:
        """Writes into fields by id or name, as a person does."""
        for name, value in fields.items():
            await self.browser.run(
                f"((field) => {{ field.value = {json.dumps(value)};"
                "field.dispatchEvent(new Event('input', { bubbles: true })); })"
                f"(document.querySelector('#{name}, [name={name}]'))"
            )

    async def press(self, label: str) -> None:
        """Presses the button of that text."""
        pressed = await self.browser.run(
            "((button) => { const on = button && !button.disabled; button?.click(); return on; })"
            "([...document.querySelectorAll('button')]"
            f".find((one) => one.textContent === {json.dumps(label)}))"
        )
        assert pressed, f"no button {label} to press"

    async def says(self, text: str, where: str = "ol", seconds: float = 30) -> None:
        """Waits until some element `where` has the text in it."""
        await self.browser.until(
            f"[...document.querySelectorAll({json.dumps(where)})]"
            f".some((one) => one.textContent.includes({json.dumps(text)}))",
            seconds,
        )

    async def status(self, text: str) -> None:
        await self.says(text, ".status")

    async def lines(self, kind: str = "got") -> list[str]:
        """What the list shows, oldest first, without the times."""
        found = await self.browser.run(
            f"[...document.querySelectorAll('ol li.{kind}')].map((one) => one.lastChild.data).reverse()"
        )
        return [str(text) for text in found]

    async def call(self, method: str, path: str, body: Any, bearer: str = "") -> Any:
        """The JSON that the server answers to an administrator, or to `bearer`."""
        bearer = bearer or token("root", roles=("admin", "publisher"))
        headers = {"authorization": f"Bearer {bearer}", "if-match": "*"}
        async with http_client(base_url=self.site.server.base_url, headers=headers, timeout=30) as http:
            answer = await http.request(method, path, json=body)
        assert answer.is_success, (path, answer.status_code, answer.text)
        return answer.json()

    async def notify(self, user: str, *titles: str) -> None:
        items = [{"to": {"user": user}, "title": title} for title in titles]
        await self.call("POST", "/v1/notifications/batch", items)

    async def fits_a_phone(self) -> None:
        """360 px under a finger: nothing is wider, and what is pressed is large enough."""
        await self.browser.viewport(360, 740)
        await self.browser.call("Emulation.setTouchEmulationEnabled", enabled=True, maxTouchPoints=5)
        widths = await self.browser.run("[document.documentElement.scrollWidth, innerWidth]")
        assert widths[0] <= widths[1], widths
        small = await self.browser.run(SMALL)
        assert small == [], "too small for a finger"


SMALL = (
    "[...document.querySelectorAll('button, select, textarea, input')]"
    ".map((one) => [one, one.getBoundingClientRect()])"
    ".filter(([, box]) => box.width && (box.height < 44 || box.width < 44)).map(([one]) => one.outerHTML)"
)
"""JavaScript: controls that show and are less than 44 px wide or high."""


@asynccontextmanager
async def example_page(site: ExampleSite) -> AsyncIterator[ExamplePage]:
    """A page on the site; at its end nothing has complained, and nothing of `EVIL` has run."""
    async with Door(site.server.port) as door, Chromium() as browser:
        yield ExamplePage(browser, site, door)
        assert browser.console == [], "nothing may complain"
        assert not await browser.run("window.evil")
