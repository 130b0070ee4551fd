"""The REST endpoints of the contract `topics` (docs/contracts/legacy-wire.md section 5); its statistics are
shared with `notifications`.
"""

from __future__ import annotations

from typing import Annotated, Any

from litestar import post
from litestar.params import HeaderParameter, JSONBody

from dualcast.dialects.topics import ADMIN_BROADCAST
from dualcast.gateway.authentication import ROLE
from dualcast.gateway.services import Caller, Injected
from dualcast.model.principal import ADMIN

from .notices import notify, refusals, split, tell, topics_notification

_TAG = ["topics contract"]
_SAID = refusals("无效的认证凭证", "需要管理员权限")
_ADMIN = {ROLE: ADMIN}
Body = JSONBody[dict[str, Any]]
Key = Annotated[str, HeaderParameter(name="Idempotency-Key", max_length=128)]


@post(
    "/api/ws/broadcast",
    status_code=200,
    opt=_ADMIN,
    exception_handlers=_SAID,
    summary="Broadcast a message",
    tags=_TAG,
    operation_id="TopicsBroadcast",
)
async def broadcast(services: Injected, caller: Caller, data: Body, key: Key = "") -> dict[str, Any]:
    """To every authenticated connection. The body is the message."""
    told = {"data": data, "sender": caller.sub}
    await tell(services, caller, ADMIN_BROADCAST, told, None, key, authenticated_only=True)
    return {"success": True, "message": "广播成功"}


@post(
    "/api/ws/notify",
    status_code=200,
    opt=_ADMIN,
    exception_handlers=_SAID,
    summary="Send a notification",
    tags=_TAG,
    operation_id="TopicsNotify",
)
async def notify_users(services: Injected, caller: Caller, data: Body, key: Key = "") -> dict[str, Any]:
    """To the `target_users`, stored and then pushed; or to all without, anonymous connections among them, and
    not stored. The notification is the object under `notification`, or the body.
    """
    notification, users = split(data, "notification")
    await notify(services, caller, topics_notification(notification), users, key)
    return {"success": True, "message": "通知发送成功"}


ROUTES: tuple[Any, ...] = (broadcast, notify_users)
