"""The way in: a checked principal and a request leave as a receipt from the bus."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Sequence
from typing import Protocol

import structlog
from msgspec import Struct

from dualcast.bus.port import EventBus
from dualcast.model.errors import DualcastError, Forbidden, LimitExceeded, NotFound
from dualcast.model.principal import Principal
from dualcast.model.publication import Draft, Quota, Receipt
from dualcast.telemetry.counters import Counters

from .drafts import Drafter
from .requests import NotificationRequest, PublishRequest, PushPolicy, Request

log = structlog.get_logger("dualcast.publishing")


class PublishSettings(Struct, frozen=True):
    """Limits of publishing."""

    max_data_bytes: int = 65_536
    """Of the publisher's `data` after minifying."""
    max_batch_items: int = 1000
    default_push: PushPolicy = "never"
    """Of notifications to users that name no policy."""


class Quotas(Protocol):
    """Where a tenant's publish quota comes from (the tenant store). Synchronous: the store keeps tenants in
    memory.
    """

    def quota(self, tenant: str) -> Quota | None: ...


class Unlimited:
    """No quota for anybody."""

    def quota(self, tenant: str) -> Quota | None:
        return None


class GrantOffice(Protocol):
    """Who may subscribe to a channel; `tenancy.grants.Grants` is one."""

    async def add(self, tenant: str, channel: str, members: Sequence[str] = (), *, owner: str = "") -> int:
        """Adds members, replaces the owner unless ""; repeating it changes nothing."""
        ...


async def _nobody(tenant: str, connection: str) -> str | None:
    return None


class Publisher:
    """Validates, authorises and appends. The tenant always comes from the principal.

    `resolve_connection`: (tenant, connection id) → its user, None when no such connection lives.
    `push_ready`: awaited with the tenant before an append that has a push rider; its failure does not stop
    the append. `poke_push`: called with the tenant after such an append, must not wait or raise.
    `grants`: None: requests with a grant are refused. `narrowed`: (tenant, users, id), awaited after an item
    was stored with a publication that only some of its user's devices are due.
    """

    def __init__(
        self,
        bus: EventBus,
        counters: Counters,
        quotas: Quotas | None = None,
        settings: PublishSettings | None = None,
        *,
        resolve_connection: Callable[[str, str], Awaitable[str | None]] = _nobody,
        push_ready: Callable[[str], Awaitable[object]] | None = None,
        poke_push: Callable[[str], object] | None = None,
        grants: GrantOffice | None = None,
        narrowed: Callable[[str, Sequence[str], str], Awaitable[object]] | None = None,
    ) -> None:
        self.settings = settings or PublishSettings()
        self._bus = bus
        self._counters = counters
        self._quotas: Quotas = quotas or Unlimited()
        self._drafter = Drafter(self.settings.max_data_bytes, default_push=self.settings.default_push)
        self._resolve_connection = resolve_connection
        self._push_ready = push_ready
        self._poke_push = poke_push
        self._grants = grants
        self._narrowed = narrowed

    async def publish(self, principal: Principal, request: Request, *, idempotency_key: str = "") -> Receipt:
        """Appends one publication.

        `idempotency_key`: of the HTTP header. Returns after the bus has accepted it. Raises Forbidden (roles
        `publisher` and `admin` only), Invalid, BadChannel, LimitExceeded, NotFound `unknown-connection`,
        IdempotencyConflict, RateLimited, BusUnavailable (outcome unknown: repeating it with the same id or
        key is safe).
        """
        tenant = principal.tenant
        try:
            authorise(principal)
            user = ""
            if type(request) is NotificationRequest and request.to.connection is not None:
                user = _known(await self._resolve_connection(tenant, request.to.connection))
            draft = self._drafter.draft(
                principal, request, idempotency_key=idempotency_key, connection_user=user
            )
            if type(request) is PublishRequest and request.grant is not None:
                await self._grant(draft, request)
            if draft.push is not None:
                await self._prepare_push(tenant)
            receipt = await self._bus.append(draft, self._quotas.quota(tenant))
        except DualcastError as error:
            self._counters.rejected(tenant, error.code)
            raise
        if not receipt.duplicate:
            self._counters.accepted(tenant)
            if draft.push is not None and self._poke_push is not None:
                self._poke_push(tenant)
            if draft.inbox is not None and draft.audience is not None:
                await self._tell_others(draft)
        return receipt

    async def publish_many(
        self, principal: Principal, requests: Sequence[Request | DualcastError]
    ) -> list[Receipt | DualcastError]:
        """Appends many in their order in one bus call; a result for each, errors returned.

        An item that is already an error (it could not be decoded) stays what it is. Raises Forbidden and
        LimitExceeded for the whole batch.
        """
        tenant = principal.tenant
        authorise(principal)
        if len(requests) > self.settings.max_batch_items:
            raise LimitExceeded(
                f"a batch has at most {self.settings.max_batch_items} items", code="too-many-items"
            )
        results: list[Receipt | DualcastError | None] = []
        drafts: list[Draft] = []
        now_ms = int(time.time() * 1000)
        owners = await self._owners(tenant, requests)
        draft = self._drafter.draft
        pushing = False
        for request in requests:
            if isinstance(request, DualcastError):
                results.append(request)
                continue
            try:
                user = ""
                if owners and type(request) is NotificationRequest and request.to.connection is not None:
                    user = _known(owners[request.to.connection])
                made = draft(principal, request, now_ms=now_ms, connection_user=user)
                if type(request) is PublishRequest and request.grant is not None:
                    await self._grant(made, request)
                pushing = pushing or made.push is not None
                drafts.append(made)
                results.append(None)
            except DualcastError as error:
                results.append(error)
        if pushing:
            await self._prepare_push(tenant)
        appended = iter(await self._append_many(drafts, self._quotas.quota(tenant)) if drafts else ())
        merged = [next(appended) if result is None else result for result in results]
        accepted = 0
        fresh: set[str] = set()
        for result in merged:
            if isinstance(result, DualcastError):
                self._counters.rejected(tenant, result.code)
            elif not result.duplicate:
                accepted += 1
                fresh.add(result.id)
        if accepted:
            self._counters.accepted(tenant, accepted)
            if pushing and self._poke_push is not None:
                self._poke_push(tenant)
        for made in drafts:
            if made.inbox is not None and made.audience is not None and made.id in fresh:
                await self._tell_others(made)
        return merged

    async def _tell_others(self, draft: Draft) -> None:
        """An item that came with a publication for some devices changes the badge of all of them."""
        rider, audience = draft.inbox, draft.audience
        if self._narrowed is None or rider is None or audience is None:
            return
        if rider.users and (audience.devices or audience.exclude_connections):
            await self._narrowed(draft.tenant, rider.users, draft.id)

    async def _append_many(self, drafts: list[Draft], quota: Quota | None) -> list[Receipt | DualcastError]:
        try:
            return await self._bus.append_many(drafts, quota)
        except DualcastError as error:  # an engine that cannot even start the call
            return [error] * len(drafts)

    async def _owners(
        self, tenant: str, requests: Sequence[Request | DualcastError]
    ) -> dict[str, str | DualcastError | None]:
        """Connection → its user, for all connections the batch names, asked at once."""
        names = {
            request.to.connection: None
            for request in requests
            if type(request) is NotificationRequest and request.to.connection is not None
        }
        if not names:
            return {}
        found = await asyncio.gather(*(self._owner(tenant, name) for name in names if name is not None))
        return dict(zip((name for name in names if name is not None), found, strict=True))

    async def _owner(self, tenant: str, connection: str) -> str | DualcastError | None:
        try:
            return await self._resolve_connection(tenant, connection)
        except DualcastError as error:
            return error

    async def _grant(self, draft: Draft, request: PublishRequest) -> None:
        grant = request.grant
        assert grant is not None
        if self._grants is None:
            raise Forbidden("this server records no grants")
        if grant.owner or grant.members:
            await self._grants.add(draft.tenant, draft.channels[0], grant.members, owner=grant.owner)

    async def _prepare_push(self, tenant: str) -> None:
        if self._push_ready is None:
            return
        try:
            await self._push_ready(tenant)
        except DualcastError as error:
            # A push that may come late never costs the notification itself.
            log.warning("push_not_ready", tenant=tenant, code=error.code)


def _known(owner: str | DualcastError | None) -> str:
    if isinstance(owner, DualcastError):
        raise owner
    if not owner:
        raise NotFound("no such connection is open", code="unknown-connection")
    return owner


def authorise(principal: Principal) -> None:
    """Publishing is for backends: raises Forbidden without role `publisher` or `admin`."""
    if not principal.may_publish:
        raise Forbidden("publishing needs the role publisher or admin", code="publisher-only")
