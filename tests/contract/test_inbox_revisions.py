"""Revisions: higher than any told even when the store comes back without its newest part, and never skipped
for nothing."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from dualcast.bus.sqlite import SqliteBus
from dualcast.inbox.port import InboxStore
from dualcast.inbox.redis import RedisInbox, inbox_extension
from dualcast.inbox.sql import SqlInbox
from dualcast.inbox.sql_rider import inbox_part
from dualcast.model.errors import BusUnavailable
from dualcast.model.inbox import InboxRider
from support.bus_engines import Recorder, draft
from support.inbox_engines import ENGINES
from support.redis_nodes import node
from support.redis_server import RedisServer

pytestmark = pytest.mark.anyio


async def add(bus: object, *users: str) -> None:
    """Appends a notification to the users; to the whole tenant without one. Waits for a bus that is away."""
    channels = tuple("user:" + user for user in users)
    item = draft("t", *channels, inbox=InboxRider(users, not users, "system"))
    while True:
        try:
            await bus.append(item)  # type: ignore[attr-defined]
            return
        except BusUnavailable:
            continue


async def revisions(store: InboxStore) -> list[int]:
    """Of alice and of bob, for whom nothing is stored by himself."""
    badges = [await store.counts("t", user) for user in ("alice", "bob")]
    assert badges[0].tenant_revision == badges[1].tenant_revision
    return [badges[0].user_revision, badges[1].user_revision, badges[0].tenant_revision]


async def test_redis_without_its_newest_part_goes_on_above_every_revision_told() -> None:
    with RedisServer(aof="always") as server:
        async with node(server.url, extensions=[inbox_extension()]) as one:
            store = RedisInbox(one.bus)
            await add(one.bus, "alice")
            await add(one.bus)
            copy = server.copy_data()
            for _ in range(20):
                await add(one.bus, "alice")
                await add(one.bus)
            told = await revisions(store)
            server.kill()
            server.restore_data(copy)
            server.start()
            await add(one.bus, "alice")
            after = await revisions(store)
            assert (await store.counts("t", "alice")).unread == 3
            assert after[0] > told[0] and after[1] >= told[1] and after[2] > told[2]
            assert await revisions(store) == after, "only once"


async def test_a_bus_file_put_back_goes_on_above_every_revision_told(tmp_path: Path) -> None:
    path, copy = tmp_path / "bus.db", tmp_path / "copy.db"
    parts = [inbox_part()]
    told: list[int] = []
    for lost in (False, True, False):
        bus = SqliteBus(path, parts=parts)
        await bus.start(Recorder())
        for _ in range(20 if lost else 1):
            await add(bus, "alice")
            await add(bus)
        store = SqlInbox(bus.database)
        now = await revisions(store)
        counted = await store.counts("t", "alice")
        await bus.close()
        if lost:
            shutil.copy(copy, path)
        else:
            shutil.copy(path, copy)
        assert not told or (now[0] > told[0] and now[1] >= told[1] and now[2] > told[2])
        told = now
    assert counted.unread == 4


@pytest.mark.parametrize("engine", sorted(ENGINES))
async def test_what_is_gone_before_it_expires_changes_no_revision_then(engine: str, tenant: str) -> None:
    """Clients that find a revision skipped ask again, all at once."""
    async with ENGINES[engine]() as inboxes:
        await inboxes.add(tenant, wide=True, ident="w", ttl_s=60)
        await inboxes.add(tenant, "alice", ident="p", ttl_s=60)
        await inboxes.store.withdraw(tenant, "w")
        await inboxes.store.change(tenant, "alice", "deleted", ("p",))
        before = await inboxes.store.counts(tenant, "alice")
        inboxes.advance(61)
        assert await inboxes.store.counts(tenant, "alice") == before
