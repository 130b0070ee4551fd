"""Views (PROTO-66): the bytes of each on both transports, made once whatever the number of connections, and
from the very texts of the older stream.
"""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from dualcast.dialects.legacy import Endpoint, Facts, LegacySettings
from dualcast.dialects.native_types import ViewEvent
from dualcast.dialects.native_views import SOCKET, STREAM, ViewEncoders, events_of
from dualcast.dialects.notifications import endpoints
from dualcast.model.codes import Close
from dualcast.model.principal import Principal
from dualcast.model.publication import Entry, Publication
from dualcast.session.legacy_registry import Registry
from dualcast.transport.unframe import unframe_sse, unframe_websocket
from dualcast.transport.views import ViewKind, ViewSocket, ViewState, ViewStream
from dualcast_migration.parity import read_socket, read_stream
from support.engine_room import room
from support.legacy_room import Deaf, LegacyRoom, Transport
from support.model_bus import TENANT

pytestmark = pytest.mark.anyio

VECTORS = Path(__file__).parents[1] / "conformance" / "vectors" / "legacy_notifications.json"
ENDPOINTS = {one.view: one for one in endpoints(LegacySettings(), lambda: 12345.678) if one.view}
SESSIONS = 8


def vectors(view: str) -> list[dict[str, Any]]:
    found = json.loads(VECTORS.read_text(encoding="utf-8"))["vectors"]
    path = ENDPOINTS[view].path
    return [one for one in found if "publication" in one and one.get("path") == path]


def entry_of(vector: dict[str, Any]) -> Entry:
    given = vector["publication"]
    data = given["data_json"].encode()
    publication = Publication(
        TENANT, given["epoch"], given["offset"], given["id"], given["event"], data, given["time_ms"]
    )
    return Entry(publication, given["channel"])


def fields(block: str, name: str) -> list[str]:
    return [line.removeprefix(name) for line in block.split("\n") if line.startswith(name)]


GOLDEN = [pytest.param(view, one, id=f"{view}: {one['name']}") for view in ENDPOINTS for one in vectors(view)]


def test_the_views_there_are() -> None:
    assert set(ENDPOINTS) == {"notifications", "task", "batch"}
    assert {view for view, *_ in (one.values for one in GOLDEN)} == set(ENDPOINTS)


@pytest.mark.parametrize(("view", "vector"), GOLDEN)
def test_a_view_has_the_names_and_texts_of_the_stream(view: str, vector: dict[str, Any]) -> None:
    made, entry = ViewEncoders(ENDPOINTS[view].encode), entry_of(vector)
    blocks = vector["sse"]
    due = [{"event": fields(b, "event: ")[0], "data": fields(b, "data: ")[0]} for b in blocks]
    socket, stream = made.socket(entry).decode(), made.stream(entry).decode()
    if not due:
        assert (socket, stream) == ("", "")
        return
    given = vector["publication"]
    cursor = f"{given['epoch']}-{given['offset']}" if given["offset"] else ""
    body = {"id": given["id"], "events": due}
    assert json.loads(socket) == {"type": "view", **({"cursor": cursor} if cursor else {}), **body}
    head, _, data = stream.removesuffix("\n\n").rpartition("\ndata: ")
    assert head == (f"id: {cursor}\n" if cursor else "") + "event: publication" and "\n" not in data
    assert json.loads(data) == body


def test_the_bytes_of_a_view() -> None:
    note = (
        b'{"id":"n1","type":"alert","title":"\xe4\xbd\xa0\\"","content":null,'
        b'"created_at":"2026-01-31T12:00:00.000000Z"}'
    )
    entry = Entry(Publication(TENANT, "e1", 7, "p1", "notification", note, 1_769_860_800_000), "user:u1")
    made = ViewEncoders(ENDPOINTS["notifications"].encode)
    shared = (
        r'"id":"p1","events":[{"event":"notification","data":"{\"id\":\"n1\",\"type\":\"alert\",'
        r"\"title\":\"你\\\"\",\"content\":null,\"link\":null,\"source\":null,\"status\":\"unread\","
        r'\"created_at\":\"2026-01-31T12:00:00.000000Z\"}"}]}'
    )
    assert made.socket(entry).decode() == '{"type":"view","cursor":"e1-7",' + shared
    assert made.stream(entry).decode() == "id: e1-7\nevent: publication\ndata: {" + shared + "\n\n"
    fleeting = Entry(Publication(TENANT, "e1", 0, "p1", "notification", note, 1_769_860_800_000), "user:u1")
    assert made.socket(fleeting).decode() == '{"type":"view",' + shared
    assert made.stream(fleeting).decode() == "event: publication\ndata: {" + shared + "\n\n"


@pytest.mark.parametrize(("view", "vector"), GOLDEN)
def test_parity_reads_both_transports_of_a_view(view: str, vector: dict[str, Any]) -> None:
    made, entry = ViewEncoders(ENDPOINTS[view].encode), entry_of(vector)
    socket, stream = made.socket(entry).decode(), made.stream(entry).decode()
    found = read_socket([socket])
    assert found == read_stream(stream)
    assert [one.id for one in found] == ([vector["publication"]["id"]] if "cursor" in socket else [])
    if found:
        other = socket.replace('"events":[{', '"events":[{"x":1},{', 1)
        assert read_socket([other])[0].digest != found[0].digest


def test_events_of_any_blocks() -> None:
    assert events_of(b"") == events_of(()) == events_of(b"id: 7\n\n") == []
    assert events_of(b"id: 7\nevent: a\ndata: {}\nretry: 9\n\n") == [ViewEvent(event="a", data="{}")]
    assert events_of((b"data: 1\ndata: 2\n\n", b"event: b\ndata: 3\n\n")) == [
        ViewEvent(event="message", data="1\n2"),
        ViewEvent(event="b", data="3"),
    ]


class Keeping(Transport):
    """Keeps the very objects, too."""

    def __init__(self, unframe: Any) -> None:
        super().__init__(unframe)
        self.objects: list[bytes] = []

    def write(self, data: bytes) -> None:
        self.objects.append(data)
        super().write(data)


class Views:
    """Sessions of views without a socket."""

    def __init__(self, legacy: LegacyRoom) -> None:
        self.legacy = legacy

    def open(
        self, kind: ViewKind, transport: str, *channels: str, user: str = "u", position: int = -1
    ) -> tuple[Any, Keeping]:
        room = self.legacy.room
        names = ["user:" + user, "all", *channels]
        for name in names:
            room.hub.channel(TENANT, name)
        room.bus.confirm()
        facts = Facts(tenant=TENANT, user=user)
        facts.params = {"task_id": "T1", "batch_id": "B1"}
        state = ViewState(kind, kind.endpoint.view, facts)
        more: dict[str, Any] = {"view": state, "position": position}
        more["epoch"] = room.bus.epoch if position >= 0 else ""
        session: Any
        wire = Keeping(unframe_sse if transport == "sse" else unframe_websocket)
        if transport == "sse":
            session = ViewStream(room.node, Principal(TENANT, user), kind.sse, STREAM, names, **more)
        else:
            encoding = kind.ws if transport == "ws" else kind.ws_deflate
            session = ViewSocket(room.node, Principal(TENANT, user), encoding, SOCKET, names, Deaf(), **more)
            session.can_ping = False
        session.attached(wire, set(), paused=False, initial=b"")
        wire.sent.clear()
        wire.objects.clear()
        return session, wire


@pytest.fixture
async def views() -> AsyncIterator[Views]:
    async with room() as made:
        yield Views(LegacyRoom(made))


def counting(view: str, registry: Registry | None = None) -> tuple[ViewKind, list[int]]:
    calls: list[int] = []
    endpoint: Endpoint = ENDPOINTS[view]

    def encode(entry: Entry) -> bytes | Sequence[bytes]:
        calls.append(entry.offset)
        return endpoint.encode(entry)

    return ViewKind(replace(endpoint, encode=encode), registry or Registry()), calls


@pytest.mark.parametrize(("view", "vector"), [one for one in GOLDEN if one.values[1]["sse"]])
async def test_a_publication_is_encoded_once_for_all_connections(
    views: Views, view: str, vector: dict[str, Any]
) -> None:
    kind, calls = counting(view)
    given = vector["publication"]
    kept: dict[str, list[Keeping]] = {"sse": [], "ws": [], "deflate": []}
    for transport, wires in kept.items():
        for number in range(SESSIONS):
            channels = [] if given["channel"] == "all" else [given["channel"]]
            user = given["channel"].removeprefix("user:") if number == 0 else f"u{number}"
            wires.append(views.open(kind, transport, *channels, user=user)[1])
    data, bus = given["data_json"].encode(), views.legacy.room.bus
    bus.publish("p1", (given["channel"],), kind=given["event"], data=data, time_ms=given["time_ms"])
    bus.pump()
    assert calls == [1]
    for wires in kept.values():
        assert [len(wire.objects) for wire in wires] == [1] * SESSIONS
        assert len({id(wire.objects[0]) for wire in wires}) == 1
    # Whoever comes back for it gets the same bytes.
    _, again = views.open(kind, "ws", given["channel"], user="back", position=0)
    assert calls == [1]
    assert len(kept["ws"][0].objects[0]) == len(kind.ws.frame(bus_entry(views, given["channel"])))
    assert not again.aborted


def bus_entry(views: Views, channel: str) -> Entry:
    return next(iter(views.legacy.room.hub.channel(TENANT, channel).after(0)))


async def test_what_goes_to_many_users_is_encoded_once(views: Views) -> None:
    kind, calls = counting("notifications")
    users = [f"many{number}" for number in range(SESSIONS)]
    wires = [views.open(kind, transport, user=user)[1] for user in users for transport in ("sse", "ws")]
    data = b'{"id":"n","title":"t","created_at":"2026-01-31T12:00:00.000000Z"}'
    channels = ["user:" + user for user in users]
    views.legacy.room.bus.publish("p", channels, kind="notification", data=data, time_ms=1)
    views.legacy.room.bus.pump()
    assert calls == [1]
    assert [len(wire.sent) for wire in wires] == [1] * len(wires)


async def test_what_is_not_of_the_stream_is_passed_over(views: Views) -> None:
    kind, _ = counting("notifications")
    opened = [views.open(kind, transport) for transport in ("sse", "ws")]
    views.legacy.say("note", b'{"title":"x"}')
    for session, wire in opened:
        assert wire.sent == [] and session.offset == 1


async def test_heartbeats_are_those_of_the_stream(views: Views) -> None:
    kind, _ = counting("notifications")
    (_, stream), (socket_session, socket) = views.open(kind, "sse"), views.open(kind, "ws")
    views.legacy.later(29)
    assert stream.sent == socket.sent == []
    views.legacy.later(2)
    events = [{"event": "heartbeat", "data": '{"ts":12345.678}'}]
    assert json.loads(stream.sent[0].removeprefix("event: publication\ndata: ")) == {"events": events}
    assert json.loads(socket.sent[0]) == {"type": "view", "events": events}
    socket_session.close(Close.DRAIN)
    socket.sent.clear()
    views.legacy.later(60)
    assert socket.sent == []
    assert len(views.legacy.room.node.wheel) == 1, "only the stream rides on"


async def test_a_view_does_not_end_by_itself(views: Views) -> None:
    for view in ("task", "batch"):
        session, _ = views.open(counting(view)[0], "sse", f"{view}:1")
        views.legacy.later(1000)
        assert not session.closed, view


async def test_the_end_of_a_token_cuts_a_view_only_where_the_setting_says_so(views: Views) -> None:
    for cuts in (False, True):
        session, _ = views.open(counting("notifications", Registry(cut_on_expiry=cuts))[0], "ws")
        assert session.cut_on_expiry is cuts


@pytest.mark.parametrize("transport", ["sse", "ws"])
async def test_one_that_is_replaced_is_told_as_on_the_stream(views: Views, transport: str) -> None:
    session, wire = views.open(counting("notifications", Registry(max_per_user=3))[0], transport)
    session.close(Close.REPLACED)
    told = wire.sent[0]
    body = json.loads(told.removeprefix("event: publication\ndata: "))
    assert body["events"] == [{"event": "replaced", "data": '{"reason":"connection limit","limit":3}'}]
    assert "replaced" in str(wire.sent[1])
