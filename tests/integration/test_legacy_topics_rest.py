"""The REST endpoints of the contract `topics`: what administrators publish, and to whom."""

from __future__ import annotations

import json
from typing import Any

import pytest

from dualcast.dialects.topics import encode
from support.rest_app import Rest, admin, auth, publisher, rest

pytestmark = pytest.mark.anyio


async def post(app: Rest, path: str, body: Any) -> Any:
    answer = await app.client.post(path, headers=admin(), json=body)
    assert answer.status_code == 200, answer.text
    return answer.json()


@pytest.mark.covers("S2.12")
async def test_broadcast_goes_to_all_but_the_anonymous() -> None:
    async with rest() as app:
        assert await post(app, "/api/ws/broadcast", {"text": "hello"}) == {
            "success": True,
            "message": "广播成功",
        }
        (entry,) = await app.appended("all")
        assert encode(entry) == b'{"type":"admin_broadcast","data":{"text":"hello"},"sender":"root"}'
        audience = entry.publication.audience
        assert audience is not None and audience.exclude_users == ("",)


@pytest.mark.covers("S2.13")
@pytest.mark.parametrize("wrapped", [True, False])
async def test_notify_some(wrapped: bool) -> None:
    async with rest() as app:
        note = {"title": "T", "content": "C", "level": "warning", "sound": "ding"}
        body = {"notification": note} if wrapped else note
        told = await post(app, "/api/ws/notify", {**body, "target_users": ["u1", "u2"]})
        assert told == {"success": True, "message": "通知发送成功"}
        assert await app.offset() == 1
        for user in ("u1", "u2"):
            (entry,) = await app.appended("user:" + user)
            data = json.loads(encode(entry))["data"]
            assert list(data) == ["id", "title", "content", "level", "data", "timestamp", "sound"]
            assert (data["title"], data["content"], data["level"]) == ("T", "C", "warning")
            assert (await app.services.inbox.counts("default", user)).unread == 1


@pytest.mark.parametrize(
    "body",
    [
        {"notification": {"title": "T", "content": "C", "level": "info"}},
        {"notification": {"title": "T", "content": "C"}, "target_users": None},
        {"title": "T", "content": "C"},
    ],
)
async def test_notify_all_is_in_no_inbox(body: Any) -> None:
    async with rest() as app:
        await post(app, "/api/ws/notify", body)
        (entry,) = await app.appended("all")
        frame = json.loads(encode(entry))
        assert (frame["topic"], frame["data"]["content"]) == ("notifications", "C")
        assert frame["data"]["level"] == "info"
        assert entry.publication.audience is None
        assert (await app.services.inbox.counts("default", "u1")).unread == 0


async def test_a_publisher_s_own_level_and_time() -> None:
    async with rest() as app:
        note = {"title": "T", "level": "critical", "timestamp": "2026-01-31T12:00:00", "data": {"a": 1}}
        await post(app, "/api/ws/notify", note)
        (entry,) = await app.appended("all")
        data = json.loads(encode(entry))["data"]
        assert (data["level"], data["timestamp"]) == ("critical", "2026-01-31T12:00:00.000000Z")
        assert json.loads(entry.publication.data)["level"] == "info"


@pytest.mark.covers("R20")
async def test_r20_an_empty_list_is_nobody() -> None:
    async with rest() as app:
        body = {"notification": {"title": "T"}, "target_users": []}
        assert (await post(app, "/api/ws/notify", body))["success"] is True
        assert await app.offset() == 0
        bad = {"notification": {"title": ""}, "target_users": []}
        assert (await app.client.post("/api/ws/notify", headers=admin(), json=bad)).status_code == 422


async def test_more_targets_than_one_publication_has() -> None:
    async with rest() as app:
        users = [f"u{number}" for number in range(1500)]
        body = {"notification": {"title": "T", "id": "n1"}, "target_users": users}
        await post(app, "/api/ws/notify", body)
        assert await app.offset() == 2
        for user in ("u0", "u1000", "u1499"):
            assert len(await app.appended("user:" + user)) == 1


@pytest.mark.covers("R16", "S2.52", "S2.53", "S2.54")
@pytest.mark.parametrize("path", ["/api/ws/broadcast", "/api/ws/notify"])
async def test_r16_admin_calls_are_closed(path: str) -> None:
    async with rest() as app:
        for headers in ({}, {"Authorization": "Bearer x.y.z"}):
            answer = await app.client.post(path, headers=headers, json={"title": "T"})
            assert (answer.status_code, answer.json()["detail"]) == (401, "无效的认证凭证")
            assert answer.headers["content-type"] == "application/problem+json"
        for headers in (auth("u1"), publisher()):
            answer = await app.client.post(path, headers=headers, json={"title": "T"})
            assert answer.status_code == 403
        assert await app.offset() == 0
