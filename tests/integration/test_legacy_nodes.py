"""Legacy contracts beside other things: migration stages, several nodes over one Redis, `--dev`, a bus that
is away."""

from __future__ import annotations

import json

import pytest

from dualcast.dialects.legacy import LegacySettings
from support import legacy_toy as toy
from support.legacy_node import Closed, legacy_node, refusal, socket, stream
from support.node import place, running_node
from support.redis_server import RedisServer

pytestmark = pytest.mark.anyio


@pytest.mark.parametrize("detach", [True, False])
async def test_the_stage_governs_the_notification_twins_and_nothing_else(detach: bool) -> None:
    own = toy.socket_endpoint()
    only_sse = {"tenancy": {"stage": "sse"}}
    async with legacy_node("memory", (own,), dialects=("notifications",), detach=detach, **only_sse) as node:
        assert await refusal(node, "/api/ws/notifications", "alice") == 403
        async with (
            await stream(node, "/api/notifications/stream", "alice") as client,
            await socket(node, toy.SOCKET, "alice") as other,
        ):
            assert client.status == 200
            assert "hello" in await other.text()


async def test_statistics_are_of_all_nodes() -> None:
    endpoints = (*toy.endpoints(LegacySettings()), toy.socket_endpoint(path="/toy/open", anonymous=True))
    async with (
        place("redis") as where,
        legacy_node(where, endpoints) as one,
        legacy_node(where, endpoints) as two,
        await socket(one, toy.SOCKET, "alice") as client,
        await socket(two, toy.SOCKET, "alice") as tab,
        await stream(two, toy.STREAM, "bob") as other,
        await socket(two, "/toy/open") as nobody,
    ):
        await client.texts(2)
        await tab.texts(2)
        await other.blocks(2)
        await nobody.texts(2)
        await two.composition.features.tracker.flush()
        await two.legacy.stats.tell()
        told = json.loads(await client.ask('{"do":"stats"}'))
        assert (told["total"], told["users"]) == (4, {"alice": 2, "bob": 1})
        await nobody.close()
        await two.until(lambda: not two.legacy.registry.anonymous)
        await two.legacy.stats.tell()
        assert (await one.legacy.stats.read("default", session=None)).total_connections in (3, 4)
        one.legacy.stats._readings.clear()
        assert (await one.legacy.stats.read("default")).total_connections == 3


async def test_a_stream_resumes_on_another_node() -> None:
    endpoints = toy.endpoints(LegacySettings())
    async with place("redis") as where, legacy_node(where, endpoints) as one:
        async with legacy_node(where, endpoints) as two, await stream(two, toy.STREAM, "alice") as client:
            await client.blocks(2)
            receipt = await one.publish("user:alice", {"n": 1})
            assert f"id: {receipt['cursor']}" in await client.block()
        await one.publish("user:alice", {"n": 2})
        async with await stream(one, toy.STREAM, "alice", last_event_id=receipt["cursor"]) as client:
            await client.blocks(2)
            assert 'data: {"n":2}' in await client.block()


@pytest.mark.parametrize("detach", [True, False])
async def test_demo_tokens_open_what_dev_opens(detach: bool) -> None:
    dev = LegacySettings(dev=True)
    assumed = toy.socket_endpoint(
        path="/toy/as/{client_id:str}",
        assumed=lambda facts: (facts.params["client_id"].partition(":")[0], False),
    )
    named = toy.socket_endpoint(path="/toy/of/{user_id:str}")
    endpoints = (*toy.endpoints(dev), assumed, named)
    async with legacy_node("memory", endpoints, settings=dev, detach=detach) as node:
        for path, token, user in (
            (toy.SOCKET, "demo-token", "demo-user"),
            ("/toy/of/u7", "test-token-1", "u7"),
            (toy.SOCKET, "test-token-1", "u7"),
            ("/toy/as/bob:tab2", None, "bob"),
            (toy.SOCKET, "admin", "admin"),
        ):
            async with await socket(node, path, token=token) as client:
                assert json.loads(await client.text())["hello"] == user
        async with await stream(node, toy.STREAM, headers={"authorization": "Bearer test-token-1"}) as client:
            assert '"hello":"u7"' in await client.block()
        assert await refusal(node, toy.SOCKET, token="test-tokens") == (4001, "Invalid credentials")
        bearer = {"Authorization": "Bearer admin"}
        assert (await node.http.get("/v1/connections", headers=bearer)).status_code == 401
    off = LegacySettings()
    async with legacy_node("memory", (assumed,), settings=off, detach=detach) as node:
        assert await refusal(node, "/toy/as/bob") == (4001, "Authentication required")


async def test_key_changes_leave_callers_without_a_key_alone() -> None:
    anonymous = toy.socket_endpoint(anonymous=True)
    async with (
        legacy_node("memory", (anonymous,)) as node,
        await socket(node, toy.SOCKET) as nobody,
    ):
        await nobody.texts(2)
        answer = await node.http.post(
            "/v1/publish",
            json={"channel": "all", "type": "note", "data": {"n": 1}},
            headers=node.auth("b", "admin"),
        )
        assert answer.status_code == 201
        assert await nobody.text() == '{"n":1}'
        assert await node.composition.features.presence.count("default") == 0
        assert node.legacy.registry.gauges()["legacy_anonymous"] == 1


@pytest.mark.covers("R3")
async def test_r3_streams_opened_while_redis_is_away_live_on_and_leak_nothing() -> None:
    beats = toy.stream_endpoint(heartbeat=toy.beat_block, heartbeat_s=1.0)
    with RedisServer(aof="always") as redis:
        async with (
            place("redis", redis_url=redis.url) as where,
            legacy_node(where, (beats, toy.socket_endpoint())) as node,
            await stream(node, toy.STREAM, "alice") as client,
        ):
            await client.blocks(2)
            redis.kill()
            await node.until(lambda: not node.composition.hub.available, "the bus is away")
            while "event: beat" not in await client.block():
                pass  # it stays open and goes on beating
            opened = [await stream(node, toy.STREAM, "bob") for _ in range(5)]
            for one in opened:
                await one.blocks(2)
            for one in opened[1:]:
                one.wire.reset()
            async with await socket(node, toy.SOCKET, "carl") as late:
                await late.texts(2)
                redis.start()
                await node.until(lambda: node.composition.hub.available, "the bus is back")
                await node.publish("all", {"n": 1})
                assert await late.text() == '{"n":1}'
                for one in (client, opened[0]):
                    while 'data: {"n":1}' not in (block := await one.block()):
                        assert "event: beat" in block
                assert len(node.sessions) == 3
                assert node.legacy.registry.dialects["toy"] == 3
            await opened[0].close()


async def test_a_socket_that_asks_too_much_is_sent_away() -> None:
    async with (
        legacy_node("memory", (toy.socket_endpoint(),), session={"sweep_s": 60}) as node,
        await socket(node, toy.SOCKET, "alice") as client,
    ):
        await client.texts(2)
        with pytest.raises(Closed) as closed:
            for _ in range(700):
                await client.say('{"do":"echo","text":""}')
            while True:
                await client.text()
        assert (closed.value.code, closed.value.reason) == (1013, "try again later")


@pytest.mark.parametrize("dev", [True, False])
async def test_the_flag_dev_and_nothing_else_opens_the_old_demo_pages(dev: bool) -> None:
    async with running_node("memory", server={"dev": dev}) as node:
        doors = (
            ("/ws/bob", None, "connection"),
            ("/api/v1/ws/demo-user", "demo-token", "connection_established"),
            ("/api/v1/ws/test-user-123", "test-token-456", "connection_established"),
            ("/api/v1/ws/anybody", "admin", "connection_established"),
            ("/api/ws/notifications", "test-token-456", "connected"),
        )
        for path, token, greeting in doors:
            if dev:
                async with await socket(node, path, token=token) as client:
                    assert json.loads(await client.text())["type"] == greeting
            else:
                refused = await refusal(node, path, token=token)
                assert isinstance(refused, tuple)
                assert refused[0] in (1008, 4001)
        headers = {"Authorization": "Bearer admin"}
        answer = await node.http.get("/api/v1/ws/connections/anybody", headers=headers)
        assert answer.status_code == (200 if dev else 401)
