"""The contract `progress` at its limits: who counts together, what the server's ping says, and what channels
of its own show elsewhere (docs/contracts/legacy-wire.md sections 1.7, 3.6, 7.1, 7.4).
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack

import pytest

from dualcast.dialects.progress import Frames
from dualcast.model.publication import Entry, Publication
from support.legacy_node import Closed
from support.node import ENGINES, Node, running_node
from support.text_socket import TextSocket, open_text

pytestmark = pytest.mark.anyio


@pytest.fixture
async def stack() -> AsyncIterator[AsyncExitStack]:
    async with AsyncExitStack() as made:
        yield made


async def opened(stack: AsyncExitStack, node: Node, client: str, *roles: str, user: str = "") -> TextSocket:
    token = node.token(user or client.partition(":")[0], roles=list(roles))
    return await stack.enter_async_context(await open_text(node.port, "/ws/" + client, token))


async def test_client_ids_of_one_user_count_together(stack: AsyncExitStack) -> None:
    """A stream is the endpoint; a client id is no task."""
    async with running_node("memory", legacy={"connections_per_user": 2}) as node:
        sockets = [await opened(stack, node, f"u1:{number}") for number in range(3)]
        other = await opened(stack, node, "u2:0")
        for socket in (*sockets, other):
            assert (await socket.frame())["type"] == "connection"
        with pytest.raises(Closed) as closed:
            await sockets[0].text()
        assert (closed.value.code, closed.value.reason) == (4409, "connection limit")
        for socket in (*sockets[1:], other):
            await socket.tell(type="ping")
            assert (await socket.frame())["type"] == "pong"


@pytest.mark.parametrize("engine", ENGINES)
async def test_a_burst_of_handshakes_stays_within_the_limit(stack: AsyncExitStack, engine: str) -> None:
    async with running_node(engine, legacy={"progress_connections": 2}) as node:
        sockets = await asyncio.gather(*(opened(stack, node, f"u{number}") for number in range(12)))
        first = [await socket.frame() for socket in sockets]
        kinds = [frame["type"] for frame in first]
        assert (kinds.count("connection"), kinds.count("error")) == (2, 10)
        for socket, frame in zip(sockets, first, strict=True):
            if frame["type"] == "error":
                assert frame["error_code"] == "CONNECTION_LIMIT_EXCEEDED"
                with pytest.raises(Closed) as closed:
                    await socket.text()
                assert (closed.value.code, closed.value.reason) == (1013, "try again later")


async def test_the_servers_ping_counts_the_connections_of_now(stack: AsyncExitStack) -> None:
    async with running_node("memory", legacy={"progress_ping_s": 1.0}) as node:
        first = await opened(stack, node, "u1")
        assert (await first.frame())["connection_count"] == 1
        second = await opened(stack, node, "u1:tab")
        assert (await second.frame())["connection_count"] == 2
        while (frame := await first.frame())["active_connections"] == 1:
            assert frame["type"] == "ping"
        assert frame["active_connections"] == 2
        await second.close()
        while (frame := await first.frame())["active_connections"] == 2:
            assert frame["type"] == "ping"
        assert frame["active_connections"] == 1


async def test_its_channels_are_nobodys_topics(stack: AsyncExitStack) -> None:
    async with running_node("memory") as node:
        for client, *roles in (("u1:tab",), ("root", "admin")):
            assert (await (await opened(stack, node, client, *roles)).frame())["type"] == "connection"
        topics = await stack.enter_async_context(await open_text(node.port, "/api/ws", node.token("u1")))
        assert (await topics.frame())["type"] == "connection"
        await topics.tell(type="subscribe", topic="wallet_updates")
        assert (await topics.frame())["type"] == "subscribed"
        found = (await node.http.get("/api/ws/stats", headers=node.auth("root", "admin"))).json()
        assert found["total_connections"] == 3
        assert (found["data"]["topics"], found["data"]["total_subscriptions"]) == (["wallet_updates"], 1)


@pytest.mark.covers("R34")
async def test_r34_who_left_costs_nobody_else_a_look(stack: AsyncExitStack) -> None:
    """It is published where administrators' sockets are, and not to every connection of the tenant."""
    async with running_node("memory") as node:
        boss, plain = await opened(stack, node, "root", "admin"), await opened(stack, node, "u1")
        leaving = await opened(stack, node, "u2")
        for socket in (boss, plain, leaving):
            await socket.frame()
        await leaving.close()
        assert (await boss.frame())["client_id"] == "u2"
        channels = {
            session.principal.sub: {feed.name for feed in session.channels} for session in node.sessions
        }
        assert "topic:progress-clients" in channels["root"]
        assert "topic:progress-clients" not in channels["u1"]


def test_what_is_remembered_of_a_job_is_small_whatever_it_is_called() -> None:
    frames = Frames()
    for number in range(3):
        data = {"type": "batch_report_progress", "batch_id": "x" * 60_000 + str(number), "progress": number}
        publication = Publication(
            tenant="default",
            epoch="e",
            offset=7,
            id="n1",
            type="progress_frame",
            data=json.dumps(data).encode(),
            time_ms=0,
        )
        assert json.loads(frames(Entry(publication, "user:u1")))["progress"] == number
    assert [len(place) for place in frames._known] == [16] * 3


LIFE = {
    "batch_report_progress": ("batch_id", ("processing", "completed", "failed", "cancelled")),
    "data_import_progress": ("import_id", ("processing", "completed", "failed")),
    "file_upload_progress": ("filename", ("uploading", "uploaded", "processing", "failed")),
    "multi_industry_progress": ("", ("started", "completed", "error")),
}
"""Type of a frame → what it is of, and the states of section 7.1."""


@pytest.mark.covers("S4.13", "R33")
@pytest.mark.parametrize("engine", ENGINES)
async def test_every_state_of_every_job_has_its_numbers(stack: AsyncExitStack, engine: str) -> None:
    async with running_node(engine) as node:
        socket = await opened(stack, node, "u1")
        assert (await socket.frame())["type"] == "connection"
        for kind, (subject, states) in LIFE.items():
            for number, state in enumerate(states):
                job = {"type": kind, "status": state, "message": "m", **({subject: "one"} if subject else {})}
                numbers = {} if state in ("failed", "error") else {"progress": number, "total": 8}
                await node.publish("user:u1", {**job, **numbers}, kind="progress_frame")
                found = await socket.frame()
                last = {"progress": number - (not numbers), "total": 8}
                expected = {**job, **last, "percentage": last["progress"] * 12.5}
                assert found == {
                    **expected,
                    "percentage": round(expected["percentage"], 1),
                    "timestamp": found["timestamp"],
                }


@pytest.mark.covers("S4.11", "S4.12", "S4.19", "S4.20", "S4.28", "S4.29")
async def test_imports_and_uploads_of_the_demo_are_told_on_the_socket(stack: AsyncExitStack) -> None:
    async with running_node("memory", server={"dev": True}) as node:
        socket = await opened(stack, node, "u1")
        await socket.frame()
        headers = node.auth("u1")
        files = {"file": ("a.csv", b"a,b\n")}
        uploaded = await node.http.post("/api/data/upload", files=files, headers=headers)
        imported = await node.http.post("/api/data/import", json={"source_type": "csv"}, headers=headers)
        waiting = {answer.json()["import_id"] for answer in (uploaded, imported)}
        uploads, percent = [], []
        while waiting:
            frame = await socket.frame()
            if frame["type"] == "file_upload_progress":
                uploads.append((frame["filename"], frame["status"], frame["percentage"]))
                continue
            assert frame["type"] == "data_import_progress" and frame["total"] == 100
            if frame["import_id"] == imported.json()["import_id"]:
                percent.append(frame["percentage"])
            if frame["status"] == "completed":
                waiting.remove(frame["import_id"])
        assert uploads == [
            ("a.csv", "uploading", 0.0),
            ("a.csv", "uploaded", 50.0),
            ("a.csv", "processing", 100.0),
        ]
        assert percent == [0.0, 25.0, 50.0, 75.0, 100.0]
