"""The console in a browser: signing in, going to a view, pressing what stands there; and REST beside it."""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx

from support.chromium import Chromium
from support.server_process import ServerProcess, token

SHOTS = os.environ.get("DUALCAST_TEST_SHOTS", "")
SETTINGS = {
    "server.console": "true",
    "tenancy.operator_tenant": "default",
    "delivery.retry_min_ms": 200,
    "delivery.retry_max_ms": 500,
}
OPERATOR = token("root", roles=["operator"])
ADMIN = token("ada", roles=["admin"])
ANY = {"If-Match": "*"}


@contextmanager
def console_server(folder: Path) -> Iterator[ServerProcess]:
    """A server with a console, whose operators are those of the tenant `default`."""
    server = ServerProcess("memory", folder, settings=SETTINGS)
    server.launch()
    asyncio.run(server.ready())
    try:
        yield server
    finally:
        server.kill()


class Console:
    """The page, and REST beside it."""

    def __init__(self, browser: Chromium, server: ServerProcess) -> None:
        self.browser = browser
        self.server = server
        self.url = server.base_url + "/console"

    async def open(self, view: str = "") -> None:
        """A page nobody is signed in to."""
        await self.browser.open(f"{self.server.base_url}/healthz")
        await self.browser.run("sessionStorage.clear()")
        await self.browser.open(self.url + view)

    async def sign_in(self, given: str, view: str = "") -> None:
        await self.open(view)
        await self.type_token(given)
        await self.browser.until("!document.getElementById('who').hidden")

    async def type_token(self, given: str) -> None:
        await self.browser.until("!document.getElementById('sign-in')?.hidden")
        await self.browser.run(f"document.getElementById('token').value = {json.dumps(given)}")
        await self.browser.run("document.querySelector('#sign-in button').click()")

    async def go(self, view: str) -> None:
        await self.browser.run(f"location.hash = {json.dumps('#' + view)}")

    async def press(self, text: str) -> None:
        button = (
            f"[...document.querySelectorAll('button')].find((one) => one.textContent === {json.dumps(text)})"
        )
        await self.browser.until(f"{button} && !{button}.disabled")
        await self.browser.run(button + ".click()")

    async def says(self, *texts: str) -> None:
        for text in texts:
            await self.browser.until(f"document.body.textContent.includes({json.dumps(text)})")

    async def set(self, selector: str, value: str) -> None:
        await self.browser.until(f"document.querySelector({json.dumps(selector)})")
        await self.browser.run(
            f"(field => {{ field.value = {json.dumps(value)};"
            " field.dispatchEvent(new Event('input', {bubbles: true})); })"
            f"(document.querySelector({json.dumps(selector)}))"
        )

    async def rest(
        self, method: str, path: str, given: str, body: Any = None, **headers: str
    ) -> httpx.Response:
        async with httpx.AsyncClient(base_url=self.server.base_url) as http:
            return await http.request(
                method, path, json=body, headers={"authorization": f"Bearer {given}", **headers}
            )

    async def shot(self, name: str) -> None:
        if SHOTS:
            await self.browser.picture(Path(SHOTS, name))

    async def fits(self) -> None:
        """Nothing but what scrolls by itself is wider than the screen."""
        widths = await self.browser.run("[document.documentElement.scrollWidth, window.innerWidth]")
        assert widths[0] <= widths[1], widths

    async def tenant(self, name: str, stage: str, why: str = "test") -> None:
        """Makes a tenant."""
        body = {"id": name, "stage": stage, "why": why}
        assert (await self.rest("POST", "/v1/tenants", OPERATOR, body)).status_code == 201

    async def record(self, name: str) -> Any:
        """The stage record of a tenant."""
        return (await self.rest("GET", f"/v1/tenants/{name}/migration", OPERATOR)).json()["record"]

    async def change(self, name: str, **body: Any) -> None:
        """Changes a tenant behind the page's back."""
        done = await self.rest(
            "PUT", f"/v1/tenants/{name}/migration", OPERATOR, {"why": "other", **body}, **ANY
        )
        assert done.status_code == 200, done.text
