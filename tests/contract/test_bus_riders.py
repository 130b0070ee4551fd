"""What rides along with an append (`bus.storage`), over every engine: stored with it or not at all, once, and
the badge in every channel's entry.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest

from dualcast.bus.port import EventBus, Retention
from dualcast.bus.redis.engine import RedisBus
from dualcast.bus.redis.options import RedisSettings
from dualcast.model.errors import BadRequest, DualcastError, RateLimited
from dualcast.model.inbox import Badge, InboxRider, PushRider
from dualcast.model.publication import Draft, Quota, Receipt
from support.bus_engines import (
    TOY_EXTENSIONS,
    TOY_PARTS,
    Factory,
    Recorder,
    draft,
    redis,
    toy_items,
    toy_pushes,
    watch,
)
from support.redis_server import RedisServer

pytestmark = pytest.mark.anyio


@pytest.fixture
async def bus(engine: Factory, recorder: Recorder) -> AsyncIterator[EventBus]:
    async with engine(parts=TOY_PARTS, extensions=TOY_EXTENSIONS) as bus:
        await bus.start(recorder)
        yield bus


def kept(
    tenant: str, *users: str, kind: str = "note", ident: str = "", channels: tuple[str, ...] = ()
) -> Draft:
    names = (*(f"user:{user}" for user in users), *channels)
    fields = {"id": ident} if ident else {}
    return draft(tenant, *names, inbox=InboxRider(users=users, kind=kind), **fields)


async def badges(bus: EventBus, tenant: str, *channels: str) -> list[tuple[str, int, Badge | None]]:
    page = await bus.read(tenant, channels, 0, 1000)
    return [(entry.channel, entry.offset, entry.publication.badge) for entry in page.entries]


# stored with the append


async def test_what_is_appended_is_stored(bus: EventBus, tenant: str) -> None:
    sent = [kept(tenant, "a", "b c", ident="1"), kept(tenant, "a", ident="2")]
    for one in sent:
        await bus.append(one)
    assert await toy_items(bus, tenant, "a") == ["1", "2"]
    assert await toy_items(bus, tenant, "b c") == ["1"]
    assert await toy_items(bus, "t-other", "a") == []


async def test_a_push_message_is_any_bytes(bus: EventBus, tenant: str) -> None:
    message = bytes(range(256))
    first = kept(tenant, "a", ident="1")
    both = draft(tenant, "user:a", inbox=InboxRider(("a",)), push=PushRider(("a", "ü"), message), id="2")
    only = draft(tenant, "all", push=PushRider(("a",), b"", always=True, devices=("web",), deadline_ms=5))
    last = kept(tenant, "a", ident="4")
    results = await bus.append_many([first, both, only, last])
    assert [r.offset for r in results if isinstance(r, Receipt)] == [1, 2, 3, 4]
    assert await toy_items(bus, tenant, "a") == ["1", "2", "4"]
    assert await toy_pushes(bus, tenant, "a") == [message, b""]
    assert await toy_pushes(bus, tenant, "ü") == [message]
    page = await bus.read(tenant, ["user:a", "all"], 0, 10)
    assert [entry.publication.data for entry in page.entries] == [b'{"text":"hi"}'] * 4


async def test_a_thousand_users_at_once(bus: EventBus, recorder: Recorder, tenant: str) -> None:
    users = tuple(f"u {n}" for n in range(1000))
    await watch(bus, recorder, tenant, "user:u 0", "user:u 999")
    await bus.append(kept(tenant, *users, ident="1"))
    for user in ("u 0", "u 500", "u 999"):
        assert await toy_items(bus, tenant, user) == ["1"]
    assert await badges(bus, tenant, "user:u 999") == [("user:u 999", 1, Badge(1, 1, 1, 0))]
    await recorder.until(lambda: len(recorder.of(tenant)) == 2)


async def test_without_a_room_for_it_a_rider_is_only_published(
    engine: Factory, recorder: Recorder, tenant: str
) -> None:
    async with engine() as bus:
        await bus.start(recorder)
        sent = draft(tenant, "user:a", inbox=InboxRider(("a",)), push=PushRider(("a",), b"m"))
        assert (await bus.append(sent)).offset == 1
        assert await badges(bus, tenant, "user:a") == [("user:a", 1, None)]


# all or nothing


async def test_a_failing_rider_refuses_its_draft_only(bus: EventBus, recorder: Recorder, tenant: str) -> None:
    await watch(bus, recorder, tenant, "user:a", "all")
    broken = kept(tenant, "a", kind="broken", ident="2")
    results = await bus.append_many([kept(tenant, "a", ident="1"), broken, draft(tenant, "all", id="3")])
    assert [type(r) for r in results] == [Receipt, DualcastError, Receipt]
    assert [r.offset for r in results if isinstance(r, Receipt)] == [1, 2]
    assert await toy_items(bus, tenant, "a") == ["1"]
    page = await bus.read(tenant, ["user:a", "all"], 0, 10)
    assert [entry.publication.id for entry in page.entries] == ["1", "3"]
    await recorder.until(lambda: len(recorder.of(tenant)) == 2)
    assert [entry.publication.id for entry in recorder.of(tenant)] == ["1", "3"]
    # Nothing remembers it: the same id can be published when what was wrong is right again.
    mended = await bus.append(kept(tenant, "a", ident="2"))
    assert (mended.offset, mended.duplicate) == (3, False)
    assert await toy_items(bus, tenant, "a") == ["1", "2"]
    assert (await bus.probe()).ok


async def test_an_ephemeral_publication_is_in_no_inbox(bus: EventBus, tenant: str) -> None:
    with pytest.raises(BadRequest):
        await bus.append(draft(tenant, "user:a", ephemeral=True, inbox=InboxRider(("a",))))
    assert await toy_items(bus, tenant, "a") == []


async def test_what_the_quota_refuses_is_not_stored(bus: EventBus, tenant: str) -> None:
    quota = Quota(rate_per_s=0.001, burst=1)
    results = await bus.append_many([kept(tenant, "a", ident="1"), kept(tenant, "a", ident="2")], quota)
    assert [type(r) for r in results] == [Receipt, RateLimited]
    assert await toy_items(bus, tenant, "a") == ["1"]


# once


async def test_a_repeated_append_stores_nothing(bus: EventBus, tenant: str) -> None:
    sent = draft(tenant, "user:a", inbox=InboxRider(("a",)), push=PushRider(("a",), b"m"), id="1")
    await bus.append(sent)
    results = await bus.append_many([sent, kept(tenant, "a", ident="2"), sent])
    assert [(r.offset, r.duplicate) for r in results if isinstance(r, Receipt)] == [
        (1, True),
        (2, False),
        (1, True),
    ]
    assert await toy_items(bus, tenant, "a") == ["1", "2"]
    assert await toy_pushes(bus, tenant, "a") == [b"m"]


async def test_an_ephemeral_publication_with_a_push_is_pushed_once(bus: EventBus, tenant: str) -> None:
    sent = draft(tenant, "user:a", ephemeral=True, push=PushRider(("a",), b"m"), id="1")
    first = await bus.append(sent)
    second = await bus.append(sent)
    assert (first.offset, first.duplicate, second.duplicate) == (0, False, True)
    assert await toy_pushes(bus, tenant, "a") == [b"m"]


async def test_many_publishers_at_once_store_each_once(bus: EventBus, tenant: str) -> None:
    sent = [kept(tenant, "a", ident=str(n % 20)) for n in range(60)]
    results = await asyncio.gather(*(bus.append(one) for one in sent))
    assert sorted({receipt.offset for receipt in results}) == list(range(1, 21))
    assert await toy_items(bus, tenant, "a") == [receipt.id for receipt in results[:20]]


# badges


async def test_every_channel_has_its_own_badge_live_and_in_history(
    bus: EventBus, recorder: Recorder, tenant: str
) -> None:
    await watch(bus, recorder, tenant, "user:a", "user:b", "topic:x", "all")
    await bus.append(kept(tenant, "a"))
    await bus.append(kept(tenant, "a", "b", channels=("topic:x",)))
    await bus.append(draft(tenant, "user:a"))
    await bus.append(draft(tenant, "all", inbox=InboxRider(wide=True)))
    await bus.append(draft(tenant, "user:b", push=PushRider(("b",), b"m")))
    expected = [
        ("user:a", 1, Badge(1, 1, 1, 0)),
        ("user:a", 2, Badge(2, 2, 2, 0)),
        ("user:b", 2, Badge(1, 1, 2, 0)),
        ("topic:x", 2, None),
        ("user:a", 3, None),
        ("all", 4, Badge(-1, -1, 0, 1)),
        ("user:b", 5, None),
    ]
    assert await badges(bus, tenant, "user:a", "user:b", "topic:x", "all") == expected
    await recorder.until(lambda: len(recorder.of(tenant)) == len(expected))
    live = [(entry.channel, entry.offset, entry.publication.badge) for entry in recorder.of(tenant)]
    assert sorted(live, key=str) == sorted(expected, key=str)
    page = await bus.read(tenant, ["user:a", "user:b", "topic:x", "all"], 0, 10)
    by_place = {(entry.channel, entry.offset): entry.publication for entry in page.entries}
    for entry in recorder.of(tenant):
        assert entry.publication == by_place[entry.channel, entry.offset]


async def test_channels_with_a_badge_come_first(bus: EventBus, recorder: Recorder, tenant: str) -> None:
    # Who follows several channels of one publication is given it by the first.
    await watch(bus, recorder, tenant, "user:a", "user:b", "topic:x", "all")
    for rider in (InboxRider(("b", "a")), InboxRider(wide=True)):
        await bus.append(draft(tenant, "topic:x", "user:a", "all", "user:b", inbox=rider))
    await recorder.until(lambda: len(recorder.of(tenant)) == 8)
    names = [entry.channel for entry in recorder.of(tenant)]
    assert names == ["user:a", "user:b", "topic:x", "all", "all", "topic:x", "user:a", "user:b"]


async def test_history_of_kept_publications_is_trimmed_like_any(engine: Factory, tenant: str) -> None:
    recorder = Recorder()
    async with engine(retention=Retention(entries=5), parts=TOY_PARTS, extensions=TOY_EXTENSIONS) as bus:
        await bus.start(recorder)
        for n in range(20):
            await bus.append(kept(tenant, "a", "b", ident=str(n)))
        found = await badges(bus, tenant, "user:a")
        assert found[-1] == ("user:a", 20, Badge(20, 20, 20, 0))
        assert 5 <= len(found) < 20
        assert len(await toy_items(bus, tenant, "a")) == 20


async def test_a_script_call_whose_reply_was_lost_stores_once(
    monkeypatch: pytest.MonkeyPatch, recorder: Recorder, tenant: str
) -> None:
    async with redis(parts=TOY_PARTS, extensions=TOY_EXTENSIONS) as bus:
        assert isinstance(bus, RedisBus)
        await bus.start(recorder)
        sent: list[tuple[str, str, tuple[bytes, ...]]] = []
        submit = bus._write.submit

        def record(script: str, key: str, arguments: tuple[bytes, ...], done: Callable[[Any], None]) -> None:
            sent.append((script, key, arguments))
            submit(script, key, arguments, done)

        monkeypatch.setattr(bus._write, "submit", record)
        both = draft(tenant, "user:a", inbox=InboxRider(("a",)), push=PushRider(("a",), b"m"), id="1")
        await bus.append_many([both, kept(tenant, "a", kind="broken"), kept(tenant, "a", ident="3")])
        ((script, key, arguments),) = sent
        again = await bus._write.run(script, key, *arguments)
        assert [again[3][0], again[5][0], again[4][0]] == [1, 1, 3]
        assert [again[3][-1], again[5][-1]] == [1, 1], "known as its own"
        assert await toy_items(bus, tenant, "a") == ["1", "3"]
        assert await toy_pushes(bus, tenant, "a") == [b"m"]


async def test_kill_9_of_redis_leaves_no_entry_without_its_item(tenant: str) -> None:
    with RedisServer(aof="always") as server:
        bus = RedisBus(RedisSettings(url=server.url, probe_every_s=0.5), extensions=TOY_EXTENSIONS)
        try:
            await bus.start(Recorder())
            sent = [asyncio.ensure_future(bus.append(kept(tenant, "a", ident="first")))]
            await sent[0]
            for n in range(200):
                sent.append(asyncio.ensure_future(bus.append(kept(tenant, "a", ident=str(n)))))
                await asyncio.sleep(0)
                if n == 100:
                    server.restart()
            results = await asyncio.gather(*sent, return_exceptions=True)
            async with asyncio.timeout(10):
                while not (await bus.probe()).ok:
                    await asyncio.sleep(0.05)
            items = await toy_items(bus, tenant, "a")
            page = await bus.read(tenant, ["user:a"], 0, 1000)
            assert [entry.publication.id for entry in page.entries] == items
            assert len(set(items)) == len(items)
            assert {result.id for result in results if isinstance(result, Receipt)} <= set(items)
        finally:
            await bus.close()
