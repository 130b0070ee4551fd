"""REST of presence, devices and connections: who may see what, and nobody another tenant's."""

from __future__ import annotations

from urllib.parse import quote

import pytest

from dualcast.gateway.services import ConnectionInfo
from support.rest_app import Rest, admin, auth, code, problem, publisher, rest

pytestmark = pytest.mark.anyio
LOBBY = "presence:lobby"
ROUTES = (
    ("GET", "/v1/presence"),
    ("GET", "/v1/presence?channel=presence:lobby"),
    ("GET", "/v1/presence/alice"),
    ("GET", "/v1/users/alice/devices"),
    ("PUT", "/v1/users/alice/devices/d1"),
    ("DELETE", "/v1/users/alice/devices/d1"),
    ("GET", "/v1/connections"),
    ("GET", "/v1/connections/c1"),
)


async def fill(app: Rest) -> None:
    await app.connect("c1", "alice", LOBBY, device="mobile", device_id="d1", instance="i1", token_id="t1")
    await app.connect("c2", "alice", device="web")
    await app.connect("c3", "bob", LOBBY)
    await app.connect("c4", "eve", LOBBY, tenant="other", device_id="d4")


async def test_every_route_wants_a_token() -> None:
    async with rest() as app:
        for method, path in ROUTES:
            problem(await app.client.request(method, path, json={}), 401, "unauthorized")


async def test_backends_see_who_is_online() -> None:
    async with rest() as app:
        await fill(app)
        page = (await app.client.get("/v1/presence?limit=1", headers=publisher())).json()
        assert (page["count"], page["members"], page["next"]) == (
            2,
            [{"user": "alice", "devices": ["mobile", "web"]}],
            "alice",
        )
        page = (await app.client.get("/v1/presence?after=alice", headers=admin())).json()
        assert ([one["user"] for one in page["members"]], page["next"]) == (["bob"], "")
        none = (await app.client.get("/v1/presence?limit=0", headers=admin())).json()
        assert (none["count"], none["members"], none["next"]) == (2, [], "")
        answer = await app.client.get("/v1/presence", headers=auth("alice"))
        problem(answer, 403, "publisher-only")
        answer = await app.client.get("/v1/presence?limit=1001", headers=admin())
        assert code(answer) == "invalid-query"


async def test_a_presence_channel_is_seen_by_whoever_may_subscribe() -> None:
    async with rest() as app:
        await fill(app)
        path = "/v1/presence?channel=presence:lobby"
        member = auth("carl", channels=["presence:*"])
        page = (await app.client.get(path, headers=member)).json()
        assert (page["channel"], page["count"]) == (LOBBY, 2)
        assert [one["user"] for one in page["members"]] == ["alice", "bob"] and page["revision"] > 0
        problem(await app.client.get(path, headers=auth("carl")), 403, "forbidden-channel")
        empty = (await app.client.get("/v1/presence?channel=presence:x", headers=member)).json()
        assert (empty["count"], empty["members"]) == (0, [])
        own = await app.client.get("/v1/presence?channel=user:carl", headers=member)
        problem(own, 422, "bad-channel")
        problem(await app.client.get("/v1/presence?channel=lobby", headers=member), 422, "bad-channel")


async def test_a_users_presence_is_for_the_user_and_backends() -> None:
    async with rest() as app:
        await fill(app)
        for caller in (auth("alice"), publisher(), admin()):
            assert (await app.client.get("/v1/presence/alice", headers=caller)).json() == {
                "user": "alice",
                "online": True,
                "devices": ["mobile", "web"],
                "connections": 2,
            }
        problem(await app.client.get("/v1/presence/alice", headers=auth("bob")), 403, "publisher-only")
        nobody = (await app.client.get("/v1/presence/nobody", headers=admin())).json()
        assert (nobody["online"], nobody["devices"], nobody["connections"]) == (False, [], 0)


async def test_devices_are_listed_named_and_forgotten() -> None:
    async with rest() as app:
        await fill(app)
        alice, path = auth("alice"), "/v1/users/alice/devices"
        (device,) = (await app.client.get(path, headers=alice)).json()["devices"]
        assert (device["id"], device["kind"], device["connected"]) == ("d1", "mobile", True)
        assert device["first_seen"] <= device["last_seen"] and device["last_seen"].endswith("Z")
        named = await app.client.put(f"{path}/d1", headers=alice, json={"name": "My phone"})
        assert (named.status_code, named.json()["name"], named.json()["kind"]) == (200, "My phone", "mobile")
        made = await app.client.put(f"{path}/d2", headers=publisher(), json={"name": "T", "kind": "tablet"})
        assert (made.status_code, made.json()["connected"]) == (200, False)
        assert (await app.client.delete(f"{path}/d2", headers=alice)).status_code == 204
        listed = (await app.client.get(path, headers=publisher())).json()["devices"]
        assert [row["name"] for row in listed] == ["My phone"]
        for method, body in (("PUT", {"name": "x"}), ("DELETE", None)):
            answer = await app.client.request(method, f"{path}/nope", headers=alice, json=body)
            problem(answer, 404, "unknown-device")
            answer = await app.client.request(method, f"{path}/d1", headers=auth("bob"), json=body)
            problem(answer, 403, "publisher-only")
        problem(await app.client.get(path, headers=auth("bob")), 403, "publisher-only")
        for ident, body, wrong in (
            ("x" * 129, {}, "bad-id"),
            ("a%0Ab", {}, "bad-id"),
            ("d1", {"kind": "phone"}, "bad-device"),
            ("d1", {"name": "a\nb"}, "bad-device"),
            ("d1", {"name": "x" * 129}, "invalid-body"),
            ("d1", {"nam": "x"}, "invalid-body"),
        ):
            assert code(await app.client.put(f"{path}/{ident}", headers=alice, json=body)) == wrong


async def test_connections_of_all_nodes_are_listed() -> None:
    async with rest() as app:
        await fill(app)
        app.directory.rows["default"] = [
            ConnectionInfo(
                id="c3",
                user="bob",
                transport="sse",
                dialect="native",
                channels=("user:bob",),
                connected_at="x",
                cursor="e-1",
                node="n1",
            )
        ]
        rows = (await app.client.get("/v1/connections", headers=admin())).json()["connections"]
        assert [(row["id"], row["node"], row.get("cursor", "")) for row in rows] == [
            ("c1", "n2", ""),
            ("c2", "n2", ""),
            ("c3", "n1", "e-1"),
        ]
        first = (await app.client.get("/v1/connections/c1", headers=auth("alice"))).json()
        assert first == rows[0]
        assert (first["device"], first["device_id"], first["instance"]) == ("mobile", "d1", "i1")
        assert (first["token_id"], first["transport"], first["channels"]) == ("t1", "ws", [])
        own = (await app.client.get("/v1/connections?limit=1", headers=auth("alice"))).json()
        assert ([row["id"] for row in own["connections"]], own["next"]) == (["c1"], "c1")
        for path, caller in (("c3", auth("alice")), ("c9", admin()), ("c1", publisher())):
            answer = await app.client.get(f"/v1/connections/{path}", headers=caller)
            problem(answer, 404, "unknown-connection")


async def test_no_route_shows_another_tenants_people() -> None:
    async with rest() as app:
        await fill(app)
        theirs = admin("other")
        page = (await app.client.get("/v1/presence", headers=theirs)).json()
        assert (page["count"], [one["user"] for one in page["members"]]) == (1, ["eve"])
        page = (await app.client.get("/v1/presence?channel=presence:lobby", headers=theirs)).json()
        assert [one["user"] for one in page["members"]] == ["eve"]
        alice = (await app.client.get("/v1/presence/alice", headers=theirs)).json()
        assert (alice["online"], alice["connections"]) == (False, 0)
        assert (await app.client.get("/v1/users/alice/devices", headers=theirs)).json()["devices"] == []
        for method in ("PUT", "DELETE"):
            answer = await app.client.request(
                method, "/v1/users/alice/devices/d1", headers=theirs, json={"name": "theirs"}
            )
            problem(answer, 404, "unknown-device")
        rows = (await app.client.get("/v1/connections", headers=theirs)).json()["connections"]
        assert [row["id"] for row in rows] == ["c4"]
        assert (await app.client.get("/v1/connections?user=alice", headers=theirs)).json()[
            "connections"
        ] == []
        problem(await app.client.get("/v1/connections/c1", headers=theirs), 404, "unknown-connection")
        (device,) = (await app.client.get("/v1/users/alice/devices", headers=admin())).json()["devices"]
        assert device["name"] == ""


async def test_ids_may_hold_anything_a_path_cannot() -> None:
    user, device = "a/b 50%|zoë", "x/y 1%2F"
    async with rest() as app:
        await app.connect("c1", user, device="web", device_id=device)
        path, one = quote(user, safe=""), quote(device, safe="")
        found = (await app.client.get(f"/v1/presence/{path}", headers=auth(user))).json()
        assert (found["user"], found["online"]) == (user, True)
        named = await app.client.put(
            f"/v1/users/{path}/devices/{one}", headers=auth(user), json={"name": "Web"}
        )
        assert (named.status_code, named.json()["id"]) == (200, device), named.text
        gone = await app.client.delete(f"/v1/users/{path}/devices/{one}", headers=auth(user))
        assert gone.status_code == 204
        for bad in ("%ff", "%00", "a%0Ab"):
            answer = await app.client.get(f"/v1/presence/{bad}", headers=admin())
            problem(answer, 422, "bad-channel")
