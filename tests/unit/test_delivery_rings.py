"""Rings and recovery at their seams: unconfirmed watches, full rings, reads that lose a race."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

import pytest

from dualcast.hub.hub import HubSettings
from dualcast.model.publication import Audience, Entry, Gap, Page, Publication
from dualcast.session.node import SessionSettings
from support.engine_room import ids, room, words
from support.model_bus import TENANT

pytestmark = pytest.mark.anyio


def entry_of(offset: int, channel: str = "all", ident: str = "", **fields: Any) -> Entry:
    """A live entry that is not in the model's log."""
    publication = Publication(TENANT, "e1", offset, ident or f"n{offset}", "e", b"{}", 0, **fields)
    return Entry(publication, channel)


async def test_entries_that_come_before_their_watch_is_confirmed_are_not_doubled_by_recovery() -> None:
    async with room() as r:
        for number in range(1, 4):
            r.bus.publish(f"n{number}", ("all",))
        r.bus.live.clear()
        feed = r.hub.channel(TENANT, "all")
        # Redis: the subscription is up and brings 2 and 3; the position that confirms the watch comes after.
        r.hub.entries(TENANT, [entry_of(2), entry_of(3)])
        assert feed.complete_from < 0
        r.bus.confirm()
        for user in ("u", "v"):
            session, transport = r.open("all", sub=user, epoch="e1", position=0)
            while not session.live:
                await asyncio.sleep(0)
            assert ids(transport) == ["n1", "n2", "n3"]


async def test_entries_the_watch_has_already_covered_are_not_doubled_by_recovery() -> None:
    async with room() as r:
        for number in range(1, 4):
            r.bus.publish(f"n{number}", ("all",))
        r.bus.live.clear()
        r.hub.channel(TENANT, "all")
        r.bus.confirm()
        # On their way when the watch was confirmed at 3.
        r.hub.entries(TENANT, [entry_of(2), entry_of(3)])
        session, transport = r.open("all", epoch="e1", position=0)
        await r.until(lambda: session.live)
        assert ids(transport) == ["n1", "n2", "n3"]


async def test_full_rings_do_not_make_recovery_read_the_same_page_for_ever() -> None:
    async with room(hub=HubSettings(ring_bytes=100)) as r:
        for number in range(1, 6):
            r.bus.publish(f"n{number}", ("all",))
        r.bus.live.clear()
        session, transport = r.open("all", epoch="e1", position=0)
        await r.until(lambda: session.live)
        assert ids(transport) == [f"n{number}" for number in range(1, 6)]


async def test_a_session_that_turned_live_during_a_read_is_not_given_the_page_again() -> None:
    async with room() as r:
        r.bus.publish("elsewhere", ("topic:a",))
        r.bus.live.clear()
        gate = asyncio.Event()
        read = r.bus.read

        async def slow(tenant: str, channels: Sequence[str], after: int, limit: int) -> Page:
            page = await read(tenant, channels, after, limit)
            await gate.wait()
            late = await read(tenant, channels, after, limit)
            # A page that cannot be put into the ring: truncated.
            return Page(page.epoch, late.top, late.next, late.entries, (Gap("topic:x", after, 0),))

        r.bus.read = slow  # type: ignore[method-assign]
        session, transport = r.open("all", epoch="e1", position=0)
        for _ in range(5):
            await asyncio.sleep(0)
        feed = r.hub.channel(TENANT, "all")
        page = await read(TENANT, ["all"], 0, 10)
        assert r.hub.backfill([feed], page, 0), "another session has filled the ring"
        session.bus_status(True)
        assert session.live
        r.say("new")
        gate.set()
        for _ in range(20):
            await asyncio.sleep(0)
        assert ids(transport) == ["new"]


async def test_a_late_gap_is_told_to_a_session_that_is_behind_but_past_it() -> None:
    async with room() as r:
        session, transport = r.open("all", "topic:a")
        r.say("one", "all")
        session.pause_writing()
        assert session.position == 1
        r.hub.gap(TENANT, Gap("topic:a", 0, 1, "late"))
        assert words(transport) == ["welcome", "gap"]
        r.hub.gap(TENANT, Gap("topic:a", 1, 3, "late"))
        assert words(transport) == ["welcome", "gap"], "its own reading finds what lies ahead of it"


async def test_what_is_not_due_supersedes_nothing() -> None:
    async with room() as r:
        session, transport = r.open("all")
        session.pause_writing()
        r.hub.entries(TENANT, [entry_of(1, conflation_key="k")])
        r.hub.entries(TENANT, [entry_of(2, conflation_key="k", audience=Audience(users=("bob",)))])
        r.hub.entries(TENANT, [entry_of(3, conflation_key="j")])
        r.hub.entries(TENANT, [entry_of(4, conflation_key="j", expires_ms=1)])
        session.resume_writing()
        assert ids(transport) == ["n1", "n3"]


async def test_a_new_epoch_the_node_has_not_heard_of_is_not_read_across() -> None:
    async with room() as r:
        for number in range(1, 7):
            r.bus.publish(f"n{number}", ("all",))
        r.bus.live.clear()
        r.hub.channel(TENANT, "all")
        r.bus.confirm()
        # The log is renewed; the news is on its way to the hub while a session reads.
        told = r.bus.follower
        r.bus.follower = type("Nobody", (), {"epoch": lambda *_: None})()
        r.bus.lose_tail(2)
        r.bus.follower = told
        session, transport = r.open("all", epoch="e1", position=3)
        for _ in range(20):
            await asyncio.sleep(0)
        r.hub.epoch(TENANT, "e2", 6)
        r.recovery.release()
        await r.until(lambda: session.live)
        gaps = [line.split(" ") for line in transport.lines if line.startswith("gap")]
        assert [(gap[2], gap[4]) for gap in gaps] == [("3", "epoch")], "5 and 6 are lost: said from 3 on"


async def test_a_new_epoch_during_a_large_fan_out_counts_from_what_was_delivered() -> None:
    async with room(hub=HubSettings(large_fan_out=1)) as r:
        session, transport = r.open("all")
        r.open("all", sub="v")
        r.say("one")
        await r.until(lambda: not r.hub.tenants[TENANT].running)
        session.pause_writing()
        r.say("two")
        assert r.hub.tenants[TENANT].running
        r.hub.epoch(TENANT, "e2", 5)
        r.bus.epoch_number, r.bus.top = 2, 5
        r.say("six")
        session.resume_writing()
        await r.until(lambda: session.live)
        gaps = [line.split(" ") for line in transport.lines if line.startswith("gap")]
        assert [(gap[2], gap[4]) for gap in gaps] == [("1", "epoch")]
        assert ids(transport) == ["one", "two", "six"]


async def test_a_channel_added_during_a_large_fan_out_of_it_misses_nothing_after_its_cursor() -> None:
    async with room(hub=HubSettings(large_fan_out=1)) as r:
        session, transport = r.open("all")
        r.open("topic:a", sub="v")
        r.open("topic:a", sub="w")
        r.say("busy", "topic:a")
        await asyncio.sleep(0)
        assert r.hub.tenants[TENANT].running
        session.subscribe([r.hub.channel(TENANT, "topic:a")])
        await r.until(lambda: session.live and not r.hub.tenants[TENANT].running)
        assert ids(transport) == ["busy"]


async def test_a_channel_watched_beyond_the_session_starts_at_the_session() -> None:
    async with room() as r:
        session, transport = r.open("all")
        r.say("one")
        r.bus.publish("two", ("topic:a",))
        r.bus.live.clear()
        feed = r.hub.channel(TENANT, "topic:a")
        r.bus.confirm()
        assert (session.offset, feed.complete_from) == (1, 2)
        session.subscribe([feed])
        await r.until(lambda: session.live)
        assert ids(transport) == ["one", "two"], "the cursor told was 1"


async def test_sessions_that_leave_while_their_watch_is_unconfirmed_leave_nothing_behind() -> None:
    async with room() as r:
        r.hub.status(False)
        for number in range(5):
            r.hub.channel(TENANT, "all")
            session, _ = r.open_unconfirmed("all", f"user:{number}")
            for _ in range(3):
                await asyncio.sleep(0)
            session.connection_lost(None)
        assert not r.hub._waiting


async def test_a_session_waiting_for_its_watch_is_waiting_once() -> None:
    async with room() as r:
        r.hub.status(False)
        session, _ = r.open_unconfirmed("all", "user:u")
        for _ in range(5):
            for _ in range(3):
                await asyncio.sleep(0)
            session.resume("e1", 0)
        assert {key: len(who) for key, who in r.hub._waiting.items()} == {
            (TENANT, "all"): 1,
            (TENANT, "user:u"): 1,
        }
        r.bus.confirm()
        await r.until(lambda: session.live)
        assert not r.hub._waiting


async def test_a_fault_in_one_recovery_ends_that_session_alone(caplog: pytest.LogCaptureFixture) -> None:
    async with room() as r:
        for number in range(1, 4):
            r.bus.publish(f"n{number}", ("all",))
        r.bus.live.clear()
        r.hub.channel(TENANT, "all")
        r.bus.confirm()
        broken, transport = r.open("all", epoch="e1", position=0)

        def fails(data: bytes) -> None:
            transport.write = lambda data: None  # type: ignore[method-assign]
            raise RuntimeError("the handler is closed")

        transport.write = fails  # type: ignore[method-assign]
        await r.until(lambda: broken.closed)
        other, heard = r.open("all", sub="v", epoch="e1", position=0)
        await r.until(lambda: other.live)
        assert ids(heard) == ["n1", "n2", "n3"]


async def test_a_storm_that_the_rings_serve_lets_the_loop_turn() -> None:
    async with room(session=SessionSettings(sweep_s=1, recovery_workers=1)) as r:
        sessions = [r.open("all", sub=f"u{number}")[0] for number in range(2_000)]
        for session in sessions:
            session.fall_behind()
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        assert any(not session.live for session in sessions)
        await r.until(lambda: all(session.live for session in sessions))


async def test_an_ephemeral_publication_to_two_channels_comes_once() -> None:
    async with room() as r:
        _, transport = r.open("all", "topic:a")
        publication = entry_of(0, ident="typing").publication
        r.hub.entries(TENANT, [Entry(publication, "all", 0), Entry(publication, "topic:a", 0)])
        assert ids(transport) == ["typing"]


def break_socket(transport: Any) -> None:
    """Every write is refused, as uvloop does once the handle is closed."""

    def fails(data: bytes) -> None:
        raise RuntimeError("the handler is closed")

    transport.write = fails


async def test_a_broken_socket_does_not_keep_the_return_of_the_bus_from_the_others() -> None:
    async with room() as r:
        broken, wire = r.open("all")
        other, heard = r.open("all", sub="v")
        r.hub.status(False)
        for session in (broken, other):
            session.fall_behind()
        r.say("held")
        break_socket(wire)
        r.hub.status(True)
        assert broken.closed and wire.aborted
        assert other.live and ids(heard) == ["held"]
        assert heard.lines[-1] == "status True"


async def test_a_fault_in_one_session_does_not_end_the_sweep() -> None:
    async with room() as r:
        session, wire = r.open("all")
        r.open("all", sub="v")

        class Angry(type(session)):  # type: ignore[misc]
            __slots__ = ()

            def beat(self) -> None:
                raise RuntimeError("the handler is closed")

        session.__class__ = Angry
        r.sweeps(1)
        assert session.closed and wire.aborted
        assert len(r.hub.sessions) == 1
