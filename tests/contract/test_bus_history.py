"""The promises of `dualcast.bus.port` about reading, over every engine: pages, gaps, retention."""

from __future__ import annotations

import asyncio
import itertools
import secrets
from collections.abc import AsyncIterator
from dataclasses import dataclass

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from dualcast.bus.keeping import Keeping
from dualcast.bus.port import EventBus, Retention
from dualcast.model.publication import Entry, Gap, Page, Receipt
from support.bus_engines import WAIT_S, Factory, Recorder, draft, watch

pytestmark = pytest.mark.anyio

CHANNELS = ("all", "user:a", "user:b", "room:日本 %", "topic:x")
SHORT = 4


@pytest.fixture
async def short(engine: Factory, recorder: Recorder) -> AsyncIterator[EventBus]:
    """A bus that keeps SHORT entries per channel."""
    async with engine(retention=Retention(entries=SHORT)) as bus:
        await bus.start(recorder)
        yield bus


async def pages(bus: EventBus, tenant: str, channels: tuple[str, ...], after: int, limit: int) -> list[Page]:
    """All pages from `after` on, each checked for what every page promises."""
    found: list[Page] = []
    while True:
        page = await bus.read(tenant, channels, after, limit)
        found.append(page)
        numbers = [entry.offset for entry in page.entries]
        assert numbers == sorted(numbers)
        assert len(set(numbers)) <= limit
        assert all(after < number <= page.next for number in numbers)
        assert page.next <= page.top
        assert all(
            entry.channel in channels and entry.publication.epoch == page.epoch for entry in page.entries
        )
        assert all(gap.channel in channels and gap.after == after for gap in page.gaps)
        assert len({gap.channel for gap in page.gaps}) == len(page.gaps)
        if page.next >= page.top:
            return found
        assert page.next > after
        after = page.next


@dataclass
class Sent:
    """One publication of the reference model."""

    channels: tuple[str, ...]
    ephemeral: bool
    expired: bool
    offset: int = 0


SENT = st.builds(
    Sent,
    channels=st.lists(st.sampled_from(CHANNELS), min_size=1, max_size=3, unique=True).map(tuple),
    ephemeral=st.sampled_from([False] * 6 + [True]),
    expired=st.sampled_from([False] * 6 + [True]),
)
READ = st.tuples(
    st.lists(st.sampled_from(CHANNELS), min_size=1, unique=True).map(tuple),
    st.floats(0, 1),
    st.integers(1, 7),
)
random_history = given(
    history=st.lists(SENT, max_size=60),
    reads=st.lists(READ, min_size=1, max_size=4),
    batch=st.integers(1, 20),
)
many_examples = settings(
    max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)


async def publish(bus: EventBus, tenant: str, history: list[Sent], batch: int) -> None:
    for start in range(0, len(history), batch):
        part = history[start : start + batch]
        drafts = [
            draft(tenant, *sent.channels, ephemeral=sent.ephemeral, expires_ms=1 if sent.expired else 0)
            for sent in part
        ]
        for sent, result in zip(part, await bus.append_many(drafts), strict=True):
            assert isinstance(result, Receipt)
            sent.offset = result.offset


def lies_in(gap: Gap, channel: str, offset: int) -> bool:
    return gap.channel == channel and gap.after < offset and (not gap.oldest or offset < gap.oldest)


async def check_reads(
    bus: EventBus,
    tenant: str,
    history: list[Sent],
    reads: list[tuple[tuple[str, ...], float, int]],
    keep: int,
) -> None:
    top = max((sent.offset for sent in history), default=0)
    for channels, where, limit in reads:
        after = int(where * top)
        found = await pages(bus, tenant, channels, after, limit)
        assert all(page.top == top for page in found)
        entries = [(entry.channel, entry.offset) for page in found for entry in page.entries]
        gaps = [gap for page in found for gap in page.gaps]
        assert len(set(entries)) == len(entries)
        for channel in channels:
            log = [sent for sent in history if not sent.ephemeral and channel in sent.channels]
            due = [sent for sent in log if sent.offset > after]
            got = {offset for name, offset in entries if name == channel}
            assert got <= {sent.offset for sent in due if not sent.expired}
            for sent in due:
                here = sent.offset in got or sent.expired
                assert here or any(lies_in(gap, channel, sent.offset) for gap in gaps), (channel, sent)
            for sent in log[-keep:]:
                assert sent.expired or sent.offset <= after or sent.offset in got
            for gap in gaps:
                if gap.channel == channel:
                    assert any(lies_in(gap, channel, sent.offset) for sent in log[:-keep]), (gap, log)
            before = {0: 0} | {sent.offset: prev.offset for prev, sent in itertools.pairwise(log)}
            for page in found:
                for entry in page.entries:
                    if entry.channel == channel:
                        assert entry.prev in (-1, before.get(entry.offset, 0))


@random_history
@many_examples
async def test_pages_of_a_random_history_are_the_history(
    bus: EventBus, history: list[Sent], reads: list[tuple[tuple[str, ...], float, int]], batch: int
) -> None:
    tenant = "t-" + secrets.token_hex(5)
    await publish(bus, tenant, history, batch)
    await check_reads(bus, tenant, history, reads, keep=1000)


@random_history
@many_examples
async def test_what_a_short_history_lost_is_named_by_gaps(
    short: EventBus, history: list[Sent], reads: list[tuple[tuple[str, ...], float, int]], batch: int
) -> None:
    tenant = "t-" + secrets.token_hex(5)
    await publish(short, tenant, history, batch)
    await check_reads(short, tenant, history, reads, keep=SHORT)


async def test_a_page_with_room_for_all_reaches_the_top(bus: EventBus, tenant: str) -> None:
    await bus.append_many([draft(tenant, f"user:{n % 3}") for n in range(30)])
    page = await bus.read(tenant, ["user:0", "user:1"], 3, 100)
    assert (page.next, page.top, page.gaps) == (30, 30, ())
    assert [entry.offset for entry in page.entries] == [n for n in range(4, 31) if n % 3 in (1, 2)]


async def test_a_page_of_several_channels_never_skips(bus: EventBus, tenant: str) -> None:
    """Beside a busy channel, a quiet one's late entry must not carry the page past the rest."""
    await bus.append_many([draft(tenant, "user:busy") for _ in range(20)])
    await bus.append(draft(tenant, "user:quiet"))
    found = await pages(bus, tenant, ("user:quiet", "user:busy"), 0, 5)
    assert len(found) >= 5
    assert [entry.offset for page in found for entry in page.entries] == list(range(1, 22))
    assert [entry.offset for entry in found[0].entries] == [1, 2, 3, 4, 5]
    assert found[0].next == 5


async def test_the_limit_counts_offsets_not_entries(bus: EventBus, tenant: str) -> None:
    channels = ("user:a", "user:b", "user:c")
    await bus.append_many([draft(tenant, *channels) for _ in range(6)])
    page = await bus.read(tenant, channels, 0, 2)
    assert [entry.offset for entry in page.entries] == [1, 1, 1, 2, 2, 2]
    assert page.next == 2


async def test_reading_what_never_was_gives_no_gap(bus: EventBus, tenant: str) -> None:
    page = await bus.read(tenant, ["user:nobody"], 0, 10)
    assert (page.top, page.next, page.entries, page.gaps) == (0, 0, (), ())
    await bus.append(draft(tenant))
    page = await bus.read(tenant, ["user:nobody"], 0, 10)
    assert (page.top, page.next, page.entries, page.gaps) == (1, 1, (), ())


async def test_a_future_cursor_gives_an_empty_page_at_the_top(bus: EventBus, tenant: str) -> None:
    await bus.append(draft(tenant))
    page = await bus.read(tenant, ["all"], 1000, 10)
    assert (page.top, page.next, page.entries, page.gaps) == (1, 1, (), ())


async def test_a_cursor_at_the_edge_of_what_was_trimmed(short: EventBus, tenant: str) -> None:
    await short.append_many([draft(tenant) for _ in range(SHORT + 3)])
    page = await short.read(tenant, ["all"], 3, 100)
    assert page.gaps == ()
    assert [entry.offset for entry in page.entries] == [4, 5, 6, 7]
    page = await short.read(tenant, ["all"], 2, 100)
    assert page.gaps == (Gap("all", 2, page.entries[0].offset),)


async def test_a_trimmed_channel_does_not_make_others_gap(short: EventBus, tenant: str) -> None:
    await short.append(draft(tenant, "user:quiet"))
    await short.append_many([draft(tenant, "user:busy") for _ in range(30)])
    page = await short.read(tenant, ["user:busy", "user:quiet"], 0, 100)
    assert [gap.channel for gap in page.gaps] == ["user:busy"]
    assert [entry.offset for entry in page.entries if entry.channel == "user:quiet"] == [1]
    page = await short.read(tenant, ["user:quiet"], 0, 100)
    assert page.gaps == ()


async def test_expired_publications_are_left_out_without_a_gap(bus: EventBus, tenant: str) -> None:
    for n in range(6):
        await bus.append(draft(tenant, expires_ms=1 if n % 2 else 2**45))
    page = await bus.read(tenant, ["all"], 0, 10)
    assert [entry.offset for entry in page.entries] == [1, 3, 5]
    assert (page.gaps, page.next) == ((), 6)


async def test_history_ends_with_its_time_and_says_so(
    engine: Factory, recorder: Recorder, tenant: str
) -> None:
    async with engine(retention=Retention(entries=10, seconds=1)) as bus:
        await bus.start(recorder)
        await bus.append(draft(tenant))
        await bus.append(draft(tenant))
        async with asyncio.timeout(WAIT_S):
            while (page := await bus.read(tenant, ["all"], 0, 10)).entries:
                await asyncio.sleep(0.1)
        assert page.gaps == (Gap("all", 0, 0),)
        assert (page.top, page.next) == (2, 2)
        assert (await bus.read(tenant, ["all"], 1, 10)).gaps == (Gap("all", 1, 0),)
        assert (await bus.read(tenant, ["all"], 2, 10)).gaps == ()
        assert (await bus.append(draft(tenant))).offset == 3
        page = await bus.read(tenant, ["all"], 1, 10)
        if page.entries:  # else it has aged away already
            assert page.gaps == (Gap("all", 1, 3),)
        assert (await bus.read(tenant, ["all"], 3, 10)).gaps == ()


async def test_a_tenant_keeps_less_history_than_the_server_when_it_says_so(
    engine: Factory, recorder: Recorder, tenant: str
) -> None:
    own: dict[str, tuple[int | None, int | None]] = {}
    keep = Keeping(Retention(entries=40))
    keep.own = lambda name: own.get(name, (None, None))

    async def kept(name: str) -> tuple[list[int], bool]:
        page = await bus.read(name, ("all",), 0, 100)
        return [entry.offset for entry in page.entries], bool(page.gaps)

    async with engine(retention=keep) as bus:
        await bus.start(recorder)
        for name in (tenant, tenant + "-b"):
            await bus.append_many([draft(name) for _ in range(20)])
        own[tenant] = 4, None  # at once, from the next publication on
        await bus.append(draft(tenant))
        await bus.append(draft(tenant + "-b"))
        assert await kept(tenant) == ([18, 19, 20, 21], True)
        assert await kept(tenant + "-b") == (list(range(1, 22)), False)
        own[tenant] = 9_999, None  # never more than the server keeps
        await bus.append_many([draft(tenant) for _ in range(80)])
        assert 40 <= len((await kept(tenant))[0]) <= 44
        own[tenant + "-b"] = None, 1
        async with asyncio.timeout(WAIT_S):
            while (await kept(tenant + "-b"))[0]:
                await asyncio.sleep(0.1)  # the clock of a redis-server cannot be moved
        assert await kept(tenant + "-b") == ([], True)
        assert len((await kept(tenant))[0]) >= 40


async def test_large_pages_come_in_full(bus: EventBus, tenant: str) -> None:
    data = b'"' + b"x" * (64 * 1024 - 2) + b'"'
    for _ in range(10):
        await bus.append_many([draft(tenant, data=data) for _ in range(10)])
    found = await pages(bus, tenant, ("all",), 0, 500)
    assert [entry.offset for page in found for entry in page.entries] == list(range(1, 101))


async def test_a_read_is_one_snapshot_while_publishing_goes_on(bus: EventBus, tenant: str) -> None:
    running = True

    async def publisher() -> None:
        while running:
            await bus.append_many([draft(tenant, "user:a", "user:b") for _ in range(5)])
            await asyncio.sleep(0)

    async with asyncio.TaskGroup() as group:
        group.create_task(publisher())
        try:
            after = 0
            while after < 300:
                page = await bus.read(tenant, ["user:a", "user:b"], after, 50)
                expected = [n for n in range(after + 1, page.next + 1) for _ in range(2)]
                assert [entry.offset for entry in page.entries] == expected
                after = page.next
                await asyncio.sleep(0)
        finally:
            running = False


async def test_history_and_live_meet_without_a_hole(bus: EventBus, tenant: str, recorder: Recorder) -> None:
    """What a session does: watch, read up to where the live entries begin, go on live."""
    stop = asyncio.Event()

    async def publisher() -> int:
        count = 0
        while not stop.is_set():
            await bus.append(draft(tenant))
            count += 1
            await asyncio.sleep(0)
        return count

    task = asyncio.ensure_future(publisher())
    try:
        while (await bus.head(tenant)).offset < 50:
            await asyncio.sleep(0)
        since = await watch(bus, recorder, tenant, "all")
        found = await pages(bus, tenant, ("all",), 0, 20)
        await recorder.until(lambda: len(recorder.of(tenant)) > 50)
    finally:
        stop.set()
        count = await task
    await recorder.until(lambda: recorder.of(tenant)[-1].offset == count)
    read = [entry for page in found for entry in page.entries]
    assert read[-1].offset >= since
    live = recorder.of(tenant)
    together: dict[int, Entry] = {entry.offset: entry for entry in (*read, *live)}
    assert sorted(together) == list(range(1, count + 1))
    assert {entry.offset for entry in live} >= set(range(since + 1, count + 1))
    assert [entry.offset for entry in live] == sorted({entry.offset for entry in live})
