"""A page that was written for `EventSource` and the older streams, after changing one identifier, in a real
Chromium, while its tenant is moved from SSE to WebSocket and back and its server is killed.

Beside it the page as it was. `-rP` shows the account: sent, received, missing, doubled.
"""

from __future__ import annotations

import asyncio
import json
import re
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from itertools import count
from pathlib import Path
from typing import Any

import httpx
import pytest

from support.chromium import Chromium
from support.client_door import Door
from support.front_door import send_answer
from support.redis_server import RedisServer
from support.server_process import ServerProcess, token

pytestmark = pytest.mark.anyio

USER = "alice"
PAGE = """<!doctype html><meta charset="utf-8"><title>A legacy page</title><body data-ready="no">
<script type="module" src="/site/page.js"></script>"""
SETUP = """
import { DualcastEventSource as Source } from "/site/src/event_source.js";
const timing = { spread: 100, settle: 500, probe: 300, probeCap: 1500, first: 100, cap: 500, greet: 3000 };
class DualcastEventSource extends Source {
  constructor(url, init) {
    super(url, { ...init, timing }); // the waits of the real page, in short
  }
}
"""
LEGACY = """
export function follow(name, url, types) {
  const source = new EventSource(url);
  const events = [];
  const states = [];
  const keep = ({ type, data, lastEventId, origin }) => events.push([type, data, lastEventId, origin]);
  for (const type of types) source.addEventListener(type, keep);
  source.onopen = () => states.push(`open ${source.readyState}`);
  source.onerror = () => states.push(`error ${source.readyState}`);
  source.onmessage = keep;
  window[name] = { source, events, states };
}
"""
ONE_IDENTIFIER = LEGACY.replace("new EventSource(", "new DualcastEventSource(")
READY = """
import * as now from "/site/now.js";
import * as before from "/site/before.js";
Object.assign(window, { now, before });
document.body.dataset.ready = "yes";
"""
FILES = {"": PAGE, "page.js": READY, "before.js": LEGACY, "now.js": SETUP + ONE_IDENTIFIER}


class Pages(Door):
    """Serves the page in both forms beside the client's files."""

    async def _page(self, writer: asyncio.StreamWriter, target: str) -> None:
        name = target.removeprefix("/site/")
        if name not in FILES:
            await super()._page(writer, target)
            return
        kind = "text/javascript" if name else "text/html"
        await send_answer(writer, "200 OK", kind, FILES[name].encode())


class World:
    """A server, its publisher and the page."""

    def __init__(self, browser: Chromium, server: ServerProcess, door: Door) -> None:
        self.door = door
        self.browser = browser
        self.server = server
        self.sent = 0
        self.repeated: set[int] = set()
        """Steps of the task whose report was repeated. The state of a task is stored before it is announced:
        a server that is killed in between has told nobody, and the next step says more."""
        headers = {"authorization": "Bearer " + token("root", roles=("admin", "operator")), "if-match": "*"}
        self.http = httpx.AsyncClient(base_url=server.base_url, headers=headers, timeout=10)
        self._stop = asyncio.Event()

    async def call(self, method: str, path: str, body: Any) -> int:
        """Until it is accepted: a server that is killed may have done it or not. How often it took."""
        async with asyncio.timeout(60):
            for tries in count(1):
                try:
                    answer = await self.http.request(method, path, json=body)
                except httpx.TransportError:
                    await asyncio.sleep(0.05)
                    continue
                if answer.status_code != 503:
                    assert answer.is_success, (path, answer.status_code, answer.text)
                    return tries
                await asyncio.sleep(0.05)
        raise AssertionError("never here")

    async def publish(self) -> None:
        """A notification and a step of the task, again and again until `stop`."""
        for number in count(1):
            title = f'n{number} – 你好 \\u2028 "<&>"'
            body = {"to": {"user": USER}, "id": f"n-{number}", "title": title, "data": {"f": 1.0}}
            await self.call("POST", "/v1/notifications", body)
            report = {"step": number, "message": f"step {number} 🚀", "sequence": number}
            if await self.call("POST", "/v1/tasks/T%201", report) > 1:
                self.repeated.add(number)
            self.sent = number
            if self._stop.is_set():
                return
            await asyncio.sleep(0.02)

    @asynccontextmanager
    async def publishing(self) -> AsyncIterator[None]:
        """`publish` goes on meanwhile."""
        async with asyncio.TaskGroup() as group:
            task = group.create_task(self.publish())
            try:
                yield
            except BaseException:
                task.cancel()
                raise
            self._stop.set()

    async def stage(self, stage: str, transport: str) -> None:
        """Moves the tenant, and waits until the changed page is there and has gone on."""
        body = {"stage": stage, "why": "a test", "force": True}
        await self.call("PUT", "/v1/tenants/default/migration", body)
        for name in ("notes", "task"):
            await self.browser.until(f"{name}.source.transport === {transport!r}", 45)
        for name, event in (("notes", "notification"), ("task", "progress")):
            had = await self.browser.run(f"{name}.events.length")
            more = f"{name}.events.slice({had}).filter(([type]) => type === {event!r}).length >= 10"
            await self.browser.until(more, 30)

    async def kill(self) -> None:
        """kill -9, and a new server in its place. Meanwhile connections break."""
        self.door.away = True
        self.server.kill()
        self.door.cut()
        await self.server.start()
        self.door.away = False

    async def heard(self, name: str) -> list[list[str]]:
        """Type, text, id and origin of each event but heartbeats."""
        found: list[list[str]] = await self.browser.run(f"{name}.events")
        return [event for event in found if event[0] != "heartbeat"]


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[World]:
    settings = {
        "delivery.retry_min_ms": 100,
        "delivery.retry_max_ms": 300,
        "delivery.move_spread_s": 1,
        "delivery.move_grace_s": 1,
        "server.drain_s": 1,
        "legacy.ws_heartbeat_s": 1,
        "legacy.task_heartbeat_s": 1,
    }
    with RedisServer() as redis:
        async with (
            ServerProcess("redis", tmp_path, redis_url=redis.url, settings=settings) as server,
            Pages(server.port) as door,
            Chromium() as browser,
        ):
            await browser.open(door.base_url + "/site/")
            await browser.until("document.body?.dataset.ready === 'yes'")
            made = World(browser, server, door)
            async with made.http:
                yield made


def test_one_identifier_was_changed() -> None:
    changed = [
        (old, new) for old, new in zip(LEGACY.split(), ONE_IDENTIFIER.split(), strict=True) if old != new
    ]
    assert changed == [("EventSource(url);", "DualcastEventSource(url);")]


def parted(heard: list[list[str]]) -> tuple[list[list[str]], list[list[str]]]:
    """The events as they are, and type, text and origin of those that told of a connection."""
    opened = [[kind, data, origin] for kind, data, _, origin in heard if kind == "connected"]
    return [one for one in heard if one[0] != "connected"], opened


@pytest.mark.covers("S1.40")
async def test_a_legacy_page_goes_from_sse_to_websocket_and_back(world: World) -> None:
    browser, bearer = world.browser, token(USER)
    await world.call("PUT", "/v1/tenants/default/migration", {"stage": "sse", "why": "a test", "force": True})
    await world.call("PUT", "/v1/tasks/T%201", {"owner": USER, "total_steps": 100_000})
    notes = f"/api/notifications/stream?token={bearer}", ["connected", "notification", "heartbeat"]
    task = (
        f"/api/stream/tasks/T%201?token={bearer}",
        ["connected", "progress", "completed", "failed", "heartbeat"],
    )
    for name, (url, types) in {"notes": notes, "task": task}.items():
        for page, under in (("before", f"old_{name}"), ("now", name)):
            await browser.run(f"{page}.follow({under!r}, {url!r}, {json.dumps(types)})")
            await browser.until(f"{under}.events.some(([type]) => type === 'connected')")
    async with world.publishing():
        for stage, transport in (
            ("sse", "sse"),
            ("shadow", "websocket"),
            ("fallback", "websocket"),
            ("websocket", "websocket"),
        ):
            await world.stage(stage, transport)
            for name in ("notes", "task"):
                beats = f"{name}.events.filter(([type]) => type === 'heartbeat').length"
                had = await browser.run(beats)
                await browser.until(f"{beats} > {had}")
        assert await browser.run("[notes.states, task.states]") == [["open 1"]] * 2, "it noticed nothing"
        await world.kill()
        await world.stage("websocket", "websocket")
        await world.stage("sse", "sse")
    await world.call(
        "POST", "/v1/tasks/T%201", {"state": "completed", "message": "完成", "result": {"f": 1.0}}
    )

    for name, event, last in (("notes", "notification", f"n{world.sent} "), ("task", "progress", "完成")):
        for page in (name, f"old_{name}"):
            await browser.until(f"{page}.events.some(([, data]) => data.includes({last!r}))", 30)
        found, before = await world.heard(name), await world.heard(f"old_{name}")
        told = [data for kind, data, *_ in found if kind == event]
        due = [data for kind, data, *_ in before if kind == event]
        extra = 1 if name == "task" else 0  # the end of a task is its progress, too
        doubled = sum(times - 1 for times in Counter(told).values())
        steps = {int(hit[1]) for data in told if (hit := re.search(r"(?:step |\"n)(\d+) ", data))}
        untold = set(range(1, world.sent + 1)) - steps
        untold -= world.repeated if name == "task" else set()
        missing = len(set(due) - set(told)) + len(untold) + extra - any("完成" in data for data in told)
        line = f"{world.sent + extra} sent, {len(told)} received, {missing} missing, {doubled} doubled"
        print(f"sse → shadow → fallback → websocket → killed → sse ({name}): {line}")
        assert (missing, doubled) == (0, 0), line
        # Where in the order a killed connection was opened again is its own; all else is the same.
        (events, opened), (events_before, opened_before) = parted(found), parted(before)
        assert events == events_before, "the same events, text, ids and origin as `EventSource` has them"
        assert opened == opened_before
    assert [kind for kind, *_ in await world.heard("task")][-2:] == ["progress", "completed"]
    for name in ("notes", "task"):
        states = await browser.run(f"{name}.states")
        assert states[0] == states[-1] == "open 1" and set(states[1:-1]) == {"error 0"}, "killed once"
    assert browser.console == []
