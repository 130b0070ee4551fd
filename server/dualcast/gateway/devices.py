"""`/v1/users/{user}/devices`: the device registry."""

from __future__ import annotations

from typing import Annotated
from urllib.parse import unquote_to_bytes

from litestar import delete, get, put
from litestar.params import FromPath, JSONBody
from msgspec import Meta, Struct

from dualcast.dialects.native import rfc3339
from dualcast.model.errors import BadRequest
from dualcast.presence.devices import MAX_NAME
from dualcast.presence.service import DeviceView as Registered

from .presence import own_or_backend
from .services import Caller, Injected

_PATH = "/v1/users/{user:str}/devices"
_ONE = _PATH + "/{device:str}"


class DeviceView(Struct, frozen=True):
    """One device of a user."""

    id: str
    kind: str
    """`mobile`, `desktop`, `tablet`, `web`, or "" when it never said."""
    name: str
    first_seen: str
    """RFC 3339, UTC."""
    last_seen: str
    """When a connection of it last came or went."""
    connected: bool


class DeviceList(Struct, frozen=True):
    """All of them, last seen first; at most 50."""

    devices: list[DeviceView]


class DeviceBody(Struct, frozen=True, forbid_unknown_fields=True):
    """A device's name; with `kind`, a device that is not known yet is registered."""

    name: Annotated[str, Meta(max_length=MAX_NAME)] = ""
    kind: Annotated[str, Meta(max_length=16)] = ""


@get(_PATH, summary="A user's devices", tags=["devices"], operation_id="ListDevices")
async def list_devices(services: Injected, caller: Caller, user: FromPath[str]) -> DeviceList:
    """For that user, and for backends. Devices are registered by connecting with `device_id`."""
    found = await services.presence.devices(caller.tenant, own_or_backend(caller, user))
    return DeviceList([_view(one) for one in found])


@put(_ONE, summary="Name or register a device", tags=["devices"], operation_id="PutDevice")
async def put_device(
    services: Injected, caller: Caller, user: FromPath[str], device: FromPath[str], data: JSONBody[DeviceBody]
) -> DeviceView:
    """For that user, and for backends. Without `kind` an unknown device is a 404."""
    name = own_or_backend(caller, user)
    return _view(
        await services.presence.name_device(caller.tenant, name, _ident(device), data.name, data.kind)
    )


@delete(_ONE, summary="Forget a device", tags=["devices"], operation_id="DeleteDevice")
async def delete_device(
    services: Injected, caller: Caller, user: FromPath[str], device: FromPath[str]
) -> None:
    """For that user, and for backends. Its connections stay; a new one registers it again."""
    await services.presence.forget_device(caller.tenant, own_or_backend(caller, user), _ident(device))


def _ident(segment: str) -> str:
    try:
        return unquote_to_bytes(segment).decode()
    except UnicodeDecodeError:
        raise BadRequest("a device id is UTF-8", code="bad-id") from None


def _view(registered: Registered) -> DeviceView:
    device = registered.device
    return DeviceView(
        id=device.id,
        kind=device.kind,
        name=device.name,
        first_seen=rfc3339(device.first_seen_ms),
        last_seen=rfc3339(device.last_seen_ms),
        connected=registered.connected,
    )


ROUTES = (list_devices, put_device, delete_device)
