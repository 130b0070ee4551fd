"""What rides along with a publication into the same atomic step: inbox items, and pushes for those who are
away.

A *rider* is stored by the bus engine together with the append: either both happened or neither. Engines hand
riders to the rooms that understand them (`bus.storage`); the bus itself does not.
"""

from __future__ import annotations

from typing import Literal

from msgspec import Struct

State = Literal["unseen", "seen", "read", "archived"]
"""States of an inbox item, in this order; an item never goes back but for `read` → `seen` (marked unread)."""
DeviceKind = Literal["mobile", "desktop", "tablet", "web"]
DEVICE_KINDS: tuple[DeviceKind, ...] = ("mobile", "desktop", "tablet", "web")


class Badge(Struct, frozen=True, array_like=True, gc=False):
    """Counters of one user's inbox at one version. A later version is the one whose `user_revision` or
    `tenant_revision` is higher (neither ever falls).

    On a tenant-wide publication only `tenant_revision` is known: `unread` and `unseen` are -1, and whoever
    had the revision before adds one to both.
    """

    unread: int
    """Items that are unseen or seen."""
    unseen: int
    user_revision: int
    tenant_revision: int


class InboxRider(Struct, frozen=True, array_like=True, gc=False):
    """Keep the publication as an inbox item. Its record is the publication itself."""

    users: tuple[str, ...] = ()
    """Into these users' inboxes; each has its `user:` channel among the targets."""
    wide: bool = False
    """Once for the whole tenant; `all` is the target."""
    kind: str = ""
    """The notification's type, for filters."""


class PushRider(Struct, frozen=True, array_like=True, gc=False):
    """Queue a device push for those of `users` who are away."""

    users: tuple[str, ...]
    message: bytes
    """`model.push.PushMessage`, encoded; opaque to the bus."""
    always: bool = False
    """Whoever is online, too."""
    devices: tuple[str, ...] = ()
    """Only a live connection of one of these device kinds makes a push needless; (): any connection does."""
    deadline_ms: int = 0
    """Unix milliseconds after which it is not sent any more; 0: the queue's own deadline."""
