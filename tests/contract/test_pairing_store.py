"""What every PairStore promises: rows of the others, news that arrives, dead nodes taken off, loss seen."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass
from typing import Any

import pytest

from dualcast.pairing.port import Answer, PairStore, Row, Told
from dualcast.pairing.redis import RedisPairs, extension
from dualcast_migration.muting import SocketFacts
from support import redis_nodes, redis_server
from support.bus_engines import Recorder, redis
from support.pair_store import MemoryPairs

pytestmark = pytest.mark.anyio
LEASE_MS = 1000


@dataclass
class Rig:
    """A store, what makes its time pass, and nodes that no other test uses."""

    store: PairStore
    sleep: Callable[[float], Awaitable[None]]
    lease_ms: int
    tag: str

    def node(self, name: str) -> Caller:
        return Caller(self, f"{self.tag}{name}")

    def key(self, name: str = "k") -> str:
        return f"{self.tag}/{name}"


class Caller:
    """One node. `tell` is one call; the next acknowledges its news."""

    def __init__(self, rig: Rig, name: str) -> None:
        self._rig, self._name, self._incarnation = rig, name, 0
        self.new, self.ack = True, 0
        self.anew = False

    async def tell(self, *rows: tuple[str, Row], gone: tuple[tuple[str, str], ...] = ()) -> Answer:
        told = Told(
            node=f"{self._name}.{self._incarnation}",
            new=self.new,
            lease_ms=self._rig.lease_ms,
            ack=self.ack,
            anew=self.anew,
            rows=rows,
            gone=gone,
        )
        answer = await self._rig.store.sync(told)
        if answer.lost:
            self._incarnation += 1
            self.new, self.ack = True, 0
        else:
            self.new = False
            self.ack = answer.ack or self.ack
        return answer

    async def heard(self, key: str) -> list[Row] | None:
        """What is new of `key`; None: nothing."""
        for found, rows in (await self.tell()).news:
            if found == key:
                return sorted(rows, key=lambda row: row.connection)
        return None


@asynccontextmanager
async def in_memory() -> AsyncIterator[Rig]:
    now = [1_000_000.0]

    async def sleep(ms: float) -> None:
        now[0] += ms

    yield Rig(MemoryPairs(lambda: now[0]), sleep, LEASE_MS, secrets.token_hex(4))


@asynccontextmanager
async def in_redis() -> AsyncIterator[Rig]:
    async with redis(extensions=(extension(),)) as bus:
        await bus.start(Recorder())

        async def sleep(ms: float) -> None:
            await asyncio.sleep(ms / 1000)

        yield Rig(RedisPairs(bus), sleep, LEASE_MS, secrets.token_hex(4))  # type: ignore[arg-type]


ENGINES: dict[str, Callable[[], AbstractAsyncContextManager[Rig]]] = {"memory": in_memory, "redis": in_redis}


@pytest.fixture(params=sorted(ENGINES))
async def rig(request: pytest.FixtureRequest, anyio_backend: object) -> AsyncIterator[Rig]:
    async with ENGINES[request.param]() as made:
        yield made


def socket(ident: str, **fields: Any) -> Row:
    facts: dict[str, Any] = {
        "id": ident,
        "epoch": "e1",
        "start": 2**52,
        "life": 0,
        "confirmed": -1,
        "channels": frozenset({"all", "user:ünï cödé", 'topic:"'}),
        "roles": frozenset({"reader"}),
        "device": "web",
        "stands_for": frozenset(),
    }
    return Row(ident, SocketFacts(**{**facts, **fields}))


def stream(ident: str) -> Row:
    return Row(ident)


async def test_each_side_hears_of_the_other_whoever_comes_first(rig: Rig) -> None:
    a, b = rig.node("a"), rig.node("b")
    assert (await a.tell((rig.key(), stream("s1")))).news == []
    answer = await b.tell((rig.key(), socket("w1")))
    assert [(key, list(rows)) for key, rows in answer.news] == [(rig.key(), [stream("s1")])]
    assert await a.heard(rig.key()) == [socket("w1")], "with every field as it was"
    assert await a.heard(rig.key()) is None, "once"


async def test_news_that_was_not_acknowledged_is_told_again(rig: Rig) -> None:
    a, b = rig.node("a"), rig.node("b")
    await a.tell((rig.key(), stream("s1")))
    await b.tell((rig.key(), socket("w1")))
    before = a.ack
    assert await a.heard(rig.key()) == [socket("w1")]
    a.ack = before  # the answer was lost on its way
    assert await a.heard(rig.key()) == [socket("w1")]


async def test_every_change_is_news_for_the_others_only(rig: Rig) -> None:
    a, b, c = rig.node("a"), rig.node("b"), rig.node("c")
    await a.tell((rig.key(), stream("s1")))
    await b.tell((rig.key(), socket("w1")))
    await c.tell((rig.key("another"), stream("s9")))
    await a.tell()
    await b.tell()
    answer = await b.tell((rig.key(), socket("w1", confirmed=7, life=3)))
    assert answer.news == []
    assert await a.heard(rig.key()) == [socket("w1", confirmed=7, life=3)]
    assert (await c.tell()).news == []
    await b.tell(gone=((rig.key(), "w1"),))
    assert await a.heard(rig.key()) == []


async def test_rows_of_a_dead_node_are_taken_off_and_told(rig: Rig) -> None:
    a, b = rig.node("a"), rig.node("b")
    await a.tell((rig.key(), stream("s1")))
    await b.tell((rig.key(), socket("w1")))
    assert await a.heard(rig.key()) == [socket("w1")]
    for _ in range(100):  # a calls on, b does not
        await rig.sleep(LEASE_MS / 8)
        found = await a.heard(rig.key())
        if found is not None:
            break
    assert found == []
    assert (await b.tell()).lost, "b was only slow: it begins anew"
    await b.tell((rig.key(), socket("w1")))
    assert await a.heard(rig.key()) == [socket("w1")]


async def test_nobody_is_dead_when_nobody_could_call(rig: Rig) -> None:
    a, b = rig.node("a"), rig.node("b")
    await a.tell((rig.key(), stream("s1")))
    await b.tell((rig.key(), socket("w1")))
    await a.tell()
    await rig.sleep(LEASE_MS * 2)
    assert (await a.tell()).news == []
    assert not (await b.tell()).lost


async def test_a_node_that_is_back_under_its_next_name_keeps_its_rows_when_the_old_one_is_taken_off(
    rig: Rig,
) -> None:
    a, b = rig.node("a"), rig.node("b")
    await a.tell((rig.key(), stream("s1")))
    await b.tell((rig.key(), socket("w1")))
    await a.tell()
    b._incarnation, b.new, b.ack = 1, True, 0
    await b.tell((rig.key(), socket("w1", life=1)))
    for _ in range(12):
        await rig.sleep(LEASE_MS / 8)
        await a.tell()
        await b.tell()
    await b.tell((rig.key(), socket("w1", life=2)))
    assert await a.heard(rig.key()) == [socket("w1", life=2)]


async def test_a_node_never_hears_of_its_own_rows(rig: Rig) -> None:
    a = rig.node("a")
    await a.tell((rig.key(), stream("s1")), (rig.key(), socket("w1")))
    a._incarnation, a.new, a.ack = 1, True, 0
    answer = await a.tell((rig.key(), stream("s1")))
    assert [list(rows) for _, rows in answer.news] in ([], [[]])


async def test_an_instance_has_at_most_64_rows(rig: Rig) -> None:
    if isinstance(rig.store, MemoryPairs):
        pytest.skip("the bound is the engine's")
    a, b = rig.node("a"), rig.node("b")
    await a.tell(*((rig.key(), stream(f"s{number}")) for number in range(70)))
    answer = await b.tell((rig.key(), socket("w1")))
    assert answer.news == [], "it is not told, so it mutes nobody"


async def test_a_row_of_another_version_is_not_there(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    if isinstance(rig.store, MemoryPairs):
        pytest.skip("rows are text in Redis only")
    a, b = rig.node("a"), rig.node("b")
    await a.tell((rig.key(), stream("s1")))
    monkeypatch.setattr("dualcast.pairing.redis._row", lambda _: b'["w1",{}]')
    await b.tell((rig.key(), socket("w1")), (rig.key(), stream("s2")))
    assert await a.heard(rig.key()) == [stream("s2")]


async def test_what_is_told_anew_is_answered_anew(rig: Rig) -> None:
    """A node that forgot the others: to the store nothing has changed."""
    a, b = rig.node("a"), rig.node("b")
    await a.tell((rig.key(), stream("s1")))
    await b.tell((rig.key(), socket("w1")))
    assert await a.heard(rig.key()) == [socket("w1")]
    await a.tell((rig.key(), stream("s1")))
    assert await a.heard(rig.key()) is None
    a.anew = True
    answer = await a.tell((rig.key(), stream("s1")))
    assert [list(rows) for _, rows in answer.news] == [[socket("w1")]]


async def test_rows_from_before_a_restart_are_not_believed() -> None:
    """Redis comes back with what its file had, which may be older than what it had answered."""
    with redis_server.RedisServer(aof="always") as server:
        async with redis_nodes.node(server.url, extensions=(extension(),)) as node:

            async def sleep(ms: float) -> None:
                await asyncio.sleep(ms / 1000)

            rig = Rig(RedisPairs(node.bus), sleep, 60_000, "t")
            a, b = rig.node("a"), rig.node("b")
            await a.tell((rig.key(), stream("s1")))
            await b.tell((rig.key(), socket("w1")))
            await a.tell()
            server.kill()
            server.start()
            await node.status(True)
            assert (await a.tell()).lost
            answer = await a.tell((rig.key(), stream("s1")))
            assert [list(rows) for _, rows in answer.news] in ([], [[]])
            assert (await b.tell()).lost
            await b.tell((rig.key(), socket("w1")))
            assert await a.heard(rig.key()) == [socket("w1")]
