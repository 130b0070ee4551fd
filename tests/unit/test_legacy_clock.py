"""What legacy connections do by the clock: heartbeats, idle ends, ends of streams."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from dualcast.dialects.legacy import Opening
from dualcast.model.codes import Close
from dualcast.session.wheel import NOWHERE, Wheel
from support import legacy_toy as toy
from support.engine_room import room
from support.legacy_room import LegacyRoom

pytestmark = pytest.mark.anyio


@pytest.fixture
async def legacy() -> AsyncIterator[LegacyRoom]:
    async with room() as made:
        yield LegacyRoom(made)


class Rider:
    def __init__(self, every: float) -> None:
        self.slot = NOWHERE
        self.every = every
        self.calls: list[float] = []
        self.failed = 0

    def turn_of_wheel(self, now: float) -> float:
        self.calls.append(now)
        if self.every < 0:
            raise RuntimeError("broken")
        return self.calls[-1] + self.every if self.every else 0

    def write_failed(self) -> None:
        self.failed += 1


def test_the_wheel_calls_within_a_second_after_the_time_and_never_before() -> None:
    wheel = Wheel(100.0)
    rider = Rider(0)
    wheel.put(rider, 103.2)
    for now in (101.0, 102.0, 103.0, 103.9):
        wheel.turn(now)
    assert rider.calls == []
    wheel.turn(104.01)
    assert rider.calls == [104.01]
    assert len(wheel) == 0


def test_a_wheel_that_was_held_up_makes_up_for_it_once() -> None:
    wheel = Wheel(100.0)
    rider = Rider(5)
    wheel.put(rider, 101)
    wheel.turn(160.0)
    assert rider.calls == [160.0]
    assert rider.slot == 165


def test_putting_again_replaces_and_taking_removes() -> None:
    wheel = Wheel(100.0)
    rider, broken = Rider(0), Rider(-1)
    wheel.put(rider, 101)
    wheel.put(rider, 105)
    wheel.put(broken, 101)
    wheel.turn(104.0)
    assert (rider.calls, broken.failed) == ([], 1)
    wheel.take(rider)
    wheel.turn(110.0)
    assert rider.calls == []


def test_whoever_is_taken_off_in_its_very_turn_is_not_called() -> None:
    wheel = Wheel(100.0)
    other = Rider(0)

    class Ending(Rider):
        def turn_of_wheel(self, now: float) -> float:
            wheel.take(other)
            return 0

    wheel.put(Ending(0), 101)
    wheel.put(other, 101)
    wheel.turn(102.0)
    assert other.calls == []
    assert len(wheel) == 0


# ── R4, R5, R6 ──


@pytest.mark.covers("R4")
async def test_r4_an_idle_stream_beats_once_per_interval_and_does_nothing_else(legacy: LegacyRoom) -> None:
    stream = toy.stream_endpoint(heartbeat=toy.beat_block, heartbeat_s=10.0)
    _, wire = legacy.open(stream)
    assert len(wire.take()) == 2
    writes = wire.writes
    legacy.room.sweeps(50)
    legacy.later(95)
    beats = wire.take()
    assert len(beats) == 9
    assert wire.writes - writes == 9
    assert all(block.startswith("event: beat\n") for block in beats)
    assert [beat.count("\n") for beat in beats] == [1] * 9  # never a comment, never an unnamed event


async def test_beats_do_not_drift_and_a_standstill_is_made_up_for_by_one(legacy: LegacyRoom) -> None:
    _, wire = legacy.open(toy.socket_endpoint(heartbeat=toy.beat, heartbeat_s=30.0))
    wire.take()
    legacy.clock.now += 0.4
    times = []
    for _ in range(300):
        legacy.later(1)
        if wire.take():
            times.append(legacy.clock.now - 1000)
    assert times == [pytest.approx(30 * n + 0.4, abs=1.0) for n in range(1, 11)]
    legacy.clock.now += 500
    legacy.room.node.wheel.turn(legacy.clock.now)
    legacy.later(20)
    assert len(wire.take()) == 1


async def test_beats_come_after_quiet_unless_they_always_come(legacy: LegacyRoom) -> None:
    _, quiet = legacy.open(toy.socket_endpoint(heartbeat=toy.beat, heartbeat_s=10.0))
    _, always = legacy.open(toy.socket_endpoint(heartbeat=toy.beat, heartbeat_s=10.0, heartbeat_always=True))
    for _ in range(8):
        legacy.later(5)
        legacy.say("note", b'{"n":1}')
    legacy.say("strange")  # nothing of the contract is no traffic
    beats = [sum("beat" in text for text in wire.take()) for wire in (quiet, always)]
    assert beats == [0, 4]
    legacy.later(11)
    assert "beat" in quiet.take()[-1]


@pytest.mark.covers("R5")
async def test_r5_a_publication_on_an_idle_stream_is_written_at_once(legacy: LegacyRoom) -> None:
    _, wire = legacy.open(toy.stream_endpoint(heartbeat=toy.beat_block, heartbeat_s=10.0))
    legacy.later(35)
    wire.take()
    legacy.say("note", b'{"n":1}')
    assert [block.splitlines()[-1] for block in wire.take()] == ['data: {"n":1}']


@pytest.mark.covers("R6")
async def test_r6_idle_time_is_wall_time_and_a_beat_comes_before_the_end(legacy: LegacyRoom) -> None:
    stream = toy.stream_endpoint(heartbeat=toy.beat_block, heartbeat_s=10.0, silent_s=300.0)
    session, wire = legacy.open(stream)
    wire.take()
    legacy.room.sweeps(1000)  # sweeps are no seconds
    assert not session.closed
    legacy.later(200)
    legacy.say("strange", b"{}")
    legacy.say("note", b'{"n":1}')
    legacy.later(299)
    assert not session.closed
    legacy.later(2)
    sent = wire.take()
    assert sent[-1] is None  # a plain end
    assert sent[-2].startswith("event: beat\n")
    assert session.closed


@pytest.mark.covers("R8")
async def test_r8_no_end_of_a_stream_is_an_event_named_error(legacy: LegacyRoom) -> None:
    for why in Close:
        session, wire = legacy.open(toy.stream_endpoint())
        wire.take()
        session.close(why)
        last = wire.take()
        assert last[-1] is None
        assert not any("event: error" in block for block in last[:-1]), why
        assert (len(last) == 2) == (why is Close.REPLACED)


# ── sockets ──


async def test_a_silent_socket_is_closed_and_one_that_speaks_is_not(legacy: LegacyRoom) -> None:
    endpoint = toy.socket_endpoint(silent_s=90.0)
    silent, wire = legacy.open(endpoint)
    speaking, other = legacy.open(endpoint)
    for _ in range(8):
        legacy.later(12)
        speaking.on_text("{}")
        legacy.say("note", b"{}")  # what it is told is no sign of life
        silent.on_pong(b"")
    assert wire.take()[-1] == (4408, "idle timeout")
    assert silent.closed
    assert not speaking.closed
    legacy.later(90)
    assert other.take()[-1] == (4408, "idle timeout")


async def test_a_socket_that_answers_no_ping_is_dropped_after_a_minute(legacy: LegacyRoom) -> None:
    session, wire = legacy.open(toy.socket_endpoint())
    session.can_ping = True
    legacy.room.sweeps(25)  # a second each here: the first ping
    assert session.unanswered_ticks == 0
    legacy.room.sweeps(60)
    assert not session.closed
    session.data_received(b"")
    legacy.room.sweeps(25 + 60)
    assert not session.closed
    legacy.room.sweeps(2)
    assert wire.aborted
    assert session.counters.stale_closed == 1


async def test_a_client_that_does_not_read_gets_no_more_beats(legacy: LegacyRoom) -> None:
    session, wire = legacy.open(toy.stream_endpoint(heartbeat=toy.beat_block, heartbeat_s=1.0))
    wire.take()
    session.pause_writing()
    legacy.later(20)
    assert wire.take() == []
    session.resume_writing()
    legacy.later(2)
    assert len(wire.take()) == 2


async def test_what_is_read_late_counts_from_when_it_was_written(legacy: LegacyRoom) -> None:
    session, wire = legacy.open(toy.stream_endpoint(silent_s=100.0))
    session.pause_writing()
    legacy.later(10)
    legacy.say("note", b'{"n":1}')
    legacy.later(80)
    session.resume_writing()
    legacy.later(95)
    assert not session.closed
    legacy.later(10)
    assert wire.take()[-1] is None


# ── ends of streams ──


async def test_a_stream_ends_after_its_last_block(legacy: LegacyRoom) -> None:
    _, stream = toy.task_endpoints()
    session, wire = legacy.open(stream, "user:u", "task:1")
    wire.take()
    legacy.say("task", b'{"state":"processing"}', "task:1")
    legacy.later(5)
    assert not session.closed
    legacy.say("task", b'{"state":"completed"}', "task:1")
    legacy.later(1)
    sent = wire.take()
    assert '"completed"' in sent[-2]
    assert sent[-1] is None


async def test_a_stream_that_resumes_behind_its_end_gets_it_and_ends(legacy: LegacyRoom) -> None:
    _, stream = toy.task_endpoints()
    legacy.open(stream, "user:u", "task:1")
    at = legacy.say("task", b'{"state":"processing"}', "task:1")
    legacy.say("task", b'{"state":"completed"}', "task:1")
    session, wire = legacy.open(stream, "user:u", "task:1", position=at, opening=Opening(resumed=True))
    await legacy.room.until(lambda: session.live)
    legacy.later(1)
    sent = wire.take()
    assert ['"completed"' in block for block in sent[2:-1]] == [True]
    assert sent[-1] is None


async def test_what_the_first_frames_say_can_end_a_stream(legacy: LegacyRoom) -> None:
    _, stream = toy.task_endpoints()
    over = Opening(state={"state": "completed"})
    session, wire = legacy.open(stream, "user:u", "task:1", opening=over)
    assert wire.take()[-1] is None
    assert session.closed
    assert len(legacy.room.node.wheel) == 0
