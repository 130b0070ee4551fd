"""A session's life: live and behind, epochs, gaps, receipts, limits at the door, drain."""

from __future__ import annotations

import asyncio

import pytest

from dualcast.model.codes import Close
from dualcast.model.errors import RateLimited
from dualcast.model.publication import Gap
from dualcast.session.admission import ConnectionLimit, check_limits
from dualcast.session.drain import drain
from dualcast.session.node import SessionSettings
from support.engine_room import ids, room, words
from support.model_bus import TENANT
from support.recording import made_session

pytestmark = pytest.mark.anyio


async def test_a_full_write_buffer_leaves_live_delivery_and_comes_back_from_the_ring() -> None:
    async with room() as r:
        session, transport = r.open("all", high=40)
        r.say("one")
        r.say("two")
        assert not session.live and session.paused
        r.say("three")
        r.say("four")
        assert ids(transport) == ["one", "two"]
        assert session.position == 2
        while not session.live:
            transport.take()
        assert ids(transport) == ["one", "two", "three", "four"]
        assert session.counters.fell_behind >= 1 and session.counters.recovered == 2


async def test_what_fell_out_of_the_ring_is_read_from_the_bus() -> None:
    async with room(session=SessionSettings(sweep_s=1, page_limit=2)) as r:
        session, transport = r.open("all")
        session.pause_writing()
        for number in range(9):
            r.say(f"n{number}")
        r.hub.rings.forget(r.hub.channel(TENANT, "all"))
        r.hub.channel(TENANT, "all").complete_from = 9
        session.resume_writing()
        assert not session.live
        await r.until(lambda: session.live)
        assert ids(transport) == [f"n{number}" for number in range(9)]


async def test_what_the_history_no_longer_holds_is_a_gap() -> None:
    async with room(keep=2) as r:
        session, transport = r.open("all")
        session.pause_writing()
        for number in range(5):
            r.say(f"n{number}")
        r.hub.rings.forget(r.hub.channel(TENANT, "all"))
        r.hub.channel(TENANT, "all").complete_from = 5
        session.resume_writing()
        await r.until(lambda: session.live)
        assert transport.lines[1:] == ["gap all 0 4 trimmed e1-0", "p e1 4 n3 all", "p e1 5 n4 all"]
        assert session.counters.gaps == 1


async def test_only_a_live_session_is_told_of_a_gap_the_hub_hears_of() -> None:
    async with room() as r:
        _, transport = r.open("all")
        behind, silent = r.open("all", sub="v")
        behind.pause_writing()
        r.hub.gap(TENANT, Gap("all", 0, 0))
        assert (words(transport), words(silent)) == (["welcome", "gap"], ["welcome"])


async def test_a_new_epoch_is_a_gap_in_every_channel_and_delivery_goes_on() -> None:
    async with room() as r:
        session, transport = r.open("user:u", "all")
        r.say("one")
        r.bus.lose_tail(1)
        assert transport.lines[2:] == ["gap user:u 1 0 epoch e2-1", "gap all 1 0 epoch e2-1"]
        r.say("two")
        assert transport.lines[-1].startswith("p e2 2 two")
        assert session.cursor == "e2-2"


@pytest.mark.parametrize(("epoch", "position"), [("e1", 99), ("e9", 0)])
async def test_a_future_or_unknown_cursor_starts_from_now_with_a_gap(epoch: str, position: int) -> None:
    async with room() as r:
        r.say("before")
        session, transport = r.open("all", epoch=epoch, position=position)
        await r.until(lambda: session.live)
        assert words(transport) == ["welcome", "gap"]
        assert "unknown" in transport.lines[1]
        r.say("after")
        assert ids(transport) == ["after"]


async def test_an_earlier_epochs_cursor_is_a_gap_and_read_on_from() -> None:
    async with room() as r:
        r.open("all")
        r.say("one")
        r.say("two")
        r.bus.lose_tail(0)
        r.say("three")
        session, transport = r.open("all", sub="v", epoch="e1", position=1)
        await r.until(lambda: session.live)
        assert words(transport) == ["welcome", "gap"]
        assert ids(transport) == ["two", "three"]


async def test_conflation_happens_while_behind_only_and_is_counted() -> None:
    async with room() as r:
        session, transport = r.open("task:1")
        session.pause_writing()
        for number in range(5):
            r.bus.publish(f"n{number}", ("task:1",))
        for entries in r.bus.live:
            for entry in entries:
                publication = entry.publication
                entry.publication = type(publication)(
                    publication.tenant,
                    publication.epoch,
                    publication.offset,
                    publication.id,
                    publication.type,
                    publication.data,
                    0,
                    conflation_key="progress",
                    terminal=publication.offset == 3,
                )
        r.bus.pump()
        session.resume_writing()
        assert ids(transport) == ["n2"], "the terminal one"
        assert session.counters.conflated == 4
        assert session.offset == 5


async def test_a_receipt_never_names_what_was_not_written() -> None:
    async with room() as r:
        session, _ = r.open("all")
        r.say("one")
        assert session.confirm("e1", 1) and session.confirmed == 1
        assert not session.confirm("e1", 2)
        assert not session.confirm("e9", 1)
        assert session.confirm("e1", 0) and session.confirmed == 1, "an older one moves nothing back"


async def test_status_is_said_once_each_and_ok_only_after_what_was_held() -> None:
    async with room() as r:
        session, transport = r.open("all")
        r.hub.status(False)
        r.hub.status(False)
        session.pause_writing()
        r.say("held")
        r.hub.status(True)
        assert words(transport) == ["welcome", "status"]
        session.resume_writing()
        assert transport.lines[1:] == ["status False", "p e1 1 held all", "status True"]


async def test_a_closed_session_is_in_no_index_and_is_written_nothing() -> None:
    async with room() as r:
        session, transport = r.open("all")
        session.close(Close.REVOKED)
        r.say("after")
        assert transport.closed and not ids(transport)
        assert not r.hub.sessions and not any(r.node.sweep_buckets)
        assert list(r.node.closing) == [session] and r.node.per_address
        session.connection_lost(None)
        session.connection_lost(None)
        assert not r.node.closing and not r.node.per_address
        assert session.counters.connections == 0 and session.counters.closed == 1


# ── at the door ─────────


async def test_limits_per_node_and_per_address() -> None:
    async with room(session=SessionSettings(max_connections=3)) as r:
        for number in range(2):
            r.open("all", sub=f"u{number}", address="192.0.2.1")
        check_limits(r.node, "192.0.2.2", per_address=2)
        check_limits(r.node, "192.0.2.1", per_address=0)
        with pytest.raises(RateLimited) as refused:
            check_limits(r.node, "192.0.2.1", per_address=2)
        assert refused.value.retryable and refused.value.retry_after_s
        r.open("all", sub="u3")
        with pytest.raises(ConnectionLimit) as full:
            check_limits(r.node, "192.0.2.2", per_address=2)
        assert full.value.retryable


async def test_the_oldest_of_the_user_are_evicted_and_nobody_else() -> None:
    async with room() as r:
        other, _ = r.open("user:v", "user:u", "all", sub="v")
        made = [made_session(r.node, ["user:u", "all"]) for _ in range(5)]
        own = [session for session, _ in made]
        for session in own[1:]:
            session.max_per_user = 3  # the oldest is from a time without a limit
        for session, transport in made[:4]:
            session.attached(transport, set(), paused=False, initial=b"")
        assert [session.closed for session in own] == [True, False, False, False, False]
        own[4].attached(made[4][1], set(), paused=False, initial=b"")
        assert [session.closed for session in own] == [True, True, False, False, False]
        assert not other.closed
        assert "bye 4009" in made[0][1].lines
        assert own[0].counters.replaced == 2


# ── drain ─────────


async def test_a_drain_closes_everybody_and_refuses_who_comes_later() -> None:
    async with room() as r:
        opened = [r.open("all", sub=f"u{number}") for number in range(30)]
        task = asyncio.create_task(drain(r.node, 0.3))
        while not all(session.closed for session, _ in opened):
            await asyncio.sleep(0.01)
        for session, transport in opened[:-1]:
            assert "bye 4100" in transport.lines
            session.connection_lost(None)
        assert await task == 30
        assert opened[-1][1].aborted, "one that never ended by itself"
        late, transport = r.open("all", sub="late")
        assert late.closed and "bye 4100" in transport.lines


# ── shared tasks ─────────


async def test_a_failed_task_is_logged_and_a_running_one_ends_with_the_node(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async with room() as r:

        async def failing() -> None:
            raise ValueError("on purpose")

        r.node.spawn(failing())
        r.node.spawn(asyncio.sleep(3600))
        await r.until(lambda: len(r.node._tasks) == 1)
        assert "a session task failed" in caplog.text
        await r.node.close()
        await r.until(lambda: not r.node._tasks)


async def test_tenants_that_are_behind_take_turns() -> None:
    async with room() as r:
        storm = [r.open("all", sub=f"u{number}")[0] for number in range(3)]
        served: list[str] = []
        for session in storm:
            r.node.enqueue(session)
            r.node.enqueue(session)

        class Other:
            queued = False
            feed = type("Feed", (), {"name": "other"})()

        r.node.enqueue(Other())
        for _ in range(4):
            session = await r.recovery._next()
            session.queued = False
            served.append(session.feed.name)
        assert served == ["t", "other", "t", "t"]
        assert not r.node.behind
