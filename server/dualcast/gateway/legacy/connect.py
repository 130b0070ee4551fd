"""From a handshake on a path of a contract to an admitted session (docs/contracts/legacy-wire.md sections 1.1
to 1.7)."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import structlog

from dualcast.dialects.legacy import Admission, Endpoint, Facts, Opening, Refusal
from dualcast.gateway.authentication import client_address
from dualcast.gateway.body import Scope, header
from dualcast.gateway.connect import STALE_RETRY_S, UNKNOWN_EPOCH, is_final, query
from dualcast.gateway.opening import Openings
from dualcast.gateway.sunset import Headers, browned_out, deprecation_headers
from dualcast.gateway.visitors import note_caller, note_fallback, visitor_of
from dualcast.hub.encoding import Encoding
from dualcast.identity.authenticator import Authenticated
from dualcast.identity.credentials import Kind, MalformedAuthorization, NoCredentials
from dualcast.model.channel import ALL, check_id, user_channel
from dualcast.model.cursor import parse_cursor
from dualcast.model.errors import (
    BadChannel,
    BadCursor,
    BadRequest,
    BusUnavailable,
    DualcastError,
    Forbidden,
    Unauthorized,
)
from dualcast.model.principal import ADMIN, Principal
from dualcast.presence.devices import KINDS, check_device_id
from dualcast.session.admission import ConnectionLimit, check_limits
from dualcast.session.session import FROM_NOW
from dualcast.session.watching import watched
from dualcast.tenancy.model import SigningKey
from dualcast.transport.legacy import LegacySession, LegacySignals, LegacyState

from .refusals import Refused
from .services import Legacy

log = structlog.get_logger("dualcast.gateway")

SOCKET = "/api/ws/notifications"
STAGED = frozenset({SOCKET, "/api/notifications/stream"})
"""Each other's twin: the only legacy endpoints the migration stage governs."""
ANONYMOUS = "anonymous"


class Full(Exception):
    """The dialect has as many connections as it may."""

    def __init__(self, facts: Facts) -> None:
        super().__init__("full")
        self.facts = facts


class StageRefuses(Exception):
    """The migration stage has no such transport for this user. `wait_s`: it has, but not just now (a
    brownout); 0: do not come back."""

    def __init__(self, headers: Headers, wait_s: float = 0.0) -> None:
        super().__init__("stage")
        self.headers = headers
        self.wait_s = wait_s


class Door:
    """Admission to one endpoint."""

    def __init__(
        self, legacy: Legacy, endpoint: Endpoint, encoding: Encoding, make: Callable[..., LegacySession]
    ) -> None:
        self._legacy = legacy
        self._endpoint = endpoint
        self._encoding = encoding
        self._make = make
        self._signals = LegacySignals(endpoint.dialect, legacy.registry)
        self._openings = Openings()
        self._kind: Kind = "websocket" if endpoint.transport == "ws" else "sse"

    async def admit(self, scope: Scope, **rest: Any) -> tuple[LegacySession, str | None]:
        """The session, not attached yet, and the subprotocol to answer.

        Raises Refused, Full, StageRefuses, DualcastError (limits, bus or keys away).
        """
        legacy, endpoint, delivery = self._legacy, self._endpoint, self._legacy.delivery
        address = client_address(scope)
        delivery.services.limits.handshake(address)
        exempt = delivery.services.limits.is_exempt(address)
        check_limits(delivery.node, address, per_address=0 if exempt else delivery.connections_per_address)
        facts = self._facts(scope, address)
        found = await self._caller(scope, facts)
        principal = found.principal
        try:
            stage = self._stage(principal)
        except StageRefuses as refused:
            if not refused.wait_s and not await is_final(delivery, principal, self._kind):
                raise StageRefuses(refused.headers, STALE_RETRY_S) from None
            raise
        keys = self._keys(principal.tenant)
        said = {name: (value,) for name, value in facts.query.items()}
        if endpoint.path in STAGED:
            note_caller(scope, principal)
            if endpoint.transport == "sse" and stage != "sse":
                note_fallback(delivery.node, scope, principal, said)
        facts.tenant, facts.user = principal.tenant, principal.sub
        facts.admin = principal.is_admin
        facts.role = principal.role
        admission = endpoint.admit(facts)
        if isinstance(admission, Refusal):
            raise Refused(admission)
        if (
            endpoint.max_connections
            and legacy.registry.dialects[endpoint.dialect] >= endpoint.max_connections
        ):
            raise Full(facts)
        grant_changes = delivery.node.grant_changes
        if admission.owner_of:
            await self._check_owner(principal, admission.owner_of)
        facts.client_id = admission.client_id
        facts.device, facts.device_id = admission.device, admission.device_id
        session = await self._session(scope, principal, facts, admission, stage, **rest)
        # While it was waited for, the session was in no index: nobody else would end it.
        while admission.owner_of and grant_changes != delivery.node.grant_changes:
            grant_changes = delivery.node.grant_changes
            await self._check_owner(principal, admission.owner_of)
        if delivery.services.revocations.is_revoked(principal):
            raise Refused(endpoint.bad)
        if self._keys(principal.tenant) != keys:
            raise BusUnavailable("the tenant's keys were changed just now", retry_after_s=1)
        session.settle()
        session.visitor = visitor_of(scope, said, resumed=bool(header(scope, b"last-event-id")))
        return session, found.subprotocol

    def _keys(self, name: str) -> tuple[SigningKey, ...]:
        tenant = self._legacy.delivery.tenants.current(name)
        return tenant.keys if tenant is not None else ()

    def _facts(self, scope: Scope, address: str) -> Facts:
        facts = Facts(tenant=self._legacy.tenant, user="")
        facts.address = address
        facts.now_ms = facts.opened_ms = int(self._legacy.delivery.node.now_s() * 1000)
        facts.params = {name: str(value) for name, value in (scope.get("path_params") or {}).items()}
        try:
            asked = query(scope)
        except BadChannel:
            asked = {}
        facts.query = {name: values[-1] for name, values in asked.items() if name != "token"}
        return facts

    async def _caller(self, scope: Scope, facts: Facts) -> Authenticated:
        endpoint, legacy = self._endpoint, self._legacy
        authenticator = legacy.delivery.services.authenticator
        try:
            return await authenticator.authenticate(scope, kind=self._kind, native=False)
        except NoCredentials:
            if legacy.settings.dev and endpoint.assumed is not None:
                user, admin = endpoint.assumed(facts)
                try:
                    role = ADMIN if admin else ""
                    roles = frozenset({ADMIN} if admin else ())
                    return Authenticated(Principal(legacy.tenant, check_id(user), roles, role=role), "query")
                except BadChannel:
                    raise Refused(endpoint.bad) from None
            if endpoint.anonymous:
                return Authenticated(Principal(legacy.tenant, ""), "query")
            raise Refused(endpoint.missing) from None
        except MalformedAuthorization:
            raise Refused(endpoint.malformed) from None
        except (Unauthorized, BadRequest):
            raise Refused(endpoint.bad) from None
        except Forbidden:
            # A page that may not open sockets here.
            raise Refused(Refusal(reason="Unauthorized", status=403, detail="Forbidden")) from None

    def _stage(self, principal: Principal) -> str:
        """The user's stage; "" where none governs the endpoint. Raises StageRefuses, Refused (no such
        tenant)."""
        delivery = self._legacy.delivery
        tenant = delivery.tenants.current(principal.tenant)
        if tenant is None:
            raise Refused(self._endpoint.bad)
        if self._endpoint.path not in STAGED:
            return ""
        decision = tenant.decide(principal.sub, delivery.node.now_s())
        headers = deprecation_headers(decision.deprecation, SOCKET)
        if not decision.serves(self._endpoint.transport):
            raise StageRefuses(headers)
        if self._endpoint.transport == "sse" and (wait_s := browned_out(decision)):
            raise StageRefuses(headers, wait_s)
        return decision.stage.value

    def sunset_headers(self, principal: Principal) -> Headers:
        """What the answer to an admitted stream says of the end of SSE."""
        delivery = self._legacy.delivery
        tenant = delivery.tenants.current(principal.tenant)
        if tenant is None or self._endpoint.path not in STAGED:
            return []
        return deprecation_headers(tenant.decide(principal.sub, delivery.node.now_s()).deprecation, SOCKET)

    async def _check_owner(self, principal: Principal, channel: str) -> None:
        """Raises Refused when there is no such task or batch, or it is somebody else's."""
        try:
            owner = await self._legacy.owner(principal.tenant, channel)
        except BadRequest:
            owner = None  # not an id
        if owner is None:
            raise Refused(self._endpoint.not_found)
        if principal.is_admin or owner == principal.sub:
            return
        if not await self._legacy.delivery.services.access.may_subscribe(principal, channel):
            raise Refused(self._endpoint.not_found)

    async def _session(
        self, scope: Scope, principal: Principal, facts: Facts, admission: Admission, stage: str, **rest: Any
    ) -> LegacySession:
        legacy, endpoint, node = self._legacy, self._endpoint, self._legacy.delivery.node
        own = (user_channel(principal.sub),) if principal.sub else ()
        channels = tuple(dict.fromkeys((*own, *admission.channels))) or (ALL,)
        epoch, position = self._position(scope)
        named = admission.stream or endpoint.path + "|" + "|".join(facts.params.values())
        state = LegacyState(endpoint, facts, Opening(), legacy.registry, stream=named)
        session = self._make(
            node,
            principal,
            self._encoding,
            self._signals,
            channels,
            epoch=epoch,
            position=position,
            address=facts.address,
            device=admission.device if admission.device in KINDS else "",
            device_id=_device_id(admission.device_id),
            stage=stage,
            legacy=state,
            **rest,
        )
        if not await watched(node, session.channels) and node.hub.available:
            raise BusUnavailable("the event bus does not answer", retry_after_s=2)
        await self._open(session, admission, resumed=position != FROM_NOW)
        return session

    def _position(self, scope: Scope) -> tuple[str, int]:
        """Where a stream goes on. A new one starts live, as it always did."""
        text = header(scope, b"last-event-id") if self._endpoint.transport == "sse" else ""
        if not text or not self._legacy.settings.stream_ids:
            return "", FROM_NOW
        try:
            epoch, offset = parse_cursor(text)
        except BadCursor:
            return UNKNOWN_EPOCH, 0
        return epoch, offset

    async def _open(self, session: LegacySession, admission: Admission, *, resumed: bool) -> None:
        """Reads what the first frames want."""
        endpoint, facts, services = self._endpoint, session.legacy.facts, self._legacy.delivery.services
        state: Any = None
        if "state" in endpoint.wants and admission.state_of:
            state, resumed, _ = await self._openings.open(
                session, admission.state_of, resumed=resumed, required=endpoint.ended is None
            )
        unread, total = 0, 0
        by_kind: Mapping[str, int] = {}
        user = admission.inbox_of or facts.user
        if "inbox" in endpoint.wants and user:
            try:
                badge, by_kind = await services.inbox.counts_by_kind(facts.tenant, user)
                unread = badge.unread
                total = (await services.inbox.page(facts.tenant, user, page_size=1))[1]
            except DualcastError as error:
                # Counters are not worth a refusal: clients read the inbox anyway.
                log.warning("a connection opens without its counters", code=error.code)
        session.legacy.opening = Opening(
            state=state, resumed=resumed, unread=unread, total=total, unread_by_kind=by_kind
        )
        over = endpoint.ended is not None and resumed and endpoint.ended(session.legacy.opening)
        if over:
            # What it missed ends the stream anyway, and may be trimmed: it is told how it ended.
            session.epoch, session.position = "", FROM_NOW
            session.settle()
            session.legacy.opening = Opening(state=state, unread=unread, total=total, unread_by_kind=by_kind)


def _device_id(text: str) -> str:
    try:
        return check_device_id(text) if text else ""
    except BadRequest:
        return ""


def retry_after_s(error: DualcastError) -> float | None:
    """Of a 503."""
    return error.retry_after_s or (5.0 if isinstance(error, ConnectionLimit) else None)
