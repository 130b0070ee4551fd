"""`legacy_mirror`: notifications and task progress also on the older channels, for clients still connected to
an old SSE server (contract section 9).

| setting | a copy on `notifications:{user}` and `task_progress:{task}` |
|---|---|
| `off` | never |
| `fallback` | while the user (of a task: its owner) has no live socket here |
| `always` | always |

The tenant's stage record decides, changed at any time and in every stage; where it says nothing, the node's
setting does.

What went to `all` has no older channel and is not copied, nor is what an audience narrows to roles,
connections or device kinds: nobody knows that of clients elsewhere. A socket is a WebSocket: someone on SSE
here may have a tab that is still on SSE there.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, Protocol

import msgspec

from dualcast.model.publication import Audience, Draft

from .legacy_redis import NOTIFICATIONS, PROGRESS, Copy, Publish
from .older_shapes import eight_keys, progress_data
from .policy import MirrorMode as Mode

SOCKET = "ws"
LOOK_AT = 1000
"""Connections of a user that are looked at."""
TOGETHER = 50
"""Users asked about at a time."""
_task = msgspec.json.Decoder(dict[str, Any]).decode


class Connection(Protocol):
    """A live connection (`presence.port.ConnectionFacts`)."""

    @property
    def transport(self) -> str: ...


Connections = Callable[[str, str | None, str, int], Awaitable[Sequence[Connection]]]
"""`presence.service.PresenceService.connections`: (tenant, user, after, limit)."""


class Mirror:
    """A `CopySource`. `mode`: asked for each publication."""

    types = frozenset({"notification", "task"})

    def __init__(self, mode: Callable[[], Mode], tenant: str, connections: Connections) -> None:
        self._mode = mode
        self._tenant = tenant
        self._connections = connections

    def wants(self) -> bool:
        return self._mode() != "off"

    async def copies(self, draft: Draft) -> Sequence[Copy]:
        """One for each user, or one for the task. Raises BusUnavailable."""
        if draft.ephemeral or not self.wants():
            return ()
        if draft.type == "task":
            return await self._progress(draft)
        users = due_users(draft)
        if not users:
            return ()
        payload = eight_keys(draft.data)
        return [Publish(NOTIFICATIONS + user, payload, guarded=True) for user in await self._without(users)]

    async def _progress(self, draft: Draft) -> Sequence[Copy]:
        task = _task(draft.data)
        if task["state"] == "queued" or not await self._without((task["owner"],)):
            return ()
        return (Publish(PROGRESS + task["id"], progress_data(task), guarded=True),)

    async def _without(self, users: Sequence[str]) -> Sequence[str]:
        """Those of `users` who are due a copy."""
        if self._mode() != "fallback":
            return users
        due: list[str] = []
        for start in range(0, len(users), TOGETHER):
            part = users[start : start + TOGETHER]
            found = await asyncio.gather(*(self._on_socket(user) for user in part))
            due.extend(user for user, live in zip(part, found, strict=True) if not live)
        return due

    async def _on_socket(self, user: str) -> bool:
        found = await self._connections(self._tenant, user, "", LOOK_AT)
        return any(one.transport == SOCKET for one in found)


def due_users(draft: Draft) -> list[str]:
    """The users `draft` goes to by their own channels, those its audience leaves."""
    users = [channel[5:] for channel in draft.channels if channel.startswith("user:")]
    audience: Audience | None = draft.audience
    if audience is None:
        return users
    if audience.roles or audience.connections or audience.devices:
        return []
    return left(users, audience)


def left(users: Sequence[str], audience: Audience) -> list[str]:
    """Of `users`, those `audience` neither leaves out nor excludes."""
    only = None if audience.users is None else frozenset(audience.users)
    without = frozenset(audience.exclude_users)
    return [user for user in users if user not in without and (only is None or user in only)]
