"""The contract `notifications` over time: heartbeats, idle ends, limits, faults of the bus, and the older
queue."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator

import pytest

from support.legacy_notifications import (
    STREAM,
    Ended,
    LegacyNode,
    block,
    event,
    legacy_node,
    nothing_but,
    opened_socket,
    opened_stream,
    problem,
    quiet,
    said,
    text,
)
from support.node import ENGINES, place
from support.redis_server import RedisServer

pytestmark = pytest.mark.anyio
SETUPS = [*((engine, True) for engine in ENGINES), ("memory", False)]
TASK_SOCKET = "/api/ws/tasks/T1"
FLAT_SOCKET = "/api/analysis/ws/task/T1"
TASK_STREAM = "/api/stream/tasks/T1"
BATCH_STREAM = "/api/stream/batches/B1"


@pytest.fixture(params=SETUPS, ids=lambda setup: f"{setup[0]}-{'detached' if setup[1] else 'plain'}")
async def node(request: pytest.FixtureRequest) -> AsyncIterator[LegacyNode]:
    engine, detach = request.param
    async with legacy_node(engine, detach=detach) as running:
        yield running


# ── the clock ──


def turn(node: LegacyNode, seconds: float) -> None:
    """What the clock of every connection does when so many seconds have passed."""
    now = asyncio.get_running_loop().time() + seconds
    for session in node.node.sessions:
        session.legacy.clock.turn_of_wheel(now)  # type: ignore[attr-defined]


@pytest.mark.covers("R4", "S1.9", "S1.12", "S1.37", "S1.43")
async def test_r4_one_heartbeat_per_interval(node: LegacyNode) -> None:
    await node.task()
    beating = [
        await opened_socket(node),
        await opened_socket(node, TASK_SOCKET),
        await opened_stream(node),
    ]
    flat = await opened_socket(node, FLAT_SOCKET)
    for seconds in (10, 20, 29, 31, 45, 59, 61):
        turn(node, seconds)
    await node.notify("end")
    await node.report(message="m")
    for wire in beating[:2]:
        for _ in range(2):
            kind, data = await said(wire)
            assert kind == "heartbeat" and list(data) == ["timestamp"] and data["timestamp"].endswith("Z")
    beats = [await event(beating[2]) for _ in range(2)]
    assert [name for name, _ in beats] == ["heartbeat", "heartbeat"]
    assert all(isinstance(data["ts"], float) for _, data in beats)
    assert (await said(beating[0]))[0] == (await event(beating[2]))[0] == "notification"
    assert (await said(beating[1]))[0] == "progress"
    assert json.loads(await text(flat))["type"] == "progress_update", "no heartbeat frame"


async def test_the_interval_is_a_setting() -> None:
    async with legacy_node("memory", ws_heartbeat_s=1.0) as node:
        wires = [await opened_socket(node), await opened_stream(node)]
        assert (await said(wires[0]))[0] == (await event(wires[1]))[0] == "heartbeat"


@pytest.mark.covers("R6")
async def test_r6_a_heartbeat_comes_before_the_idle_end(node: LegacyNode) -> None:
    await node.task()
    stream = await opened_stream(node, TASK_STREAM)
    turn(node, 11)
    name, data = await event(stream)
    assert name == "heartbeat" and isinstance(data["timestamp"], str) and float(data["timestamp"]) > 0
    turn(node, 250)
    await node.report(message="m")
    assert [(await event(stream))[0] for _ in range(2)] == ["heartbeat", "progress"]
    turn(node, 310)
    assert (await event(stream))[0] == "heartbeat", "there was progress at 250"
    turn(node, 900)
    with pytest.raises(Ended):
        while (await event(stream))[0] == "heartbeat":
            pass


@pytest.mark.covers("R11")
async def test_r11_a_batch_with_steady_progress_is_not_cut(node: LegacyNode) -> None:
    await node.batch(total=9)
    stream = await opened_stream(node, BATCH_STREAM)
    assert (await event(stream))[0] == "progress"
    for number in range(6):
        await node.task(f"t{number}", batch="B1")
        assert (await event(stream))[0] == "progress"
        turn(node, 500 * (number + 1))
    turn(node, 500 * 6 + 590)
    await node.report("t0", state="completed")
    assert (await event(stream))[1]["completed"] == 1
    turn(node, 500 * 12)
    turn(node, 500 * 14)
    with pytest.raises(Ended):
        await event(stream)


@pytest.mark.covers("R5", "S1.5")
async def test_r5_an_idle_connection_is_told_at_once(node: LegacyNode) -> None:
    wires = [await opened_socket(node), await opened_stream(node)]
    turn(node, 20)
    await node.notify("n1")
    async with asyncio.timeout(1):
        assert (await said(wires[0]))[1]["id"] == (await event(wires[1]))[1]["id"] == "n1"


# ── limits, faults, ends ──


async def test_the_newest_connections_win() -> None:
    async with legacy_node("memory", limit=3) as node:
        oldest, stream = await opened_socket(node), await opened_stream(node)
        await node.task()
        task = await opened_socket(node, TASK_SOCKET)
        newest = [await opened_socket(node), await opened_stream(node)]
        with pytest.raises(Ended) as ended:
            await text(oldest)
        assert (ended.value.code, ended.value.reason) == (4409, "connection limit")
        newest.append(await opened_stream(node))
        assert await block(stream) == (
            'event: replaced\ndata: {"reason":"connection limit","limit":3}\nretry: 300000\n\n'
        )
        with pytest.raises(Ended):
            await event(stream)
        await node.notify("end")
        for wire in newest:
            await nothing_but(node, wire, "notification", 0)
        await quiet(task)


@pytest.mark.covers("R8", "R9", "R23")
async def test_r8_no_error_event_when_the_server_stops(node: LegacyNode) -> None:
    await node.task()
    await node.batch()
    await node.task("t1", batch="B1")
    streams = [await opened_stream(node, path) for path in (STREAM, TASK_STREAM, BATCH_STREAM)]
    socket = await opened_socket(node)
    await node.node.composition.drain()
    with pytest.raises(Ended) as ended:
        await text(socket)
    assert (ended.value.code, ended.value.reason) == (1012, "service restart")
    for wire in streams:
        with pytest.raises(Ended):
            while True:
                assert (await event(wire))[0] == "progress", "the stream simply ends"


@pytest.mark.covers("R8")
async def test_r8_no_error_event_when_the_bus_fails() -> None:
    with RedisServer(aof="always") as server:
        async with place("redis", redis_url=server.url) as where, legacy_node(where) as node:
            stream, socket = await opened_stream(node), await opened_socket(node)
            server.kill()
            hub = node.node.composition.hub
            await node.node.until(lambda: not hub.available, "the bus is away")
            server.start()
            await node.node.until(lambda: hub.available, "the bus is back")
            await node.notify("end")
            for wire in (stream, socket):
                await nothing_but(node, wire, "notification", 0)


@pytest.mark.covers("R1", "S1.1", "S1.2", "S1.3", "S1.6", "S1.48")
async def test_r1_connections_of_clients_are_none_of_redis() -> None:
    async with legacy_node("redis") as node:
        await node.task()

        async def pool() -> tuple[int, int, int]:
            assert node.plain is not None
            facts, shown = node.plain.pool(), node.node.composition.hub
            open_ = facts.available_connections + facts.in_use_connections
            return facts.in_use_connections, open_, len(shown.sessions)

        first = await opened_stream(node)
        await node.notify("warm")
        await event(first)
        in_use, open_, sessions = await pool()
        hub = node.node.composition.hub
        assert in_use == 0
        for path in (STREAM, TASK_STREAM):
            wires = [await node.stream(path) for _ in range(50)]
            for _ in range(50):
                # Gone while it is being let in.
                early = await node.connected()
                early.write(f"GET {path}?token={node.node.token('u1')} HTTP/1.1\r\nhost: x\r\n\r\n".encode())
                await early.writer.drain()
                early.reset()
            assert (await pool())[:2] == (in_use, open_), "whatever the number of streams"
            for number, wire in enumerate(wires):
                if number % 2:
                    wire.reset()
                else:
                    await wire.close()
            await node.node.until(lambda: len(hub.sessions) == sessions, "all aborted streams are gone")
        assert await pool() == (in_use, open_, sessions)


# ── the older queue ──


async def test_tasks_and_batches_of_the_older_queue() -> None:
    with RedisServer() as server:
        async with place("redis", redis_url=server.url) as where, legacy_node(where) as node:

            def put(key: str, **fields: str) -> None:
                server.command("HSET", key, *(part for pair in fields.items() for part in pair))

            put("qa:task:T1", user="u1", status="processing", batch_id="B1")
            put("qa:task:T2", user="u1", status="queued", batch_id="B1")
            put("qa:batch:B1", user="u1", status="processing", submitted="2")
            server.command("SADD", "qa:batch_tasks:B1", "T1", "T2")
            for path, detail in ((TASK_STREAM, "Task not found"), (BATCH_STREAM, "Batch not found")):
                status, body = problem(await node.stream(path, "u2"))
                assert (status, body["detail"]) == (404, detail)
            await opened_socket(node, TASK_SOCKET)
            streams = [await opened_stream(node, BATCH_STREAM) for _ in range(2)]
            for stream in streams:
                assert (await event(stream))[1]["message"] == "批次处理中: 0/2 已完成, 1 处理中"
            put("qa:task:T1", status="completed")
            for stream in streams:
                assert (await event(stream))[1]["message"] == "批次处理中: 1/2 已完成, 0 处理中"
            put("qa:task:T2", status="failed")
            for stream in streams:
                assert (await event(stream))[1]["status"] == "partial"
                assert await event(stream) == ("finished", {"batch_id": "B1", "final_status": "partial"})
            node.node.sweep(3)
            for stream in streams:
                with pytest.raises(Ended):
                    await event(stream)
            finished = await opened_stream(node, TASK_STREAM)
            assert [(await event(finished))[0] for _ in range(2)] == ["progress", "completed"]


async def test_dev_opens_the_older_task_socket_only() -> None:
    async with legacy_node("memory", dev=True) as node:
        await node.task()
        await node.report(step=1, total_steps=5, message="m")
        wire = await node.raw_socket(FLAT_SOCKET)
        assert json.loads(await text(wire))["type"] == "connection_established"
        assert json.loads(await text(wire))["progress"] == 20
        await node.report(state="completed")
        assert json.loads(await text(wire))["status"] == "completed"
        refused = await node.raw_socket(TASK_SOCKET)
        with pytest.raises(Ended) as ended:
            await text(refused)
        assert ended.value.code == 1008


# ── resuming ──


async def test_a_task_stream_resumes_where_it_was(node: LegacyNode) -> None:
    await node.task()
    stream = await opened_stream(node, TASK_STREAM)
    await node.report(step=1, total_steps=3, message="a")
    cursor = (await stream.event())["id"]
    await stream.close()
    await node.report(step=2, message="b")
    await node.report(state="completed", message="c")
    again = await opened_stream(node, TASK_STREAM, last_event_id=cursor)
    found = [await again.event() for _ in range(3)]
    assert [one["event"] for one in found] == ["progress", "progress", "completed"]
    assert [json.loads(one["data"])["step"] for one in found] == [2, 3, 3]
    assert "id" not in found[1] and found[2]["id"] != found[0]["id"], "a pair that was cut comes again"
    last = await opened_stream(node, TASK_STREAM, last_event_id=found[2]["id"])
    turn(node, 11)
    assert (await event(last))[0] == "heartbeat", "it has had everything"


async def test_a_batch_stream_that_missed_the_end(node: LegacyNode) -> None:
    await node.batch(total=1)
    await node.task("t1", batch="B1")
    stream = await opened_stream(node, BATCH_STREAM)
    assert (await event(stream))[0] == "progress"
    await node.report("t1", message="m")
    cursor = (await stream.event())["id"]
    await stream.close()
    await node.report("t1", state="completed")
    again = await opened_stream(node, BATCH_STREAM, last_event_id=cursor)
    assert [(await event(again))[0] for _ in range(2)] == ["progress", "finished"]
    with pytest.raises(Ended):
        await event(again)
