"""What stands between a subscription's connections and the program: the buffer, and what was dealt with."""

from __future__ import annotations

import asyncio

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dualcast_client.cursors import Position
from dualcast_client.delivery import MAX_OVER, REMEMBERED, Inlet, Unacked
from dualcast_client.events import BusStatus, Published

pytestmark = pytest.mark.anyio


def note(n: int, channel: str = "all") -> Published:
    return Published(channel=channel, id=f"i{n}", event="n", time="t", data=n, cursor=f"e-{n}")


@given(st.permutations(range(12)), st.integers(0, 12))
def test_the_position_is_behind_the_last_before_which_all_is_acknowledged(
    order: list[int], count: int
) -> None:
    position = Position(None)
    unacked = Unacked(position)
    for n in range(12):
        unacked.given(f"i{n}", f"e-{n}" if n % 3 else None)
        unacked.given(None, f"p-{n}")
    acked = set()
    for n in order[:count]:
        assert unacked.ack(f"i{n}") and not unacked.ack(f"i{n}")
        acked.add(n)
        done = next((m for m in range(12) if m not in acked), 12)
        assert position.done == (f"p-{done - 1}" if done else "")
        assert len(unacked) == 12 - len(acked)
    if count < 12:
        assert unacked.ack_through("p-11") and position.done == "p-11" and not len(unacked)
    assert not unacked.ack_through("x-1")


def test_a_position_without_a_publication_waits_for_those_before_it() -> None:
    position = Position(None)
    unacked = Unacked(position)
    for n in range(10_000):
        unacked.given(None, f"p-{n}")
    assert position.done == "p-9999"
    unacked.given("i1", "e-1")
    for n in range(10_000):
        unacked.given(None, f"q-{n}")
    assert position.done == "p-9999" and len(unacked._entries) == 2, "only the newest is kept"
    unacked.ack_all()
    assert position.done == "q-9999"


async def test_a_full_buffer_stops_the_reader_and_a_command_opens_it() -> None:
    inlet = Inlet(2, Position(None), False)
    inlet.put(note(1), "e-1")
    assert not await inlet.room()
    inlet.put(note(2), "e-2")
    waiting = asyncio.ensure_future(inlet.room())
    await asyncio.sleep(0)
    assert not waiting.done()
    assert inlet.get() == note(1)
    assert await waiting
    inlet.put(note(3), "e-3")
    waiting = asyncio.ensure_future(inlet.room())
    await asyncio.sleep(0)
    inlet.commands = 1
    inlet.wake()
    assert await waiting and not inlet.full
    for n in range(MAX_OVER):
        inlet.put(note(n), None)
    assert inlet.full and inlet.flooded


def test_what_waits_of_a_channel_can_be_taken_back_and_the_position_goes_on() -> None:
    position = Position(None)
    inlet = Inlet(10, position, False)
    inlet.asking = True
    for n, channel in enumerate(("a", "b", "a")):
        inlet.put(note(n, channel), f"e-{n}")
    inlet.put(BusStatus(bus="ok"), None)
    inlet.take_back(["a"])
    assert inlet.get() == note(1, "b") and position.given == "e-1"
    assert inlet.get() == BusStatus(bus="ok") and position.given == "e-2"
    assert inlet.get() is None


def test_a_position_behind_what_is_being_dealt_with_is_not_done() -> None:
    position = Position(None)
    inlet = Inlet(10, position, False)
    inlet.put(note(1), "e-1")
    inlet.asking = True
    inlet.get()
    inlet.asking = False
    inlet.move("e-5")
    assert (position.given, position.done) == ("e-5", ""), "a crash now brings the first again"
    inlet.asking = True
    inlet.move("e-6")
    assert (position.given, position.done) == ("e-6", "e-6")


def test_ids_are_remembered_up_to_a_limit() -> None:
    inlet = Inlet(1, Position(None), False)
    assert all(inlet.first(str(n)) for n in range(REMEMBERED))
    assert not inlet.first("0")
    assert inlet.first("new") and inlet.first("1") and not inlet.first("0")
    assert len(inlet._known) == REMEMBERED
