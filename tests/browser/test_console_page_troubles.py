"""The console when something goes wrong: in a hurry, with a lost answer, with others at the same tenant, with
a server that does not answer, with a socket that is refused, with very many of everything."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Iterator

import pytest

from support.chromium import Chromium
from support.console_page import ADMIN, ANY, OPERATOR, Console, console_server
from support.server_process import ServerProcess, token

pytestmark = pytest.mark.anyio

EAGER = "const every = setInterval; window.setInterval = (run, ms) => every(run, Math.min(ms, 200));"
"""What a page asks for again every ten seconds, it asks for at once."""
NETWORK = """
  const asked = window.fetch;
  window.fetch = async (path, init) => {
    const answer = (await window.instead?.(String(path), init)) ?? (await asked(path, init));
    return (await window.behind?.(String(path), init, answer)) ?? answer;
  };
"""
"""`instead` may answer for the server, `behind` may change or lose what it has answered."""
LIVE = "document.querySelector('.light')?.textContent === 'live'"


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    with console_server(tmp_path_factory.mktemp("console")) as server:
        yield server


@pytest.fixture
async def console(server: ServerProcess) -> AsyncIterator[Console]:
    async with Chromium() as browser:
        await browser.call("Page.addScriptToEvaluateOnNewDocument", source=EAGER + NETWORK)
        yield Console(browser, server)
        assert browser.console == [], "nothing may complain"


def ladder(stage: str) -> str:
    return f"document.querySelector('.ladder [aria-current=step]')?.textContent === '{stage}'"


async def test_a_double_click_or_a_held_key_confirms_nothing_unread(console: Console) -> None:
    await console.tenant("hasty", "fallback")
    await console.sign_in(OPERATOR, "#tenants/hasty")
    await console.press("Step back to shadow")
    await console.set("#why", "in a hurry")
    await console.browser.on_page(lambda page: page.dblclick("dialog button.main"))
    await console.says("Change it", "stage: fallback → shadow")
    await console.set("#why", "in a great hurry")
    await console.browser.on_page(lambda page: page.focus("dialog input[type=number]"))
    for _ in range(3):
        await console.browser.on_page(lambda page: page.keyboard.down("Enter"))
    await console.browser.on_page(lambda page: page.keyboard.up("Enter"))
    await console.says("Change it")
    assert await console.browser.run("!!document.querySelector('dialog')")
    assert (await console.record("hasty"))["stage"] == "fallback"
    await console.press("Change it")
    await console.browser.until(ladder("shadow"))


async def test_a_stage_is_changed_with_the_keyboard_alone_and_the_focus_is_not_lost(console: Console) -> None:
    await console.tenant("keys", "shadow")
    await console.sign_in(OPERATOR, "#tenants/keys")
    await console.says("Nobody has connected in 30 days.", "No mismatch was recorded.")

    async def key(name: str) -> None:
        await console.browser.on_page(lambda page: page.keyboard.press(name))

    async def tab_to(what: str) -> None:
        for _ in range(60):
            await key("Tab")
            if await console.browser.run(f"document.activeElement.matches({json.dumps(what)})"):
                return
        raise AssertionError(what)

    await tab_to(".ladder ~ .row button:nth-child(2)")
    assert await console.browser.run("document.activeElement.textContent") == "Step back to sse"
    await key("Enter")
    await tab_to("#why")
    await console.browser.on_page(lambda page: page.keyboard.type("by hand"))
    await tab_to("dialog button.main")
    await key("Enter")
    await console.says("Change it")
    await key("Enter")
    await console.browser.until(ladder("sse"))
    assert await console.browser.run("document.querySelector('section').contains(document.activeElement)")


async def test_a_lost_answer_is_not_taken_for_a_refusal(console: Console) -> None:
    await console.tenant("lost", "fallback")
    await console.sign_in(OPERATOR, "#tenants/lost")
    await console.press("Step back to shadow")
    await console.browser.run(
        "window.behind = (path, init) => { if (init.method === 'PUT') throw new TypeError('lost'); }; 0"
    )
    await console.set("#why", "the network breaks")
    await console.press("Review")
    await console.press("Change it")
    await console.says("The change may have been made, or not.")
    assert (await console.record("lost"))["stage"] == "shadow"
    await console.browser.run("window.behind = null; 0")
    await console.press("Change it")
    await console.says("perhaps by your own first attempt")
    await console.press("Show what it is now")
    await console.browser.until(ladder("shadow") + " && !document.querySelector('dialog')")


async def test_what_was_wrong_with_a_change_is_said(console: Console) -> None:
    await console.tenant("wrong", "fallback")
    await console.sign_in(OPERATOR, "#tenants/wrong")
    await console.press("Change…")
    await console.set("[id$=-link]", "not a link")
    await console.set("#why", "test")
    await console.press("Review")
    await console.press("Change it")
    await console.says("link must be a URL")


async def test_the_review_says_who_is_moved(console: Console) -> None:
    await console.tenant("leap", "fallback")
    await console.change("leap", stage="fallback", cohort={"percent": 10})
    await console.sign_in(OPERATOR, "#tenants/leap")
    await console.press("Step forward to websocket")
    await console.set("#why", "too early")
    await console.press("Review")
    await console.says("1 % of the users go from fallback to websocket.")
    await console.says("9 % of the users stay in fallback.", "90 % of the users go from shadow to fallback.")


@pytest.mark.parametrize("by", ["revoked", "another view"])
async def test_a_dialog_does_not_outlive_what_it_is_about(console: Console, by: str) -> None:
    """It is modal: the form behind it could not be used."""
    name = by.replace(" ", "-")
    await console.tenant(name, "fallback")
    mine = token(name, roles=["operator", "admin"])
    await console.sign_in(mine, f"#tenants/{name}")
    await console.press("Step back to shadow")
    await console.set("#why", "half a sen")
    if by == "revoked":
        await console.rest("DELETE", f"/v1/connections?user={name}", ADMIN)
        await console.browser.until("!document.getElementById('sign-in').hidden")
    else:
        await console.go("health")
    await console.browser.until("!document.querySelector('dialog')")


async def test_while_the_server_does_not_answer_what_was_known_stays(console: Console) -> None:
    await console.tenant("night", "fallback")
    await console.sign_in(OPERATOR, "#tenants/night")
    await console.browser.until(ladder("fallback"))
    await console.browser.run(
        "window.instead = (path) => { if (path.startsWith('/v1/')) throw new TypeError('away'); }; 0"
    )
    await console.says("The server cannot be reached. This is how it was at ")
    assert await console.browser.run(ladder("fallback"))
    alerts = "document.querySelectorAll('[role=alert] .refusal')"
    await console.browser.until(f"{alerts}.length === 5")
    await console.browser.run(f"window.first = {alerts}[0]; 0")
    await console.browser.run("new Promise((done) => setInterval(done, 200)).then(() => 0)")
    assert await console.browser.run(f"window.first === {alerts}[0]"), "said once, not at every attempt"
    await console.browser.run(
        "window.instead = (path) => path.startsWith('/v1/')"
        ' ? new Response(\'{"code": "admin-only"}\', {status: 403}) : null; 0'
    )
    await console.says("Your token has neither the role admin")
    assert not await console.browser.run(ladder("fallback")), "rights that are gone show nothing"
    await console.browser.run("window.instead = null; 0")
    await console.browser.until(ladder("fallback") + f" && {alerts}.length === 0")


async def test_an_answer_that_was_overtaken_is_not_shown(console: Console) -> None:
    await console.tenant("late", "fallback")
    await console.sign_in(OPERATOR, "#tenants/late")
    await console.browser.until(ladder("fallback"))
    await console.browser.run(
        "window.behind = (path, init, answer) => path.endsWith('/migration') && !window.late"
        " ? new Promise((done) => (window.late = () => done(answer))) : null; 0"
    )
    await console.browser.until("window.late")
    await console.change("late", stage="shadow")
    await console.browser.until(ladder("shadow"))
    await console.browser.run(
        "window.seen = []; new MutationObserver(() => seen.push(0)).observe("
        "document.querySelector('section'), {childList: true, subtree: true}); late()"
    )
    await console.change("late", stage="sse")
    await console.browser.until(ladder("sse"))
    stages = "[...document.querySelectorAll('.ladder [aria-current=step]')].map((one) => one.textContent)"
    assert await console.browser.run(f"seen.length === 1 && {stages}.join() === 'sse'")


async def test_what_the_guard_did_is_said_first_and_what_is_open_stays_open(console: Console) -> None:
    await console.tenant("guarded", "shadow")
    await console.sign_in(OPERATOR, "#health")
    await console.browser.run(
        """window.behind = async (path, init, answer) => {
          if (path.endsWith('/migration')) {
            const found = await answer.json();
            const from = {...found.record, stage: 'fallback', cohort: {percent: 10, allow: [], deny: []}};
            const why = 'too many abnormal closes \\u202e';
            const last = {...found.last, who: 'guard', action: 'step-back', from, why};
            return Response.json({...found, last});
          }
          if (!path.includes('/parity')) return null;
          const found = await answer.json();
          found.server.compared = window.compared = (window.compared ?? 0) + 1;
          const at = '2026-01-01T00:00:00Z';
          found.mismatches = ['ann', 'bob'].map((user) => ({
            at, source: 'server', user, mismatches: 1, compared: 2, differences: ['x']}));
          return Response.json(found);
        }; 0"""
    )
    await console.go("tenants/guarded")
    await console.says("The guard stepped back from fallback to shadow", "too many abnormal closes")
    await console.says("Rolling back leads to fallback for 10 % of the users")
    await console.browser.until("document.querySelectorAll('details').length === 2")
    await console.browser.run(
        "document.querySelectorAll('details')[1].open = true; window.then = compared; 0"
    )
    await console.browser.until("compared > then + 2")
    opened = "[...document.querySelectorAll('details')].map((one) => one.open).join()"
    assert await console.browser.run(opened) == "false,true"


async def test_pages_of_many_connections_are_turned_one_by_one(console: Console) -> None:
    await console.browser.call(
        "Page.addScriptToEvaluateOnNewDocument",
        source="""window.instead = async (path) => {
          const query = new URL(path, location.href).searchParams;
          if (!path.startsWith('/v1/connections?') || query.get('limit') === '1') return null;
          if (window.refusing) return new Response('{}', {status: 503});
          const [start, limit] = [Number(query.get('after')), Number(query.get('limit'))];
          const connections = Array.from({length: Math.min(limit, 5000 - start)}, (_, index) => ({
            user: `${query.get('user') ?? 'user'}-${start + index}`, transport: index % 2 ? 'sse' : 'ws',
            dialect: 'native', device: '', connected_at: '', node: 'n1', instance: null}));
          await new Promise((done) => setTimeout(done, query.get('user') === 'slow' ? 300 : 50));
          return Response.json({connections, next: start + limit < 5000 ? String(start + limit) : ''});
        };""",
    )
    await console.sign_in(ADMIN, "#connections")
    await console.says("user-0", "Page 1")
    await console.browser.on_page(lambda page: page.dblclick("text=Next"))
    await console.says("Page 2", "user-100")
    await console.press("Next")
    await console.says("Page 3", "user-200")
    await console.press("Back")
    await console.says("Page 2", "user-100")
    await console.press("Count all")
    await console.says("5,000 connections on 1 nodes")
    await console.set("#user", "slow")
    await console.press("Show")
    await console.set("#user", "quick")
    await console.press("Show")
    await console.says("quick-0")
    await console.browser.run("new Promise((done) => setTimeout(done, 400))")
    assert not await console.browser.run("document.body.textContent.includes('slow-0')")
    await console.browser.run("window.refusing = true; 0")
    await console.press("Next")
    await console.says("The server answered 503")
    await console.browser.run("window.refusing = false; 0")
    await console.press("Load again")
    await console.says("quick-100", "Page 2")


async def test_a_thousand_tenants_come_page_by_page_and_none_is_lost_by_an_error(console: Console) -> None:
    await console.browser.call(
        "Page.addScriptToEvaluateOnNewDocument",
        source="""window.instead = async (path) => {
          const query = new URL(path, location.href).searchParams;
          if (!path.startsWith('/v1/tenants?') || query.get('limit') === '1') return null;
          const start = Number(query.get('after'));
          if (start === 300 && !window.failed) {
            window.failed = true;
            return new Response('{}', {status: 503});
          }
          const tenants = Array.from({length: 100}, (_, index) => ({
            id: `t-${start + index}`, stage: 'sse', percent: 100, version: 1, keys: []}));
          return Response.json({tenants, next: start < 900 ? String(start + 100) : ''});
        };""",
    )
    await console.sign_in(OPERATOR, "#tenants")
    rows = "document.querySelectorAll('tbody tr').length"
    for shown in range(100, 400, 100):
        await console.browser.until(f"{rows} === {shown}")
        await console.press("More tenants")
    await console.says("The server answered 503")
    assert await console.browser.run(rows) == 300
    for shown in range(400, 1100, 100):
        assert await console.browser.run("document.activeElement.textContent") == "More tenants"
        await console.press("More tenants")
        await console.browser.until(f"{rows} === {shown}")
    await console.browser.until(
        "![...document.querySelectorAll('button')].some((one) => one.textContent === 'More tenants')"
    )


async def test_a_clock_that_is_ahead_signs_nobody_out(console: Console) -> None:
    await console.browser.call(
        "Page.addScriptToEvaluateOnNewDocument",
        source="const now = Date.now; Date.now = () => now() + 7_200_000;",
    )
    mine = token("ahead", roles=["admin"])
    await console.sign_in(mine)
    await console.browser.until(LIVE)
    await console.rest("DELETE", "/v1/connections?user=ahead&revoke=false", ADMIN)
    reconnects = "[...document.querySelectorAll('dt')].find((one) => one.textContent === 'Reconnects')"
    await console.browser.until(f"{reconnects}?.nextSibling.textContent === '1' && {LIVE}")
    assert await console.browser.run("document.getElementById('sign-in').hidden")


async def test_a_channel_that_is_refused_signs_nobody_out_and_ends_nothing(console: Console) -> None:
    """The server has forgotten a grant: that is no matter of the token, nor of the connection."""
    await console.browser.call(
        "Page.addScriptToEvaluateOnNewDocument",
        source="const Real = WebSocket; window.WebSocket = class extends Real"
        " { constructor(...given) { super(...given); window.line = this; } };",
    )
    mine = token("bob")
    await console.sign_in(mine)
    await console.browser.until(LIVE)
    await console.browser.run("line.onclose({ code: 4009, reason: 'replaced' }); line.close(); 0")
    await console.says("stopped: replaced (4009)")
    await console.press("Connect again")
    await console.browser.until(LIVE)
    grant = {"owner": "bob"}
    done = await console.rest("PUT", "/v1/channels/topic%3Ax/grants", ADMIN, grant, **ANY)
    assert done.status_code in (200, 201), done.text
    await console.set("#channel", "topic:x")
    await console.press("Listen")
    await console.browser.until("document.querySelector('.chips li')")
    console.server.kill()
    console.server.launch()
    await console.server.ready()
    await console.says("The server took away topic:x")
    await console.browser.until(LIVE)
    assert await console.browser.run("document.querySelectorAll('.chips li').length") == 0
    assert await console.browser.run("document.getElementById('sign-in').hidden")
