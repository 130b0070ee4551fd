"""The pages of the server as it is started: which there are, what they load, and what they may do."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from urllib.parse import urljoin

import httpx
import pytest

from support.chromium import Chromium
from support.contract_page import NARROW, WIDE, ContractPage, picture
from support.server_process import ServerProcess, token

pytestmark = pytest.mark.anyio


@asynccontextmanager
async def serving(
    folder: Path, *, dev: bool = False, settings: Mapping[str, object] | None = None
) -> AsyncIterator[httpx.AsyncClient]:
    async with (
        ServerProcess("memory", folder, dev=dev, settings=settings) as server,
        httpx.AsyncClient(base_url=server.base_url) as http,
    ):
        yield http


async def all_pages(http: httpx.AsyncClient, *paths: str) -> dict[str, httpx.Response]:
    """The pages and everything they name, by path; each must be there."""
    found: dict[str, httpx.Response] = {}
    waiting = list(paths)
    while waiting:
        path = waiting.pop()
        if path in found:
            continue
        found[path] = answer = await http.get(path)
        assert answer.status_code == 200, path
        if path.startswith(("/docs", "/asyncapi", "/healthz")):
            continue
        waiting += re.findall(r'(?:href|src)="([^"#]+)"', answer.text)
        named = re.findall(r'(?:from|import)\(?\s*"(\.{0,2}/[^"]+)"', answer.text)
        waiting += [urljoin(path, name) for name in named]
    return found


@pytest.mark.covers("S4.43")
async def test_the_landing_page_leads_everywhere_and_nothing_comes_from_elsewhere(tmp_path: Path) -> None:
    async with serving(tmp_path, dev=True) as http:
        found = await all_pages(http, "/")
    assert {"/docs", "/asyncapi.yaml", "/healthz", "/console", "/demo", "/websocket-test"} <= found.keys()
    assert {"/pages/console-live.js", "/client/index.js", "/client/transports/websocket.js"} <= found.keys()
    assert {"/pages/test-page.js", "/pages/test-lines.js", "/pages/websocket-test.css"} <= found.keys()
    assert re.search(r"<h1>dualcast <small>\d+\.\d+", found["/"].text), "no version"
    own = {
        path: answer for path, answer in found.items() if not path.startswith(("/docs", "/asyncapi", "/h"))
    }
    for path, answer in own.items():
        policy = answer.headers["content-security-policy"]
        assert "default-src 'none'" in policy and "unsafe" not in policy, path
        assert answer.headers["x-content-type-options"] == "nosniff"
        assert not re.search(r"(?:https?:|wss?:)?//[a-z0-9]", answer.text), path
        assert not re.search(r"<script(?![^>]*\bsrc=)|<style|\bstyle=|\bon[a-z]+=\"", answer.text), path
        assert answer.text.count("\n") <= 300 or path.startswith("/client/"), path


async def test_serve_dev_prints_every_page_in_a_table_and_each_is_there(tmp_path: Path) -> None:
    async with ServerProcess("memory", tmp_path, dev=True) as server, httpx.AsyncClient() as http:
        rows = re.findall(r"^  (\w[\w ]*?)  +(http://\S+)  +(\w.*)$", server.log(), re.MULTILINE)
        printed = {address.removeprefix(server.base_url): name for name, address, _ in rows}
        assert printed == {
            "/": "Start page",
            "/console": "Console",
            "/demo": "Demo",
            "/websocket-test": "Test page",
            "/docs": "Documentation",
        }
        for _, address, _ in rows:
            assert (await http.get(address)).status_code == 200, address
        lines = [line for line in server.log().splitlines() if server.base_url in line][:5]
        assert len({line.index("http://") for line in lines}) == 1, "not a table"
        assert len({line.index(about) for line, (_, _, about) in zip(lines, rows, strict=True)}) == 1


async def test_the_media_type_of_a_page_names_its_charset_once(tmp_path: Path) -> None:
    async with serving(tmp_path, dev=True) as http:
        for path, kind in (("/", "html"), ("/pages/landing.css", "css"), ("/pages/landing.js", "javascript")):
            assert (await http.get(path)).headers["content-type"] == f"text/{kind}; charset=utf-8"


async def test_the_start_page_hands_the_token_of_its_address_on(tmp_path: Path) -> None:
    async with ServerProcess("memory", tmp_path, dev=True) as server, Chromium() as browser:
        told = re.search(r"^  (http\S+/#token=(\S+))$", server.log(), re.MULTILINE)
        assert told, "serve --dev prints no start page with the token"
        url, given = told.groups()
        await browser.open(url)
        link = "[...document.links].find((link) => link.pathname === '{}')"
        await browser.until(f"{link.format('/demo')}?.hash === '#token={given}'")
        assert await browser.run(link.format("/docs") + ".hash") == "", "only for pages that take it"
        await browser.run(link.format("/websocket-test") + ".click()")
        await browser.until("document.getElementById('token')?.value.startsWith('ey')")
        assert await browser.run("document.getElementById('user').value") == "demo"
        assert browser.console == browser.failures == []


@pytest.mark.covers("S4.42")
async def test_without_dev_there_is_a_landing_page_and_nothing_to_try_out(tmp_path: Path) -> None:
    async with serving(tmp_path) as http:
        found = await all_pages(http, "/")
        assert not {"/console", "/demo", "/websocket-test"} & found.keys()
        for path in ("/console", "/demo", "/demo/demo.js", "/websocket-test", "/websocket-test/facts.json"):
            assert (await http.get(path)).status_code == 404, path
        for name in ("test-page.js", "demo.js", "console.js", "..%2fpages.py", "landing.html"):
            assert (await http.get("/pages/" + name)).status_code == 404, name


@pytest.mark.covers("S4.42")
async def test_the_setting_test_page_serves_it_without_demo_tokens(tmp_path: Path) -> None:
    async with serving(tmp_path, settings={"legacy.test_page": "true"}) as http:
        found = await all_pages(http, "/", "/websocket-test")
        assert "/demo" not in found
        assert (await http.get("/demo")).status_code == 404
        facts = (await http.get("/websocket-test/facts.json")).json()
        assert facts["dev"] is False and facts["version"]
        demo = {"authorization": "Bearer admin"}
        assert (await http.get("/api/ws/stats", headers=demo)).status_code == 401


async def test_on_a_server_of_real_users_the_page_takes_their_tokens(tmp_path: Path) -> None:
    async with (
        ServerProcess("memory", tmp_path, settings={"legacy.test_page": "true"}) as server,
        Chromium() as browser,
    ):
        page = ContractPage(browser, server, token("alice", roles=["admin"]))
        await page.load()
        assert await page.value("user") == "alice"
        labels = "[...document.querySelectorAll('.publish button')].map((button) => button.textContent)"
        assert "Batch of reports" not in await browser.run(labels), "a demo endpoint"
        await page.tab("rooms")
        await page.connect("rooms")
        await page.press("Notify")
        await page.shows("rooms", '"title":"Hello"')
        await page.press("To the room")
        page.quiet()


async def test_the_documentation_fits_a_phone(tmp_path: Path) -> None:
    async with ServerProcess("memory", tmp_path, dev=True) as server, Chromium() as browser:
        await browser.viewport(*NARROW)
        await browser.open(server.base_url + "/docs")
        assert await browser.run("document.documentElement.scrollWidth") <= NARROW[0]


async def test_the_landing_page_fits_a_phone(tmp_path: Path) -> None:
    async with ServerProcess("memory", tmp_path, dev=True) as server, Chromium() as browser:
        for name, size in (("landing.png", WIDE), ("landing-narrow.png", NARROW)):
            await browser.viewport(*size)
            await browser.open(server.base_url + "/")
            assert await browser.run("document.documentElement.scrollWidth") <= size[0]
            await picture(browser, name)
        assert browser.console == browser.failures == []
