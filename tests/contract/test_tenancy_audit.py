"""The audit over every state engine: whole, in order, bounded, and not lost when a node dies in between."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import msgspec
import pytest
from msgspec.structs import replace

from dualcast.model.errors import BusUnavailable
from dualcast.state.memory import MemoryState
from dualcast.state.port import StateStore
from dualcast.tenancy import audit
from dualcast.tenancy.audit import BadReason
from dualcast.tenancy.model import Secret, SigningKey, Tenant, TenantSettings
from dualcast.tenancy.stages import (
    NothingToRollBack,
    UnknownTenant,
)
from dualcast.tenancy.store import SPACE
from dualcast_migration.cohort import Cohort
from dualcast_migration.policy import StageRecord
from dualcast_migration.stage import Stage
from support.stage_control import WHO, Here

pytestmark = pytest.mark.anyio
SSE, SHADOW, FALLBACK, WEBSOCKET = Stage


async def test_the_audit_says_who_when_from_to_why_and_version(store: StateStore) -> None:
    here = await Here.open(store)
    first = await here.at(SSE)
    here.clock.forward(10)
    made = await here.control.change("acme", StageRecord(stage=SHADOW), who="a/b", why="  because  ")
    entry, created = (await here.control.history("acme")).entries
    assert entry == audit.AuditEntry(
        number=2,
        version=made.version,
        at_ms=round(here.clock.now * 1000),
        who="a/b",
        action="set",
        why="because",
        before=StageRecord(stage=SSE),
        after=StageRecord(stage=SHADOW),
    )
    assert made.last == entry == (await here.control.read("acme")).last
    assert (created.number, created.version, created.action, created.before) == (1, first, "create", None)
    shown = msgspec.json.decode(msgspec.json.encode(entry))
    assert {"from", "to", "who", "why", "version", "at_ms"} <= set(shown)


async def test_changes_without_a_version_all_happen_one_after_the_other(store: StateStore) -> None:
    here = await Here.open(store)
    await here.at(SHADOW)

    async def attempt(number: int) -> None:
        await here.control.change("acme", StageRecord(stage=SHADOW, cohort=Cohort(number)), who="x", why="y")

    await asyncio.gather(*(attempt(number) for number in range(1, 5)))
    entries = (await here.control.history("acme")).entries
    assert [entry.number for entry in entries] == [5, 4, 3, 2, 1]
    for later, earlier in itertools.pairwise(entries):
        assert later.before == earlier.after


async def test_tenants_have_their_own_history(store: StateStore) -> None:
    here = await Here.open(store)
    for name in ("acme", "acme-2", "acm"):
        await here.tenants.put(Tenant(id=name, stage=StageRecord(stage=SSE)))
    await here.control.change("acme-2", StageRecord(stage=SHADOW), **WHO)
    lengths = {name: len((await here.control.history(name)).entries) for name in ("acme", "acme-2", "acm")}
    assert lengths == {"acme": 1, "acme-2": 2, "acm": 1}
    for call in (
        here.control.read("nobody"),
        here.control.history("nobody"),
        here.control.rollback("nobody", **WHO),
        here.control.change("nobody", StageRecord(), **WHO),
        here.control.step_back("nobody", **WHO, now_s=1, hold_off_s=1),
    ):
        with pytest.raises(UnknownTenant):
            await call
    assert await here.tenants.get("nobody") is None


async def test_history_in_pages_and_bounded(store: StateStore, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(audit, "KEPT", 8)
    here = await Here.open(store)
    await here.at(SHADOW)
    for number in range(1, 12):
        await here.control.change("acme", StageRecord(stage=SHADOW, cohort=Cohort(number)), **WHO)
    kept = await store.list(audit.SPACE, prefix="acme/", limit=100)
    assert len(kept) == 8
    first = await here.control.history("acme", limit=3)
    assert [entry.number for entry in first.entries] == [12, 11, 10] and first.next == 10
    second = await here.control.history("acme", before=first.next, limit=3)
    assert [entry.number for entry in second.entries] == [9, 8, 7]
    third = await here.control.history("acme", before=second.next, limit=3)
    assert [entry.number for entry in third.entries] == [6, 5] and third.next == 0
    assert (await here.control.history("acme", before=5)).entries == []
    assert (await here.control.history("acme", before=1)).entries == []


class Crash(Exception):
    """The node dies here."""


@contextmanager
def crash_before_the_entry(store: StateStore, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The tenant is written, its entry in the audit is not; whoever changes it is not heard of again."""
    put = type(store).put

    async def dies(self: Any, space: str, *args: Any, **more: Any) -> int:
        if space == audit.SPACE:
            raise Crash
        return await put(self, space, *args, **more)

    with monkeypatch.context() as patch, pytest.raises(Crash):
        patch.setattr(type(store), "put", dies)
        yield


@pytest.mark.parametrize("repair", ["read", "history", "change", "settings"])
async def test_an_entry_survives_a_crash_between_the_two_writes(
    store: StateStore, repair: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    dying, other = await Here.open(store), await Here.open(store)
    await dying.at(SSE)
    with crash_before_the_entry(store, monkeypatch):
        await dying.control.change("acme", StageRecord(stage=SHADOW), who="lost/one", why="half")
    assert len(await store.list(audit.SPACE, prefix="acme/")) == 1
    if repair == "read":
        await other.control.read("acme")
    elif repair == "history":
        assert len((await other.control.history("acme")).entries) == 2
    elif repair == "change":
        await other.control.change("acme", StageRecord(stage=FALLBACK), **WHO)
    else:  # a change of other parts keeps the note, with the version the stage was changed at
        tenant = Tenant(id="acme", settings=TenantSettings(publish_burst=3), stage=StageRecord(stage=SHADOW))
        await other.tenants.put(tenant)
        await other.control.read("acme")
    entries = {entry.number: entry for entry in (await other.control.history("acme")).entries}
    kept = 3 if repair in ("change", "settings") else 2
    assert len(await store.list(audit.SPACE, prefix="acme/")) == len(entries) == kept
    lost = entries[2]
    assert (lost.who, lost.why, lost.before, lost.after) == (
        "lost/one",
        "half",
        StageRecord(stage=SSE),
        StageRecord(stage=SHADOW),
    )
    assert entries[1].version < lost.version < (entries[3].version if 3 in entries else 2**60)


async def test_an_audit_that_cannot_be_written_does_not_undo_the_change(
    store: StateStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    here = await Here.open(store)
    await here.at(SSE)
    put = type(store).put

    async def away(self: Any, space: str, *args: Any, **more: Any) -> int:
        if space == audit.SPACE:
            raise BusUnavailable("away")
        return await put(self, space, *args, **more)

    with monkeypatch.context() as patch:
        patch.setattr(type(store), "put", away)
        made = await here.control.change("acme", StageRecord(stage=SHADOW), **WHO)
        assert made.record.stage is SHADOW
        # The next change would overwrite the note: it is refused until the entry can be filed.
        with pytest.raises(BusUnavailable):
            await here.control.change("acme", StageRecord(stage=FALLBACK), **WHO)
        assert here.tenants.current("acme") == Tenant(id="acme", stage=StageRecord(stage=SHADOW))
    assert [entry.number for entry in (await here.control.history("acme")).entries] == [2, 1]


async def test_a_tenant_made_once_more_goes_on_counting(store: StateStore) -> None:
    here = await Here.open(store)
    await here.at(SSE)
    await here.control.change("acme", StageRecord(stage=SHADOW), **WHO)
    await store.delete(SPACE, "acme")
    await here.at(FALLBACK)
    entries = (await here.control.history("acme")).entries
    assert [(entry.number, entry.action) for entry in entries] == [(3, "create"), (2, "set"), (1, "create")]


async def test_settings_that_change_the_stage_are_audited(store: StateStore) -> None:
    here = await Here.open(store)
    seed = Tenant(id="acme", stage=StageRecord(stage=SHADOW))
    await here.tenants.seed((seed,))
    await here.tenants.seed((replace(seed, settings=TenantSettings(publish_burst=2)),))
    await here.tenants.seed((replace(seed, stage=StageRecord(stage=FALLBACK)),))
    entries = (await here.control.history("acme")).entries
    assert [(entry.who, entry.action, entry.after.stage) for entry in entries] == [
        ("settings", "set", FALLBACK),
        ("settings", "settings", SHADOW),
        ("settings", "create", SHADOW),
    ]


async def test_a_tenant_of_before_there_was_an_audit(store: StateStore) -> None:
    await store.put(SPACE, "acme", b'{"tenant":{"id":"acme","stage":{"stage":"shadow"}}}')
    here = await Here.open(store)
    assert (await here.control.read("acme")).last is None
    assert (await here.control.history("acme")).entries == []
    with pytest.raises(NothingToRollBack):
        await here.control.rollback("acme", **WHO)
    await here.control.change("acme", StageRecord(stage=FALLBACK), **WHO)
    (entry,) = (await here.control.history("acme")).entries
    assert (entry.number, entry.before, entry.action) == (1, StageRecord(stage=SHADOW), "set")
    assert (await here.control.rollback("acme", **WHO)).record == StageRecord(stage=SHADOW)


def key(kid: str, letter: str = "s") -> SigningKey:
    return SigningKey(algorithm="HS256", kid=kid, secret=Secret(letter * 40))


async def test_changes_of_settings_quotas_and_keys_are_audited_without_secrets(store: StateStore) -> None:
    here, note = await Here.open(store), audit.Note("default/root", "more of it", 5_000)
    made = Tenant(id="acme", stage=StageRecord(stage=SSE), keys=(key("old"),))
    await here.tenants.put(made)
    shadow = (await here.control.change("acme", StageRecord(stage=SHADOW), **WHO)).record
    made = replace(made, stage=shadow)
    more = replace(made, settings=TenantSettings(publish_rate_per_s=9.0, origins=("https://a.example",)))
    await here.tenants.put(more, note=note)
    rotated = replace(more, keys=(key("old", "t"), key("new")))
    version = await here.tenants.put(rotated, note=note)
    await here.tenants.put(replace(rotated, keys=(key("new"),), settings=TenantSettings()), note=note)
    entries = {entry.number: entry for entry in (await here.control.history("acme")).entries}

    def fields(number: int) -> list[tuple[str, Any, Any]]:
        return [(one.field, one.before, one.after) for one in entries[number].changes]

    def shown(kid: str) -> dict[str, Any]:
        bare = dict.fromkeys(("issuer", "audience", "jwks_url", "fingerprint"), "")
        return {"algorithm": "HS256", "kid": kid, "source": "secret", **bare}

    assert [(n, entries[n].action) for n in sorted(entries)] == [
        (1, "create"),
        (2, "set"),
        (3, "settings"),
        (4, "keys"),
        (5, "settings"),
    ]
    assert fields(1) == [("keys", None, shown("old"))] and fields(2) == []
    assert fields(3) == [("origins", [], ["https://a.example"]), ("publish_rate_per_s", None, 9.0)]
    assert fields(4) == [("keys", shown("old"), shown("old")), ("keys", None, shown("new"))]
    assert fields(5) == [
        ("origins", ["https://a.example"], []),
        ("publish_rate_per_s", 9.0, None),
        ("keys", shown("old"), None),
    ]
    entry = entries[4]
    assert (entry.who, entry.why, entry.at_ms, entry.version) == (
        "default/root",
        "more of it",
        5_000,
        version,
    )
    assert entry.before == entry.after == shadow
    kept = b"".join(value.data for value in await store.list(audit.SPACE, prefix="acme/"))
    assert b"s" * 40 not in kept and b"t" * 40 not in kept


async def test_a_rollback_leads_back_past_changed_settings(store: StateStore) -> None:
    here = await Here.open(store)
    await here.at(SSE)
    await here.control.change("acme", StageRecord(stage=SHADOW), **WHO)
    tenant = here.tenants.current("acme")
    assert tenant is not None
    await here.tenants.put(replace(tenant, settings=TenantSettings(publish_burst=3)))
    view = await here.control.read("acme")
    assert view.last is not None and (view.last.number, view.last.action) == (2, "set")
    back = await here.control.rollback("acme", **WHO)
    assert back.record == StageRecord(stage=SSE)
    assert here.tenants.current("acme") == replace(
        tenant, settings=TenantSettings(publish_burst=3), stage=back.record
    )
    numbers = [(one.number, one.action) for one in (await here.control.history("acme")).entries]
    assert numbers == [(4, "rollback"), (3, "settings"), (2, "set"), (1, "create")]


async def test_a_change_of_keys_survives_a_crash_before_it_is_filed(
    store: StateStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    dying, other = await Here.open(store), await Here.open(store)
    await dying.at(SSE)
    with crash_before_the_entry(store, monkeypatch):
        await dying.tenants.put(Tenant(id="acme", keys=(key("k"),), stage=StageRecord(stage=SSE)))
    await other.control.change("acme", StageRecord(stage=SHADOW), **WHO)
    actions = [(one.number, one.action) for one in (await other.control.history("acme")).entries]
    assert actions == [(3, "set"), (2, "keys"), (1, "create")]


async def test_a_change_of_everything_a_tenant_can_hold_is_audited(store: StateStore) -> None:
    """A stored tenant that is as full as it may be still takes the note of its last changes."""
    here = await Here.open(store)
    users = tuple(f"{n:036}" for n in range(500))
    keys = tuple(replace(key(f"{n:02}" + "k" * 900)) for n in range(15))
    full = StageRecord(stage=SHADOW, cohort=Cohort(allow=users))
    await here.tenants.put(Tenant(id="acme", keys=keys, stage=full))
    long = audit.Note("x" * 300, "界" * 500, 1)
    other = tuple(replace(one, kid="o" + one.kid) for one in keys)
    await here.tenants.put(Tenant(id="acme", keys=other, stage=full), note=long)
    await here.control.change("acme", replace(full, stage=FALLBACK), who=long.who, why=long.why)
    await here.tenants.put(Tenant(id="acme", keys=keys, stage=replace(full, stage=FALLBACK)), note=long)
    entries = (await here.control.history("acme")).entries
    assert [entry.action for entry in entries] == ["keys", "set", "keys", "create"]
    assert [len(entry.changes) for entry in entries] == [30, 0, 30, 15]
    assert entries[0].changes[0].before.startswith("HS256 o00k")


async def test_changes_that_change_nothing_leave_no_entry(store: StateStore) -> None:
    here = await Here.open(store)
    await here.at(SHADOW)
    await here.control.change("acme", StageRecord(stage=SHADOW), **WHO)
    await here.tenants.put(Tenant(id="acme", stage=StageRecord(stage=SHADOW)))
    assert len((await here.control.history("acme")).entries) == 1
    with pytest.raises(NothingToRollBack):
        await here.control.rollback("acme", **WHO)


@pytest.mark.parametrize("why", ["", "   ", "x" * 501, "two\nlines", "\x1b[31mred"])
async def test_a_change_needs_a_reason_that_can_be_shown(why: str) -> None:
    here = await Here.open(MemoryState())
    await here.at(SSE)
    for call in (
        here.control.change("acme", StageRecord(stage=SHADOW), who="x", why=why),
        here.control.rollback("acme", who="x", why=why),
        here.control.step_back("acme", who="x", why=why, now_s=1, hold_off_s=1),
    ):
        with pytest.raises(BadReason):
            await call
