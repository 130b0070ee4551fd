"""Tenants over REST: who may do what, settings and quotas at runtime, keys that come and go; secrets stay."""

from __future__ import annotations

import asyncio
from typing import Any

import httpx
import pytest

from dualcast.gateway.services import GatewaySettings
from dualcast.tenancy.model import Secret, SigningKey, Tenant
from dualcast_migration.stage import Stage
from support.clients import open_socket
from support.node import Node, running_node
from support.rest_app import Rest, admin, auth, code, publisher, rest
from support.tokens import key, token

pytestmark = pytest.mark.anyio
TEXT = "s" * 31 + "!"
HS = {"algorithm": "HS256", "kid": "k1", "secret": TEXT}
RECORD = {"stage": "shadow", "why": "a test"}


def operator(tenant: str = "default") -> dict[str, str]:
    return auth("ops", "operator", tenant=tenant)


CALLS: list[tuple[str, str, Any, bool]] = [
    # method, path, body, whether the tenant's own admin may
    ("GET", "/v1/tenants", None, False),
    ("POST", "/v1/tenants", {"id": "new"}, False),
    ("GET", "/v1/tenants/other", None, True),
    ("PATCH", "/v1/tenants/other", {"settings": {"publish_burst": 3}}, False),
    ("POST", "/v1/tenants/other/keys", HS, False),
    ("DELETE", "/v1/tenants/other/keys?kid=k1", None, False),
    ("GET", "/v1/tenants/other/migration", None, True),
    ("PUT", "/v1/tenants/other/migration", RECORD, True),
    ("POST", "/v1/tenants/other/migration/rollback", {"why": "a test"}, True),
    ("GET", "/v1/tenants/other/audit", None, True),
]
NOBODY = {
    "a user": auth("alice", tenant="other"),
    "a publisher": publisher("other"),
    "a user of another tenant": auth("alice"),
    "a publisher of another tenant": publisher(),
    "an operator who is none": operator("other"),
}


async def call(app: Rest, method: str, path: str, body: Any, headers: dict[str, str]) -> httpx.Response:
    return await app.client.request(method, path, json=body, headers={**headers, "If-Match": "*"})


async def test_who_may_do_what() -> None:
    async with rest() as app:
        for method, path, body, own in CALLS:
            where = f"{method} {path}"
            assert (await call(app, method, path, body, {})).status_code == 401, where
            for who, headers in NOBODY.items():
                answer = await call(app, method, path, body, headers)
                # Whether the tenant exists makes no difference.
                assert (answer.status_code, code(answer)[-5:]) == (403, "-only"), (where, who)
            foreign = await call(app, method, path, body, admin())
            if path == "/v1/tenants":
                assert (foreign.status_code, code(foreign)) == (403, "operator-only"), where
            else:
                assert (foreign.status_code, code(foreign)) == (404, "unknown-tenant"), where
            mine = await call(app, method, path, body, admin("other"))
            if own:
                assert mine.status_code == 200, (where, mine.text)
            else:
                assert (mine.status_code, code(mine)) == (403, "operator-only"), where
            every = await call(app, method, path, body, operator())
            assert every.status_code in (200, 201), (where, every.text)


async def test_the_operators_tenant_is_a_setting() -> None:
    async with rest(settings=GatewaySettings(operator_tenant="other")) as app:
        assert (await app.client.get("/v1/tenants", headers=operator("other"))).status_code == 200
        assert (await app.client.get("/v1/tenants/default", headers=operator("other"))).status_code == 200
        for headers in (operator(), admin()):
            assert code(await app.client.get("/v1/tenants", headers=headers)) == "operator-only"


async def test_nobody_is_told_whether_a_tenant_exists() -> None:
    async with rest() as app:
        for method, path, body, _ in CALLS:
            if "other" not in path:
                continue
            for headers in (*NOBODY.values(), admin()):
                there = await call(app, method, path, body, headers)
                missing = await call(app, method, path.replace("other", "nothing"), body, headers)
                odd = await call(app, method, path.replace("other", "N%20o"), body, headers)
                assert there.content == missing.content == odd.content, (method, path)
                assert there.status_code == missing.status_code == odd.status_code
            operators = await call(app, method, path.replace("other", "nothing"), body, operator())
            assert (operators.status_code, code(operators)) == (404, "unknown-tenant"), (method, path)
            bad = await call(app, method, path.replace("other", "N%20o"), body, operator())
            assert (bad.status_code, code(bad)) == (422, "bad-tenant"), (method, path)


async def test_a_tenant_is_made_once_and_listed_in_pages() -> None:
    async with rest(settings=GatewaySettings(new_tenant_stage=Stage.SSE)) as app:
        body = {"id": "acme", "settings": {"publish_rate_per_s": 5}, "keys": [HS], "stage": "shadow"}
        made = await app.client.post("/v1/tenants", json=body, headers=operator())
        assert made.status_code == 201 and made.headers["location"] == "/v1/tenants/acme"
        shown = made.json()
        assert made.headers["etag"] == f'"{shown["version"]}"'
        assert (shown["id"], shown["stage"], shown["percent"]) == ("acme", "shadow", 100.0)
        assert shown["settings"] == {
            "public_channels": [],
            "origins": [],
            "publish_rate_per_s": 5.0,
            "publish_burst": None,
            "max_connections": None,
            "max_connections_per_user": None,
            "history_entries": None,
            "history_s": None,
        }
        assert shown["keys"][0]["kid"] == "k1" and shown["keys"][0]["source"] == "secret"
        read = await app.client.get("/v1/tenants/acme", headers=operator())
        assert read.json() == shown and read.headers["etag"] == made.headers["etag"]
        again = await app.client.post("/v1/tenants", json=body, headers=operator())
        assert (again.status_code, code(again)) == (409, "tenant-exists")
        await app.client.post("/v1/tenants", json={"id": "zeta"}, headers=operator())
        assert (await app.client.get("/v1/tenants/zeta", headers=operator())).json()["stage"] == "sse"
        seen, after = [], ""
        while True:
            page = await app.client.get(f"/v1/tenants?limit=3&after={after}", headers=operator())
            seen += [tenant["id"] for tenant in page.json()["tenants"]]
            if not (after := page.json()["next"]):
                break
        assert seen == ["acme", "default", "other", "zeta"]
        entries = (await app.client.get("/v1/tenants/acme/audit", headers=operator())).json()["entries"]
        assert [(entry["who"], entry["action"], entry["why"]) for entry in entries] == [
            ("default/ops", "create", "a new tenant")
        ]


async def test_no_answer_and_no_error_has_a_secret(caplog: pytest.LogCaptureFixture) -> None:
    async with rest() as app:
        for number, body in enumerate((HS, {**HS, "kid": "k2"}, {**HS, "algorithm": "RS256", "kid": "k3"})):
            answer = await app.client.post("/v1/tenants/other/keys", json=body, headers=operator())
            assert answer.status_code == (201 if number < 2 else 422)
            assert TEXT not in answer.text
        for short in ({**HS, "secret": TEXT[:20]}, {**HS, "secret": 7}, {**HS, "secret": TEXT * 999}):
            answer = await app.client.post("/v1/tenants/other/keys", json=short, headers=operator())
            assert answer.status_code == 422 and TEXT[:20] not in answer.text
        for path in ("", "/other", "/other/migration", "/other/audit"):
            assert TEXT not in (await app.client.get("/v1/tenants" + path, headers=operator())).text
        assert TEXT not in caplog.text
        stored = app.tenants.current("other")
        assert stored is not None and stored.keys[0].secret == Secret(TEXT)


async def test_who_changed_settings_quotas_and_keys_is_in_the_audit() -> None:
    async with rest() as app:
        path = "/v1/tenants/other"
        body = {"settings": {"publish_rate_per_s": 2, "history_entries": 50}, "why": "a larger plan"}
        await app.client.patch(path, json=body, headers=operator())
        await app.client.post(path + "/keys", json={**HS, "why": "rotation"}, headers=operator())
        await app.client.delete(path + "/keys", params={"kid": "k1", "why": "leaked"}, headers=operator())
        await app.client.patch(path, json={"settings": {"publish_rate_per_s": 2}}, headers=operator())
        for headers in (operator(), auth("boss", "admin", tenant="other")):
            answer = await app.client.get(path + "/audit", headers=headers)
            assert TEXT not in answer.text
            removed, added, quota, _made = answer.json()["entries"]
            assert [(e["who"], e["action"], e["why"]) for e in (removed, added, quota)] == [
                ("default/ops", "keys", "leaked"),
                ("default/ops", "keys", "rotation"),
                ("default/ops", "settings", "a larger plan"),
            ]
            assert quota["changes"] == [
                {"field": "publish_rate_per_s", "from": None, "to": 2.0},
                {"field": "history_entries", "from": None, "to": 50},
            ]
            (key_added,) = added["changes"]
            assert key_added["from"] is None and key_added["to"]["kid"] == "k1"
            assert removed["changes"] == [{"field": "keys", "from": key_added["to"], "to": None}]
            assert removed["from"] == removed["to"] and removed["version"] > added["version"]
        for bad in ({**HS, "why": ""}, {**HS, "why": "x" * 501}, {**HS, "why": "two\nlines"}):
            refused = await app.client.post(path + "/keys", json=bad, headers=operator())
            assert refused.status_code == 422 and TEXT not in refused.text
        blank = await app.client.delete(path + "/keys?kid=k1&why=", headers=operator())
        assert (blank.status_code, code(blank)) == (422, "invalid-query")


async def test_settings_are_merged_and_null_is_the_default_again() -> None:
    async with rest() as app:
        path = "/v1/tenants/other"
        first = {"settings": {"publish_rate_per_s": 2, "origins": ["https://a.example"]}}
        assert (await app.client.patch(path, json=first, headers=operator())).status_code == 200
        second = {"settings": {"publish_rate_per_s": None, "max_connections": 9}}
        found = (await app.client.patch(path, json=second, headers=operator())).json()["settings"]
        assert found["origins"] == ["https://a.example"]
        assert found["publish_rate_per_s"] is None and found["max_connections"] == 9
        assert (await app.client.get(path, headers=operator())).json()["settings"] == found


@pytest.mark.parametrize(
    ("settings", "wanted"),
    [
        ({"publish_rate_per_s": 0}, "invalid-body"),
        ({"publish_rate_per_s": "many"}, "invalid-body"),
        ({"max_connections": 0}, "invalid-body"),
        ({"max_connections": 2**40}, "invalid-body"),
        ({"history_entries": 0}, "invalid-body"),
        ({"history_entries": 1_001}, "bad-tenant"),
        ({"history_s": 86_401}, "bad-tenant"),
        ({"public_channels": ["topic:x"] * 101}, "invalid-body"),
        ({"origins": ["https://e.org"] * 101}, "invalid-body"),
        ({"public_channels": ["x" * 3_000]}, "invalid-body"),
        ({"public_channels": ["user:*"]}, "bad-tenant"),
        ({"origins": ["https://e.org/path"]}, "bad-tenant"),
        ({"origins": ["*"]}, "bad-tenant"),
        ({"origins": None}, "invalid-body"),
    ],
)
async def test_bad_settings_change_nothing(settings: Any, wanted: str) -> None:
    async with rest() as app:
        before = app.tenants.version("other")
        answer = await app.client.patch("/v1/tenants/other", json={"settings": settings}, headers=operator())
        assert (answer.status_code, code(answer)) == (422, wanted), answer.text
        made = await app.client.post(
            "/v1/tenants", json={"id": "new", "settings": settings}, headers=operator()
        )
        assert (made.status_code, code(made)) == (422, wanted)
        assert app.tenants.version("other") == before and app.tenants.current("new") is None


@pytest.mark.parametrize("ident", ["", "Acme", "a b", "a" * 64, "a/b", "~pairs", None, 5])
async def test_bad_tenant_ids(ident: Any) -> None:
    async with rest() as app:
        answer = await app.client.post("/v1/tenants", json={"id": ident}, headers=operator())
        assert answer.status_code == 422


async def test_versions_guard_every_change() -> None:
    async with rest() as app:
        path = "/v1/tenants/other"
        version = (await app.client.get(path, headers=operator())).json()["version"]
        body: dict[str, Any] = {"settings": {"publish_burst": 3}}
        for tag, status, wanted in (
            (f'"{version + 1}"', 412, "version-conflict"),
            (f'W/"{version}"', 400, "bad-version"),
            ("5", 400, "bad-version"),
            ('"1", "2"', 400, "bad-version"),
        ):
            headers = {**operator(), "If-Match": tag}
            for answer in (
                await app.client.patch(path, json=body, headers=headers),
                await app.client.post(path + "/keys", json=HS, headers=headers),
            ):
                assert (answer.status_code, code(answer)) == (status, wanted), tag
        stale = await app.client.patch(path, json={**body, "expected": version + 1}, headers=operator())
        assert (stale.status_code, code(stale)) == (409, "version-conflict")
        both = {**operator(), "If-Match": f'"{version}"'}
        differ = await app.client.patch(path, json={**body, "expected": version + 1}, headers=both)
        assert (differ.status_code, code(differ)) == (400, "bad-version")
        good = await app.client.patch(path, json={**body, "expected": version}, headers=both)
        assert good.status_code == 200
        late = await app.client.patch(path, json=body, headers=both)
        assert (late.status_code, code(late)) == (412, "version-conflict")


async def test_concurrent_changes_of_different_parts_all_happen() -> None:
    async with rest() as app:
        answers = await asyncio.gather(
            app.client.patch(
                "/v1/tenants/other", json={"settings": {"publish_burst": 3}}, headers=operator()
            ),
            app.client.post("/v1/tenants/other/keys", json=HS, headers=operator()),
            call(app, "PUT", "/v1/tenants/other/migration", RECORD, operator()),
            app.client.patch(
                "/v1/tenants/other", json={"settings": {"max_connections": 7}}, headers=operator()
            ),
        )
        assert [answer.status_code for answer in answers] == [200, 201, 200, 200]
        found = (await app.client.get("/v1/tenants/other", headers=operator())).json()
        assert (found["settings"]["publish_burst"], found["settings"]["max_connections"]) == (3, 7)
        assert found["stage"] == "shadow" and found["keys"][0]["kid"] == "k1"


async def test_keys_come_and_go() -> None:
    keyless = SigningKey(algorithm="HS256", secret=Secret("z" * 32))
    async with rest(tenants=[Tenant(id="default"), Tenant(id="other", keys=(keyless,))]) as app:
        path = "/v1/tenants/other/keys"
        url = {"algorithm": "RS256", "kid": "https://id/keys/1", "jwks_url": "https://id.example/jwks"}
        for body in (HS, url):
            made = await app.client.post(path, json=body, headers=operator())
            assert made.status_code == 201
        kids = [found["kid"] for found in made.json()["keys"]]
        assert kids == ["", "k1", "https://id/keys/1"]
        twice = await app.client.post(path, json=HS, headers=operator())
        assert (twice.status_code, code(twice)) == (422, "bad-tenant")
        for query, status, wanted in (
            ("", 400, "bad-key"),
            ("?kid=k1&position=0", 400, "bad-key"),
            ("?kid=none", 404, "unknown-key"),
            ("?position=0", 428, "version-needed"),
            ("?position=-1", 422, "invalid-query"),
        ):
            answer = await app.client.delete(path + query, headers=operator())
            assert (answer.status_code, code(answer)) == (status, wanted), query
        gone = await app.client.delete(path, params={"kid": "https://id/keys/1"}, headers=operator())
        assert gone.status_code == 200
        first = await app.client.delete(
            path + "?position=0", headers={**operator(), "If-Match": gone.headers["etag"]}
        )
        assert [found["kid"] for found in first.json()["keys"]] == ["k1"]
        for number in range(2, 17):
            more = await app.client.post(path, json={**HS, "kid": f"k{number}"}, headers=operator())
            assert more.status_code == 201
        full = await app.client.post(path, json={**HS, "kid": "k17"}, headers=operator())
        assert (full.status_code, code(full)) == (422, "bad-tenant")


def ops(node: Node) -> dict[str, str]:
    return node.auth("ops", "operator")


async def test_a_tenant_made_at_runtime_works_at_once_and_a_removed_key_does_not() -> None:
    async with running_node("memory") as node:
        signer = key(tenant="acme", kid="fresh")
        body = {
            "id": "acme",
            "keys": [{"algorithm": "HS256", "kid": "fresh", "secret": signer.material.decode()}],
        }
        mine = {"Authorization": "Bearer " + token(signer, sub="p", tenant="acme", roles=["publisher"])}
        note = {"to": {"user": "alice"}, "title": "x"}
        assert (await node.http.post("/v1/notifications", json=note, headers=mine)).status_code == 401
        made = await node.http.post("/v1/tenants", json=body, headers=ops(node))
        assert made.status_code == 201, made.text
        assert (await node.http.post("/v1/notifications", json=note, headers=mine)).status_code == 201
        quota = {"settings": {"publish_rate_per_s": 0.001, "publish_burst": 1}}
        assert (await node.http.patch("/v1/tenants/acme", json=quota, headers=ops(node))).status_code == 200
        answers = [await node.http.post("/v1/notifications", json=note, headers=mine) for _ in range(2)]
        assert answers[-1].status_code == 429
        text = (await node.http.get("/metrics")).text
        assert 'dualcast_tenant_stage{stage="fallback",tenant="acme"} 1.0' in text.splitlines()
        assert 'dualcast_tenant_cohort_percent{tenant="acme"} 100.0' in text.splitlines()
        removed = await node.http.delete("/v1/tenants/acme/keys?kid=fresh", headers=ops(node))
        assert removed.status_code == 200
        assert (await node.http.post("/v1/notifications", json=note, headers=mine)).status_code == 401


async def test_a_tenants_quota_of_history_holds_at_once() -> None:
    async with running_node("memory", bus={"history_entries": 30}) as node:
        path, publisher = "/v1/tenants/default", node.auth("p", "publisher")
        more = await node.http.patch(path, json={"settings": {"history_entries": 31}}, headers=ops(node))
        assert (more.status_code, code(more)) == (422, "bad-tenant")
        less = await node.http.patch(path, json={"settings": {"history_entries": 2}}, headers=ops(node))
        assert less.status_code == 200
        for n in range(5):
            note = {"id": f"n{n}", "to": {"all": True}, "title": "x"}
            assert (
                await node.http.post("/v1/notifications", json=note, headers=publisher)
            ).status_code == 201
        page = await node.http.get("/v1/channels/all/history", headers=node.auth("alice"))
        assert [found["id"] for found in page.json()["publications"]] == ["n3", "n4"], page.text


async def test_the_connection_quota_holds_at_once() -> None:
    async with running_node("memory") as node, await open_socket(node.port, node.token("alice")) as first:
        await first.welcome()
        body: dict[str, Any] = {"settings": {"max_connections": 1}}
        await node.http.patch("/v1/tenants/default", json=body, headers=ops(node))
        async with await open_socket(node.port, node.token("bob")) as refused:
            assert (await refused.end()).code == 4101
        async with await open_socket(node.port, node.token("bob", tenant="other")) as foreign:
            await foreign.welcome()
        body = {"settings": {"max_connections": None}}
        await node.http.patch("/v1/tenants/default", json=body, headers=ops(node))
        async with await open_socket(node.port, node.token("bob")) as second:
            await second.welcome()
