"""Subscriptions of the Python client on running nodes: both transports, gaps, tokens, stages, position."""

from __future__ import annotations

import asyncio
import logging
import os
import random
import time
import traceback
from collections.abc import AsyncIterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace

from support.client_package import package
from support.client_rig import numbers_of
from support.node import Node, place, running_node

pytestmark = pytest.mark.anyio
TRANSPORTS = ("websocket", "sse")
PATIENCE_S = 20.0
numbers = partial(numbers_of, seconds=PATIENCE_S)


@pytest.fixture
async def node() -> AsyncIterator[Node]:
    async with running_node("memory") as running:
        yield running


def client_of(node: Node, sub: str = "alice", **claims: Any) -> package.AsyncClient:
    return package.AsyncClient(node.base_url, node.token(sub, channels=["topic:*"], **claims))


@pytest.mark.parametrize("transport", TRANSPORTS)
async def test_what_is_published_after_entering_is_given_in_order(node: Node, transport: Any) -> None:
    async with client_of(node) as client, client.subscribe(["topic:a,b"], transport=transport) as stream:
        assert stream.transport == transport
        assert stream.welcome is not None and stream.welcome.user == "alice"
        for n in range(20):
            await node.publish("topic:a,b", {"n": n})
        assert await numbers(stream, 19) == list(range(20))
        await node.publish("user:alice", {"n": 100}, kind="hello")
        got = await anext(stream)
        assert (got.channel, got.event, got.recovered) == ("user:alice", "hello", False)
        assert got.cursor == stream.cursor
    assert await client_has_none(node)


async def client_has_none(node: Node) -> bool:
    await node.until(lambda: not node.sessions, "the session has ended")
    return True


@pytest.mark.parametrize("first, then", [("websocket", "sse"), ("sse", "websocket")])
async def test_the_cursor_of_one_transport_is_good_on_the_other(node: Node, first: Any, then: Any) -> None:
    async with client_of(node) as client:
        async with client.subscribe(["topic:a"], transport=first) as stream:
            await node.publish("topic:a", {"n": 1})
            assert await numbers(stream, 1) == [1]
        for n in (2, 3):
            await node.publish("topic:a", {"n": n})
        async with client.subscribe(["topic:a"], transport=then, cursor=stream.cursor) as stream:
            await node.publish("topic:a", {"n": 4})
            assert await numbers(stream, 4) == [2, 3, 4]


@pytest.mark.parametrize("transport", TRANSPORTS)
async def test_whoever_waits_may_be_cancelled_again_and_again(node: Node, transport: Any) -> None:
    async with client_of(node) as client, client.subscribe(["topic:a"], transport=transport) as stream:
        welcome = stream.welcome
        for n in range(30):
            waiting = asyncio.ensure_future(stream.next_event())
            for _ in range(n % 4):
                await asyncio.sleep(0)
            waiting.cancel()
            (lost,) = await asyncio.gather(waiting, return_exceptions=True)
            assert isinstance(lost, asyncio.CancelledError | package.Welcome)
        publishing = asyncio.ensure_future(publish(node, 200))
        found: list[int] = []
        patience = random.Random(7)
        deadline = time.monotonic() + PATIENCE_S
        while found[-1:] != [199] and time.monotonic() < deadline:
            try:
                async with asyncio.timeout(patience.random() / 300):
                    event = await stream.next_event()
            except TimeoutError:
                continue
            if isinstance(event, package.Published):
                found.append(event.data["n"])
        await publishing
        assert found == list(range(200))
        assert stream.welcome is welcome, "it is the same connection"


async def publish(node: Node, count: int) -> None:
    for n in range(count):
        await node.publish("topic:a", {"n": n})


async def test_a_store_brings_the_next_process_to_where_this_one_was(node: Node, tmp_path: Path) -> None:
    store = package.FileCursorStore(tmp_path / "cursor")
    async with client_of(node) as client:
        async with client.subscribe(["topic:a"], store=store) as stream:
            for n in range(5):
                await node.publish("topic:a", {"n": n})
            assert await numbers(stream, 2) == [0, 1, 2]
        with pytest.raises(RuntimeError, match="crash"):
            async with client.subscribe(["topic:a"], store=store) as stream:
                assert (await anext(stream)).data == {"n": 3}
                raise RuntimeError("a crash while it was dealt with")
        async with client.subscribe(["topic:a"], store=store, transport="sse") as stream:
            assert await numbers(stream, 4) == [3, 4]
    assert os.listdir(tmp_path) == ["cursor"]


async def test_a_stream_ends_where_it_is_closed(node: Node) -> None:
    async with client_of(node) as client:
        for transport in TRANSPORTS:
            async with client.subscribe(transport=transport) as stream:
                assert isinstance(await stream.next_event(), package.Welcome)
                waiting = asyncio.ensure_future(stream.next_event())
                await asyncio.sleep(0.05)
                with pytest.raises(RuntimeError, match="one consumer"):
                    await stream.next_event()
                await stream.aclose()
                assert await asyncio.wait_for(waiting, PATIENCE_S) is None
                assert [one async for one in stream] == []
    before = {task for task in asyncio.all_tasks() if "dualcast_client" in repr(task)}
    assert not before


# ── gaps ──


@pytest.mark.parametrize("transport", TRANSPORTS)
@pytest.mark.parametrize("on_gap", ["raise", "event"])
async def test_a_gap_is_told_and_the_rest_comes(transport: Any, on_gap: Any) -> None:
    async with (
        running_node("memory", bus={"history_entries": 5}, delivery={"ring_entries": 2}) as node,
        client_of(node) as client,
    ):
        async with client.subscribe(["topic:a"], transport=transport) as stream:
            await node.publish("topic:a", {"n": 0})
            assert await numbers(stream, 0) == [0]
        for n in range(1, 21):
            await node.publish("topic:a", {"n": n})
        again = client.subscribe(["topic:a"], transport=transport, cursor=stream.cursor, on_gap=on_gap)
        async with again as stream:
            gaps, found = [], []
            while found[-1:] != [20]:
                try:
                    event = await asyncio.wait_for(stream.next_event(), PATIENCE_S)
                except package.GapError as error:
                    assert on_gap == "raise"
                    event = error.gap
                if isinstance(event, package.Gap):
                    gaps.append((event.channel, event.reason))
                if isinstance(event, package.Published):
                    found.append(event.data["n"])
        assert gaps == [("topic:a", "trimmed")]
        assert found == list(range(found[0], 21)) and found[0] > 1


async def test_what_history_has_of_a_gap_is_given_first(node: Node) -> None:
    async with client_of(node) as client:
        for n in range(3):
            await node.publish("topic:a", {"n": n})
        # A position of another log.
        lost = client.subscribe(["topic:a"], cursor="zzzz-5", backfill=True, on_gap="event")
        async with lost as stream:
            found, gaps = [], []
            while not gaps:
                event = await asyncio.wait_for(stream.next_event(), PATIENCE_S)
                if isinstance(event, package.Published):
                    found.append(event.data["n"])
                elif isinstance(event, package.Gap) and event.channel == "topic:a":
                    gaps.append(event)
            assert found == [0, 1, 2]
            assert gaps[0].reason == "unknown" and not gaps[0].filled
            await node.publish("topic:a", {"n": 3})
            assert await numbers(stream, 3) == [3]
        page = await client.history("topic:a", limit=2)
        assert [one.data["n"] for one in page.publications] == [0, 1] and page.more


# ── tokens ──


class Tokens:
    """Tokens that live for a short time."""

    def __init__(self, node: Node, life_s: float) -> None:
        self.node = node
        self.life_s = life_s
        self.made: list[float] = []

    async def __call__(self) -> str:
        self.made.append(time.monotonic())
        return self.node.token("alice", life_s=self.life_s, channels=["topic:*"])


@pytest.mark.parametrize("transport", TRANSPORTS)
async def test_a_token_is_renewed_before_or_when_it_expires(transport: Any) -> None:
    settings = {"auth_warning_s": 2}
    async with running_node("memory", session=settings) as node:
        tokens = Tokens(node, 4)
        client = package.AsyncClient(node.base_url, get_token=tokens)
        async with client, client.subscribe(["topic:a"], transport=transport) as stream:
            first = stream.welcome
            sent = 0
            found: list[int] = []
            deadline = time.monotonic() + 9
            while len(tokens.made) < 3 and time.monotonic() < deadline:
                await node.publish("topic:a", {"n": sent})
                found += await numbers(stream, sent)
                sent += 1
                node.sweep()
                await asyncio.sleep(0.1)
            await node.publish("topic:a", {"n": sent})
            found += await numbers(stream, sent)
            assert found == list(range(sent + 1))
            assert len(tokens.made) >= 2
            assert (stream.welcome is first) is (transport == "websocket")


@pytest.mark.parametrize("transport", TRANSPORTS)
async def test_a_token_that_cannot_be_renewed_ends_it(node: Node, transport: Any) -> None:
    expired = package.AsyncClient(node.base_url, node.token("alice", life_s=-10))
    bad = package.AsyncClient(node.base_url, "a.b.c")
    forbidden = package.AsyncClient(node.base_url, node.token("alice"))
    for client, codes in (
        (expired, {"token-expired", "unauthorized"}),
        (bad, {"unauthorized", "bad-token"}),
        (forbidden, {"forbidden-channel"}),
    ):
        async with client:
            with pytest.raises(package.DualcastError) as caught:
                async with client.subscribe(["topic:a"], transport=transport):
                    pass
            assert caught.value.code in codes


@pytest.mark.parametrize("transport", [*TRANSPORTS, "auto"])
async def test_a_subscription_that_is_refused_says_because_of_which_channels(
    node: Node, transport: Any
) -> None:
    wanted = ["room:closed", "topic:mine", "task:hers"]
    async with package.AsyncClient(node.base_url, node.token("alice", channels=["topic:*"])) as client:
        with pytest.raises(package.DualcastError) as caught:
            async with client.subscribe(wanted, transport=transport):
                pass
    assert (caught.value.code, caught.value.channels) == ("forbidden-channel", ("room:closed", "task:hers"))


@pytest.mark.parametrize("transport", TRANSPORTS)
async def test_no_token_is_told_to_anybody(
    node: Node, transport: Any, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    token = node.token("alice")
    bad = token[:-4] + "AAAA"
    texts = []
    for given in (token, bad):
        client = package.AsyncClient(node.base_url, get_token=lambda given=given: given)
        async with client:
            stream = client.subscribe(["user:alice"], transport=transport)
            try:
                async with stream:
                    texts += [repr(one) for one in vars(stream).values()]
            except package.DualcastError as error:
                assert error.code == "unauthorized"
                texts += [repr(error), str(error), repr(error.__context__), repr(error.__cause__)]
            texts += [repr(stream), repr(client)]
    away = package.AsyncClient("http://127.0.0.1:9", token)
    with pytest.raises(package.DualcastError) as caught:
        async with away, away.subscribe(transport=transport, patience_s=0.1):
            pass
    texts += [repr(caught.value), "".join(traceback.format_exception(caught.value))]
    texts += [record.getMessage() + repr(record.args) for record in caplog.records]
    server_side = {"uvicorn", "dualcast"}
    assert {record.name.partition(".")[0] for record in caplog.records} - server_side
    secret = token.rpartition(".")[2][:20]
    kept = [text for text in texts if secret in text and text not in (repr(token), repr(bad))]
    assert not kept


async def test_a_revoked_user_is_told_and_stays_away(node: Node) -> None:
    async with client_of(node) as client, client.subscribe(["topic:a"]) as stream:
        answer = await node.http.put(
            "/v1/revocations", json={"user": "alice"}, headers=node.auth("root", "admin")
        )
        assert answer.status_code == 202
        with pytest.raises(package.DualcastError) as caught:
            await numbers(stream, 1)
        assert caught.value.code == "revoked"


# ── stages ──


async def set_stage(node: Node, stage: str) -> None:
    answer = await node.http.put(
        "/v1/tenants/default/migration",
        json={"stage": stage, "why": "a test", "force": True},
        headers={**node.auth("root", "admin"), "If-Match": "*"},
    )
    assert answer.status_code == 200, answer.text


async def test_a_stage_moves_the_subscription_and_nothing_is_lost() -> None:
    async with (
        place("memory") as where,
        running_node(where, session={"move_spread_s": 0.2, "move_grace_s": 0.5}) as node,
        client_of(node) as client,
        client.subscribe(["topic:a"], reconnects=package.Reconnects(move_spread_s=0.2)) as stream,
    ):
        sent = 0

        async def until(transport: str) -> list[int]:
            nonlocal sent
            found = []
            deadline = time.monotonic() + PATIENCE_S
            while stream.transport != transport and time.monotonic() < deadline:
                await node.publish("topic:a", {"n": sent})
                found += await numbers(stream, sent)
                sent += 1
            assert stream.transport == transport
            return found

        found = await until("websocket")
        await set_stage(node, "sse")
        found += await until("sse")
        for stage in ("shadow", "fallback"):
            await set_stage(node, stage)
        found += await until("websocket")
        assert found == list(range(sent))


async def test_after_the_sunset_a_program_that_keeps_to_sse_is_told_and_others_move() -> None:
    async with (
        running_node("memory", session={"move_spread_s": 0.2, "move_grace_s": 0.5}) as node,
        client_of(node) as client,
        package.AsyncClient(node.base_url, node.token("root", roles=["admin"])) as backend,
        client.subscribe(transport="sse", on_gap="event") as stream,
    ):
        await backend.admin.set_stage("default", "websocket", "all of them", force=True)
        found = await backend.admin.migration("default")
        over = replace(found.record, deprecated_at=1_000, sunset_at=2_000)
        await backend.admin.change_migration("default", over, "over", expected=found.version, force=True)
        kinds = []
        with pytest.raises(package.DualcastError) as caught:
            async with asyncio.timeout(PATIENCE_S):
                async for event in stream.events():
                    kinds.append(type(event))
                    if isinstance(event, package.MoveAsked):
                        assert event.to == "websocket"
        assert caught.value.code in ("stage", "sse-ended")
        assert {package.StageChanged, package.MoveAsked} <= set(kinds)
        with pytest.raises(package.DualcastError, match="sse-ended"):
            async with client.subscribe(transport="sse"):
                pass
        async with client.subscribe() as other:
            assert other.transport == "websocket"
