"""A subscription over connections a test has scripted: what it gives, asks for and keeps, whatever breaks."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import httpx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import dualcast_client
from dualcast_client.connections import Connection
from dualcast_client.cursors import CursorStore
from dualcast_client.errors import DualcastError
from dualcast_client.events import (
    AuthExpiring,
    BusStatus,
    Bye,
    ChannelState,
    Frame,
    GapError,
    Positioned,
    Published,
    Reply,
    Unsubscribed,
    Welcome,
)
from dualcast_client.line import Ended, Line, Mute, Reconnects, Refused, Unreached
from dualcast_client.stream import Stream
from dualcast_client.wanted import Wanted, wanted
from support.scripted_line import HELLO, LATE, Server, Step, data, history, note, stream_of

pytestmark = pytest.mark.anyio


async def test_what_comes_twice_is_given_once_and_the_newest_position_goes_along() -> None:
    server = Server(
        [HELLO, note(1), note(2), Positioned(cursor="e-5"), Ended(1006)],
        [Unreached()],
        [Refused(502)],
        [HELLO, note(2), note(6), BusStatus(bus="ok", cursor="e-7"), Ended(4200)],
        [HELLO, note(1), note(6), note(8)],
    )
    async with stream_of(server, transport="websocket") as stream:
        assert await data(stream, 8) == [1, 2, 6, 8]
        assert stream.cursor == "e-8"
    assert [cursor for _, cursor, _, _ in server.asked] == ["", "e-5", "e-5", "e-5", "e-7"]
    assert (server.open, server.most) == (0, 1)


async def test_a_token_service_that_is_away_is_asked_again_and_a_mistake_is_not_hidden() -> None:
    server = Server([HELLO, Ended(4201)], [HELLO, note(1)])
    server.failing = [OSError("away"), httpx.ConnectError("away"), DualcastError("unreachable")]
    async with stream_of(server) as stream:
        server.failing = [TimeoutError()]
        assert await data(stream, 1) == [1]
    assert [token for _, _, token, _ in server.asked] == ["token-0", "token-1"]
    assert server.refused == ["", "", "", "", "token-0", "token-0"]
    server = Server()
    server.failing = [KeyError("a mistake")]
    with pytest.raises(KeyError):
        async with stream_of(server):
            pass


async def test_a_socket_is_given_another_token_and_a_stream_begins_anew() -> None:
    expiring = AuthExpiring(expires_at=1)
    refused = Reply(ref="c1", kind="error", body={"code": "unauthorized"})
    server = Server([HELLO, expiring, expiring, refused, note(1)])
    async with stream_of(server) as stream:
        assert await data(stream, 1) == [1]
    assert server.connections[0].sent[1:] == ['{"type":"authenticate","token":"token-1","ref":"c1"}']
    server = Server(
        [HELLO, expiring], [HELLO, note(1), Bye(code=4201, retry_ms=0), Ended()], [HELLO, note(2)]
    )
    async with stream_of(server, transport="sse") as stream:
        assert await data(stream, 2) == [1, 2]
    assert [one.sent for one in server.connections] == [[]] * 3
    assert [token for _, _, token, _ in server.asked] == ["token-0", "token-1", "token-2"]
    server = Server([HELLO, expiring, note(1)], renewable=False)
    async with stream_of(server) as stream:
        assert await data(stream, 1) == [1]
    assert server.refused == [""]


async def test_a_channel_that_was_withdrawn_is_not_asked_for_again() -> None:
    gone = Unsubscribed(channels=("topic:a",))
    server = Server([HELLO, gone, Ended(1006)], [HELLO, note(1)])
    async with stream_of(server, ["topic:a", "topic:b"]) as stream:
        assert await data(stream, 1) == [1]
    assert [channels for *_, channels in server.asked] == [("topic:a", "topic:b"), ("topic:b",)]


@pytest.mark.parametrize("on_gap", ["raise", "event"])
async def test_a_gap_that_history_fills_is_no_error(on_gap: Any) -> None:
    server = Server([HELLO, note(1), note(5), LATE, note(6)])
    server.pages = [history(2, 3, 5)]
    async with stream_of(server, backfill=True, on_gap=on_gap) as stream:
        assert await data(stream, 6) == [1, 5, 2, 3, 6]
    server = Server([HELLO, note(1), LATE, note(6)])
    async with stream_of(server, backfill=True) as stream:
        assert await data(stream, 1) == [1]
        with pytest.raises(GapError) as caught:  # history could not be read
            await data(stream, 6)
        assert caught.value.gap == LATE
        assert stream.cursor == "e-5"
        assert await data(stream, 6) == [6]


async def test_signals_are_given_to_whoever_wants_all() -> None:
    state = ChannelState(channel="task:t", status="none")
    server = Server([HELLO, state, Ended(1006)], [HELLO, note(1)])
    names = []
    async with stream_of(server) as stream:
        async for event in stream.events():
            names.append(type(event).__name__)
            if isinstance(event, Published):
                break
    assert names == ["Welcome", "ChannelState", "Disconnected", "Welcome", "Published"]


async def test_one_who_waits_for_short_times_gets_there() -> None:
    class Slow(Server):
        async def connect(self, *how: Any) -> Connection:
            await asyncio.sleep(0.05)
            return await super().connect(*how)

    before = asyncio.all_tasks()
    server = Slow([HELLO, note(1), Ended(1006)], [HELLO, note(2)])
    async with stream_of(server) as stream:
        found: list[int] = []
        async with asyncio.timeout(10):
            while found != [1, 2]:
                try:
                    async with asyncio.timeout(0.005):
                        found.append((await anext(stream)).data)
                except TimeoutError:
                    pass
    assert len(server.asked) == 2 and (server.open, server.most) == (0, 1)
    server = Slow([HELLO, Ended(1006)])
    async with stream_of(server) as stream:
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.01):
                await anext(stream)
    assert server.open == 0
    assert asyncio.all_tasks() == before, "what was begun ends with the stream"


@pytest.mark.parametrize("transport", ["websocket", "sse"])
async def test_after_the_last_word_nobody_waits_for_the_end_of_the_connection(transport: Any) -> None:
    server = Server([HELLO, note(1), Bye(code=4100, retry_ms=0), Positioned()], [HELLO, note(2)])
    async with stream_of(server, transport=transport) as stream:
        assert await data(stream, 2) == [1, 2]  # the first one is still open on the server's side
    assert (server.open, server.most) == (0, 1)


async def test_another_connection_beside_this_one_takes_over_without_a_break_or_a_step_back() -> None:
    pong = Reply(ref="ping", kind="pong", body={}, cursor="e-1")
    socket: list[Step] = [HELLO, note(2), pong, note(3), note(4)]
    server = Server([Mute()], [HELLO, note(1), note(2), note(3)], socket)
    rules = Reconnects(base_s=0, cap_s=0, probe_s=0.2)
    stream = Stream(server, wanted([], reconnects=rules))
    cursors, breaks = [], 0
    async with stream, asyncio.timeout(10):
        async for event in stream.events():
            breaks += not isinstance(event, Published | Welcome)
            if isinstance(event, Published):
                cursors.append(stream.cursor)
                if event.data == 4:
                    break
    assert cursors == ["e-1", "e-2", "e-3", "e-4"] and not breaks
    assert (server.open, server.most) == (0, 2)


class Store:
    """A store that is awaited."""

    def __init__(self) -> None:
        self.saved: list[str] = []

    async def load(self) -> str | None:
        return self.saved[-1] if self.saved else None

    async def save(self, cursor: str) -> None:
        await asyncio.sleep(0)
        self.saved.append(cursor)


async def test_a_position_is_kept_when_the_program_has_dealt_with_it() -> None:
    store: CursorStore = Store()
    assert isinstance(store, Store)
    async with stream_of(Server([HELLO, *map(note, range(1, 200))]), store=store) as stream:
        assert await data(stream, 150) == list(range(1, 151))
    assert store.saved[-1] == "e-150" and len(store.saved) < 5
    server = Server([HELLO, note(151), note(152)])
    with pytest.raises(ZeroDivisionError):
        async with stream_of(server, store=store) as stream:
            async for publication in stream:
                publication.data // (152 - publication.data)
    assert server.asked[0][1] == "e-150" and store.saved[-1] == "e-151"


async def test_one_who_is_stopped_is_told_why_each_time() -> None:
    server = Server([HELLO, note(1), Ended(4004, "revoked")])
    async with stream_of(server) as stream:
        assert await data(stream, 1) == [1]
        for _ in range(2):
            with pytest.raises(DualcastError, match="revoked"):
                await stream.next_event()
        assert stream.transport == ""
    assert server.open == 0


async def test_it_is_entered_once_and_before_it_is_read() -> None:
    stream = stream_of(Server())
    with pytest.raises(RuntimeError, match="enter"):
        await anext(stream)
    async with stream:
        with pytest.raises(RuntimeError, match="once"):
            await stream.__aenter__()
    await stream.aclose()
    assert await stream.next_event() is None
    await stream_of(Server()).aclose()
    never = dualcast_client.Client("http://127.0.0.1:9", "t").subscribe(["topic:a"])
    assert repr(never) == "SyncStream(topic:a)" and (never.cursor, never.transport) == ("", "")
    never.close()


endings: Any = st.sampled_from(
    [Ended(1006), Ended(), Ended(4200), Ended(4202), Ended(4100), Ended(4201), Ended(4010), Ended(4103)]
)
refusals: Any = st.sampled_from([Unreached(), Refused(502), Refused(0), Refused(503), Refused(204)])


@st.composite
def breaks(draw: Callable[[Any], Any]) -> list[list[Step]]:
    """Connections over which the notes 1 to 30 come, from a position that is at most the one asked for."""
    scripts: list[list[Step]] = []
    for _ in range(draw(st.integers(0, 8))):
        if draw(st.booleans()):
            scripts.append([draw(refusals)])
        else:
            first, count = draw(st.integers(0, 3)), draw(st.integers(0, 8))
            scripts.append([HELLO, Positioned(), *[Positioned()] * first, *[Positioned()] * count])
            scripts[-1].append(draw(endings))
    return scripts


class Log(Server):
    """A server with a log of 30 notes: it begins a little before the position it is asked for."""

    def __init__(self, scripts: list[list[Step]]) -> None:
        super().__init__(*scripts)

    async def connect(
        self, wanted: Wanted, line: Line, token: str, http: httpx.AsyncClient | None
    ) -> Connection:
        after = int(line.cursor.partition("-")[2] or 0)
        script = list(self.scripts[0]) if self.scripts else [HELLO]
        if isinstance(script[0], Frame):
            before = max(0, after - sum(isinstance(one, Positioned) for one in script[:3]))
            end = [] if not self.scripts else [script[-1]]
            count = 30 if not self.scripts else len(script)
            notes = [note(n) for n in range(before + 1, min(30, before + count) + 1)]
            if self.scripts:
                self.scripts[0] = [HELLO, *notes, *end]
            else:
                self.scripts.append([HELLO, *notes])
        return await super().connect(wanted, line, token, http)


@settings(max_examples=60, deadline=None)
@given(breaks())
def test_whatever_breaks_everything_comes_once_in_order_over_one_connection_at_a_time(
    scripts: list[list[Step]],
) -> None:
    async def run() -> None:
        server = Log(scripts)
        async with stream_of(server) as stream:
            assert await data(stream, 30) == list(range(1, 31))
        assert (server.open, server.most) == (0, 1)

    asyncio.run(run())
