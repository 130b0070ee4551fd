"""The steps in Redis, and the one connection more, by themselves."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager

import pytest

from dualcast.bus.redis import listening as listening_module
from dualcast.bus.redis.engine import RedisBus
from dualcast.bus.redis.listening import Listening
from dualcast_migration.legacy_redis import (
    KEEP_S,
    OlderRedis,
    Publish,
    Sighting,
    extension,
    mark,
)
from support.bus_engines import Recorder
from support.redis_nodes import settings
from support.redis_server import RedisServer

pytestmark = pytest.mark.anyio
WAIT_S = 15.0


@pytest.fixture
def redis() -> Iterator[RedisServer]:
    with RedisServer() as server:
        yield server


@asynccontextmanager
async def scripts(redis: RedisServer) -> AsyncIterator[OlderRedis]:
    bus = RedisBus(settings(redis.url), extensions=(extension(),))
    await bus.start(Recorder())
    try:
        yield OlderRedis(bus, "default")
    finally:
        await bus.close()


def now_us(redis: RedisServer) -> int:
    seconds, micros = redis.command("TIME")  # type: ignore[misc]
    return int(seconds) * 1_000_000 + int(micros)


async def places(older: OlderRedis, who: str, since: int, *numbers: int, text: str = "m") -> list[str]:
    found = [(await older.sight(who, since, [Sighting(text, number)]))[0] for number in numbers]
    return [sight.place.partition("-")[2] for sight in found]


async def test_an_occurrence_has_one_place_on_every_node(redis: RedisServer) -> None:
    async with scripts(redis) as older:
        since = now_us(redis)
        assert await places(older, "a", since, 1, 2, 5) == ["1", "2", "3"]
        assert await places(older, "b", since, 1) == ["1"]
        assert await places(older, "b", since, 2, 5, 6) == ["2", "3", "4"]
        assert await places(older, "a", since, 6) == ["4"]
        # Another message has places of its own.
        assert await places(older, "a", since, 7, text="other") == ["1"]


async def test_a_call_that_comes_again_is_no_further_occurrence(redis: RedisServer) -> None:
    async with scripts(redis) as older:
        since = now_us(redis)
        assert await places(older, "a", since, 1, 1, 1, 2, 2) == ["1", "1", "1", "2", "2"]


async def test_who_subscribes_later_goes_on_where_the_others_are(redis: RedisServer) -> None:
    async with scripts(redis) as older:
        early = now_us(redis)
        assert await places(older, "a", early, 1, 2, 3) == ["1", "2", "3"]
        late = now_us(redis)
        assert await places(older, "b", late, 1) == ["4"]  # "a" has died before it heard the fourth
        assert await places(older, "c", late, 1, 2) == ["4", "5"]
        # More than are remembered one by one.
        assert (await places(older, "a", early, *range(10, 110)))[-1] == "103"
        assert await places(older, "d", now_us(redis), 1) == ["104"]


async def test_sequences_grow_in_the_order_of_the_first_hearing(redis: RedisServer) -> None:
    async with scripts(redis) as older:
        seen = [Sighting(f"m{number}", number) for number in range(200)]
        first = await older.sight("a", 1, seen)
        assert [sight.sequence for sight in first] == sorted({sight.sequence for sight in first})
        assert first[0].sequence > 1_700_000_000_000_000
        assert await older.sight("b", 1, seen) == first


async def test_of_a_subject_only_the_latest_counts(redis: RedisServer) -> None:
    async with scripts(redis) as older:
        came, went = Sighting("came", 1, "alice"), Sighting("went", 2, "alice")
        assert [sight.latest for sight in await older.sight("a", 1, [came, went])] == [True, True]
        assert [sight.latest for sight in await older.sight("b", 1, [came])] == [False]
        assert [sight.latest for sight in await older.sight("b", 1, [went])] == [True]


@pytest.mark.covers("R45")
async def test_r45_what_was_said_guarded_is_known_as_ones_own(redis: RedisServer) -> None:
    async with scripts(redis) as older:
        await older.say([Publish("notifications:a", b"1", guarded=True), Publish("ws:broadcast", b"2")], "t")
        own, other, bare = await older.sight(
            "a",
            1,
            [
                Sighting(mark("notifications:a", b"1"), 1),
                Sighting(mark("notifications:b", b"1"), 2),
                Sighting(mark("ws:broadcast", b"2"), 3),
            ],
        )
        assert (own.place, bool(other.place), bool(bare.place)) == ("", True, True)


async def test_a_token_says_it_once(redis: RedisServer) -> None:
    async with scripts(redis) as older, hearing(redis) as (_, heard):
        for token in ("one", "one", "two", "one"):
            await older.say([Publish("ws:broadcast", token.encode())], token)
        await older.say([Publish("ws:broadcast", b"end")])
        await until(lambda: heard[-1:] == [b"end"])
        assert heard == [b"one", b"two", b"end"]


async def test_everything_it_keeps_ends_by_itself(redis: RedisServer) -> None:
    async with scripts(redis) as older:
        await older.sight("a", 1, [Sighting("m", 1, "subject")])
        await older.say([Publish("notifications:a", b"1", guarded=True)])
        assert await older.lead("n1", 10_000)
        keys = redis.command("KEYS", "*:o:*")
        assert isinstance(keys, list)
        assert len(keys) == 6
        lives = {key: redis.command("TTL", key) for key in keys}
        assert all(0 < life <= max(KEEP_S, 86_400) for life in lives.values())  # type: ignore[operator]


async def test_one_node_tidies_up_at_a_time(redis: RedisServer) -> None:
    async with scripts(redis) as older:
        assert await older.lead("a", 60_000)
        assert not await older.lead("b", 60_000)
        assert await older.lead("a", 1)
        async with asyncio.timeout(WAIT_S):
            while not await older.lead("b", 60_000):
                await asyncio.sleep(0.01)


# ── the connection ──


@asynccontextmanager
async def hearing(
    redis: RedisServer, *, stale_s: float = 40.0
) -> AsyncIterator[tuple[Listening, list[bytes]]]:
    heard: list[bytes] = []
    found = Listening(
        settings(redis.url), channels=("ws:broadcast",), patterns=("notifications:*",), stale_s=stale_s
    )
    task = asyncio.create_task(found.run(lambda _, payload: heard.append(payload), lambda _: None))
    try:
        await until(lambda: found.up)
        yield found, heard
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        assert not found.up


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(WAIT_S):
        while not condition():
            await asyncio.sleep(0.01)


@pytest.mark.covers("R2")
async def test_r2_cancelled_at_any_time_it_leaves_no_connection(redis: RedisServer) -> None:
    for turns in range(12):
        found = Listening(settings(redis.url), channels=("ws:broadcast",))
        task = asyncio.create_task(found.run(lambda *_: None, lambda _: None))
        for _ in range(turns):
            await asyncio.sleep(0)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
    await until(lambda: not redis.clients("dualcast-older") and len(redis.clients("")) == 1)


@pytest.mark.covers("R3")
async def test_r3_a_redis_that_answers_nothing_is_left_and_found_again(
    redis: RedisServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(listening_module, "PING_EVERY_S", 0.05)
    async with hearing(redis) as (found, heard):
        redis.freeze()
        await until(lambda: found.failures >= 2)
        redis.thaw()
        await until(lambda: found.up)
        await asyncio.to_thread(redis.command, "PUBLISH", "notifications:a", "x")
        await until(lambda: heard == [b"x"])
        await until(lambda: len(redis.clients("dualcast-older")) == 1)


async def test_an_outage_is_logged_once_and_its_end(
    redis: RedisServer, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", "dualcast.bus.redis.listening")
    redis.command("ACL", "SETUSER", "default", "resetchannels", "&notifications:*")  # the other is denied
    found = Listening(settings(redis.url), channels=("ws:broadcast",), patterns=("notifications:*",))
    task = asyncio.create_task(found.run(lambda *_: None, lambda _: None))
    await until(lambda: found.failures >= 3)
    assert [one.levelname for one in caplog.records] == ["WARNING"]
    redis.command("ACL", "SETUSER", "default", "allchannels")
    await until(lambda: found.up)
    assert [one.levelname for one in caplog.records] == ["WARNING", "INFO"]
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


async def test_what_waited_in_a_process_that_stood_still_is_left_to_others(redis: RedisServer) -> None:
    async with hearing(redis, stale_s=30.0) as (found, heard):
        assert found._ear is not None
        found._ear._read_at -= 31.0
        redis.command("PUBLISH", "notifications:a", "old")
        await until(lambda: found.stale == 1)
        await until(lambda: found.up and found.resubscribes == 2)
        redis.command("PUBLISH", "notifications:a", "new")
        await until(lambda: heard == [b"new"])


async def test_nonsense_ends_the_connection_and_not_the_hearing(redis: RedisServer) -> None:
    async with hearing(redis) as (found, heard):
        assert found._ear is not None
        found._ear.data_received(b"!nonsense\r\n")
        await until(lambda: found.up and found.resubscribes == 2)
        redis.command("PUBLISH", "ws:broadcast", "x")
        await until(lambda: heard == [b"x"])
