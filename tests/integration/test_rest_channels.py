"""History, grants, connections, revocations, tickets over REST."""

from __future__ import annotations

from urllib.parse import quote

import pytest

from dualcast.bus.port import Retention
from dualcast.gateway.commands import SPACE, read_close
from dualcast.gateway.services import ConnectionInfo
from support.rest_app import admin, auth, code, publish, publisher, rest

pytestmark = pytest.mark.anyio


async def test_history_pages_by_cursor() -> None:
    async with rest() as app:
        for number in range(7):
            await publish(app, "topic:a/b", number)
            await publish(app, "topic:other", number)
        path = f"/v1/channels/{quote('topic:a/b', safe='')}/history"
        headers = auth("alice", channels=["topic:*"])
        seen, after = [], ""
        while True:
            answer = await app.client.get(path, headers=headers, params={"limit": 3, "after": after})
            page = answer.json()
            assert answer.status_code == 200 and page["channel"] == "topic:a/b" and page["gaps"] == []
            seen += [entry["data"] for entry in page["publications"]]
            after = page["next"]
            if not page["more"]:
                break
        assert seen == list(range(7))
        assert code(await app.client.get(path, headers=auth("alice"))) == "forbidden"
        grant = await app.client.post(
            path.replace("history", "grants"), headers=publisher(), json={"add": ["alice"]}
        )
        assert grant.json() == {
            "channel": "topic:a/b",
            "owner": "",
            "members": ["alice"],
            "version": grant.json()["version"],
        }
        assert (await app.client.get(path, headers=auth("alice"))).status_code == 200


async def test_history_says_what_is_gone() -> None:
    async with rest(retention=Retention(entries=2)) as app:
        first = await publish(app, "topic:x", 0)
        for number in range(1, 5):
            await publish(app, "topic:x", number)
        path = "/v1/channels/topic:x/history"
        page = (await app.client.get(path, headers=admin(), params={"after": first})).json()
        assert [entry["data"] for entry in page["publications"]] == [3, 4]
        (gap,) = page["gaps"]
        assert (gap["reason"], gap["after"], gap["oldest"]) == (
            "trimmed",
            first,
            page["publications"][0]["cursor"],
        )
        epoch = first.partition("-")[0]
        for cursor in (f"{epoch}-999", "zzzz-1"):
            page = (await app.client.get(path, headers=admin(), params={"after": cursor})).json()
            assert page["gaps"][0]["reason"] == "unknown"
            assert [entry["data"] for entry in page["publications"]] == [3, 4]


async def test_grants_by_version() -> None:
    async with rest() as app:
        path = "/v1/channels/room:r/grants"
        first = await app.client.put(
            path, headers=publisher(), params={"version": 0}, json={"owner": "o", "members": ["b", "a"]}
        )
        assert first.json()["members"] == ["a", "b"]
        again = await app.client.put(path, headers=publisher(), params={"version": 0}, json={})
        assert (again.status_code, code(again)) == (409, "version-conflict")
        assert (await app.client.delete(path, headers=publisher())).status_code == 204
        assert (await app.client.get(path, headers=publisher())).json()["owner"] == ""


async def test_connections_and_revocation() -> None:
    async with rest() as app:
        rows = [
            ConnectionInfo(
                id=f"c{n}",
                user="alice" if n % 2 else "bob",
                transport="sse",
                dialect="native",
                channels=("user:alice",),
                connected_at="x",
            )
            for n in range(5)
        ]
        app.directory.rows["default"] = rows
        for row in rows:
            await app.connect(row.id, row.user)
        page = (await app.client.get("/v1/connections?limit=2", headers=admin())).json()
        assert [row["id"] for row in page["connections"]] == ["c0", "c1"] and page["next"] == "c1"
        own = (await app.client.get("/v1/connections", headers=auth("alice"))).json()
        assert [row["id"] for row in own["connections"]] == ["c1", "c3"]
        assert code(await app.client.get("/v1/connections?user=bob", headers=auth("alice"))) == "admin-only"
        alice = auth("alice", jti="t1")
        assert (await app.client.get("/v1/connections", headers=alice)).status_code == 200
        gone = await app.client.delete("/v1/connections?token_id=t1", headers=admin())
        assert (gone.status_code, gone.json()["revoked"]) == (202, True)
        assert (await app.client.get("/v1/connections", headers=alice)).status_code == 401
        fresh = auth("alice", jti="t2")
        assert (await app.client.get("/v1/connections", headers=fresh)).status_code == 200
        assert (
            await app.client.put("/v1/revocations", headers=admin(), json={"user": "alice"})
        ).status_code == 202
        assert (await app.client.get("/v1/connections", headers=fresh)).status_code == 401
        assert code(await app.client.delete("/v1/connections", headers=admin())) == "bad-target"
        both = await app.client.put("/v1/revocations", headers=admin(), json={"user": "a", "token_id": "b"})
        assert code(both) == "bad-target"
        commands = [await read_close(app.state, value.key) for value in await app.state.list(SPACE)]
        assert [(c.user, c.token_id) for c in commands if c] == [("", "t1"), ("alice", "")]


async def test_tickets() -> None:
    async with rest() as app:
        answer = await app.client.post("/v1/tickets", headers=auth("alice"), json={"transport": "sse"})
        assert answer.status_code == 201
        assert answer.json()["ticket"].startswith("s.")
        assert answer.headers.get("cache-control") == "no-store"
        other = await app.client.post("/v1/tickets", headers=auth("alice"), json={"transport": "tcp"})
        assert other.status_code == 422


async def test_revocations_are_listed_and_taken_back() -> None:
    async with rest() as app:
        alice = auth("alice", jti="t1")
        for name in ("t1", "t2"):
            put = await app.client.put("/v1/revocations", headers=admin(), json={"token_id": name})
            assert put.status_code == 202
        await app.client.put("/v1/revocations", headers=admin("other"), json={"user": "alice"})
        page = (await app.client.get("/v1/revocations?limit=1", headers=admin())).json()
        assert [row["token_id"] for row in page["revocations"]] == ["t1"] and page["next"] == "t1"
        page = (await app.client.get("/v1/revocations?after=t1", headers=admin())).json()
        assert [row["token_id"] for row in page["revocations"]] == ["t2"] and page["next"] == ""
        users = (await app.client.get("/v1/revocations?kind=user", headers=admin())).json()
        assert users["revocations"] == []
        assert (await app.client.get("/v1/connections", headers=alice)).status_code == 401
        foreign = await app.client.delete("/v1/revocations?token_id=t1", headers=admin("other"))
        assert (foreign.status_code, code(foreign)) == (404, "not-found")
        assert (await app.client.delete("/v1/revocations?token_id=t1", headers=admin())).status_code == 204
        assert (await app.client.get("/v1/connections", headers=alice)).status_code == 200
