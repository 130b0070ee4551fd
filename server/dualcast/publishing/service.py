"""The way in: a checked principal and a request leave as a receipt from the bus."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Sequence
from typing import Protocol, TypeVar

import structlog
from msgspec import Struct

from dualcast.bus.port import EventBus
from dualcast.model.errors import BusUnavailable, DualcastError, Forbidden, LimitExceeded, NotFound
from dualcast.model.principal import Principal
from dualcast.model.publication import Draft, Quota, Receipt
from dualcast.telemetry.counters import Counters

from .drafts import Drafter
from .requests import NotificationRequest, PublishRequest, PushPolicy, Request
from .turns import Place, Turns, TurnSettings

log = structlog.get_logger("dualcast.publishing")
T = TypeVar("T")
DRAFT_BYTES = 500
"""Of a draft beside its data, roughly."""
SLICE_BYTES = 256 * 1024
"""Of a batch's body, decoded in one turn."""
UNIT_BYTES = 4096
Result = Receipt | DualcastError


class PublishSettings(Struct, frozen=True):
    """Limits of publishing."""

    max_data_bytes: int = 65_536
    """Of the publisher's `data` after minifying."""
    max_batch_items: int = 1000
    default_push: PushPolicy = "never"
    """Of notifications to users that name no policy."""
    turns: TurnSettings = TurnSettings()


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


class _Batch:
    """A batch on its way."""

    def __init__(
        self,
        principal: Principal,
        requests: Sequence[Request | DualcastError],
        now_ms: int,
        place: Place,
    ) -> None:
        self.principal = principal
        self.requests = requests
        self.now_ms = now_ms
        self.place = place
        self.push_ready = False
        """The push queue was asked to be ready for it."""


class Publisher:
    """Validates, authorises and appends. The tenant always comes from the principal.

    `resolve_connection`: (tenant, connection id) → its user, None when no such connection lives.
    `push_ready`: awaited with the tenant before an append that has a push rider; its failure does not stop
    the append. `poke_push`: called with the tenant after such an append, must not wait or raise.
    `grants`: None: requests with a grant are refused. `narrowed`: (tenant, [(user, id)]), awaited after items
    were stored with publications that only some of their users' devices are due.
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
        narrowed: Callable[[str, Sequence[tuple[str, str]]], Awaitable[object]] | None = None,
    ) -> None:
        self.settings = settings or PublishSettings()
        self.turns = Turns(self.settings.turns)
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
        IdempotencyConflict, RateLimited, TenantBusy, BusUnavailable (outcome unknown: repeating it with the
        same id or key is safe).
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
            units = units_of(draft)
            if not self.turns.take(units):
                await self._take_in_turn(draft)
            try:
                receipt = await self._bus.append(draft, self._quotas.quota(tenant))
            finally:
                self.turns.give(units)
        except DualcastError as error:
            self._counters.rejected(tenant, error.code)
            raise
        if not receipt.duplicate:
            self._counters.accepted(tenant)
            if draft.push is not None and self._poke_push is not None:
                self._poke_push(tenant)
            if draft.inbox is not None and draft.audience is not None:
                await self._tell_others(tenant, (draft,))
        return receipt

    async def publish_many(
        self, principal: Principal, requests: Sequence[Request | DualcastError], *, size: int = 0
    ) -> list[Result]:
        """Appends many in their order; a result for each, errors returned.

        An item that is already an error (it could not be decoded) stays what it is. `requests` is read in
        slices, each once and in its turn, so a sequence that decodes when it is read blocks nobody for long.
        `size`: bytes of the body, for the bounds of what waits. When the bus goes away in the middle, the
        rest is not tried. Raises Forbidden, LimitExceeded and TenantBusy for the whole batch.
        """
        authorise(principal)
        count = len(requests)
        if count > self.settings.max_batch_items:
            raise LimitExceeded(
                f"a batch has at most {self.settings.max_batch_items} items", code="too-many-items"
            )
        tenant = principal.tenant
        results: list[Result] = []
        place = self._enter(tenant, count, size)
        try:
            batch = _Batch(principal, requests, int(time.time() * 1000), place)
            # Of large items fewer make a slice.
            step = min(self.turns.settings.slice_units, max(1, SLICE_BYTES * count // max(1, size)))
            for start in range(0, count, step):
                some, lost = await self._slice(batch, start, min(start + step, count))
                results += some
                if lost is not None:
                    results += [lost] * (count - len(results))
                    break
        finally:
            place.leave()
        for result in results:
            if isinstance(result, DualcastError):
                self._counters.rejected(tenant, result.code)
        return results

    async def in_turn(self, principal: Principal, size: int, work: Callable[[], T]) -> T:
        """`work()`, which takes about as long as a slice of a batch, when it is the tenant's turn.

        `size`: bytes that wait for it. Raises TenantBusy and what `work` raises.
        """
        place = self._enter(principal.tenant, 1, size)
        try:
            await place.turn(self.turns.settings.slice_units)
            return work()
        finally:
            place.leave()

    def _enter(self, tenant: str, items: int, size: int) -> Place:
        try:
            return self.turns.enter(tenant, items, size)
        except DualcastError as error:
            self._counters.rejected(tenant, error.code)
            raise

    async def _take_in_turn(self, draft: Draft) -> None:
        """What `turns.take` takes, after waiting."""
        place = self.turns.enter(draft.tenant, 1, len(draft.data) + DRAFT_BYTES)
        try:
            await place.turn(units_of(draft))
            place.held = 0  # the caller gives it back
        finally:
            place.leave()

    async def _slice(self, batch: _Batch, start: int, stop: int) -> tuple[list[Result], DualcastError | None]:
        """(results of the items from `start` to `stop`, why the bus takes no more or None). Ends without a
        turn.
        """
        place, tenant = batch.place, batch.principal.tenant
        await place.turn(stop - start)
        some = batch.requests[start:stop]
        owners: dict[str, str | DualcastError | None] = {}
        if names := _connections(some):
            # Other rooms answer when they can: nobody else shall wait for that.
            place.over()
            owners = await self._owners(tenant, names)
            await place.turn(stop - start)
        results: list[Result | None] = []
        drafts: list[Draft] = []
        grants: list[tuple[int, Draft, PublishRequest]] = []
        for request in some:
            if isinstance(request, DualcastError):
                results.append(request)
                continue
            try:
                user = ""
                if owners and type(request) is NotificationRequest and request.to.connection is not None:
                    user = _known(owners[request.to.connection])
                made = self._drafter.draft(
                    batch.principal, request, now_ms=batch.now_ms, connection_user=user
                )
            except DualcastError as error:
                results.append(error)
                continue
            if type(request) is PublishRequest and request.grant is not None:
                grants.append((len(results), made, request))
            drafts.append(made)
            results.append(None)
        pushing = any(made.push is not None for made in drafts)
        if grants or (pushing and not batch.push_ready):
            place.over()
            for index, made, request in grants:
                try:
                    await self._grant(made, request)
                except DualcastError as error:
                    results[index] = error
                    drafts = [other for other in drafts if other is not made]
            if pushing:
                await self._prepare_push(tenant)
                batch.push_ready = True
        appended, lost = await self._append_slice(tenant, drafts, place)
        fresh = {one.id for one in appended if isinstance(one, Receipt) and not one.duplicate}
        if fresh:
            self._counters.accepted(tenant, len(fresh))
            if pushing and self._poke_push is not None:
                self._poke_push(tenant)
        if fresh:
            await self._tell_others(tenant, [made for made in drafts if made.id in fresh])
        rest = iter(appended)
        return [next(rest) if result is None else result for result in results], lost

    async def _append_slice(
        self, tenant: str, drafts: Sequence[Draft], place: Place
    ) -> tuple[list[Result], DualcastError | None]:
        """(a result per draft, why the bus takes no more or None). Large drafts, and those to many channels,
        take several turns.
        """
        results: list[Result] = []
        share = self.turns.settings.slice_units
        while len(results) < len(drafts):
            units, stop = 0, len(results)
            while stop < len(drafts) and (not units or units + units_of(drafts[stop]) <= share):
                units += units_of(drafts[stop])
                stop += 1
            if place.held:
                place.grow(units)
            else:
                await place.turn(units)
            part = drafts[len(results) : stop]
            answers = await self._append_many(part, self._quotas.quota(tenant))
            place.over()
            results += answers
            if all(isinstance(answer, BusUnavailable) for answer in answers):
                lost = answers[0]
                assert isinstance(lost, BusUnavailable)
                results += [lost] * (len(drafts) - len(results))
                return results, lost
        if not drafts:
            place.over()
            await asyncio.sleep(0)  # nothing but errors takes time as well
        return results, None

    async def _tell_others(self, tenant: str, drafts: Sequence[Draft]) -> None:
        """An item that came with a publication for some devices changes the badge of all of them."""
        items: list[tuple[str, str]] = []
        for draft in drafts:
            rider, audience = draft.inbox, draft.audience
            if rider is None or audience is None:
                continue
            if audience.devices or audience.exclude_connections:
                items += [(user, draft.id) for user in rider.users]
        if items and self._narrowed is not None:
            await self._narrowed(tenant, items)

    async def _append_many(self, drafts: Sequence[Draft], quota: Quota | None) -> list[Result]:
        try:
            return await self._bus.append_many(drafts, quota)
        except DualcastError as error:  # an engine that cannot even start the call
            return [error] * len(drafts)

    async def _owners(self, tenant: str, connections: Sequence[str]) -> dict[str, str | DualcastError | None]:
        """Connection → its user, asked for all at once."""
        found = await asyncio.gather(*(self._owner(tenant, name) for name in connections))
        return dict(zip(connections, found, strict=True))

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


def units_of(draft: Draft) -> int:
    """What a draft takes of a turn: one for each channel, and for each 4 KiB more in it."""
    return len(draft.channels) * (1 + len(draft.data) // UNIT_BYTES)


def _connections(requests: Sequence[Request | DualcastError]) -> list[str]:
    """The connections that requests name as their target, each once."""
    names = [
        request.to.connection
        for request in requests
        if type(request) is NotificationRequest and request.to.connection is not None
    ]
    return list(dict.fromkeys(names))


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
