"""Tenants in the state store, and in memory on every node.

The hot path asks `current`, which never waits. The follower brings changes of other nodes within one poll
interval.
"""

from __future__ import annotations

import asyncio
import logging
import random
import time
from collections.abc import Callable, Iterator
from hashlib import sha256
from typing import Any, Protocol, TypeVar

import msgspec
from msgspec import Struct

from dualcast.model.channel import check_tenant
from dualcast.model.errors import BusUnavailable
from dualcast.state.follow import StateFollower
from dualcast.state.port import StateStore, Value, VersionConflict
from dualcast_migration.policy import StageRecord
from dualcast_migration.stage import check_move

from .audit import SERVER, SETTINGS, Audit, LastChange, LastEdit, Note, edit_note, entry_of
from .changes import changes_between
from .model import Tenant, decode_hook, storage_hook
from .validate import check_tenant_value

_log = logging.getLogger(__name__)
SPACE = "tenants"
PAGE = 100
MAX_ATTEMPTS = 16
MAX_PAUSE_S = 0.5


class TenantRecord(Struct, frozen=True):
    """A stored tenant and its version."""

    tenant: Tenant
    version: int


class Stored(Struct, frozen=True, omit_defaults=True):
    """The stored form. `seeds`: part (`keys`, `settings`, `stage`) → digest of what the settings said of it
    last. `change`: the last change of its stage, `edit` the last of the rest; filed in the audit when the
    value has been written."""

    tenant: Tenant
    seeds: dict[str, str] = {}
    change: LastChange | None = None
    edit: LastEdit | None = None

    @property
    def newest(self) -> LastChange | LastEdit | None:
        """Of the two the later one: only its entry may not be filed yet."""
        found = [note for note in (self.change, self.edit) if note is not None]
        return max(found, key=lambda note: note.number, default=None)


LastNote = TypeVar("LastNote", LastChange | None, LastEdit | None)
Edit = Callable[[Stored | None], Tenant]
"""What is stored now → the tenant as it shall be. Raises to refuse; called again when somebody was faster."""


class TenantStore(Protocol):
    """What the rooms above need of tenants. Waiting methods raise BusUnavailable when the state store is
    away."""

    def current(self, tenant_id: str) -> Tenant | None:
        """The tenant as this node knows it now; never waits. None: no such tenant."""
        ...

    def version(self, tenant_id: str) -> int:
        """A number that is another one whenever the tenant has changed; 0: no such tenant. Never waits."""
        ...

    def issued_by(self, issuer: str) -> tuple[str, ...]:
        """Ids of the tenants with a key bound to `issuer`. Never waits."""
        ...

    async def get(self, tenant_id: str) -> TenantRecord | None:
        """The tenant as it is stored now."""
        ...

    async def put(self, tenant: Tenant, *, expected: int | None = None, note: Note | None = None) -> int:
        """Stores `tenant` and returns its version; this node knows it at once, the others within the poll
        interval. A change is audited, with `note` when there is one.

        `expected`: the version it must have now, 0 for a new one. Raises BadTenant, VersionConflict,
        IllegalMove (its stage cannot be reached from the stored one).
        """
        ...

    async def change(
        self, tenant_id: str, edit: Edit, *, expected: int | None = None, note: Note | None = None
    ) -> tuple[Stored, int]:
        """Stores what `edit` makes of the stored tenant, as `put` does but without looking at the move;
        returns what is stored then, and its version."""
        ...

    async def list(self, *, after: str = "", limit: int = PAGE) -> list[TenantRecord]:
        """Stored tenants with id > `after`, by id."""
        ...


_decoder = msgspec.json.Decoder(Stored, dec_hook=decode_hook)
_encoder = msgspec.json.Encoder(enc_hook=storage_hook, order="deterministic")


def encode_stored(stored: Stored) -> bytes:
    """The stored bytes. They hold secrets: for the state store only."""
    return _encoder.encode(stored)


def _digest_part(part: Any) -> str:
    """What tells whether the settings changed. A plain hash of secrets: it is kept beside them and shown
    nowhere."""
    return sha256(_encoder.encode(part)).hexdigest()


async def _let_others(attempt: int) -> None:
    """A pause that grows with the attempts: of many who change one tenant at once everybody comes to it."""
    await asyncio.sleep(random.uniform(0, min(MAX_PAUSE_S, 0.002 * 2**attempt)))  # noqa: S311 — jitter


def _of_version(note: LastNote, version: int) -> LastNote:
    """A note that is carried on by a later value: it says itself of which version it is."""
    return note if note is None or note.version else msgspec.structs.replace(note, version=version)


def _now_ms() -> int:
    return round(time.time() * 1000)


def _by_settings() -> Note:
    return Note(SETTINGS, "the settings say so", _now_ms())


def _record(value: Value) -> TenantRecord:
    return TenantRecord(_decoder.decode(value.data).tenant, value.version)


class SharedTenants:
    """A TenantStore over the state store. Subscribes to `follower` when made: its first refresh loads
    everything."""

    def __init__(self, store: StateStore, follower: StateFollower) -> None:
        self._store = store
        self.audit = Audit(store)
        self._known: dict[str, TenantRecord] = {}
        self._issuers: dict[str, tuple[str, ...]] | None = None
        self._origins: tuple[str, ...] | None = None
        self._seeds: tuple[Tenant, ...] = ()
        follower.on(SPACE, self._reload, self._reload_all)

    def current(self, tenant_id: str) -> Tenant | None:
        record = self._known.get(tenant_id)
        return None if record is None else record.tenant

    def version(self, tenant_id: str) -> int:
        record = self._known.get(tenant_id)
        return 0 if record is None else record.version

    def issued_by(self, issuer: str) -> tuple[str, ...]:
        if self._issuers is None:
            found: dict[str, set[str]] = {}
            for tenant_id, record in self._known.items():
                for key in record.tenant.keys:
                    if key.issuer:
                        found.setdefault(key.issuer, set()).add(tenant_id)
            self._issuers = {name: tuple(sorted(ids)) for name, ids in found.items()}
        return self._issuers.get(issuer, ())

    def stage_record(self, tenant_id: str) -> StageRecord | None:
        """The tenant's stage record as this node knows it now; never waits. None: no such tenant."""
        tenant = self.current(tenant_id)
        return None if tenant is None else tenant.stage

    def history(self, tenant_id: str) -> tuple[int | None, int | None]:
        """(entries, seconds) the tenant keeps of each channel; None: what the server keeps. Never waits; on
        any thread."""
        record = self._known.get(tenant_id)
        if record is None:
            return None, None
        settings = record.tenant.settings
        return settings.history_entries, settings.history_s

    def origins(self) -> tuple[str, ...]:
        """The `origins` of all tenants together. Never waits."""
        if self._origins is None:
            known = self._known.values()
            self._origins = tuple(sorted({entry for held in known for entry in held.tenant.settings.origins}))
        return self._origins

    async def get(self, tenant_id: str) -> TenantRecord | None:
        value = await self._store.get(SPACE, check_tenant(tenant_id))
        return None if value is None else _record(value)

    def stages(self) -> Iterator[tuple[str, str, float]]:
        """(tenant, stage, percent of its users in it) as this node knows them. Never waits."""
        for tenant_id, record in list(self._known.items()):
            stage = record.tenant.stage
            yield tenant_id, str(stage.stage), stage.cohort.percent

    async def stored(self, tenant_id: str) -> tuple[Stored, int] | None:
        """What is stored now, and its version. An unfiled audit entry is filed first."""
        value = await self._store.get(SPACE, check_tenant(tenant_id))
        if value is None:
            return None
        stored = _decoder.decode(value.data)
        await self._file(stored, value.version)
        return stored, value.version

    async def put(self, tenant: Tenant, *, expected: int | None = None, note: Note | None = None) -> int:
        def edit(old: Stored | None) -> Tenant:
            if old is not None:
                check_move(old.tenant.stage.stage, tenant.stage.stage)
            return tenant

        check_tenant_value(tenant)
        return (await self.change(tenant.id, edit, expected=expected, note=note))[1]

    async def change(
        self, tenant_id: str, edit: Edit, *, expected: int | None = None, note: Note | None = None
    ) -> tuple[Stored, int]:
        for attempt in range(MAX_ATTEMPTS):
            value = await self._store.get(SPACE, check_tenant(tenant_id))
            if expected is not None and (value.version if value else 0) != expected:
                break
            old = None if value is None else _decoder.decode(value.data)
            tenant = check_tenant_value(edit(old))
            try:
                return await self._write(tenant, old.seeds if old else {}, value, old, note)
            except VersionConflict:
                await _let_others(attempt)
        raise VersionConflict("the tenant was changed by somebody else; read it again")

    async def list(self, *, after: str = "", limit: int = PAGE) -> list[TenantRecord]:
        return [_record(value) for value in await self._store.list(SPACE, after=after, limit=limit)]

    async def seed(self, tenants: tuple[Tenant, ...]) -> dict[str, str]:
        """Brings what the settings say of tenants into the store, part by part (keys, settings, stage).

        A part that was changed at runtime since the settings last said something new of it stays as it is; an
        edited setting of an untouched part is taken over. Returns tenant id → `created`, `updated`,
        `unchanged` or `kept <parts>` (both sides changed: runtime wins, and the operator is warned).
        """
        for tenant in tenants:
            check_tenant_value(tenant)
        self._seeds = tenants
        return {tenant.id: await self._seed(tenant) for tenant in tenants}

    async def _seed(self, seed: Tenant) -> str:
        digests = {part: _digest_part(getattr(seed, part)) for part in ("keys", "settings", "stage")}
        for _ in range(MAX_ATTEMPTS):
            value = await self._store.get(SPACE, seed.id)
            try:
                if value is None:
                    await self._write(seed, digests, None, None, _by_settings())
                    return "created"
                old = _decoder.decode(value.data)
                taken, kept = {}, []
                for part, digest in digests.items():
                    before, now = old.seeds.get(part), _digest_part(getattr(old.tenant, part))
                    if digest in (before, now):
                        continue
                    if now == before:
                        taken[part] = getattr(seed, part)
                    else:
                        kept.append(part)
                seeds = old.seeds | {part: digests[part] for part in digests if part not in kept}
                if taken or seeds != old.seeds:
                    tenant = msgspec.structs.replace(old.tenant, **taken)
                    await self._write(tenant, seeds, value, old, _by_settings())
            except VersionConflict:
                continue  # another node seeds too
            if kept:
                parts = ", ".join(kept)
                _log.warning(
                    "tenant %s: %s changed at runtime; what the settings say is not used", seed.id, parts
                )
                return f"kept {parts}"
            return "updated" if taken else "unchanged"
        raise VersionConflict(f"tenant {seed.id} is being changed all the time")

    async def _write(
        self,
        tenant: Tenant,
        seeds: dict[str, str],
        value: Value | None,
        old: Stored | None,
        note: Note | None,
    ) -> tuple[Stored, int]:
        """Stores `tenant` over `value` (None: there is none yet), which decodes to `old`. Raises
        VersionConflict."""
        version = value.version if value else 0
        changes = changes_between(old.tenant if old else None, tenant)
        changed = bool(changes) or old is None or old.tenant.stage != tenant.stage
        change = _of_version(old.change, version) if old else None
        edit = _of_version(old.edit, version) if old else None
        if changed:
            note = note or Note(SERVER, "not said", _now_ms())
            if old is None:
                number = 1 + await self.audit.last_number(tenant.id)
                note = msgspec.structs.replace(note, action="create")
                change = LastChange(number, note, None, changes=changes)
            else:
                await self._file(old, version)  # the note of the change before may be overwritten
                number = 1 + (old.newest.number if old.newest else 0)
                if old.tenant.stage != tenant.stage:
                    change = LastChange(number, note, old.tenant.stage, changes=changes)
                else:
                    edit = LastEdit(number, edit_note(note, changes), changes)
        stored = Stored(tenant, seeds, change, edit)
        version = await self._store.put(SPACE, tenant.id, encode_stored(stored), expected=version)
        self._learn(tenant.id, TenantRecord(tenant, version))
        if changed:
            try:
                await self._file(stored, version)
            except BusUnavailable:
                # The change is made and its note is stored with it: whoever comes next files the entry.
                _log.warning("tenant %s: the audit entry of its change is filed later", tenant.id)
        return stored, version

    async def _file(self, stored: Stored, version: int) -> None:
        if (last := stored.newest) is not None:
            await self.audit.file(stored.tenant.id, entry_of(last, stored.tenant.stage, version))

    async def _reload(self, tenant_id: str) -> None:
        value = await self._store.get(SPACE, tenant_id)
        self._learn(tenant_id, None if value is None else _readable(value))

    async def _reload_all(self) -> None:
        known: dict[str, TenantRecord] = {}
        before = dict(self._known)
        after = ""
        while values := await self._store.list(SPACE, after=after, limit=PAGE):
            known.update((value.key, record) for value in values if (record := _readable(value)))
            after = values[-1].key
        # What this node has written itself meanwhile, the list may not have yet.
        meanwhile = [record for key, record in self._known.items() if before.get(key) is not record]
        self._known = known
        for record in meanwhile:
            self._learn(record.tenant.id, record)
        self._issuers = self._origins = None
        for seed in self._seeds:
            # A store that came back empty: without its tenant nobody is let in, and channels are taken away.
            if seed.id not in known:
                _log.warning("tenant %s is gone from the state store: made anew from the settings", seed.id)
                await self._seed(seed)

    def _learn(self, tenant_id: str, record: TenantRecord | None) -> None:
        if record is None:
            self._known.pop(tenant_id, None)
        elif record.version >= self.version(tenant_id):  # a slow read never undoes our own later write
            self._known[tenant_id] = record
        self._issuers = self._origins = None


def _readable(value: Value) -> TenantRecord | None:
    """The record, or None (and a logged error) when this version of the server cannot read it: closed, not
    open."""
    try:
        return _record(value)
    except msgspec.MsgspecError as error:
        _log.error("tenant %s cannot be read from the state store: %s", value.key, type(error).__name__)
        return None
