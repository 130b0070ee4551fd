"""What browsers and devices the pages and clients ask for: the syntax of every shipped module, and
`/websocket-test` under a finger on a small phone."""

from __future__ import annotations

import asyncio
import os
import re
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from support.chromium import Chromium
from support.contract_page import STREAM, ContractPage
from support.example_site import SMALL
from support.server_process import ServerProcess

pytestmark = pytest.mark.anyio

ROOT = Path(__file__).parents[2]
ESBUILD = ROOT / "clients" / "node_modules" / ".bin" / "esbuild"
PACKAGES = ("core", "react", "vue")
STATIC = ROOT / "server" / "dualcast" / "gateway" / "static"
CONTRACTS = ("notifications", "rooms", "topics", "conversations", "progress")
OLDEST = "chrome100,edge100,firefox100,safari15.4,ios15.4"
PHONE = (360, 740)


# ── S4.55 ──


def shipped() -> list[Path]:
    """Modules a browser is given as they are."""
    found = sorted(STATIC.rglob("*.js"))
    for package in PACKAGES:
        found += sorted((ROOT / "clients" / package / "src").rglob("*.js"))
    found += sorted((ROOT / "clients" / "examples").rglob("*.js"))
    return [file for file in found if "node_modules" not in file.parts]


async def printed(files: list[Path], target: str, folder: Path, root: Path) -> dict[str, str]:
    """Each file as esbuild prints it for `target`: what those browsers do not understand is written
    otherwise."""
    command = [
        str(ESBUILD),
        *map(str, files),
        f"--target={target}",
        f"--outdir={folder}",
        "--log-level=warning",
    ]
    process = await asyncio.create_subprocess_exec(
        *command,
        f"--outbase={root}",
        env={"PATH": os.environ.get("PATH", "")},
        stderr=asyncio.subprocess.PIPE,
    )
    _, said = await process.communicate()
    assert process.returncode == 0 and not said, said.decode()
    return {str(file.relative_to(root)): (folder / file.relative_to(root)).read_text() for file in files}


@pytest.mark.covers("S4.55")
async def test_every_module_is_understood_by_browsers_of_some_years(tmp_path: Path) -> None:
    files = shipped()
    assert len(files) > 40, "the files are somewhere else now"
    newer = tmp_path / "newer.js"
    newer.write_text("export class A { static { A.b = /(?<=a)b/v; } }\n")
    assert await foreign([newer], tmp_path / "control", root=tmp_path) == {"newer.js"}, (
        "the check finds nothing"
    )
    assert await foreign(files, tmp_path, root=ROOT) == set(), "newer syntax than the oldest browser knows"


async def foreign(files: list[Path], folder: Path, *, root: Path) -> set[str]:
    """Files that have to be written otherwise for the oldest browsers."""
    now, then = await asyncio.gather(
        printed(files, "esnext", folder / "esnext", root), printed(files, OLDEST, folder / "oldest", root)
    )
    return {name for name, text in now.items() if then[name] != text}


# ── S4.56 ──


@pytest.fixture
async def page(tmp_path: Path) -> AsyncIterator[ContractPage]:
    """The page of `serve --dev` on a phone with a touch screen."""
    async with ServerProcess("memory", tmp_path, dev=True) as server, Chromium() as browser:
        told = re.search(r"#token=(\S+)$", server.log(), re.MULTILINE)
        assert told, "serve --dev prints no token"
        await browser.viewport(*PHONE)
        await browser.call("Emulation.setTouchEmulationEnabled", enabled=True, maxTouchPoints=5)
        opened = ContractPage(browser, server, told[1])
        await opened.load()
        assert await browser.run("matchMedia('(pointer: coarse)').matches && navigator.maxTouchPoints") == 5
        yield opened


async def tap(page: ContractPage, element: str) -> None:
    """A finger on the middle of an element (a JavaScript expression). Raises AssertionError where something
    else is touched."""
    point = await page.browser.run(
        f"((one) => {{ one.scrollIntoView({{ block: 'center' }}); const box = one.getBoundingClientRect();"
        "const [x, y] = [box.x + box.width / 2, box.y + box.height / 2];"
        f"return one.contains(document.elementFromPoint(x, y)) ? {{ x, y }} : null; }})({element})"
    )
    assert point, f"a finger cannot reach {element}"
    await page.browser.call("Input.dispatchTouchEvent", type="touchStart", touchPoints=[point])
    await page.browser.call("Input.dispatchTouchEvent", type="touchEnd", touchPoints=[])


CONTROLS = (
    "[...document.querySelectorAll('button, select, textarea, input, .check')]"
    ".filter((one) => one.checkVisibility())"
)
"""JavaScript: what can be pressed or written into, of the chosen tab."""
UNREACHABLE = (
    f"{CONTROLS}.filter((one) => {{ one.scrollIntoView({{ block: 'center' }});"
    "const box = one.getBoundingClientRect();"
    "const found = document.elementFromPoint(box.x + box.width / 2, box.y + box.height / 2);"
    "return !(one.contains(found) || found?.contains(one)); }).map((one) => one.outerHTML)"
)


@pytest.mark.covers("S4.56")
async def test_a_finger_on_a_small_phone_can_do_everything(page: ContractPage) -> None:
    browser = page.browser
    await browser.run("document.getElementById('user').focus()")
    assert await browser.run("getComputedStyle(document.activeElement).fontSize") == "16px", (
        "a phone zooms in"
    )
    for contract in CONTRACTS:
        await tap(page, f"document.getElementById('tab-{contract}')")
        await browser.until(f"document.getElementById('tab-{contract}').ariaSelected === 'true'")
        await tap(page, f"document.querySelector('#pane-{contract} .toggle')")
        await page.light(contract, "open")
        text = '{"type":"custom","text":"' + "n" * 300 + '"}'
        await browser.run(f"void (document.querySelector('#pane-{contract} textarea').value = '{text}')")
        await tap(page, f"document.querySelector('#pane-{contract} .say button')")
        await page.shows(contract, "nnn", "sent")
        widths = await browser.run("[document.documentElement.scrollWidth, innerWidth]")
        assert widths[0] <= widths[1] == PHONE[0], contract
        assert await small(page) == [], f"{contract}: too small for a finger"
        assert await browser.run(UNREACHABLE) == [], contract
        await page.shot(f"test-page-phone-{contract}.png")
    await tap(page, f"document.querySelector('#pane-{STREAM} .toggle')")
    await page.light(STREAM, "open")
    page.quiet()


async def small(page: ContractPage) -> list[Any]:
    """Controls below 44 px; of a check box its label counts, which is what a finger presses."""
    found: list[Any] = await page.browser.run(SMALL)
    labels = await page.browser.run(
        "[...document.querySelectorAll('.check')].filter((one) => one.checkVisibility())"
        ".filter((one) => one.getBoundingClientRect().height < 44).map((one) => one.outerHTML)"
    )
    return [*(text for text in found if 'type="checkbox"' not in text), *labels]
