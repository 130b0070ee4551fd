"""Legacy sessions: skipped publications, counting, close codes, signals that are left out, who is counted."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator

import pytest

from dualcast.dialects.legacy import Opening
from dualcast.hub.encoding import Encoding
from dualcast.model.codes import Close
from dualcast.model.publication import Audience, Entry, Gap, Publication
from dualcast.session.legacy_registry import MANY_EVICTIONS, Registry
from dualcast.transport.legacy import close_code
from dualcast.transport.legacy_told import Told
from support import legacy_toy as toy
from support.engine_room import Room, room
from support.legacy_room import LegacyRoom
from support.recording import ENCODING, RecordingTransport, open_session

pytestmark = pytest.mark.anyio


@pytest.fixture
async def legacy() -> AsyncIterator[LegacyRoom]:
    async with room() as made:
        yield LegacyRoom(made)


def entry(kind: str, data: bytes = b"{}", channel: str = "all") -> Entry:
    return Entry(Publication("t", "e1", 1, "i", kind, data, 0), channel)


# ── encodings that skip ──


def test_an_encoding_takes_no_text_one_or_several() -> None:
    made: dict[str, bytes | tuple[bytes, ...]] = {"no": b"", "none": (), "one": b"a", "two": (b"a", b"b")}
    calls = []

    def encode(entry: Entry) -> bytes | tuple[bytes, ...]:
        calls.append(entry.publication.type)
        return made[entry.publication.type]

    encoding = Encoding("x", "ws", encode, lambda text: b"<" + text + b">", conflates=False)
    entries = [entry(kind) for kind in made]
    assert [encoding.frame(one) for one in entries] == [b"", b"", b"<a>", b"<a><b>"]
    assert [encoding.frame(one) for one in entries] == [b"", b"", b"<a>", b"<a><b>"]
    assert calls == list(made)


def _skipping() -> Encoding:
    def encode(entry: Entry) -> bytes:
        return b"" if entry.publication.type == "skip" else f"p - {entry.offset} x\n".encode()

    return Encoding("skipping", "ws", encode, bytes, conflates=False)


def _open(made: Room, *channels: str) -> tuple[object, RecordingTransport]:
    for name in channels:
        made.hub.channel("t", name)
    made.bus.confirm()
    return open_session(made.node, list(channels), encoding=_skipping())


async def test_what_is_skipped_is_neither_written_nor_counted_and_the_position_moves_on() -> None:
    async with room() as made:
        session, wire = _open(made, "user:u", "all")
        writes = wire.writes
        audience = Audience(exclude_users=("nobody",))
        for channels, who in (
            (("all",), None),
            (("all", "user:u"), None),
            (("all",), audience),
            (("user:u",), audience),
        ):
            made.bus.publish("i", channels, who, kind="skip")
            made.bus.pump()
        assert wire.writes == writes
        assert session.counters.delivered == 0  # type: ignore[attr-defined]
        assert session.offset == 4  # type: ignore[attr-defined]
        made.bus.publish("a", ("all",), kind="skip")
        made.bus.publish("b", ("all",))
        made.bus.publish("c", ("all",), kind="skip")
        made.bus.pump()
        assert wire.writes == writes + 1
        assert session.counters.delivered == 1  # type: ignore[attr-defined]
        assert session.offset == 7  # type: ignore[attr-defined]


async def test_a_skipping_session_and_one_that_does_not_share_a_run() -> None:
    async with room() as made:
        skipping, silent = _open(made, "user:u", "all")
        session, wire = open_session(made.node, ["user:u", "all"], encoding=ENCODING)
        for _ in range(3):
            made.bus.publish("i", ("all",), kind="skip")
        made.bus.pump()
        assert len([line for line in wire.lines if line.startswith("p ")]) == 3
        assert not [line for line in silent.lines if line.startswith("p ")]
        assert session.offset == skipping.offset == 3  # type: ignore[attr-defined]


async def test_recovery_skips_as_well() -> None:
    async with room() as made:
        _open(made, "user:u", "all")
        for number in range(6):
            made.bus.publish("i", ("all",), kind="skip" if number % 2 else "e")
        made.bus.pump()
        session, wire = open_session(
            made.node, ["user:u", "all"], encoding=_skipping(), epoch=made.bus.epoch, position=0
        )
        await made.until(lambda: session.live)
        assert [line.split()[2] for line in wire.lines if line.startswith("p ")] == ["1", "3", "5"]
        assert session.offset == 6
        assert session.counters.recovered == 3


# ── close codes and signals ──


def test_close_codes_are_those_of_the_contract_and_never_1000() -> None:
    endpoint = toy.socket_endpoint()
    assert {why: close_code(endpoint, why) for why in (Close.DRAIN, Close.REPLACED, Close.TRY_LATER)} == {
        Close.DRAIN: (1012, "service restart"),
        Close.REPLACED: (4409, "connection limit"),
        Close.TRY_LATER: (1013, "try again later"),
    }
    assert close_code(endpoint, Close.FRAME_TOO_BIG) == (1009, "message too big")
    assert close_code(endpoint, Close.INTERNAL) == (4000, "Internal error")
    assert close_code(endpoint, Close.REVOKED) == (4001, "Invalid credentials")
    assert {close_code(endpoint, why)[0] for why in Close} <= {1009, 1012, 1013, 4000, 4001, 4409}


async def test_signals_a_legacy_client_does_not_know_are_counted_and_left_out(legacy: LegacyRoom) -> None:
    for endpoint in (toy.socket_endpoint(), toy.stream_endpoint()):
        session, wire = legacy.open(endpoint)
        wire.take()
        session.tell_gap(Gap("all", 1, 2))
        session.bus_status(False)
        session.send(session.dialect.auth_expiring(1))
        assert wire.take() == []
    assert legacy.registry.gauges()["legacy_signals_left_out"] == 6


async def test_the_first_frames_are_one_write(legacy: LegacyRoom) -> None:
    for endpoint in (toy.socket_endpoint(), toy.stream_endpoint()):
        _, wire = legacy.open(endpoint)
        assert (wire.writes, len(wire.take())) == (1, 2)


async def test_a_contract_that_raises_ends_nobodys_fan_out(
    legacy: LegacyRoom, caplog: pytest.LogCaptureFixture
) -> None:
    _, first = legacy.open(toy.socket_endpoint())
    _, second = legacy.open(toy.stream_endpoint())
    first.take()
    second.take()
    legacy.say("broken")
    legacy.say("note", b'{"n":1}')
    assert first.take() == ['{"n":1}']
    assert len(second.take()) == 1
    assert "secret" not in "".join(record.getMessage() for record in caplog.records)


def test_what_the_state_has_told_is_not_told_again() -> None:
    base = Encoding("x", "ws", lambda one: one.publication.data, bytes, conflates=False)
    told = Told(base, "task:1", 4)
    frames = {
        ("task:1", b'{"revision":3}'): b"",
        ("task:1", b'{"revision":4}'): b"",
        ("task:1", b'{"revision":5}'): b'{"revision":5}',
        ("task:2", b'{"revision":4}'): b'{"revision":4}',
        ("task:1", b"[]"): b"[]",
        ("task:1", b"{}"): b"{}",
    }
    for (channel, data), frame in frames.items():
        one = entry("task", data, channel)
        assert told.frame(one) == told.frame(one) == frame
        assert not frame or told.frame(one) is base.frame(one), "encoded once for both"


async def test_a_withdrawn_grant_takes_tasks_and_no_rooms(legacy: LegacyRoom) -> None:
    session, _ = legacy.open(toy.socket_endpoint(), "user:u", "room:a", "task:1")
    session.withdraw(["room:a", "task:1"])
    assert [feed.name for feed in session.channels] == ["user:u", "room:a"]


# ── the registry ──


async def test_numbers_and_ids_come_and_go_with_connections(legacy: LegacyRoom) -> None:
    registry = legacy.registry
    endpoint = toy.socket_endpoint()
    first, _ = legacy.open(endpoint, client_id="c")
    second, wire = legacy.open(endpoint, client_id="c")
    nobody, _ = legacy.open(endpoint, "all", user="", opening=Opening())
    assert second.legacy.facts.client_id == "fresh-1"
    assert '"own":2' in wire.take()[0]
    assert (registry.dialects["toy"], registry.anonymous["t"], registry.own(first)) == (3, 1, 2)
    for session in (first, nobody):
        session.close(Close.DRAIN)
        session.connection_lost(None)
    assert (registry.dialects["toy"], registry.anonymous["t"], registry.own(second)) == (1, 0, 1)
    third, _ = legacy.open(endpoint, client_id="c")
    assert third.legacy.facts.client_id == "c"


async def test_the_newest_wins_per_user_and_stream(caplog: pytest.LogCaptureFixture) -> None:
    async with room() as made:
        legacy = LegacyRoom(made, Registry(max_per_user=2))
        endpoint, other = toy.socket_endpoint(), toy.stream_endpoint()
        opened = [legacy.open(endpoint) for _ in range(2)]
        legacy.open(other)
        legacy.open(endpoint, user="v")
        assert not any(session.closed for session, _ in opened)
        opened.append(legacy.open(endpoint))
        assert [session.closed for session, _ in opened] == [True, False, False]
        assert opened[0][1].take()[-1] == (4409, "connection limit")
        for _ in range(4):
            legacy.open(endpoint, "all", user="")
        assert not any(session.closed for session, _ in opened[1:])
        with caplog.at_level(logging.WARNING):
            for _ in range(MANY_EVICTIONS):
                legacy.open(endpoint)
        assert "were replaced within a minute" in caplog.text
        assert legacy.registry.gauges()["legacy_evictions"] == MANY_EVICTIONS + 1
