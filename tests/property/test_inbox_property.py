"""Whatever happens to inboxes, with time as an event: counters are what a recount gives, lists are what the
model has, and revisions rise with every change and never fall."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from dualcast.inbox.port import InboxSettings
from support.inbox_engines import Inboxes, Opened, listing, memory, redis
from support.inbox_model import InboxModel

USERS = ("alice", "böb %")
KEEP = InboxSettings(max_items=4, max_age_s=100)
IDS = [f"n{number}" for number in range(9)]

ids = st.lists(st.sampled_from(IDS), unique=True, max_size=4)
user = st.sampled_from(USERS)
steps = st.one_of(
    st.tuples(
        st.just("add"),
        st.sampled_from([USERS, USERS[:1], USERS[1:]]),
        st.booleans(),
        st.sampled_from(IDS),
        st.sampled_from(["system", "alert"]),
        st.sampled_from([0, 0, 5, 30, 200]),
    ),
    st.tuples(
        st.just("change"),
        user,
        st.sampled_from(["seen", "read", "archived", "unread", "deleted"]),
        st.none() | ids,
        st.just(()),
    ),
    st.tuples(
        st.just("change"),
        user,
        st.just("deleted"),
        st.none(),
        st.sampled_from([("read",), ("archived",), ("unseen", "seen")]),
    ),
    st.tuples(st.just("withdraw"), st.sampled_from(IDS)),
    st.tuples(st.just("advance"), st.sampled_from([1, 5, 30, 70, 101])),
    st.tuples(st.just("look"), user),
)

sequences = st.lists(steps, max_size=12) | st.lists(steps, min_size=12, max_size=40)


class Run:
    """One engine beside the model."""

    def __init__(self, inboxes: Inboxes, tenant: str) -> None:
        self.inboxes = inboxes
        self.tenant = tenant
        self.store = inboxes.store
        inboxes.tenants.clear()
        inboxes.use(tenant)
        self.model = InboxModel(KEEP.max_items, KEEP.max_age_s, inboxes.now_s)
        self.revisions = dict.fromkeys(USERS, (0, 0))
        self.shown: dict[str, Any] = {}

    async def step(self, name: str, *arguments: Any) -> None:
        if name == "add":
            users, wide, ident, kind, ttl_s = arguments
            receipt = await self.inboxes.append(
                self.tenant, *(() if wide else users), wide=wide, ident=ident, kind=kind, ttl_s=ttl_s
            )
            self.model.add(users, wide, ident, kind, ttl_s, receipt.offset)
        elif name == "change":
            who, action, which, states = arguments
            marked = await self.store.change(self.tenant, who, action, which, states=states)
            changed, unknown = self.model.change(who, action, which, states)
            assert set(marked.changed) == changed and len(marked.changed) == marked.count
            assert set(marked.unknown) == unknown
            assert (marked.badge.unread, marked.badge.unseen) == self.model.counts(who)
        elif name == "withdraw":
            assert (await self.store.withdraw(self.tenant, *arguments) is not None) == self.model.withdraw(
                *arguments
            )
        elif name == "advance":
            self.inboxes.advance(arguments[0])
            self.model.now += arguments[0]
        else:
            await self.look(*arguments)

    async def look(self, who: str) -> None:
        badge = await self.store.counts(self.tenant, who)
        assert (badge.unread, badge.unseen) == self.model.counts(who)
        all_of_it = await listing(self.store, self.tenant, who, limit=2)
        assert all_of_it == self.model.listing(who)
        revision = badge.user_revision, badge.tenant_revision
        before = self.revisions[who]
        assert revision[0] >= before[0] and revision[1] >= before[1], "revisions never fall"
        if who in self.shown and self.shown[who] != all_of_it:
            assert revision != before, "a change has a new revision"
        self.revisions[who], self.shown[who] = revision, all_of_it
        assert await self.store.counts_by_kind(self.tenant, who) == (badge, self.model.kinds(who))
        for states in (("unseen", "seen"), ("read",), ("seen", "archived")):
            assert await listing(self.store, self.tenant, who, limit=2, states=states) == self.model.listing(
                who, states
            )
        for skip, states, kinds in ((0, (), ()), (1, ("unseen", "seen"), ()), (2, (), ("alert",))):
            page = await self.store.numbered(self.tenant, who, skip=skip, limit=2, states=states, kinds=kinds)
            expected = self.model.listing(who, states, kinds)
            assert [f"{item.id}:{item.state}" for item in page.items] == expected[skip : skip + 2]
            assert page.total == len(expected)
        assert await listing(self.store, self.tenant, who, kinds=("alert",)) == self.model.listing(
            who, (), ("alert",)
        )


async def run(inboxes: Inboxes, sequence: list[Any], *, looks: bool) -> None:
    one = Run(inboxes, "t" + secrets.token_hex(6))
    for step in sequence:
        await one.step(*step)
        if looks:
            for who in USERS:
                await one.look(who)
    for who in USERS:
        await one.look(who)


Engine = Callable[[list[Any], bool], None]


@contextmanager
def opened(engine: Opened) -> Iterator[Engine]:
    """One engine for all examples; each has a tenant of its own. Without looking in between, what is put off
    (dead marks, expired items) has more to go wrong."""
    with asyncio.Runner() as runner:
        context = engine(KEEP)
        inboxes = runner.run(context.__aenter__())
        try:
            yield lambda sequence, looks: runner.run(run(inboxes, sequence, looks=looks))
        finally:
            runner.run(context.__aexit__(None, None, None))


def test_sql_counts_what_a_recount_gives() -> None:
    with opened(memory) as engine:

        @settings(max_examples=250, deadline=None)
        @given(sequences, st.booleans())
        def check(sequence: list[Any], looks: bool) -> None:
            engine(sequence, looks)

        check()


def test_redis_counts_what_a_recount_gives() -> None:
    with opened(redis) as engine:

        @settings(max_examples=100, deadline=None)
        @given(sequences, st.booleans())
        def check(sequence: list[Any], looks: bool) -> None:
            engine(sequence, looks)

        check()
