"""The statistics endpoint of the contract `progress` (docs/contracts/legacy-wire.md section 7.5).

Numbers are of this node, and of the asking administrator's tenant. Nothing that came with a request (headers,
query) is in them (R34).
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice
from typing import Any

from litestar import get

from dualcast.dialects.legacy import Facts
from dualcast.dialects.progress import DIALECT
from dualcast.gateway.authentication import PUBLIC
from dualcast.gateway.services import Injected
from dualcast.model.times import utc_text
from dualcast.session.node import Node
from dualcast.transport.legacy import LegacySession

from .notices import refusals
from .statistics import StatsCaller, stats_caller

MAX_LISTED = 10_000
"""Connections described one by one; all are counted."""


class LiveFacts:
    """The legacy connections of a node, oldest first: a `services.Services.legacy_facts`."""

    def __init__(self, node: Node) -> None:
        self._node = node

    def __call__(self, tenant: str, dialect: str) -> Iterator[Facts]:
        for session in list(self._node.hub.sessions.values()):
            if isinstance(session, LegacySession) and session.dialect.name == dialect:
                facts = session.legacy.facts
                if facts.tenant == tenant:
                    yield facts


@get(
    "/api/websocket/stats",
    opt={PUBLIC: True},
    exception_handlers=refusals("Unauthorized", "Forbidden"),
    dependencies={"asking": stats_caller},
    summary="Statistics of progress connections",
    tags=["progress contract"],
    operation_id="ProgressStats",
)
async def stats(services: Injected, asking: StatsCaller) -> dict[str, Any]:
    """For administrators, or for everybody with `legacy_stats_public`. `total_connections` counts since
    start; several connections of one client id are one entry in the lists.
    """
    total = services.counters.part(asking.tenant, "ws", DIALECT)
    live = services.legacy_facts(asking.tenant, DIALECT)
    details = {facts.params["client_id"]: _described(facts) for facts in islice(live, MAX_LISTED)}
    return {
        "total_connections": total.opened,
        "active_count": total.connections,
        # Each connection's first message is neither a publication nor an answer.
        "messages_sent": total.delivered + total.said + total.opened,
        "messages_received": total.received,
        "active_connections": list(details),
        "connection_details": details,
    }


def _described(facts: Facts) -> dict[str, str]:
    return {
        "client_id": facts.params["client_id"],
        "state": "CONNECTED",
        "client_ip": facts.address,
        "connected_at": utc_text(facts.opened_ms),
    }


ROUTES: tuple[Any, ...] = (stats,)
