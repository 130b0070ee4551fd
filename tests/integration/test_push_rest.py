"""`/v1/push`: the queue and its dead letters, for administrators of a tenant."""

from __future__ import annotations

import secrets
from typing import Any

import pytest

from dualcast.model.inbox import PushRider
from dualcast.model.push import PushMessage, encode_push
from support.bus_engines import draft
from support.rest_app import Rest, admin, auth, problem, publisher, rest

pytestmark = pytest.mark.anyio


async def dead_push(app: Rest, user: str, *, tenant: str = "default", reason: str = "http-410") -> str:
    """A dead letter; gives the publication's id."""
    ident = secrets.token_hex(4)
    message = encode_push(PushMessage(id=ident, title="Hello " + user))
    await app.services.bus.append(draft(tenant, f"user:{user}", id=ident, push=PushRider((user,), message)))
    queue: Any = app.services.push._queue
    for job in (await queue.claim(tenant, 10, 60.0, secrets.token_hex(8))).jobs:
        await queue.bury(job, reason, "why")
    return ident


async def test_the_overview_says_what_waits_and_what_was() -> None:
    async with rest() as app:
        answer = await app.client.get("/v1/push", headers=admin())
        totals = {"queued": 0, "skipped": 0, "sent": 0, "retried": 0, "dead": 0}
        empty = {"provider": "log", "queued": 0, "oldest_age_s": 0.0, "dead": 0, "totals": totals}
        assert (answer.status_code, answer.json()) == (200, empty)
        await dead_push(app, "alice")
        message = encode_push(PushMessage(id="n2", title="x"))
        await app.services.bus.append(
            draft("default", "user:bob", id="n2", push=PushRider(("bob", "carol"), message))
        )
        found = (await app.client.get("/v1/push", headers=admin())).json()
        assert found.pop("oldest_age_s") >= 0
        assert found == {
            "provider": "log",
            "queued": 2,
            "dead": 1,
            "totals": {**totals, "queued": 3, "dead": 1},
        }


async def test_dead_pushes_are_listed_in_pages() -> None:
    async with rest() as app:
        idents = [await dead_push(app, f"u{n}") for n in range(3)]
        page = (await app.client.get("/v1/push/dead?limit=2", headers=admin())).json()
        assert [one["id"] for one in page["dead"]] == idents[:2]
        first = page["dead"][0]
        assert {first.pop(name) > 0 for name in ("number", "queued_at", "dead_at")} == {True}
        assert first == {
            "id": idents[0],
            "user": "u0",
            "title": "Hello u0",
            "reason": "http-410",
            "error": "why",
            "attempts": 1,
        }
        rest_of_it = (
            await app.client.get(f"/v1/push/dead?limit=2&after={page['next']}", headers=admin())
        ).json()
        assert [one["id"] for one in rest_of_it["dead"]] == idents[2:]
        assert rest_of_it["next"] == 0


async def test_a_dead_push_is_sent_again_or_forgotten() -> None:
    async with rest() as app:
        await dead_push(app, "alice")
        await dead_push(app, "bob")
        numbers = [
            one["number"] for one in (await app.client.get("/v1/push/dead", headers=admin())).json()["dead"]
        ]
        again = f"/v1/push/dead/{numbers[0]}/retry"
        answer = await app.client.post(again, headers=admin())
        assert (answer.status_code, answer.content) in ((202, b""), (202, b"null"))
        problem(await app.client.post(again, headers=admin()), 404, "not-found")
        gone = f"/v1/push/dead/{numbers[1]}"
        assert (await app.client.delete(gone, headers=admin())).status_code == 204
        problem(await app.client.delete(gone, headers=admin()), 404, "not-found")
        found = (await app.client.get("/v1/push", headers=admin())).json()
        assert (found["queued"], found["dead"]) == (1, 0)


async def test_tenants_do_not_see_each_other() -> None:
    async with rest() as app:
        await dead_push(app, "alice", tenant="other")
        (letter,) = (await app.client.get("/v1/push/dead", headers=admin("other"))).json()["dead"]
        mine = admin()
        assert (await app.client.get("/v1/push/dead", headers=mine)).json() == {"dead": [], "next": 0}
        assert (await app.client.get("/v1/push", headers=mine)).json()["dead"] == 0
        path = f"/v1/push/dead/{letter['number']}"
        problem(await app.client.delete(path, headers=mine), 404, "not-found")
        problem(await app.client.post(path + "/retry", headers=mine), 404, "not-found")
        assert (await app.client.delete(path, headers=admin("other"))).status_code == 204


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", "/v1/push"),
        ("GET", "/v1/push/dead"),
        ("POST", "/v1/push/dead/1/retry"),
        ("DELETE", "/v1/push/dead/1"),
    ],
)
async def test_only_administrators_may(method: str, path: str) -> None:
    async with rest() as app:
        problem(await app.client.request(method, path), 401, "unauthorized")
        for headers in (auth("alice"), publisher()):
            problem(await app.client.request(method, path, headers=headers), 403, "admin-only")


@pytest.mark.parametrize("path", ["?after=-1", "?limit=0", "?limit=1001", "?after=x", f"?after={2**53 + 1}"])
async def test_a_bad_page_is_the_callers_error(path: str) -> None:
    async with rest() as app:
        problem(await app.client.get("/v1/push/dead" + path, headers=admin()), 422, "invalid-query")


@pytest.mark.parametrize("number", ["0", "-1", "99", str(2**53), str(2**53 + 1), str(10**40)])
async def test_a_number_that_is_none_is_not_found(number: str) -> None:
    async with rest() as app:
        problem(await app.client.delete(f"/v1/push/dead/{number}", headers=admin()), 404, "not-found")
        problem(await app.client.post(f"/v1/push/dead/{number}/retry", headers=admin()), 404, "not-found")


async def test_a_number_must_be_one() -> None:
    async with rest() as app:
        answer = await app.client.delete("/v1/push/dead/x", headers=admin())
        assert 400 <= answer.status_code < 500
