"""The examples that need no build step, in a real Chromium, and the Python worker as a process. Server over
Redis, pages on another origin."""

from __future__ import annotations

import asyncio
import json
import re
import signal
import sys
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest

from support.example_site import CLIENTS, EVIL, EXAMPLES, ExamplePage, ExampleSite, example_page, example_site
from support.server_process import token

pytestmark = pytest.mark.anyio

VANILLA = "clients/examples/vanilla/"


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ExampleSite]:
    with example_site(tmp_path_factory.mktemp("examples")) as found:
        yield found


@pytest.fixture
async def page(site: ExampleSite) -> AsyncIterator[ExamplePage]:
    async with example_page(site) as found:
        yield found


# ── vanilla: the client ──


async def test_a_page_with_the_client(page: ExamplePage) -> None:
    browser = page.browser
    await page.open(VANILLA)
    bearer = token("ann", channels=["topic:news"])
    await page.fill(server=page.door.base_url, token=bearer, channels="topic:news")
    await page.press("Connect")
    await page.status("live · websocket")
    await page.notify("ann", "one", f"two {EVIL}")
    await page.call("POST", "/v1/publish", {"channel": "topic:news", "type": "price", "data": {"EUR": 1}})
    await page.says('topic:news price {"EUR":1}')
    await page.says("2", "#badge:not([hidden])")

    page.door.away = True
    page.door.cut()
    await page.status("waiting")
    await page.notify("ann", "three")
    page.door.away = False
    await page.says("three")
    await page.status("live · websocket")
    assert await page.lines() == ["one", f"two {EVIL}", 'topic:news price {"EUR":1}', "three"]
    await page.press("Mark all read")
    await browser.until("document.getElementById('badge').hidden")
    assert bearer not in await browser.run("JSON.stringify([{ ...localStorage }, { ...sessionStorage }])")
    await page.fits_a_phone()

    await page.notify("ann", *(f"n{number}" for number in range(250)))
    await page.says("n249")
    assert await browser.run("document.querySelectorAll('#list li').length") == 200, "a list has an end"
    await page.press("Disconnect")
    await page.status("off")
    await page.fill(token="bad")
    await page.press("Connect")
    await page.status("stopped · unauthorized")


# ── vanilla: the older contracts ──


@pytest.mark.covers("S0.75")
async def test_the_websocket_test_page(page: ExamplePage) -> None:
    await page.open(VANILLA + "websocket_test.html")
    await page.fill(server=page.socket_base, user="bea", token=token("bea"))
    await page.press("Connect")
    await page.status("live")
    await page.says('"type":"stats"')
    kinds = [json.loads(text)["type"] for text in await page.lines()]
    assert kinds == ["connection_established", "notification_stats", "stats"]
    await page.press("Send")
    await page.says('"type":"pong"')
    await page.browser.run(
        "((select) => { select.selectedIndex = 2; select.dispatchEvent(new Event('change')); })"
        "(document.getElementById('example'))"
    )
    await page.press("Send")
    await page.says('"room_subscribed","room":"news"')
    await page.fill(message="no JSON")
    await page.press("Send")
    await page.says("Invalid JSON format")
    await page.notify("bea", EVIL)
    await page.says(EVIL)
    assert (await page.lines("sent"))[-1] == "no JSON"
    assert await page.browser.run("document.getElementById('sent').textContent") == "4"
    await page.fits_a_phone()

    page.door.cut()
    await page.status("waiting · 1006")
    await page.status("live")
    await page.press("Disconnect")
    await page.status("off")
    await page.fill(token="bad")
    await page.press("Connect")
    await page.status("off · 4001 Invalid credentials")
    await page.press("Clear")
    assert await page.lines() == []


@pytest.mark.covers("S2.30", "S2.31", "S2.32", "S2.33", "S2.34")
async def test_the_topics_client(page: ExamplePage) -> None:
    browser = page.browser
    await page.open(VANILLA + "style.css")  # of the origin, so that storage can be filled
    bearer = token("cid")
    kept = {"access_token": bearer, "server": page.socket_base}
    await browser.run(f"void Object.assign(localStorage, {json.dumps(kept)})")
    await page.open(VANILLA + "topics.html")
    await page.status("live")
    default = await browser.run("import('./topics.js').then(({ socketUrl }) => socketUrl())")
    assert default == f"ws://localhost:8000/api/ws?token={bearer}"
    await page.says("subscribed to import:task-123")
    await page.says("subscribed to wallet_updates")

    progress = {
        "task_id": "task-123",
        "status": "processing",
        "total": 1000,
        "processed": 500,
        "progress": 50.0,
    }
    await to_topic(
        page, "import:task-123", {"type": "import_progress", "task_id": "task-123", "data": progress}
    )
    await page.says("import processing: 50 %")
    assert await browser.run("document.querySelector('progress').value") == 50
    wallet = {"type": "wallet_update", "wallet_address": "0x1", "data": {"score": 85}}
    await to_topic(page, "wallet_updates", wallet)
    await page.says('wallet 0x1: {"score":85}')
    body = {"notification": {"title": "done", "content": EVIL, "level": "info"}, "target_users": ["cid"]}
    await page.call("POST", "/api/ws/notify", body)
    await page.says(f"done: {EVIL}")
    await page.fits_a_phone()

    page.door.away = True
    page.door.cut()
    await page.says("closed: 1006")  # onclose
    await page.status("waiting")
    await page.says("the connection failed")  # onerror
    page.door.away = False
    await page.status("live")
    await browser.until("document.body.innerText.split('subscribed to import:task-123').length === 3")


@pytest.mark.covers("S2.34")
async def test_the_topics_client_pings_while_it_is_open(page: ExamplePage) -> None:
    """A clock of the test's: what was set for every 30 s rings when told."""
    browser = page.browser
    await page.open(VANILLA + "style.css")
    await browser.run(f"void (localStorage.access_token = '{token('dot')}')")
    await browser.run(
        "void (document.body.innerHTML = '<p class=status></p><progress></progress><output></output>"
        "<ol></ol>', window.rings = [], window.stopped = [], window.frames_ = [],"
        "window.setInterval = (ring, ms) => rings.push({ ring, ms }),"
        "window.clearInterval = (number) => stopped.push(number))"
    )
    await browser.run(
        "import('./topics.js').then(({ connect }) => { window.one = connect(document.body,"
        f" {{ base: '{page.socket_base}' }});"
        " one.socket.addEventListener('message', ({ data }) => frames_.push(JSON.parse(data).type));"
        " rings[0].ring(); })"  # still connecting: says nothing, and does not throw
    )
    assert await browser.run("rings.map(({ ms }) => ms)") == [30_000]
    await page.status("live")
    await browser.until("frames_.includes('subscribed')")
    assert not await browser.run("frames_.includes('pong')")
    await browser.run("rings[0].ring()")
    await browser.until("frames_.filter((type) => type === 'pong').length === 1")
    await browser.run("one.close()")
    await page.status("off · 1000")
    await browser.run("rings[0].ring()")
    assert await browser.run("stopped") == [1], "the interval ends with the connection"


async def to_topic(page: ExamplePage, topic: str, message: dict[str, Any]) -> None:
    body = {"channel": f"topic:{topic}", "type": "topic_message", "data": message}
    await page.call("POST", "/v1/publish", body)


@pytest.mark.covers("S4.45", "S4.46")
async def test_the_progress_client(page: ExamplePage) -> None:
    browser = page.browser
    await page.open(VANILLA + "progress.html")
    default = await browser.run(
        "[...document.querySelectorAll('[name=server], [name=client]')].map((f) => f.value)"
    )
    assert "/ws/".join(default) == "ws://localhost:8000/ws/your_client_id"
    await browser.run(
        "void (window.seen = [], window.out = document.querySelector('output'),"
        "new MutationObserver(() => seen.push(out.textContent)).observe(out, { childList: true }))"
    )
    await page.fill(server=page.socket_base, token="test-token-progress")
    await page.press("Connect")
    await page.status("live")
    await page.says("WebSocket连接成功，客户端ID: your_client_id")
    await page.says("pong")  # its ping
    body = {"report_ids": ["r1", "r2", "r3"], "output_format": "pdf"}
    await page.call("POST", "/api/reports/batch/generate", body, "test-token-progress")
    await page.says("100% · completed", "output")
    seen = await browser.run("seen")
    assert {"33% · processing", "67% · processing"} <= set(seen), seen
    assert await browser.run("document.querySelector('progress').value") == 100
    found = await browser.run(
        "import('./progress.js').then(({ percentage }) =>"
        " [[1, 3], [0, 0], [3, 3]].map(([progress, total]) => percentage({ progress, total })))"
    )
    assert found == [pytest.approx(100 / 3), 0, 100]
    await page.fits_a_phone()
    page.door.cut()
    await page.status("off · 1006")


# ── the worker in Python ──


class Worker:
    """`worker.py` as a process."""

    def __init__(self, folder: Path, url: str, step_s: float) -> None:
        (folder / "token").write_text(token("worker", roles=["publisher"], channels=["topic:jobs"]) + "\n")
        self._command = [sys.executable, str(EXAMPLES / "python" / "worker.py"), "--url", url]
        self._command += ["--token-file", str(folder / "token"), "--position", str(folder / "position")]
        self._command += ["--step-s", str(step_s)]
        self.said = ""
        self.process: asyncio.subprocess.Process | None = None

    async def start(self) -> None:
        environment = {"PYTHONPATH": str(CLIENTS / "python" / "src")}
        self.process = await asyncio.create_subprocess_exec(
            *self._command, stderr=asyncio.subprocess.PIPE, env=environment
        )
        await self.says("waiting for jobs")

    async def says(self, pattern: str) -> None:
        """Waits until it has written that. Raises AssertionError when it ends before."""
        assert self.process is not None and self.process.stderr is not None
        async with asyncio.timeout(30):
            while not re.search(pattern, self.said):
                line = await self.process.stderr.readline()
                assert line, f"the worker ended:\n{self.said}"
                self.said += line.decode()

    def kill(self) -> None:
        if self.process is not None and self.process.returncode is None:
            self.process.kill()

    async def end(self, number: signal.Signals) -> int:
        assert self.process is not None and self.process.stderr is not None
        self.process.send_signal(number)
        self.said += (await self.process.stderr.read()).decode()
        return await self.process.wait()


async def test_the_worker_does_each_job_through_a_crash_and_a_cut(page: ExamplePage, tmp_path: Path) -> None:
    worker = Worker(tmp_path, page.door.base_url, 0.05)
    try:
        await worker.start()
        await through_it_all(page, worker)
    finally:
        worker.kill()


async def test_a_worker_whose_token_is_refused_ends_in_words(page: ExamplePage, tmp_path: Path) -> None:
    worker = Worker(tmp_path, page.door.base_url, 0.05)
    (tmp_path / "token").write_text("bad")
    try:
        with pytest.raises(AssertionError, match="the worker has ended: unauthorized"):
            await worker.start()
    finally:
        worker.kill()
    assert "Traceback" not in worker.said


async def through_it_all(page: ExamplePage, worker: Worker) -> None:
    async def job(data: Any) -> str:
        body = {"channel": "topic:jobs", "type": "job", "data": data}
        return str((await page.call("POST", "/v1/publish", body))["id"])

    for data in ("nonsense", {"owner": "eve", "steps": 1_000_000}, {"owner": "eve", "steps": True}):
        await job(data)
    first = await job({"owner": "eve", "steps": 2})
    await worker.says(f"job {first}: completed")
    assert (await page.call("GET", f"/v1/tasks/{first}", None))["result"] == {"steps": 2}

    begun = await job({"owner": "eve", "steps": 40})
    async with asyncio.timeout(30):
        while (await task(page, begun)).get("step") in (None, 0):
            await asyncio.sleep(0.02)
    # Its owner watches in the page of the first example.
    await page.open(VANILLA)
    await page.fill(server=page.door.base_url, token=token("eve"), channels=f"task:{begun}")
    await page.press("Connect")
    await page.says(f"task:{begun} task")
    await worker.end(signal.SIGKILL)
    waiting = await job({"owner": "eve", "steps": 1})
    assert (await task(page, begun))["state"] == "processing"
    assert await task(page, waiting) == {}
    await worker.start()
    page.door.cut()
    for name in (begun, waiting):
        await worker.says(f"job {name}: completed")
        assert (await task(page, name))["state"] == "completed"
    await page.says("step 40 of 40")
    await page.says('"state":"completed"')
    assert await worker.end(signal.SIGTERM) == 0
    for name in (first, begun, waiting):
        assert worker.said.count(f"job {name}: completed") == 1
    assert "Traceback" not in worker.said and "eyJ" not in worker.said


async def task(page: ExamplePage, name: str) -> dict[str, Any]:
    """The task, or {} when there is none."""
    try:
        found: dict[str, Any] = await page.call("GET", f"/v1/tasks/{name}", None)
    except AssertionError as error:
        if "unknown-task" not in str(error):
            raise
        return {}
    return found
