"""Revocation: on this node at once, on the others with the next poll, for connections and for new ones."""

from __future__ import annotations

import pytest

from dualcast.identity.revocation import SPACE, Revocations, token_key, user_key
from dualcast.model.principal import Principal
from dualcast.state.follow import StateFollower
from dualcast.state.memory import MemoryState
from support.tokens import Clock

pytestmark = pytest.mark.anyio


class Rig:
    def __init__(self) -> None:
        self.clock = Clock()
        self.clock.now = 1_800_000_000.25
        self.store = MemoryState(clock=self.clock)
        self.here, self.there = (Revocations(self.store, clock=self.clock) for _ in range(2))
        self.told: list[tuple[str, str | None, str | None]] = []
        self.told_there: list[tuple[str, str | None, str | None]] = []
        self.here.on_revoked(lambda *what: self.told.append(what))
        self.there.on_revoked(lambda *what: self.told_there.append(what))
        self.follower = StateFollower(self.store)
        self.follower.on(SPACE, self.there.changed, self.there.load)

    def principal(self, **fields: object) -> Principal:
        known = {"tenant": "default", "sub": "alice", "token_id": "t1", "issued_at": int(self.clock.now)}
        return Principal(**{**known, **fields})  # type: ignore[arg-type]


@pytest.fixture
def rig() -> Rig:
    return Rig()


async def test_revoked_token(rig: Rig) -> None:
    await rig.follower.refresh()
    await rig.here.revoke_token("default", "t1", expires_at=int(rig.clock.now) + 60)
    assert rig.here.is_revoked(rig.principal())
    assert not rig.there.is_revoked(rig.principal())
    await rig.follower.refresh()
    assert rig.there.is_revoked(rig.principal())
    assert rig.told == rig.told_there == [("default", "t1", None)]
    for other in ({"token_id": "t2"}, {"tenant": "tenant-b"}):
        assert not rig.there.is_revoked(rig.principal(**other))


async def test_revoked_user_up_to_this_second(rig: Rig) -> None:
    now = int(rig.clock.now)
    assert await rig.here.revoke_user("default", "alice") == now + 1
    await rig.follower.refresh()
    for node in (rig.here, rig.there):
        assert node.is_revoked(rig.principal(issued_at=now))
        assert node.is_revoked(rig.principal(issued_at=0))  # a token that does not say when
        assert not node.is_revoked(rig.principal(issued_at=now + 1))
        assert not node.is_revoked(rig.principal(sub="bob"))
        assert not node.is_revoked(rig.principal(tenant="tenant-b"))
    assert rig.told == rig.told_there == [("default", None, "alice")]


async def test_the_later_bound_stands(rig: Rig) -> None:
    await rig.here.revoke_user("default", "alice", issued_before=2000)
    assert await rig.there.revoke_user("default", "alice", issued_before=1000) == 2000
    assert await rig.there.revoke_user("default", "alice", issued_before=3000) == 3000
    await rig.here.changed(user_key("default", "alice"))
    assert rig.here.is_revoked(rig.principal(issued_at=2999))
    assert rig.told == [("default", None, "alice")] * 2


async def test_told_once_however_often_it_is_read(rig: Rig) -> None:
    await rig.here.revoke_token("default", "t1")
    await rig.here.changed(token_key("default", "t1"))
    await rig.here.load()
    assert rig.told == [("default", "t1", None)]


async def test_odd_ids_stay_apart(rig: Rig) -> None:
    await rig.here.revoke_token("a", "b:c")
    await rig.here.revoke_user("a", "user:x|1")
    assert rig.told == [("a", "b:c", None), ("a", None, "user:x|1")]
    assert not rig.here.is_revoked(rig.principal(tenant="a", sub="x|1", token_id="c"))


async def test_a_record_ends_with_the_token(rig: Rig) -> None:
    await rig.here.revoke_token("default", "t1", expires_at=int(rig.clock.now) + 60)
    await rig.here.revoke_token("default", "old", expires_at=int(rig.clock.now) - 1)
    rig.clock.forward(61)
    assert await rig.store.list(SPACE) == []
    await rig.here.load()
    assert len(rig.here) == 0


async def test_load_reads_every_page_and_keeps_what_the_store_lost(rig: Rig) -> None:
    for number in range(1203):
        await rig.here.revoke_token("default", f"id-{number}")
    await rig.there.load()
    assert len(rig.there) == 1203
    await rig.store.delete(SPACE, token_key("default", "id-7"))
    await rig.there.load()
    assert rig.there.is_revoked(rig.principal(token_id="id-7"))
    await rig.there.changed(token_key("default", "id-7"))  # deleted on purpose
    assert not rig.there.is_revoked(rig.principal(token_id="id-7"))


async def test_memory_is_given_back(rig: Rig) -> None:
    for number in range(1500):
        await rig.here.revoke_token("default", f"id-{number}", expires_at=int(rig.clock.now) + 5)
        if number == 1000:
            rig.clock.forward(10)
    assert len(rig.here) < 1000


async def test_a_record_that_cannot_be_read_still_revokes(rig: Rig) -> None:
    await rig.store.put(SPACE, token_key("default", "t1"), b"{new format")
    await rig.store.put(SPACE, user_key("default", "bob"), b"\xff")
    await rig.here.load()
    assert rig.here.is_revoked(rig.principal())
    assert rig.here.is_revoked(rig.principal(sub="bob", token_id="x"))
