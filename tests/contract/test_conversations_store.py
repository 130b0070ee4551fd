"""Every engine keeps conversations the same way: participants, messages, read positions, bounds, tenants."""

from __future__ import annotations

import asyncio
import secrets
import time
from collections.abc import AsyncIterator

import pytest

from dualcast.bus.port import EventBus
from dualcast.bus.redis.engine import RedisBus
from dualcast.conversations.model import (
    ConversationSettings,
    NotAParticipant,
    TooManyParticipants,
    UnknownConversation,
)
from dualcast.conversations.port import ConversationStore
from dualcast.conversations.redis import RedisConversations
from support.conversation_engines import Clock, started_bus, store_on

pytestmark = pytest.mark.anyio

ODD = "a|b c/%41:é你\N{GRINNING FACE}"
"""An id with everything that keys must not trip over."""


@pytest.fixture(params=("memory", "redis", "sqlite"))
async def bus(request: pytest.FixtureRequest) -> AsyncIterator[EventBus]:
    async with started_bus(request.param) as running:
        yield running


@pytest.fixture
def store(bus: EventBus) -> ConversationStore:
    return store_on(bus)


async def make(store: ConversationStore, tenant: str, conversation: str, *users: str) -> None:
    await store.change(tenant, conversation, replace=True, add=users)


async def say(store: ConversationStore, tenant: str, conversation: str, sender: str, *idents: str) -> None:
    for ident in idents:
        await store.save(tenant, conversation, sender, ident, ident.encode(), strict=True)


async def test_participants_are_replaced_added_and_removed(store: ConversationStore, tenant: str) -> None:
    first = await store.change(tenant, "c", replace=True, add=["bob", "alice", "bob"])
    assert (first.joined, first.left) == (("alice", "bob"), ())
    assert first.participants.users == ("alice", "bob") and first.participants.former == ()
    again = await store.change(tenant, "c", replace=True, add=["alice", "bob"])
    assert (again.joined, again.left) == ((), ())
    assert again.participants == first.participants
    other = await store.change(tenant, "c", replace=True, add=["alice", ODD])
    assert (other.joined, other.left) == ((ODD,), ("bob",))
    assert other.participants.former == ("bob",)
    more = await store.change(tenant, "c", replace=False, add=["bob", "carol"], remove=["alice", "nobody"])
    assert (more.joined, more.left) == (("bob", "carol"), ("alice",))
    now = await store.participants(tenant, "c")
    assert now == more.participants
    assert set(now.users) == {"bob", "carol", ODD} and now.former == ("alice",)
    assert first.participants.revision < other.participants.revision < now.revision


async def test_an_empty_conversation_is_a_conversation(store: ConversationStore, tenant: str) -> None:
    await make(store, tenant, ODD)
    assert (await store.participants(tenant, ODD)).users == ()
    saved = await store.save(tenant, ODD, "bot", "m1", b"1", strict=False)
    assert saved.new and saved.seq == 1


async def test_unknown_conversations_and_strangers(store: ConversationStore, tenant: str) -> None:
    for call in (
        store.participants(tenant, "c"),
        store.change(tenant, "c", replace=False, add=["alice"]),
        store.save(tenant, "c", "alice", "m1", b"1", strict=True),
        store.save(tenant, "c", "alice", "m1", b"1", strict=False),
        store.messages(tenant, "c", "alice", 0, 10),
        store.read(tenant, "c", "alice", ["m1"]),
    ):
        with pytest.raises(UnknownConversation):
            await call
    await make(store, tenant, "c", "alice", "bob")
    await store.change(tenant, "c", replace=False, remove=["bob"])
    for user in ("bob", "eve"):
        for call in (
            store.participants(tenant, "c", user),
            store.save(tenant, "c", user, "m1", b"1", strict=True),
            store.messages(tenant, "c", user, 0, 10),
            store.read(tenant, "c", user, ["m1"]),
        ):
            with pytest.raises(NotAParticipant):
                await call
    assert await store.messages(tenant, "c", None, 0, 10) == []


async def test_messages_have_places_without_holes_and_are_paged_newest_first(
    store: ConversationStore, tenant: str
) -> None:
    await make(store, tenant, "c", "alice", "bob")
    await say(store, tenant, "c", "alice", *(f"m{n}" for n in range(1, 8)))
    seen, before = [], 0
    while rows := await store.messages(tenant, "c", "bob", before, 3):
        seen += [(row.seq, row.body) for row in rows]
        before = rows[-1].seq
        if before == 1:
            break
    assert seen == [(n, b"m%d" % n) for n in range(7, 0, -1)]


async def test_the_same_id_is_kept_once(store: ConversationStore, tenant: str) -> None:
    await make(store, tenant, "c", "alice", "bob")
    await make(store, tenant, "d", "alice")
    body = b"\x00\xff binary"
    first = await store.save(tenant, "c", "alice", "m1", body, strict=True)
    await say(store, tenant, "c", "bob", "m2")
    again = await store.save(tenant, "c", "bob", "m1", b"other", strict=True)
    assert (first.new, first.seq, first.body) == (True, 1, body)
    assert (again.new, again.seq, again.body, again.saved_ms) == (False, 1, body, first.saved_ms)
    assert first.participants.users == again.participants.users == ("alice", "bob")
    elsewhere = await store.save(tenant, "d", "alice", "m1", b"d", strict=True)
    assert elsewhere.new and elsewhere.seq == 1
    assert len(await store.messages(tenant, "c", None, 0, 10)) == 2


async def test_how_old_a_message_is_goes_by_one_clock(
    store: ConversationStore, tenant: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    await make(store, tenant, "c", "alice")
    first = await store.save(tenant, "c", "alice", "m1", b"1", strict=True)
    real = time.time
    monkeypatch.setattr(time, "time", lambda: real() + 3600)
    again = await store.save(tenant, "c", "alice", "m1", b"1", strict=True)
    assert first.now_ms == first.saved_ms == again.saved_ms
    assert 0 <= again.now_ms - again.saved_ms < 60_000


async def test_messages_at_the_same_time_take_different_places(store: ConversationStore, tenant: str) -> None:
    await make(store, tenant, "c", "alice")
    saved = await asyncio.gather(
        *(store.save(tenant, "c", "alice", f"m{n % 15}", b"%d" % (n % 15), strict=True) for n in range(30))
    )
    assert sorted(one.seq for one in saved if one.new) == list(range(1, 16))
    assert {one.seq: one.body for one in saved} == {
        row.seq: row.body for row in await store.messages(tenant, "c", None, 0, 100)
    }


async def test_read_positions_go_forward_only(store: ConversationStore, tenant: str) -> None:
    await make(store, tenant, "c", "alice", "bob")
    await say(store, tenant, "c", "alice", "m1", "m2", "m3", "m4")
    (mine,) = await store.mine(tenant, "bob", "", 10)
    assert (mine.id, mine.participants, mine.last_seq, mine.read_seq, mine.unread) == ("c", 2, 4, 0, 4)
    reading = await store.read(tenant, "c", "bob", ["m3", "gone", "m1"])
    assert (reading.position, reading.unread, reading.unknown) == (3, 1, ("gone",))
    assert reading.participants.users == ("alice", "bob")
    back = await store.read(tenant, "c", "bob", ["m2"])
    assert (back.position, back.unread) == (3, 1)
    # Who sends has read what came before.
    await say(store, tenant, "c", "bob", "m5")
    for user, unread in (("alice", 1), ("bob", 0)):
        (mine,) = await store.mine(tenant, user, "", 10)
        assert mine.unread == unread


async def test_who_joins_has_nothing_unread_and_sees_what_was_said(
    store: ConversationStore, tenant: str
) -> None:
    await make(store, tenant, "c", "alice", "bob")
    await say(store, tenant, "c", "alice", "m1", "m2")
    await store.change(tenant, "c", replace=False, add=["carol"])
    (mine,) = await store.mine(tenant, "carol", "", 10)
    assert (mine.read_seq, mine.unread) == (2, 0)
    assert len(await store.messages(tenant, "c", "carol", 0, 10)) == 2


async def test_own_conversations_are_paged_and_end_with_leaving(
    store: ConversationStore, tenant: str
) -> None:
    names = {f"c{n}" for n in range(5)} | {ODD}
    for name in names:
        await make(store, tenant, name, "alice", "bob")
    await make(store, tenant, "of-bob", "bob")
    seen: list[str] = []
    while page := await store.mine(tenant, "alice", seen[-1] if seen else "", 2):
        seen += [one.id for one in page]
    assert len(seen) == 6 and set(seen) == names
    await store.change(tenant, "c3", replace=False, remove=["alice"])
    assert {one.id for one in await store.mine(tenant, "alice", "", 100)} == names - {"c3"}
    assert len(await store.mine(tenant, "bob", "", 100)) == 7


async def test_participants_are_bounded(bus: EventBus, tenant: str) -> None:
    store = store_on(bus, ConversationSettings(max_participants=3, max_remembered=5))
    await make(store, tenant, "c", "a", "b", "c")
    before = await store.participants(tenant, "c")
    with pytest.raises(TooManyParticipants):
        await store.change(tenant, "c", replace=False, add=["d"])
    with pytest.raises(TooManyParticipants):
        await store.change(tenant, "new", replace=True, add=["a", "b", "c", "d"])
    assert await store.participants(tenant, "c") == before
    with pytest.raises(UnknownConversation):
        await store.participants(tenant, "new")
    await make(store, tenant, "c", "d", "e")
    assert (await store.participants(tenant, "c")).former == ("a", "b", "c")
    await make(store, tenant, "c", "a", "d", "e")  # one of those who left comes back
    assert (await store.participants(tenant, "c")).former == ("b", "c")
    with pytest.raises(TooManyParticipants):
        await make(store, tenant, "c", "a", "d", "f")


async def test_only_so_many_messages_are_kept(bus: EventBus, tenant: str) -> None:
    store = store_on(bus, ConversationSettings(messages_kept=5))
    await make(store, tenant, "c", "alice", "bob")
    await say(store, tenant, "c", "alice", *(f"m{n}" for n in range(1, 9)))
    assert [row.seq for row in await store.messages(tenant, "c", "bob", 0, 100)] == [8, 7, 6, 5, 4]
    (mine,) = await store.mine(tenant, "bob", "", 10)
    assert (mine.last_seq, mine.unread) == (8, 5)
    assert (await store.read(tenant, "c", "bob", ["m3", "m4"])).unknown == ("m3",)
    # Its id is free again, as an id never seen.
    assert (await store.save(tenant, "c", "alice", "m1", b"again", strict=True)).seq == 9


async def test_old_messages_go(bus: EventBus, tenant: str) -> None:
    if isinstance(bus, RedisBus):
        # Redis's own clock counts: what is a millisecond old at least is too old already.
        store = store_on(bus, ConversationSettings(messages_age_s=0))
        await make(store_on(bus), tenant, "c", "alice")
        await say(store_on(bus), tenant, "c", "alice", "m1", "m2")
        assert await store.messages(tenant, "c", "alice", 0, 10) == []
        await say(store, tenant, "c", "alice", "m3")
        assert await store_on(bus).messages(tenant, "c", "alice", 0, 10) == []
        return
    clock = Clock()
    store = store_on(bus, ConversationSettings(messages_age_s=100), clock)
    await make(store, tenant, "c", "alice", "bob")
    await make(store, tenant, "other", "alice")
    await say(store, tenant, "c", "alice", "m1", "m2")
    clock.skip(60)
    await say(store, tenant, "c", "alice", "m3")
    clock.skip(60)
    assert [row.seq for row in await store.messages(tenant, "c", "bob", 0, 10)] == [3]
    # The next message anywhere sweeps.
    await say(store, tenant, "other", "alice", "x")
    (mine,) = await store.mine(tenant, "bob", "", 10)
    assert mine.unread == 1
    assert (await store.save(tenant, "c", "alice", "m1", b"again", strict=True)).seq == 4


async def test_those_who_left_are_remembered_for_a_while(bus: EventBus, tenant: str) -> None:
    if isinstance(bus, RedisBus):
        await make(store_on(bus), tenant, "c", "alice", "bob")
        await store_on(bus).change(tenant, "c", replace=False, remove=["bob"])
        assert (await store_on(bus).participants(tenant, "c")).former == ("bob",)
        assert (await store_on(bus, ConversationSettings(former_s=0)).participants(tenant, "c")).former == ()
        return
    clock = Clock()
    store = store_on(bus, ConversationSettings(former_s=100), clock)
    await make(store, tenant, "c", "alice", "bob")
    await store.change(tenant, "c", replace=False, remove=["bob"])
    clock.skip(99)
    assert (await store.participants(tenant, "c")).former == ("bob",)
    clock.skip(2)
    assert (await store.participants(tenant, "c")).former == ()
    assert (await store.change(tenant, "c", replace=False, add=["carol"])).participants.users == (
        "alice",
        "carol",
    )


async def test_tenants_do_not_see_each_other(store: ConversationStore, tenant: str) -> None:
    other = "t-" + secrets.token_hex(5)
    await make(store, tenant, "c", "alice", "bob")
    await say(store, tenant, "c", "alice", "m1")
    with pytest.raises(UnknownConversation):
        await store.messages(other, "c", None, 0, 10)
    assert await store.mine(other, "alice", "", 10) == []
    await make(store, other, "c", "alice")
    assert await store.messages(other, "c", "alice", 0, 10) == []
    with pytest.raises(NotAParticipant):
        await store.messages(other, "c", "bob", 0, 10)
    await say(store, other, "c", "alice", "m1", "m2")
    assert (await store.read(other, "c", "alice", ["m2"])).position == 2
    (mine,) = await store.mine(tenant, "bob", "", 10)
    assert (mine.last_seq, mine.unread, mine.participants) == (1, 1, 2)


async def test_a_repeated_script_gives_the_first_answer(tenant: str) -> None:
    """A call whose reply was lost is sent again with the same arguments."""
    async with started_bus("redis") as bus:
        assert isinstance(bus, RedisBus)
        real, calls = bus.call, []

        class Twice:
            async def call(self, script: str, tenant: str, *arguments: bytes, read: bool = False) -> object:
                calls.append(script)
                await real(script, tenant, *arguments, read=read)
                return await real(script, tenant, *arguments, read=read)

        store = RedisConversations(Twice())
        change = await store.change(tenant, "c", replace=True, add=["alice", "bob"])
        assert change.joined == ("alice", "bob") and change.participants.revision == 1
        change = await store.change(tenant, "c", replace=False, remove=["bob"])
        assert change.left == ("bob",) and change.participants.revision == 2
        assert (await store.save(tenant, "c", "alice", "m1", b"1", strict=True)).seq == 1
        assert (await store.read(tenant, "c", "alice", ["m1"])).position == 1
        assert (await store.participants(tenant, "c")).revision == 2
        assert len(calls) == 5
