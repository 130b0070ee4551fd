"""The REST endpoints of the contract `rooms`: what backends publish, who may ask, and what is stored."""

from __future__ import annotations

import json
from typing import Any

import pytest

from dualcast.dialects.legacy import LegacySettings
from dualcast.dialects.rooms import encode
from dualcast.model.publication import Entry
from dualcast.model.times import to_utc
from support.rest_app import Rest, admin, auth, publisher, rest

pytestmark = pytest.mark.anyio
FEATURES = ["Real-time notifications", "Live sync updates", "System messages", "Room subscriptions"]


def frame(entry: Entry) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(encode(entry))
    return found


async def post(app: Rest, path: str, body: Any, headers: dict[str, str] | None = None) -> Any:
    answer = await app.client.post(path, headers=headers or admin(), json=body)
    assert answer.status_code == 200, answer.text
    return answer.json()


@pytest.mark.covers("S0.22", "S0.32")
async def test_a_notification_is_stored_and_published() -> None:
    async with rest() as app:
        body = {"title": "T", "message": "M", "type": "success", "icon": "bell", "action_data": {"k": 1}}
        told = await post(app, "/api/v1/ws/notify/u1", body)
        assert told == {"status": "sent", "user_id": "u1", "message": "Notification sent successfully"}
        (entry,) = await app.appended("user:u1")
        data = frame(entry)["data"]
        assert list(data)[:5] == ["id", "title", "message", "notification_type", "type"]
        assert data["notification_type"] == data["type"] == "success"
        assert (data["title"], data["message"], data["category"]) == ("T", "M", "system")
        assert (data["action_data"], data["icon"]) == ({"k": 1}, "bell")
        counts = await app.services.inbox.counts("default", "u1")
        assert counts.unread == 1


async def test_every_key_of_the_table_has_its_place() -> None:
    async with rest() as app:
        body = {
            "id": 17,
            "title": "T",
            "message": "M",
            "notification_type": "achievement",
            "type": "info",
            "category": "import",
            "priority": "medium",
            "action_url": "/a",
            "created_at": "2026-01-31T13:00:00+01:00",
            "expires_at": "2099-01-31T12:00:00",
        }
        await post(app, "/api/v1/ws/notify/u1", body)
        (entry,) = await app.appended("user:u1")
        assert frame(entry) == {
            "type": "notification",
            "data": {
                "id": "17",
                "title": "T",
                "message": "M",
                "notification_type": "achievement",
                "type": "achievement",
                "category": "import",
                "priority": "medium",
                "action_url": "/a",
                "action_data": {},
                "created_at": "2026-01-31T12:00:00.000000Z",
                "expires_at": "2099-01-31T12:00:00.000000Z",
            },
            "timestamp": "2026-01-31T12:00:00.000000Z",
        }
        assert (await app.services.inbox.counts_by_kind("default", "u1"))[1] == {"import": 1}
        canonical = json.loads(entry.publication.data)
        assert (canonical["level"], canonical["priority"], canonical["link"]) == ("info", "normal", "/a")


@pytest.mark.parametrize(
    "body",
    [
        {},
        {"title": ""},
        {"title": " "},
        {"title": 1},
        {"title": "T", "message": 5},
        {"title": "T", "action_data": [1]},
        {"title": "T", "created_at": "now"},
        {"title": "T", "expires_at": "soon"},
        {"title": "T", "id": "a b"},
        {"title": "a\nb"},
        [],
    ],
)
async def test_what_is_no_notification_is_refused(body: Any) -> None:
    async with rest() as app:
        answer = await app.client.post("/api/v1/ws/notify/u1", headers=admin(), json=body)
        assert answer.status_code == 422, answer.text
        assert await app.offset() == 0


@pytest.mark.covers("S0.23")
async def test_a_sync_update_is_live_only() -> None:
    async with rest() as app:
        told = await post(app, "/api/v1/ws/sync-update/u1", {"device": "iPhone", "changes": 5})
        assert told == {"status": "sent", "user_id": "u1", "message": "Sync update sent successfully"}
        (entry,) = await app.appended("user:u1")
        assert (frame(entry)["type"], frame(entry)["data"]) == (
            "sync_update",
            {"device": "iPhone", "changes": 5},
        )
        assert (await app.services.inbox.counts("default", "u1")).unread == 0


@pytest.mark.covers("S0.21")
@pytest.mark.parametrize(
    ("body", "target", "data", "channels"),
    [
        (
            {"message": {"message": "hello"}, "target_users": ["u1", "u2", "u1"]},
            ["u1", "u2"],
            {"message": "hello"},
            ["user:u1", "user:u2"],
        ),
        ({"message": {"message": "hello"}}, "all", {"message": "hello"}, ["all"]),
        ({"message": {"a": 1}, "target_users": None}, "all", {"a": 1}, ["all"]),
        ({"message": "hello", "level": 1}, "all", {"message": "hello", "level": 1}, ["all"]),
        ({"message": "only for u1", "target_users": ["u1"]}, ["u1"], {"message": "only for u1"}, ["user:u1"]),
        ({"message": {"a": 1}, "target_users": [7]}, ["7"], {"a": 1}, ["user:7"]),
    ],
)
async def test_broadcast(body: Any, target: Any, data: Any, channels: list[str]) -> None:
    async with rest() as app:
        told = await post(app, "/api/v1/ws/broadcast", body)
        assert told == {
            "status": "sent",
            "target_users": target,
            "message": "Message broadcasted successfully",
        }
        assert await app.offset() == 1
        for channel in channels:
            (entry,) = await app.appended(channel)
            assert (frame(entry)["type"], frame(entry)["data"]) == ("system_message", data)
        assert (await app.services.inbox.counts("default", "u1")).unread == 0


@pytest.mark.covers("R20")
async def test_r20_an_empty_list_is_nobody() -> None:
    async with rest() as app:
        told = await post(app, "/api/v1/ws/broadcast", {"message": {"a": 1}, "target_users": []})
        assert told["target_users"] == []
        assert await app.offset() == 0


@pytest.mark.parametrize("named", ["u1", {"u1": 1}, [""], [None], [["u1"]], [True], ["a\nb"]])
async def test_targets_that_are_none(named: Any) -> None:
    async with rest() as app:
        body = {"message": {"a": 1}, "target_users": named}
        answer = await app.client.post("/api/v1/ws/broadcast", headers=admin(), json=body)
        assert answer.status_code == 422
        assert await app.offset() == 0


async def test_more_targets_than_one_publication_has() -> None:
    async with rest() as app:
        users = [f"u{number}" for number in range(2001)]
        await post(app, "/api/v1/ws/broadcast", {"message": {"a": 1}, "target_users": users})
        assert await app.offset() == 3
        for user in ("u0", "u999", "u1000", "u2000"):
            assert len(await app.appended("user:" + user)) == 1


async def test_an_idempotency_key_makes_a_repetition_harmless() -> None:
    async with rest() as app:
        for _ in range(2):
            await post(app, "/api/v1/ws/notify/u1", {"title": "T"}, {**admin(), "Idempotency-Key": "k"})
        assert len(await app.appended("user:u1")) == 1


@pytest.mark.covers("S0.24")
async def test_connections_of_a_user() -> None:
    async with rest() as app:
        path = "/api/v1/ws/connections/u1"
        nobody = (await app.client.get(path, headers=auth("u1"))).json()
        assert nobody == {"user_id": "u1", "connections": 0, "is_online": False}
        await app.connect("c1", "u1")
        await app.connect("c2", "u1")
        for headers in (auth("u1"), admin()):
            found = (await app.client.get(path, headers=headers)).json()
            assert found == {"user_id": "u1", "connections": 2, "is_online": True}
        assert (await app.client.get(path, headers=admin("other"))).json()["connections"] == 0
        assert (await app.client.get(path, headers=auth("u2"))).status_code == 403


@pytest.mark.covers("S0.5", "S0.20", "S0.39", "S0.77")
async def test_statistics_are_for_administrators() -> None:
    async with rest() as app:
        await app.connect("c1", "u1")
        await app.connect("c2", "u2")
        wanted = {
            "total_connections": 2,
            "total_users": 2,
            "total_rooms": 0,
            "rooms": {},
            "users": {"u1": 1, "u2": 1},
        }
        answer = await app.client.get("/api/v1/ws/stats", headers=admin())
        assert answer.json() == {"status": "active", "stats": wanted, "features": FEATURES}
        answer = await app.client.get("/api/v1/ws/test", headers=admin())
        assert answer.json() == {
            "message": "WebSocket API is working",
            "features": FEATURES,
            "current_stats": wanted,
        }


async def test_public_statistics() -> None:
    async with rest() as app:
        app.app.state.services = _with(app, LegacySettings(stats_public=True))
        await app.connect("c1", "u1")
        await app.connect("c2", "u2", tenant="other")
        for path, key in (("/api/v1/ws/stats", "stats"), ("/api/v1/ws/test", "current_stats")):
            assert (await app.client.get(path)).json()[key]["users"] == {"u1": 1}
            assert (await app.client.get(path, headers=auth("u9"))).json()[key]["users"] == {"u1": 1}
            other = await app.client.get(path, headers=auth("u9", tenant="other"))
            assert other.json()[key]["users"] == {"u2": 1}
            bad = await app.client.get(path, headers={"Authorization": "Bearer x.y.z"})
            assert bad.status_code == 401


def _with(app: Rest, legacy: LegacySettings) -> Any:
    from dataclasses import replace

    return replace(app.services, legacy=legacy)


@pytest.mark.covers("S0.30", "S0.31", "S0.32", "S0.45")
async def test_the_demo_notification() -> None:
    async with rest() as app:
        told = await post(app, "/api/v1/notifications/demo", None, auth("u1"))
        (entry,) = await app.appended("user:u1")
        data = frame(entry)["data"]
        assert told == {
            "id": data["id"],
            "title": "欢迎使用通知系统",
            "message": "这是一个演示通知，展示了实时通知功能的工作原理。",
            "created_at": data["created_at"],
            "status": "created",
            "notification_id": data["id"],
            "user_id": "u1",
            "websocket_sent": False,
        }
        assert (data["title"], data["message"]) == (told["title"], told["message"])
        assert (data["notification_type"], data["category"]) == ("info", "system")
        assert data["expires_at"][11:19] == data["created_at"][11:19]
        assert data["expires_at"][:10] > data["created_at"][:10]
        assert to_utc(data["created_at"]) == data["created_at"]
        assert (await app.services.inbox.counts("default", "u1")).unread == 1
        await app.connect("c1", "u1")
        again = await post(app, "/api/v1/notifications/demo", None, auth("u1"))
        assert again["websocket_sent"] is True and again["id"] != told["id"]


ADMIN_CALLS = [
    ("POST", "/api/v1/ws/broadcast"),
    ("POST", "/api/v1/ws/notify/u1"),
    ("POST", "/api/v1/ws/sync-update/u1"),
    ("GET", "/api/v1/ws/stats"),
    ("GET", "/api/v1/ws/test"),
    ("GET", "/api/v1/ws/connections/u2"),
]


@pytest.mark.covers("R16", "S0.68")
@pytest.mark.parametrize(("method", "path"), ADMIN_CALLS)
async def test_r16_admin_calls_are_closed(method: str, path: str) -> None:
    async with rest() as app:
        body: Any = {"title": "T", "message": "M"} if method == "POST" else None
        for headers in ({}, {"Authorization": "Bearer x.y.z"}, {"Authorization": "Basic abc"}):
            answer = await app.client.request(method, path, headers=headers, json=body)
            assert answer.status_code == 401
            assert answer.headers["content-type"] == "application/problem+json"
            assert answer.headers["www-authenticate"].startswith("Bearer")
            told = {key: answer.json()[key] for key in ("type", "title", "status", "detail")}
            wanted = {
                "type": "about:blank",
                "title": "Unauthorized",
                "status": 401,
                "detail": "Unauthorized",
            }
            assert told == wanted
        for headers in (auth("u1"), publisher()):
            answer = await app.client.request(method, path, headers=headers, json=body)
            assert (answer.status_code, answer.json()["detail"]) == (403, "Forbidden")
        assert await app.offset() == 0
