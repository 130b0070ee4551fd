"""`/v1/tenants/{t}/migration`: the stage of a tenant, read and changed while everybody stays connected.

For operators, and the tenant's own admins.
"""

from __future__ import annotations

from typing import Annotated

import structlog
from litestar import Response, get, post, put
from litestar.params import FromPath, JSONBody, QueryParameter
from msgspec import Meta, Struct

from dualcast.model.errors import DualcastError
from dualcast.model.times import utc_text
from dualcast.tenancy.audit import Action, AuditEntry
from dualcast.tenancy.changes import FieldChange
from dualcast.tenancy.stages import StageView
from dualcast_migration.budgets import DEFAULT_BUDGETS, Budgets
from dualcast_migration.cohort import EVERYBODY, Cohort
from dualcast_migration.policy import (
    MAX_AT_S,
    MAX_BROWNOUTS,
    Brownout,
    FallbackScope,
    MirrorMode,
    StageRecord,
)
from dualcast_migration.stage import Stage

from .services import Caller, Injected
from .tenant_access import TENANT_OPT, IfMatch, etag, expected_version, own_or_any, precondition, who
from .tenants import Text, Version, Why

log = structlog.get_logger("dualcast.tenants")
_PATH = "/v1/tenants/{tenant:str}/migration"
_TAGS = ["migration"]
Second = Annotated[int, Meta(ge=0, le=MAX_AT_S)]


class MigrationBody(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The whole record as it shall be, and why. What is missing is the default, not what it was."""

    stage: Stage
    why: Why
    """For the audit."""
    expected: Version | None = None
    """The version it must have now; or say so with If-Match."""
    force: bool = False
    """Go on although the guard holds, or into a stage whose sunset has passed."""
    cohort: Cohort = EVERYBODY
    deprecated_at: Second = 0
    """Unix seconds since when SSE is deprecated; 0: not set. Times count in stage `websocket` only."""
    sunset_at: Second = 0
    """Unix seconds from which SSE connects are answered 204."""
    link: Text = ""
    """URL of a page that describes the move."""
    brownouts: Annotated[tuple[Brownout, ...], Meta(max_length=MAX_BROWNOUTS)] = ()
    fallback_scope: FallbackScope = "instance"
    budgets: Budgets = DEFAULT_BUDGETS
    mirror: MirrorMode | None = None
    """What is copied to old servers' channels; null: the server's setting. These channels are the legacy
    tenant's: of others nothing can be copied, 422 `no-old-channels`."""

    def __post_init__(self) -> None:
        self.record()  # refuses what does not go together

    def record(self) -> StageRecord:
        """The record; raises ValueError."""
        return StageRecord(
            stage=self.stage,
            cohort=self.cohort,
            deprecated_at=self.deprecated_at,
            sunset_at=self.sunset_at,
            link=self.link,
            brownouts=self.brownouts,
            fallback_scope=self.fallback_scope,
            budgets=self.budgets,
            mirror=self.mirror,
        )


class NoOldChannels(DualcastError):
    """The names of old channels hold no tenant: what were copied there would reach users of another."""

    code = "no-old-channels"
    status = 422

    def __init__(self) -> None:
        super().__init__("mirror: the channels of old servers belong to the legacy tenant alone")


class RollbackBody(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Why, and which version is to be rolled back."""

    why: Why
    expected: Version | None = None
    force: bool = False
    """Although the guard holds, or the sunset of what it leads back to has passed."""


class RecordView(Struct, frozen=True):
    """A stage record with everything in it."""

    stage: Stage
    cohort: Cohort
    deprecated_at: int
    sunset_at: int
    link: str
    brownouts: tuple[Brownout, ...]
    fallback_scope: FallbackScope
    budgets: Budgets
    held_until: int
    """The guard stepped back: going on is refused until this Unix second; 0: it is not."""
    mirror: MirrorMode | None


class EntryView(Struct, frozen=True, rename={"before": "from", "after": "to"}):
    """One change: who made it, when, from what to what, and why."""

    number: int
    version: int
    """The tenant's version since then."""
    at: str
    """RFC 3339, UTC."""
    who: str
    """Tenant and user id (`default/root`), `settings`, `guard` or `server`."""
    action: Action
    """`settings`, `keys`: the stage was left alone, and `from` and `to` are equal."""
    why: str
    before: RecordView | None
    """null: the tenant was made."""
    after: RecordView
    changes: tuple[FieldChange, ...]
    """What was changed beside the stage: settings, quotas, keys."""


class MigrationView(Struct, frozen=True):
    """Where a tenant is."""

    tenant: str
    version: int
    """What a change has to expect."""
    record: RecordView
    last: EntryView | None
    """The change that led here."""


class AuditView(Struct, frozen=True):
    """Changes, the newest first; ask again with `before=next` until `next` is 0."""

    entries: list[EntryView]
    next: int


@get(_PATH, summary="Where a tenant's migration is", opt=TENANT_OPT, tags=_TAGS, operation_id="Migration")
async def read_migration(
    services: Injected, caller: Caller, tenant: FromPath[str]
) -> Response[MigrationView]:
    """Stage, cohort and schedule, and the change that led there."""
    return _answer(await services.stages.read(own_or_any(services, caller, tenant)))


@put(_PATH, summary="Change a tenant's stage", opt=TENANT_OPT, tags=_TAGS, operation_id="ChangeMigration")
async def change_migration(
    services: Injected,
    caller: Caller,
    tenant: FromPath[str],
    data: JSONBody[MigrationBody],
    if_match: IfMatch = "",
) -> Response[MigrationView]:
    """Replaces the record. Every node acts on it within a second; nobody loses a message.

    A stage goes on by one, back by any. 428 `version-needed` without `expected` and If-Match, 409
    `version-conflict` (412 with If-Match), `illegal-stage-move`, `guard-hold`, `sunset-passed`.
    """
    name = own_or_any(services, caller, tenant)
    version = expected_version(if_match, data.expected, needed=True)
    await services.stages.read(name)  # 404 goes before a conflict
    if data.mirror not in (None, "off") and name != services.settings.legacy_tenant:
        raise NoOldChannels
    with precondition(if_match):
        view = await services.stages.change(
            name, data.record(), who=who(caller), why=data.why, expected=version, force=data.force
        )
    log.info("stage_changed", tenant=name, stage=str(view.record.stage), by=who(caller))
    return _answer(view)


@post(
    _PATH + "/rollback",
    status_code=200,
    summary="Undo the last change",
    opt=TENANT_OPT,
    tags=_TAGS,
    operation_id="RollBackMigration",
)
async def roll_back(
    services: Injected,
    caller: Caller,
    tenant: FromPath[str],
    data: JSONBody[RollbackBody],
    if_match: IfMatch = "",
) -> Response[MigrationView]:
    """Back to the record before the last change, which is a change of its own: rolling back twice is where it
    began. 409 `nothing-to-roll-back`, `guard-hold`, `sunset-passed`, `version-conflict`.
    """
    name = own_or_any(services, caller, tenant)
    version = expected_version(if_match, data.expected)
    await services.stages.read(name)
    with precondition(if_match):
        view = await services.stages.rollback(
            name, who=who(caller), why=data.why, expected=version, force=data.force
        )
    log.info("stage_rolled_back", tenant=name, stage=str(view.record.stage), by=who(caller))
    return _answer(view)


@get(
    "/v1/tenants/{tenant:str}/audit",
    summary="Who changed what",
    opt=TENANT_OPT,
    tags=_TAGS,
    operation_id="MigrationAudit",
)
async def read_audit(
    services: Injected,
    caller: Caller,
    tenant: FromPath[str],
    before: Annotated[int, QueryParameter(ge=0, description="Entries of lower numbers; 0: all")] = 0,
    limit: Annotated[int, QueryParameter(ge=1, le=100)] = 50,
) -> AuditView:
    """Every change of the tenant's stage, settings, quotas and keys, by people, the guard or the settings;
    never a secret. The newest 1,000 are kept."""
    page = await services.stages.history(
        own_or_any(services, caller, tenant), before=min(before, 2**53), limit=limit
    )
    return AuditView([_entry(entry) for entry in page.entries], page.next)


def _answer(view: StageView) -> Response[MigrationView]:
    last = _entry(view.last) if view.last else None
    body = MigrationView(view.tenant, view.version, _record(view.record), last)
    return Response(body, headers=etag(view.version))


def _entry(entry: AuditEntry) -> EntryView:
    return EntryView(
        number=entry.number,
        version=entry.version,
        at=utc_text(entry.at_ms),
        who=entry.who,
        action=entry.action,
        why=entry.why,
        before=_record(entry.before) if entry.before else None,
        after=_record(entry.after),
        changes=entry.changes,
    )


def _record(record: StageRecord) -> RecordView:
    return RecordView(**{name: getattr(record, name) for name in RecordView.__struct_fields__})


ROUTES = (read_migration, change_migration, roll_back, read_audit)
