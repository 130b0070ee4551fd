"""The console of operators and admins in a real Chromium, on a real server.

`DUALCAST_TEST_SHOTS=folder` keeps pictures.
"""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Iterator

import httpx
import pytest

from support.chromium import Chromium
from support.console_page import ADMIN, ANY, OPERATOR, Console, console_server
from support.server_process import ServerProcess, token

pytestmark = pytest.mark.anyio

EVIL = "<img src=x onerror=\"window.evil='yes'\"><script>window.evil='yes'</script>"


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    with console_server(tmp_path_factory.mktemp("console")) as server:
        yield server


@pytest.fixture
async def console(server: ServerProcess) -> AsyncIterator[Console]:
    async with Chromium() as browser:
        yield Console(browser, server)
        assert browser.console == [], "nothing may complain"
        assert not await browser.run("window.evil")


USER = token("bob")
STAGE = (
    "[...document.querySelectorAll('dt')].find((one) => one.textContent === 'Stage')?.nextSibling.textContent"
)


async def test_an_operator_sees_every_tenant_and_moves_one_with_a_reason(console: Console) -> None:
    await console.tenant("acme", "sse", f"test {EVIL}")
    await console.sign_in(OPERATOR, "#tenants")
    await console.says("root · operator")
    await console.browser.until("document.querySelector('a[href=\"#tenants/acme\"]')")
    await console.go("tenants/acme")
    await console.press("Step forward to shadow")
    await console.says("Change acme")
    await console.press("Review")
    assert await console.browser.run("document.activeElement.id") == "why", "a reason is asked for"
    await console.set("#why", f"because {EVIL}")
    await console.press("Review")
    await console.browser.until(
        "document.querySelector('.review')?.textContent.includes('stage: sse → shadow')"
    )
    await console.shot("console-dialog.png")
    assert (await console.rest("GET", "/v1/tenants/acme", OPERATOR)).json()["stage"] == "sse", "not yet"
    await console.press("Change it")
    await console.browser.until("!document.querySelector('dialog')")
    await console.browser.until(
        "document.querySelector('.ladder [aria-current=step]')?.textContent === 'shadow'"
    )
    await console.says("stage: sse → shadow", f"because {EVIL}", "default/root", "Not ready for fallback")
    await console.says("too-few-compared", "Nobody has connected in 30 days.", "No mismatch was recorded.")

    await console.press("Roll back the last change")
    await console.says("Undoes #2 of default/root")
    await console.set("#why", "back")
    await console.press("Review")
    await console.press("Change it")
    await console.browser.until(
        "document.querySelector('.ladder [aria-current=step]')?.textContent === 'sse'"
    )
    view = (await console.rest("GET", "/v1/tenants/acme/audit", OPERATOR)).json()["entries"]
    assert [(one["who"], one["why"]) for one in view[:2]] == [
        ("default/root", "back"),
        ("default/root", f"because {EVIL}"),
    ]


async def test_everything_of_a_record_can_be_changed_and_nothing_else_is(console: Console) -> None:
    await console.tenant("whole", "fallback")
    before = (await console.rest("GET", "/v1/tenants/whole/migration", OPERATOR)).json()["record"]
    body = {key: value for key, value in before.items() if key != "held_until"}
    body |= {"sunset_at": 2_000_000_017, "brownouts": [{"at": 1_999_000_031, "percent": 5}], "why": "seconds"}
    before = (await console.rest("PUT", "/v1/tenants/whole/migration", OPERATOR, body, **ANY)).json()[
        "record"
    ]
    await console.sign_in(OPERATOR, "#tenants/whole")
    await console.press("Change…")
    await console.set("[id$=-percent]", "12.5")
    await console.set("[id$=-allow]", "vip\n old|1 \n")
    await console.set("[id$=-lag_p99_ms]", "")
    await console.set("[id$=-window_s]", "")
    await console.set("#why", "a wider test")
    await console.press("Review")
    await console.browser.until("document.activeElement.id.endsWith('-window_s')")  # its part was opened
    await console.set("[id$=-window_s]", "30")
    await console.set("[id$=-deprecated]", "2030-01-02T03:04")
    await console.press("Review")
    await console.press("Change it")
    await console.browser.until("!document.querySelector('dialog')")
    after = (await console.rest("GET", "/v1/tenants/whole/migration", OPERATOR)).json()["record"]
    assert after == {
        **before,
        "cohort": {"percent": 12.5, "allow": ["vip", "old|1"], "deny": []},
        "budgets": {**before["budgets"], "lag_p99_ms": None, "window_s": 30},
        "deprecated_at": 1_893_553_440,
    }


async def test_who_looked_at_an_older_version_changes_nothing(console: Console) -> None:
    await console.tenant("busy", "fallback")
    await console.sign_in(OPERATOR, "#tenants/busy")
    await console.press("Step back to shadow")
    other = {"stage": "fallback", "cohort": {"percent": 50}, "why": "meanwhile"}
    done = await console.rest("PUT", "/v1/tenants/busy/migration", OPERATOR, other, **ANY)
    assert done.status_code == 200
    await console.set("#why", "too late")
    await console.press("Review")
    await console.press("Change it")
    await console.says("Somebody else has changed this tenant", "(412)")
    await console.shot("console-conflict.png")
    await console.press("Show what it is now")
    await console.says("50 % of the users")
    record = (await console.rest("GET", "/v1/tenants/busy/migration", OPERATOR)).json()["record"]
    assert record["stage"] == "fallback"


async def test_a_stage_change_from_the_console_reaches_another_page(console: Console) -> None:
    await console.sign_in(ADMIN, "#live")
    await console.browser.until("document.querySelector('.light')?.textContent === 'live'")
    other = await console.browser.tab()
    await other.open(f"{console.url}#live")
    await other.until("!document.getElementById('sign-in')?.hidden")
    await other.run(f"document.getElementById('token').value = {json.dumps(ADMIN)}")
    await other.run("document.querySelector('#sign-in button').click()")
    await other.until(f"{STAGE} === 'fallback'")

    await console.go("tenants")
    await console.browser.until(
        "document.querySelector('a[href=\"#tenants/default\"]')"
    )  # told by the welcome
    await console.go("tenants/default")
    await console.press("Change…")
    await console.set("[id$=-stage]", "sse")
    await console.set("#why", "test")
    await console.press("Review")
    await console.press("Change it")
    await other.until(f"{STAGE} === 'sse'")
    await console.rest("POST", "/v1/tenants/default/migration/rollback", ADMIN, {"why": "test"})
    await other.until(f"{STAGE} === 'fallback'")


async def test_events_come_as_text_and_can_be_paused_and_filtered(console: Console) -> None:
    await console.sign_in(ADMIN)
    await console.browser.until("document.querySelector('.light')?.textContent === 'live'")
    await console.set("#title", EVIL)
    await console.press("Send")
    await console.says("there and back", EVIL)
    lines = "[...document.querySelectorAll('.log li.publication span')].map((one) => one.textContent)"
    assert EVIL in await console.browser.run(lines)
    await console.shot("console-live.png")
    await console.press("Pause")
    await console.set("#title", "while paused")
    await console.press("Send")
    await console.says("Paused: ")
    await console.browser.until("!document.querySelector('#shown').textContent.includes('Paused: 0')")
    assert "while paused" not in await console.browser.run(lines)
    await console.press("Go on")
    await console.browser.until(f"{lines}.includes('while paused')")
    await console.set("#filter", "WHILE")
    await console.browser.until(f"{lines}.length === 1")
    await console.press("Clear")
    await console.browser.until(f"{lines}.length === 0")
    await console.set("#filter", "")
    publish = {"to": {"user": "ada"}, "title": "many"}
    async with httpx.AsyncClient(
        base_url=console.server.base_url, headers={"authorization": f"Bearer {ADMIN}"}
    ) as http:
        for start in range(0, 600, 200):
            body = [{**publish, "title": f"many {start + number}"} for number in range(200)]
            assert (await http.post("/v1/notifications/batch", json=body)).status_code == 200
    await console.browser.until(f"{lines}.some((text) => text === 'many 599')")
    assert await console.browser.run("document.querySelectorAll('.log li').length") <= 500


async def test_who_connects_is_shown_as_text(console: Console) -> None:
    evil = token(EVIL)
    async with httpx.AsyncClient(base_url=console.server.base_url) as http:
        headers = {"authorization": f"Bearer {evil}", "user-agent": EVIL}
        async with http.stream("GET", "/v1/stream", params={"app": EVIL[:60]}, headers=headers) as stream:
            assert stream.status_code == 200
            await console.sign_in(ADMIN, "#connections")
            await console.says(EVIL)
            await console.press("Count all")
            await console.says("connections on 1 nodes: sse ")
            await console.go("tenants/default")
            await console.says("Streams now", "stays on SSE")
            await console.browser.until(
                "[...document.querySelectorAll('td')].some((one) => one.textContent.includes('onerror'))"
            )
            await console.shot("console-tenant.png")
            await console.go("tenants/" + "%3Cimg%20src%3Dx%20onerror%3Dwindow.evil%3D1%3E")
            await console.says("Tenant <img src=x onerror=window.evil=1>")
            await console.go("health")
            await console.says(
                "ready", "engine memory", "Delivered", "Nodes that hold connections of your tenant1"
            )
            await console.shot("console-health.png")


async def test_a_plain_user_is_told_what_is_missing(console: Console) -> None:
    await console.sign_in(USER, "#tenants")
    await console.says("bob · user", "Your token has neither role")
    await console.go("tenants/default")
    await console.says("neither the role admin of this tenant nor operator")
    await console.go("connections")
    await console.says("Your token sees your own connections")
    await console.go("live")
    await console.press("Send")
    await console.says("Your token may not publish")
    await console.set("#channel", "topic:secret")
    await console.press("Listen")
    await console.says("The server refused it: forbidden-channel")
    await console.press("Sign out")
    await console.browser.until("!document.getElementById('sign-in').hidden")
    assert await console.browser.run("sessionStorage.length") == 0
    assert await console.browser.run("document.querySelectorAll('#view > *').length") == 0


async def test_an_admin_of_another_tenant_does_not_learn_whether_one_exists(console: Console) -> None:
    await console.tenant("secret", "sse")
    await console.sign_in(ADMIN, "#tenants/secret")
    await console.says("There is no such tenant, or it is not yours.")
    await console.go("tenants/nobody")
    await console.says("Tenant nobody", "There is no such tenant, or it is not yours.")


async def test_a_token_that_is_not_good_is_refused_in_words(console: Console) -> None:
    for given, said in (
        ("nonsense", "The server does not accept this token."),
        (token("root", roles=["operator"], secret="another secret that is long enough"), "does not accept"),
        (token("root", roles=["operator"], life_s=-3600), "The token has expired."),
        ("\u2028 ü", "The server does not accept this token."),
    ):
        await console.open()
        await console.type_token(given)
        await console.browser.until(
            f"document.getElementById('refused').textContent.includes({json.dumps(said)})"
        )
        assert await console.browser.run("sessionStorage.length") == 0


async def test_a_token_that_is_revoked_ends_the_session(console: Console) -> None:
    await console.sign_in(token("eve", roles=["admin"]))
    await console.browser.until("document.querySelector('.light')?.textContent === 'live'")
    done = await console.rest("DELETE", "/v1/connections?user=eve", ADMIN)
    assert done.status_code == 202
    await console.browser.until(
        "document.getElementById('refused').textContent.includes('does not accept this token')"
    )
    assert await console.browser.run("sessionStorage.length") == 0
    assert await console.browser.run("document.querySelectorAll('#view > *').length") == 0


async def test_a_reload_stays_signed_in_and_no_token_is_in_the_address(console: Console) -> None:
    await console.sign_in(ADMIN)
    await console.browser.reload()
    await console.says("ada · admin")
    await console.browser.run(f"location.hash = {json.dumps('#token=' + ADMIN)}")
    await console.browser.until("location.hash === '#live'")


async def test_it_fits_a_phone_in_light_and_dark(console: Console) -> None:
    await console.browser.viewport(360, 740)
    for scheme in ("light", "dark"):
        await console.browser.call(
            "Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": scheme}]
        )
        await console.open()
        await console.browser.until("!document.getElementById('sign-in')?.hidden")
        await console.fits()
        await console.shot(f"console-360-{scheme}-sign-in.png")
        await console.sign_in(ADMIN)
        await console.browser.until("document.querySelector('.light')?.textContent === 'live'")
        for view, said in (
            ("live", "Lag"),
            ("tenants/default", "Step back to shadow"),
            ("connections", "Page 1"),
            ("health", "Delivered"),
        ):
            await console.go(view)
            await console.says(said)
            await console.fits()
            await console.shot(f"console-360-{scheme}-{view.partition('/')[0]}.png")
        await console.go("tenants/default")
        await console.press("Change…")
        await console.fits()
        await console.shot(f"console-360-{scheme}-dialog.png")
        dialog = "document.querySelector('dialog')"
        assert await console.browser.run(f"{dialog}.scrollWidth <= {dialog}.clientWidth")
