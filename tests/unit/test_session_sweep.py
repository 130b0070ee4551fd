"""The sweep: heartbeats reset by traffic, dead peers, tokens that end, sessions that lag, stuck closes."""

from __future__ import annotations

from typing import Any

import pytest

from dualcast.dialects.native_signals import SOCKET, STREAM
from dualcast.model.principal import Principal
from dualcast.session.node import SessionSettings
from dualcast.transport import frames
from dualcast.transport.encodings import NATIVE_SSE, NATIVE_WS
from dualcast.transport.sse import SseSession
from dualcast.transport.websocket import WebSocketSession
from support.engine_room import Room, ids, room, words
from support.model_bus import TENANT

pytestmark = pytest.mark.anyio

QUICK = SessionSettings(sweep_s=1, heartbeat_sse_s=3, heartbeat_ws_s=4, dead_after_s=2, auth_warning_s=60)


class Wire:
    """Keeps written bytes."""

    def __init__(self) -> None:
        self.written: list[bytes] = []
        self.closed = self.aborted = False

    def set_write_buffer_limits(self, high: int, low: int) -> None: ...

    def write(self, data: bytes) -> None:
        assert not self.closed, "written after close"
        self.written.append(data)

    def take(self) -> list[bytes]:
        taken, self.written = self.written, []
        return taken

    def can_write_eof(self) -> bool:
        return True

    def write_eof(self) -> None:
        self.closed = True

    def close(self) -> None:
        self.closed = True

    def abort(self) -> None:
        self.closed = self.aborted = True


class Deaf:
    def text(self, session: Any, text: str) -> None: ...
    def binary(self, session: Any, data: bytes) -> None: ...


def attach(r: Room, kind: str, **principal: Any) -> tuple[Any, Wire]:
    """A session of a real transport room class on a wire that keeps bytes."""
    for name in ("user:u", "all"):
        r.hub.channel(TENANT, name)
    r.bus.confirm()
    who = Principal("t", "u", **principal)
    session: Any
    if kind == "sse":
        session = SseSession(r.node, who, NATIVE_SSE, STREAM, ["user:u", "all"])
    else:
        session = WebSocketSession(r.node, who, NATIVE_WS, SOCKET, ["user:u", "all"], Deaf())
    wire = Wire()
    session.attached(wire, set(), paused=False, initial=b"")
    return session, wire


async def test_a_ping_of_the_sweep_is_given_dead_after_and_no_sweep_more() -> None:
    settings = SessionSettings(sweep_s=5, heartbeat_ws_s=5, dead_after_s=10)
    async with room(session=settings) as r:
        session, wire = attach(r, "ws")
        session.data_received(b"")  # the ping behind the welcome is answered
        session.beat()
        assert any(data[0] == 0x89 for data in wire.take())
        session.beat()
        assert not session.closed, "5 s after the ping"
        session.beat()
        assert session.closed, "10 s after it"


async def test_a_quiet_stream_gets_a_heartbeat_that_traffic_puts_off() -> None:
    async with room(session=QUICK) as r:
        _, wire = attach(r, "sse")
        wire.take()
        for beat in range(12):
            if beat < 8:
                r.say(f"n{beat}")
                wire.take()
            r.sweeps()
            if beat < 10:
                assert not wire.take(), beat
        assert len(wire.take()) == 1


async def test_a_stream_without_a_position_gets_a_comment() -> None:
    async with room(session=QUICK) as r:
        session, wire = attach(r, "sse")
        session.fall_behind()
        r.bus.away = True
        wire.take()
        r.sweeps(4)
        assert frames.chunk(b":\n\n") in wire.take()


async def test_a_quiet_socket_is_pinged_with_its_cursor() -> None:
    async with room(session=QUICK) as r:
        session, wire = attach(r, "ws")
        welcome = b"".join(wire.take())
        assert welcome.endswith(frames.ping(session.cursor.encode())), "right behind the welcome"
        session.on_pong(session.cursor.encode())
        session.data_received(b"")
        r.say("one")
        wire.take()
        r.sweeps(4)
        assert wire.take() == [frames.ping(b"e1-1")]


async def test_a_peer_that_answers_no_ping_is_closed_and_one_that_answers_is_not() -> None:
    async with room(session=QUICK) as r:
        dead, dead_wire = attach(r, "ws")
        alive, alive_wire = attach(r, "ws")
        for _ in range(12):
            alive.data_received(b"")
            r.sweeps()
        assert dead.closed and not alive.closed
        assert frames.close(4202, "stale") in b"".join(dead_wire.written)
        assert dead.counters.stale_closed == 1
        assert frames.close(4202, "stale") not in b"".join(alive_wire.written)


@pytest.mark.parametrize("kind", ["sse", "ws"])
async def test_a_token_is_warned_about_once_and_then_ends_the_session(kind: str) -> None:
    async with room(session=QUICK) as r:
        session, wire = attach(r, kind, expires_at=int(r.clock) + 100)
        wire.take()

        def said() -> bytes:
            session.data_received(b"")
            r.sweeps()
            return b"".join(wire.take())

        assert b"auth" not in said()
        r.clock += 41
        assert said().count(b"auth_expiring") == 1
        assert b"auth_expiring" not in said()
        r.clock += 58
        assert not session.closed
        r.clock += 1
        last = said()
        assert session.closed and b"auth_expired" in last and b"token expired" in last
        assert (frames.close(4201, "token-expired") if kind == "ws" else frames.LAST_CHUNK) in last


async def test_a_session_without_an_end_is_left_alone() -> None:
    async with room(session=QUICK) as r:
        session, _ = attach(r, "sse", expires_at=0)
        r.clock += 10**9
        r.sweeps(3)
        assert not session.closed


async def test_a_session_that_is_behind_for_too_long_is_closed() -> None:
    async with room(session=SessionSettings(sweep_s=1, lag_limit_s=-1)) as r:
        slow, transport = r.open("all")
        live, other = r.open("all", sub="v")
        slow.pause_writing()
        r.say("one")
        r.sweeps()
        assert slow.closed and words(transport)[-1] == "bye"
        assert "bye 4200" in transport.lines
        assert not live.closed and ids(other) == ["one"]
        assert slow.counters.lag_closed == 1


async def test_lag_is_not_counted_while_the_bus_is_away() -> None:
    async with room(session=SessionSettings(sweep_s=1, lag_limit_s=-1)) as r:
        session, _ = r.open("all")
        r.hub.status(False)
        session.pause_writing()
        r.sweeps(3)
        assert not session.closed


async def test_a_close_the_peer_does_not_take_is_aborted() -> None:
    async with room(session=SessionSettings(sweep_s=1, close_timeout_s=-1)) as r:
        session, transport = r.open("all")
        session.shutdown()
        assert session in r.node.closing
        r.sweeps()
        assert transport.aborted and session not in r.node.closing


async def test_every_session_is_looked_at_once_per_round() -> None:
    async with room(session=SessionSettings(sweep_s=5)) as r:
        looked: list[str] = []
        r.sweep._look = lambda session, now, unix: looked.append(session.id)  # type: ignore[method-assign]
        wanted = sorted(r.open("all", sub=f"u{number}")[0].id for number in range(40))
        for _ in range(5):
            r.sweep.tick()
        assert sorted(looked) == wanted


async def test_a_channel_nobody_listens_to_is_dropped_after_a_while_and_its_ring_with_it() -> None:
    async with room() as r:
        session, _ = r.open("all", "topic:a")
        r.say("x", "topic:a")
        session.connection_lost(None)
        assert "topic:a" in r.bus.watching
        r.sweeps(3)
        assert "topic:a" in r.hub.tenants[TENANT].channels
        r.sweeps(1)
        assert TENANT not in r.hub.tenants and not r.bus.watching
        assert r.hub.rings.bytes == 0


async def test_held_sessions_are_released_when_the_bus_is_back() -> None:
    async with room(session=SessionSettings(sweep_s=1)) as r:
        r.bus.away = True
        session, transport = r.open("all", epoch="e1", position=0)
        r.bus.publish("missed", ("all",))
        r.hub.channel(TENANT, "all").complete_from = 1
        session.fall_behind()
        session.resume("e1", 0)
        await r.until(lambda: session in r.node.held)
        r.sweeps()
        await r.until(lambda: session in r.node.held)
        r.bus.away = False
        r.sweeps()
        await r.until(lambda: session.live)
        assert ids(transport) == ["missed"]
