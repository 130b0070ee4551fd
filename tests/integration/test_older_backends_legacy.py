"""What older backends publish, as clients of the older contracts see it."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

import pytest

from support.legacy_node import Socket, Stream, socket, stream
from support.node import place
from support.older_backend import OlderBackend, OlderNode, older_node
from support.redis_server import RedisServer

pytestmark = pytest.mark.anyio
CHAT = "/api/v1/ws"
DIALECTS = ("notifications", "conversations")


@pytest.fixture
def redis() -> Iterator[RedisServer]:
    with RedisServer() as server:
        yield server


@asynccontextmanager
async def nodes(redis: RedisServer, count: int) -> AsyncIterator[list[OlderNode]]:
    async with place("redis", redis_url=redis.url) as where, AsyncExitStack() as stack:
        yield [await stack.enter_async_context(older_node(where, dialects=DIALECTS)) for _ in range(count)]


async def event(client: Stream, name: str) -> Any:
    """The data of the next block of one name."""
    while True:
        lines = (await client.block()).splitlines()
        if f"event: {name}" in lines:
            return json.loads(next(line[6:] for line in lines if line.startswith("data: ")))


async def frame(client: Socket, name: str) -> dict[str, Any]:
    """The next frame of one name."""
    while True:
        found: dict[str, Any] = json.loads(await client.text())
        if name in (found.get("event"), found.get("type")):
            return found


@pytest.mark.covers("R7", "S1.45")
async def test_r7_someone_on_sse_only_gets_every_notification(redis: RedisServer) -> None:
    async with (
        nodes(redis, 2) as (one, two),
        OlderBackend(redis.url) as old,
        await stream(one, "/api/notifications/stream", "alice") as sse,
        await socket(two, "/api/ws/notifications", "bob") as ws,
    ):
        assert await event(sse, "connected") == {"channel": "notifications:alice"}
        await frame(ws, "connected")
        for number in range(3):
            await old.notify("alice", f"a{number}")
            await old.notify("bob", f"b{number}")
        for number in range(3):
            assert await event(sse, "notification") == {
                "id": f"a{number}",
                "type": "analysis",
                "title": "分析完成",
                "content": "000001 分析已完成",
                "link": "/stocks/000001",
                "source": "analysis",
                "status": "unread",
                "created_at": "2026-01-31T12:00:00.123456Z",
            }
            assert (await frame(ws, "notification"))["data"]["id"] == f"b{number}"


async def test_progress_of_an_older_worker_ends_with_the_terminal_event(redis: RedisServer) -> None:
    async with nodes(redis, 2) as (one, two), OlderBackend(redis.url) as old:
        headers = one.auth("backend", "publisher")
        answer = await one.http.put("/v1/tasks/T1", json={"owner": "alice"}, headers=headers)
        assert answer.status_code == 201, answer.text
        async with (
            await stream(two, "/api/stream/tasks/T1", "alice") as sse,
            await socket(one, "/api/ws/tasks/T1", "alice") as ws,
        ):
            await event(sse, "connected")
            await frame(ws, "connected")
            await old.progress("T1", message="🚀 开始执行股票分析...", step=1, total_steps=5)
            await old.progress("T1", message="❌ 任务失败: 超时", step=2, total_steps=5)
            first = await event(sse, "progress")
            assert (first["message"], first["progress"]) == ("🚀 开始执行股票分析...", 20.0)
            assert (await event(sse, "progress"))["message"] == "❌ 任务失败: 超时"
            failed = await event(sse, "failed")
            assert (failed["status"], failed["error"], failed["progress"]) == (
                "failed",
                "❌ 任务失败: 超时",
                40.0,
            )
            assert (await frame(ws, "progress"))["data"]["step"] == 1
            assert (await frame(ws, "error"))["data"]["status"] == "failed"


@pytest.mark.covers("S3.69", "S3.70", "R45")
async def test_r45_chat_clients_get_frames_of_older_backends_once(redis: RedisServer) -> None:
    async with (
        nodes(redis, 3) as (one, two, three),
        OlderBackend(redis.url) as old,
        await socket(one, CHAT, "alice", deviceType="mobile", connectionId="phone") as phone,
        await socket(two, CHAT, "alice", deviceType="desktop", connectionId="laptop") as laptop,
        await socket(three, CHAT, "bob") as bob,
    ):
        await frame(phone, "connected")
        await frame(laptop, "connected")
        await frame(bob, "connected")
        await old.until(
            lambda: sum(said["event_type"] == "device_connected" for said in old.on("ws:presence")) == 3,
            "three devices",
        )
        assert {said["connection_id"] for said in old.on("ws:presence") if "connection_id" in said} >= {
            "phone",
            "laptop",
        }
        message = {"action": "new_message", "conversation_id": "c1", "data": {"id": "m1"}}
        await old.broadcast(message, target_user_id="alice")
        await old.broadcast({"event": "typing_status", "data": {}}, target_connection_id="laptop")
        await old.broadcast({"event": "only_mobile"}, target_user_id="alice", target_device_type="mobile")
        await old.broadcast({"event": "end"}, target_user_id="alice")
        await old.online("carol")
        expected = {
            "event": "new_message",
            "action": "new_message",
            "event_type": "new_message",
            "data": {"id": "m1"},
            "conversation_id": "c1",
            "timestamp": "2026-01-31T12:00:00.000000Z",
        }

        async def frames(client: Socket, count: int) -> list[dict[str, Any]]:
            """The next so many, but those about presence."""
            found: list[dict[str, Any]] = []
            while len(found) < count:
                got = json.loads(await client.text())
                if got["event"] != "presence_update":
                    found.append(got)
            return found

        on_phone, on_laptop = await frames(phone, 3), await frames(laptop, 3)
        assert on_phone[0] == on_laptop[0] == expected
        assert [got["event"] for got in on_phone] == ["new_message", "only_mobile", "end"]
        # The node that has the connection is the only one to take in what is for it: at its own pace.
        assert {got["event"] for got in on_laptop} == {"new_message", "typing_status", "end"}
        typing = next(got for got in on_laptop if got["event"] == "typing_status")
        assert typing["event_type"] == "typing_update"
        await old.broadcast({"event": "really the end"}, target_user_id="alice")
        for client in (phone, laptop):
            assert [got["event"] for got in await frames(client, 1)] == ["really the end"]
        while (got := (await frame(bob, "presence_update"))["data"])["user_id"] != "carol":
            pass
        assert got["status"] == "online"
        assert "carol" not in {
            said["user_id"] for said in old.on("ws:presence") if said["instance_id"] != old.instance
        }
