"""The InboxStore port over every engine."""

from __future__ import annotations

import asyncio
import secrets
import time
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from dualcast.bus.sqlite import SqliteBus
from dualcast.inbox.port import InboxSettings, InboxStore, Marked
from dualcast.inbox.sql import SqlInbox
from dualcast.inbox.sql_rider import inbox_part
from dualcast.model.inbox import Badge
from support.bus_engines import Recorder, watch
from support.inbox_engines import ENGINES, Inboxes, Opened, listing

pytestmark = pytest.mark.anyio
KEEP = InboxSettings(max_items=20, max_age_s=1000)


@pytest.fixture(params=sorted(ENGINES))
def opened(request: pytest.FixtureRequest) -> Opened:
    return ENGINES[request.param]


@pytest.fixture
async def inboxes(opened: Opened) -> AsyncIterator[Inboxes]:
    async with opened(KEEP) as inboxes:
        yield inboxes


@pytest.fixture
def store(inboxes: Inboxes) -> InboxStore:
    return inboxes.store


async def counts(store: InboxStore, tenant: str, user: str = "alice") -> tuple[int, int]:
    badge = await store.counts(tenant, user)
    return badge.unread, badge.unseen


async def test_an_item_as_it_was_published(inboxes: Inboxes, store: InboxStore, tenant: str) -> None:
    data = '{"id":"n1","title":"你好 \\u0000"}'.encode()
    receipt = await inboxes.append(tenant, "alice", "bob", ident="n1", kind="分析", data=data)
    (item,) = (await store.page(tenant, "bob")).items
    assert item.record == data and item.kind == "分析" and item.offset == receipt.offset
    assert (item.id, item.state, item.wide) == ("n1", "unseen", False)
    assert (await store.page(tenant, "carol")).items == ()


@pytest.mark.parametrize("size", [0, 200, 300, 70_000])
async def test_records_of_every_size(inboxes: Inboxes, store: InboxStore, tenant: str, size: int) -> None:
    data = b'{"x":"%b"}' % (b"\xc3\xa4" * (size // 2))
    await inboxes.add(tenant, "alice", data=data, ttl_s=50)
    await inboxes.add(tenant, wide=True, data=data)
    assert [item.record for item in (await store.page(tenant, "alice")).items] == [data, data]


async def test_both_kinds_in_one_order_page_by_page(inboxes: Inboxes, store: InboxStore, tenant: str) -> None:
    expected = []
    for number in range(12):
        wide = number % 3 == 0
        ident = await inboxes.add(tenant, *(() if wide else ("alice",)), wide=wide, ident=f"n{number}")
        expected.append(f"{ident}:unseen")
    expected.reverse()
    for limit in (1, 2, 5, 11, 12, 13):
        assert await listing(store, tenant, "alice", limit=limit) == expected
    page = await store.page(tenant, "alice", limit=12)
    assert page.next == 0 and (page.badge.unread, page.badge.unseen) == (12, 12)


async def test_states_go_forward_and_counters_follow(
    inboxes: Inboxes, store: InboxStore, tenant: str
) -> None:
    await inboxes.add(tenant, "alice", ident="p")
    await inboxes.add(tenant, wide=True, ident="w")
    ids = ("p", "w")
    for action, state, unread, unseen in (
        ("seen", "seen", 2, 0),
        ("read", "read", 0, 0),
        ("seen", "read", 0, 0),
        ("unread", "seen", 2, 0),
        ("unread", "seen", 2, 0),
        ("archived", "archived", 0, 0),
        ("read", "archived", 0, 0),
        ("unread", "archived", 0, 0),
    ):
        marked = await store.change(tenant, "alice", action, ids)  # type: ignore[arg-type]
        assert (marked.badge.unread, marked.badge.unseen, marked.unknown) == (unread, unseen, ()), action
        assert await listing(store, tenant, "alice") == [f"w:{state}", f"p:{state}"]
        assert await counts(store, tenant) == (unread, unseen)
    assert await counts(store, tenant, "bob") == (1, 1), "a mark is one user's own"


async def test_marking_twice_succeeds_twice(inboxes: Inboxes, store: InboxStore, tenant: str) -> None:
    await inboxes.add(tenant, "alice", ident="p")
    await inboxes.add(tenant, wide=True, ident="w")
    first = await store.change(tenant, "alice", "read", ("w", "p", "nothing"))
    again = await store.change(tenant, "alice", "read", ("w", "p", "nothing"))
    assert set(first.changed) == {"w", "p"} and first.count == 2 and first.unknown == ("nothing",)
    assert again.changed == () and again.count == 0 and again.unknown == ("nothing",)
    assert again.badge == first.badge


@pytest.mark.parametrize("action", ["seen", "read", "archived", "deleted"])
async def test_all_up_to_now(inboxes: Inboxes, store: InboxStore, tenant: str, action: str) -> None:
    for number in range(3):
        await inboxes.add(tenant, "alice", ident=f"p{number}")
        await inboxes.add(tenant, wide=True, ident=f"w{number}")
    await store.change(tenant, "alice", "deleted", ("w1", "p1"))
    await store.change(tenant, "alice", "archived", ("w2",))
    marked = await store.change(tenant, "alice", action, None)  # type: ignore[arg-type]
    expected = {"p0", "w0", "p2", "w2"} - ({"w2"} if action != "deleted" else set())
    assert set(marked.changed) == expected and marked.count == len(expected)
    late = await inboxes.add(tenant, wide=True)
    assert (await listing(store, tenant, "alice"))[0] == f"{late}:unseen"
    after = (4, 0) if action == "seen" else (1, 1)
    assert await counts(store, tenant) == ((4, 1) if action == "seen" else after)
    assert await counts(store, tenant, "bob") == (4, 4)


async def test_all_read_back_to_seen(inboxes: Inboxes, store: InboxStore, tenant: str) -> None:
    for number in range(3):
        await inboxes.add(tenant, "alice", ident=f"p{number}")
        await inboxes.add(tenant, wide=True, ident=f"w{number}")
    await store.change(tenant, "alice", "read", None)
    await store.change(tenant, "alice", "archived", ("w0", "p0"))
    await store.change(tenant, "alice", "unread", ("w1",))
    assert (await store.change(tenant, "alice", "unread", None)).count == 3
    assert await listing(store, tenant, "alice") == [
        "w2:seen",
        "p2:seen",
        "w1:seen",
        "p1:seen",
        "w0:archived",
        "p0:archived",
    ]
    assert await counts(store, tenant) == (4, 0)


async def test_deleting_by_state(inboxes: Inboxes, store: InboxStore, tenant: str) -> None:
    for number in range(3):
        await inboxes.add(tenant, "alice", ident=f"p{number}")
        await inboxes.add(tenant, wide=True, ident=f"w{number}")
    await store.change(tenant, "alice", "read", ("p0", "w0"))
    await store.change(tenant, "alice", "archived", ("p1", "w1"))
    assert set((await store.change(tenant, "alice", "deleted", None, states=("read",))).changed) == {
        "p0",
        "w0",
    }
    assert await listing(store, tenant, "alice") == ["w2:unseen", "p2:unseen", "w1:archived", "p1:archived"]
    assert (await store.change(tenant, "alice", "deleted", None, states=("archived",))).count == 2
    assert await counts(store, tenant) == (2, 2)
    assert (await store.change(tenant, "alice", "deleted", ("p0", "w0"))).unknown == ("p0", "w0")
    assert len(await listing(store, tenant, "bob")) == 3


async def test_filters(inboxes: Inboxes, store: InboxStore, tenant: str) -> None:
    for number in range(9):
        wide = number % 2 == 0
        kind = "alert" if number % 3 == 0 else "system"
        await inboxes.add(tenant, *(() if wide else ("alice",)), wide=wide, ident=f"n{number}", kind=kind)
    await store.change(tenant, "alice", "read", ("n0", "n1", "n3", "n8"))
    await store.change(tenant, "alice", "seen", ("n6", "n7"))
    read = ["n8:read", "n3:read", "n1:read", "n0:read"]
    for limit in (1, 3, 50):
        assert await listing(store, tenant, "alice", states=("read",), limit=limit) == read
        assert await listing(store, tenant, "alice", states=("seen", "read"), limit=limit) == [
            "n8:read",
            "n7:seen",
            "n6:seen",
            *read[1:],
        ]
        assert await listing(store, tenant, "alice", kinds=("alert",), limit=limit) == [
            "n6:seen",
            "n3:read",
            "n0:read",
        ]
    assert await listing(store, tenant, "alice", kinds=("alert",), states=("seen",)) == ["n6:seen"]
    for user, kinds in (("alice", {"system": 4, "alert": 1}), ("bob", {"system": 3, "alert": 2})):
        assert await store.counts_by_kind(tenant, user) == (await store.counts(tenant, user), kinds)


async def test_what_has_expired_is_gone_from_everything(
    inboxes: Inboxes, store: InboxStore, tenant: str
) -> None:
    await inboxes.add(tenant, "alice", ident="p", ttl_s=10)
    await inboxes.add(tenant, wide=True, ident="w", ttl_s=20)
    await inboxes.add(tenant, "alice", ident="q")
    before = await store.counts(tenant, "alice")
    inboxes.advance(10)
    after = await store.counts(tenant, "alice")
    assert (after.unread, after.unseen) == (2, 2) and after.user_revision > before.user_revision
    assert (await store.change(tenant, "alice", "read", ("p", "w"))).unknown == ("p",)
    inboxes.advance(10)
    last = await store.counts(tenant, "alice")
    assert last.tenant_revision > after.tenant_revision
    assert await listing(store, tenant, "alice") == ["q:unseen"]
    assert (await store.change(tenant, "alice", "unread", ("w",))).unknown == ("w",)
    assert await counts(store, tenant) == (1, 1)
    inboxes.advance(KEEP.max_age_s)
    assert await counts(store, tenant) == (0, 0) and await listing(store, tenant, "alice") == []


async def test_the_newest_are_kept(inboxes: Inboxes, store: InboxStore, tenant: str) -> None:
    for number in range(KEEP.max_items + 5):
        await inboxes.add(tenant, "alice", ident=f"p{number}")
        await inboxes.add(tenant, wide=True, ident=f"w{number}")
        if number in (0, 1):
            await store.change(tenant, "alice", "read", (f"p{number}", f"w{number}"))
    kept = range(KEEP.max_items + 4, 4, -1)
    assert await listing(store, tenant, "alice") == [f"{k}{n}:unseen" for n in kept for k in ("w", "p")]
    assert await counts(store, tenant) == (2 * KEEP.max_items, 2 * KEEP.max_items)


async def test_an_id_that_is_stored_stays_as_it_is(inboxes: Inboxes, store: InboxStore, tenant: str) -> None:
    for wide in (False, True):
        users = () if wide else ("alice",)
        await inboxes.add(tenant, *users, wide=wide, ident="same", data=b'{"v":1}')
        await store.change(tenant, "alice", "read", ("same",))
        before = await store.counts(tenant, "alice")
        await inboxes.add(tenant, *users, wide=wide, ident="same", data=b'{"v":2}')
        page = await store.page(tenant, "alice")
        assert [(item.state, item.record) for item in page.items] == [("read", b'{"v":1}')]
        assert page.badge == before
        await store.change(tenant, "alice", "deleted", ("same",))


async def test_an_id_that_comes_again_is_a_new_item(inboxes: Inboxes, store: InboxStore, tenant: str) -> None:
    await inboxes.add(tenant, "alice", ident="p")
    await inboxes.add(tenant, wide=True, ident="w")
    for action in ("read", "archived", "deleted"):
        await store.change(tenant, "alice", action, ("p", "w"))  # type: ignore[arg-type]
    assert await store.withdraw(tenant, "w")
    await inboxes.add(tenant, "alice", ident="p")
    await inboxes.add(tenant, wide=True, ident="w")
    assert await listing(store, tenant, "alice") == ["w:unseen", "p:unseen"]
    assert await counts(store, tenant) == (2, 2)


async def test_a_withdrawn_item_is_gone_for_everybody(
    inboxes: Inboxes, store: InboxStore, tenant: str
) -> None:
    await inboxes.add(tenant, wide=True, ident="w")
    await inboxes.add(tenant, "alice", ident="p")
    await store.change(tenant, "alice", "read", ("w",))
    before = await store.counts(tenant, "bob")
    revision = await store.withdraw(tenant, "w")
    after = await store.counts(tenant, "bob")
    assert revision == after.tenant_revision > before.tenant_revision and (after.unread, after.unseen) == (
        0,
        0,
    )
    assert await counts(store, tenant) == (1, 1)
    assert await store.withdraw(tenant, "w") is None
    assert await store.withdraw(tenant, "p") is None, "a personal one is its user's"


async def test_revisions_rise_with_every_change(inboxes: Inboxes, store: InboxStore, tenant: str) -> None:
    last = await store.counts(tenant, "alice")

    async def risen(user: int, wide: int) -> None:
        nonlocal last
        now = await store.counts(tenant, "alice")
        assert (now.user_revision > last.user_revision, now.tenant_revision - last.tenant_revision) == (
            user,
            wide,
        )
        last = now

    await inboxes.add(tenant, "alice", ident="p")
    await risen(1, 0)
    await inboxes.add(tenant, wide=True, ident="w")
    await risen(0, 1)
    for ident in ("p", "w"):
        await store.change(tenant, "alice", "read", (ident,))
        await risen(1, 0)
        await store.change(tenant, "alice", "read", (ident,))
        await risen(0, 0)
    await inboxes.add(tenant, "bob")
    await store.change(tenant, "bob", "read", None)
    await risen(0, 0)
    await store.change(tenant, "alice", "archived", None)
    await risen(1, 0)
    await store.withdraw(tenant, "w")
    await risen(0, 1)


async def test_badges_ride_on_the_entries(opened: Opened, tenant: str) -> None:
    recorder = Recorder()
    async with opened(KEEP, recorder) as inboxes:
        await watch(inboxes.bus, recorder, tenant, "user:alice", "user:b/b", "all")
        await inboxes.add(tenant, "alice")
        await inboxes.add(tenant, wide=True)
        await inboxes.add(tenant, "alice", "b/b")
        await inboxes.store.change(tenant, "alice", "seen", None)
        await inboxes.add(tenant, "alice")
        await recorder.until(lambda: len(recorder.of(tenant)) == 5)
        one, wide, *two, last = [entry.publication.badge for entry in recorder.of(tenant)]
        assert isinstance(one, Badge) and (one.unread, one.unseen) == (1, 1)
        now = await inboxes.store.counts(tenant, "alice")
        assert (
            wide == Badge(-1, -1, 0, now.tenant_revision) and one.tenant_revision == now.tenant_revision - 1
        )
        assert [(badge.unread, badge.unseen) for badge in two if badge] == [(3, 3), (2, 2)]
        assert last == now and (now.unread, now.unseen) == (4, 1)


async def test_tenants_never_meet(inboxes: Inboxes, store: InboxStore, tenant: str) -> None:
    other = "o-" + secrets.token_hex(4)
    await inboxes.add(tenant, "alice", ident="p")
    await inboxes.add(tenant, wide=True, ident="w")
    inboxes.use(other)
    assert await listing(store, other, "alice") == [] and await counts(store, other) == (0, 0)
    assert (await store.change(other, "alice", "read", ("p", "w"))).unknown == ("p", "w")
    assert (await store.change(other, "alice", "deleted", None)).count == 0
    assert await store.withdraw(other, "w") is None
    assert await counts(store, tenant) == (2, 2)


async def test_a_foreign_id_is_unknown(inboxes: Inboxes, store: InboxStore, tenant: str) -> None:
    await inboxes.add(tenant, "bob", ident="bobs")
    for action in ("read", "archived", "deleted"):
        marked = await store.change(tenant, "alice", action, ("bobs",))  # type: ignore[arg-type]
        assert (marked.changed, marked.unknown) == ((), ("bobs",))
    assert await listing(store, tenant, "bob") == ["bobs:unseen"]


async def test_filters_pass_over_a_bounded_number_of_items(opened: Opened, tenant: str) -> None:
    async with opened(InboxSettings(max_items=3000)) as inboxes:
        await inboxes.add(tenant, "alice", ident="old", kind="rare")
        for _ in range(1100):
            await inboxes.add(tenant, "alice")
        page = await inboxes.store.page(tenant, "alice", kinds=("rare",))
        assert page.items == () and page.next > 0
        assert await listing(inboxes.store, tenant, "alice", kinds=("rare",)) == ["old:unseen"]


async def test_changes_at_the_same_time(inboxes: Inboxes, store: InboxStore, tenant: str) -> None:
    """Devices of one user, and publishers: nothing is lost, nothing counted twice."""
    ids = [await inboxes.add(tenant, *(("alice",) if n % 2 else ()), wide=n % 2 == 0) for n in range(16)]
    marked = await asyncio.gather(
        *(store.change(tenant, "alice", "read", ids[n : n + 8]) for n in range(0, 9, 2)),
        *(inboxes.add(tenant, "alice") for _ in range(5)),
        *(store.counts(tenant, "alice") for _ in range(5)),
    )
    changed = [ident for answer in marked if isinstance(answer, Marked) for ident in answer.changed]
    assert sorted(changed) == sorted(ids), "each was changed by exactly one"
    assert await counts(store, tenant) == (5, 5)


async def test_an_inbox_outlives_a_restart(tmp_path: Path, tenant: str) -> None:
    def opened() -> SqliteBus:
        return SqliteBus(tmp_path / "bus.db", parts=[inbox_part()])

    bus = opened()
    await bus.start(Recorder())
    first = Inboxes(bus, SqlInbox(bus.database), lambda *_: None, time.time)
    await first.add(tenant, "alice", ident="p")
    await first.add(tenant, wide=True, ident="w")
    await first.store.change(tenant, "alice", "read", ("w",))
    before = await first.store.counts(tenant, "alice")
    await bus.close()
    bus = opened()
    await bus.start(Recorder())
    store = SqlInbox(bus.database)
    assert await store.counts(tenant, "alice") == before
    assert await listing(store, tenant, "alice") == ["w:read", "p:unseen"]
    await bus.close()


async def test_numbered_pages_of_more_than_one_chunk(opened: Opened, tenant: str) -> None:
    async with opened(InboxSettings(max_items=500)) as inboxes:
        store = inboxes.store
        for number in range(450):
            await inboxes.add(tenant, "alice", ident=f"p{number}", kind="a" if number % 3 else "b")
        await inboxes.add(tenant, wide=True, ident="w", kind="b")
        await store.change(tenant, "alice", "read", ("p0", "p449", "w"))
        page = await store.numbered(tenant, "alice", skip=249, limit=3)
        assert [item.id for item in page.items] == ["p201", "p200", "p199"] and page.total == 451
        page = await store.numbered(tenant, "alice", skip=0, limit=2, states=("read",))
        assert [(item.id, item.wide) for item in page.items] == [("w", True), ("p449", False)]
        assert page.total == 3 and page.items[1].record == b'{"id":"p449"}'
        page = await store.numbered(tenant, "alice", skip=150, limit=9, kinds=("b",), states=())
        assert [item.id for item in page.items] == ["p0"] and page.total == 151
        assert (await store.numbered(tenant, "alice", skip=451, limit=9)).items == ()
        assert (await store.numbered(tenant, "bob", skip=0, limit=9)).total == 1
        assert (await store.numbered(tenant + "x", "alice", skip=0, limit=9)).total == 0
