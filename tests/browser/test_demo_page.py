"""The page of `serve --dev` in a real Chromium: both transports, over a kill -9 of the server.

`DUALCAST_TEST_SHOTS=folder` keeps pictures.
"""

from __future__ import annotations

import os
import re
from collections.abc import AsyncIterator
from pathlib import Path

import httpx
import pytest

from support.chromium import Chromium
from support.server_process import ServerProcess

pytestmark = pytest.mark.anyio

SHOTS = os.environ.get("DUALCAST_TEST_SHOTS", "")
PANES = ("sse", "ws")
OPEN = "['sse', 'ws'].every((id) => document.querySelector(`#${id} .light`)?.dataset.state === 'open')"
TITLES = (
    "Object.fromEntries(['sse', 'ws'].map((id) => [id, "
    "[...document.querySelectorAll(`#${id} .log li:not(.signal)`)]"
    ".map((item) => item.lastChild.textContent).reverse()]))"
)


class Demo:
    """The page in a browser and the server behind it."""

    def __init__(self, browser: Chromium, server: ServerProcess, token: str) -> None:
        self.browser = browser
        self.server = server
        self.token = token

    async def notify(self, *titles: str) -> None:
        """Publishes to user demo over REST."""
        async with httpx.AsyncClient(headers={"authorization": f"Bearer {self.token}"}) as http:
            for title in titles:
                body = {"to": {"user": "demo"}, "title": title}
                answer = await http.post(self.server.base_url + "/v1/notifications", json=body)
                assert answer.status_code == 201, answer.text

    async def shows(self, titles: list[str]) -> None:
        """Waits until both columns count so many, and asserts that both list exactly these, in order."""
        for pane in PANES:
            count = f"Number(document.querySelector('#{pane} .count').textContent)"
            await self.browser.until(f"{count} >= {len(titles)}")
        wanted = [f"notification: {title}" for title in titles]
        assert await self.browser.run(TITLES) == dict.fromkeys(PANES, wanted)
        for pane in PANES:
            assert await self.browser.run(f"document.querySelector('#{pane} .count').textContent") == str(
                len(titles)
            )
        same = "document.getElementById('compare').textContent.startsWith('Both transports')"
        await self.browser.until(same)

    async def shot(self, name: str) -> None:
        if SHOTS:
            await self.browser.picture(Path(SHOTS, name))


@pytest.fixture
async def demo(tmp_path: Path) -> AsyncIterator[Demo]:
    """The page, connected on both transports."""
    settings = {"delivery.retry_min_ms": 200, "delivery.retry_max_ms": 500}
    async with (
        ServerProcess("sqlite", tmp_path, dev=True, settings=settings) as server,
        Chromium() as browser,
    ):
        told = re.search(r"#token=(\S+)$", server.log(), re.MULTILINE)
        assert told, "serve --dev prints no token"
        token = told[1]
        url = f"{server.base_url}/demo#token={token}"
        await browser.viewport(1100, 800)
        await browser.open(url)
        await browser.until(OPEN)
        yield Demo(browser, server, token)


async def test_both_columns_agree_over_a_kill_9_of_the_server(demo: Demo) -> None:
    browser, server = demo.browser, demo.server
    await demo.notify("one", "two")
    await demo.shows(["one", "two"])
    await demo.shot("demo.png")
    assert browser.console == browser.failures == []

    server.kill()
    await browser.until(
        "['sse', 'ws'].every((id) => document.querySelector(`#${id} .light`).dataset.state === 'connecting')"
    )
    await demo.shot("demo-away.png")
    await server.start()
    await demo.notify("three")  # before or after they are back: the cursor brings it
    await browser.until(OPEN)
    await demo.notify("four")
    await demo.shows(["one", "two", "three", "four"])
    assert browser.console == [], "only the network may complain"
    signals = await browser.run(
        "[...document.querySelectorAll('.log .signal')].map((i) => i.textContent).join()"
    )
    assert "gap" not in signals


async def test_the_form_publishes_and_the_buttons_disconnect(demo: Demo) -> None:
    browser = demo.browser
    await browser.run("document.getElementById('title').value = 'from the page <b>&'")
    await browser.run("document.querySelector('#send button').click()")
    await browser.until("document.getElementById('sent').textContent.startsWith('accepted as ')")
    await demo.shows(["from the page <b>&"])
    for pane in PANES:
        await browser.run(f"document.querySelector('#{pane} .toggle').click()")
        assert await browser.run(f"document.querySelector('#{pane} .light').dataset.state") == "closed"
    await demo.notify("while away")
    for pane in PANES:
        await browser.run(f"document.querySelector('#{pane} .toggle').click()")
    await browser.until(OPEN)
    await demo.shows(["from the page <b>&", "while away"])
    assert browser.console == browser.failures == []


async def test_marking_read_in_one_column_clears_the_badge_of_the_other(demo: Demo) -> None:
    browser = demo.browser
    badges = "['sse', 'ws'].map((id) => document.querySelector(`#${id} .badge`))"
    shown = f"{badges}.map((badge) => badge.hidden ? '' : badge.textContent).join()"
    for pane in PANES:
        await demo.notify("one", "two")
        await browser.until(f"{shown} === '2,2'")
        await demo.shot("demo-badges.png")
        await browser.run(f"document.querySelector('#{pane} .read').click()")
        await browser.until(f"{shown} === ','")
    assert browser.console == browser.failures == []


async def test_a_narrow_screen_needs_no_scrolling_sideways(demo: Demo) -> None:
    browser = demo.browser
    await browser.viewport(390, 844)
    long = "a word of unreasonable length: " + "n" * 200
    await demo.notify("one", long)
    await demo.shows(["one", long])
    widths = await browser.run("[document.documentElement.scrollWidth, window.innerWidth]")
    assert widths[0] <= widths[1] == 390
    hidden = await browser.run(
        "[...document.querySelectorAll('main *')].filter((e) => e.getBoundingClientRect().right > 391)"
        ".map((e) => e.outerHTML)"
    )
    assert hidden == []
    await demo.shot("demo-narrow.png")


async def test_without_a_token_the_page_says_what_is_missing(demo: Demo) -> None:
    await demo.browser.open("about:blank#")
    await demo.browser.call("Page.navigate", url=f"{demo.server.base_url}/demo")
    await demo.browser.until("document.getElementById('sent')?.textContent.includes('#token=')")
    assert demo.browser.console == []
