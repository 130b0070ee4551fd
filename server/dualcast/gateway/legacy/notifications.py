"""The REST endpoints of the contract `notifications` (docs/contracts/legacy-wire.md section 3): the inbox in
numbered pages, statistics, and what an operator asked when connections leaked.

They stand on the inbox of `/v1/users/{user}/notifications`; errors are problems as everywhere.
"""

from __future__ import annotations

import time
from typing import Annotated, Any, Literal
from urllib.parse import unquote_to_bytes

from litestar import get, post
from litestar.params import FromPath, QueryParameter
from msgspec import Raw, Struct

from dualcast.dialects.notifications import stored
from dualcast.gateway.authentication import PUBLIC, ROLE
from dualcast.gateway.services import Caller, Injected
from dualcast.inbox.port import InboxItem
from dualcast.inbox.service import MAX_PAGE
from dualcast.model.channel import check_id
from dualcast.model.errors import BadChannel, NotFound
from dualcast.model.principal import ADMIN
from dualcast.model.times import utc_text

from .notices import refusals
from .statistics import StatsCaller, statistics, stats_caller

MAX_CHANNELS = 1000
"""Names in `pubsub.channels`; `active_channels` counts all."""
OLDER_CHANNELS = "notifications:*"

_PATH = "/api/notifications"
_TAG = ["notifications contract"]
_SAID = refusals("Unauthorized", "Forbidden")


class Answer(Struct, frozen=True, kw_only=True):
    """What every answer of this contract is wrapped in."""

    success: bool = True
    data: Any = None
    message: str = "ok"
    timestamp: str


def answer(data: object = None) -> Answer:
    """`data` in the envelope, with the time of now."""
    return Answer(data=data, timestamp=utc_text(int(time.time() * 1000)))


@get(
    _PATH,
    exception_handlers=_SAID,
    summary="List one's notifications",
    tags=_TAG,
    operation_id="NotificationsList",
)
async def list_notifications(
    services: Injected,
    caller: Caller,
    status: Annotated[Literal["unread", "read", "all"], QueryParameter(description="Only these")] = "all",
    kind: Annotated[str, QueryParameter(name="type", description="Only of this type", max_length=128)] = "",
    page: Annotated[int, QueryParameter(ge=1, le=1_000_000, description="From 1")] = 1,
    page_size: Annotated[int, QueryParameter(ge=1, le=MAX_PAGE, description="Notifications per page")] = 20,
) -> Answer:
    """The caller's own inbox, newest first."""
    items, total = await services.inbox.page(
        caller.tenant, caller.sub, status=status, kind=kind, page=page, page_size=page_size
    )
    shown = [Raw(_stored(item)) for item in items]
    return answer({"items": shown, "total": total, "page": page, "page_size": page_size})


@get(
    _PATH + "/unread_count",
    exception_handlers=_SAID,
    summary="Count one's unread notifications",
    tags=_TAG,
    operation_id="NotificationsUnreadCount",
)
async def unread_count(services: Injected, caller: Caller) -> Answer:
    """What older clients poll every 30 s."""
    return answer({"count": (await services.inbox.counts(caller.tenant, caller.sub)).unread})


@post(
    _PATH + "/{notification:str}/read",
    status_code=200,
    exception_handlers=_SAID,
    summary="Mark a notification read",
    tags=_TAG,
    operation_id="NotificationsRead",
)
async def mark_read(services: Injected, caller: Caller, notification: FromPath[str]) -> Answer:
    """Succeeds however often it is asked. 404 `Notification not found` when the caller does not have it."""
    try:
        ident = check_id(unquote_to_bytes(notification).decode())
    except (UnicodeDecodeError, BadChannel):
        raise _unknown() from None
    marked = await services.inbox.mark(caller.tenant, caller.sub, "read", (ident,))
    if marked.unknown:
        raise _unknown()
    return answer()


@post(
    _PATH + "/read_all",
    status_code=200,
    exception_handlers=_SAID,
    summary="Mark all notifications read",
    tags=_TAG,
    operation_id="NotificationsReadAll",
)
async def mark_all_read(services: Injected, caller: Caller) -> Answer:
    """`updated`: how many were unread."""
    marked = await services.inbox.mark(caller.tenant, caller.sub, "read", None)
    return answer({"updated": marked.count})


@get(
    "/api/ws/stats",
    opt={PUBLIC: True},
    exception_handlers=_SAID,
    dependencies={"asking": stats_caller},
    summary="Connection statistics",
    tags=_TAG,
    operation_id="NotificationsStats",
)
async def stats(services: Injected, asking: StatsCaller) -> dict[str, Any]:
    """For administrators, or for everybody with `legacy_stats_public`. One body with the keys that the
    contracts `notifications` and `topics` know (section 3.6)."""
    found = await statistics(services, asking.tenant, "topic:")
    users = dict(sorted(found.users.items()))
    topics = {channel.partition(":")[2]: count for channel, count in sorted(found.groups.items())}
    return {
        "total_users": len(users),
        "total_connections": found.total_connections,
        "users": users,
        "success": True,
        "data": {
            "total_connections": found.total_connections,
            "total_users": len(users),
            "total_subscriptions": sum(topics.values()),
            "topics": list(topics),
            "users": list(users),
        },
    }


@get(
    _PATH + "/debug/redis_pool",
    opt={ROLE: ADMIN},
    exception_handlers=_SAID,
    summary="How the Redis connection pool stands",
    tags=_TAG,
    operation_id="NotificationsRedisPool",
)
async def redis_pool(services: Injected, caller: Caller) -> Answer:
    """No number here grows with the clients of this server: they share its connections. `pubsub` counts
    older servers' channels."""
    plain = services.redis
    if plain is None:
        return answer({"pool": None, "redis_server": None, "pubsub": {"active_channels": 0, "channels": []}})
    server = await plain.server()
    # Their names name users, and older servers' users are of one tenant.
    theirs = caller.tenant == services.legacy.tenant
    channels = await plain.channels(OLDER_CHANNELS) if theirs else []
    pubsub = {"active_channels": len(channels), "channels": channels[:MAX_CHANNELS]}
    return answer({"pool": plain.pool(), "redis_server": server, "pubsub": pubsub})


ROUTES: tuple[Any, ...] = (
    list_notifications,
    unread_count,
    mark_read,
    mark_all_read,
    stats,
    redis_pool,
)
"""The handlers of this module."""


def _stored(item: InboxItem) -> bytes:
    return stored(item.record, "read" if item.state in ("read", "archived") else "unread")


def _unknown() -> NotFound:
    return NotFound("Notification not found", code="unknown-notification")
