"""What a connection of a contract is told of a task or batch that changes while it opens, or that it comes
back to: each change once, and how it stands when what was missed cannot be told."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator

import pytest

from support.legacy_node import legacy_node as any_contract
from support.legacy_node import stream as any_stream
from support.legacy_notifications import (
    Ended,
    LegacyNode,
    event,
    legacy_node,
    opened_socket,
    opened_stream,
    said,
    text,
)
from support.node import ENGINES, place

pytestmark = pytest.mark.anyio
TASK_SOCKET = "/api/ws/tasks/T1"
FLAT_SOCKET = "/api/analysis/ws/task/T1"
TASK_STREAM = "/api/stream/tasks/T1"
BATCH_STREAM = "/api/stream/batches/B1"
LOST = "0123456789abcdef-7"


@pytest.fixture(params=ENGINES)
async def node(request: pytest.FixtureRequest) -> AsyncIterator[LegacyNode]:
    async with legacy_node(request.param) as running:
        yield running


@pytest.mark.parametrize("among", [False, True], ids=["alone", "among-others"])
async def test_a_report_announced_behind_the_first_frames_is_told_once(node: LegacyNode, among: bool) -> None:
    """It was stored when the state was read, and is announced when the connection is live."""
    await node.task()
    await node.report(step=1, total_steps=5, message="m1")
    tasks = node.node.composition.features.tasks
    stored = await tasks.get("default", "T1")
    announcements = tasks._announcements
    send, held = announcements._send, []

    async def hold(channel: tuple[str, str], changed: object) -> None:
        held.append((channel, changed))

    announcements._send = hold  # type: ignore[assignment,method-assign]
    await node.report(step=2, message="m2")
    announcements._send = send  # type: ignore[method-assign]
    socket, stream = await opened_socket(node, TASK_SOCKET), await opened_stream(node, TASK_STREAM)
    flat = await opened_socket(node, FLAT_SOCKET)
    assert (await said(socket))[1]["message"] == (await event(stream))[1]["message"] == "m2"
    assert json.loads(await text(flat))["message"] == "m2"
    early = stored.revision < held[-1][1].revision  # type: ignore[attr-defined]
    assert early and len(held) == 1
    await node.node.until(lambda: all(one.live for one in node.node.sessions))
    await send(*held[0])  # type: ignore[arg-type]
    if among:
        await node.notify("n1")
    await node.report(step=3, message="m3")
    assert (await said(socket))[1]["message"] == (await event(stream))[1]["message"] == "m3"
    assert json.loads(await text(flat))["message"] == "m3"


async def test_who_cannot_be_told_what_was_missed_is_told_how_it_stands(node: LegacyNode) -> None:
    """A cursor of a log that is gone: nothing follows it, not even how the task ended."""
    await node.batch(total=2)
    await node.task(batch="B1")
    batch = await opened_stream(node, BATCH_STREAM, **{"Last-Event-ID": LOST})
    assert (await event(batch))[1]["status"] == "processing"
    await node.report(step=1, total_steps=2, message="m1")
    stream = await opened_stream(node, TASK_STREAM, **{"Last-Event-ID": LOST})
    assert (await event(stream))[1]["message"] == "m1"
    await node.report(state="completed", message="end")
    assert [(await event(stream))[0] for _ in range(2)] == ["progress", "completed"]
    for cursor in (LOST, "nonsense"):
        late = await opened_stream(node, TASK_STREAM, **{"Last-Event-ID": cursor})
        assert [(await event(late))[0] for _ in range(2)] == ["progress", "completed"]


async def test_who_can_be_told_what_was_missed_is_told_nothing_else(node: LegacyNode) -> None:
    await node.task()
    stream = await opened_stream(node, TASK_STREAM)
    await node.report(step=1, total_steps=3, message="m1")
    cursor = (await stream.event())["id"]
    await node.report(step=2, message="m2")
    await node.report(state="completed", message="end")
    again = await opened_stream(node, TASK_STREAM, **{"Last-Event-ID": cursor})
    found = [await event(again) for _ in range(3)]
    assert [(name, data["message"]) for name, data in found] == [
        ("progress", "m2"),
        ("progress", "end"),
        ("completed", "end"),
    ]


async def test_a_grant_withdrawn_while_a_connection_opens_lets_nobody_in(node: LegacyNode) -> None:
    """The connection is in no index yet: nobody else would take the task from it."""
    await node.task()
    await node.node.grant("task:T1", "u2")
    sources = node.node.composition.node.states.sources
    read, reading, go_on = sources["task"], asyncio.Event(), asyncio.Event()

    async def slow(tenant: str, channel: str) -> bytes | None:
        reading.set()
        await go_on.wait()
        return await read(tenant, channel)

    sources["task"] = slow
    opening = asyncio.create_task(node.socket(TASK_SOCKET, "u2"))
    await reading.wait()
    inside = node.node.composition.node
    before = inside.grant_changes
    await node.node.grant("task:T1")
    await node.node.until(lambda: inside.grant_changes > before, "the node knows of the withdrawal")
    go_on.set()
    with pytest.raises(Ended) as ended:
        await text(await opening)
    assert (ended.value.code, ended.value.reason) == (4004, "task not found")


async def test_reports_through_two_nodes_reach_each_watcher_of_both_once() -> None:
    async with place("redis") as where, legacy_node(where) as one, legacy_node(where) as other:
        await one.task()
        total = 30

        async def work() -> None:
            for step in range(1, total + 1):
                await (one if step % 3 else other).report(step=step, total_steps=total, message=f"m{step}")
            await one.report(state="completed", message="end")

        async def watch(node: LegacyNode, path: str) -> list[tuple[str, str]]:
            wire = await (node.stream if "stream" in path else node.socket)(path)
            found = []
            while True:
                name, data = await (event if "stream" in path else said)(wire)
                if name != "connected":
                    found.append((name, data["message"]))
                if name == "completed":
                    return found

        worker, watchers = asyncio.create_task(work()), []
        for number in range(16):
            path = TASK_STREAM if number % 2 else TASK_SOCKET
            watchers.append(asyncio.create_task(watch(one if number % 4 < 2 else other, path)))
            await asyncio.sleep(0.01)
        for found in await asyncio.gather(*watchers):
            assert len(found) == len(set(found)), "each once"
            steps = [int(message[1:]) for _, message in found if message.startswith("m")]
            assert steps == list(range(total + 1 - len(steps), total + 1)), "in order, none left out"
        await worker


@pytest.mark.parametrize("engine", ENGINES)
async def test_who_comes_back_to_a_hole_is_told_how_it_stands(engine: str) -> None:
    async with any_contract(engine, dialects=("notifications",), bus={"history_entries": 3}) as node:
        tasks = node.composition.features.tasks
        await tasks.register("default", "T1", "u1")
        async with await any_stream(node, TASK_STREAM, "u1") as first:
            await first.block()
            await tasks.progress("default", "T1", message="m0")
            cursor = (await first.block()).splitlines()[0].removeprefix("id: ")
        for number in range(1, 7):
            await tasks.progress("default", "T1", message=f"m{number}")
        async with await any_stream(node, TASK_STREAM, "u1", last_event_id=cursor) as back:
            assert "connected" in await back.block()
            assert '"message":"m6"' in await back.block()
            await tasks.finish("default", "T1", "completed")
            ends = [block.splitlines() for block in await back.blocks(2)]
            assert [lines[-2 - (lines[-1] == "")] for lines in ends] == [
                "event: progress",
                "event: completed",
            ]
