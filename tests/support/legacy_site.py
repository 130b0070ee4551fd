"""A site of older clients with two nodes behind it, as its tests use it (`tests/browser/legacy_clients`)."""

from __future__ import annotations

import json
import re
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from itertools import count
from pathlib import Path
from typing import Any

import httpx

from support.chromium import Chromium
from support.front_door import FrontDoor
from support.redis_server import RedisServer
from support.server_process import SECRET, ServerProcess, token

PAGES = Path(__file__).parents[1] / "browser" / "legacy_clients"
USER = "alice"


class Site:
    """Two nodes, the site in front of them, and a page of it in a browser."""

    def __init__(self, nodes: list[ServerProcess], door: FrontDoor, browser: Chromium) -> None:
        self.nodes = nodes
        self.door = door
        self.browser = browser
        self.alive = {0, 1}
        self._turn = count()
        self._life_s = count(3600)

    async def call(self, method: str, path: str, body: Any = None, *, sub: str = "backend") -> Any:
        """A REST call to the nodes that are there, in turn, by an admin (`sub` backend) or a user."""
        living = sorted(self.alive)
        node = self.nodes[living[next(self._turn) % len(living)]]
        roles = ("admin",) if sub == "backend" else ()
        headers = {"authorization": "Bearer " + token(sub, roles=roles)}
        async with httpx.AsyncClient(base_url=node.base_url, headers=headers) as http:
            answer = await http.request(method, path, json=body)
        assert answer.is_success, (path, answer.status_code, answer.text)
        return answer.json()

    async def publish(self, channels: list[str], kind: str, data: Any) -> None:
        await self.call("POST", "/v1/publish", {"channels": channels, "type": kind, "data": data})

    async def start(
        self,
        name: str,
        kind: str,
        place: int,
        *,
        user: str = USER,
        given: str | None = None,
        life_s: int = 0,
        mark: str = "",
        **options: Any,
    ) -> None:
        """Starts a client of `user` that likes node `place`. `given`: in place of a token of its own; `mark`:
        what is only in its requests, else its token."""
        used = token(user, life_s=life_s or next(self._life_s)) if given is None else given
        self.door.prefer({mark or used: place})
        fields = json.dumps({"token": used, "user": user, **options})
        await self.browser.run(f"start({name!r}, {kind!r}, {fields})")

    async def get(self, name: str, what: str) -> Any:
        return await self.browser.run(f"clients.{name}.{what}")

    async def opened(self, name: str, times: int) -> None:
        """Waits until it has been connected so often."""
        await self.browser.until(f"clients.{name}.opens >= {times}")
        assert await self.get(name, "opens") == times

    async def numbers(self, name: str) -> list[int]:
        """The number `n…` of each thing its user has seen that has one, in order."""
        texts = [json.dumps(item, ensure_ascii=False) for item in await self.get(name, "items")]
        return [int(found[1]) for text in texts if (found := re.search(r"\bn(\d+)\b", text))]

    async def sees(self, number: int, *names: str) -> None:
        """Waits until each has an item with the number."""
        for name in names:
            pattern = f"/\\bn{number}\\b/"
            await self.browser.until(f"clients.{name}.items.some((i) => {pattern}.test(JSON.stringify(i)))")

    def kill(self, number: int) -> None:
        """kill -9."""
        self.nodes[number].kill()
        self.alive.discard(number)

    async def drain(self, number: int) -> None:
        """SIGTERM."""
        self.alive.discard(number)
        self.nodes[number].signal(signal.SIGTERM)
        assert await self.nodes[number].exited() == 0

    async def restart(self, number: int) -> None:
        await self.nodes[number].start()
        self.alive.add(number)

    def places(self, number: int) -> set[int]:
        """Which nodes the clients that like this one have been on."""
        liked = [mark for mark, place in self.door.preferred.items() if place == number]
        return {place for mark in liked for place in self.door.passed.get(mark, ())}


@asynccontextmanager
async def legacy_site(folder: Path) -> AsyncIterator[Site]:
    """Two nodes of `serve --dev` over one Redis, and the page with the clients open."""
    settings = {"jwt_secret": SECRET, "server.drain_s": 1}
    with RedisServer() as redis:
        nodes = [
            ServerProcess("redis", folder, redis_url=redis.url, dev=True, settings=settings) for _ in range(2)
        ]
        ports = [node.port for node in nodes]
        async with nodes[0], nodes[1], FrontDoor(PAGES, ports) as door, Chromium() as browser:
            await browser.open(door.base_url + "/site/")
            await browser.until("document.body.dataset.ready === 'yes'")
            yield Site(nodes, door, browser)
            assert not browser.console, f"a client met what it does not know: {browser.console}"
