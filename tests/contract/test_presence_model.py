"""Any sequence of connections coming, going and dying leaves the engines with what a recount gives."""

from __future__ import annotations

import asyncio
import secrets

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from dualcast.presence.port import Delta, Join, PresenceStore
from support.presence import HOLD_MS, batch, facts, store

GROUPS = ("presence:a", "presence:b", "presence:c")
NODES = ("n1", "n2")
USERS = ("alice", "bob c", "李")
KINDS = ("", "mobile", "web")

connections = st.tuples(st.sampled_from(NODES), st.integers(0, 4))
joins = st.tuples(
    st.just("join"),
    connections,
    st.sampled_from(USERS),
    st.sampled_from(KINDS),
    st.sets(st.sampled_from(GROUPS)),
)
leaves = st.tuples(st.just("leave"), connections)
deaths = st.tuples(st.just("die"), st.sampled_from(NODES), st.integers(1, 3))
repeats = st.tuples(st.just("repeat"))
steps = st.lists(st.one_of(joins, leaves, joins, deaths, repeats), max_size=25)


class Model:
    """Every connection there is; what clients made of the deltas."""

    def __init__(self) -> None:
        self.held: dict[str, tuple[str, str, frozenset[str]]] = {}
        self.heard: dict[str, set[str]] = {}
        self.revision = 0

    def members(self, group: str) -> set[str]:
        return {user for user, _, groups in self.held.values() if group in groups | {""}}

    def hear(self, deltas: tuple[Delta, ...]) -> None:
        for delta in deltas:
            assert delta.revision >= self.revision
            self.revision = delta.revision
            group = self.heard.setdefault(delta.group, set())
            assert not group & set(delta.joined) and group >= set(delta.left)
            group |= set(delta.joined)
            group -= set(delta.left)
            assert delta.count == len(group)

    async def check(self, presence: PresenceStore, tenant: str) -> None:
        for group in ("", *GROUPS):
            page = await presence.members(tenant, group, "", 100)
            assert {member.user for member in page.members} == self.members(group)
            assert page.count == len(page.members) == len(self.heard.get(group, ()))
            assert page.revision == self.revision
        for user in USERS:
            own = {ident: kind for ident, (who, kind, _) in self.held.items() if who == user}
            found = await presence.online(tenant, user)
            assert (found.connections, set(found.devices)) == (len(own), set(own.values()) - {""})
            assert [one.id for one in await presence.connections(tenant, user, "", 99)] == sorted(own)
        ids = [one.id for one in await presence.connections(tenant, None, "", 99)]
        assert ids == sorted(self.held)


async def scenario(engine: str, script: list[tuple[object, ...]]) -> None:
    tenant, model = "t-" + secrets.token_hex(5), Model()
    async with store(engine) as presence:
        again = None
        for step in script:
            match step:
                case ("join", (str(node), number), str(user), str(kind), groups):
                    assert isinstance(groups, set)
                    ident = f"{node}-{number}"
                    model.held[ident] = (user, kind, frozenset(groups))
                    again = (node, batch(Join(facts(ident, user, device=kind), tuple(groups))))
                    done = await presence.change(tenant, *again, hold_ms=HOLD_MS, claim=True)
                    model.hear(done.deltas)
                case ("leave", (str(node), number)):
                    model.held.pop(f"{node}-{number}", None)
                    again = (node, batch(leaves=(f"{node}-{number}",)))
                    done = await presence.change(tenant, *again, hold_ms=HOLD_MS, claim=True)
                    model.hear(done.deltas)
                case ("repeat",) if again is not None:
                    await presence.change(tenant, *again, hold_ms=HOLD_MS, claim=True)
                case ("die", str(node), int(limit)) if engine == "redis":
                    again = None
                    for ident in [ident for ident in model.held if ident.startswith(node)]:
                        del model.held[ident]
                    await presence.renew(tenant, node, hold_ms=-1)
                    more = True
                    while more:
                        token = secrets.token_hex(4)
                        reaped = await presence.reap(tenant, "reaper", token, node, limit)
                        more = reaped.more
                        # The last answers of the dead node come again under their old revisions.
                        model.hear(tuple(one for one in reaped.deltas if one.revision > model.revision))
            await model.check(presence, tenant)


@pytest.mark.parametrize("engine", ["memory", "redis"])
@given(script=steps)
@settings(max_examples=25, deadline=None, suppress_health_check=list(HealthCheck))
def test_counts_are_what_a_recount_gives(engine: str, script: list[tuple[object, ...]]) -> None:
    asyncio.run(scenario(engine, script))
