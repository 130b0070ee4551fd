"""What the endpoints of all contracts share; put together once by the composition root."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from dualcast.bus.announcing import Announcer
from dualcast.dialects.legacy import Farewell, LegacySettings
from dualcast.gateway.connect import Delivery
from dualcast.model.errors import NotFound
from dualcast.model.principal import Principal
from dualcast.model.publication import Audience
from dualcast.session.legacy_registry import Registry

from .refusals import RepeatedRefusals
from .stats import StatsReader

Owner = Callable[[str, str], Awaitable[str | None]]
"""(tenant, `task:` or `batch:` channel) → the user it belongs to; None: there is no such."""
Service = Callable[[Principal, str, Mapping[str, Any]], Awaitable[None]]
"""(caller, connection id, arguments of a `dialects.legacy.Call`). Raises DualcastError."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Legacy:
    """`tenant`: whose endpoints these are, for callers without a token."""

    delivery: Delivery
    settings: LegacySettings
    registry: Registry
    stats: StatsReader
    owner: Owner
    calls: Mapping[str, Service]
    tenant: str
    repeated: RepeatedRefusals = field(default_factory=RepeatedRefusals)


def task_owner(delivery: Delivery) -> Owner:
    """The Owner of tasks and batches that were registered here."""

    async def owner(tenant: str, channel: str) -> str | None:
        kind, _, ident = channel.partition(":")
        tasks = delivery.services.tasks
        try:
            found = await (tasks.get(tenant, ident) if kind == "task" else tasks.batch(tenant, ident))
        except NotFound:
            return None
        return found.owner

    return owner


def conversation_calls(delivery: Delivery) -> dict[str, Service]:
    """`typing` (conversation_id, is_typing) and `read` (conversation_id, message_ids)."""

    async def typing(principal: Principal, connection: str, arguments: Mapping[str, Any]) -> None:
        await delivery.services.conversations.typing(
            principal.tenant, arguments["conversation_id"], principal.sub, arguments["is_typing"]
        )

    async def read(principal: Principal, connection: str, arguments: Mapping[str, Any]) -> None:
        await delivery.services.conversations.read(
            principal.tenant, arguments["conversation_id"], principal.sub, arguments["message_ids"]
        )

    return {"typing": typing, "read": read}


def farewells(announcer: Announcer) -> Callable[[str, Farewell], Awaitable[None]]:
    """Publishes what a connection leaves behind."""

    async def say(tenant: str, farewell: Farewell) -> None:
        audience = Audience(roles=farewell.roles) if farewell.roles else None
        await announcer.announce(
            tenant, (farewell.channel,), farewell.event, farewell.data, ephemeral=True, audience=audience
        )

    return say
