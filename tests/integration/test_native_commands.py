"""The commands of the native WebSocket: replies, order, and what each does to the position."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator

import pytest

from support.clients import WsClient, open_socket
from support.node import ENGINES, Node, running_node

pytestmark = pytest.mark.anyio

SETUPS = [*((engine, True) for engine in ENGINES), ("memory", False)]


@pytest.fixture(params=SETUPS, ids=lambda setup: f"{setup[0]}-{'detached' if setup[1] else 'plain'}")
async def node(request: pytest.FixtureRequest) -> AsyncIterator[Node]:
    engine, detach = request.param
    async with running_node(engine, detach=detach) as running:
        yield running


@pytest.fixture
async def socket(node: Node) -> AsyncIterator[WsClient]:
    async with await open_socket(node.port, node.token(channels=["topic:*"])) as client:
        await client.welcome()
        yield client


async def test_subscribe_starts_at_the_present_position(node: Node, socket: WsClient) -> None:
    await node.publish("topic:a", "before")
    reply = await socket.ask("subscribe", channels=["topic:a", "topic:b", "topic:a"])
    assert (reply.kind, reply.body["channels"]) == ("subscribed", ["topic:a", "topic:b"])
    await node.publish("topic:b", 1)
    await node.publish("topic:a", 2)
    assert [got.data for got in await socket.publications(2)] == [1, 2]


async def test_subscribe_since_brings_history_marked_recovered_and_leaves_the_cursor(
    node: Node, socket: WsClient
) -> None:
    start = socket.cursor
    for number in range(5):
        await node.publish("topic:a", number)
    last = await node.publish("all", "mine")
    (mine,) = await socket.publications(1)
    assert mine.cursor == last["cursor"]
    await socket.send("subscribe", channels=["topic:a"], since=start)
    recovered = await socket.publications(5)
    assert [got.data for got in recovered] == [0, 1, 2, 3, 4]
    assert all(got.body["recovered"] is True and got.cursor is None for got in recovered)
    assert socket.cursor == last["cursor"]
    reply = await socket.next()
    assert reply.kind == "subscribed"
    await node.publish("topic:a", "live")
    (live,) = await socket.publications(1)
    assert "recovered" not in live.body and live.cursor


async def test_subscribe_since_beyond_the_history_says_where_the_hole_is() -> None:
    async with (
        running_node("memory", bus={"history_entries": 2}, delivery={"ring_entries": 1}) as node,
        await open_socket(node.port, node.token(channels=["topic:*"])) as socket,
    ):
        start = (await socket.welcome()).cursor
        for number in range(5):
            await node.publish("topic:a", number)
        await socket.send("subscribe", channels=["topic:a"], since=start)
        gap = await socket.next()
        assert (gap.kind, gap.body["channel"], gap.body["reason"]) == ("gap", "topic:a", "trimmed")
        assert [got.data for got in await socket.publications(2)] == [3, 4]
        assert (await socket.next()).kind == "subscribed"
        await socket.send("subscribe", channels=["topic:a"], since="zzzz-4")
        gap = await socket.next()
        assert (gap.kind, gap.body["reason"]) == ("gap", "unknown")
        assert (await socket.next()).kind == "subscribed"


async def test_a_publication_while_subscribing_with_since_comes_once_or_twice_never_not_at_all(
    node: Node, socket: WsClient
) -> None:
    start = socket.cursor
    await node.publish("topic:a", 0)

    async def publishing() -> None:
        for number in range(1, 30):
            await node.publish("topic:a", number)

    task = asyncio.create_task(publishing())
    await socket.send("subscribe", channels=["topic:a"], since=start)
    await task
    end = await node.publish("all", "end")
    await socket.until("publication", lambda got: got.cursor == end["cursor"])
    seen = [got.data for got in socket.history if got.kind == "publication" and got.data != "end"]
    assert sorted(set(seen)) == list(range(30))
    live = [got.data for got in socket.history if got.kind == "publication" and got.cursor]
    assert live[:-1] == sorted(live[:-1])
    assert len(seen) == 30, "nothing comes twice either"


async def test_unsubscribe_stops_a_channel_at_once(node: Node, socket: WsClient) -> None:
    await socket.ask("subscribe", channels=["topic:a", "topic:b"])
    reply = await socket.ask("unsubscribe", channels=["topic:a", "topic:unknown"])
    assert reply.kind == "unsubscribed"
    await node.publish("topic:a", "no")
    await node.publish("topic:b", "yes")
    assert [got.data for got in await socket.publications(1)] == ["yes"]
    for fixed in ("all", "user:alice"):
        reply = await socket.ask("unsubscribe", channels=[fixed, "topic:b"])
        assert (reply.kind, reply.body["code"]) == ("error", "fixed-channel")
    await node.publish(["topic:b", "all"], "both")
    assert [got.data for got in await socket.publications(1)] == ["both"]


async def test_resume_goes_back_to_a_cursor(node: Node, socket: WsClient) -> None:
    start = socket.cursor
    for number in range(4):
        await node.publish("all", number)
    await socket.publications(4)
    await socket.send("resume", cursor=start)
    assert [got.data for got in await socket.publications(4)] == [0, 1, 2, 3]
    await node.publish("all", "live")
    assert [got.data for got in await socket.publications(1)] == ["live"]


async def test_resume_from_an_unknown_cursor_is_a_gap(node: Node, socket: WsClient) -> None:
    await socket.send("resume", cursor="zzzzzz-9")
    gaps = [await socket.next(), await socket.next()]
    assert {(gap.kind, gap.body["reason"]) for gap in gaps} == {("gap", "unknown")}
    reply = await socket.ask("resume", cursor="not a cursor")
    assert (reply.kind, reply.body["code"]) == ("error", "bad-cursor")
    await node.publish("all", "on")
    assert [got.data for got in await socket.publications(1)] == ["on"]


async def test_ack_is_a_receipt_and_cannot_name_what_was_never_written(node: Node, socket: WsClient) -> None:
    session = await node.session_of("alice")
    sent = await node.publish("all", 1)
    await socket.publications(1)
    await socket.send("ack", cursor=sent["cursor"])
    assert (await socket.ask("ping")).kind == "pong"
    epoch, offset = sent["cursor"].split("-")
    assert session.confirmed == int(offset)
    for forged in (f"{epoch}-{int(offset) + 5}", f"zzz-{offset}"):
        reply = await socket.ask("ack", cursor=forged)
        assert (reply.kind, reply.body["code"]) == ("error", "future-ack")
    assert session.confirmed == int(offset)


async def test_the_pong_of_any_client_stack_is_a_receipt(node: Node) -> None:
    session_sweep = node.composition.node.settings
    async with await open_socket(node.port, node.token("bob")) as socket:
        await socket.welcome()
        session = await node.session_of("bob")
        if not session.can_ping:  # type: ignore[attr-defined]
            pytest.skip("plain ASGI has no pings of ours")
        sent = await node.publish("user:bob", 1)
        await socket.publications(1)
        await node.settled()
        node.sweep(session_sweep.heartbeat_ws_s // session_sweep.sweep_s)
        wanted = int(sent["cursor"].split("-")[1])
        await node.until(lambda: session.confirmed >= wanted, "the receipt")
        assert node.composition.node.forged_receipts == 0


async def test_ping_is_answered_with_the_cursor(node: Node, socket: WsClient) -> None:
    reply = await socket.ask("ping")
    assert reply.kind == "pong" and reply.cursor == socket.cursor


async def test_authenticate_refreshes_in_place(node: Node, socket: WsClient) -> None:
    session = await node.session_of("alice")
    before = session.principal.expires_at
    fresh = node.token(life_s=7200, channels=["room:*"])
    reply = await socket.ask("authenticate", token=fresh)
    assert reply.kind == "authenticated" and reply.body["expires_at"] > before
    # The rights are those of the new token from now on.
    assert (await socket.ask("subscribe", channels=["room:1"])).kind == "subscribed"
    assert (await socket.ask("subscribe", channels=["topic:1"])).kind == "error"


async def test_authenticate_with_a_bad_token_changes_nothing(node: Node, socket: WsClient) -> None:
    session = await node.session_of("alice")
    before = session.principal
    for bad, code in [
        ("rubbish", "unauthorized"),
        (node.token(life_s=-10), "token-expired"),
        (node.token("bob"), "forbidden"),
        (node.token(tenant="other"), "forbidden"),
    ]:
        reply = await socket.ask("authenticate", token=bad)
        assert (reply.kind, reply.body["code"]) == ("error", code)
        assert bad not in reply.body["reason"]
    assert session.principal is before
    assert (await socket.ask("ping")).kind == "pong"


async def test_commands_are_carried_out_in_order(node: Node, socket: WsClient) -> None:
    await node.grant("room:1", "alice")
    refs = []
    for _ in range(5):
        refs.append(await socket.send("subscribe", channels=["room:1"]))
        refs.append(await socket.send("ping"))
        refs.append(await socket.send("unsubscribe", channels=["room:1"]))
    replies = [await socket.next() for _ in refs]
    assert [got.body["ref"] for got in replies] == refs
    assert [got.kind for got in replies] == ["subscribed", "pong", "unsubscribed"] * 5


async def test_too_many_commands_at_once_end_the_connection() -> None:
    async with (
        running_node("memory", session={"max_pending_commands": 4}) as node,
        await open_socket(node.port, node.token()) as socket,
    ):
        await socket.welcome()
        frames = [json.dumps({"type": "subscribe", "channels": ["room:1"]})] * 40
        for frame in frames:
            await socket.socket.send(frame)
        ended = await socket.end()
        assert (ended.code, ended.reason) == (4102, "rate-limited")
        assert socket.history[-1].kind == "bye"


async def test_a_flood_of_commands_ends_the_connection(node: Node) -> None:
    async with await open_socket(node.port, node.token()) as socket:
        await socket.welcome()
        limit = 500
        for _ in range(limit + 1):
            await socket.socket.send('{"type":"ping"}')
        assert (await socket.end()).code == 4102
