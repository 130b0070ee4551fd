"""What `GET /v1/stream` and `GET /v1/socket` have in common: from a request's scope to an admitted session's
parameters."""

from __future__ import annotations

from collections.abc import Callable, MutableMapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import unquote_plus

from dualcast.identity.authenticator import Authenticated
from dualcast.identity.credentials import Kind
from dualcast.model.channel import ALL, check_channel, check_id, user_channel
from dualcast.model.cursor import parse_cursor
from dualcast.model.errors import (
    BadChannel,
    BadCursor,
    BadRequest,
    BusUnavailable,
    Forbidden,
    ForbiddenChannels,
    Unauthorized,
)
from dualcast.model.principal import Principal
from dualcast.presence.devices import check_device_id, check_kind
from dualcast.session.admission import (
    check_channels,
    check_limits,
    check_tenant_limit,
)
from dualcast.session.arriving import introduce
from dualcast.session.native_commands import NativeCommands
from dualcast.session.node import Node
from dualcast.session.session import FROM_NOW, Session
from dualcast.session.watching import watched
from dualcast.tenancy.model import Tenant
from dualcast.tenancy.store import TenantStore
from dualcast_migration.census import Visitor
from dualcast_migration.muting import pairs_of
from dualcast_migration.policy import Decision

from .authentication import client_address
from .body import header
from .services import Services
from .views import View, Views
from .visitors import note_caller, visitor_of

Scope = MutableMapping[str, Any]

REFUSED = "_refused"
"""Tenant label of refused handshakes: who called is not known for sure."""
UNKNOWN_EPOCH = "0"
"""Stands for the epoch of a cursor that cannot be read: no log has it, so it ends in a `gap`."""
STALE_RETRY_S = 1.0
"""After which this node has heard of a changed stage."""
CURSORS = frozenset({"cursor", "last_event_id"})
"""Parameters whose value may be anything: what is no cursor is an unknown one."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Delivery:
    """What the connecting routes need beside `Services`."""

    services: Services
    node: Node
    tenants: TenantStore
    commands: NativeCommands
    connections_per_address: int = 200
    views: Views = field(default_factory=Views)


class Request:
    """A parsed connect request. Attributes are what the session is made of."""

    __slots__ = (
        "address",
        "authenticated",
        "channels",
        "decision",
        "device",
        "device_id",
        "epoch",
        "grant_changes",
        "instance",
        "position",
        "tenant",
        "told",
        "view",
        "visitor",
    )

    authenticated: Authenticated
    tenant: Tenant
    decision: Decision
    channels: list[str]
    epoch: str
    position: int
    grant_changes: int
    """Of the node when its channels were checked."""
    instance: str
    device: str
    device_id: str
    address: str
    visitor: Visitor
    view: View | None
    told: str
    """What `?told=` says; only with a view."""

    def __init__(self) -> None:
        self.view = None
        self.told = ""

    @property
    def principal(self) -> Principal:
        return self.authenticated.principal


def query(scope: Scope) -> dict[str, list[str]]:
    """The decoded query parameters by name, in their order. Raises BadChannel (`bad-utf8`)."""
    found: dict[str, list[str]] = {}
    for part in scope["query_string"].decode("latin-1").split("&"):
        name, _, value = part.partition("=")
        if name:
            found.setdefault(name, []).append(_decoded(value, lenient=name in CURSORS))
    return found


def requested_channels(principal: Principal, parameters: dict[str, list[str]]) -> list[str]:
    """Own user channel, `all`, those of the comma-separated `channels` and each `channel` (whose id may hold
    a comma). Both may
    stand more than once. Raises BadChannel.
    """
    names = dict.fromkeys((user_channel(principal.sub), ALL))
    for listed in parameters.get("channels", ()):
        names.update((check_channel(part), None) for part in listed.split(",") if part)
    names.update((check_channel(name), None) for name in parameters.get("channel", ()))
    return list(names)


def requested_position(scope: Scope, parameters: dict[str, list[str]]) -> tuple[str, int]:
    """(epoch, offset) to resume from; ("", FROM_NOW) where no cursor is given.

    `Last-Event-ID` comes first: an `EventSource` repeats its URL, so the query may hold an older cursor. What
    cannot be read as a cursor is an unknown one: it is answered with a `gap`, never with an error status,
    which would end an `EventSource`.
    """
    text = (
        header(scope, b"last-event-id") or _last(parameters, "cursor") or _last(parameters, "last_event_id")
    )
    if not text:
        return "", FROM_NOW
    try:
        epoch, offset = parse_cursor(text)
    except BadCursor:
        return UNKNOWN_EPOCH, 0
    return epoch, offset


async def admit(delivery: Delivery, scope: Scope, kind: Kind) -> Request:
    """Authenticates, checks limits, channels and stage.

    Raises Unauthorized, Forbidden, BadChannel, LimitExceeded, RateLimited, ConnectionLimit, BusUnavailable (a
    grant could not be looked up).
    """
    services = delivery.services
    request = Request()
    address = request.address = client_address(scope)
    services.limits.handshake(address)
    exempt = services.limits.is_exempt(address)
    check_limits(delivery.node, address, per_address=0 if exempt else delivery.connections_per_address)
    found = await services.authenticator.authenticate(scope, kind=kind, native=True)
    request.authenticated = found
    principal = found.principal
    note_caller(scope, principal)
    tenant = delivery.tenants.current(principal.tenant)
    if tenant is None:
        raise Forbidden("no such tenant")
    check_tenant_limit(delivery.node, principal.tenant, tenant.settings.max_connections)
    request.tenant = tenant
    request.decision = tenant.decide(principal.sub, delivery.node.now_s())
    parameters = query(scope)
    request.view = delivery.views.find(view) if (view := _last(parameters, "view")) else None
    if request.view is not None:
        # Its channels are its own.
        request.channels = request.view.admit(principal, int(delivery.node.now_s() * 1000))
    else:
        request.channels = requested_channels(principal, parameters)
    request.told = _last(parameters, "told")
    request.grant_changes = delivery.node.grant_changes
    check_channels(delivery.node, request.channels)
    await _allowed(delivery, request)
    request.instance = _identifier(parameters, "instance")
    request.device = check_kind(device) if (device := _last(parameters, "device")) else ""
    request.device_id = check_device_id(ident) if (ident := _last(parameters, "device_id")) else ""
    request.epoch, request.position = requested_position(scope, parameters)
    request.visitor = visitor_of(scope, parameters, resumed=request.position != FROM_NOW)
    return request


async def _allowed(delivery: Delivery, request: Request) -> None:
    if request.view is not None:
        await request.view.check(delivery.services.access, request.principal)
        return
    may_subscribe, principal = delivery.services.access.may_subscribe, request.principal
    refused = [name for name in request.channels[2:] if not await may_subscribe(principal, name)]
    if refused:
        raise ForbiddenChannels(refused)


async def make_session(
    delivery: Delivery, request: Request, make: Callable[..., Session], **rest: Any
) -> Session:
    """The session, with its channels watched (unless the bus is away: then it is held); it keeps the user's
    limit when it is attached."""
    node = delivery.node
    session = make(
        node,
        request.principal,
        channels=request.channels,
        epoch=request.epoch,
        position=request.position,
        address=request.address,
        instance=request.instance,
        device=request.device,
        device_id=request.device_id,
        stage=request.decision.stage.value,
        pairs=pairs_of(request.decision),
        **rest,
    )
    if not await watched(node, session.channels) and node.hub.available:
        raise BusUnavailable("the event bus does not answer", retry_after_s=2)
    session.visitor = request.visitor
    if request.view is not None:
        await request.view.open(session, resumed=request.position != FROM_NOW, told=request.told)
    else:
        await introduce(session)
    # While it was waited for, the session was in no index: nobody else would end it or take channels from it.
    while node.grant_changes != request.grant_changes:
        request.grant_changes = node.grant_changes
        await _allowed(delivery, request)
    if delivery.services.revocations.is_revoked(request.principal):
        raise Unauthorized("the token was revoked")
    _decide_again(delivery, request, session)
    session.settle()
    if request.view is not None:
        session.max_per_user = request.view.kind.registry.max_per_user
    else:
        limit = request.tenant.settings.max_connections_per_user
        session.max_per_user = node.settings.max_per_user if limit is None else limit
    return session


async def is_final(delivery: Delivery, principal: Principal, kind: Kind) -> bool:
    """Whether a refusal by the stage is what the store says, too. This node may not have heard yet that the
    stage was changed, and the answer ends a client's attempts: then it is told to come back instead."""
    try:
        found = await delivery.tenants.get(principal.tenant)
    except BusUnavailable:
        return False
    if found is None:
        return True
    return not found.tenant.decide(principal.sub, delivery.node.now_s()).serves(kind)


def _decide_again(delivery: Delivery, request: Request, session: Session) -> None:
    """Brings a session up to what its tenant has become while it was waited for. Raises BusUnavailable where
    it has to come back to be judged anew: keys are others now, or its transport is refused."""
    tenant = delivery.tenants.current(request.tenant.id)
    if tenant is request.tenant:
        return
    if tenant is None or tenant.keys != request.tenant.keys:
        raise BusUnavailable("the tenant's keys were changed just now", retry_after_s=1)
    request.tenant = tenant
    decision = request.decision = tenant.decide(request.principal.sub, delivery.node.now_s())
    if not decision.serves(session.encoding.transport):
        raise BusUnavailable("the tenant's stage was changed just now", retry_after_s=1)
    session.stage, session.pairs = decision.stage.value, pairs_of(decision)


def _identifier(parameters: dict[str, list[str]], name: str) -> str:
    text = _last(parameters, name)
    if not text:
        return ""
    try:
        return check_id(text)
    except BadChannel:
        raise BadRequest(f"{name} is 1 to 256 bytes without control characters", code="bad-id") from None


def _last(parameters: dict[str, list[str]], name: str) -> str:
    found = parameters.get(name)
    return found[-1] if found else ""


def _decoded(text: str, *, lenient: bool) -> str:
    if "%" not in text and "+" not in text:
        return text
    try:
        return unquote_plus(text, errors="strict")
    except UnicodeDecodeError:
        if lenient:
            return "?"
        raise BadChannel("a parameter is not valid UTF-8", code="bad-utf8") from None
