"""The REST endpoints of the contract `rooms` (docs/contracts/legacy-wire.md section 4)."""

from __future__ import annotations

import time
from typing import Annotated, Any

import msgspec
from litestar import get, post
from litestar.params import FromPath, HeaderParameter, JSONBody

from dualcast.dialects.rooms import stats_data
from dualcast.gateway.authentication import PUBLIC, ROLE
from dualcast.gateway.channels import id_of
from dualcast.gateway.services import Caller, Injected
from dualcast.model.errors import Forbidden
from dualcast.model.principal import ADMIN, PUBLISHER
from dualcast.model.times import utc_text
from dualcast.model.uuid7 import Uuid7
from dualcast.publishing.requests import NotificationRequest, Target

from .notices import notify, refusals, rooms_notification, split, tell
from .statistics import StatsCaller, statistics, stats_caller

FEATURES = ("Real-time notifications", "Live sync updates", "System messages", "Room subscriptions")
DEMO_TITLE = "欢迎使用通知系统"
DEMO_MESSAGE = "这是一个演示通知，展示了实时通知功能的工作原理。"
DEMO_TTL_S = 86_400

_TAG = ["rooms contract"]
_SAID = refusals("Unauthorized", "Forbidden")
_ADMIN = {ROLE: ADMIN}
_new_id = Uuid7()
Body = JSONBody[dict[str, Any]]
Key = Annotated[str, HeaderParameter(name="Idempotency-Key", max_length=128)]


@post(
    "/api/v1/ws/broadcast",
    status_code=200,
    opt=_ADMIN,
    exception_handlers=_SAID,
    summary="Send a system message",
    tags=_TAG,
    operation_id="RoomsBroadcast",
)
async def broadcast(services: Injected, caller: Caller, data: Body, key: Key = "") -> dict[str, Any]:
    """To the `target_users`, or to all without. The message is the object under `message`, or the body."""
    message, users = split(data, "message")
    await tell(services, caller, "system_message", message, users, key)
    return {
        "status": "sent",
        "target_users": "all" if users is None else users,
        "message": "Message broadcasted successfully",
    }


@post(
    "/api/v1/ws/notify/{user_id:str}",
    status_code=200,
    opt=_ADMIN,
    exception_handlers=_SAID,
    summary="Send a notification to a user",
    tags=_TAG,
    operation_id="RoomsNotify",
)
async def notify_user(
    services: Injected, caller: Caller, user_id: FromPath[str], data: Body, key: Key = ""
) -> dict[str, str]:
    """Stored, then pushed. The body is the notification itself; keys beyond the contract's are kept."""
    user = id_of("user", user_id)
    await notify(services, caller, rooms_notification(data), [user], key)
    return {"status": "sent", "user_id": user, "message": "Notification sent successfully"}


@post(
    "/api/v1/ws/sync-update/{user_id:str}",
    status_code=200,
    opt=_ADMIN,
    exception_handlers=_SAID,
    summary="Tell a user's devices to synchronise",
    tags=_TAG,
    operation_id="RoomsSyncUpdate",
)
async def sync_update(
    services: Injected, caller: Caller, user_id: FromPath[str], data: Body, key: Key = ""
) -> dict[str, str]:
    """Live, in no inbox. The body is the update itself."""
    user = id_of("user", user_id)
    await tell(services, caller, "sync_update", data, [user], key)
    return {"status": "sent", "user_id": user, "message": "Sync update sent successfully"}


@get(
    "/api/v1/ws/connections/{user_id:str}",
    exception_handlers=_SAID,
    summary="How many connections a user has",
    tags=_TAG,
    operation_id="RoomsConnections",
)
async def connections(services: Injected, caller: Caller, user_id: FromPath[str]) -> dict[str, Any]:
    """For that user and for administrators. On all nodes, of all kinds."""
    user = id_of("user", user_id)
    if user != caller.sub and not caller.is_admin:
        raise Forbidden("only an administrator sees other users")
    found = await services.presence.presence_of(caller.tenant, user)
    return {"user_id": user, "connections": found.connections, "is_online": found.connections > 0}


@get(
    "/api/v1/ws/stats",
    opt={PUBLIC: True},
    exception_handlers=_SAID,
    dependencies={"asking": stats_caller},
    summary="Connection statistics",
    tags=_TAG,
    operation_id="RoomsStats",
)
async def stats(services: Injected, asking: StatsCaller) -> dict[str, Any]:
    """For administrators, or for everybody with `legacy_stats_public`."""
    found = await statistics(services, asking.tenant, "room:")
    return {"status": "active", "stats": stats_data(asking.user, True, found), "features": FEATURES}


@get(
    "/api/v1/ws/test",
    opt={PUBLIC: True},
    exception_handlers=_SAID,
    dependencies={"asking": stats_caller},
    summary="Whether the WebSocket API works",
    tags=_TAG,
    operation_id="RoomsTest",
)
async def test(services: Injected, asking: StatsCaller) -> dict[str, Any]:
    """For whom the statistics are."""
    found = await statistics(services, asking.tenant, "room:")
    return {
        "message": "WebSocket API is working",
        "features": FEATURES,
        "current_stats": stats_data(asking.user, True, found),
    }


@post(
    "/api/v1/notifications/demo",
    status_code=200,
    exception_handlers=_SAID,
    summary="Send myself a notification",
    tags=_TAG,
    operation_id="RoomsDemo",
)
async def demo(services: Injected, caller: Caller) -> dict[str, Any]:
    """A notification for the caller, who needs no role for it; it expires after a day."""
    now = utc_text(int(time.time() * 1000))
    ident = _new_id()
    request = NotificationRequest(
        to=Target(user=caller.sub),
        title=DEMO_TITLE,
        content=DEMO_MESSAGE,
        id=ident,
        created_at=now,
        ttl_s=DEMO_TTL_S,
    )
    server = msgspec.structs.replace(caller, roles=frozenset({PUBLISHER}))
    await services.publisher.publish(server, request)
    online = await services.presence.presence_of(caller.tenant, caller.sub)
    return {
        "id": ident,
        "title": DEMO_TITLE,
        "message": DEMO_MESSAGE,
        "created_at": now,
        "status": "created",
        "notification_id": ident,
        "user_id": caller.sub,
        "websocket_sent": online.connections > 0,
    }


ROUTES: tuple[Any, ...] = (broadcast, notify_user, sync_update, connections, stats, test, demo)
