"""The StateStore contract over every engine."""

from __future__ import annotations

import asyncio

import pytest

from dualcast.model.errors import BadRequest, LimitExceeded
from dualcast.state.limits import MAX_KEY_BYTES, MAX_VALUE_BYTES
from dualcast.state.memory import MemoryState
from dualcast.state.port import StateStore, VersionConflict

pytestmark = pytest.mark.anyio
KEYS = ["a", "a/b", "alice@example.com", "auth0|1", "房间:一", "naïve key%25 {x}", "z" * MAX_KEY_BYTES]


async def gone(store: StateStore, space: str, key: str) -> None:
    """Waits until the value has expired."""
    async with asyncio.timeout(10):
        while await store.get(space, key) is not None:
            await asyncio.sleep(0.01)


async def test_a_value_comes_back_as_it_was_put(store: StateStore) -> None:
    data = bytes(range(256)) * (MAX_VALUE_BYTES // 256)
    version = await store.put("s", "k", data)
    found = await store.get("s", "k")
    assert found is not None
    assert (found.key, found.data, found.version) == ("k", data, version)
    assert await store.get("s", "other") is None
    assert await store.get("other", "k") is None


@pytest.mark.parametrize("key", KEYS)
async def test_any_text_is_a_key(store: StateStore, key: str) -> None:
    await store.put("s", key, b"1")
    found = await store.get("s", key)
    assert found is not None and found.key == key
    assert [value.key for value in await store.list("s")] == [key]
    assert [change.key for change in (await store.changes(0)).changes] == [key]
    assert await store.delete("s", key)


async def test_versions_only_grow_over_the_whole_store(store: StateStore) -> None:
    versions = [
        await store.put("s", "a", b"1"),
        await store.put("t", "a", b"1"),
        await store.put("s", "a", b"2"),
    ]
    await store.delete("s", "a")
    versions.append(await store.put("s", "a", b"3"))
    assert versions == sorted(set(versions)) and versions[0] > 0


async def test_expected_versions_guard_a_write(store: StateStore) -> None:
    first = await store.put("s", "k", b"1", expected=0)
    for wrong in (0, first + 1):
        with pytest.raises(VersionConflict):
            await store.put("s", "k", b"2", expected=wrong)
    second = await store.put("s", "k", b"2", expected=first)
    found = await store.get("s", "k")
    assert found is not None and (found.data, found.version) == (b"2", second)
    await store.delete("s", "k")
    with pytest.raises(VersionConflict):
        await store.put("s", "k", b"3", expected=second)
    await store.put("s", "k", b"3", expected=0)


async def test_of_concurrent_guarded_writes_one_wins(store: StateStore) -> None:
    version = await store.put("s", "k", b"")
    results = await asyncio.gather(
        *(store.put("s", "k", str(n).encode(), expected=version) for n in range(20)), return_exceptions=True
    )
    assert sum(isinstance(result, int) for result in results) == 1
    assert sum(isinstance(result, VersionConflict) for result in results) == 19


async def test_concurrent_increments_all_count(store: StateStore) -> None:
    async def increment() -> None:
        while True:
            value = await store.get("s", "n")
            try:
                count = int(value.data) if value else 0
                await store.put("s", "n", b"%d" % (count + 1), expected=value.version if value else 0)
                return
            except VersionConflict:
                continue

    await asyncio.gather(*(increment() for _ in range(20)))
    value = await store.get("s", "n")
    assert value is not None and value.data == b"20"


async def test_delete_says_whether_there_was_something(store: StateStore) -> None:
    assert not await store.delete("s", "k")
    await store.put("s", "k", b"1")
    assert await store.delete("s", "k")
    assert not await store.delete("s", "k")
    assert await store.get("s", "k") is None
    assert await store.list("s") == []


async def test_take_gives_a_value_to_exactly_one_caller(store: StateStore) -> None:
    version = await store.put("s", "k", b"ticket", quiet=True)
    taken = [value for value in await asyncio.gather(*(store.take("s", "k") for _ in range(20))) if value]
    assert [(value.key, value.data, value.version) for value in taken] == [("k", b"ticket", version)]
    assert await store.get("s", "k") is None
    assert await store.list("s") == []


async def test_a_value_with_a_lifetime_vanishes(store: StateStore) -> None:
    await store.put("s", "stays", b"1")
    await store.put("s", "k", b"1", ttl_s=0.05)
    await gone(store, "s", "k")
    assert await store.take("s", "k") is None
    assert not await store.delete("s", "k")
    assert [value.key for value in await store.list("s")] == ["stays"]
    await store.put("s", "k", b"2", expected=0)


async def test_writing_again_renews_or_ends_the_lifetime(store: StateStore) -> None:
    await store.put("s", "for-ever", b"1", ttl_s=0.05)
    await store.put("s", "for-ever", b"2")
    await store.put("s", "longer", b"1", ttl_s=0.05)
    await store.put("s", "longer", b"2", ttl_s=60)
    await store.put("s", "probe", b"1", ttl_s=0.1)
    await gone(store, "s", "probe")
    await store.put("s", "another", b"1", ttl_s=60)
    assert [value.key for value in await store.list("s")] == ["another", "for-ever", "longer"]
    assert await store.get("s", "longer") is not None


async def test_expired_values_do_not_hide_live_ones_from_a_short_list(store: StateStore) -> None:
    for n in range(10):
        await store.put("s", f"a{n}", b"1", ttl_s=0.05)
    await store.put("s", "b", b"1")
    for n in range(10):
        await gone(store, "s", f"a{n}")
    assert [value.key for value in await store.list("s", limit=1)] == ["b"]


async def test_list_is_in_key_order_and_pages(store: StateStore) -> None:
    keys = ["a", "a/", "a/1", "a/2", "a0", "b", "é", "房", "\U0001f600"]
    for key in reversed(keys):
        await store.put("s", key, key.encode())
    await store.put("t", "a/3", b"another space")
    assert [value.key for value in await store.list("s")] == keys
    assert [value.key for value in await store.list("s", prefix="a/")] == ["a/", "a/1", "a/2"]
    assert [value.key for value in await store.list("s", prefix="a/", after="a/")] == ["a/1", "a/2"]
    assert [value.key for value in await store.list("s", prefix="a/", after="a0")] == []
    assert [value.key for value in await store.list("s", prefix="b", after="a")] == ["b"]
    assert await store.list("s", prefix="c") == []
    paged: list[str] = []
    while page := await store.list("s", after=paged[-1] if paged else "", limit=2):
        assert all(value.data == value.key.encode() for value in page)
        paged += [value.key for value in page]
    assert paged == keys


async def test_the_change_log_names_writes_and_deletes_in_order(store: StateStore) -> None:
    start = (await store.changes(0)).revision
    first = await store.put("s", "a", b"1")
    second = await store.put("t", "b", b"1")
    assert await store.delete("s", "a")
    await store.put("s", "ticket", b"1", quiet=True)
    await store.take("s", "ticket")
    changes = await store.changes(start)
    assert changes.complete
    assert [(change.space, change.key) for change in changes.changes] == [("t", "b"), ("s", "a")]
    assert first < second == changes.changes[0].revision < changes.changes[1].revision <= changes.revision
    later = await store.changes(changes.revision)
    assert later.complete and later.changes == ()
    only = await store.changes(second)
    assert [(change.space, change.key) for change in only.changes] == [("s", "a")]


async def test_a_conflicting_write_is_no_change(store: StateStore) -> None:
    await store.put("s", "a", b"1")
    before = await store.changes(0)
    with pytest.raises(VersionConflict):
        await store.put("s", "a", b"2", expected=0)
    assert not await store.delete("s", "missing")
    assert await store.changes(0) == before


async def test_the_log_keeps_a_thousand_changes_and_says_when_it_forgot(store: StateStore) -> None:
    versions = await asyncio.gather(*(store.put("s", f"k{n:04}", b"") for n in range(1_050)))
    ordered = sorted(versions)
    kept = await store.changes(ordered[49])
    assert kept.complete
    assert [change.revision for change in kept.changes] == ordered[50:]
    forgotten = await store.changes(ordered[48])
    assert not forgotten.complete
    assert forgotten.revision == ordered[-1]


async def test_a_revision_of_another_store_is_not_complete(store: StateStore) -> None:
    version = await store.put("s", "a", b"1")
    changes = await store.changes(version + 1_000_000)
    assert not changes.complete
    assert changes.revision == version


@pytest.mark.parametrize(
    "space,key", [("s", ""), ("s", "a\0b"), ("s", "é" * 641), ("S", "k"), ("", "k"), ("s", "\ud800")]
)
async def test_bad_names_are_refused(store: StateStore, space: str, key: str) -> None:
    with pytest.raises(BadRequest):
        await store.put(space, key, b"1")
    with pytest.raises(BadRequest):
        await store.get(space, key)


async def test_a_value_is_bounded(store: StateStore) -> None:
    with pytest.raises(LimitExceeded):
        await store.put("s", "k", b"x" * (MAX_VALUE_BYTES + 1))
    with pytest.raises(BadRequest):
        await store.put("s", "k", b"x", ttl_s=0)
    assert await store.get("s", "k") is None


def test_a_short_log_is_refused() -> None:
    with pytest.raises(ValueError, match="at least 1000"):
        MemoryState(log_size=10)


async def test_memory_forgets_expired_values_nobody_asks_for() -> None:
    now = 0.0
    store = MemoryState(clock=lambda: now)
    for n in range(500):
        await store.put("s", f"k{n}", b"1", ttl_s=1, quiet=True)
        await store.take("s", f"k{n}")
    assert len(store._expiries) < 200
    await store.put("s", "left", b"1", ttl_s=1)
    now = 2.0
    await store.put("s", "other", b"1")
    assert [value.key for value in await store.list("s")] == ["other"]
    assert store._expiries == []
