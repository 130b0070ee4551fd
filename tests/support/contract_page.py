"""`/websocket-test` in a browser, as its tests use it.

`DUALCAST_TEST_SHOTS=folder` keeps pictures.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from support.chromium import Chromium
from support.server_process import ServerProcess

SHOTS = os.environ.get("DUALCAST_TEST_SHOTS", "")
STREAM = "streams"
WIDE, NARROW = (1100, 900), (390, 844)
_KEYS = {"Enter": 13, "ArrowRight": 39, "End": 35}


class ContractPage:
    """The test page in a browser. `pane`: a contract's socket, or STREAM."""

    def __init__(self, browser: Chromium, server: ServerProcess, token: str) -> None:
        self.browser = browser
        self.server = server
        self.token = token

    async def load(self, *, token: str | None = None) -> None:
        """Opens the page afresh; `token`: another one, "" for none."""
        await self.browser.call("Page.navigate", url="about:blank")
        fragment = self.token if token is None else token
        url = self.server.base_url + "/websocket-test" + (f"#token={fragment}" if fragment else "")
        await self.browser.call("Page.navigate", url=url)
        await self.browser.until("document.body?.dataset.ready === 'yes'")

    async def tab(self, contract: str) -> None:
        await self.browser.run(f"document.getElementById('tab-{contract}').click()")

    async def connect(self, pane: str, endpoint: str = "") -> None:
        """Chooses the endpoint, presses Connect and waits for the green light."""
        if endpoint:
            await self.browser.run(f"document.querySelector('#pane-{pane} .endpoint').value = '{endpoint}'")
        await self.toggle(pane)
        await self.light(pane, "open")

    async def toggle(self, pane: str) -> None:
        await self.browser.run(f"document.querySelector('#pane-{pane} .toggle').click()")

    async def light(self, pane: str, state: str) -> None:
        """Waits until the light and its words say so."""
        root = f"document.querySelector('#pane-{pane}')"
        await self.browser.until(f"{root}.querySelector('.light').dataset.state === '{state}'")
        assert await self.browser.run(f"{root}.querySelector('.state').textContent") == state

    async def press(self, label: str) -> str:
        """Presses a publishing button of the chosen tab; what the server answered."""
        found = await self.browser.run(
            "((found) => { const on = !found.disabled; found.click(); return on; })"
            "([...document.querySelectorAll('.publish:not([hidden]) button')]"
            f".find((button) => button.textContent === '{label}'))"
        )
        assert found, f"the button {label} is off"
        await self.browser.until(
            f"((text) => text.startsWith('{label}') && !text.endsWith('…'))"
            "(document.getElementById('answer').textContent)"
        )
        return str(await self.browser.run("document.getElementById('answer').textContent"))

    async def send(self, pane: str, text: str) -> None:
        """Writes a frame into the field and presses Send."""
        await self.browser.run(
            f"((pane) => {{ pane.querySelector('textarea').value = {text!r};"
            "pane.querySelector('.say button').click(); })"
            f"(document.querySelector('#pane-{pane}'))"
        )

    async def example(self, pane: str, label: str) -> str:
        """Chooses an example, presses Send; what it says."""
        return str(
            await self.browser.run(
                f"((pane) => {{ const select = pane.querySelector('.examples');"
                f"select.value = [...select.options].find((o) => o.label === '{label}').value;"
                "select.dispatchEvent(new Event('change')); pane.querySelector('.say button').click();"
                "return pane.querySelector('textarea').value; })"
                f"(document.querySelector('#pane-{pane}'))"
            )
        )

    async def log(self, pane: str, kind: str = "got") -> list[str]:
        """The lines of a kind (`got`, `sent`, `signal`), oldest first."""
        found = await self.browser.run(
            f"[...document.querySelectorAll('#pane-{pane} .log .{kind} .text')]"
            ".map((line) => line.textContent).reverse()"
        )
        return [str(line) for line in found]

    async def shows(self, pane: str, text: str, kind: str = "got") -> None:
        """Waits for a line with `text` in it."""
        await self.browser.until(
            f"[...document.querySelectorAll('#pane-{pane} .log .{kind} .text')]"
            f".some((line) => line.textContent.includes({text!r}))"
        )

    async def bar(self, pane: str, status: str, percent: int, key: str = "") -> None:
        """Waits for a progress bar that stands so."""
        one = f'[data-key="{key}"]' if key else ""
        await self.browser.until(
            f"[...document.querySelectorAll('#pane-{pane} .bar{one}[data-status={status}] progress')]"
            f".some((bar) => bar.value === {percent})"
        )

    async def measured(self, pane: str, what: str) -> None:
        """Waits until `trip` or `delivery` is a time."""
        await self.browser.until(
            f"/^[0-9.]+ ms$/.test(document.querySelector('#pane-{pane} .{what}').textContent)"
        )

    async def shot(self, name: str) -> None:
        await picture(self.browser, name)

    def quiet(self) -> None:
        """Nobody complained."""
        assert self.browser.console == self.browser.failures == []

    async def value(self, name: str) -> str:
        """What a field holds, by its id."""
        return str(await self.browser.run(f"document.getElementById('{name}').value"))

    async def fill(self, name: str, value: str) -> None:
        await self.browser.run(f"document.getElementById('{name}').value = '{value}'")

    async def key(self, name: str) -> None:
        """A real key, as a keyboard sends it."""
        fields: dict[str, Any] = {"key": name, "code": name, "windowsVirtualKeyCode": _KEYS[name]}
        text = {"text": "\r"} if name == "Enter" else {}
        await self.browser.call("Input.dispatchKeyEvent", type="keyDown", **fields, **text)
        await self.browser.call("Input.dispatchKeyEvent", type="keyUp", **fields)


async def picture(browser: Chromium, name: str) -> None:
    """Keeps a picture, if pictures are kept."""
    if SHOTS:
        await browser.picture(Path(SHOTS, name))
