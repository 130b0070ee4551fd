"""The names older backends use in Redis (contract section 10), and the steps on them that must be one.

Everything goes over connections the bus has anyway (`bus.storage.Scripting`), but for one subscriber more,
the `Hearing`.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable, Sequence
from hashlib import blake2b
from importlib.resources import files
from typing import NoReturn, Protocol

import msgspec
from msgspec import Struct

from dualcast.bus.storage import Extension, Scripting
from dualcast.model.channel import key_part

NOTIFICATIONS = "notifications:"
PROGRESS = "task_progress:"
BROADCAST = "ws:broadcast"
PRESENCE = "ws:presence"
CHANNELS = (BROADCAST, PRESENCE)
PATTERNS = (NOTIFICATIONS + "*", PROGRESS + "*")
GROUP = "presence:conversations"
"""Who is online in the sense of the contract `conversations` (section 6.5)."""
INSTANCE = "dualcast-"
"""How the `instance_id` of every dualcast instance begins."""
KEEP_S = 120
"""What was heard and said is remembered so long: longer than a message may wait anywhere."""
_pack = msgspec.msgpack.Encoder().encode


def extension() -> Extension:
    """The scripts of this room, for `RedisBus(extensions=…)`."""
    folder = files("dualcast_migration") / "lua"
    names = ("sight", "say", "listed", "lead")
    return Extension(
        scripts={f"older-{name}": (folder / f"{name}.lua").read_text(encoding="utf-8") for name in names}
    )


class Hearing(Protocol):
    """The subscriber connection (`bus.redis.listening.Listening`)."""

    resubscribes: int
    failures: int
    stale: int

    @property
    def up(self) -> bool:
        """Everything is subscribed to."""
        ...

    async def run(self, heard: Callable[[bytes, bytes], None], opened: Callable[[int], None]) -> NoReturn:
        """Hears until cancelled: `heard(channel, payload)` per message, `opened(server time in microseconds)`
        before the first of each subscription."""
        ...


class Sighting(Struct, frozen=True):
    """One message a node heard."""

    hash: str
    """`mark` of it."""
    number: int
    """In its subscription."""
    subject: str = ""
    """Of which only the latest message counts; "": none."""


class Sight(Struct, frozen=True):
    """What the nodes together know of a message."""

    place: str
    """Names this occurrence of it, on every node alike; "": dualcast published it."""
    sequence: int
    """Unix microseconds, never the same twice: the order of what was heard first."""
    latest: bool
    """Nothing later was heard of its subject."""


class Publish(Struct, frozen=True):
    """A copy for a channel. `guarded`: nothing in it says that it is dualcast's."""

    channel: str
    payload: bytes
    guarded: bool = False


class Told(Struct, frozen=True):
    """`user` came online or went, said on `ws:presence` and in the set, if that is still so."""

    user: str
    online: bool
    payload: bytes


class PutBack(Struct, frozen=True):
    """`user` belongs in the set while more than `spare` connections are in the group."""

    user: str
    spare: int = 0


Copy = Publish | Told | PutBack


def mark(channel: str, payload: bytes) -> str:
    """Equal for equal messages only."""
    return blake2b(channel.encode() + b"\0" + payload, digest_size=16).hexdigest()


class OlderRedis:
    """The scripts. All methods raise BusUnavailable; a call that is repeated does nothing twice."""

    def __init__(self, scripting: Scripting, tenant: str) -> None:
        self._call = scripting.call
        self._tenant = tenant

    async def sight(self, subscription: str, since: int, seen: Sequence[Sighting]) -> list[Sight]:
        """Tells what this node heard; a Sight for each. `since`: server time when its subscription began."""
        items = [(one.hash, one.number, one.subject) for one in seen]
        found = await self._call("older-sight", self._tenant, _pack((subscription, since, KEEP_S, items)))
        return [Sight(place.decode(), sequence, bool(latest)) for place, sequence, latest in found]

    async def say(self, copies: Sequence[Copy], token: str = "") -> int:
        """Publishes, once however often it is called with `token`; how many programs were reached."""
        items: list[tuple[str | int, ...]] = []
        payloads: list[bytes] = []
        for copy in copies:
            if isinstance(copy, Publish):
                guard = mark(copy.channel, copy.payload) if copy.guarded else ""
                items.append(("p", copy.channel, guard))
                payloads.append(copy.payload)
            elif isinstance(copy, Told):
                items.append(("w", copy.user, _part(copy.user), int(copy.online)))
                payloads.append(copy.payload)
            else:
                items.append(("s", copy.user, _part(copy.user), copy.spare))
        head = _pack((token or secrets.token_hex(12), KEEP_S, key_part(GROUP), items))
        return int(await self._call("older-say", self._tenant, head, *payloads))

    async def listed(self, users: Sequence[str]) -> list[bool]:
        """Whether each stands in the set of online users. At most some thousand."""
        found = await self._call("older-listed", self._tenant, *(user.encode() for user in users))
        return [bool(one) for one in found]

    async def lead(self, node: str, hold_ms: int) -> bool:
        """Whether `node` tidies up for all until it asks again, at most `hold_ms` later."""
        return bool(await self._call("older-lead", self._tenant, node.encode(), str(hold_ms).encode()))


def _part(user: str) -> str:
    return key_part("user:" + user)
