"""Views: the events of an older event stream over the native protocol (docs/protocol.md, PROTO-66).

The stream's own encoder makes the events, so a view says what the stream says, byte for byte. What the native
protocol adds (cursor, id, stage, gaps, pings) stands around them.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from dualcast.model.publication import Entry

from .legacy import Encode
from .legacy_text import canonical
from .native import socket_frame, stream_frame
from .native_signals import NativeSocket, NativeStream, welcome_frame
from .native_types import ViewEvent, ViewFrame, Welcome

EVENT = "publication"
"""The one event name of a view on a stream: an `EventSource` hears only names it knows beforehand."""


def events_of(blocks: bytes | Sequence[bytes]) -> list[ViewEvent]:
    """The events of SSE blocks as endpoints write them (LF, no comments). `id:` and `retry:` are left out: a
    view has a cursor, and does not end."""
    found: list[ViewEvent] = []
    for block in (blocks,) if isinstance(blocks, bytes) else blocks:
        lines = [line.partition(": ")[::2] for line in block.decode().split("\n")]
        data = [value for name, value in lines if name == "data"]
        if data:
            event = next((value for name, value in lines if name == "event"), "message")
            found.append(ViewEvent(event=event, data="\n".join(data)))
    return found


def socket_events(events: list[ViewEvent]) -> bytes:
    """The JSON text of a `view` frame that is no publication; b"" without events."""
    return socket_frame(ViewFrame(events=events)) if events else b""


def stream_events(events: list[ViewEvent]) -> bytes:
    """The same as an SSE block; b"" without events."""
    return stream_frame(ViewFrame(events=events), event=EVENT) if events else b""


class ViewEncoders:
    """From a publication to a view's text on either transport. The stream's own encoder is called once per
    entry, and what it says is quoted once."""

    def __init__(self, encode: Encode) -> None:
        """`encode`: of the stream; never raises."""
        self._encode = encode

    def _json(self, entry: Entry) -> bytes:
        """The part of the object both transports share, from `"id"` on; b"": it is not of the stream."""
        memo = entry.frames.get(self)
        if memo is None:
            events = events_of(self._encode(entry))
            memo = entry.frames[self] = (
                b'"id":%b,"events":%b}' % (canonical(entry.publication.id), canonical(events))
                if events
                else b""
            )
        return memo

    def socket(self, entry: Entry) -> bytes:
        """The JSON text of a `view` frame."""
        memo = self._json(entry)
        if not memo or not entry.offset:
            return b'{"type":"view",' + memo if memo else b""
        return b'{"type":"view","cursor":"%b-%d",%b' % (_epoch(entry), entry.offset, memo)

    def stream(self, entry: Entry) -> bytes:
        """The SSE block."""
        memo = self._json(entry)
        if not memo:
            return b""
        head = b"id: %b-%d\n" % (_epoch(entry), entry.offset) if entry.offset else b""
        return b"%bevent: %b\ndata: {%b\n\n" % (head, EVENT.encode(), memo)


def _epoch(entry: Entry) -> bytes:
    return entry.publication.epoch.encode()


def _welcome(session: Any, heartbeat_s: int) -> Welcome:
    return welcome_frame(session, heartbeat_s, view=session.view.first, told=session.view.told)


class ViewSocketSignals(NativeSocket):
    """The signals of a view's socket. `session.view` is a `transport.views.ViewState`."""

    def welcome(self, session: Any) -> bytes:
        return socket_frame(_welcome(session, session.node.settings.heartbeat_ws_s))

    def state(self, session: Any, channel: str, data: bytes | None, status: str) -> None:
        return None


class ViewStreamSignals(NativeStream):
    """The signals of a view's stream."""

    def welcome(self, session: Any) -> bytes:
        frame = _welcome(session, session.node.settings.heartbeat_sse_s)
        return stream_frame(frame, cursor=session.cursor, retry_ms=session.retry_ms())

    def state(self, session: Any, channel: str, data: bytes | None, status: str) -> None:
        return None


SOCKET = ViewSocketSignals()
STREAM = ViewStreamSignals()
