"""What a connect request says of its client, for the census and the guard (`node.evidence`)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from dualcast.model.errors import DualcastError
from dualcast.model.principal import Principal
from dualcast.session.node import Node
from dualcast_migration.census import Visitor, visitor

from .body import Scope, header

APP = "app"
"""Query parameter: the version the client gives itself, 1 to 64 printable characters."""
FALLBACK_REASON = "fallback_reason"
"""Query parameter of a stream: why the client has no WebSocket."""
_CALLER = "dualcast.caller"


def visitor_of(scope: Scope, parameters: Mapping[str, Sequence[str]], *, resumed: bool) -> Visitor:
    """From the request's headers and its query. `resumed`: it named a cursor."""
    app = parameters.get(APP)
    return visitor(
        header(scope, b"user-agent"),
        app[-1] if app else "",
        header(scope, b"origin"),
        header(scope, b"referer"),
        resumed=resumed,
    )


def note_caller(scope: Scope, principal: Principal) -> None:
    """Who asks is known from here on, so a refusal can be told of the right tenant."""
    scope[_CALLER] = principal


def note_refusal(node: Node, scope: Scope, transport: str, error: DualcastError) -> None:
    """A handshake was refused; who called is not always known."""
    principal = scope.get(_CALLER)
    if isinstance(principal, Principal):
        node.evidence.refused(principal.tenant, principal.sub, transport, error)


def note_fallback(
    node: Node, scope: Scope, principal: Principal, parameters: Mapping[str, Sequence[str]]
) -> None:
    """A stream was asked for; its client may say why it has no WebSocket.

    An `EventSource` that comes back by itself repeats its URL, and with it a reason of long ago; it is known
    by its `Last-Event-ID`.
    """
    reasons = parameters.get(FALLBACK_REASON)
    if reasons and reasons[-1] and not header(scope, b"last-event-id"):
        node.evidence.fell_back(principal.tenant, principal.sub, reasons[-1])
