"""The way in: a checked principal and a request leave as a receipt from the bus."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Protocol

from msgspec import Struct

from dualcast.bus.port import EventBus
from dualcast.model.errors import DualcastError, Forbidden, LimitExceeded
from dualcast.model.principal import Principal
from dualcast.model.publication import Draft, Quota, Receipt
from dualcast.telemetry.counters import Counters

from .drafts import Drafter
from .requests import Request


class PublishSettings(Struct, frozen=True):
    """Limits of publishing."""

    max_data_bytes: int = 65_536
    """Of the publisher's `data` after minifying."""
    max_batch_items: int = 1000


class Quotas(Protocol):
    """Where a tenant's publish quota comes from (the tenant store). Synchronous: the store keeps tenants in
    memory.
    """

    def quota(self, tenant: str) -> Quota | None: ...


class Unlimited:
    """No quota for anybody."""

    def quota(self, tenant: str) -> Quota | None:
        return None


class Publisher:
    """Validates, authorises and appends. The tenant always comes from the principal."""

    def __init__(
        self,
        bus: EventBus,
        counters: Counters,
        quotas: Quotas | None = None,
        settings: PublishSettings | None = None,
    ) -> None:
        self.settings = settings or PublishSettings()
        self._bus = bus
        self._counters = counters
        self._quotas: Quotas = quotas or Unlimited()
        self._drafter = Drafter(self.settings.max_data_bytes)

    async def publish(self, principal: Principal, request: Request, *, idempotency_key: str = "") -> Receipt:
        """Appends one publication.

        `idempotency_key`: of the HTTP header. Returns after the bus has accepted it. Raises Forbidden (roles
        `publisher` and `admin` only), Invalid, BadChannel, LimitExceeded, IdempotencyConflict, RateLimited,
        BusUnavailable (outcome unknown: repeating it with the same id or key is safe).
        """
        tenant = principal.tenant
        try:
            authorise(principal)
            draft = self._drafter.draft(principal, request, idempotency_key=idempotency_key)
            receipt = await self._bus.append(draft, self._quotas.quota(tenant))
        except DualcastError as error:
            self._counters.rejected(tenant, error.code)
            raise
        if not receipt.duplicate:
            self._counters.accepted(tenant)
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
        for request in requests:
            if isinstance(request, DualcastError):
                results.append(request)
                continue
            try:
                drafts.append(self._drafter.draft(principal, request, now_ms=now_ms))
                results.append(None)
            except DualcastError as error:
                results.append(error)
        appended = iter(await self._append_many(drafts, self._quotas.quota(tenant)) if drafts else ())
        merged = [next(appended) if result is None else result for result in results]
        accepted = 0
        for result in merged:
            if isinstance(result, DualcastError):
                self._counters.rejected(tenant, result.code)
            elif not result.duplicate:
                accepted += 1
        if accepted:
            self._counters.accepted(tenant, accepted)
        return merged

    async def _append_many(self, drafts: list[Draft], quota: Quota | None) -> list[Receipt | DualcastError]:
        try:
            return await self._bus.append_many(drafts, quota)
        except DualcastError as error:  # an engine that cannot even start the call
            return [error] * len(drafts)


def authorise(principal: Principal) -> None:
    """Publishing is for backends: raises Forbidden without role `publisher` or `admin`."""
    if not principal.may_publish:
        raise Forbidden("publishing needs the role publisher or admin", code="publisher-only")
