"""Stage changes that meet handshakes and one another, and what a client that is sent away comes back with."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from typing import Any

import msgspec
import pytest

from dualcast.gateway import socket as endpoint
from dualcast.session import moving
from dualcast_migration.policy import Brownout, StageRecord
from dualcast_migration.stage import Stage
from support.clients import Ended, open_socket, open_stream
from support.node import Node, running_node

pytestmark = pytest.mark.anyio
TWINS = ("/v1/stream", "/api/notifications/stream")


async def put(node: Node, stage: Stage, **fields: Any) -> None:
    """Gives the tenant a new stage record."""
    tenants = node.composition.tenants
    tenant = tenants.current("default")
    assert tenant is not None
    await tenants.put(msgspec.structs.replace(tenant, stage=StageRecord(stage=stage, **fields)))


async def test_a_socket_that_attaches_after_the_change_it_was_let_in_before_is_moved(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(moving, "LOOK_EVERY_S", 0.05)
    changed = asyncio.Event()
    async with running_node(
        "memory", tenancy={"stage": "fallback"}, session={"move_spread_s": 0.0, "move_grace_s": 0.0}
    ) as node:
        real = endpoint.respond_websocket
        admitted = asyncio.Event()

        async def late(*args: Any, **more: Any) -> bool:
            admitted.set()
            await changed.wait()
            return await real(*args, **more)

        async with await open_socket(node.port, node.token("bob")) as other:
            await other.welcome()
            monkeypatch.setattr(endpoint, "respond_websocket", late)
            opening = asyncio.create_task(open_socket(node.port, node.token("ann")))
            await admitted.wait()
            await put(node, Stage.SSE)
            await other.until("bye")
        changed.set()
        async with await opening as socket:
            assert (await socket.until("migrate")).body["to"] == "sse"
            assert (await socket.end()).code == 4010


async def test_a_move_that_is_taken_back_and_ordered_again_gives_its_time_again() -> None:
    slow: dict[str, Any] = {"move_spread_s": 0.0, "move_grace_s": 3.0}
    async with (
        running_node("memory", tenancy={"stage": "fallback"}, session=slow) as node,
        await open_socket(node.port, node.token("ann")) as socket,
    ):
        await socket.welcome()
        movements = node.composition.movements
        await put(node, Stage.SSE)
        await socket.until("migrate")
        await put(node, Stage.SHADOW)
        await socket.until("stage")
        assert movements.gauges()["sessions_moving"] == 0
        await put(node, Stage.SSE)
        assert (await socket.until("migrate")).body["to"] == "sse", "it is asked again"
        first, second = sorted(movements._ends)
        movements._end_due(first[0])
        assert movements.moved == 0
        movements._end_due(second[0])
        assert movements.moved == 1
        with pytest.raises(Ended):
            await socket.until("publication")


async def test_live_streams_are_told_of_a_sunset_that_is_set_or_moved_later(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(moving, "LOOK_EVERY_S", 0.05)
    async with (
        running_node("memory", tenancy={"stage": "websocket"}) as node,
        await open_stream(node.port, node.token("ann")) as stream,
    ):
        assert "sunset_at" not in (await stream.until("migrate")).body
        await node.until(lambda: bool(node.composition.movements._told), "it was looked at")
        for days in (9, 5):
            sunset = int(time.time()) + days * 86_400
            await put(node, Stage.WEBSOCKET, sunset_at=sunset)
            assert (await stream.until("migrate")).body["sunset_at"] == sunset
        await node.publish("user:ann", 1)
        assert (await stream.next()).kind == "publication", "each is told once"


@pytest.mark.parametrize("path", TWINS)
@pytest.mark.parametrize("ident", ["", "abc-12", "not a cursor"])
async def test_who_is_sent_away_by_a_brownout_keeps_its_last_id(path: str, ident: str) -> None:
    brownouts = (Brownout(int(time.time()) - 10, 100.0),)
    async with running_node("memory", tenancy={"stage": "fallback"}) as node:
        await put(node, Stage.WEBSOCKET, brownouts=brownouts)
        headers = {**node.auth("ann"), **({"Last-Event-ID": ident} if ident else {})}
        answer = await node.http.get(path, headers=headers)
        assert answer.status_code == 200
        # An event source starts a stream with no last id, and takes it over at the blank line.
        assert _last_id(answer.text.split("\n")) == (ident if ident == "abc-12" else "")


@pytest.mark.parametrize("path", TWINS)
async def test_a_reason_to_fall_back_counts_when_the_stream_is_let_in(path: str) -> None:
    """A page that is sent away comes back with the same URL, and has no last id yet."""
    async with running_node("memory", tenancy={"stage": "fallback"}) as node:
        recorder, store = node.composition.witness.recorder, node.composition.stores.evidence
        asked: dict[str, Any] = {
            "params": {"fallback_reason": "open-failed"},
            "headers": node.auth("ann"),
        }
        await put(node, Stage.WEBSOCKET, brownouts=(Brownout(int(time.time()) - 10, 100.0),))
        await node.http.get(path, **asked)
        await recorder.flush()
        assert (await store.window("default", 60)).ws_fell_back == 0
        await put(node, Stage.WEBSOCKET)
        async with node.http.stream("GET", path, **asked) as answer:
            await anext(answer.aiter_bytes())
        await recorder.flush()
        assert (await store.window("default", 60)).ws_fell_back == 1


async def test_a_stream_that_was_sent_away_misses_nothing() -> None:
    async with running_node("memory", tenancy={"stage": "fallback"}) as node:
        async with await open_stream(node.port, node.token("ann")) as stream:
            await stream.welcome()
            await node.publish("user:ann", 1)
            (first,) = await stream.publications(1)
        await put(node, Stage.WEBSOCKET, brownouts=(Brownout(int(time.time()) - 10, 100.0),))
        await node.publish("user:ann", 2)
        headers = {**node.auth("ann"), "Last-Event-ID": first.cursor or ""}
        away = (await node.http.get("/v1/stream", headers=headers)).text
        await put(node, Stage.WEBSOCKET)
        back = await open_stream(node.port, node.token("ann"), last_event_id=_last_id(away.split("\n")))
        async with back:
            assert (await back.until("publication")).data == 2


def _last_id(lines: Sequence[str]) -> str:
    """The last event id of an event source at the end of a stream, read to the letter."""
    buffer = last = ""
    for line in lines[:-1]:
        if line.startswith("id: "):
            buffer = line.removeprefix("id: ")
        elif not line:
            last = buffer
    return last


@pytest.mark.parametrize("refusing", [Stage.SSE, Stage.WEBSOCKET])
async def test_a_node_that_has_not_heard_of_the_change_ends_nobodys_attempts(
    monkeypatch: pytest.MonkeyPatch, refusing: Stage
) -> None:
    """4010 and 204 are final for a client, so they are said only when the store says so, too."""
    async with running_node("memory", tenancy={"stage": "fallback"}) as node:
        tenants = node.composition.tenants
        over = {"sunset_at": 1_000} if refusing is Stage.WEBSOCKET else {}
        await put(node, refusing, **over)
        stale = tenants.current("default")
        assert stale is not None
        if refusing is Stage.SSE:
            assert (await (await open_socket(node.port, node.token("ann"))).end()).code == 4010
        else:
            for path in TWINS:
                answer = await node.http.get(path, headers=node.auth("ann"))
                assert answer.status_code == 204
        await put(node, Stage.SHADOW)
        monkeypatch.setattr(tenants, "current", lambda _tenant: stale)
        if refusing is Stage.SSE:
            assert (await (await open_socket(node.port, node.token("ann"))).end()).code == 4101
        else:
            for path in TWINS:
                answer = await node.http.get(path, headers=node.auth("ann"))
                assert answer.status_code == 200
                assert "retry: 1000\n" in answer.text


async def test_a_refusal_reaches_a_browser_that_offered_subprotocols() -> None:
    """A browser drops a handshake whose answer chooses none of what it offered: it would see 1006."""
    async with running_node("memory", tenancy={"stage": "sse"}) as node:
        offered = ["dualcast", "bearer." + node.token("ann")]
        async with await open_socket(node.port, subprotocols=offered) as socket:
            assert socket.socket.subprotocol == "dualcast"
            assert (await socket.end()).code == 4010
        async with await open_socket(node.port, subprotocols=["dualcast", "bearer.not.a.token"]) as socket:
            assert socket.socket.subprotocol == "dualcast"
            assert (await socket.end()).code == 4001
