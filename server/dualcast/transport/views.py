"""Sessions of views (PROTO-66): native ones that write the events of an older event stream."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from dualcast.dialects.legacy import Endpoint, Facts
from dualcast.dialects.native_types import ViewEvent
from dualcast.dialects.native_views import ViewEncoders, events_of, socket_events, stream_events
from dualcast.hub.encoding import Encoding
from dualcast.model.codes import Close
from dualcast.session.legacy_registry import Registry
from dualcast.session.session import Session

from . import frames
from .legacy import guarded
from .legacy_clock import Clock
from .sse import SseSession
from .websocket import WebSocketSession


class ViewKind:
    """What all sessions of one kind of view share; one per endpoint and process."""

    def __init__(self, endpoint: Endpoint, registry: Registry) -> None:
        """`endpoint`: of the stream."""
        self.endpoint = endpoint
        self.registry = registry
        text = ViewEncoders(guarded(endpoint, registry))
        name, same = f"view {endpoint.view}", endpoint.everywhere
        self.sse = Encoding(f"{name} sse", "sse", text.stream, frames.chunk, conflates=False, everywhere=same)
        self.ws = Encoding(f"{name} ws", "ws", text.socket, frames.text, conflates=False, everywhere=same)
        self.ws_deflate = Encoding(
            f"{name} ws deflate", "ws", text.socket, frames.deflated_text, conflates=False, everywhere=same
        )
        self.clocks = {transport: self._clocked(transport) for transport in ("sse", "ws")}
        """What the clock of a session goes by: the stream's heartbeats. A view does not end by itself."""

    def say(self, transport: str, blocks: bytes | Sequence[bytes]) -> bytes:
        """What the stream says that is no publication, as text of a `view`."""
        events = events_of(blocks)
        return stream_events(events) if transport == "sse" else socket_events(events)

    def _clocked(self, transport: str) -> Endpoint:
        beat = self.endpoint.heartbeat
        return replace(
            self.endpoint,
            heartbeat=None if beat is None else lambda facts: self.say(transport, beat(facts)),
            heartbeat_always=True,
            silent_s=0.0,
            ends=None,
        )


class ViewState:
    """What a session of a view is beside a session."""

    __slots__ = ("clock", "facts", "first", "kind", "name", "told")

    def __init__(self, kind: ViewKind, name: str, facts: Facts) -> None:
        self.kind = kind
        self.name = name
        self.facts = facts
        self.first: list[ViewEvent] = []
        """What the stream says first."""
        self.told: str | None = None
        """Which state of a task or batch that tells of."""
        self.clock: Clock


class ViewSession(Session):
    """What both transports share."""

    __slots__ = ()

    view: ViewState

    @property
    def view_name(self) -> str:  # type: ignore[override]
        return self.view.name

    def begin(self) -> None:
        self.view.clock.start(self.node.loop.time())
        super().begin()

    def leave(self) -> None:
        self.view.clock.stop()
        super().leave()

    def fresh_facts(self) -> Facts:
        """The facts, with the time of now."""
        self.view.facts.now_ms = int(self.node.now_s() * 1000)
        return self.view.facts

    def farewell(self, code: Close, retry_ms: int) -> None:
        kind = self.view.kind
        if code is Close.REPLACED and kind.endpoint.replaced is not None:
            last = kind.endpoint.replaced(kind.registry.max_per_user)
            self.send(kind.say(self.encoding.transport, last) or None)
        super().farewell(code, retry_ms)


class ViewStream(ViewSession, SseSession):
    """A view on Server-Sent Events."""

    __slots__ = ("cut_on_expiry", "view")

    def __init__(self, *given: Any, view: ViewState, **rest: Any) -> None:
        super().__init__(*given, **rest)
        _enter(self, view)


class ViewSocket(ViewSession, WebSocketSession):
    """A view on a WebSocket."""

    __slots__ = ("cut_on_expiry", "view")

    def __init__(self, *given: Any, view: ViewState, **rest: Any) -> None:
        super().__init__(*given, **rest)
        _enter(self, view)


def _enter(session: Any, view: ViewState) -> None:
    session.view = view
    # As on the stream: a page that was let in is not cut when its token expires, unless the setting says so.
    session.cut_on_expiry = view.kind.registry.cut_on_expiry
    view.facts.connection = session.id
    view.clock = Clock(session, view.kind.clocks[session.encoding.transport])
