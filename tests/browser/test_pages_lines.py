"""`/websocket-test` in a real Chromium where connections go wrong: lost, refused, asked for twice."""

from __future__ import annotations

import re
import signal
from collections.abc import AsyncIterator
from pathlib import Path

import httpx
import pytest

from support.chromium import Chromium
from support.contract_page import STREAM, ContractPage
from support.server_process import ServerProcess, token

pytestmark = pytest.mark.anyio


@pytest.fixture
async def page(tmp_path: Path) -> AsyncIterator[ContractPage]:
    """The page of `serve --dev`, with the token it prints."""
    async with ServerProcess("sqlite", tmp_path, dev=True) as server, Chromium() as browser:
        told = re.search(r"#token=(\S+)$", server.log(), re.MULTILINE)
        assert told, "serve --dev prints no token"
        opened = ContractPage(browser, server, told[1])
        await opened.load()
        yield opened


async def test_the_own_stream_comes_back_without_a_loss_when_its_ticket_is_gone(
    page: ContractPage, tmp_path: Path
) -> None:
    """The page once took the refusal of an ended ticket for the last word."""
    await page.connect(STREAM, "own")
    await page.press("Notify")
    await page.shows(STREAM, "notification: ")
    page.server.signal(signal.SIGTERM)
    await page.server.exited()
    for file in (tmp_path / "data").glob("state.db*"):
        file.unlink()
    await page.server.start()
    headers = {"authorization": f"Bearer {page.token}"}
    async with httpx.AsyncClient(base_url=page.server.base_url, headers=headers) as http:
        body = {"to": {"user": "demo"}, "title": "while away"}
        assert (await http.post("/v1/notifications", json=body)).status_code == 201
    await page.shows(STREAM, "refused by the server: 401 bad ticket; again in 1 s", "signal")
    await page.shows(STREAM, "while away")
    await page.light(STREAM, "open")
    assert "gap: " not in "".join(await page.log(STREAM))
    assert page.browser.console == [], "only the network may complain"


async def test_who_connects_twice_at_once_has_one_connection(page: ContractPage) -> None:
    """The own stream asks for a ticket first: the first connection was forgotten, but stayed open."""
    await page.browser.run("document.querySelector('#pane-streams .endpoint').value = 'own'")
    await page.browser.run(
        "((button) => { for (let n = 0; n < 5; n++) button.click(); })"
        "(document.querySelector('#pane-streams .toggle'))"
    )
    await page.light(STREAM, "open")
    await page.press("Statistics")  # one more round trip: whoever else connects has done so
    assert await page.server.metric("dualcast_sessions") == 1
    page.quiet()


async def test_leaving_the_page_ends_its_connections(page: ContractPage) -> None:
    """A browser may keep the page, and its connections with it, for the button "back"."""
    await page.tab("topics")
    await page.connect("topics")
    await page.connect(STREAM)
    assert await page.server.metric("dualcast_sessions") == 2
    await page.browser.open(page.server.base_url + "/")
    await page.server.until_metric("dualcast_sessions", lambda sessions: sessions == 0)


async def test_a_refused_stream_says_why(page: ContractPage) -> None:
    await page.fill("field-task", "no-such-task")
    await page.browser.run("document.querySelector('#pane-streams .endpoint').value = 'task'")
    await page.toggle(STREAM)
    await page.shows(STREAM, "refused by the server: 404 Task not found", "signal")
    await page.light(STREAM, "closed")


async def test_another_token_in_the_address_is_taken(page: ContractPage) -> None:
    """A changed fragment loads nothing by itself."""
    await page.load(token="")
    assert await page.value("token") == "demo-token"
    await page.browser.run(f"void (location.hash = 'token={page.token}')")
    await page.browser.until(f"document.getElementById('token')?.value === '{page.token}'")


async def test_markup_in_a_notification_stays_text(page: ContractPage) -> None:
    await page.connect("notifications")
    await page.connect(STREAM)
    evil = "<img src=x onerror='document.title=1'><script>document.title=1</script>"
    await page.browser.run(
        "fetch('/v1/notifications', { method: 'POST', headers: { authorization: 'Bearer ' +"
        " document.getElementById('token').value, 'content-type': 'application/json' },"
        f" body: JSON.stringify({{ to: {{ user: 'demo' }}, title: {evil!r} }}) }})"
        ".then((answer) => answer.ok)"
    )
    for pane in ("notifications", STREAM):
        await page.shows(pane, "<img src=x onerror=")
    assert await page.browser.run("document.querySelectorAll('main img, main script').length") == 0
    page.quiet()


async def test_notify_is_seen_after_a_task_was_watched(page: ContractPage) -> None:
    """Both sides were left at the task, where no notification goes."""
    await page.connect("notifications")
    await page.connect(STREAM)
    await page.press("Run a task")
    await page.press("Notify")
    for pane in ("notifications", STREAM):
        await page.shows(pane, '"title":"Hello"')
        await page.toggle(pane)
        await page.light(pane, "closed")
    assert "nothing is connected" in await page.press("Notify")


async def test_heartbeats_that_are_hidden_push_nothing_out(page: ContractPage) -> None:
    await page.tab("progress")
    await page.connect("progress")
    await page.send("progress", '{"type":"custom","text":"to be seen"}')
    await page.shows("progress", '"type":"echo"')
    for _ in range(250):
        await page.send("progress", '{"type":"ping"}')
    count = "document.querySelectorAll('#pane-progress .log .beat').length"
    await page.browser.until("Number(document.querySelector('#pane-progress .count').textContent) > 250")
    assert await page.browser.run(count) == 50
    await page.shows("progress", '"type":"echo"')


async def test_a_token_that_has_expired_is_refused_in_words_and_finally(tmp_path: Path) -> None:
    async with (
        ServerProcess("memory", tmp_path, settings={"legacy.test_page": "true"}) as server,
        Chromium() as browser,
    ):
        page = ContractPage(browser, server, token("alice", life_s=-3600))
        await page.load()
        await page.toggle("notifications")
        await page.shows("notifications", "closed by code 1008 Unauthorized", "signal")
        await page.light("notifications", "closed")
        await page.toggle(STREAM)
        await page.shows(STREAM, "refused by the server: 401 Unauthorized", "signal")
        await page.light(STREAM, "closed")
        assert page.token not in server.log()
        assert browser.console == []
