"""The contract `notifications` through a running node: what its clients are told, over both kinds of
connection, on every engine."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator

import pytest

from support.legacy_notifications import (
    SOCKET,
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
from support.node import ENGINES

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


# ── notifications ──


@pytest.mark.covers("S1.8", "S1.9", "S1.10", "S1.40", "S1.41", "R36")
async def test_a_notification_on_both_kinds_of_connection(node: LegacyNode) -> None:
    socket, stream = await node.socket(), await node.stream()
    assert stream.response is not None
    head = stream.response.headers
    assert head["content-type"] == "text/event-stream; charset=utf-8"
    assert (head["cache-control"], head["connection"], head["x-accel-buffering"]) == (
        "no-cache",
        "keep-alive",
        "no",
    )
    kind, data = await said(socket)
    assert (kind, list(data)) == ("connected", ["user_id", "timestamp", "message"])
    assert data["user_id"] == "u1" and data["timestamp"].endswith("Z")
    assert await block(stream) == 'event: connected\ndata: {"channel":"notifications:u1"}\n\n'
    await node.notify("n1", type="analysis", title="分析完成", content='a "b"\n', link="/stocks/000001")
    whole = json.loads(await text(socket))
    assert list(whole["data"]) == [
        "id",
        "type",
        "title",
        "content",
        "link",
        "source",
        "status",
        "created_at",
    ]
    assert whole["type"] == "notification" and whole["data"]["title"] == "分析完成"
    assert whole["data"]["created_at"].endswith("Z") and whole["data"]["status"] == "unread"
    name, blocked = await event(stream)
    assert (name, blocked) == ("notification", whole["data"])


@pytest.mark.covers("S1.44", "R12", "R13")
async def test_every_tab_once_and_nobody_elses(node: LegacyNode) -> None:
    mine = [await opened_socket(node), await opened_stream(node), await opened_socket(node)]
    other = await opened_stream(node, STREAM, "u2")
    await node.notify("a")
    await node.notify("b", {"all": True})
    await node.notify("c", {"users": ["u1", "u2"]})
    await node.notify("d", {"user": "u2"})
    await node.notify("end", {"all": True})
    for wire in mine:
        assert [one["id"] for one in await nothing_but(node, wire, "notification", 3)] == ["a", "b", "c"]
    assert [one["id"] for one in await nothing_but(node, other, "notification", 3)] == ["b", "c", "d"]


async def test_no_other_kind_of_frame(node: LegacyNode) -> None:
    wires = [await opened_socket(node), await opened_stream(node)]
    await node.notify("n1")
    await node.node.publish("user:u1", {"x": 1}, kind="sync_update")
    await node.task()
    await node.report(step=1, total_steps=2, message="m")
    answer = await node.node.http.post("/api/notifications/n1/read", headers=node.node.auth("u1"))
    assert answer.status_code == 200
    await node.notify("end")
    for wire in wires:
        await nothing_but(node, wire, "notification", 1)


@pytest.mark.covers("S1.4")
async def test_what_clients_say_is_read_and_ignored(node: LegacyNode) -> None:
    await node.task()
    for path in (SOCKET, TASK_SOCKET, FLAT_SOCKET):
        wire = await opened_socket(node, path)
        for said_ in (b"ping", b'{"type":"ping"}', b"{", b"[]", "é".encode()):
            wire.send(1, said_)
        wire.send(2, b"\x00\xff")
        await quiet(wire)


@pytest.mark.covers("R7", "S1.45")
async def test_r7_a_user_with_streams_only_gets_everything(node: LegacyNode) -> None:
    streams = [await opened_stream(node, STREAM, "u2")]
    await node.notify("alone", {"user": "u2"})
    assert (await event(streams[0]))[1]["id"] == "alone"
    socket = await opened_socket(node, SOCKET, "u1")
    streams.append(await opened_stream(node, STREAM, "u2"))
    await node.notify("among", {"user": "u2"})
    await node.notify("all", {"all": True})
    for stream in streams:
        assert [(await event(stream))[1]["id"] for _ in range(2)] == ["among", "all"]
    assert (await said(socket))[1]["id"] == "all"


@pytest.mark.covers("R10")
async def test_r10_text_that_templates_broke_on(node: LegacyNode) -> None:
    title, content = 'q " \\ 🚀 分析', 'q " \\ \n\r\t \u2028 🚀 分析'
    stream, socket = await opened_stream(node), await opened_socket(node)
    await node.notify("n1", title=title, content=content)
    for _kind, data in (await event(stream), await said(socket)):
        assert (data["title"], data["content"]) == (title, content)


async def test_a_browser_resumes_by_itself_and_each_publication_comes_once(node: LegacyNode) -> None:
    stream = await opened_stream(node)
    await node.notify("a")
    fields = await stream.event()
    cursor = fields["id"]
    await stream.close()
    await node.notify("b")
    await node.notify("c")
    again = await opened_stream(node, last_event_id=cursor)
    await node.notify("end")
    assert [one["id"] for one in await nothing_but(node, again, "notification", 2)] == ["b", "c"]
    fresh = await opened_stream(node)
    await node.notify("end2")
    await nothing_but(node, fresh, "notification", 0)


@pytest.mark.parametrize("around", ["{} ", "\t{}\t"])
async def test_white_space_around_a_last_event_id_is_no_part_of_it(node: LegacyNode, around: str) -> None:
    """RFC 9110 5.5. Such a cursor was taken for an unknown one: the stream began live, what lay between was
    lost."""
    stream = await opened_stream(node)
    await node.notify("a")
    cursor = (await stream.event())["id"]
    await node.notify("b")
    again = await opened_stream(node, last_event_id=around.format(cursor))
    assert (await event(again))[1]["id"] == "b"


async def test_without_ids_a_stream_is_byte_for_byte_the_older_one() -> None:
    async with legacy_node("memory", stream_ids=False) as node:
        stream = await opened_stream(node)
        await node.notify("n1")
        assert (await block(stream)).startswith('event: notification\ndata: {"id":"n1",')


# ── refusals ──


@pytest.mark.covers("R14", "R21")
async def test_r21_bad_tokens_are_refused_in_words_clients_know(node: LegacyNode) -> None:
    await node.task()
    await node.batch()
    expired = node.node.token("u1", life_s=-10)
    for path in (SOCKET, TASK_SOCKET, FLAT_SOCKET):
        for query in ("", "?token=", f"?token={expired}", "?token=demo-token"):
            wire = await node.raw_socket(path + query)
            with pytest.raises(Ended) as ended:
                await text(wire)
            assert (ended.value.code, ended.value.reason) == (1008, "Unauthorized"), path + query
            if query:
                continue
    details = {
        STREAM: ["Unauthorized"] * 3,
        TASK_STREAM: ["No authorization header", "Invalid authorization format", "Invalid token"],
        BATCH_STREAM: ["No authorization header", "Invalid authorization format", "Invalid token"],
    }
    for path, (missing, malformed, bad) in details.items():
        good = node.node.token("u1")
        for wire, detail in (
            (await node.raw_stream(path), missing),
            (await node.raw_stream(path + "?token=" + good, authorization=good), malformed),
            (await node.raw_stream(path + "?token=" + good, authorization="Bearer x"), bad),
            (await node.raw_stream(path + "?token=" + expired), bad),
        ):
            assert wire.response is not None and wire.response.headers["www-authenticate"] == "Bearer"
            status, body = problem(wire)
            assert (status, body["detail"], body["title"]) == (401, detail, "Unauthorized")


@pytest.mark.covers("R18")
async def test_r18_other_peoples_tasks(node: LegacyNode) -> None:
    await node.task()
    await node.batch()
    for path in (TASK_SOCKET, FLAT_SOCKET, "/api/ws/tasks/none", "/api/ws/tasks/%0A"):
        wire = await node.socket(path, "u2")
        with pytest.raises(Ended) as ended:
            await text(wire)
        assert (ended.value.code, ended.value.reason) == (4004, "task not found")
    for path, detail in (
        (TASK_STREAM, "Task not found"),
        ("/api/stream/tasks/none", "Task not found"),
        (BATCH_STREAM, "Batch not found"),
        ("/api/stream/batches/none", "Batch not found"),
    ):
        status, body = problem(await node.stream(path, "u2"))
        assert (status, body["detail"]) == (404, detail)
    await opened_socket(node, TASK_SOCKET, "root", "admin")
    await opened_stream(node, BATCH_STREAM, "root", "admin")


# ── tasks ──


@pytest.mark.covers("R25", "S1.11", "S1.12", "S1.13")
async def test_r25_the_silent_task_socket(node: LegacyNode) -> None:
    await node.task()
    await node.task("T2")
    socket, elsewhere, other = (
        await opened_socket(node, TASK_SOCKET),
        await opened_socket(node),
        await opened_socket(node, "/api/ws/tasks/T2"),
    )
    await node.report(step=1, total_steps=5, message="正在分析...")
    kind, data = await said(socket)
    assert kind == "progress" and list(data) == [
        "task_id",
        "message",
        "step",
        "total_steps",
        "progress",
        "timestamp",
    ]
    assert (data["task_id"], data["step"], data["total_steps"], data["progress"]) == ("T1", 1, 5, 20.0)
    await node.report(state="completed", message="完成", result={})
    kind, data = await said(socket)
    assert (kind, data["status"], data["result"], data["progress"]) == ("completed", "completed", {}, 100.0)
    await node.report("T2", state="cancelled", error="by user")
    kind, data = await said(other)
    assert (kind, data["task_id"], data["status"]) == ("error", "T2", "cancelled")
    await node.notify("end")
    await nothing_but(node, elsewhere, "notification", 0)


@pytest.mark.covers("R33")
async def test_r33_a_failure_has_the_numbers_that_are_known(node: LegacyNode) -> None:
    await node.task()
    socket, stream = await opened_socket(node, TASK_SOCKET), await opened_stream(node, TASK_STREAM)
    await node.report(step=2, total_steps=5, message="m")
    await node.report(state="failed", error="reason")
    assert (await said(socket))[0] == "progress"
    kind, data = await said(socket)
    assert kind == "error" and (data["step"], data["total_steps"], data["progress"]) == (2, 5, 40.0)
    assert data["error"] == "reason"
    events = [await event(stream) for _ in range(3)]
    assert [name for name, _ in events] == ["progress", "progress", "failed"]
    assert events[2][1]["progress"] == 40.0 and events[2][1]["error"] == "reason"


@pytest.mark.covers("R24")
async def test_r24_after_the_end_the_task_socket_stays_open(node: LegacyNode) -> None:
    await node.task()
    await node.report(state="completed", message="完成")
    wires = [await opened_socket(node, TASK_SOCKET), await opened_socket(node, FLAT_SOCKET)]
    kinds = [await said(wires[0]) for _ in range(2)]
    assert [kind for kind, _ in kinds] == ["progress", "completed"], "at once"
    assert json.loads(await text(wires[1]))["status"] == "completed"
    node.node.sweep(3)
    for wire in wires:
        await quiet(wire)


async def test_the_older_task_socket(node: LegacyNode) -> None:
    await node.task()
    wire = await node.socket(FLAT_SOCKET)
    assert await text(wire) == (
        '{"type":"connection_established","task_id":"T1","message":"WebSocket 连接已建立"}'
    )
    await node.report(step=1, total_steps=5, message="m")
    found = json.loads(await text(wire))
    assert list(found) == ["type", "task_id", "status", "progress", "message", "current_step", "timestamp"]
    assert [found[key] for key in ("status", "progress", "current_step")] == ["running", 20, "1"]
    await node.report(state="failed", error="e")
    assert json.loads(await text(wire))["status"] == "failed"


@pytest.mark.covers("S1.47")
async def test_the_task_stream(node: LegacyNode) -> None:
    await node.task()
    await node.report(step=1, total_steps=5, message="🚀 开始")
    stream = await opened_stream(node, TASK_STREAM)
    name, data = await event(stream)
    assert (name, data["progress"]) == ("progress", 20.0), "the last known"
    await node.report(step=2, message="…")
    assert (await event(stream))[1]["step"] == 2
    await node.report(state="completed", message="完成", result=None)
    assert [(await event(stream))[0] for _ in range(2)] == ["progress", "completed"]
    late = await opened_stream(node, TASK_STREAM)
    assert [(await event(late))[0] for _ in range(2)] == ["progress", "completed"]


async def test_whoever_comes_in_between_is_told_the_rest(node: LegacyNode) -> None:
    """While reports come in, every client sees them in order, each once, and the end once."""
    await node.task()
    total = 30

    async def work() -> None:
        for step in range(1, total + 1):
            await node.report(step=step, total_steps=total, message=f"m{step}")
        await node.report(state="completed", message="end")

    async def watch(path: str) -> list[tuple[str, str]]:
        wire = await (node.stream if "stream" in path else node.socket)(path)
        found = []
        while True:
            name, data = await (event if "stream" in path else said)(wire)
            if name != "connected":
                found.append((name, data["message"]))
            if name == "completed":
                return found

    worker = asyncio.create_task(work())
    watchers = []
    for number in range(12):
        watchers.append(asyncio.create_task(watch(TASK_STREAM if number % 2 else TASK_SOCKET)))
        await asyncio.sleep(0)
    for found in await asyncio.gather(*watchers):
        assert len(found) == len(set(found)), "each once"
        steps = [int(message[1:]) for _, message in found if message.startswith("m")]
        assert steps == list(range(steps[0], total + 1)) if steps else found[-1] == ("completed", "end")
        assert [name for name, _ in found].count("completed") == 1
    await worker


# ── batches ──


async def test_the_batch_stream(node: LegacyNode) -> None:
    await node.batch(total=2)
    for ident in ("t1", "t2"):
        await node.task(ident, batch="B1")
    stream = await node.stream(BATCH_STREAM)
    assert await block(stream) == 'event: connected\ndata: {"batch_id":"B1","message":"已连接批次进度流"}\n\n'
    name, data = await event(stream)
    assert name == "progress" and list(data) == [
        "batch_id",
        "status",
        "message",
        "progress",
        "total_tasks",
        "completed",
        "failed",
        "processing",
        "timestamp",
    ]
    assert (data["status"], data["message"]) == ("processing", "批次处理中: 0/2 已完成, 0 处理中")
    await node.report("t1", state="completed")
    assert (await event(stream))[1]["message"] == "批次处理中: 1/2 已完成, 0 处理中"
    await node.report("t2", state="failed", error="e")
    name, data = await event(stream)
    assert (name, data["status"], data["message"]) == ("progress", "partial", "批次部分成功: 1 成功, 1 失败")
    last = await block(stream)
    assert last.endswith(
        'event: finished\ndata: {"batch_id":"B1","final_status":"partial"}\nretry: 300000\n\n'
    )
    node.node.sweep(3)
    with pytest.raises(Ended):
        await event(stream)
    late = await opened_stream(node, BATCH_STREAM)
    assert [(await event(late))[0] for _ in range(2)] == ["progress", "finished"]
    with pytest.raises(Ended):
        await event(late)


async def test_an_empty_batch(node: LegacyNode) -> None:
    await node.batch()
    stream = await opened_stream(node, BATCH_STREAM)
    assert await event(stream) == ("progress", {"batch_id": "B1", "message": "批次无任务", "progress": 0})
    await node.task("t1", batch="B1")
    assert (await event(stream))[1]["total_tasks"] == 1
