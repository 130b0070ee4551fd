"""The guard and the census on running servers: what clients do moves a tenant, once, and is seen by kind."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Iterator
from contextlib import AsyncExitStack
from typing import Any

import pytest
from websockets.asyncio.client import connect
from websockets.exceptions import InvalidStatus

from dualcast import features
from dualcast_migration import guard
from dualcast_migration.evidence.port import EvidenceSettings
from dualcast_migration.figures import Window
from support.clients import Ended, WsClient, open_socket, open_stream
from support.node import ENGINES, Node, place, running_node
from support.raw_http import connect as open_wire

pytestmark = pytest.mark.anyio
CHROME = (
    "Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/130.0.0.0 Safari/537.36"
)
FIREFOX = "Mozilla/5.0 (X11; Linux x86_64; rv:131.0) Gecko/20100101 Firefox/131.0"
PATIENCE_S = 40.0


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Loops without pauses, and no time for a change to settle."""
    fast = EvidenceSettings(flush_s=0.1, live_s=0.1, watch_s=0.1)
    monkeypatch.setattr(features, "EvidenceSettings", lambda: fast)
    monkeypatch.setattr(guard, "SETTLE_S", 0)
    yield


def operator(node: Node) -> dict[str, str]:
    return node.auth("ops", "operator")


async def get(node: Node, what: str) -> dict[str, Any]:
    answer = await node.http.get(f"/v1/tenants/default/{what}", headers=operator(node))
    assert answer.status_code == 200, answer.text
    found: dict[str, Any] = answer.json()
    return found


async def put(node: Node, **fields: Any) -> None:
    headers = {**operator(node), "If-Match": "*"}
    body = {"why": "a test", **fields}
    answer = await node.http.put("/v1/tenants/default/migration", headers=headers, json=body)
    assert answer.status_code == 200, answer.text


def stage(node: Node) -> str:
    """As the node knows it."""
    tenant = node.composition.tenants.current("default")
    assert tenant is not None
    return str(tenant.stage.stage)


async def window(node: Node) -> Window:
    """The last minute, with what this node has not told yet."""
    await node.composition.witness.recorder.flush()
    return await node.composition.stores.evidence.window("default", 60)


async def steps_back(node: Node) -> list[dict[str, Any]]:
    return [one for one in (await get(node, "audit"))["entries"] if one["action"] == "step-back"]


async def fall_back(node: Node, user: str) -> None:
    """A client whose upgrade failed at a proxy: the server only hears of it on the stream."""
    async with await open_stream(node.port, node.token(user), fallback_reason="timeout") as stream:
        with contextlib.suppress(Ended):  # sent away: the stage was changed in this very moment
            await stream.welcome()


async def test_sockets_that_fail_step_the_tenant_back_and_one_node_does_it() -> None:
    async with place("redis") as where, running_node(where) as one, running_node(where) as two:
        nodes = (one, two)
        await put(one, stage="fallback", cohort={"percent": 100, "allow": ["vip"]})
        async with asyncio.timeout(PATIENCE_S):
            number = 0
            while stage(one) == "fallback":
                number += 1
                await asyncio.gather(*(fall_back(node, f"u{number}") for node in nodes))
        await two.until(lambda: stage(two) == "shadow", "the other node knows")
        (entry,) = await steps_back(one)
        assert entry["who"] == "guard"
        assert (entry["from"]["stage"], entry["to"]["stage"]) == ("fallback", "shadow")
        assert "WebSocket opens failed (100.0 %: 0 refused" in entry["why"]
        assert entry["to"]["cohort"]["percent"] == 100 and entry["to"]["cohort"]["allow"] == []
        told = [await node.metric("dualcast_guard_steps_back_total") for node in nodes]
        assert sorted(told) == [0, 1]
        # As bad as before: within the hold-off nobody moves again, and nobody goes on.
        for n in range(30):
            await fall_back(nodes[n % 2], f"v{n}")
        for node in nodes:
            await node.composition.witness.recorder.flush()
            await node.composition.witness.guard.look("default")
        assert stage(one) == stage(two) == "shadow" and len(await steps_back(two)) == 1
        readiness = await get(two, "readiness")
        assert "held" in [reason["code"] for reason in readiness["reasons"]]
        body = {"stage": "fallback", "why": "too early"}
        answer = await one.http.put(
            "/v1/tenants/default/migration", headers={**operator(one), "If-Match": "*"}, json=body
        )
        assert answer.status_code == 409 and answer.json()["code"] == "guard-hold"


async def test_a_tenant_that_is_well_stays_where_it_is() -> None:
    async with running_node("memory") as node, AsyncExitStack() as stack:
        for n in range(25):
            socket = await stack.enter_async_context(await open_socket(node.port, node.token(f"u{n}")))
            await socket.welcome()
        await fall_back(node, "unlucky")
        found = await window(node)
        assert (found.attempts, found.failed, found.users) == (26, 1, 25)
        assert await node.composition.witness.guard.look("default") is None
        assert stage(node) == "fallback" and not await steps_back(node)


@pytest.mark.parametrize("detach", [True, False])
async def test_how_sockets_end_is_told_apart(detach: bool) -> None:
    async with running_node("memory", detach=detach) as node:

        async def opened(user: str, **how: Any) -> WsClient:
            socket = await open_socket(node.port, node.token(user), **how)
            await socket.welcome()
            await node.session_of(user)
            return socket

        await (await opened("good")).close()
        torn = await opened("torn")
        torn.socket.transport.abort()
        rude = await opened("rude")
        rude.socket.transport.write(b"\xff\xff")
        with pytest.raises(Ended):
            await rude.until("never")
        here = await opened("here")
        back = await opened("back", cursor=here.cursor)
        await node.until(lambda: len(node.sessions) == 2, "three are gone")
        found = await window(node)
        # uvicorn's own classes say of a torn socket what they say of a close frame without a code (1005).
        abnormal = 2 if detach else 1
        assert (found.ws_opened, found.ws_closed) == (5, 3)
        assert (found.ws_abnormal, found.ws_short) == (abnormal, abnormal)
        assert found.ws_reconnects == 1 and found.users == 5
        await back.close()
        await here.close()


async def test_a_stage_that_refuses_sockets_is_no_failure() -> None:
    async with running_node("memory") as node:
        await put(node, stage="sse")
        socket = await open_socket(node.port, node.token("alice"))
        with pytest.raises(Ended):
            await socket.next()
        async with await open_stream(node.port, node.token("alice"), fallback_reason="stage") as stream:
            await stream.welcome()
        assert (await window(node)).attempts == 0


async def test_a_stream_that_comes_back_by_itself_repeats_no_failure() -> None:
    """An `EventSource` repeats its URL: after a restart of the server every old reason would come again."""
    async with running_node("memory") as node:
        token = node.token("alice")
        async with await open_stream(node.port, token, fallback_reason="timeout") as stream:
            cursor = (await stream.welcome()).cursor or "0-0"
        for _ in range(2):
            again = await open_stream(node.port, token, fallback_reason="timeout", last_event_id=cursor)
            async with again as stream:
                await stream.welcome()
        found = await window(node)
        assert (found.ws_fell_back, found.sse_opened) == (1, 3)


async def test_the_older_twins_count_and_other_contracts_do_not() -> None:
    async with running_node("memory") as node:
        for path, number in (("/api/ws/notifications", 0), ("/api/v1/ws/u1", 1)):
            with contextlib.suppress(InvalidStatus):
                url = f"ws://127.0.0.1:{node.port}{path}?token={node.token(f'u{number}')}"
                async with connect(url, proxy=None, open_timeout=10) as socket:
                    await socket.recv()
        stream = await open_wire(node.port)
        query = f"token={node.token('u2')}&fallback_reason=timeout&app=3"
        head = (
            f"GET /api/notifications/stream?{query} HTTP/1.1",
            "host: test",
            "user-agent: okhttp/4.9",
            "",
            "",
        )
        stream.write("\r\n".join(head).encode())
        assert (await stream.read_response(body=False)).status == 200
        await node.until(lambda: len(node.sessions) == 1, "the stream")
        found = await window(node)
        assert (found.ws_opened, found.ws_fell_back, found.sse_opened) == (1, 1, 1)
        (row,) = [row for row in (await get(node, "census"))["rows"] if row["transport"] == "sse"]
        assert (row["dialect"], row["agent"], row["app"], row["instance"]) == (
            "notifications",
            "okhttp 4",
            "3",
            False,
        )
        stream.reset()


@pytest.mark.parametrize("engine", ENGINES)
async def test_the_census_tells_who_is_there(engine: str) -> None:
    async with running_node(engine) as node, AsyncExitStack() as stack:

        async def come(
            transport: str, user: str, agent: str, *, referer: str = "", **parameters: str
        ) -> None:
            headers = {"user-agent": agent, **({"referer": referer} if referer else {})}
            how: dict[str, Any] = {"headers": headers, **parameters}
            connect = open_stream if transport == "sse" else open_socket
            if transport == "ws":
                how["headers"] = {"User-Agent": agent}
            client = await stack.enter_async_context(await connect(node.port, node.token(user), **how))
            await client.welcome()

        page = "https://app.example.com/inbox?token=secret"
        await come("sse", "alice", CHROME, referer=page, instance="i1", app="2.0.1")
        await come("ws", "alice", CHROME, instance="i1", app="2.0.1")
        await come("sse", "bob", FIREFOX)
        await come("sse", "carol", FIREFOX)
        await come("sse", "dave", "AcmeShop/12.1 (Android 14) okhttp/4.12.0", app="12.1")
        recorder = node.composition.witness.recorder
        async with asyncio.timeout(PATIENCE_S):
            census = await get(node, "census")
            while census["live_sse"] < 4 or census["live_ws"] < 1:
                await recorder.flush()
                census = await get(node, "census")
        kinds = {(row["transport"], row["agent"], row["app"], row["origin"]): row for row in census["rows"]}
        chrome = kinds["sse", "Chrome 130", "2.0.1", "https://app.example.com"]
        assert chrome["instance"] is True and chrome["live"] == chrome["users"] == 1
        firefox = kinds["sse", "Firefox 131", "", ""]
        assert firefox["live"] == firefox["users"] == firefox["connects"] == 2
        assert firefox["instance"] is False and firefox["dialect"] == "native"
        assert kinds["sse", "app:AcmeShop 12", "12.1", ""]["live"] == 1
        assert any(key[0] == "ws" and key[2] == "2.0.1" for key in kinds)
        assert census["live_left"] == 3
        assert "secret" not in str(census) and "alice" not in str(census)
        await stack.aclose()
        await node.until(lambda: not node.sessions, "everybody has left")
        async with asyncio.timeout(PATIENCE_S):
            while census["live_sse"] or census["live_ws"]:
                await recorder.flush()
                census = await get(node, "census")
        assert census["kinds"] == len(kinds), "they are remembered"


async def test_readiness_before_and_after() -> None:
    async with running_node("memory") as node, AsyncExitStack() as stack:
        await put(node, stage="shadow")
        before = await get(node, "readiness")
        assert [one["code"] for one in before["reasons"]] == ["too-few-sockets", "too-few-compared"]
        number, after = 0, before
        async with asyncio.timeout(PATIENCE_S):
            while not after["ready"]:
                number += 1
                socket = await stack.enter_async_context(
                    await open_socket(node.port, node.token(f"u{number}"))
                )
                await socket.welcome()
                node.composition.witness.recorder.compared("default", 1)
                after = await get(node, "readiness")
        assert (after["stage"], after["next"]) == ("shadow", "fallback")
        assert after["totals"]["websocket_opens"] >= 20 and after["totals"]["compared"] >= 20
