"""What only the Redis inbox answers for: repeated calls, clocks that differ, keys that end by themselves."""

from __future__ import annotations

import re
import time
from typing import Any

import pytest

from dualcast.inbox.port import InboxSettings
from dualcast.inbox.redis import RedisInbox
from dualcast.model.inbox import InboxRider
from dualcast.model.publication import Draft
from support.inbox_engines import Inboxes, listing, redis, redis_time

pytestmark = pytest.mark.anyio


class Twice:
    """A line that loses the reply of every call: it is sent once more."""

    def __init__(self, bus: Any) -> None:
        self._bus = bus

    async def call(self, script: str, tenant: str, *arguments: bytes, read: bool = False) -> Any:
        await self._bus.call(script, tenant, *arguments, read=read)
        return await self._bus.call(script, tenant, *arguments, read=read)


async def test_a_call_whose_reply_was_lost_reports_what_it_did(tenant: str) -> None:
    async with redis() as inboxes:
        store = RedisInbox(Twice(inboxes.bus))
        for number in range(3):
            await inboxes.add(tenant, "alice", ident=f"p{number}")
            await inboxes.add(tenant, wide=True, ident=f"w{number}")
        marked = await store.change(tenant, "alice", "read", ("p0", "w0", "x"))
        assert (marked.changed, marked.count, marked.unknown) == (("p0", "w0"), 2, ("x",))
        deleted = await store.change(tenant, "alice", "deleted", ("p0", "w0"))
        assert (deleted.changed, deleted.count, deleted.unknown) == (("p0", "w0"), 2, ())
        everything = await store.change(tenant, "alice", "seen", None)
        assert everything.count == 4, "which they were is not known any more"
        assert await store.withdraw(tenant, "w2") is not None
        assert await store.withdraw(tenant, "nothing") is None
        assert await listing(store, tenant, "alice") == ["p2:seen", "w1:seen", "p1:seen"]
        assert (await store.counts(tenant, "alice")).unread == 3


@pytest.mark.parametrize("off_s", [-3600, 3600])
async def test_the_clock_of_the_node_does_not_matter(
    tenant: str, off_s: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A node an hour off, fast or slow: what it publishes lives as long as it says."""
    real = time.time
    async with redis_time() as inboxes:
        with monkeypatch.context() as patch:
            patch.setattr(time, "time", lambda: real() + off_s)
            await inboxes.add(tenant, "alice", ident="p", ttl_s=600)
            await inboxes.add(tenant, wide=True, ident="w", ttl_s=600)
            await inboxes.add(tenant, "alice", ident="forever")
        expected = ["forever:unseen", "w:unseen", "p:unseen"]
        assert await listing(inboxes.store, tenant, "alice") == expected
        assert (await inboxes.store.change(tenant, "alice", "read", None)).count == 3
        for name in keys(inboxes, tenant, "n:e*"):
            server = inboxes.redis
            assert server is not None
            (_, due) = server.command("ZRANGE", name, 0, 0, "WITHSCORES")  # type: ignore[misc]
            assert 595_000 < float(due) - real() * 1000 <= 600_000


async def test_what_is_born_expired_is_not_stored(tenant: str) -> None:
    async with redis() as inboxes:
        now_ms = int(time.time() * 1000)
        inboxes.use(tenant)
        for wide in (False, True):
            draft = Draft(
                tenant=tenant,
                channels=("all" if wide else "user:alice",),
                id=f"n{wide}",
                type="notification",
                data=b"{}",
                time_ms=now_ms - 1000,
                expires_ms=now_ms - 1,
                inbox=InboxRider(() if wide else ("alice",), wide, "system"),
            )
            assert (await inboxes.bus.append(draft)).offset > 0
        assert await listing(inboxes.store, tenant, "alice") == []


async def test_every_key_of_a_user_ends_by_itself(tenant: str) -> None:
    keep = InboxSettings(max_age_s=1000)
    async with redis(keep) as inboxes:
        store = inboxes.store
        server = inboxes.redis
        assert server is not None

        def lives() -> dict[str, int]:
            return {name: int(server.command("PTTL", name)) for name in keys(inboxes, tenant, "n:*:user*")}  # type: ignore[call-overload]

        for number in range(3):
            await inboxes.add(tenant, "alice", ttl_s=0 if number else 30)
            await inboxes.add(tenant, wide=True, ident=f"w{number}")
        await store.change(
            tenant, "alice", "archived", [item.id for item in (await store.page(tenant, "alice")).items][1:]
        )
        assert {name.split(":n:")[1][0] for name in lives()} == set("rieasdx")
        assert all(life > keep.max_age_s * 1000 for life in lives().values())
        await store.change(tenant, "alice", "deleted", None)
        await inboxes.add(tenant, "alice", ttl_s=30)
        await store.change(tenant, "alice", "read", None)
        assert {name.split(":n:")[1][0] for name in lives()} >= set("riesd")
        assert all(life > keep.max_age_s * 1000 for life in lives().values())
        inboxes.advance(keep.max_age_s * 90)
        await inboxes.add(tenant, "alice", ttl_s=20)
        await store.change(tenant, "alice", "read", None)
        assert {name.split(":n:")[1][0] for name in lives()} == set("riesd")
        assert all(life > keep.max_age_s * 1000 for life in lives().values())


async def test_a_lost_database_begins_with_higher_revisions(tenant: str) -> None:
    async with redis() as inboxes:
        await inboxes.add(tenant, "alice")
        await inboxes.add(tenant, wide=True)
        before = await inboxes.store.counts(tenant, "alice")
        server = inboxes.redis
        assert server is not None
        for name in keys(inboxes, tenant, "n:*"):
            server.command("DEL", name)
        inboxes.advance(60)
        after = await inboxes.store.counts(tenant, "alice")
        assert (after.unread, after.unseen) == (0, 0)
        assert after.user_revision > before.user_revision and after.tenant_revision > before.tenant_revision


async def test_a_page_of_many_takes_no_more_commands_than_a_page_of_few(tenant: str) -> None:
    used = []
    for stored in (100, 3000):
        async with redis(InboxSettings(max_items=3000)) as inboxes:
            for number in range(stored):
                await inboxes.add(tenant, *(("alice",) if number % 5 else ()), wide=number % 5 == 0)
            await inboxes.store.change(tenant, "alice", "seen", None)
            await inboxes.store.counts(tenant, "alice")
            server = inboxes.redis
            assert server is not None
            server.command("CONFIG", "RESETSTAT")
            assert len((await inboxes.store.page(tenant, "alice", limit=50)).items) == 50
            await inboxes.store.page(tenant, "alice", limit=50, states=("unseen", "seen"))
            await inboxes.store.counts(tenant, "alice")
            listed = server.command("INFO", "commandstats")
            assert isinstance(listed, bytes)
            calls = re.findall(r"cmdstat_(?:z|h|s)[a-z]+:calls=(\d+)", listed.decode())
            used.append(sum(map(int, calls)))
    assert used[1] <= used[0] + 10 and used[0] < 200, used


def keys(inboxes: Inboxes, tenant: str, pattern: str) -> list[str]:
    assert inboxes.redis is not None
    found = inboxes.redis.command("KEYS", f"*{{{tenant}}}:{pattern}")
    assert isinstance(found, list)
    return [name.decode() for name in found if b":n:clock" not in name]
