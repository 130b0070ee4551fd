"""The REST endpoints of the contract `notifications`: from a publish to what an older client polls and
marks."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import httpx
import pytest

from dualcast.bus.redis.options import RedisSettings
from dualcast.bus.redis.plain import PlainKeys
from dualcast.bus.redis.pool import RedisPool
from dualcast.dialects.legacy import LegacySettings, Stats
from support import redis_server
from support.rest_app import Rest, admin, auth, publisher, rest

pytestmark = pytest.mark.anyio
LIST = "/api/notifications"
POOL = "/api/notifications/debug/redis_pool"
STATS = "/api/ws/stats"
TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z")


async def note(app: Rest, to: dict[str, Any], ident: str, tenant: str = "default", **more: Any) -> None:
    body = {"to": to, "title": "T " + ident, "id": ident, **more}
    answer = await app.client.post("/v1/notifications", headers=publisher(tenant), json=body)
    assert answer.status_code == 201, answer.text


def opened(answer: httpx.Response) -> Any:
    """The data of an answer, its envelope checked."""
    assert answer.status_code == 200, answer.text
    assert answer.headers["content-type"].startswith("application/json")
    found = answer.json()
    assert list(found) == ["success", "data", "message", "timestamp"]
    assert found["success"] is True and found["message"] == "ok" and TIME.fullmatch(found["timestamp"])
    return found["data"]


def detail(answer: httpx.Response, status: int) -> str:
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == "application/problem+json"
    assert answer.json()["status"] == status
    return str(answer.json()["detail"])


async def listed(app: Rest, user: str = "alice", **params: Any) -> Any:
    return opened(await app.client.get(LIST, headers=auth(user), params=params))


async def marked(app: Rest, ident: str, user: str = "alice") -> httpx.Response:
    return await app.client.post(f"{LIST}/{ident}/read", headers=auth(user))


async def test_an_item_has_the_eight_keys() -> None:
    async with rest() as app:
        await note(
            app,
            {"user": "alice"},
            "n1",
            type="analysis",
            content='分析 "完成"',
            link="/stocks/1",
            level="error",
        )
        data = await listed(app)
        (item,) = data["items"]
        assert list(data) == ["items", "total", "page", "page_size"]
        assert (data["total"], data["page"], data["page_size"]) == (1, 1, 20)
        assert TIME.fullmatch(item.pop("created_at"))
        assert list(item.items()) == [
            ("id", "n1"),
            ("type", "analysis"),
            ("title", "T n1"),
            ("content", '分析 "完成"'),
            ("link", "/stocks/1"),
            ("source", None),
            ("status", "unread"),
        ]


async def test_numbered_pages_status_and_type() -> None:
    async with rest() as app:
        for number in range(5):
            await note(app, {"user": "alice"}, f"n{number}", type="alert" if number % 2 else "system")
        await note(app, {"all": True}, "wide")
        await note(app, {"user": "bob"}, "bobs")
        first, second, beyond = [await listed(app, page=page, page_size=4) for page in (1, 2, 3)]
        assert [item["id"] for item in first["items"]] == ["wide", "n4", "n3", "n2"]
        assert [item["id"] for item in second["items"]] == ["n1", "n0"]
        assert beyond["items"] == [] and {one["total"] for one in (first, second, beyond)} == {6}
        opened(await marked(app, "n1"))
        opened(await marked(app, "wide"))
        read = await listed(app, status="read")
        assert [(item["id"], item["status"]) for item in read["items"]] == [("wide", "read"), ("n1", "read")]
        unread = await listed(app, status="unread", type="system")
        assert [item["id"] for item in unread["items"]] == ["n4", "n2", "n0"] and unread["total"] == 3
        both = await listed(app, status="all", type="alert")
        assert [(item["id"], item["status"]) for item in both["items"]] == [("n3", "unread"), ("n1", "read")]
        assert [item["id"] for item in (await listed(app, "bob"))["items"]] == ["bobs", "wide"]


@pytest.mark.parametrize(
    "params", [{"page": 0}, {"page_size": 0}, {"page_size": 101}, {"status": "seen"}, {"page": "x"}]
)
async def test_bad_parameters(params: dict[str, Any]) -> None:
    async with rest() as app:
        assert detail(await app.client.get(LIST, headers=auth("alice"), params=params), 422)


async def test_counting_and_marking_all() -> None:
    async with rest() as app:
        for ident in ("n1", "n2", "n3"):
            await note(app, {"user": "alice"}, ident)
        count = LIST + "/unread_count"
        assert opened(await app.client.get(count, headers=auth("alice"))) == {"count": 3}
        opened(await marked(app, "n2"))
        assert opened(await app.client.get(count, headers=auth("alice"))) == {"count": 2}
        everything = LIST + "/read_all"
        assert opened(await app.client.post(everything, headers=auth("alice"))) == {"updated": 2}
        assert opened(await app.client.post(everything, headers=auth("alice"))) == {"updated": 0}
        assert opened(await app.client.get(count, headers=auth("alice"))) == {"count": 0}


@pytest.mark.covers("R35")
async def test_r35_marking_twice_succeeds_twice() -> None:
    async with rest() as app:
        await note(app, {"user": "alice"}, "n1")
        await note(app, {"user": "bob"}, "n2")
        for _ in range(2):
            assert opened(await marked(app, "n1")) is None
        for ident in ("n2", "never", "%FF"):
            assert detail(await marked(app, ident), 404) == "Notification not found"
        assert (await listed(app, "bob"))["items"][0]["status"] == "unread", "not by somebody else"


async def test_tenants_do_not_meet() -> None:
    async with rest() as app:
        await note(app, {"user": "alice"}, "n1", tenant="other")
        assert (await listed(app))["total"] == 0
        assert detail(await marked(app, "n1"), 404) == "Notification not found"
        there = await app.client.get(LIST, headers=auth("alice", tenant="other"))
        assert opened(there)["total"] == 1


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", LIST),
        ("GET", LIST + "/unread_count"),
        ("POST", LIST + "/n1/read"),
        ("POST", LIST + "/read_all"),
        ("GET", STATS),
        ("GET", POOL),
    ],
)
@pytest.mark.covers("R14", "R16")
async def test_r16_who_may_not(method: str, path: str) -> None:
    async with rest() as app:
        good = auth("alice")["Authorization"]
        for headers in ({}, {"Authorization": good + "x"}, {"Authorization": "demo-token"}):
            answer = await app.client.request(method, path, headers=headers)
            assert detail(answer, 401) == "Unauthorized"
            assert answer.headers["www-authenticate"].startswith("Bearer")
        in_query = await app.client.request(method, path, params={"token": good.removeprefix("Bearer ")})
        assert detail(in_query, 401) == "Unauthorized", "HTTP reads the header only"
        if path in (STATS, POOL):
            assert detail(await app.client.request(method, path, headers=auth("alice")), 403)


@pytest.mark.covers("S1.14")
async def test_statistics_have_the_keys_of_both_contracts() -> None:
    async with rest() as app:
        await app.connect("c1", "u1", dialect="notifications")
        await app.connect("c2", "u1", dialect="rooms")
        await app.connect("c3", "u2", dialect="topics")
        await app.connect("c4", "", dialect="topics")
        await app.connect("c5", "u3", tenant="other")
        answer = await app.client.get(STATS, headers=admin())
        assert answer.status_code == 200 and answer.json() == {
            "total_users": 2,
            "total_connections": 4,
            "users": {"u1": 2, "u2": 1},
            "success": True,
            "data": {
                "total_connections": 4,
                "total_users": 2,
                "total_subscriptions": 0,
                "topics": [],
                "users": ["u1", "u2"],
            },
        }


async def test_statistics_name_topics() -> None:
    async def stats(tenant: str, kind: str) -> Stats:
        assert (tenant, kind) == ("default", "topic:")
        return Stats(
            total_connections=3, users={"u2": 1, "u1": 2}, groups={"topic:wallet_updates": 2, "topic:a:b": 1}
        )

    async with rest(more_services={"legacy_stats": stats}) as app:
        data = (await app.client.get(STATS, headers=admin())).json()["data"]
        assert data["topics"] == ["a:b", "wallet_updates"] and data["total_subscriptions"] == 3


@pytest.mark.covers("S1.38")
async def test_statistics_may_be_opened() -> None:
    async with rest(more_services={"legacy": LegacySettings(stats_public=True)}) as app:
        await app.connect("c1", "u1")
        for headers in ({}, auth("alice")):
            answer = await app.client.get(STATS, headers=headers)
            assert answer.status_code == 200 and answer.json()["users"] == {"u1": 1}
        assert (await app.client.get(POOL)).status_code == 401, "opens nothing else"


async def test_without_redis_there_is_no_pool() -> None:
    async with rest() as app:
        assert opened(await app.client.get(POOL, headers=admin())) == {
            "pool": None,
            "redis_server": None,
            "pubsub": {"active_channels": 0, "channels": []},
        }


@asynccontextmanager
async def plain(server: redis_server.RedisServer) -> AsyncIterator[PlainKeys]:
    pool = RedisPool(RedisSettings(url=server.url, pool_connections=7))
    try:
        yield PlainKeys(pool)
    finally:
        await pool.close()


@pytest.mark.covers("S1.48")
async def test_the_pool_as_it_stands() -> None:
    with redis_server.RedisServer() as server:
        async with plain(server) as keys, rest(more_services={"redis": keys}) as app:
            data = opened(await app.client.get(POOL, headers=admin()))
            assert list(data) == ["pool", "redis_server", "pubsub"]
            assert list(data["pool"].items()) == [
                ("max_connections", 7),
                ("connection_class", "UnixDomainSocketConnection"),
                ("available_connections", 1),
                ("in_use_connections", 0),
            ]
            assert list(data["redis_server"]) == [
                "connected_clients",
                "client_recent_max_input_buffer",
                "client_recent_max_output_buffer",
                "blocked_clients",
            ]
            assert data["redis_server"]["connected_clients"] == 1
            assert data["pubsub"] == {"active_channels": 0, "channels": []}
            listener = keys._pool.client.pubsub()
            await listener.subscribe("notifications:u2", "notifications:u1", "task_progress:T1")
            data = opened(await app.client.get(POOL, headers=admin()))
            assert data["pubsub"] == {
                "active_channels": 2,
                "channels": ["notifications:u1", "notifications:u2"],
            }
            assert data["pool"]["in_use_connections"] == 1
            elsewhere = opened(await app.client.get(POOL, headers=admin("other")))
            assert elsewhere["pubsub"] == {"active_channels": 0, "channels": []}, "users of another tenant"
            await listener.aclose()
            server.kill()
            assert detail(await app.client.get(POOL, headers=admin()), 503)
