"""Copies of the contract `conversations` for older backends: deliveries on `ws:broadcast`, who comes and goes
on `ws:presence` and in the set `ws:online_users` (contract section 6.6).

They stand here, not with the conversations: that room knows publications, while these copies say frames of a
dialect on names of a Redis that is going away.

A delivery is one copy per participant. A message that leaves one connection out goes to its user as well:
older backends do not have that connection.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Protocol

import msgspec
from msgspec import Raw

from dualcast.model.publication import Audience, Draft, Entry, Publication
from dualcast.model.times import utc_text

from .legacy_redis import BROADCAST, GROUP, PRESENCE, Copy, Publish, Told
from .mirror import left
from .older_shapes import encode

FRAMES = frozenset(
    {
        "conversation.direct",
        "conversation.message",
        "conversation.mobile",
        "conversation.read",
        "conversation.reply",
        "conversation.system",
        "conversation.typing",
    }
)
Frame = Callable[[Entry], bytes | Sequence[bytes]]
"""`dialects.conversations.Frames()`."""
_object = msgspec.json.Decoder(dict[str, Any]).decode


class Deliveries:
    """The `CopySource` of `ws:broadcast`. `instance`: this node's `instance_id`."""

    types = FRAMES

    def __init__(self, frame: Frame, instance: str) -> None:
        self._frame = frame
        self._instance = instance

    def wants(self) -> bool:
        return True

    async def copies(self, draft: Draft) -> Sequence[Copy]:
        """One per participant who is due one, and per device kind where it is for some kinds only."""
        users = [channel[5:] for channel in draft.channels if channel.startswith("user:")]
        audience = draft.audience or Audience()
        if audience.roles or audience.connections:
            return ()
        users = left(users, audience)
        if not users:
            return ()
        frame = self._frame(Entry(_publication(draft), draft.channels[0]))
        payloads = [frame] if isinstance(frame, bytes) else frame
        time = utc_text(draft.time_ms)
        return [
            Publish(
                BROADCAST,
                encode(
                    {
                        "target_user_id": user,
                        **({"target_device_type": device} if device else {}),
                        "payload": Raw(payload),
                        "instance_id": self._instance,
                        "timestamp": time,
                    }
                ),
            )
            for payload in payloads
            if payload
            for user in users
            for device in (audience.devices or ("",))
        ]


class Arrivals:
    """The `CopySource` of `user_online` and `user_offline`: the changes dualcast announces of GROUP."""

    types = frozenset({"presence"})

    def __init__(self, instance: str) -> None:
        self._instance = instance

    def wants(self) -> bool:
        return True

    async def copies(self, draft: Draft) -> Sequence[Copy]:
        """One per user who came or went."""
        if GROUP not in draft.channels:
            return ()
        said = _object(draft.data)
        return [
            Told(user, online, self._event(user, online, draft.time_ms))
            for online, users in ((True, said["joined"]), (False, said["left"]))
            for user in users
        ]

    def _event(self, user: str, online: bool, time_ms: int) -> bytes:
        return encode(
            {
                "event_type": "user_online" if online else "user_offline",
                "user_id": user,
                "instance_id": self._instance,
                "timestamp": utc_text(time_ms),
            }
        )


class Facts(Protocol):
    """A connection (`presence.port.ConnectionFacts`)."""

    @property
    def id(self) -> str: ...
    @property
    def user(self) -> str: ...
    @property
    def device(self) -> str: ...
    @property
    def device_id(self) -> str: ...
    @property
    def instance(self) -> str:
        """What the client calls its connection; "": as dualcast does."""
        ...


class Join(Protocol):
    """A connection that came, or changed its groups (`presence.port.Join`)."""

    @property
    def facts(self) -> Facts: ...
    @property
    def groups(self) -> tuple[str, ...]: ...


class Devices:
    """`device_connected` and `device_disconnected` of this node's connections of the contract."""

    def __init__(
        self, instance: str, put: Callable[[Sequence[Copy]], None], now_ms: Callable[[], int]
    ) -> None:
        self._instance = instance
        self._put = put
        self._now_ms = now_ms
        self._known: dict[str, Facts] = {}
        self._named: dict[str, str] = {}
        """A client's name for its connection → dualcast's."""

    def find(self, connection: str) -> tuple[str, str] | None:
        """(user, dualcast's id) of a connection of this node, by either of its names. Its own comes first:
        the other one is chosen by a client, who might choose somebody's."""
        facts = self._known.get(connection) or self._known.get(self._named.get(connection, ""))
        return None if facts is None else (facts.user, facts.id)

    def told(self, joins: Sequence[Join], leaves: Sequence[str]) -> None:
        """What the node has told the presence of all: connections as they are now, and ids of those gone."""
        copies: list[Copy] = []
        for join in joins:
            facts = join.facts
            if GROUP in join.groups:
                if facts.id not in self._known:
                    copies.append(self._event("device_connected", facts))
                self._known[facts.id] = facts
                holder = self._known.get(self._named.get(facts.instance, ""))
                if facts.instance and (holder is None or holder.user == facts.user):
                    self._named[facts.instance] = facts.id
            else:
                copies += self._gone(facts.id)
        for ident in leaves:
            copies += self._gone(ident)
        self._put(copies)

    def _gone(self, ident: str) -> Sequence[Copy]:
        facts = self._known.pop(ident, None)
        if facts is None:
            return ()
        if self._named.get(facts.instance) == ident:
            del self._named[facts.instance]
        return (self._event("device_disconnected", facts),)

    def _event(self, kind: str, facts: Facts) -> Publish:
        body = {
            "event_type": kind,
            "user_id": facts.user,
            "connection_id": facts.instance or facts.id,
            "device_type": facts.device or None,
            "device_id": facts.device_id or None,
            "instance_id": self._instance,
            "timestamp": utc_text(self._now_ms()),
        }
        return Publish(PRESENCE, encode(body))


def _publication(draft: Draft) -> Publication:
    return Publication(
        tenant=draft.tenant,
        epoch="",
        offset=0,
        id=draft.id,
        type=draft.type,
        data=draft.data,
        time_ms=draft.time_ms,
    )
