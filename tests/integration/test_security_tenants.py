"""What one tenant, or one user, could try against another over the real server: pages of a tenant and CORS,
cookies of another tenant, connection lists.
"""

from __future__ import annotations

import pytest

from dualcast.tenancy.model import Tenant, TenantSettings
from support.clients import open_socket
from support.node import Node, running_node

pytestmark = pytest.mark.anyio

PAGE = "https://page.of-other.example"
PREFLIGHT = {"Access-Control-Request-Method": "GET"}


async def allow(node: Node, *origins: str, tenant: str = "other") -> None:
    """Gives a tenant its list of pages."""
    record = await node.composition.tenants.get(tenant)
    assert record is not None
    await node.composition.tenants.put(
        Tenant(
            id=tenant,
            keys=record.tenant.keys,
            settings=TenantSettings(origins=origins),
            stage=record.tenant.stage,
        )
    )


async def test_pages_a_tenant_names_may_read_answers() -> None:
    async with running_node("memory") as node:
        headers = {"Origin": PAGE}
        assert "access-control-allow-origin" not in (await node.http.get("/healthz", headers=headers)).headers
        await allow(node, PAGE)
        for answer in (
            await node.http.options("/v1/connections", headers={**headers, **PREFLIGHT}),
            await node.http.get("/v1/connections", headers={**headers, **node.auth("bob", tenant="other")}),
        ):
            assert answer.headers["access-control-allow-origin"] == PAGE
            assert answer.headers["access-control-allow-credentials"] == "true"
            assert answer.headers["vary"] == "Origin"
        await allow(node)
        assert "access-control-allow-origin" not in (await node.http.get("/healthz", headers=headers)).headers


async def test_a_page_of_one_tenant_cannot_use_the_cookie_of_another() -> None:
    async with running_node("memory") as node:
        await allow(node, PAGE)
        for tenant, status in (("other", 200), ("default", 403)):
            for _ in range(2):  # the second time from the cache
                cookie = {"Cookie": "dualcast_token=" + node.token("carol", tenant=tenant), "Origin": PAGE}
                answer = await node.http.get("/v1/connections", headers=cookie)
                assert answer.status_code == status


async def test_every_page_may_ask_with_a_token_but_never_with_a_cookie() -> None:
    async with running_node("memory", identity={"origins": ("*",)}) as node:
        anywhere = {"Origin": "https://anywhere.example"}
        answer = await node.http.get("/v1/connections", headers={**anywhere, **node.auth("alice")})
        assert answer.status_code == 200
        assert answer.headers["access-control-allow-origin"] == anywhere["Origin"]
        assert "access-control-allow-credentials" not in answer.headers
        cookie = {"Cookie": "dualcast_token=" + node.token("alice")}
        assert (await node.http.get("/v1/connections", headers={**anywhere, **cookie})).status_code == 403


async def test_an_unreadable_origin_of_a_tenant_opens_nothing() -> None:
    async with running_node("memory") as node:
        await allow(node, PAGE)
        for origin in ("null", PAGE + ".evil.example", PAGE + "/", "https://evil.example", "*", ""):
            answer = await node.http.get("/healthz", headers={"Origin": origin})
            assert "access-control-allow-origin" not in answer.headers, origin


async def test_connections_of_others_stay_unseen() -> None:
    async with (
        running_node("memory") as node,
        await open_socket(node.port, node.token("alice")) as mine,
        await open_socket(node.port, node.token("alice", tenant="other")) as same_name,
        await open_socket(
            node.port, node.token("mallory", channels=["user:*"]), channels=["user:alice"]
        ) as listener,
    ):
        for client in (mine, same_name, listener):
            await client.welcome()
        answer = await node.http.get("/v1/connections", headers=node.auth("alice"))
        found = answer.json()["connections"]
        assert [row["user"] for row in found] == ["alice"]
        listed = await node.http.get("/v1/connections?user=alice", headers=node.auth("root", "admin"))
        assert [row["id"] for row in listed.json()["connections"]] == [row["id"] for row in found]
        nobody = await node.http.get("/v1/connections?user=nobody", headers=node.auth("root", "admin"))
        assert nobody.json()["connections"] == []
