"""The contract `conversations` through a started server: sockets, messages, broadcasts and pushes
(docs/contracts/legacy-wire.md section 6).
"""

from __future__ import annotations

import json
import logging
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import pytest

from dualcast.model.publication import Draft
from support.chat_crowd import NATIVE, PATH, Crowd, backend, chat, make, names, registered, two_nodes
from support.legacy_node import Closed
from support.node import ENGINES, Node, running_node
from support.text_socket import TextSocket, open_text, timeless

pytestmark = pytest.mark.anyio

FILE = Path(__file__).parents[1] / "conformance/vectors/legacy_conversations.json"
VECTORS: list[dict[str, Any]] = json.loads(FILE.read_text(encoding="utf-8"))["vectors"]


@pytest.fixture(params=ENGINES)
async def node(request: pytest.FixtureRequest) -> AsyncIterator[Node]:
    async with running_node(request.param) as running:
        await make(running)
        yield running


@pytest.fixture
async def crowd() -> AsyncIterator[Crowd]:
    async with AsyncExitStack() as stack:
        yield Crowd(stack)


# ── admission ──


@pytest.mark.covers("R14", "R21", "S3.29", "S3.102")
async def test_refusals_are_told_after_the_accept(node: Node) -> None:
    for token, reason in (
        ("", "Authentication required"),
        ("nonsense", "Invalid credentials"),
        (node.token("u1", life_s=-10), "Invalid credentials"),
    ):
        async with await open_text(node.port, PATH, token) as socket:
            with pytest.raises(Closed) as closed:
                await socket.text()
        assert (closed.value.code, closed.value.reason) == (4001, reason)


@pytest.mark.covers("R19")
async def test_r19_a_taken_connection_id_is_replaced_by_a_fresh_one_and_both_receive(
    node: Node, crowd: Crowd
) -> None:
    await crowd.join(node, "u1/first", connectionId="c1", deviceType="mobile", deviceId="d1")
    await crowd.join(node, "u2/second", connectionId="c1", deviceType="desktop")
    await crowd.join(node, "u1/none")
    first, second, none = (crowd.hello[name] for name in ("u1/first", "u2/second", "u1/none"))
    assert first == {
        "user_id": "u1",
        "user_role": "customer",
        "connection_id": "c1",
        "device_type": "mobile",
        "device_id": "d1",
        "status": "connected",
    }
    assert second["connection_id"].startswith("u2_desktop_")
    assert none["connection_id"].startswith("u1_unknown_")
    assert (none["device_type"], none["device_id"]) == (None, None)
    await chat(node, "send", "u3", content="c")
    assert names(await crowd.got()) == {name: ["new_message"] for name in crowd.sockets}


# ── messages ──


@pytest.mark.covers("R36", "R37", "S3.21", "S3.24", "S3.48", "S3.55")
async def test_r36_r37_a_message_sent_over_http_reaches_the_others_sockets_once(
    node: Node, crowd: Crowd
) -> None:
    for name in ("u1/a", "u1/b", "u2/a", "u2/b", "u3/a", "eve/a"):
        await crowd.join(node, name)
    answer = await chat(node, "send", "u1", content="你好", message_type="text", id="m1")
    assert answer == {"status": "sent", "message_id": "m1"}
    got = await crowd.got()
    assert names(got) == {name: ["new_message"] for name in ("u2/a", "u2/b", "u3/a")}
    frame = got["u2/a"][0]
    assert frame["data"]["content"] == "你好" and frame["conversation_id"] == "conv_1"
    assert (frame["event"], frame["action"], frame["event_type"]) == ("new_message",) * 3


async def test_an_excluded_connection_is_the_only_one_without_a_copy(node: Node, crowd: Crowd) -> None:
    for name in ("u1/a", "u1/b", "u2/a"):
        await crowd.join(node, name, connectionId=name)
    await chat(node, "send", "u1", content="c", exclude_connection_id="u1/a")
    assert names(await crowd.got()) == {"u1/b": ["new_message"], "u2/a": ["new_message"]}


async def test_a_connection_of_another_node_is_excluded_too(crowd: Crowd) -> None:
    async with two_nodes() as (one, two):
        await crowd.join(one, "u1/a", connectionId="ca")
        await crowd.join(two, "u1/b", connectionId="cb")
        await crowd.join(two, "u2/a", connectionId="cc")
        await registered(one, "u1", 2)
        await chat(one, "send", "u1", content="c", exclude_connection_id="cb")
        assert names(await crowd.got()) == {"u1/a": ["new_message"], "u2/a": ["new_message"]}


@pytest.mark.covers("S3.51", "S3.52")
async def test_typing_and_read_over_the_socket_do_what_the_http_calls_do(node: Node, crowd: Crowd) -> None:
    await chat(node, "send", "u2", content="c", id="m1")
    u1 = await crowd.join(node, "u1/a")
    await crowd.join(node, "u2/a")
    await crowd.join(node, "u3/a")
    eve = await crowd.join(node, "eve/a")

    async def said(socket: TextSocket, **message: Any) -> dict[str, Any]:
        await socket.tell(**message)
        while (frame := await socket.frame())["event"] == "presence_update":
            pass
        return frame

    typing = {"action": "typing", "conversation_id": "conv_1", "data": {"is_typing": True}}
    read = {"action": "read", "data": {"conversation_id": "conv_1", "message_ids": ["m1"]}}
    for message in (typing, read):
        answer = await said(u1, **message)
        assert (answer["event"], answer["data"]) == ("response", {"status": "success", "message": "ok"})
        refused = await said(eve, **message)
        assert refused["event"] == "error"
        assert refused["data"] == {"status": "error", "message": "消息处理失败"}
    await chat(node, "typing", "u1", is_typing=False)
    got = await crowd.got()
    told = ["typing_status", "read_status", "typing_status"]
    assert names(got) == {"u2/a": told, "u3/a": told}
    first, second, third = got["u2/a"]
    assert first["event_type"] == third["event_type"] == "typing_update"
    assert first["data"] == {"user_id": "u1", "is_typing": True}
    assert second["data"] == {"user_id": "u1", "message_ids": ["m1"]}
    assert third["data"] == {"user_id": "u1", "is_typing": False}
    mine = (await node.http.get("/v1/conversations", headers=node.auth("u1"))).json()["conversations"]
    assert mine[0]["unread"] == 0, "it is marked"


@pytest.mark.covers("S3.27", "S3.49", "S3.50", "S3.53", "S3.54", "S3.73")
async def test_the_broadcasting_calls_reach_whom_they_are_for(node: Node, crowd: Crowd) -> None:
    for name, kind in (
        ("u1/phone", "mobile"),
        ("u1/desk", "desktop"),
        ("u2/tablet", "tablet"),
        ("u3/phone", "mobile"),
        ("eve/phone", "mobile"),
    ):
        await crowd.join(node, name, deviceType=kind)
    said = {"content": "…", "consultant_name": "…", "reply_type": "consultation"}
    await backend(
        node, "POST", NATIVE + "/broadcasts", {"kind": "reply", "data": said, "consultant_id": "u2"}
    )
    mobile = {"title": "预约提醒", "content": "…", "action": "open_appointment"}
    await backend(node, "POST", NATIVE + "/broadcasts", {"kind": "mobile", "data": mobile})
    system = {"title": "系统维护通知", "message": "…", "type": "maintenance"}
    await backend(node, "POST", NATIVE + "/broadcasts", {"kind": "system", "data": system})
    direct = {"title": "个人通知", "content": "…", "type": "membership_upgrade"}
    await backend(node, "POST", "/v1/direct-messages", {"user": "u3", "data": direct})
    got = await crowd.got()
    assert names(got) == {
        "u1/phone": ["consultation_reply", "mobile_notification", "system_notification"],
        "u1/desk": ["consultation_reply", "system_notification"],
        "u2/tablet": ["system_notification"],
        "u3/phone": ["consultation_reply", "mobile_notification", "system_notification", "direct_message"],
    }
    frames = {frame["event"]: frame for frame in got["u3/phone"]}
    assert frames["consultation_reply"]["consultant_id"] == "u2"
    assert frames["mobile_notification"]["data"] == mobile
    assert frames["system_notification"]["data"] == system
    assert frames["direct_message"]["data"] == direct and "conversation_id" not in frames["direct_message"]


@pytest.mark.covers("R42", "R43", "S3.23", "S3.38", "S3.40", "S3.63", "S3.76")
async def test_r42_r43_who_is_on_a_desktop_only_gets_the_push_with_priority_and_data(
    crowd: Crowd, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    async with running_node("sqlite", push={"provider": "log"}) as node:
        await make(node, "customer_456", "consultant_789")
        await crowd.join(node, "customer_456/desk", deviceType="desktop")
        await registered(node, "customer_456", 1)
        said = {"content": "您好", "consultant_name": "王", "reply_type": "consultation"}
        body = {"kind": "reply", "data": said, "consultant_id": "consultant_789"}
        await backend(node, "POST", NATIVE + "/broadcasts", body)
        queued = "移动端推送通知已排队: user_id=customer_456"
        await node.until(lambda: ("DEBUG", queued) in lines(caplog), queued)
        assert names(await crowd.got()) == {"customer_456/desk": ["consultation_reply"]}
        written = lines(caplog)
        for line in (
            "📱 推送通知 [mobile] [优先级: high]: customer_456",
            "   标题: 顾问回复",
            "   内容: 您好",
            "   [数据: {'conversation_id': 'conv_1', 'action': 'open_conversation'}]",
            "顾问回复广播完成: conversation_id=conv_1, consultant_id=consultant_789",
        ):
            assert ("INFO", line) in written
        assert not any("consultant_789" in line and "📱" in line for _, line in written), (
            "not to the consultant"
        )
        await backend(
            node,
            "POST",
            NATIVE + "/broadcasts",
            {"kind": "mobile", "data": {"title": "预约提醒", "content": "…", "action": "open_appointment"}},
        )
        mobile = "   [数据: {'conversation_id': 'conv_1', 'action': 'open_appointment'}]"
        await node.until(lambda: ("INFO", mobile) in lines(caplog), mobile)


def lines(caplog: pytest.LogCaptureFixture) -> list[tuple[str, str]]:
    return [(record.levelname, record.getMessage()) for record in caplog.records]


# ── bytes ──


@pytest.mark.covers("R30", "R31")
async def test_every_publication_is_these_bytes_on_the_wire(node: Node) -> None:
    """The golden vectors, appended to the log with their own times, over a real socket. Two nodes' order does
    not matter: each vector is followed by a fence."""
    vectors = [vector for vector in VECTORS if "publication" in vector]
    async with await open_text(node.port, PATH, node.token("u1")) as socket:
        assert (await socket.frame())["event"] == "connected"
        assert (await socket.frame())["event"] == "presence_update"
        for number, vector in enumerate(vectors):
            given = vector["publication"]
            for ident, event, channel, data in (
                (f"v{number}", given["event"], given["channel"], given["data_json"]),
                (f"f{number}", "conversation.direct", "user:u1", '{"data":{"title":"fence"}}'),
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
            got = await socket.before(lambda frame: frame["data"].get("title") == "fence")
            assert got == vector["ws"], vector["name"]


@pytest.mark.covers("R32")
async def test_every_answer_is_these_bytes_on_the_wire(node: Node) -> None:
    await chat(node, "send", "u2", content="c", id="m1")
    vectors = [vector for vector in VECTORS if "client" in vector]
    async with await open_text(node.port, PATH, node.token("u1")) as socket:
        assert (await socket.frame())["event"] == "connected"
        assert (await socket.frame())["event"] == "presence_update"
        for vector in vectors:
            await socket.say(vector["client"])
            await socket.tell(type="heartbeat", timestamp=-1)
            expected = vector["ws"]
            got = await socket.before(lambda frame: frame.get("timestamp") == -1)
            assert list(map(timeless, got)) == list(map(timeless, expected)), vector["name"]
        await socket.say(b"\x00\x01")  # binary is ignored
        await socket.say("ping")
        assert await socket.text() == "pong"
