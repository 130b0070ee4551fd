"""The device registry: which devices a user has, live or not."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple, Protocol

from msgspec import Struct

from dualcast.model.errors import BadRequest

KINDS = ("mobile", "desktop", "tablet", "web")
"""Every device kind there is."""
MAX_DEVICES = 50
"""Per user; the one not seen for longest goes."""
MAX_DEVICE_ID = 128
MAX_NAME = 128


class Device(Struct, frozen=True, kw_only=True):
    """One registered device."""

    id: str
    kind: str
    """`mobile`, `desktop`, `tablet`, `web`, or "" when its connections never said."""
    name: str = ""
    """What the user calls it."""
    first_seen_ms: int = 0
    """Unix milliseconds."""
    last_seen_ms: int = 0
    """When a connection of it last came or went."""


class Sighting(NamedTuple):
    """A connection of a device came or went. `kind` "": what is known of it stays."""

    user: str
    device: str
    kind: str


class DeviceStore(Protocol):
    """Every method raises BusUnavailable."""

    async def seen(self, tenant: str, sightings: Sequence[Sighting]) -> None:
        """Registers the devices, or notes when they were last seen."""
        ...

    async def devices(self, tenant: str, user: str) -> list[Device]:
        """At most MAX_DEVICES, last seen first."""
        ...

    async def name_device(self, tenant: str, user: str, device: str, name: str, kind: str) -> Device | None:
        """Names a device. An unknown one is registered when `kind` is given; else None."""
        ...

    async def forget_device(self, tenant: str, user: str, device: str) -> bool:
        """False: it is not registered."""
        ...


def check_kind(text: str) -> str:
    """`text` if it is a device kind; raises BadRequest `bad-device`."""
    if text not in KINDS:
        raise BadRequest("a device is one of " + ", ".join(KINDS), code="bad-device")
    return text


def check_device_id(text: str) -> str:
    """`text` if it can name a device; raises BadRequest `bad-id`."""
    if not 1 <= len(text) <= MAX_DEVICE_ID or not text.isprintable():
        raise BadRequest(f"a device id is 1 to {MAX_DEVICE_ID} printable characters", code="bad-id")
    return text


def check_name(text: str) -> str:
    """`text` if it can be shown as a device's name; raises BadRequest `bad-device`."""
    if len(text) > MAX_NAME or not text.isprintable():
        raise BadRequest(f"a device name has at most {MAX_NAME} printable characters", code="bad-device")
    return text
