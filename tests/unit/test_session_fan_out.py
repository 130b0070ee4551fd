"""Fan-out: one write per session and turn, in order, of shared bytes; a broken transport ends alone."""

from __future__ import annotations

import asyncio

import pytest

from dualcast.hub.encoding import Encoding
from dualcast.hub.hub import HubSettings
from dualcast.model.publication import Audience, Entry, Publication
from support.engine_room import Room, ids, room
from support.model_bus import TENANT
from support.recording import RecordingTransport

pytestmark = pytest.mark.anyio


class Keeping(RecordingTransport):
    """Keeps the very objects that are written."""

    def __init__(self) -> None:
        super().__init__()
        self.objects: list[bytes] = []

    def write(self, data: bytes) -> None:
        self.objects.append(data)
        super().write(data)


def keep(session: object) -> Keeping:
    """Puts a keeping transport under an attached session."""
    transport = Keeping()
    transport.session = session
    session.transport = transport  # type: ignore[attr-defined]
    return transport


class Broken(RecordingTransport):
    def write(self, data: bytes) -> None:
        raise RuntimeError("write on a closing transport")


def counting() -> tuple[Encoding, list[int]]:
    calls: list[int] = []

    def encode(entry: Entry) -> bytes:
        calls.append(entry.offset)
        return f"p e {entry.offset} {entry.publication.id} {entry.channel}\n".encode()

    return Encoding("counting", "ws", encode, bytes, conflates=True), calls


async def test_a_publication_is_encoded_once_and_every_session_gets_the_same_bytes_object() -> None:
    async with room() as r:
        encoding, calls = counting()
        transports = [keep(r.open(encoding=encoding)[0]) for _ in range(5)]
        r.say("one")
        assert calls == [1]
        assert len({id(transport.objects[0]) for transport in transports}) == 1


async def test_a_batch_is_one_write_per_session_in_offset_order() -> None:
    async with room() as r:
        both, transport = r.open("user:u", "all", "topic:a")
        lone, other = r.open("all", sub="v")
        before = transport.writes, other.writes
        for number in range(6):
            r.bus.publish(f"n{number}", (["all", "topic:a", "user:u"][number % 3],))
        r.bus.pump()
        assert ids(transport) == [f"n{number}" for number in range(6)]
        assert ids(other) == ["n0", "n3"]
        assert (transport.writes, other.writes) == (before[0] + 1, before[1] + 1)
        assert (both.offset, lone.offset) == (6, 6)


async def test_equal_merges_of_several_channels_are_joined_once() -> None:
    async with room() as r:
        transports = [keep(r.open("all", "topic:a")[0]) for _ in range(4)]
        r.bus.publish("a", ("all",))
        r.bus.publish("b", ("topic:a",))
        r.bus.pump()
        assert all(ids(transport) == ["a", "b"] for transport in transports)
        assert len({id(transport.objects[-1]) for transport in transports}) == 1


async def test_a_run_of_one_channel_is_joined_once() -> None:
    async with room() as r:
        transports = [keep(r.open("all")[0]) for _ in range(4)]
        for name in "abc":
            r.bus.publish(name, ("all",))
        r.bus.pump()
        assert all(
            len(transport.objects) == 1 and ids(transport) == ["a", "b", "c"] for transport in transports
        )
        assert len({id(transport.objects[0]) for transport in transports}) == 1


async def test_a_session_that_matches_twice_gets_one_copy() -> None:
    async with room() as r:
        _, transport = r.open("user:u", "all", "topic:a")
        r.say("both", "all", "topic:a", "user:u")
        assert ids(transport) == ["both"]


async def test_targets_of_one_publication_that_come_in_two_batches_are_one_copy() -> None:
    async with room() as r:
        session, transport = r.open("topic:a", "topic:b")
        r.bus.publish("both", ("topic:a", "topic:b"))
        r.bus.pump(1, split=True)
        assert ids(transport) == ["both"]
        r.bus.pump()
        assert ids(transport) == ["both"]
        assert session.offset == 1


@pytest.mark.parametrize("channels", [("all",), ("all", "topic:a")])
async def test_one_broken_transport_does_not_end_the_others_fan_out(channels: tuple[str, ...]) -> None:
    async with room() as r:
        opened = [r.open("all", "topic:a") for _ in range(3)]
        session, _ = opened[1]
        broken = Broken()
        session.transport = broken
        for number, channel in enumerate(channels):
            r.bus.publish(f"n{number}", (channel,))
        r.bus.pump()
        wanted = [f"n{number}" for number in range(len(channels))]
        assert ids(opened[0][1]) == ids(opened[2][1]) == wanted
        assert session.closed and broken.aborted
        assert session.id not in r.hub.sessions
        assert all(session not in feed.sessions for feed in session.channels)


async def test_an_ephemeral_publication_keeps_its_place_and_moves_no_position() -> None:
    async with room() as r:
        session, transport = r.open("all")
        behind, silent = r.open("all", sub="v")
        behind.pause_writing()
        r.bus.publish("a", ("all",))
        batch = list(r.bus.live.popleft())
        light = Entry(Publication(TENANT, r.bus.epoch, 0, "light", "e", b"{}", 0), "all")
        r.bus.publish("b", ("all",))
        batch += [light, *r.bus.live.popleft()]
        r.hub.entries(TENANT, batch)
        r.hub.advanced(TENANT, r.bus.epoch, 2)
        assert ids(transport) == ["a", "light", "b"]
        assert session.offset == 2
        behind.resume_writing()
        assert ids(silent) == ["a", "b"], "never recovered"
        assert session.counters.ephemeral_skipped == 1
        feed = r.hub.channel(TENANT, "all")
        assert [entry.offset for entry in feed.ring or ()] == [1, 2]


AUDIENCES = [
    (Audience(users=("u",)), {"u-phone", "u-desk", "u-admin"}),
    (Audience(users=()), set()),
    (Audience(devices=("phone",)), {"u-phone", "v-phone"}),
    (Audience(roles=("admin",)), {"u-admin"}),
    (Audience(exclude_users=("u",)), {"v-phone"}),
    (Audience(users=("u", "v"), devices=("phone",), exclude_users=("v",)), {"u-phone"}),
    (Audience(), {"u-phone", "u-desk", "u-admin", "v-phone"}),
]


@pytest.mark.parametrize(("audience", "wanted"), AUDIENCES, ids=range(len(AUDIENCES)))
async def test_an_audience_is_judged_per_session_and_what_it_filters_counts_as_passed(
    audience: Audience, wanted: set[str]
) -> None:
    async with room() as r:
        opened = {
            name: r.open("all", sub=name[0], device=name.split("-")[1])
            for name in ("u-phone", "u-desk", "u-admin", "v-phone")
        }
        admin = opened["u-admin"][0]
        admin.principal = type(admin.principal)("t", "u", frozenset({"admin"}))
        r.say("x", audience=audience)
        assert {name for name, (_, transport) in opened.items() if ids(transport)} == wanted
        assert {session.offset for session, _ in opened.values()} == {1}


async def test_an_audience_names_connections_and_leaves_connections_out() -> None:
    async with room() as r:
        (one, here), (_, there) = r.open("all"), r.open("all")
        r.say("only", audience=Audience(connections=(one.id,)))
        r.say("not", audience=Audience(exclude_connections=(one.id,)))
        assert (ids(here), ids(there)) == (["only"], ["not"])


# ── large fan-outs ─────────


def large(r: Room, count: int) -> list[RecordingTransport]:
    return [r.open("all", sub=f"u{number}")[1] for number in range(count)]


async def test_a_large_fan_out_yields_and_stays_in_order() -> None:
    async with room(hub=HubSettings(large_fan_out=10)) as r:
        transports = large(r, 35)
        r.say("first")
        feed = r.hub.tenants[TENANT]
        assert feed.running and not any(ids(transport) for transport in transports), "it starts next turn"
        r.say("second", "all")
        r.say("third", "all")
        await asyncio.sleep(0)
        reached = sum(bool(ids(transport)) for transport in transports)
        assert 0 < reached < 35, "it yields"
        await r.until(lambda: not feed.running and not feed.backlog)
        assert all(ids(transport) == ["first", "second", "third"] for transport in transports)
        assert feed.backlog_bytes == 0


async def test_who_joins_during_a_large_fan_out_gets_everything_once() -> None:
    async with room(hub=HubSettings(large_fan_out=5)) as r:
        transports = large(r, 20)
        r.say("first")
        r.say("second")
        await asyncio.sleep(0)
        late, transport = r.open("all", sub="late", epoch=r.bus.epoch, position=0)
        feed = r.hub.tenants[TENANT]
        await r.until(lambda: not feed.running and not feed.backlog and late.live)
        assert ids(transport) == ["first", "second"]
        assert all(ids(one) == ["first", "second"] for one in transports)


async def test_who_leaves_during_a_large_fan_out_is_written_nothing_more() -> None:
    async with room(hub=HubSettings(large_fan_out=5)) as r:
        opened = [r.open("all", sub=f"u{number}") for number in range(20)]
        r.say("first")
        await asyncio.sleep(0)
        session, transport = opened[-1]
        assert not ids(transport)
        session.connection_lost(None)
        await r.until(lambda: not r.hub.tenants[TENANT].running)
        assert not ids(transport)
        assert all(ids(one) == ["first"] for _, one in opened[:-1])


async def test_an_overflow_of_the_backlog_is_caught_up_from_the_ring() -> None:
    async with room(hub=HubSettings(large_fan_out=5, backlog_bytes=500)) as r:
        transports = large(r, 20)
        r.say("n0")
        for number in range(1, 10):
            r.say(f"n{number}")
        assert r.hub.overflows > 0
        assert r.hub.tenants[TENANT].backlog_bytes <= 500
        wanted = [f"n{number}" for number in range(10)]
        await r.until(lambda: all(ids(transport) == wanted for transport in transports))


async def test_bug_a_failed_write_changed_the_sessions_under_the_fan_out() -> None:
    """The broken session left its channel's dict while it was iterated: those behind it got nothing."""
    async with room() as r:
        opened = [r.open("all", sub=f"u{number}") for number in range(6)]
        for session, _ in opened[::2]:
            session.transport = Broken()
        r.say("one")
        assert [ids(transport) for _, transport in opened[1::2]] == [["one"]] * 3
        assert [session.closed for session, _ in opened] == [True, False] * 3
        r.say("two")
        assert [ids(transport) for _, transport in opened[1::2]] == [["one", "two"]] * 3
