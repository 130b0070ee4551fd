"""Legacy contracts over the wire: who is let in, how the others are told, and how connections end; with a toy
contract, on both transports, over detached sockets and plain ASGI, in memory and on Redis."""

from __future__ import annotations

import asyncio
import json
import logging
import re
from typing import Any

import pytest
from websockets.exceptions import InvalidStatus

from dualcast.dialects.legacy import LegacySettings, Refusal
from dualcast.gateway.legacy.finding import OURS, contract_endpoints
from support import legacy_toy as toy
from support.legacy_node import Closed, LegacyNode, legacy_node, refusal, socket, stream
from support.tokens import key, token

pytestmark = pytest.mark.anyio

HOW = [("memory", True), ("memory", False), ("redis", True)]
both = pytest.mark.parametrize(("engine", "detach"), HOW)


async def register(node: LegacyNode, ident: str, owner: str) -> None:
    await node.composition.features.tasks.register("default", ident, owner)


# ── refusals ──


@both
@pytest.mark.covers("R14", "R21")
async def test_r21_the_first_refusals_can_be_read_by_a_browser(engine: str, detach: bool) -> None:
    async with legacy_node(engine, toy.endpoints(LegacySettings()), detach=detach) as node:
        assert await refusal(node, toy.SOCKET) == (4001, "Authentication required")
        assert await refusal(node, toy.SOCKET, "mallory") == (4003, "forbidden")
        assert await refusal(node, toy.TASK + "/ws/T1", "alice") == (4004, "task not found")
        for bad in _bad_tokens(node):
            assert await refusal(node, toy.SOCKET, token=bad) == (4001, "Invalid credentials"), bad


def _bad_tokens(node: LegacyNode) -> list[str]:
    """R14: unverified, expired, unsigned, foreign key, a refresh token, demo tokens."""
    good = node.token("alice")
    unsigned = "eyJhbGciOiJub25lIn0." + good.split(".")[1] + "."
    return [
        "nonsense",
        node.token("alice", life_s=-5),
        unsigned,
        token(key(tenant="other"), sub="alice", tenant="default"),
        node.token("alice", type="refresh"),
        "demo-token",
        "test-token-456",
        "admin",
    ]


@pytest.mark.covers("R14")
async def test_r14_any_token_was_good_on_no_endpoint_of_any_contract() -> None:
    contracts = contract_endpoints(LegacySettings())
    async with legacy_node("memory", dialects=OURS) as node:
        for number, endpoint in enumerate(contracts):
            for bad in _bad_tokens(node):
                path = re.sub(r"\{\w+:str\}", f"alice{number}", endpoint.path)
                if endpoint.transport == "ws":
                    expected = (endpoint.bad.code, endpoint.bad.reason)
                    assert await refusal(node, path, token=bad) == expected, (path, bad)
                    continue
                for how in ({"token": bad}, {"headers": {"authorization": "Bearer " + bad}}):
                    async with await stream(node, path, **how) as client:
                        told = (client.status, json.loads(client.body)["detail"])
                        assert told == (401, endpoint.bad.detail), (path, bad)


@both
@pytest.mark.covers("R22")
async def test_r22_a_client_that_never_gives_up_is_refused_before_the_accept(
    engine: str, detach: bool
) -> None:
    async with legacy_node(engine, toy.endpoints(LegacySettings()), detach=detach) as node:
        expired = node.token("alice", life_s=-5)
        attempts = [await refusal(node, toy.SOCKET, token=expired) for _ in range(6)]
        assert attempts == [(4001, "Invalid credentials")] * 3 + [403] * 3
        assert await refusal(node, toy.TASK + "/ws/T1", token=expired) == (4001, "Invalid credentials")
        async with await socket(node, toy.SOCKET, "alice") as client:
            assert "hello" in await client.text()
        assert [await refusal(node, toy.SOCKET) for _ in range(4)][2:] == [
            (4001, "Authentication required"),
            403,
        ]
        async with await socket(node, toy.SOCKET, "bob") as client:  # from the same address
            assert "hello" in await client.text()


@both
async def test_a_stream_is_refused_with_a_problem(engine: str, detach: bool) -> None:
    async with legacy_node(engine, toy.endpoints(LegacySettings()), detach=detach) as node:
        async with await stream(node, toy.STREAM) as client:
            assert client.body == (
                b'{"type":"about:blank","title":"Unauthorized","status":401,'
                b'"detail":"No authorization header"}'
            )
            assert client.headers["content-type"] == "application/problem+json"
            assert client.headers["www-authenticate"] == "Bearer"
        bad = {"authorization": "Basic abc"}
        async with await stream(node, toy.STREAM, "alice", headers=bad) as client:  # the query does not help
            assert json.loads(client.body)["detail"] == "Invalid authorization format"
        async with await stream(node, toy.STREAM, "mallory") as client:
            assert (client.status, json.loads(client.body)["title"]) == (403, "Forbidden")
        async with await stream(node, toy.TASK + "/stream/T1", "alice") as client:
            assert (client.status, json.loads(client.body)["detail"]) == (404, "Task not found")


async def test_on_a_socket_the_query_token_decides_and_a_header_helps_without_one() -> None:
    async with legacy_node("memory", toy.endpoints(LegacySettings())) as node:
        header = {"authorization": "Bearer " + node.token("bob")}
        async with await socket(node, toy.SOCKET, headers=header) as client:
            assert '"hello":"bob"' in await client.text()
        async with await socket(node, toy.SOCKET, "alice", headers=header) as client:
            assert '"hello":"alice"' in await client.text()
        assert await refusal(node, toy.SOCKET, token="bad", headers=header) == (4001, "Invalid credentials")


@pytest.mark.covers("R27")
async def test_r27_exceptions_of_a_contract_are_told_to_nobody(caplog: pytest.LogCaptureFixture) -> None:
    async with legacy_node("memory", toy.endpoints(LegacySettings())) as node:
        assert await refusal(node, toy.SOCKET, "alice", **{"raise": "1"}) == (4000, "Internal error")
        async with await stream(node, toy.STREAM, "alice", **{"raise": "1"}) as broken:
            assert broken.status == 503
            assert "retry-after" in broken.headers
            assert b"secret" not in broken.body
        async with (
            await socket(node, toy.SOCKET, "alice") as client,
            await stream(node, toy.STREAM, "bob") as other,
        ):
            await client.texts(2)
            await other.blocks(2)
            await client.say('{"do":"raise"}')
            await node.publish("all", {}, kind="broken")
            await node.publish("all", {"n": 1})
            assert await client.text() == '{"n":1}'
            assert 'data: {"n":1}' in await other.block()
        assert node.legacy.registry.gauges()["legacy_encode_failed"] == 2
    caplog.clear()


async def test_first_frames_that_cannot_be_made_close_with_the_contracts_code() -> None:
    def broken(*given: Any) -> Any:
        raise KeyError("secret-exception-text")

    bad = (toy.socket_endpoint(first=broken), toy.stream_endpoint(first=broken))
    async with legacy_node("memory", bad) as node:
        assert await refusal(node, toy.SOCKET, "alice") == (4000, "Internal error")
        async with await stream(node, toy.STREAM, "alice") as client:
            assert await client.block() == ""


# ── who is counted, and how many may come in ──


@both
async def test_the_newest_connection_of_a_stream_wins(engine: str, detach: bool) -> None:
    two = LegacySettings(max_connections_per_user=2)
    async with (
        legacy_node(engine, toy.endpoints(two), settings=two, detach=detach) as node,
        await socket(node, toy.SOCKET, "alice") as first,
        await socket(node, toy.SOCKET, "alice") as second,
        await socket(node, toy.SOCKET, "bob") as other,
    ):
        for client in (first, second, other):
            await client.texts(2)
        async with await socket(node, toy.SOCKET, "alice") as third:
            assert json.loads(await third.text())["own"] == 3  # it is in before the oldest has to go
            ended = await first.end()
            assert (ended.code, ended.reason) == (4409, "connection limit")
            for client in (second, other):
                assert "echo" in await client.ask('{"do":"echo","text":""}')
        streams = [await stream(node, toy.STREAM, "alice") for _ in range(3)]
        await streams[0].blocks(2)
        assert await streams[0].block() == 'event: replaced\ndata: {"limit":2}\nretry: 300000\n\n'
        assert await streams[0].block() == ""
        for one in streams:
            await one.close()
        assert node.legacy.registry.gauges()["legacy_evictions"] == 2


@both
async def test_a_full_dialect_or_server_says_come_back(engine: str, detach: bool) -> None:
    full = toy.socket_endpoint(max_connections=1, full=lambda facts: (b'{"full":1}',), dialect="small")
    small = toy.stream_endpoint(max_connections=1, dialect="small")
    async with legacy_node(engine, (full, small), detach=detach, session={"max_connections": 2}) as node:
        async with await socket(node, toy.SOCKET, "alice") as client:
            await client.texts(2)
            async with await socket(node, toy.SOCKET, "bob") as refused:
                assert await refused.text() == '{"full":1}'
                with pytest.raises(Closed) as closed:
                    await refused.text()
                assert (closed.value.code, closed.value.reason) == (1013, "try again later")
            async with await stream(node, toy.STREAM, "bob") as busy:
                assert (busy.status, "retry-after" in busy.headers) == (503, True)
        await node.until(lambda: not node.sessions)
        async with await socket(node, toy.SOCKET, "bob") as client:  # there is room again
            assert "hello" in await client.text()


async def test_chosen_ids_are_taken_over_from_nobody() -> None:
    async with (
        legacy_node("memory", toy.endpoints(LegacySettings())) as node,
        await socket(node, toy.SOCKET, "alice", client_id="c1") as first,
        await socket(node, toy.SOCKET, "bob", client_id="c1") as second,
    ):
        assert [json.loads(await one.text())["id"] for one in (first, second)] == ["c1", "fresh-1"]
        for one in (first, second):
            await one.text()
        await node.publish("all", {"n": 1})
        assert [await one.text() for one in (first, second)] == ['{"n":1}', '{"n":1}']


async def test_presence_counts_legacy_connections() -> None:
    async with (
        legacy_node("memory", toy.endpoints(LegacySettings())) as node,
        await socket(node, toy.SOCKET, "alice", device="mobile") as client,
        await stream(node, toy.STREAM, "bob") as other,
    ):
        await client.texts(2)
        await other.blocks(2)
        presence = node.composition.features.presence
        facts = {one.user: one for one in await presence.connections("default")}
        assert {user: (one.dialect, one.transport, one.device) for user, one in facts.items()} == {
            "alice": ("toy", "ws", "mobile"),
            "bob": ("toy", "sse", ""),
        }


# ── ends ──


@both
@pytest.mark.covers("R23")
async def test_r23_no_end_is_1000(engine: str, detach: bool) -> None:
    idle = toy.socket_endpoint(path="/toy/idle", silent_s=0.5)
    async with legacy_node(engine, (*toy.endpoints(LegacySettings()), idle), detach=detach) as node:
        async with await socket(node, "/toy/idle", "alice") as client:
            ended = await client.end()
            assert (ended.code, ended.reason) == (4408, "idle timeout")
        async with await socket(node, toy.SOCKET, "alice") as client:
            await client.texts(2)
            with pytest.raises(Closed) as closed:
                await client.say("x" * 70_000)
                await client.text()
            assert closed.value.code == 1009
            assert closed.value.reason == "message too big" or not detach  # the stock server's own words
        async with await socket(node, toy.SOCKET, "alice") as client:
            await client.texts(2)
            await node.http.put("/v1/revocations", json={"user": "alice"}, headers=node.auth("root", "admin"))
            ended = await client.end()
            assert (ended.code, ended.reason) == (4001, "Invalid credentials")
        drained = await socket(node, toy.SOCKET, "bob")
        await drained.texts(2)
        open_stream = await stream(node, toy.STREAM, "bob")
        await open_stream.blocks(2)
        await node.composition.drain()
        ended = await drained.end()
        assert (ended.code, ended.reason) == (1012, "service restart")
        assert await open_stream.block() == ""
        await drained.close()
        await open_stream.close()


async def test_a_token_that_runs_out_cuts_only_when_it_should() -> None:
    for cut in (False, True):
        wanted = LegacySettings(cut_on_expiry=cut)
        async with (
            legacy_node("memory", toy.endpoints(wanted), settings=wanted) as node,
            await socket(node, toy.SOCKET, "alice") as client,
        ):
            await client.texts(2)
            session = await node.session_of("alice")
            over = session.principal.expires_at + 1.0
            session.node.now_s = lambda over=over: over  # type: ignore[method-assign,misc]
            node.sweep()
            if cut:
                assert (await client.end()).code == 4001
            else:
                assert "echo" in await client.ask('{"do":"echo","text":""}')


@both
@pytest.mark.covers("R49")
async def test_r49_a_stalled_reader_delays_nobody(engine: str, detach: bool) -> None:
    async with (
        legacy_node(engine, toy.endpoints(LegacySettings()), detach=detach) as node,
        await stream(node, toy.STREAM, "bob") as stalled,
        await socket(node, toy.SOCKET, "alice") as client,
    ):
        await stalled.blocks(2)
        await client.texts(2)
        stalled.wire.writer.transport.pause_reading()  # type: ignore[attr-defined]
        big = "x" * 50_000
        for number in range(60):
            await node.publish("all", {"n": number, "pad": big})
            assert json.loads(await client.text())["n"] == number
        slow = next(one for one in node.sessions if one.principal.sub == "bob")
        assert not slow.closed
        stalled.wire.writer.transport.resume_reading()  # type: ignore[attr-defined]


@pytest.mark.parametrize("detach", [True, False])
@pytest.mark.covers("R50")
async def test_r50_no_log_line_holds_a_token(caplog: pytest.LogCaptureFixture, detach: bool) -> None:
    caplog.set_level(logging.DEBUG)
    async with legacy_node("memory", toy.endpoints(LegacySettings()), detach=detach) as node:
        good, bad = node.token("alice"), node.token("alice", life_s=-5)
        async with await socket(node, toy.SOCKET, token=good, client_id="c") as client:
            await client.texts(2)
        async with await stream(node, toy.STREAM, token=good) as open_stream:
            await open_stream.blocks(2)
        for _ in range(4):
            await refusal(node, toy.SOCKET, token=bad)
        async with await stream(node, toy.STREAM, token=bad):
            pass
        await refusal(node, toy.SOCKET, token=good, **{"raise": "1"})
        metrics = (await node.http.get("/metrics")).text
    ours = [one for one in caplog.records if not one.name.startswith(("websockets.client", "http"))]
    lines = "\n".join([*(record.getMessage() for record in ours), metrics])
    assert "failed" in lines  # something was logged
    for held in (good, bad):
        assert held not in lines
        assert held.split(".")[2] not in lines


async def test_legacy_paths_take_any_id_and_leave_http_alone() -> None:
    named = toy.socket_endpoint(
        path="/toy/{user_id:str}",
        admit=lambda facts: toy.Admission() if facts.params["user_id"] == facts.user else toy.NOT_FOUND,
    )
    async with legacy_node("memory", (named, *toy.endpoints(LegacySettings()))) as node:
        for user, path in (("a/b%", "a%2Fb%25"), ("张三", "%E5%BC%A0%E4%B8%89"), ("stats", "stats")):
            async with await socket(node, "/toy/" + path, user) as client:
                assert json.loads(await client.text())["hello"] == user
        with pytest.raises(InvalidStatus):
            await socket(node, "/toy/a/b", "alice")
        assert (await node.http.get(toy.SOCKET)).status_code == 426
        assert (await node.http.head(toy.STREAM, params={"token": node.token("alice")})).status_code == 200
        assert (await node.http.post(toy.STREAM)).status_code == 405


@pytest.mark.covers("R9")
async def test_r9_an_aborted_stream_leaves_nothing_behind() -> None:
    async with legacy_node("memory", toy.endpoints(LegacySettings())) as node:
        for _ in range(20):
            client = await stream(node, toy.STREAM, "alice")
            await client.block()
            client.wire.reset()
        await node.until(lambda: not node.sessions, "no session left")
        registry = node.legacy.registry
        assert not registry.dialects
        assert not node.composition.node.closing
        assert not node.composition.node.per_address


@pytest.mark.covers("R2")
async def test_r2_an_abort_while_a_stream_opens_leaves_nothing_counted() -> None:
    async with legacy_node("memory", toy.endpoints(LegacySettings())) as node:
        gate = asyncio.Event()

        async def slow(tenant: str, channel: str) -> bytes | None:
            gate.set()
            await asyncio.sleep(0.05)
            return None

        node.composition.node.states.sources["task"] = slow
        await register(node, "T1", "alice")
        for _ in range(5):
            gate.clear()
            request = asyncio.create_task(stream(node, toy.TASK + "/stream/T1", "alice"))
            await gate.wait()
            request.cancel()
            await asyncio.gather(request, return_exceptions=True)
        await node.live.until_idle()
        registry = node.legacy.registry
        assert not node.sessions
        assert not registry.dialects
        assert not node.composition.node.per_address


def test_a_refusal_of_an_unknown_task_is_the_contracts() -> None:
    assert Refusal(code=4004, reason="task not found", status=404, detail="Task not found") == toy.NOT_FOUND
