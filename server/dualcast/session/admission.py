"""Who may connect: limits per node, per address, per tenant and per user, checked before a session exists."""

from __future__ import annotations

from collections.abc import Sequence

from dualcast.model.channel import ALL
from dualcast.model.codes import Close
from dualcast.model.errors import DualcastError, LimitExceeded, RateLimited
from dualcast.model.principal import Principal

from .node import Node
from .session import Session


class ConnectionLimit(DualcastError):
    """Too many connections; come back later."""

    code = "connection-limit"
    status = 503
    retryable = True


def check_channels(node: Node, names: Sequence[str]) -> None:
    """Raises LimitExceeded when one connection would have too many channels of these names, or too many of
    presence."""
    settings = node.settings
    presence = sum(name.startswith("presence:") for name in names)
    if len(names) > settings.max_channels or presence > settings.max_presence_channels:
        raise LimitExceeded("too many channels on one connection", code="too-many-channels")


def check_limits(node: Node, address: str, *, per_address: int) -> None:
    """Raises ConnectionLimit (node full) or RateLimited (too many from `address`). `per_address` 0: no
    limit."""
    if len(node.hub.sessions) >= node.settings.max_connections:
        raise ConnectionLimit("this server has as many connections as it may", retry_after_s=5)
    if per_address and node.per_address.get(address, 0) >= per_address:
        raise RateLimited("too many connections from this address", code="address-limit", retry_after_s=10)


def check_tenant_limit(node: Node, tenant: str, limit: int | None) -> None:
    """Raises ConnectionLimit when the tenant has `limit` connections on this node; None: no limit."""
    everybody = node.hub.known(tenant, ALL) if limit is not None else None
    if limit is not None and everybody is not None and len(everybody.sessions) >= limit:
        raise ConnectionLimit("the tenant has as many connections as it may", retry_after_s=5)


def evict_oldest(node: Node, principal: Principal, *, limit: int) -> int:
    """Closes the user's oldest native sessions so that one more stays within `limit`; returns how many."""
    channel = node.hub.known(principal.tenant, "user:" + principal.sub)
    if channel is None:
        return 0
    own = [
        session
        for session in channel.sessions
        if isinstance(session, Session)
        and session.principal.sub == principal.sub
        and session.dialect.name == "native"
        and not session.view_name
    ]
    return _replace(own[: max(0, len(own) - limit + 1)])


def evict_oldest_pages(node: Node, newest: Session, *, limit: int) -> int:
    """The same among the sessions of one view (PROTO-66), 0: no limit. Pages are counted (instances), since
    one that changes its transport has two connections for a while. Who gives all connections one name has as
    many of each transport."""
    principal, pages = newest.principal, dict[str, list[Session]]()
    channel = node.hub.known(principal.tenant, "user:" + principal.sub)
    for session in channel.sessions if limit and channel is not None else ():
        if not isinstance(session, Session) or session.principal.sub != principal.sub:
            continue
        if session.view_name == newest.view_name:
            pages.setdefault(session.instance or session.id, []).append(session)
    own = [
        session
        for session in pages.pop(newest.instance, ())
        if session.encoding.transport == newest.encoding.transport
    ]
    excess = [*list(pages.values())[: max(0, len(pages) - limit + 1)], own[: max(0, len(own) - limit + 1)]]
    return _replace([session for page in excess for session in page])


def _replace(sessions: list[Session]) -> int:
    for session in sessions:
        session.counters.replaced += 1
        session.close(Close.REPLACED)
    return len(sessions)
