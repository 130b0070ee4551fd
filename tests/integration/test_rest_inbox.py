"""The inbox over REST: from a publish to what a user sees, marks and deletes."""

from __future__ import annotations

from typing import Any
from urllib.parse import quote

import httpx
import pytest

from dualcast.inbox.service import InboxService
from dualcast.model.publication import Audience
from support.rest_app import Rest, admin, auth, problem, publisher, rest

pytestmark = pytest.mark.anyio
ALICE = "/v1/users/alice/notifications"


async def note(app: Rest, to: dict[str, Any], ident: str, tenant: str = "default", **more: Any) -> None:
    body = {"to": to, "title": "T " + ident, "id": ident, **more}
    answer = await app.client.post("/v1/notifications", headers=publisher(tenant), json=body)
    assert answer.status_code == 201, answer.text


async def three(app: Rest) -> None:
    await note(app, {"user": "alice"}, "n1", type="alert", data={"a": 1})
    await note(app, {"all": True}, "n2")
    await note(app, {"users": ["alice", "bob"]}, "n3", content="c")


async def seen_by(app: Rest, user: str = "alice", **params: Any) -> list[str]:
    answer = await app.client.get(f"/v1/users/{user}/notifications", headers=auth(user), params=params)
    assert answer.status_code == 200, answer.text
    return [f"{item['id']}:{item['state']}" for item in answer.json()["notifications"]]


async def test_what_was_published_is_listed() -> None:
    async with rest() as app:
        await three(app)
        answer = (await app.client.get(ALICE, headers=auth("alice"))).json()
        last, wide, first = answer["notifications"]
        assert (answer["unread"], answer["unseen"], answer["next"]) == (3, 3, "")
        assert first["created_at"].endswith("Z") and first["expires_at"] is None
        for made in (first, wide, last):
            del made["created_at"], made["expires_at"]
        assert first == {
            "id": "n1",
            "type": "alert",
            "title": "T n1",
            "content": None,
            "link": None,
            "level": "info",
            "source": None,
            "priority": "normal",
            "status": "unread",
            "data": {"a": 1},
            "state": "unseen",
            "scope": "user",
        }
        assert (wide["id"], wide["scope"], last["content"]) == ("n2", "tenant", "c")
        assert await seen_by(app, "bob") == ["n3:unseen", "n2:unseen"]


async def test_pages_and_filters() -> None:
    async with rest() as app:
        for number in range(5):
            await note(app, {"user": "alice"}, f"n{number}", type="alert" if number % 2 else "system")
        seen, before = [], ""
        while True:
            params = {"limit": 2, "before": before}
            page = (await app.client.get(ALICE, headers=auth("alice"), params=params)).json()
            seen += [item["id"] for item in page["notifications"]]
            before = page["next"]
            if not before:
                break
        assert seen == ["n4", "n3", "n2", "n1", "n0"]
        await app.client.post(ALICE + "/read", headers=auth("alice"), json={"ids": ["n0", "n1"]})
        await app.client.post(ALICE + "/n2/seen", headers=auth("alice"))
        assert await seen_by(app, state="read") == ["n1:read", "n0:read"]
        assert await seen_by(app, state=["read", "seen"]) == ["n2:seen", "n1:read", "n0:read"]
        assert await seen_by(app, type="alert") == ["n3:unseen", "n1:read"]
        assert await seen_by(app, type="alert", state="read") == ["n1:read"]
        count = await app.client.get("/v1/users/alice/unread-count", headers=auth("alice"))
        assert count.json().items() >= {"unread": 3, "unseen": 2}.items() and "kinds" not in count.json()
        count = await app.client.get("/v1/users/alice/unread-count?kinds=true", headers=auth("alice"))
        assert count.json()["kinds"] == {"alert": 1, "system": 2}


async def test_counters_and_those_by_type_are_of_one_moment(monkeypatch: pytest.MonkeyPatch) -> None:
    """What comes in between two readings would make one contradict the other."""
    async with rest() as app:
        await three(app)
        monkeypatch.delattr(InboxService, "counts")
        answer = await app.client.get("/v1/users/alice/unread-count?kinds=true", headers=auth("alice"))
        counted = answer.json()
        assert counted["unread"] == sum(counted["kinds"].values()) == 3


async def test_every_state_by_one_and_by_many() -> None:
    async with rest() as app:
        await three(app)
        for verb, state in (("seen", "seen"), ("read", "read"), ("unread", "seen"), ("archive", "archived")):
            one = await app.client.post(f"{ALICE}/n1/{verb}", headers=auth("alice"))
            assert one.status_code == 200 and one.json()["changed"] == ["n1"], one.text
            again = await app.client.post(f"{ALICE}/n1/{verb}", headers=auth("alice"))
            assert again.status_code == 200 and again.json()["changed"] == []
            many = await app.client.post(f"{ALICE}/{verb}", headers=auth("alice"), json={"ids": ["n2", "x"]})
            assert many.json()["changed"] == ["n2"] and many.json()["unknown"] == ["x"]
            assert await seen_by(app) == ["n3:unseen", f"n2:{state}", f"n1:{state}"]
            listed = (await app.client.get(ALICE, headers=auth("alice"))).json()["notifications"]
            status = "read" if state in ("read", "archived") else "unread"
            assert [item["status"] for item in listed] == ["unread", status, status]
        done = (await app.client.post(ALICE + "/read", headers=auth("alice"), json={"all": True})).json()
        assert (done["changed"], done["count"], done["unread"], done["unseen"]) == (["n3"], 1, 0, 0)
        assert await seen_by(app, "bob") == ["n3:unseen", "n2:unseen"]


async def test_deleting() -> None:
    async with rest() as app:
        await three(app)
        assert (await app.client.delete(ALICE + "/n2", headers=auth("alice"))).json()["changed"] == ["n2"]
        problem(await app.client.delete(ALICE + "/n2", headers=auth("alice")), 404, "unknown-notification")
        await app.client.post(ALICE + "/n1/read", headers=auth("alice"))
        await app.client.post(ALICE + "/n3/archive", headers=auth("alice"))
        gone = await app.client.delete(ALICE + "?state=read", headers=auth("alice"))
        assert gone.json()["changed"] == ["n1"] and await seen_by(app) == ["n3:archived"]
        assert (await app.client.delete(ALICE + "?state=archived", headers=auth("alice"))).json()[
            "count"
        ] == 1
        assert (await app.client.delete(ALICE + "?state=all", headers=auth("alice"))).json()["count"] == 0
        assert await seen_by(app, "bob") == ["n3:unseen", "n2:unseen"]
        problem(await app.client.delete(ALICE, headers=auth("alice")), 422, "invalid-query")
        problem(await app.client.delete(ALICE + "?state=x", headers=auth("alice")), 422, "invalid-query")


async def test_a_tenant_wide_one_is_taken_back() -> None:
    async with rest() as app:
        await three(app)
        problem(await app.client.delete("/v1/notifications/n2", headers=auth("alice")), 403, "publisher-only")
        other = await app.client.delete("/v1/notifications/n2", headers=publisher("other"))
        problem(other, 404, "unknown-notification")
        personal = await app.client.delete("/v1/notifications/n1", headers=publisher())
        problem(personal, 404, "unknown-notification")
        assert (await app.client.delete("/v1/notifications/n2", headers=publisher())).status_code == 204
        assert await seen_by(app) == ["n3:unseen", "n1:unseen"]
        assert await seen_by(app, "carol") == []
        told = (await app.appended("all"))[-1].publication
        revision = (await app.client.get("/v1/users/bob/unread-count", headers=auth("bob"))).json()[
            "revision"
        ][1]
        assert told.type == "inbox"
        assert told.data == b'{"action":"withdrawn","ids":["n2"],"tenant_revision":%d}' % revision


async def test_changes_are_told_to_the_users_devices() -> None:
    async with rest() as app:
        await three(app)
        answer = (await app.client.post(ALICE + "/n1/read", headers=auth("alice"))).json()
        await app.client.post(ALICE + "/n1/read", headers=auth("alice"))
        await app.client.post(ALICE + "/seen", headers=auth("alice"), json={"all": True})
        await app.client.delete(ALICE + "/n3", headers=auth("alice"))
        told = [entry.publication for entry in await app.appended("user:alice")][2:]
        assert [publication.type for publication in told] == ["inbox"] * 3, "one per change, none for nothing"
        user, tenant = answer["revision"]
        first, second, third = (publication.data.decode() for publication in told)
        assert first == (
            f'{{"action":"read","ids":["n1"],"unread":2,"unseen":2,"revision":[{user},{tenant}]}}'
        )
        assert second.startswith('{"action":"seen","ids":null,"unread":2,"unseen":0,')
        assert third.startswith('{"action":"deleted","ids":["n3"],"unread":1,"unseen":0,')
        assert [entry.publication.type for entry in await app.appended("user:bob")] == ["notification"]
        await app.services.inbox.mark("default", "alice", "read", None, by_connection="c1")
        last = (await app.appended("user:alice"))[-1].publication
        assert last.audience == Audience(exclude_connections=("c1",))


async def test_only_the_own_inbox() -> None:
    async with rest() as app:
        await three(app)
        bob, mallory = auth("bob"), auth("alice", tenant="other")
        body = {"all": True}

        async def all_ways(headers: dict[str, str]) -> list[httpx.Response]:
            client = app.client
            return [
                await client.get(ALICE, headers=headers),
                await client.get("/v1/users/alice/unread-count", headers=headers),
                await client.post(ALICE + "/read", headers=headers, json=body),
                await client.post(ALICE + "/n1/read", headers=headers),
                await client.delete(ALICE + "/n1", headers=headers),
                await client.delete(ALICE + "?state=all", headers=headers),
            ]

        for answer in await all_ways(bob):
            problem(answer, 403, "publisher-only")
        for answer in await all_ways({}):
            problem(answer, 401, "unauthorized")
        # The same user id in another tenant is somebody else.
        listed, counted, marked, one, deleted, emptied = await all_ways(mallory)
        assert listed.json()["notifications"] == [] and counted.json()["unread"] == 0
        assert marked.json()["count"] == 0 and emptied.json()["count"] == 0
        problem(one, 404, "unknown-notification")
        problem(deleted, 404, "unknown-notification")
        assert await seen_by(app) == ["n3:unseen", "n2:unseen", "n1:unseen"]
        for backend in (publisher(), admin()):
            assert len((await app.client.get(ALICE, headers=backend)).json()["notifications"]) == 3


async def test_foreign_gone_and_never_there_look_the_same() -> None:
    async with rest() as app:
        await note(app, {"user": "bob"}, "bobs")
        await note(app, {"user": "alice"}, "mine")
        await app.client.delete(ALICE + "/mine", headers=auth("alice"))
        answers = [
            (await app.client.post(f"{ALICE}/{ident}/read", headers=auth("alice")))
            for ident in ("bobs", "mine", "never", "x" * 129, "%ff", "%00")
        ]
        for answer in answers:
            problem(answer, 404, "unknown-notification")
        assert len({answer.text for answer in answers}) == 1
        problem(await app.client.post(f"{ALICE}/mine/eat", headers=auth("alice")), 404, "not-found")


async def test_bad_requests_are_refused_in_words() -> None:
    async with rest() as app:
        await three(app)
        mine = auth("alice")
        page = (await app.client.get(ALICE + "?limit=1", headers=mine)).json()
        stolen = await app.client.get(
            "/v1/users/bob/notifications", headers=auth("bob"), params={"before": page["next"]}
        )
        problem(stolen, 422, "bad-cursor")
        for cursor in ("x", "0-00000000", page["next"] + "0", "1" * 30, "٣-00000000"):
            answer = await app.client.get(ALICE, headers=mine, params={"before": cursor})
            problem(answer, 422, "bad-cursor")
        for query in ("limit=0", "limit=101", "limit=x", "state=gone", "before=" + "1" * 65, "type="):
            problem(await app.client.get(f"{ALICE}?{query}", headers=mine), 422, "invalid-query")
        many = "&".join(f"type=t{number}" for number in range(21))
        problem(await app.client.get(f"{ALICE}?{many}", headers=mine), 413, "limit-exceeded")
        for body in ({}, {"ids": ["n1"], "all": True}):
            problem(await app.client.post(ALICE + "/read", headers=mine, json=body), 400, "bad-target")
        for body in ({"all": False}, {"ids": [""]}, {"ids": ["x"] * 501}, {"ids": [1]}, {"id": "n1"}, []):
            problem(await app.client.post(ALICE + "/read", headers=mine, json=body), 422, "invalid-body")
        empty = await app.client.post(ALICE + "/read", headers=mine, json={"ids": []})
        assert empty.status_code == 200 and empty.json()["changed"] == []
        assert await seen_by(app) == ["n3:unseen", "n2:unseen", "n1:unseen"]


async def listed_for(app: Rest, user: str) -> list[str]:
    await note(app, {"user": user}, "n1")
    path = f"/v1/users/{quote(user, safe='')}/notifications"
    answer = await app.client.get(path, headers=publisher())
    assert answer.status_code == 200, answer.text
    return [item["id"] for item in answer.json()["notifications"]]


async def test_user_ids_are_percent_decoded() -> None:
    async with rest() as app:
        assert await listed_for(app, "jörg müller@example.com") == ["n1"]


@pytest.mark.parametrize("user", ["a/b", "100%25", "a?b"])
async def test_user_ids_may_hold_what_urls_reserve(user: str) -> None:
    async with rest() as app:
        assert await listed_for(app, user) == ["n1"]
        problem(await app.client.get("/v1/users/%ff/notifications", headers=publisher()), 422, "bad-channel")


async def test_the_document_describes_it() -> None:
    async with rest() as app:
        document = (await app.client.get("/docs/openapi.json")).json()
        for path, method in (
            ("/v1/users/{user}/notifications", "get"),
            ("/v1/users/{user}/notifications/archive", "post"),
            ("/v1/users/{user}/notifications/{notification}/{verb}", "post"),
            ("/v1/users/{user}/unread-count", "get"),
            ("/v1/notifications/{notification}", "delete"),
        ):
            assert document["paths"][path][method]["tags"] == ["inbox"]
