"""Who may connect: limits per node, per address and per tenant, checked before a session exists. The limit
per user is kept when it is attached (`replacing`)."""

from __future__ import annotations

from collections.abc import Sequence

from dualcast.model.channel import ALL
from dualcast.model.errors import DualcastError, LimitExceeded, RateLimited

from .node import Node


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
