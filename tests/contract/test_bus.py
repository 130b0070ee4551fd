"""The promises of `dualcast.bus.port`, one test each, over every engine: appending, idempotency,
quota, live follow.
"""

from __future__ import annotations

import asyncio
import re

import pytest

from dualcast.bus.port import EventBus, Retention
from dualcast.model.cursor import parse_cursor
from dualcast.model.errors import BusUnavailable, IdempotencyConflict, RateLimited, TooManyTargets
from dualcast.model.publication import Audience, Quota, Receipt
from support.bus_engines import Factory, Recorder, draft, watch

pytestmark = pytest.mark.anyio


async def offsets(bus: EventBus, tenant: str, *channels: str, after: int = 0) -> list[int]:
    page = await bus.read(tenant, channels or ("all",), after, 1000)
    assert page.next == page.top
    return [entry.offset for entry in page.entries]


# appending


async def test_offsets_of_a_tenant_count_up_by_one(bus: EventBus, tenant: str) -> None:
    receipts = [await bus.append(draft(tenant, f"user:{n}")) for n in range(5)]
    assert [r.offset for r in receipts] == [1, 2, 3, 4, 5]
    assert len({r.epoch for r in receipts}) == 1
    assert not any(r.duplicate for r in receipts)
    assert await bus.head(tenant) == (receipts[0].epoch, 5)


async def test_head_of_a_new_tenant_is_a_valid_cursor_and_its_epoch_stays(bus: EventBus, tenant: str) -> None:
    head = await bus.head(tenant)
    assert head.offset == 0
    assert parse_cursor(str(head)) == head
    assert re.fullmatch("[0-9a-z]{6}", head.epoch)
    assert (await bus.append(draft(tenant))).epoch == head.epoch
    assert (await bus.head(tenant)).epoch == head.epoch


async def test_epochs_are_known_or_not(bus: EventBus, tenant: str) -> None:
    receipt = await bus.append(draft(tenant))
    assert await bus.known_epoch(tenant, receipt.epoch)
    assert not await bus.known_epoch(tenant, "zzzzzzz")


async def test_everything_in_a_draft_comes_back(bus: EventBus, tenant: str) -> None:
    sent = draft(
        tenant,
        "user:a",
        id="id-1",
        type="näme",
        data='{"text":"日本"}'.encode(),
        time_ms=1_700_000_000_123,
        expires_ms=9_999_999_999_999,
        conflation_key="k",
        terminal=True,
        audience=Audience(users=("a",), devices=("ios",), roles=(), exclude_connections=("c1",)),
    )
    receipt = await bus.append(sent)
    page = await bus.read(tenant, ["user:a"], 0, 10)
    (entry,) = page.entries
    assert entry.channel == "user:a"
    publication = entry.publication
    assert (publication.tenant, publication.epoch, publication.offset) == (
        tenant,
        receipt.epoch,
        receipt.offset,
    )
    for name in ("id", "type", "data", "time_ms", "expires_ms", "conflation_key", "terminal", "audience"):
        assert getattr(publication, name) == getattr(sent, name), name


async def test_a_publication_has_one_offset_in_all_its_channels(
    bus: EventBus, tenant: str, recorder: Recorder
) -> None:
    await watch(bus, recorder, tenant, "user:a", "user:b")
    receipt = await bus.append(draft(tenant, "user:a", "user:b", "user:c"))
    await recorder.until(lambda: len(recorder.of(tenant)) == 2)
    live = recorder.of(tenant)
    assert {entry.channel for entry in live} == {"user:a", "user:b"}
    assert live[0].publication is live[1].publication
    assert {entry.offset for entry in live} == {receipt.offset}
    page = await bus.read(tenant, ["user:a", "user:b", "user:c"], 0, 10)
    assert [entry.offset for entry in page.entries] == [1, 1, 1]
    assert {entry.channel for entry in page.entries} == {"user:a", "user:b", "user:c"}
    assert (await bus.append(draft(tenant))).offset == 2


async def test_a_thousand_targets_and_no_more(bus: EventBus, tenant: str, recorder: Recorder) -> None:
    channels = [f"user:{n}" for n in range(1001)]
    await watch(bus, recorder, tenant, "user:0", "user:999")
    receipt = await bus.append(draft(tenant, *channels[:1000]))
    with pytest.raises(TooManyTargets):
        await bus.append(draft(tenant, *channels))
    await recorder.until(lambda: len(recorder.of(tenant)) == 2)
    assert {entry.offset for entry in recorder.of(tenant)} == {receipt.offset}
    for channel in ("user:0", "user:500", "user:999"):
        assert await offsets(bus, tenant, channel) == [receipt.offset]
    assert (await bus.head(tenant)).offset == receipt.offset


@pytest.mark.parametrize(
    "ident",
    [
        "a b",
        "100%",
        "%2F",
        "日本語",
        "auth0|1",
        "a:b:c",
        "{x}",
        "*",
        "é" * 128,
        "x" * 256,
        "x" * 1024,
        "名" * 341,
        "a@b.example",
        "\\",
        '"',
    ],
)
async def test_odd_channel_ids(bus: EventBus, tenant: str, recorder: Recorder, ident: str) -> None:
    channel = "room:" + ident
    await watch(bus, recorder, tenant, channel)
    receipt = await bus.append(draft(tenant, channel))
    await recorder.until(lambda: bool(recorder.of(tenant)))
    assert [entry.channel for entry in recorder.of(tenant)] == [channel]
    page = await bus.read(tenant, [channel], 0, 10)
    assert [(entry.channel, entry.offset) for entry in page.entries] == [(channel, receipt.offset)]


async def test_a_body_of_64_kib(bus: EventBus, tenant: str, recorder: Recorder) -> None:
    data = b'"' + b"x" * (64 * 1024 - 2) + b'"'
    await watch(bus, recorder, tenant, "all")
    await bus.append(draft(tenant, data=data))
    await recorder.until(lambda: bool(recorder.of(tenant)))
    assert recorder.of(tenant)[0].publication.data == data
    assert (await bus.read(tenant, ["all"], 0, 1)).entries[0].publication.data == data


async def test_tenants_never_see_each_other(bus: EventBus, tenant: str, recorder: Recorder) -> None:
    other = tenant + "-x"
    for name in (tenant, other):
        await watch(bus, recorder, name, "all")
    for n in range(6):
        await bus.append(draft(tenant if n % 3 else other, id="same-id-" + str(n // 2)))
    await recorder.until(lambda: len(recorder.of(tenant)) + len(recorder.of(other)) == 5)
    for name, count in ((tenant, 3), (other, 2)):
        assert [entry.offset for entry in recorder.of(name)] == list(range(1, count + 1))
        assert all(entry.publication.tenant == name for entry in recorder.of(name))
        assert await offsets(bus, name) == list(range(1, count + 1))


# idempotency


async def test_a_repeated_id_publishes_nothing(bus: EventBus, tenant: str, recorder: Recorder) -> None:
    await watch(bus, recorder, tenant, "all")
    first = await bus.append(draft(tenant, id="one"))
    again = await bus.append(draft(tenant, id="one", data=b"2"))
    assert again == Receipt(first.epoch, first.offset, "one", duplicate=True)
    await bus.append(draft(tenant, id="two"))
    await recorder.until(lambda: len(recorder.of(tenant)) >= 2)
    assert [entry.publication.id for entry in recorder.of(tenant)] == ["one", "two"]
    assert await offsets(bus, tenant) == [1, 2]


async def test_a_repeated_key_gives_the_first_id(bus: EventBus, tenant: str) -> None:
    first = await bus.append(draft(tenant, id="one", dedupe_key="p:k", fingerprint="f"))
    again = await bus.append(draft(tenant, id="two", dedupe_key="p:k", fingerprint="f"))
    assert again == Receipt(first.epoch, first.offset, "one", duplicate=True)
    with pytest.raises(IdempotencyConflict):
        await bus.append(draft(tenant, dedupe_key="p:k", fingerprint="g"))
    assert (await bus.append(draft(tenant, dedupe_key="p:other", fingerprint="g"))).offset == 2


async def test_the_same_id_at_the_same_time_is_appended_once(bus: EventBus, tenant: str) -> None:
    receipts = await asyncio.gather(*(bus.append(draft(tenant, id="one")) for _ in range(50)))
    assert {receipt.offset for receipt in receipts} == {1}
    assert sum(not receipt.duplicate for receipt in receipts) == 1
    assert await offsets(bus, tenant) == [1]


async def test_a_duplicate_takes_nothing_from_the_quota(bus: EventBus, tenant: str) -> None:
    quota = Quota(rate_per_s=0.001, burst=2)
    for _ in range(5):
        await bus.append(draft(tenant, id="one"), quota)
    await bus.append(draft(tenant, id="two"), quota)
    with pytest.raises(RateLimited):
        await bus.append(draft(tenant, id="three"), quota)


# quota


async def test_a_quota_lets_the_burst_through_and_names_the_wait(bus: EventBus, tenant: str) -> None:
    quota = Quota(rate_per_s=0.01, burst=3)
    for _ in range(3):
        await bus.append(draft(tenant), quota)
    with pytest.raises(RateLimited) as caught:
        await bus.append(draft(tenant), quota)
    assert caught.value.retry_after_s is not None
    assert 90 < caught.value.retry_after_s <= 101
    assert (await bus.append(draft(tenant + "-x"), quota)).offset == 1
    assert await offsets(bus, tenant) == [1, 2, 3]


async def test_who_is_given_a_larger_quota_need_not_wait_for_the_smaller_one(
    bus: EventBus, tenant: str
) -> None:
    small = Quota(rate_per_s=0.01, burst=50)  # its burst is 5,000 s ahead of the clock
    used = await bus.append_many([draft(tenant) for _ in range(50)], small)
    assert all(isinstance(one, Receipt) for one in used)
    with pytest.raises(RateLimited):
        await bus.append(draft(tenant), small)
    large = Quota(rate_per_s=10_000, burst=40_000)
    try:
        await bus.append(draft(tenant), large)
    except RateLimited as error:  # an empty quota, not one of another rate
        assert error.retry_after_s is not None and error.retry_after_s < 0.01
    async with asyncio.timeout(10):
        while isinstance((await bus.append_many([draft(tenant)], large))[0], RateLimited):
            await asyncio.sleep(0)


# append_many


async def test_append_many_gives_a_result_per_draft(bus: EventBus, tenant: str) -> None:
    await bus.append(draft(tenant, id="zero", dedupe_key="k", fingerprint="f"))
    results = await bus.append_many(
        [
            draft(tenant, id="one"),
            draft(tenant, *(f"user:{n}" for n in range(1001))),
            draft(tenant, id="one"),
            draft(tenant, dedupe_key="k", fingerprint="g"),
            draft(tenant, dedupe_key="k", fingerprint="f"),
            draft(tenant, id="two", ephemeral=True),
            draft(tenant, id="three"),
        ]
    )
    epoch = (await bus.head(tenant)).epoch
    assert results[0] == Receipt(epoch, 2, "one")
    assert isinstance(results[1], TooManyTargets)
    assert results[2] == Receipt(epoch, 2, "one", duplicate=True)
    assert isinstance(results[3], IdempotencyConflict)
    assert results[4] == Receipt(epoch, 1, "zero", duplicate=True)
    assert results[5] == Receipt(epoch, 0, "two")
    assert results[6] == Receipt(epoch, 3, "three")
    assert await bus.append_many([]) == []


async def test_append_many_and_the_quota(bus: EventBus, tenant: str) -> None:
    results = await bus.append_many([draft(tenant) for _ in range(5)], Quota(rate_per_s=0.01, burst=3))
    assert [type(result) for result in results] == [Receipt] * 3 + [RateLimited] * 2


async def test_append_many_keeps_the_order(bus: EventBus, tenant: str, recorder: Recorder) -> None:
    await watch(bus, recorder, tenant, "all")
    batches = [[f"{b}-{n}" for n in range(40)] for b in range(10)]
    results = await asyncio.gather(
        *(bus.append_many([draft(tenant, id=ident) for ident in batch]) for batch in batches)
    )
    for result in results:
        numbers = [receipt.offset for receipt in result if isinstance(receipt, Receipt)]
        assert len(numbers) == 40
        assert numbers == sorted(numbers)
    await recorder.until(lambda: len(recorder.of(tenant)) == 400)
    assert [entry.offset for entry in recorder.of(tenant)] == list(range(1, 401))


# life of an engine


async def test_probe_and_stats(bus: EventBus, tenant: str) -> None:
    await bus.append(draft(tenant))
    health = await bus.probe()
    assert health.ok
    assert health.command_s is not None and health.command_s >= 0
    assert health.echo_s is not None and health.echo_s >= 0
    stats = bus.stats()
    assert stats["appended"] >= 1
    assert all(re.fullmatch("[a-z0-9_]+", name) for name in stats)
    assert all(isinstance(value, int | float) for value in stats.values())


async def test_a_closed_bus_says_so_and_leaves_no_task(engine: Factory, tenant: str) -> None:
    before = asyncio.all_tasks()
    async with engine(retention=Retention(entries=10)) as bus:
        await bus.start(Recorder())
        pending = [asyncio.ensure_future(bus.append(draft(tenant))) for _ in range(20)]
        await asyncio.sleep(0)
        await bus.close()
        for result in await asyncio.gather(*pending, return_exceptions=True):
            assert isinstance(result, Receipt | BusUnavailable)
        with pytest.raises(BusUnavailable):
            await bus.append(draft(tenant))
        with pytest.raises(BusUnavailable):
            await bus.read(tenant, ["all"], 0, 1)
        with pytest.raises(BusUnavailable):
            await bus.head(tenant)
        assert not (await bus.probe()).ok
        assert [type(result) for result in await bus.append_many([draft(tenant)])] == [BusUnavailable]
        bus.watch(tenant, "all")
        bus.unwatch(tenant, "all")
        await bus.close()
    assert asyncio.all_tasks() - before == set()
