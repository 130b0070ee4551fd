"""Parity: what one session of an instance is not due, or was told of otherwise, is no mismatch. One mismatch
steps a tenant back."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from types import SimpleNamespace
from typing import Any
from unittest.mock import MagicMock

import pytest

from dualcast.model.publication import Gap
from dualcast.session.session import Session
from dualcast.transport import parity
from dualcast.transport.parity import Compared, ParityWatch
from dualcast_migration.cohort import Cohort
from dualcast_migration.policy import StageRecord
from dualcast_migration.stage import Stage
from support.clients import SseClient, WsClient, open_socket, open_stream
from support.node import Node, running_node

pytestmark = pytest.mark.anyio


class Pair:
    """Both sessions of ann's tab, compared."""

    def __init__(self, node: Node, stream: SseClient, socket: WsClient) -> None:
        self.node, self.stream, self.socket = node, stream, socket
        self.found: list[Compared] = []
        tenants = node.composition.tenants
        self.watch = ParityWatch(
            node.composition.node,
            lambda name: found.stage if (found := tenants.current(name)) else None,
            self.found.append,
        )

    def session(self, transport: str) -> Session:
        (found,) = (one for one in self.node.sessions if one.encoding.transport == transport)
        return found

    async def look(self) -> tuple[int, int]:
        """Compared and mismatched, of one look after all was given out."""
        await self.node.settled()
        self.found.clear()
        await self.watch.look()
        comparisons = [one.comparison for one in self.found]
        return sum(c.compared for c in comparisons), sum(c.mismatches for c in comparisons)


@asynccontextmanager
async def pair(device: str = "", **overrides: Any) -> AsyncIterator[Pair]:
    more = {"device": device} if device else {}
    async with running_node("memory", tenancy={"stage": "shadow"}, **overrides) as node:
        await node.grant("room:1", "ann")
        stream = await open_stream(node.port, node.token("ann"), instance="tab-1")
        socket = await open_socket(node.port, node.token("ann"), instance="tab-1", **more)
        async with stream, socket:
            await stream.welcome()
            await socket.welcome()
            found = Pair(node, stream, socket)
            await found.look()
            yield found


async def test_a_channel_that_only_one_session_has_is_not_compared() -> None:
    async with pair() as both:
        await both.socket.ask("subscribe", channels=["room:1"])
        await both.look()
        await both.node.publish("room:1", {"n": 1})
        await both.node.publish("user:ann", {"n": 2})
        assert await both.look() == (1, 0)


async def test_a_channel_that_one_session_gets_between_two_looks_is_no_mismatch() -> None:
    async with pair() as both:
        await both.socket.ask("subscribe", channels=["room:1"])
        await both.node.publish("room:1", {"n": 1})
        assert await both.look() == (0, 0)
        await both.node.publish("user:ann", {"n": 2})
        assert await both.look() == (1, 0)


async def test_an_audience_that_tells_the_two_sessions_apart_is_no_mismatch() -> None:
    async with pair(device="web") as both:
        audiences: list[dict[str, Any]] = [
            {"exclude_connections": [both.session("ws").id]},
            {"connections": [both.session("sse").id]},
            {"devices": ["web"]},
        ]
        for audience in audiences:
            await both.node.publish("user:ann", {"n": 1}, audience=audience)
            assert await both.look() == (1, 0), audience
        await both.node.publish("user:ann", {"n": 2}, audience={"users": ["ann"]})
        assert await both.look() == (1, 0)


async def test_a_client_that_goes_back_or_skips_by_resume_is_no_mismatch() -> None:
    async with pair() as both:
        start = both.session("ws").cursor
        await both.node.publish("user:ann", {"n": 1})
        await both.socket.publications(1)
        await both.socket.send("resume", cursor=start)
        await both.socket.publications(1)
        assert (await both.look())[1] == 0
        socket = both.session("ws")
        socket.pause_writing()
        await both.node.publish("user:ann", {"n": 2})
        await both.node.settled()
        socket.resume(socket.epoch, socket.feed.head)  # what its stream was given already
        socket.resume_writing()
        assert (await both.look())[1] == 0
        await both.node.publish("user:ann", {"n": 3})
        assert await both.look() == (1, 0)


@pytest.mark.parametrize("transport", ["sse", "ws"])
async def test_what_a_client_was_told_is_gone_is_no_mismatch(transport: str) -> None:
    async with pair() as both:
        session = both.session(transport)
        session.pause_writing()
        await both.node.publish("user:ann", {"n": 1})
        await both.node.settled()
        session.position = session.feed.head  # as recovery leaves it below what the log has kept
        session.tell_gap(Gap("user:ann", 0, session.position + 1))
        session.resume_writing()
        assert await both.look() == (0, 0)
        await both.node.publish("user:ann", {"n": 2})
        assert await both.look() == (1, 0)


async def test_what_was_conflated_below_the_rings_is_no_mismatch() -> None:
    async with pair(delivery={"ring_entries": 4}) as both:
        stream = both.session("sse")
        stream.pause_writing()
        for n in range(12):
            await both.node.publish("user:ann", {"n": n}, conflation_key="k")
        for n in range(12):
            await both.node.publish("user:ann", {"n": n})
        await both.node.settled()
        stream.resume_writing()
        await both.node.until(lambda: stream.live, "it has caught up")
        assert await both.look() == (24, 0)


async def test_what_the_ring_holds_is_still_found_missing() -> None:
    async with pair(delivery={"ring_entries": 4}) as both:
        stream = both.session("sse")
        for n in range(12):
            if n == 11:
                tap, stream.transport = stream.transport, _Deaf()
            await both.node.publish("user:ann", {"n": n})
        await both.node.settled()
        stream.transport = tap
        assert await both.look() == (12, 1)


async def test_sessions_of_different_epochs_are_compared_again_once_they_are_of_one() -> None:
    async with pair() as both:
        stream, socket = both.session("sse"), both.session("ws")
        for _ in range(3):
            await both.node.publish("user:ann", {"n": 1})
        await both.look()
        kept, reached = stream.epoch, stream.offset
        stream.pause_writing()
        stream.epoch, stream.position = "older", reached + 1_000
        await both.node.publish("user:ann", {"n": 2})
        assert await both.look() == (0, 0)
        stream.epoch, stream.position = kept, reached
        stream.resume_writing()
        await both.look()
        assert stream.epoch == socket.epoch
        await both.node.publish("user:ann", {"n": 3})
        assert await both.look() == (1, 0)


async def test_what_waits_for_a_slow_reader_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parity, "MAX_WAITING", 10)
    async with pair() as both:
        stream = both.session("sse")
        stream.pause_writing()
        for _ in range(3):
            for n in range(8):
                await both.node.publish("user:ann", {"n": n})
            assert await both.look() == (0, 0)
            (known,) = both.watch._pairs.values()
            assert all(len(side.arrivals) <= 10 for side in known.sides)
        stream.resume_writing()
        await both.look()
        await both.node.publish("user:ann", {"n": 9})
        assert (await both.look())[1] == 0


async def test_so_many_pairs_of_a_tenant_are_compared(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parity, "MAX_PAIRS", 1)
    async with pair() as both:
        node = both.node
        stream = await open_stream(node.port, node.token("bob"), instance="tab-1")
        socket = await open_socket(node.port, node.token("bob"), instance="tab-1")
        async with stream, socket:
            await stream.welcome()
            await socket.welcome()
            await both.look()
            assert both.watch.gauges() == {"parity_pairs": 1}
            await both.socket.close()
            await node.until(lambda: len(node.sessions) == 3, "one has left")
            await both.look()
            assert list(both.watch._pairs) == [("default", "bob", "tab-1")]


@pytest.mark.parametrize(
    ("record", "looks"),
    [
        (StageRecord(stage=Stage.SSE), False),
        (StageRecord(stage=Stage.SHADOW), True),
        (StageRecord(stage=Stage.FALLBACK), False),
        (StageRecord(stage=Stage.FALLBACK, cohort=Cohort(percent=10)), True),
        (StageRecord(stage=Stage.WEBSOCKET, cohort=Cohort(percent=10)), False),
    ],
)
async def test_sessions_are_looked_through_only_where_somebody_is_in_the_shadow(
    record: StageRecord, looks: bool
) -> None:
    sessions = MagicMock()
    sessions.values.return_value = []
    node: Any = SimpleNamespace(hub=SimpleNamespace(tenants={"t": None}, sessions=sessions))
    await ParityWatch(node, lambda _: record, lambda _: None).look()
    assert sessions.values.called == looks


class _Deaf:
    """A transport that writes nothing."""

    def write(self, data: bytes) -> None: ...
