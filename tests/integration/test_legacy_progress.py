"""The contract `progress` through a started server: whose socket it is, what reaches it, what it answers
(docs/contracts/legacy-wire.md section 7).
"""

from __future__ import annotations

import json
import re
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import pytest

from dualcast.model.publication import Draft
from support.legacy_node import Closed
from support.node import ENGINES, Node, running_node
from support.text_socket import TextSocket, open_text, timeless

pytestmark = pytest.mark.anyio

FILE = Path(__file__).parents[1] / "conformance/vectors/legacy_progress.json"
VECTORS: list[dict[str, Any]] = json.loads(FILE.read_text(encoding="utf-8"))["vectors"]
BATCH = {"type": "batch_report_progress", "batch_id": "b1"}


@pytest.fixture(params=ENGINES)
async def node(request: pytest.FixtureRequest) -> AsyncIterator[Node]:
    async with running_node(request.param) as running:
        yield running


class Crowd:
    """Sockets by any name."""

    def __init__(self, node: Node, stack: AsyncExitStack) -> None:
        self.node = node
        self._stack = stack
        self.sockets: dict[str, TextSocket] = {}
        self.hello: dict[str, dict[str, Any]] = {}

    async def join(self, name: str, client: str, user: str = "", *roles: str) -> TextSocket:
        token = self.node.token(user or client.partition(":")[0], roles=list(roles))
        socket = await self._stack.enter_async_context(
            await open_text(self.node.port, "/ws/" + client, token)
        )
        self.hello[name] = await socket.frame()
        self.sockets[name] = socket
        return socket

    async def publish(self, channel: str, frame: dict[str, Any]) -> None:
        await self.node.publish(channel, frame, kind="progress_frame")

    async def got(self) -> dict[str, list[dict[str, Any]]]:
        """What everybody was told until now; `all` is told of a fence."""
        await self.publish("all", {"type": "fence"})
        found = {}
        for name, socket in self.sockets.items():
            found[name] = [json.loads(text) for text in await socket.before(_fence)]
        return {name: frames for name, frames in found.items() if frames}


def _fence(frame: dict[str, Any]) -> bool:
    return frame["type"] == "fence"


@pytest.fixture
async def crowd(node: Node) -> AsyncIterator[Crowd]:
    async with AsyncExitStack() as stack:
        yield Crowd(node, stack)


@pytest.mark.covers("S4.14", "S4.25", "S4.26", "S4.30", "S4.31", "S4.36", "S4.37", "S4.41", "S4.6")
async def test_the_transcript_of_the_old_test_scripts(node: Node) -> None:
    async with await open_text(node.port, "/ws/test_client", node.token("test_client")) as socket:
        hello = await socket.frame()
        assert hello["message"] == "WebSocket连接成功，客户端ID: test_client"
        assert (hello["type"], hello["status"], hello["connection_count"]) == ("connection", "connected", 1)
        await socket.tell(type="ping", timestamp=5)
        pong = await socket.frame()
        assert (pong["type"], pong["original_timestamp"]) == ("pong", 5)
        await socket.tell(type="custom", text="hi")
        echo = await socket.frame()
        assert (echo["type"], echo["original_message"]) == ("echo", {"type": "custom", "text": "hi"})
        await socket.tell(type="subscribe", event_type="test_events")
        assert (await socket.frame())["message"] == "已订阅 test_events 事件"


@pytest.mark.covers("R15", "R14", "R21", "S4.3", "S4.32", "S4.51")
async def test_r15_the_path_does_not_decide_who_one_is(node: Node) -> None:
    for client, token, code, reason in (
        ("u1", "", 1008, "Unauthorized"),
        ("u1", "nonsense", 1008, "Unauthorized"),
        ("u1", node.token("u1", life_s=-10), 1008, "Unauthorized"),
        ("u2", node.token("u1"), 4003, "forbidden"),
        ("u11", node.token("u1"), 4003, "forbidden"),
    ):
        async with await open_text(node.port, "/ws/" + client, token) as socket:
            with pytest.raises(Closed) as closed:
                await socket.text()
        assert (closed.value.code, closed.value.reason) == (code, reason), client


@pytest.mark.covers("R36", "S4.1", "S4.16", "S4.33", "S4.38", "S4.39", "S4.52")
async def test_r36_progress_goes_to_all_sockets_of_its_user_and_to_nobody_else(crowd: Crowd) -> None:
    for name, client in (("tab1", "u1"), ("tab2", "u1:t2"), ("tab3", "u1:t3"), ("other", "u2")):
        await crowd.join(name, client)
    await crowd.join("boss", "root", "root", "admin")
    assert crowd.hello["tab3"]["connection_count"] == 3 and crowd.hello["other"]["connection_count"] == 1
    step = {**BATCH, "status": "processing", "message": "m", "progress": 1, "total": 3}
    await crowd.publish("user:u1", step)
    await crowd.publish("topic:progress-client:u1:t2", {**step, "progress": 2})
    got = await crowd.got()
    assert {name: [frame["progress"] for frame in frames] for name, frames in got.items()} == {
        "tab1": [1],
        "tab2": [1, 2],
        "tab3": [1],
    }
    frame = got["tab1"][0]
    assert frame == {**step, "percentage": 33.3, "timestamp": frame["timestamp"]}


@pytest.mark.covers("R19", "S4.2")
async def test_r19_two_sockets_of_one_client_id_both_receive(crowd: Crowd) -> None:
    await crowd.join("one", "u1:t")
    await crowd.join("two", "u1:t")
    assert crowd.hello["two"]["client_id"] == "u1:t"
    await crowd.publish("topic:progress-client:u1:t", {"type": "x"})
    assert set(await crowd.got()) == {"one", "two"}


async def test_an_administrator_with_a_users_client_id_gets_what_the_user_gets(crowd: Crowd) -> None:
    await crowd.join("user", "u1")
    await crowd.join("boss", "u1", "root", "admin")
    await crowd.publish("user:u1", {"type": "x"})
    assert set(await crowd.got()) == {"user", "boss"}


@pytest.mark.covers("R26", "S4.34", "S4.54")
async def test_r26_invalid_json_gets_an_error_and_the_connection_goes_on(crowd: Crowd) -> None:
    socket = await crowd.join("u1", "u1")
    for text, code in (
        ("{oops", "INVALID_JSON"),
        ("[1]", "MESSAGE_PROCESSING_ERROR"),
        ('{"type":"subscribe"}', "MESSAGE_PROCESSING_ERROR"),
    ):
        await socket.say(text)
        frame = await socket.frame()
        assert (frame["type"], frame["error_code"]) == ("error", code)
    await socket.say(b"\x00")  # ignored
    await socket.tell(type="ping")
    assert (await socket.frame())["type"] == "pong"


@pytest.mark.covers("R33", "S4.34")
async def test_r33_a_failure_has_the_numbers_of_what_was_told_before(crowd: Crowd) -> None:
    await crowd.join("u1", "u1")
    await crowd.publish(
        "user:u1", {**BATCH, "status": "processing", "message": "m", "progress": 1, "total": 3}
    )
    await crowd.publish(
        "user:u1", {**BATCH, "status": "failed", "message": "批量报告生成失败", "error": "reason"}
    )
    failed = (await crowd.got())["u1"][1]
    assert (failed["progress"], failed["total"], failed["percentage"]) == (1, 3, 33.3)


@pytest.mark.covers("R34", "S4.4", "S4.15", "S4.17", "S4.48", "S4.62")
async def test_r34_who_leaves_is_told_to_administrators_only(crowd: Crowd) -> None:
    await crowd.join("boss", "root", "root", "admin")
    await crowd.join("plain", "u1")
    leaving = await crowd.join("leaving", "u2:tab")
    del crowd.sockets["leaving"]
    await leaving.close()
    told = await crowd.sockets["boss"].frame()
    assert told == {
        "type": "connection",
        "status": "disconnected",
        "client_id": "u2:tab",
        "message": "客户端 u2:tab 已断开连接",
        "timestamp": told["timestamp"],
    }
    assert await crowd.got() == {}, "nobody else heard of it"


@pytest.mark.covers("R34", "S4.17", "S4.62")
async def test_r34_statistics_count_and_show_no_headers(crowd: Crowd) -> None:
    node = crowd.node
    gone = await crowd.join("gone", "u1")
    await crowd.join("u1", "u1")
    socket = await crowd.join("u2", "u2")
    await gone.close()
    del crowd.sockets["gone"]
    await node.until(lambda: len(node.sessions) == 2, "two sessions")
    await socket.tell(type="ping")
    assert (await socket.frame())["type"] == "pong"
    await crowd.got()
    headers = node.auth("root", "admin")
    answer = await node.http.get("/api/websocket/stats", headers=headers)
    found = answer.json()
    assert (found["total_connections"], found["active_count"], found["messages_received"]) == (3, 2, 1)
    assert found["messages_sent"] == 3 + 1 + 2, "three confirmations, a pong, a fence to each"
    assert found["active_connections"] == ["u1", "u2"]
    detail = found["connection_details"]["u2"]
    assert re.fullmatch(r"[\d-]+T[\d:.]+Z", detail["connected_at"])
    assert detail == {
        "client_id": "u2",
        "state": "CONNECTED",
        "client_ip": "127.0.0.1",
        "connected_at": detail["connected_at"],
    }
    assert "ey" + "J" not in answer.text, "no token"
    assert (await node.http.get("/api/websocket/stats", headers=node.auth("u1"))).status_code == 403


@pytest.mark.covers("S4.53")
async def test_the_limit_of_the_dialect_is_told_and_then_closed() -> None:
    async with running_node("memory", legacy={"progress_connections": 1}) as node, AsyncExitStack() as stack:
        crowd = Crowd(node, stack)
        first = await crowd.join("one", "u1")
        async with await open_text(node.port, "/ws/u2", node.token("u2")) as refused:
            frame = await refused.frame()
            assert (frame["type"], frame["error_code"]) == ("error", "CONNECTION_LIMIT_EXCEEDED")
            assert frame["message"] == "连接数已达上限" and frame["timestamp"].endswith("Z")
            closed = await refused.end()
            assert (closed.code, closed.reason) == (1013, "try again later")
        async with await open_text(node.port, "/api/v1/ws", node.token("u2")) as other:
            assert (await other.frame())["event"] == "connected", "another dialect is not limited"
        await first.close()
        await node.until(lambda: not node.sessions, "nobody there")
        await crowd.join("two", "u2")


async def test_the_server_pings_as_often_as_the_setting_says() -> None:
    async with running_node("memory", legacy={"progress_ping_s": 1.0}) as node, AsyncExitStack() as stack:
        crowd = Crowd(node, stack)
        socket = await crowd.join("one", "u1")
        for _ in range(2):
            frame = await socket.frame()
            assert (frame["type"], frame["active_connections"]) == ("ping", 1)
            assert frame["server_time"] == frame["timestamp"]


@pytest.mark.covers("S4.7", "S4.8", "S4.9")
async def test_every_publication_is_these_bytes_on_the_wire(node: Node) -> None:
    """The golden vectors, appended to the log with their own times, over a real socket of an administrator,
    who is due all of them."""
    vectors = [vector for vector in VECTORS if "publication" in vector]
    assert len(vectors) > 15
    token = node.token("root", roles=["admin"])
    async with await open_text(node.port, "/ws/u1:tab2", token) as socket:
        assert (await socket.frame())["type"] == "connection"
        for number, vector in enumerate(vectors):
            given = vector["publication"]
            for ident, event, channel, data in (
                (f"v{number}", given["event"], given["channel"], given["data_json"]),
                (f"f{number}", "progress_frame", "user:u1", '{"type":"fence"}'),
            ):
                await node.composition.bus.append(
                    Draft(
                        tenant="default",
                        channels=(channel,),
                        id=ident,
                        type=event,
                        data=data.encode(),
                        time_ms=given["time_ms"],
                    )
                )
            assert await socket.before(_fence) == vector["ws"], vector["name"]


async def test_every_answer_is_these_bytes_on_the_wire(node: Node) -> None:
    async with await open_text(node.port, "/ws/u1", node.token("u1")) as socket:
        assert timeless(await socket.text()) == timeless(VECTORS[0]["ws"][0])
        for vector in VECTORS:
            if "client" not in vector:
                continue
            await socket.say(vector["client"])
            await socket.tell(type="subscribe", event_type="fence")
            got = await socket.before(lambda frame: frame.get("event_type") == "fence")
            expected = list(map(timeless, vector["ws"]))
            assert list(map(timeless, got)) == expected, vector["name"]


@pytest.mark.covers("S4.18", "S4.35", "S4.38")
async def test_with_dev_an_old_page_sees_a_demo_job_without_a_token() -> None:
    """`/ws/{client_id}` without a token is the user in front of the first colon; nobody is an administrator
    that way."""
    async with running_node("memory", server={"dev": True}) as node, AsyncExitStack() as stack:
        sockets = [
            await stack.enter_async_context(await open_text(node.port, "/ws/" + client))
            for client in ("u1", "u1:tab")
        ]
        for socket in sockets:
            assert (await socket.frame())["status"] == "connected"
        body = {"report_ids": ["r1", "r2"]}
        answer = await node.http.post("/api/reports/batch/generate", json=body, headers=node.auth("u1"))
        assert answer.status_code == 200, answer.text
        assert answer.json()["status"] == "processing", "it is answered while the job is being done"
        for socket in sockets:
            found = [await socket.frame() for _ in range(3)]
            assert [(frame["status"], frame["percentage"]) for frame in found] == [
                ("processing", 0.0),
                ("processing", 50.0),
                ("completed", 100.0),
            ]
            assert {frame["batch_id"] for frame in found} == {answer.json()["batch_id"]}
        async with await open_text(node.port, "/ws/admin") as left:
            assert (await left.frame())["client_id"] == "admin"
        assert json.loads(await _answer(sockets[0]))["type"] == "pong", "it was not told who left"


async def _answer(socket: TextSocket) -> str:
    await socket.tell(type="ping")
    return await socket.text()
