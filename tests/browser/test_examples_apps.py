"""The example applications with React and Vue, built as their `package.json` says, in a real Chromium. Server
over Redis, pages on another origin."""

from __future__ import annotations

import asyncio
import json
import os
import re
import shutil
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from support.example_site import CLIENTS, EVIL, EXAMPLES, ExamplePage, ExampleSite, example_page, example_site
from support.server_process import token

pytestmark = pytest.mark.anyio

APPS = ("react", "vue")
BADGE = ".dc-bell > [role=status]"
NO_BADGE = f"!document.querySelector('{BADGE}').textContent"


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ExampleSite]:
    with example_site(tmp_path_factory.mktemp("apps")) as found:
        yield found


@pytest.fixture
async def page(site: ExampleSite) -> AsyncIterator[ExamplePage]:
    async with example_page(site) as found:
        yield found


async def build(name: str, root: Path) -> None:
    """The application in `root/<name>/`: its page, and its bundle by the command of its `package.json`."""
    source = EXAMPLES / name
    script = json.loads((source / "package.json").read_text())["scripts"]["build"]
    command, found = re.subn(r"--outdir=dist$", f"--outdir={root / name / 'dist'}", script)
    assert found, script
    path = f"{CLIENTS / 'node_modules' / '.bin'}{os.pathsep}{os.environ.get('PATH', '')}"
    process = await asyncio.create_subprocess_shell(
        f"{command} --log-level=warning", cwd=source, env={"PATH": path}, stderr=asyncio.subprocess.PIPE
    )
    _, said = await process.communicate()
    assert process.returncode == 0 and not said, said.decode()
    shutil.copy(source / "index.html", root / name)


@pytest.mark.parametrize("name", APPS)
async def test_an_application(page: ExamplePage, name: str) -> None:
    browser, site = page.browser, page.site
    await build(name, site.root)
    await page.open(f"{name}/index.html")
    user, other = f"{name}-ann", f"{name}-bob"
    allowed = [f"topic:{name}", f"presence:{name}"]
    await page.fits_a_phone()
    await page.fill(server=page.door.base_url, token=token(user, channels=allowed), topic=name, room=name)
    await page.press("Log in")
    await page.says("Connected", ".dc-status")
    await page.says("subscribed", "#topic small")
    await page.says("1 here", "#room small")
    await page.says(user, "#room li")

    await page.notify(user, "one", f"two {EVIL}")
    await page.says("2 unread", BADGE)
    await browser.run("document.querySelector('.dc-bell-button').click()")
    await page.says(f"two {EVIL}", ".dc-bell")
    await said(page, name, 1)
    await page.says('price {"EUR":1}', "#topic li")

    page.door.away = True
    page.door.cut()
    await page.says("Not connected", ".dc-status")
    await said(page, name, 2)
    await page.notify(user, "three")
    page.door.away = False
    await page.says('price {"EUR":2}', "#topic li")
    await page.says("three", ".dc-bell")
    await page.says("3 unread", BADGE)
    await browser.run(
        "[...document.querySelectorAll('.dc-bell button')]"
        ".find((one) => /mark all/i.test(one.textContent)).click()"
    )
    await browser.until(NO_BADGE)
    await page.fits_a_phone()

    sessions = await site.server.metric("dualcast_sessions")
    await page.press("Log out")
    await site.server.until_metric("dualcast_sessions", lambda now: now == sessions - 1)
    await page.fill(server=page.door.base_url, token=token(other), topic=name, room=name)
    await page.press("Log in")
    await page.says("not allowed", "#topic small")
    await page.says("Connected", ".dc-status")
    assert await browser.run(NO_BADGE)


async def said(page: ExamplePage, topic: str, value: int) -> None:
    body = {"channel": f"topic:{topic}", "type": "price", "data": {"EUR": value}}
    await page.call("POST", "/v1/publish", body)
