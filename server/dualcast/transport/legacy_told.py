"""What the first frames of a connection have told already, kept out of what follows them.

Rooms store a change first and announce it then. The state in the first frames may so be ahead of the log by
any time, and a legacy client takes what comes twice for two: the announcement of what the state holds must
not be written, whether it is caught up with or comes live.
"""

from __future__ import annotations

import msgspec
from msgspec import Struct

from dualcast.hub.encoding import Encoding
from dualcast.model.publication import Entry


class _Revision(Struct):
    """As much of a task or batch as tells its states apart. One that is registered anew, or here after it was
    known from the older queue, begins to count again."""

    revision: int = -1
    created_ms: int = 0


_revision = msgspec.json.Decoder(_Revision).decode


class Told(Encoding):
    """The encoding of the connections that were told the state of `channel` up to `revision`: none of that is
    written again. All other bytes are those of the endpoint's encoding `base`, the same objects.

    Fan-out has nothing to ask for it: to it, this is one more encoding.
    """

    __slots__ = ("__weakref__", "_base", "_channel", "_created_ms", "_revision")

    def __init__(self, base: Encoding, channel: str, revision: int, created_ms: int = 0) -> None:
        super().__init__(base.name, base.transport, base.encode, base.wrap, conflates=base.conflates)
        self._base = base
        self._channel = channel
        self._revision = revision
        self._created_ms = created_ms

    def frame(self, entry: Entry) -> bytes:
        if entry.channel != self._channel:
            return self._base.frame(entry)
        found = entry.frames.get(self)
        if found is None:
            found = entry.frames[self] = b"" if self.covers(entry) else self._base.frame(entry)
        return found

    def covers(self, entry: Entry) -> bool:
        """Whether `entry` is in the state that was told."""
        if entry.channel != self._channel:
            return False
        try:
            found = _revision(entry.publication.data)
        except msgspec.DecodeError:
            return False
        return found.created_ms == self._created_ms and 0 <= found.revision <= self._revision
