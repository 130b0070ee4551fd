"""Legacy contracts over the wire: first frames, delivery, actions and tasks, with a toy contract, on both
transports, over detached sockets and plain ASGI, in memory and on Redis."""

from __future__ import annotations

import json

import pytest

from dualcast.dialects.legacy import LegacySettings
from support import legacy_toy as toy
from support.legacy_node import LegacyNode, legacy_node, refusal, socket, stream

pytestmark = pytest.mark.anyio

HOW = [("memory", True), ("memory", False), ("redis", True)]
both = pytest.mark.parametrize(("engine", "detach"), HOW)


async def register(node: LegacyNode, ident: str, owner: str) -> None:
    await node.composition.features.tasks.register("default", ident, owner)


@both
async def test_a_socket_is_greeted_told_and_answered(engine: str, detach: bool) -> None:
    async with (
        legacy_node(engine, toy.endpoints(LegacySettings()), detach=detach) as node,
        await socket(node, toy.SOCKET, "alice", client_id="c1") as client,
    ):
        assert await client.texts(2) == [
            '{"hello":"alice","id":"c1","own":1}',
            '{"state":null,"unread":0}',
        ]
        await node.publish("user:alice", {"n": 1})
        await node.publish("user:alice", {"n": 2}, kind="strange")
        await node.publish("all", {"n": 3}, kind="pair")
        assert await client.texts(3) == ['{"n":1}', '{"part":1}', '{"part":2}']
        await client.say('{"do":"echo","text":"一"}')
        await client.say('{"do":"twice"}')
        assert await client.texts(3) == ['{"echo":"一","own":1}', '{"n":1}', '{"n":2}']


@both
async def test_a_stream_is_greeted_and_resumes_exactly(engine: str, detach: bool) -> None:
    async with legacy_node(engine, toy.endpoints(LegacySettings()), detach=detach) as node:
        async with await stream(node, toy.STREAM, "alice") as client:
            assert client.status == 200
            assert {
                name: client.headers[name]
                for name in ("content-type", "cache-control", "connection", "x-accel-buffering")
            } == {
                "content-type": "text/event-stream; charset=utf-8",
                "cache-control": "no-cache",
                "connection": "keep-alive",
                "x-accel-buffering": "no",
            }
            assert await client.block() == 'event: hello\ndata: {"hello":"alice","id":"","own":1}\n\n'
            assert await client.block() == 'event: hello\ndata: {"state":null,"unread":0}\n\n'
            first = await node.publish("user:alice", {"n": 1})
            cursor = first["cursor"]
            assert await client.block() == f'id: {cursor}\nevent: note\ndata: {{"n":1}}\n\n'
        for number in (2, 3):
            await node.publish("user:alice", {"n": number})
        async with await stream(node, toy.STREAM, "alice", last_event_id=cursor) as client:
            await client.blocks(2)
            missed = await client.blocks(2)
            await node.publish("user:alice", {"n": 4})
            found = [*missed, await client.block()]
            assert [block.splitlines()[2] for block in found] == [f'data: {{"n":{n}}}' for n in (2, 3, 4)]
        async with await stream(node, toy.STREAM, "alice") as client:
            await client.blocks(2)
            await node.publish("user:alice", {"n": 5})
            assert 'data: {"n":5}' in await client.block()


async def test_ids_switched_off_leave_the_older_bytes_and_resume_nothing() -> None:
    off = LegacySettings(stream_ids=False)
    async with legacy_node("memory", toy.endpoints(off), settings=off) as node:
        receipt = await node.publish("user:alice", {"n": 1})
        await node.publish("user:alice", {"n": 2})
        async with await stream(node, toy.STREAM, "alice", last_event_id=receipt["cursor"]) as client:
            await client.blocks(2)
            await node.publish("user:alice", {"n": 3})
            assert 'data: {"n":3}' in await client.block()


# ── what clients ask for ──


@both
@pytest.mark.covers("R26")
async def test_r26_bad_frames_are_answered_and_the_connection_goes_on(engine: str, detach: bool) -> None:
    async with (
        legacy_node(engine, toy.endpoints(LegacySettings()), detach=detach) as node,
        await socket(node, toy.SOCKET, "alice") as client,
    ):
        await client.texts(2)
        assert await client.ask("{") == '{"error":"Invalid JSON"}'
        assert await client.ask("[1]") == '{"error":"not an object"}'
        assert await client.ask('{"do":"x"}') == '{"error":"unknown"}'
        assert await client.ask('{"do":"join","channel":"nonsense"}') == '{"refused":"nonsense"}'
        assert await client.text() == '{"after":"join"}'
        await client.say(b"\x00binary")
        await client.say('{"do":"raise"}')
        assert await client.ask('{"do":"echo","text":1}') == '{"echo":1,"own":1}'
        assert node.legacy.registry.gauges()["legacy_binary_ignored"] == 1


@both
async def test_joining_and_leaving_in_order_without_what_was_before(engine: str, detach: bool) -> None:
    async with (
        legacy_node(engine, toy.endpoints(LegacySettings()), detach=detach) as node,
        await socket(node, toy.SOCKET, "alice") as client,
    ):
        await client.texts(2)
        await node.publish("room:news", {"n": "before"})
        await client.say('{"do":"join","channel":"room:news"}')
        await client.say('{"do":"join","channel":"room:news"}')
        assert await client.texts(4) == ['{"joined":"room:news"}', '{"after":"join"}'] * 2
        await node.publish(["room:news", "user:alice"], {"n": "once"})
        await node.publish("room:news", {"n": "again"})
        assert await client.texts(2) == ['{"n":"once"}', '{"n":"again"}']
        assert await client.ask('{"do":"leave","channel":"room:news"}') == '{"left":"room:news"}'
        assert await client.ask('{"do":"leave","channel":"user:alice"}') == '{"left":"user:alice"}'
        await node.publish("room:news", {"n": "gone"})
        await node.publish("user:alice", {"n": "still"})
        assert await client.text() == '{"n":"still"}'


async def test_a_join_asks_the_owner_and_the_limit() -> None:
    async with legacy_node("memory", toy.endpoints(LegacySettings()), session={"max_channels": 4}) as node:
        await register(node, "T1", "bob")
        ask = '{"do":"join","channel":"topic:%s","owner_of":"task:%s"}'
        async with await socket(node, toy.SOCKET, "alice") as client:
            await client.texts(2)
            found = []
            for topic, task in (("a", "T1"), ("b", "T2"), ("c", "T2"), ("d", "T2")):
                found.append(await client.ask(ask % (topic, task)))
                await client.text()
            assert found == [
                '{"refused":"topic:a"}',
                '{"joined":"topic:b"}',
                '{"joined":"topic:c"}',
                '{"error":"full"}',
            ]
        async with await socket(node, toy.SOCKET, "bob") as client:
            await client.texts(2)
            assert await client.ask(ask % ("a", "T1")) == '{"joined":"topic:a"}'


@both
async def test_statistics_are_of_everybody(engine: str, detach: bool) -> None:
    anonymous = toy.socket_endpoint(path="/toy/open", anonymous=True)
    async with (
        legacy_node(engine, (*toy.endpoints(LegacySettings()), anonymous), detach=detach) as node,
        await socket(node, toy.SOCKET, "alice") as client,
        await stream(node, toy.STREAM, "bob") as other,
        await socket(node, "/toy/open") as nobody,
    ):
        await client.texts(2)
        await other.blocks(2)
        assert '"hello":""' in await nobody.text()
        await client.ask('{"do":"join","channel":"room:news"}')
        await client.text()
        assert json.loads(await client.ask('{"do":"stats"}')) == {
            "total": 3,
            "users": {"alice": 1, "bob": 1},
            "groups": {"room:news": 1},
            "own": ["room:news"],
        }


async def test_calls_and_closes_of_a_contract() -> None:
    async with (
        legacy_node("memory", toy.endpoints(LegacySettings())) as node,
        await socket(node, toy.SOCKET, "alice") as client,
    ):
        await client.texts(2)
        assert await client.ask('{"do":"call","name":"nothing"}') == '{"failed":"not-available"}'
        typing = '{"do":"call","name":"typing","with":{"conversation_id":"c1","is_typing":true}}'
        assert await client.ask(typing) == '{"failed":"unknown-conversation"}'
        await node.composition.features.conversations.set_participants("default", "c1", ["alice", "bob"])
        assert await client.ask(typing) == '{"called":true}'
        assert await client.ask('{"do":"close"}') == '{"last":1}'
        ended = await client.end()
        assert (ended.code, ended.reason) == (4321, "as asked")


async def test_a_farewell_goes_to_those_it_is_for() -> None:
    async with (
        legacy_node("memory", (toy.socket_endpoint(farewell=toy.gone),)) as node,
        await socket(node, toy.SOCKET, token=node.token("root", role="admin")) as admin,
        await socket(node, toy.SOCKET, "bob") as other,
    ):
        await admin.texts(2)
        await other.texts(2)
        async with await socket(node, toy.SOCKET, "alice", client_id="c9") as client:
            await client.texts(2)
        assert await admin.text() == '{"gone":"c9","own":1}'
        assert "echo" in await other.ask('{"do":"echo","text":""}')


# ── tasks: owner, state first, the end ──


@both
async def test_a_task_is_its_owners_and_its_state_comes_first(engine: str, detach: bool) -> None:
    async with legacy_node(engine, toy.endpoints(LegacySettings()), detach=detach) as node:
        await register(node, "T1", "alice")
        for user, roles, opens in (("alice", (), True), ("root", ("admin",), True), ("bob", (), False)):
            held = node.token(user, roles=list(roles))
            path = toy.TASK + "/ws/T1"
            if not opens:
                assert await refusal(node, path, token=held) == (4004, "task not found")
                continue
            async with await socket(node, path, token=held) as client:
                assert (await client.texts(2))[1] == '{"state":"queued","unread":0}'
        tasks = node.composition.features.tasks
        async with await stream(node, toy.TASK + "/stream/T1", "alice") as client:
            assert 'data: {"state":"queued"' in (await client.blocks(2))[1]
            await tasks.progress("default", "T1", step=1, total_steps=2)
            assert '"state":"processing"' in await client.block()
            await tasks.finish("default", "T1", "completed")
            assert '"state":"completed"' in await client.block()
            assert await client.block() == ""  # within a turn of the wheel
        async with await stream(node, toy.TASK + "/stream/T1", "alice") as client:
            assert 'data: {"state":"completed"' in (await client.blocks(2))[1]
            assert await client.block() == ""
