"""The tenant store: versions, propagation between nodes, and seeding that respects runtime changes."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator
from typing import Any

import pytest
from msgspec.structs import replace

from dualcast.model.errors import BadRequest, BusUnavailable
from dualcast.state.follow import StateFollower
from dualcast.state.memory import MemoryState
from dualcast.state.port import Changes, Value, VersionConflict
from dualcast.tenancy.model import Secret, SigningKey, Tenant, TenantSettings
from dualcast.tenancy.store import SPACE, SharedTenants
from dualcast_migration.policy import StageRecord
from dualcast_migration.stage import IllegalMove, Stage

pytestmark = pytest.mark.anyio


def key(letter: str, **more: str) -> SigningKey:
    return SigningKey(algorithm="HS256", secret=Secret(letter * 32), **more)  # type: ignore[arg-type]


ACME = Tenant(id="acme", keys=(key("a"),))


class Node:
    def __init__(self, store: MemoryState) -> None:
        self.follower = StateFollower(store)
        self.tenants = SharedTenants(store, self.follower)


@pytest.fixture
def store() -> MemoryState:
    return MemoryState()


@pytest.fixture
async def nodes(store: MemoryState) -> AsyncIterator[tuple[Node, Node]]:
    pair = Node(store), Node(store)
    for node in pair:
        await node.follower.refresh()
    yield pair


async def test_a_change_is_known_here_at_once_and_elsewhere_after_a_poll(nodes: tuple[Node, Node]) -> None:
    here, there = nodes
    version = await here.tenants.put(ACME)
    assert here.tenants.current("acme") == ACME
    assert here.tenants.version("acme") == version > 0
    assert there.tenants.current("acme") is None
    assert there.tenants.version("acme") == 0
    await there.follower.refresh()
    assert there.tenants.current("acme") == ACME
    assert there.tenants.version("acme") == version
    record = await there.tenants.get("acme")
    assert record is not None and (record.tenant, record.version) == (ACME, version)


async def test_a_new_node_loads_every_tenant(store: MemoryState, nodes: tuple[Node, Node]) -> None:
    for n in range(230):
        await nodes[0].tenants.put(Tenant(id=f"t{n:03}"))
    node = Node(store)
    await node.follower.refresh()
    assert all(node.tenants.current(f"t{n:03}") for n in range(230))
    listed = await node.tenants.list(after="t227")
    assert [record.tenant.id for record in listed] == ["t228", "t229"]
    assert len(await node.tenants.list(limit=7)) == 7


async def test_what_is_written_while_everything_is_read_anew_stays_known(
    store: MemoryState, nodes: tuple[Node, Node], monkeypatch: pytest.MonkeyPatch
) -> None:
    here = nodes[0]
    old = await here.tenants.put(ACME)
    listed = store.list
    written: list[int] = []

    async def slow_list(space: str, **asked: Any) -> Any:
        found = await listed(space, **asked)
        if space == SPACE and not written:
            written.append(await here.tenants.put(replace(ACME, settings=TenantSettings(max_connections=9))))
            written.append(await here.tenants.put(Tenant(id="zebra")))
        return found

    monkeypatch.setattr(store, "list", slow_list)
    await here.tenants._reload_all()
    assert (here.tenants.version("acme"), here.tenants.version("zebra")) == tuple(written)
    assert written[0] > old


async def test_a_change_behind_more_changes_than_the_log_names_is_known_with_one_poll() -> None:
    store = MemoryState(log_size=1_000)
    here, there = Node(store), Node(store)
    for node in (here, there):
        await node.follower.refresh()
    version = await here.tenants.put(ACME)
    for number in range(1_001):
        await store.put("grants", f"acme/topic:{number}", b"{}")
    assert not (await store.changes(version - 1)).complete
    await there.follower.refresh()
    assert there.tenants.version("acme") == version


async def test_a_deleted_tenant_is_gone_everywhere(store: MemoryState, nodes: tuple[Node, Node]) -> None:
    await nodes[0].tenants.put(ACME)
    await store.delete(SPACE, "acme")
    for node in nodes:
        await node.follower.refresh()
        assert node.tenants.current("acme") is None


async def test_versions_guard_a_put(nodes: tuple[Node, Node]) -> None:
    tenants = nodes[0].tenants
    version = await tenants.put(ACME, expected=0)
    with pytest.raises(VersionConflict):
        await tenants.put(ACME, expected=0)
    with pytest.raises(VersionConflict):
        await tenants.put(ACME, expected=version + 1)
    assert await tenants.put(ACME, expected=version) > version


async def test_a_put_checks_the_tenant_and_its_move(nodes: tuple[Node, Node]) -> None:
    tenants = nodes[0].tenants
    with pytest.raises(BadRequest):
        await tenants.put(Tenant(id="Acme"))
    await tenants.put(replace(ACME, stage=StageRecord(stage=Stage.SSE)))
    with pytest.raises(IllegalMove):
        await tenants.put(replace(ACME, stage=StageRecord(stage=Stage.FALLBACK)))
    await tenants.put(replace(ACME, stage=StageRecord(stage=Stage.SHADOW)))
    current = tenants.current("acme")
    assert current is not None and current.stage.stage is Stage.SHADOW


async def test_issuers_are_found_and_follow_changes(nodes: tuple[Node, Node]) -> None:
    here, there = nodes
    await here.tenants.put(Tenant(id="a", keys=(key("a", issuer="i1"), key("b", issuer="i2"))))
    await here.tenants.put(Tenant(id="b", keys=(key("a", issuer="i2"), key("c"))))
    await there.follower.refresh()
    for node in nodes:
        assert node.tenants.issued_by("i1") == ("a",)
        assert node.tenants.issued_by("i2") == ("a", "b")
        assert node.tenants.issued_by("") == node.tenants.issued_by("other") == ()
    await here.tenants.put(Tenant(id="b"))
    assert here.tenants.issued_by("i2") == ("a",)


async def test_what_cannot_be_read_is_closed_not_open(
    store: MemoryState, nodes: tuple[Node, Node], caplog: pytest.LogCaptureFixture
) -> None:
    here, _ = nodes
    await here.tenants.put(ACME)
    await here.tenants.put(Tenant(id="globex"))
    await store.put(SPACE, "acme", b'{"tenant":{"id":"acme","of_a_later_version":"' + b"s" * 40 + b'"}}')
    with caplog.at_level(logging.ERROR):
        await here.follower.refresh()
    assert here.tenants.current("acme") is None
    assert here.tenants.current("globex") is not None
    assert "acme" in caplog.text and "sss" not in caplog.text


async def test_an_outage_leaves_what_is_known(
    nodes: tuple[Node, Node], monkeypatch: pytest.MonkeyPatch
) -> None:
    here, _ = nodes
    await here.tenants.put(ACME)

    async def away(*_: object, **__: object) -> Value | None:
        raise BusUnavailable("away")

    monkeypatch.setattr(MemoryState, "list", away)
    monkeypatch.setattr(MemoryState, "changes", away)
    with pytest.raises(BusUnavailable):
        await here.follower.refresh()
    assert here.tenants.current("acme") == ACME


async def test_seeding_creates_once(nodes: tuple[Node, Node]) -> None:
    here, there = nodes
    assert await here.tenants.seed((ACME, Tenant(id="globex"))) == {"acme": "created", "globex": "created"}
    version = here.tenants.version("acme")
    assert await there.tenants.seed((ACME,)) == {"acme": "unchanged"}
    await here.follower.refresh()
    assert here.tenants.version("acme") == version


async def test_seeding_takes_over_edited_settings(nodes: tuple[Node, Node]) -> None:
    tenants = nodes[0].tenants
    await tenants.seed((ACME,))
    edited = replace(ACME, keys=(key("b"),))
    assert await tenants.seed((edited,)) == {"acme": "updated"}
    assert tenants.current("acme") == edited


async def test_seeding_never_overwrites_a_runtime_change(
    nodes: tuple[Node, Node], caplog: pytest.LogCaptureFixture
) -> None:
    tenants = nodes[0].tenants
    await tenants.seed((ACME,))
    moved = replace(ACME, stage=StageRecord(stage=Stage.SHADOW))
    await tenants.put(moved)
    assert await tenants.seed((ACME,)) == {"acme": "unchanged"}
    assert tenants.current("acme") == moved
    # Rotating the key in the settings does not undo the stage that was set at runtime.
    assert await tenants.seed((replace(ACME, keys=(key("b"),)),)) == {"acme": "updated"}
    assert tenants.current("acme") == replace(moved, keys=(key("b"),))
    # The same part changed on both sides: runtime wins, every time, and the operator is told.
    with caplog.at_level(logging.WARNING):
        for _ in range(2):
            edited = replace(ACME, keys=(key("b"),), stage=StageRecord(stage=Stage.SSE))
            assert await tenants.seed((edited,)) == {"acme": "kept stage"}
    assert tenants.current("acme") == replace(moved, keys=(key("b"),))
    assert "stage changed at runtime" in caplog.text


async def test_a_runtime_change_back_to_the_settings_is_no_conflict(nodes: tuple[Node, Node]) -> None:
    tenants = nodes[0].tenants
    await tenants.seed((ACME,))
    changed = replace(ACME, settings=TenantSettings(max_connections=5))
    await tenants.put(changed)
    assert await tenants.seed((changed,)) == {"acme": "unchanged"}
    again = replace(ACME, settings=TenantSettings(max_connections=6))
    assert await tenants.seed((again,)) == {"acme": "updated"}


async def test_a_tenant_made_at_runtime_is_not_taken_over(nodes: tuple[Node, Node]) -> None:
    tenants = nodes[0].tenants
    await tenants.put(ACME)
    assert await tenants.seed((replace(ACME, keys=(key("z"),)),)) == {"acme": "kept keys"}
    assert tenants.current("acme") == ACME


async def test_seeding_checks_everything_before_it_writes(nodes: tuple[Node, Node]) -> None:
    tenants = nodes[0].tenants
    with pytest.raises(BadRequest):
        await tenants.seed((ACME, Tenant(id="Bad")))
    assert await tenants.list() == []


class Resettable(MemoryState):
    """A store that is away for one poll and has lost everything then, as a Redis without persistence."""

    def __init__(self) -> None:
        super().__init__()
        self.away = False

    async def changes(self, after: int) -> Changes:
        if self.away:
            self.away = False
            raise BusUnavailable("away")
        return await super().changes(after)


async def test_a_store_that_forgot_everything_gets_the_tenants_of_the_settings_again() -> None:
    """Regression: after Redis had lost its data, a tenant of the settings was gone until the next restart,
    and
    live sessions lost the channels its public patterns allow."""
    store = Resettable()
    node = Node(store)
    await node.tenants.seed((ACME,))
    await node.follower.refresh()
    store.away = True
    with pytest.raises(BusUnavailable):
        await node.follower.refresh()
    await store.delete(SPACE, "acme")
    await node.follower.refresh()
    assert node.tenants.current("acme") == ACME
    assert (await store.get(SPACE, "acme")) is not None
