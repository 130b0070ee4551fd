"""Any sequence of calls leaves the store where a plain model of it is: places, pages, positions, what is
unread. Unread is recounted from what is kept, so the arithmetic of the engines cannot drift unseen.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from random import Random

import pytest

from dualcast.bus.port import EventBus
from dualcast.conversations.model import ConversationSettings, NotAParticipant, TooManyParticipants
from dualcast.conversations.port import ConversationStore
from support.conversation_engines import started_bus, store_on

pytestmark = pytest.mark.anyio

USERS = ("alice", "bob", "carol", "dave", "e|é/%")
MOST, KEPT, REMEMBERED, STEPS = 3, 6, 5, 160


@pytest.fixture(params=("memory", "redis", "sqlite"))
async def bus(request: pytest.FixtureRequest) -> AsyncIterator[EventBus]:
    async with started_bus(request.param) as running:
        yield running


@dataclass
class Model:
    """One conversation as it should be."""

    present: dict[str, int] = field(default_factory=dict)
    former: set[str] = field(default_factory=set)
    revision: int = 1
    last: int = 0
    kept: dict[int, str] = field(default_factory=dict)

    def change(self, wanted: set[str]) -> bool:
        """False: too many."""
        present = set(self.present)
        if wanted == present:
            return True
        if len(wanted) > MOST or len(wanted | present | self.former) > REMEMBERED:
            return False
        self.former = (self.former | present) - wanted
        self.present = {user: self.present.get(user, self.last) for user in wanted}
        self.revision += 1
        return True

    def save(self, user: str, ident: str) -> int:
        for seq, known in self.kept.items():
            if known == ident:
                return seq
        self.last += 1
        self.kept[self.last] = ident
        self.kept.pop(self.last - KEPT, None)
        self.present[user] = self.last
        return self.last

    def read(self, user: str, idents: list[str]) -> int:
        found = [seq for seq, ident in self.kept.items() if ident in idents]
        self.present[user] = max([self.present[user], *found])
        return self.present[user]

    def unread(self, user: str) -> int:
        return sum(seq > self.present[user] for seq in self.kept)


async def agree(store: ConversationStore, tenant: str, model: Model) -> None:
    people = await store.participants(tenant, "c")
    assert set(people.users) == set(model.present) and set(people.former) == model.former
    assert people.revision == model.revision
    rows = await store.messages(tenant, "c", None, 0, 100)
    assert [(row.seq, row.body.decode()) for row in rows] == sorted(model.kept.items(), reverse=True)
    for user in USERS:
        mine = [
            (one.last_seq, one.read_seq, one.unread, one.participants, one.revision)
            for one in await store.mine(tenant, user, "", 10)
        ]
        expected = []
        if user in model.present:
            counts = (len(model.present), model.revision)
            expected = [(model.last, model.present[user], model.unread(user), *counts)]
        assert mine == expected, user


@pytest.mark.parametrize("seed", range(3))
async def test_any_sequence_of_calls(bus: EventBus, tenant: str, seed: int) -> None:
    random = Random(seed)
    store = store_on(
        bus, ConversationSettings(max_participants=MOST, messages_kept=KEPT, max_remembered=REMEMBERED)
    )
    model = Model()
    await store.change(tenant, "c", replace=True)
    for step in range(STEPS):
        some = random.sample(USERS, random.randrange(5))
        user = random.choice(USERS)
        idents = [
            f"m{max(0, model.last - random.randrange(KEPT + 3))}" for _ in range(random.randrange(1, 4))
        ]
        match random.choice(("replace", "add", "remove", "save", "save", "save", "again", "read")):
            case "replace":
                await expect(store.change(tenant, "c", replace=True, add=some), model.change(set(some)))
            case "add":
                allowed = model.change(set(model.present) | set(some))
                await expect(store.change(tenant, "c", replace=False, add=some), allowed)
            case "remove":
                model.change(set(model.present) - set(some))
                await store.change(tenant, "c", replace=False, remove=some)
            case "read" if user in model.present:
                position = model.read(user, idents)
                reading = await store.read(tenant, "c", user, idents)
                assert (reading.position, reading.unread) == (position, model.unread(user))
            case what if user in model.present:
                ident = idents[0] if what == "again" else f"m{model.last + 1}"
                seq = model.save(user, ident)
                saved = await store.save(tenant, "c", user, ident, ident.encode(), strict=True)
                assert saved.seq == seq, step
            case _:
                with pytest.raises(NotAParticipant):
                    await store.save(tenant, "c", user, "x", b"x", strict=True)
        await agree(store, tenant, model)


async def expect(call: object, allowed: bool) -> None:
    """Awaits a change that must, or must not, be refused."""
    assert hasattr(call, "__await__")
    if allowed:
        await call
    else:
        with pytest.raises(TooManyParticipants):
            await call
