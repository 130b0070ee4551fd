"""The contract `notifications` where it is easily broken: states that cannot be read, ids with signs in them,
statistics over several nodes, and the whole life of a task on its socket."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack
from urllib.parse import quote

import pytest

from dualcast.model.errors import BusUnavailable
from support.legacy_notifications import (
    SOCKET,
    STREAM,
    Ended,
    event,
    legacy_node,
    nothing_but,
    opened_socket,
    opened_stream,
    problem,
    said,
    text,
)
from support.node import ENGINES, place, running_node
from support.raw_http import open_sse
from support.redis_server import RedisServer
from support.text_socket import open_text

pytestmark = pytest.mark.anyio
TASK_SOCKET = "/api/ws/tasks/T1"
FLAT_SOCKET = "/api/analysis/ws/task/T1"
TASK_STREAM = "/api/stream/tasks/T1"
BATCH_STREAM = "/api/stream/batches/B1"


async def test_who_cannot_be_told_how_a_task_stands_comes_again() -> None:
    """Of a finished task nothing follows the first frames: without them the client would wait for ever."""
    async with legacy_node("memory") as node:
        await node.task()
        await node.report(state="completed", message="完成")
        await node.batch()
        sources = node.node.composition.node.states.sources
        working = dict(sources)

        async def away(tenant: str, channel: str) -> bytes | None:
            raise BusUnavailable("away")

        sources.update(task=away, batch=away)
        for path in (TASK_SOCKET, FLAT_SOCKET):
            with pytest.raises(Ended) as ended:
                await text(await node.socket(path))
            assert (ended.value.code, ended.value.reason) == (1013, "try again later")
        refused = await node.stream(TASK_STREAM)
        assert problem(refused)[0] == 503
        assert refused.response is not None and int(refused.response.headers["retry-after"]) > 0
        batch = await opened_stream(node, BATCH_STREAM)
        assert await event(batch) == ("error", {"error": "获取批次状态失败"})
        with pytest.raises(Ended):
            await event(batch)
        assert node.node.sessions == []
        sources.update(working)
        socket = await opened_socket(node, TASK_SOCKET)
        assert [(await said(socket))[0] for _ in range(2)] == ["progress", "completed"]


@pytest.mark.parametrize("ident", ["a%41", "order/5", "50%", "a+b", "n?x#y"])
async def test_a_notification_is_marked_whatever_signs_its_id_has(ident: str) -> None:
    async with legacy_node("memory") as node:
        await node.notify(ident)
        headers, path = node.node.auth("u1"), f"/api/notifications/{quote(ident, safe='')}/read"
        answer = await node.node.http.post(path, headers=headers)
        assert answer.status_code == 200, answer.text
        found = (await node.node.http.get("/api/notifications", headers=headers)).json()["data"]["items"]
        assert [(item["id"], item["status"]) for item in found] == [(ident, "read")]


@pytest.mark.parametrize("ident", ["a%41", "order/5", "任务 1", "50%", "a+b"])
async def test_a_task_is_watched_whatever_signs_its_id_has(ident: str) -> None:
    async with legacy_node("memory") as node:
        sent = quote(ident, safe="")
        await node.task(sent)
        wires = [
            await opened_socket(node, "/api/ws/tasks/" + sent),
            await opened_stream(node, "/api/stream/tasks/" + sent),
        ]
        await node.report(sent, message="m")
        assert (await said(wires[0]))[1]["task_id"] == (await event(wires[1]))[1]["task_id"] == ident


@pytest.mark.covers("S1.14")
async def test_statistics_sum_all_nodes_dialects_and_streams() -> None:
    async with AsyncExitStack() as stack:
        where = await stack.enter_async_context(place("redis"))
        first, second = [await stack.enter_async_context(running_node(where)) for _ in range(2)]
        for node, path, user in (
            (first, "/api/ws/notifications", "u1"),
            (second, "/api/ws", "u1"),
            (second, "/ws/u2", "u2"),
            (second, "/api/ws", ""),
        ):
            token = node.token(user) if user else ""
            socket = await stack.enter_async_context(await open_text(node.port, path, token))
            assert await socket.text()
        stream = await open_sse(first.port, f"{STREAM}?token={first.token('u1')}")
        stack.push_async_callback(stream.close)
        assert (await stream.event())["event"] == "connected"
        admin = first.auth("root", "admin")
        expected = ({"u1": 3, "u2": 1}, 5)
        async with asyncio.timeout(20):
            for node in (first, second):
                while True:
                    found = (await node.http.get("/api/ws/stats", headers=admin)).json()
                    if (found["users"], found["total_connections"]) == expected:
                        break
                    await asyncio.sleep(0.05)
                assert (found["total_users"], found["data"]["total_connections"]) == (2, 5)
                assert found["data"]["users"] == ["u1", "u2"]


@pytest.mark.covers("R25", "S1.12")
@pytest.mark.parametrize("engine", ENGINES)
async def test_r25_progress_both_ends_and_heartbeats_on_task_sockets_and_nowhere_else(engine: str) -> None:
    async with legacy_node(engine, ws_heartbeat_s=3600.0) as node:
        for ident in ("T1", "T2", "T3"):
            await node.task(ident)
        sockets = [await opened_socket(node, f"/api/ws/tasks/T{number}") for number in (1, 2, 3)]
        elsewhere = [
            await opened_socket(node),
            await opened_stream(node),
            await opened_socket(node, SOCKET, "u2"),
        ]
        await node.report("T1", step=1, total_steps=2, message="m")
        await node.report("T1", state="completed", message="end")
        await node.report("T2", state="failed", error="reason")
        now = asyncio.get_running_loop().time() + 3601
        for session in node.node.sessions:
            if any(feed.name.startswith("task:") for feed in session.channels):
                session.legacy.clock.turn_of_wheel(now)  # type: ignore[attr-defined]
        await node.notify("end", {"all": True})
        found = [
            [(await said(wire))[0] for _ in range(count)]
            for wire, count in zip(sockets, (3, 2, 1), strict=True)
        ]
        assert found == [["progress", "completed", "heartbeat"], ["error", "heartbeat"], ["heartbeat"]]
        for wire in elsewhere:
            await nothing_but(node, wire, "notification", 0)


async def test_a_batch_that_moves_here_from_the_older_queue_goes_on_being_told() -> None:
    """Its revisions begin anew: they are those of another registration."""
    with RedisServer() as server:
        async with place("redis", redis_url=server.url) as where, legacy_node(where) as node:
            server.command("HSET", "qa:batch:B1", "user", "u1", "submitted", "2", "created_at", "1769860800")
            stream = await opened_stream(node, BATCH_STREAM)
            assert (await event(stream))[1]["completed"] == 0
            await node.batch(total=1)
            assert (await event(stream))[1]["total_tasks"] == 1
            await node.task("t1", batch="B1")
            assert (await event(stream))[1]["status"] == "processing"
            await node.report("t1", state="completed")
            assert [(await event(stream))[0] for _ in range(2)] == ["progress", "finished"]
