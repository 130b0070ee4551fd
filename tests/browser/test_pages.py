"""`/websocket-test` in a real Chromium, contract by contract.

`DUALCAST_TEST_SHOTS=folder` keeps pictures.
"""

from __future__ import annotations

import re
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from support.chromium import Chromium
from support.contract_page import NARROW, STREAM, WIDE, ContractPage
from support.server_process import ServerProcess

pytestmark = pytest.mark.anyio

CONTRACTS = ("notifications", "rooms", "topics", "conversations", "progress")


@pytest.fixture
async def page(tmp_path: Path) -> AsyncIterator[ContractPage]:
    """The page of `serve --dev`, with the token it prints."""
    async with ServerProcess("memory", tmp_path, dev=True) as server, Chromium() as browser:
        told = re.search(r"#token=(\S+)$", server.log(), re.MULTILINE)
        assert told, "serve --dev prints no token"
        await browser.viewport(*WIDE)
        opened = ContractPage(browser, server, told[1])
        await opened.load()
        yield opened


# ── contract by contract ──


@pytest.mark.covers("S4.21", "S4.22", "S4.23", "S4.24")
async def test_notifications_arrive_on_both_sides_and_tasks_move_bars(page: ContractPage) -> None:
    await page.connect("notifications")
    await page.connect(STREAM)
    assert "sent" in await page.press("Notify")
    sent: list[str] = []
    for pane in ("notifications", STREAM):
        await page.shows(pane, '"title":"Hello"')
        await page.measured(pane, "delivery")
        sent += re.findall(r"published at \S+ #\w+", "".join(await page.log(pane)))
    assert len(sent) == 2 and len(set(sent)) == 1, "the same notification, once on each side"
    await page.shot("test-page-notifications.png")

    assert '"count":1' in await page.press("Unread count")
    assert '"updated":1' in await page.press("Mark all read")
    assert '"state":"completed"' in await page.press("Run a task")
    for pane in ("notifications", STREAM):
        await page.bar(pane, "completed", 100)
    await page.press("Run a batch")
    await page.shows(STREAM, "finished: ")
    await page.light(STREAM, "closed")
    await page.bar(STREAM, "completed", 100, await page.value("field-batch"))
    await page.shot("test-page-tasks.png")
    page.quiet()


@pytest.mark.covers("S0.75", "S0.77")
async def test_rooms_answer_and_get_what_the_endpoints_publish(page: ContractPage) -> None:
    await page.tab("rooms")
    await page.connect("rooms")
    await page.connect(STREAM)
    await page.measured("rooms", "trip")
    first = [kind(line) for line in await page.log("rooms")]
    assert first[:3] == ["connection_established", "notification_stats", "pong"]
    assert await page.example("rooms", "subscribe") == '{"type":"subscribe","room":"news"}'
    await page.shows("rooms", '"room_subscribed","room":"news"')
    for label, wanted in (
        ("Notify", '"title":"Hello"'),
        ("Demo notification", "欢迎使用通知系统"),
        ("Sync update", '"type":"sync_update"'),
        ("System message", '"type":"system_message"'),
    ):
        await page.press(label)
        await page.shows("rooms", wanted)
    await page.shows(STREAM, "欢迎使用通知系统")
    await page.measured("rooms", "delivery")
    await page.press("To the room")
    await page.browser.until(
        "[...document.querySelectorAll('#pane-rooms .got .text')]"
        ".filter((line) => line.textContent.includes('system_message')).length === 2"
    )
    assert '"connections":2' in await page.press("Connections")
    assert '"status":"active"' in await page.press("Statistics")
    await page.send("rooms", "no JSON")
    await page.shows("rooms", "Invalid JSON format")
    await page.light("rooms", "open")
    await page.shot("test-page-rooms.png")
    page.quiet()


async def test_topics_are_subscribed_to_and_an_import_moves_its_bar(page: ContractPage) -> None:
    await page.tab("topics")
    await page.connect("topics")
    await page.example("topics", "subscribe")
    await page.shows("topics", '"type":"subscribed","topic":"wallet_updates"')
    await page.press("To the topic")
    await page.shows("topics", '"type":"wallet_update"')
    await page.press("Broadcast")
    await page.shows("topics", '"type":"admin_broadcast"')
    await page.press("Run an import")
    await page.bar("topics", "completed", 100, "t1")
    await page.measured("topics", "trip")
    await page.measured("topics", "delivery")
    await page.shot("test-page-topics.png")

    await page.toggle("topics")
    await page.connect("topics", "anonymous")
    await page.example("topics", "subscribe to the import")
    await page.shows("topics", '"type":"error"')
    page.quiet()


async def test_a_conversation_shows_on_the_socket_and_on_the_own_stream(page: ContractPage) -> None:
    await page.tab("conversations")
    await page.connect("conversations", "mobile")
    await page.connect(STREAM, "own")
    await page.shows("conversations", '"device_type":"mobile"')
    await page.measured("conversations", "trip")
    await page.press("Message to me")
    await page.shows("conversations", '"action":"new_message"')
    await page.shows(STREAM, "conversation.message: ")
    for pane in ("conversations", STREAM):
        await page.measured(pane, "delivery")
    await page.press("They type")
    await page.shows("conversations", '"event_type":"typing_update"')
    await page.press("They read")
    await page.shows("conversations", '"event_type":"read_status"')
    await page.example("conversations", "typing")
    await page.shows("conversations", '"action":"response"')
    await page.send("conversations", "ping")
    await page.browser.run("document.querySelector('#pane-conversations .quiet').click()")
    await page.shows("conversations", "pong")
    assert '"sent"' in await page.press("I send")
    await page.shot("test-page-conversations.png")
    page.quiet()


@pytest.mark.covers("S4.23")
async def test_progress_of_the_demo_jobs_moves_bars(page: ContractPage) -> None:
    await page.tab("progress")
    await page.connect("progress")
    await page.connect(STREAM, "own")
    await page.measured("progress", "trip")
    await page.example("progress", "any other type (echoed)")
    await page.shows("progress", '"type":"echo"')
    await page.press("Batch of reports")
    await page.press("Upload a file")
    await page.press("Industries")
    await page.bar("progress", "running", 50, "a.csv")
    await page.shot("test-page-progress.png")
    for pane in ("progress", STREAM):
        await page.bar(pane, "completed", 100, "multi_industry_progress")
        await page.bar(pane, "running", 100, "a.csv")
        count = f"document.querySelectorAll('#pane-{pane} .bar[data-status=completed]').length"
        await page.browser.until(f"{count} === 3")  # the reports, the import of the file, the industries
    assert '"active_count":1' in await page.press("Statistics")
    page.quiet()


# ── as a page ──


async def test_it_comes_back_after_a_kill_9_and_disconnects_when_told(page: ContractPage) -> None:
    await page.tab("topics")
    await page.connect("topics")
    await page.connect(STREAM)
    page.server.kill()
    for pane in ("topics", STREAM):
        await page.light(pane, "connecting")
    await page.shows("topics", "closed by code 1006", "signal")
    await page.server.start()
    for pane in ("topics", STREAM):
        await page.light(pane, "open")
    await page.press("Notify")
    for pane in ("topics", STREAM):
        await page.shows(pane, '"title":"Hello"')
        await page.toggle(pane)
        await page.light(pane, "closed")
    await page.press("Notify")
    assert await page.server.metric("dualcast_sessions") == 0
    assert page.browser.console == [], "only the network may complain"


async def test_a_refusal_is_said_and_final(page: ContractPage) -> None:
    await page.tab("rooms")
    await page.fill("user", "somebody-else")
    await page.toggle("rooms")
    await page.shows("rooms", "closed by code 4003 forbidden", "signal")
    await page.light("rooms", "closed")
    await page.tab("notifications")
    await page.fill("field-task", "no-such-task")
    await page.browser.run("document.querySelector('#pane-streams .endpoint').value = 'task'")
    await page.toggle(STREAM)
    await page.shows(STREAM, "refused by the server", "signal")
    await page.light(STREAM, "closed")
    assert page.browser.console == []


async def test_demo_tokens_do_where_no_real_one_is_given(page: ContractPage) -> None:
    await page.load(token="")
    assert await page.value("user") == "demo-user"
    for contract in CONTRACTS:
        await page.tab(contract)
        await page.connect(contract)
    await page.tab("rooms")
    await page.press("Notify")
    for contract in ("notifications", "rooms", "topics"):
        await page.shows(contract, '"title":"Hello"')
    off = await page.browser.run(
        "[...document.querySelectorAll('button:disabled')].map((b) => [b.textContent, b.title])"
    )
    assert {label for label, _ in off} == {"Run a task", "Run a batch", "To the room", "To the topic"} | {
        "Run an import"
    }
    assert all("real token" in title for _, title in off)
    assert "Demo tokens" in await page.browser.run("document.getElementById('hint').textContent")
    page.quiet()


async def test_the_keyboard_is_enough(page: ContractPage) -> None:
    await page.browser.run("document.getElementById('tab-notifications').focus()")
    await page.key("ArrowRight")
    await page.key("ArrowRight")
    chosen = "document.querySelector('[role=tab][aria-selected=true]')"
    assert await page.browser.run(f"{chosen}.id") == "tab-topics"
    assert await page.browser.run(f"document.activeElement === {chosen}")
    await page.browser.run("document.querySelector('#pane-topics .toggle').focus()")
    await page.key("Enter")
    await page.light("topics", "open")
    await page.browser.run(
        '((field) => { field.value = \'{"type":"get_stats"}\'; field.focus(); })'
        "(document.querySelector('#pane-topics textarea'))"
    )
    await page.key("Enter")
    await page.shows("topics", '"type":"stats"')
    await page.browser.run("document.getElementById('tab-topics').focus()")
    await page.key("End")
    await page.key("ArrowRight")
    assert await page.browser.run(f"{chosen}.id") == "tab-notifications"
    unreachable = await page.browser.run(
        "[...document.querySelectorAll('input, select, textarea, button:not([role=tab])')]"
        ".filter((e) => e.tabIndex < 0 || !(e.labels?.length || e.textContent || e.ariaLabel))"
        ".map((e) => e.outerHTML)"
    )
    assert unreachable == []
    page.quiet()


async def test_logs_and_bars_are_bounded(page: ContractPage) -> None:
    await page.tab("progress")
    await page.connect("progress")
    for number in range(230):
        await page.send("progress", f'{{"type":"data_import_progress","import_id":"i{number}","progress":5}}')
    await page.shows("progress", '"i229"')
    assert (
        await page.browser.run("document.querySelectorAll('#pane-progress .log li:not(.beat)').length") == 200
    )
    bars = await page.browser.run(
        "(async () => { const { Bars } = await import('/pages/test-bars.js');"
        "const root = document.createElement('div'); const bars = new Bars(root);"
        "for (let n = 0; n < 50; n++) bars.show({ key: `k${n}`, label: '', percent: 5, status: 'running' });"
        "return root.children.length; })()"
    )
    assert bars == 12
    page.quiet()


async def test_a_phone_needs_no_scrolling_sideways(page: ContractPage) -> None:
    await page.browser.viewport(*NARROW)
    await page.connect(STREAM)
    for contract in CONTRACTS:
        await page.tab(contract)
        await page.connect(contract)
        await page.send(contract, '{"type":"custom","text":"' + "n" * 300 + '"}')
        if contract != "conversations":
            await page.press("Statistics")
        widths = await page.browser.run("[document.documentElement.scrollWidth, window.innerWidth]")
        assert widths[0] <= widths[1] == NARROW[0], contract
        hidden = await page.browser.run(
            "[...document.querySelectorAll('main *')].filter((e) => !e.closest('select') &&"
            " e.getBoundingClientRect().right > 391).map((e) => e.outerHTML)"
        )
        assert hidden == [], contract
        small = await page.browser.run(
            "[...document.querySelectorAll('button, select, textarea')]"
            ".map((e) => [e, e.getBoundingClientRect()])"
            ".filter(([, box]) => box.height > 0 && box.height < 32).map(([e]) => e.outerHTML)"
        )
        assert small == [], "too small for a finger"
        await page.shot(f"test-page-narrow-{contract}.png")
    page.quiet()


def kind(line: str) -> str:
    found = re.search(r'"type":"(\w+)"', line)
    return found[1] if found else ""
