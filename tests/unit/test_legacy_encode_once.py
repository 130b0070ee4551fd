"""Every contract encodes a publication once, however many connections it reaches: live, narrowed to some, in
a batch with others, and when somebody comes back for it. The publications are those of the golden vectors.
"""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Sequence
from dataclasses import replace
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest

from dualcast.dialects.legacy import Endpoint, LegacySettings
from dualcast.model.publication import Audience, Entry
from dualcast.transport.unframe import unframe_sse, unframe_websocket
from support.engine_room import room
from support.legacy_room import LegacyRoom

pytestmark = pytest.mark.anyio

DIALECTS = ("notifications", "rooms", "topics", "conversations", "progress")
VECTORS = Path(__file__).parents[1] / "conformance" / "vectors"
SESSIONS = 12


@pytest.fixture
async def legacy() -> AsyncIterator[LegacyRoom]:
    async with room() as made:
        yield LegacyRoom(made)


def published(dialect: str) -> list[dict[str, Any]]:
    text = (VECTORS / f"legacy_{dialect}.json").read_text(encoding="utf-8")
    return [vector for vector in json.loads(text)["vectors"] if "publication" in vector]


def endpoint_of(dialect: str, vector: dict[str, Any]) -> Endpoint:
    endpoints = import_module(f"dualcast.dialects.{dialect}").endpoints(LegacySettings())
    path = vector.get("path", endpoints[0].path)
    (found,) = [one for one in endpoints if one.path == path]
    assert isinstance(found, Endpoint)
    return found


def counting(endpoint: Endpoint) -> tuple[Endpoint, list[int]]:
    """The endpoint without its first frames, and the offsets its encoder was asked for."""
    calls: list[int] = []

    def encode(entry: Entry) -> bytes | Sequence[bytes]:
        calls.append(entry.offset)
        return endpoint.encode(entry)

    return replace(endpoint, encode=encode, first=lambda facts, opening: (), ended=None), calls


class Keeping:
    """A transport that keeps the very objects that are written."""

    def __init__(self) -> None:
        self.objects: list[bytes] = []

    def write(self, data: bytes) -> None:
        self.objects.append(data)

    def get_write_buffer_size(self) -> int:
        return 0

    def messages(self, transport: str) -> int:
        """WebSocket messages or SSE blocks in what was written."""
        unframe = unframe_websocket if transport == "ws" else unframe_sse
        found = [message for data in self.objects for message in unframe(data)[0]]
        if transport == "ws":
            return len(found)
        return sum(message["body"].count(b"\n\n") for message in found)


def open_many(legacy: LegacyRoom, endpoint: Endpoint, *channels: str) -> list[Keeping]:
    """SESSIONS connections of as many users."""
    kept = []
    for number in range(SESSIONS):
        session, _ = legacy.open(endpoint, *channels, user=f"u{number}")
        session.transport = Keeping()
        kept.append(session.transport)
    return kept


def parameters(*, first_only: bool = False, but: str = "") -> list[Any]:
    """(dialect, vector); `first_only`: one per endpoint, of those that are told of. `but`: an event."""
    chosen, seen = [], set()
    for dialect in DIALECTS:
        for vector in published(dialect):
            frames = vector.get("ws", vector.get("sse"))
            place = (dialect, vector.get("path"))
            if first_only and (place in seen or not frames):
                continue
            if vector["publication"]["event"] == but:
                continue
            seen.add(place)
            chosen.append(pytest.param(dialect, vector, id=f"{dialect}: {vector['name']}"))
    return chosen


def say(legacy: LegacyRoom, vector: dict[str, Any], *, audience: Audience | None = None) -> None:
    """Publishes; `pump` delivers."""
    given = vector["publication"]
    data, time_ms = given["data_json"].encode(), given["time_ms"]
    channels = (given["channel"],)
    legacy.room.bus.publish("p1", channels, audience, kind=given["event"], data=data, time_ms=time_ms)


@pytest.mark.parametrize(("dialect", "vector"), parameters())
async def test_a_publication_is_encoded_once_for_all_connections_of_its_contract(
    legacy: LegacyRoom, dialect: str, vector: dict[str, Any]
) -> None:
    endpoint, calls = counting(endpoint_of(dialect, vector))
    kept = open_many(legacy, endpoint, vector["publication"]["channel"])
    say(legacy, vector)
    legacy.room.bus.pump()
    assert calls == [1]
    frames = vector.get("ws", vector.get("sse"))
    assert [len(one.objects) for one in kept] == [1 if frames else 0] * SESSIONS
    assert len({id(one.objects[0]) for one in kept if one.objects}) == (1 if frames else 0)
    assert {one.messages(endpoint.transport) for one in kept} == {len(frames)}


@pytest.mark.parametrize(("dialect", "vector"), parameters(first_only=True))
async def test_one_that_is_for_some_of_them_is_encoded_once(
    legacy: LegacyRoom, dialect: str, vector: dict[str, Any]
) -> None:
    endpoint, calls = counting(endpoint_of(dialect, vector))
    kept = open_many(legacy, endpoint, vector["publication"]["channel"])
    say(legacy, vector, audience=Audience(exclude_users=("u0", "u5")))
    legacy.room.bus.pump()
    assert calls == [1]
    assert [number for number, one in enumerate(kept) if not one.objects] == [0, 5]
    assert len({id(one.objects[0]) for one in kept if one.objects}) == 1


@pytest.mark.parametrize(("dialect", "vector"), parameters(first_only=True))
async def test_in_a_batch_over_several_channels_each_is_encoded_once(
    legacy: LegacyRoom, dialect: str, vector: dict[str, Any]
) -> None:
    endpoint, calls = counting(endpoint_of(dialect, vector))
    kept = open_many(legacy, endpoint, vector["publication"]["channel"], "topic:other")
    for _ in range(3):
        say(legacy, vector)
        legacy.room.bus.publish("other", ("topic:other",), kind="of nobody's")
    legacy.room.bus.pump()
    assert sorted(calls) == [1, 2, 3, 4, 5, 6]
    assert [len(one.objects) for one in kept] == [1] * SESSIONS
    assert len({id(one.objects[0]) for one in kept}) == 1


@pytest.mark.parametrize(("dialect", "vector"), parameters(first_only=True))
async def test_whoever_comes_back_gets_the_bytes_that_were_made(
    legacy: LegacyRoom, dialect: str, vector: dict[str, Any]
) -> None:
    endpoint, calls = counting(endpoint_of(dialect, vector))
    channel = vector["publication"]["channel"]
    _, live = legacy.open(endpoint, channel)
    say(legacy, vector)
    legacy.room.bus.pump()
    came = [legacy.open(endpoint, channel, user=f"b{number}", position=0)[1] for number in range(3)]
    legacy.later(5)  # clocks look at what was written
    assert calls == [1]
    told = live.take()
    assert told
    assert [transport.take() for transport in came] == [told] * len(came)


# Presence is announced on one channel only.
@pytest.mark.parametrize(("dialect", "vector"), parameters(first_only=True, but="presence"))
async def test_what_is_published_to_many_users_is_encoded_once_where_channels_do_not_matter(
    legacy: LegacyRoom, dialect: str, vector: dict[str, Any]
) -> None:
    endpoint, calls = counting(endpoint_of(dialect, vector))
    own = vector["publication"]["channel"]
    channels = [own, *(f"user:many{number}" for number in range(SESSIONS))]
    wires = [legacy.open(endpoint, channel)[1] for channel in channels]
    for number in range(2):  # the second is not taken for the first
        given = vector["publication"]
        data = given["data_json"].encode()
        time_ms = given["time_ms"] + number * 1000
        legacy.room.bus.publish(f"p{number}", channels, kind=given["event"], data=data, time_ms=time_ms)
    legacy.room.bus.pump()
    assert len(calls) == (2 if endpoint.everywhere else 2 * len(channels))
    told = [wire.take() for wire in wires]
    if endpoint.everywhere:
        assert told == [told[0]] * len(told)
        assert len(told[0]) == 2
    else:
        assert all(told)


def test_the_contracts_whose_texts_do_not_name_a_channel_say_so() -> None:
    chosen = [endpoint_of(*one.values) for one in parameters()]
    assert {(one.dialect, one.path) for one in chosen if one.everywhere} == {
        ("notifications", "/api/ws/notifications"),
        ("notifications", "/api/notifications/stream"),
        ("rooms", "/api/v1/ws/{user_id:str}"),
        ("conversations", "/api/v1/ws"),
    }
