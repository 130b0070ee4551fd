"""`AsyncAdmin`: tenants, migration, grants, connections and revocations.

Tenants are for operators; a tenant's own admins read theirs, and change its migration. Grants need the role
publisher, the rest admin. All calls raise DualcastError.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Sequence
from typing import Any, TypeVar

from msgspec.structs import replace

from . import admin_calls as calls
from . import inbox_calls
from .answers import Connection
from .flow import Call
from .paging import each
from .tenant_shapes import (
    AuditEntry,
    Census,
    Closing,
    GrantView,
    Migration,
    NewKey,
    Parity,
    Readiness,
    Revocation,
    SettingsChange,
    StageName,
    StageRecord,
    Tenant,
)

T = TypeVar("T")


class AsyncAdmin:
    """Made by `AsyncClient.admin`. `expected`: only if the tenant still has this version; None: whatever
    it has."""

    def __init__(self, call: Callable[[Call[Any]], Awaitable[Any]]) -> None:
        self._call = call

    def __repr__(self) -> str:
        return "AsyncAdmin()"

    # ── tenants ──

    async def make_tenant(
        self,
        ident: str,
        *,
        settings: SettingsChange | None = None,
        keys: Sequence[NewKey] = (),
        stage: StageName | None = None,
        why: str = "",
    ) -> Tenant:
        """Its users can connect at once. Raises `tenant-exists`."""
        return await self._do(calls.make_tenant(ident, settings, keys, stage, why))

    def tenants(self) -> AsyncIterator[Tenant]:
        """All tenants by id."""
        return each(self._call, calls.tenants, lambda page: page.tenants)

    async def tenant(self, ident: str) -> Tenant:
        """One tenant, without its secrets."""
        return await self._do(calls.tenant(ident))

    async def change_tenant(
        self, ident: str, settings: SettingsChange, expected: int | None = None, *, why: str = ""
    ) -> Tenant:
        """Settings and quotas; they hold at once, for what is connected as well. `why`: for the audit."""
        return await self._do(calls.change_tenant(ident, settings, expected, why))

    async def add_key(self, ident: str, key: NewKey, expected: int | None = None, *, why: str = "") -> Tenant:
        """Tokens it has signed are good from now on."""
        return await self._do(calls.add_key(ident, key, expected, why))

    async def remove_key(
        self,
        ident: str,
        kid: str = "",
        *,
        position: int | None = None,
        expected: int | None = None,
        why: str = "",
    ) -> Tenant:
        """By its `kid`, or by its place (which needs `expected`). Connections that came with one of its
        tokens are closed."""
        return await self._do(calls.remove_key(ident, kid, position, expected, why))

    # ── migration ──

    async def migration(self, tenant: str) -> Migration:
        """Stage, cohort and schedule, and the change that led there."""
        return await self._do(calls.migration(tenant))

    async def change_migration(
        self,
        tenant: str,
        record: StageRecord,
        why: str,
        *,
        expected: int | None = None,
        force: bool = False,
    ) -> Migration:
        """Replaces the record. Raises `version-conflict`, `illegal-stage-move`, `guard-hold`,
        `sunset-passed`."""
        return await self._do(calls.change_migration(tenant, record, why, expected, force))

    async def set_stage(self, tenant: str, stage: StageName, why: str, *, force: bool = False) -> Migration:
        """The stage alone; the rest of the record stays. Raises `version-conflict` when somebody else changes
        it at the same moment."""
        found = await self.migration(tenant)
        record = replace(found.record, stage=stage)
        return await self.change_migration(tenant, record, why, expected=found.version, force=force)

    async def roll_back(
        self, tenant: str, why: str, *, expected: int | None = None, force: bool = False
    ) -> Migration:
        """Back to the record before the last change; twice is where it began."""
        return await self._do(calls.roll_back(tenant, why, expected, force))

    def audit(self, tenant: str) -> AsyncIterator[AuditEntry]:
        """Who changed what, the newest first."""
        return each(self._call, lambda before: calls.audit(tenant, before, 100), lambda page: page.entries, 0)

    async def census(self, tenant: str, transport: str = "", limit: int = 200) -> Census:
        """Who connects how. `transport`: `sse`, `ws`, or both."""
        return await self._do(calls.census(tenant, transport, limit))

    async def readiness(self, tenant: str) -> Readiness:
        """May the tenant go on to its next stage, and why not."""
        return await self._do(calls.readiness(tenant))

    async def parity(self, tenant: str, before: int = 0, limit: int = 50) -> Parity:
        """How the two transports compare, and a page of what did not match."""
        return await self._do(calls.parity(tenant, before, limit))

    # ── grants ──

    async def grant(self, channel: str) -> GrantView:
        """Who may subscribe to a channel beside those whose token says so."""
        return await self._do(calls.grant(channel))

    async def set_grant(
        self, channel: str, members: Iterable[str] = (), owner: str = "", version: int | None = None
    ) -> GrantView:
        """The whole grant. `version`: only when it still has this (0: none is stored)."""
        return await self._do(calls.set_grant(channel, owner, members, version))

    async def change_grant(
        self, channel: str, add: Iterable[str] = (), remove: Iterable[str] = (), owner: str = ""
    ) -> GrantView:
        """Adds, then removes; the others stay."""
        return await self._do(calls.change_grant(channel, add, remove, owner))

    async def delete_grant(self, channel: str) -> None:
        """Nobody is granted the channel any more; it is taken from live connections."""
        await self._do(calls.delete_grant(channel))

    # ── connections, revocations, notifications to all ──

    def connections(self, user: str = "") -> AsyncIterator[Connection]:
        """Live connections on all nodes, of one user or of everybody."""
        return each(
            self._call, lambda after: calls.connections(user, after, 1000), lambda page: page.connections
        )

    async def connection(self, ident: str) -> Connection:
        """One live connection. Raises `unknown-connection`."""
        return await self._do(calls.connection(ident))

    async def close_connection(self, ident: str) -> Closing:
        """Closes it for good, wherever it is."""
        return await self._do(calls.close_connection(ident))

    async def close_connections(self, *, user: str = "", token_id: str = "", revoke: bool = True) -> Closing:
        """Of a user or a token; without `revoke` they just come back."""
        return await self._do(calls.close_connections(user, token_id, revoke))

    async def revoke(
        self,
        *,
        user: str = "",
        token_id: str = "",
        expires_at: int | None = None,
        issued_before: int | None = None,
    ) -> Closing:
        """One token (`jti`), or every token of a user issued until now or before `issued_before`. Times are
        Unix seconds; `expires_at`: of the token."""
        return await self._do(calls.revoke(user, token_id, expires_at, issued_before))

    def revocations(self, kind: calls.RevocationKind = "token") -> AsyncIterator[Revocation]:
        """Revoked tokens, or users."""
        return each(self._call, lambda after: calls.revocations(kind, after), lambda page: page.revocations)

    async def take_back(self, *, user: str = "", token_id: str = "") -> None:
        """The token, or the user's older tokens, are good again."""
        await self._do(calls.take_back(user, token_id))

    async def withdraw(self, notification: str) -> None:
        """Takes a notification to the whole tenant out of every inbox. Raises `unknown-notification`."""
        await self._do(inbox_calls.withdraw(notification))

    async def _do(self, call: Call[T]) -> T:
        found: T = await self._call(call)
        return found
