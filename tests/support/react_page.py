"""Pages with components of `@dualcast/react`, a server, and the network between them."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import httpx

from support.bundle import BundleDoor, bundle, page
from support.chromium import Chromium, Tab
from support.server_process import ServerProcess, token

PAGE = Path(__file__).parents[1] / "clients" / "react" / "support" / "page.js"


def site(folder: Path, react: Literal[18, 19]) -> Path:
    """The folder of the page with this version of React."""
    folder.mkdir()
    bundle(PAGE, folder, react=react)
    page(folder, style=True)
    return folder


class World:
    """A page in a browser with components of the package, a server, and the network between them."""

    def __init__(self, browser: Chromium, server: ServerProcess, door: BundleDoor, user: str) -> None:
        self.browser = browser
        self.server = server
        self.door = door
        self.user = user

    async def call(self, method: str, path: str, body: Any = None) -> Any:
        roles = ("admin", "publisher", "operator")
        headers = {"authorization": "Bearer " + token("root", roles=roles)}
        async with httpx.AsyncClient(base_url=self.server.base_url, headers=headers, timeout=30) as http:
            answer = await http.request(method, path, json=body)
        assert answer.is_success, (path, answer.status_code, answer.text)
        return answer.json()

    async def notify(self, *titles: str, **more: Any) -> None:
        items = [{"to": {"user": self.user}, **more, "title": title} for title in titles]
        found = await self.call("POST", "/v1/notifications/batch", items)
        assert all(one["status"] == 201 for one in found["results"]), found

    async def publish(self, channel: str, *values: Any) -> None:
        for value in values:
            await self.call("POST", "/v1/publish", {"channel": channel, "type": "price", "data": value})

    async def start(
        self, *parts: dict[str, Any], tab: Tab | None = None, user: str = "", **options: Any
    ) -> None:
        given = token(user or self.user, channels=("topic:*", "presence:*"))
        told = [{"token": given, **options}, {"part": "client"}, *parts]
        await (tab or self.browser).run(f"start(...{json.dumps(told)})")

    async def show(self, *parts: dict[str, Any]) -> None:
        await self.browser.run(f"show(...{json.dumps([{'part': 'client'}, *parts])})")

    async def live(self, tab: Tab | None = None) -> None:
        await (tab or self.browser).until("window.client?.status.status === 'live'")

    async def says(self, selector: str, text: str, tab: Tab | None = None) -> None:
        await (tab or self.browser).until(f"document.querySelector({selector!r})?.textContent === {text!r}")

    async def press(self, *keys: str) -> None:
        for key in keys:
            await self.browser.on_page(lambda page, key=key: page.keyboard.press(key))  # type: ignore[misc]

    async def click(self, selector: str) -> None:
        await self.browser.until(f"document.querySelector({selector!r})")
        await self.browser.run(f"document.querySelector({selector!r}).click()")

    async def channels(self) -> list[str]:
        """What the server has the user's connections subscribed to, beside their own."""
        found = await self.call("GET", f"/v1/connections?user={self.user}")
        names = [name for one in found["connections"] for name in one["channels"]]
        return sorted(set(names) - {"all", f"user:{self.user}"})

    async def subscribed(self, wanted: Sequence[str]) -> None:
        async with asyncio.timeout(20):
            while await self.channels() != sorted(wanted):
                await asyncio.sleep(0.02)

    async def away(self, away: bool) -> None:
        self.door.away = away
        if away:
            self.door.cut()
            await self.browser.until("client.status.status !== 'live'")
        else:
            await self.live()


class Room:
    """What all tests of the file share."""

    def __init__(self, server: ServerProcess, sites: dict[int, Path]) -> None:
        self.server = server
        self.sites = sites
        self.users = 0
