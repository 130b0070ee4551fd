"""What subscriptions of the Python client once lost, leaked or waited for in vain: changes of channels and
tokens while the transport changes over, a close at the wrong moment, what is done."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

from dualcast_client import DualcastError, FileCursorStore
from dualcast_client.cursors import Position
from dualcast_client.events import Gap, GapError, MoveAsked, Reply
from dualcast_client.line import Ended, Refused
from support.scripted_line import HELLO, LATE, Scripted, Server, data, note, stream_of

pytestmark = pytest.mark.anyio


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


PONG = Reply(ref="ping", kind="pong", body={})
TO_SSE = MoveAsked(to="sse")


class Gated(Server):
    """The second connection opens when `gate` is set."""

    def __init__(self, *scripts: Any, **more: Any) -> None:
        super().__init__(*scripts, **more)
        self.gate, self.knocked = asyncio.Event(), asyncio.Event()

    async def connect(self, *how: Any) -> Scripted:
        opened = await super().connect(*how)
        if len(self.asked) == 2:
            self.knocked.set()
            await self.gate.wait()
        assert isinstance(opened, Scripted)
        return opened


async def test_a_channel_added_while_another_transport_is_opened_is_on_it_too() -> None:
    server = Gated([HELLO, PONG, TO_SSE], [HELLO, note(1)], [HELLO, note(2)])
    async with stream_of(server, ["topic:a"]) as stream, asyncio.timeout(10):
        await server.knocked.wait()
        asking = asyncio.create_task(stream.subscribe("topic:b"))
        while len(server.connections[0].sent) < 2:
            await asyncio.sleep(0)
        server.connections[0].say(Reply(ref="c1", kind="subscribed", body={}))
        await asking
        server.gate.set()
        assert await data(stream, 2) == [2]
        assert server.asked[2][::3] == ("sse", ("topic:a", "topic:b")), "opened anew, with both"
        assert stream.transport == "sse"
    assert server.open == 0


async def test_a_token_taken_to_the_socket_while_another_transport_is_opened_is_on_it_too() -> None:
    server = Gated([HELLO, PONG, TO_SSE], [HELLO], [HELLO, note(2)])
    async with stream_of(server) as stream, asyncio.timeout(10):
        await server.knocked.wait()
        asking = asyncio.create_task(stream.authenticate())
        while len(server.connections[0].sent) < 2:
            await asyncio.sleep(0)
        server.connections[0].say(Reply(ref="c1", kind="authenticated", body={}))
        await asking
        server.gate.set()
        assert await data(stream, 2) == [2]
    assert [token for _, _, token, _ in server.asked] == ["token-0", "token-0", "token-1"]


async def test_a_token_given_while_a_connection_opens_is_on_the_next() -> None:
    server = Gated([HELLO, Ended(1006)], [HELLO], [HELLO, note(1)])
    async with stream_of(server) as stream, asyncio.timeout(10):
        await server.knocked.wait()
        await stream.authenticate()
        server.gate.set()
        assert await data(stream, 1) == [1]
    assert [token for _, _, token, _ in server.asked] == ["token-0", "token-0", "token-1"]


async def test_a_close_during_a_change_over_leaves_no_connection_open() -> None:
    server = Server([HELLO, PONG, TO_SSE], [LATE, HELLO])
    reading = asyncio.Event()

    async def call(_: Any) -> Any:
        reading.set()
        await asyncio.Event().wait()

    server.call = call  # type: ignore[method-assign,assignment]
    async with stream_of(server, backfill=True), asyncio.timeout(10):
        await reading.wait()
        assert server.open == 2
    assert server.open == 0


async def test_two_who_ask_for_channels_of_a_stream_get_each_their_own_answer() -> None:
    class Picky(Server):
        async def connect(self, wanted: Any, *rest: Any) -> Any:
            if "topic:no" in wanted.channels:
                self.scripts.appendleft([Refused(403, code="forbidden-channel")])
            return await super().connect(wanted, *rest)

    async with stream_of(Picky(), transport="sse") as stream, asyncio.timeout(10):
        for turns in range(12):
            names = ("topic:no", f"topic:a{turns}", f"topic:b{turns}")
            asking = []
            for name in names:
                asking.append(asyncio.create_task(stream.subscribe(name)))
                for _ in range(turns):
                    await asyncio.sleep(0)
            no, *yes = await asyncio.gather(*asking, return_exceptions=True)
            assert isinstance(no, DualcastError) and no.code == "forbidden-channel"
            assert yes == [None, None] and set(names[1:]) <= set(stream.channels)


async def test_a_subscribe_or_unsubscribe_that_is_cancelled_on_its_way_leaves_the_server_as_it_says() -> None:
    for ask, channels in (("subscribe", ("topic:a",)), ("unsubscribe", ())):
        server = Server([HELLO, PONG], [HELLO, note(1)])
        async with stream_of(server, ["topic:a"]) as stream, asyncio.timeout(10):
            asking = asyncio.create_task(getattr(stream, ask)("topic:a" if ask[0] == "u" else "topic:b"))
            while len(server.connections[0].sent) < 2:
                await asyncio.sleep(0)
            asking.cancel()
            assert await data(stream, 1) == [1]
            assert (stream.channels, server.asked[1][3]) == (channels, channels)


@pytest.mark.parametrize("before", [True, False])
async def test_a_close_ends_the_wait_for_the_first_welcome(before: bool) -> None:
    stream = stream_of(Server([Gap(channel="all", reason="late")]))
    if before:
        await stream.aclose()
    entering = asyncio.create_task(stream.__aenter__())
    for _ in range(5):
        await asyncio.sleep(0)
    await stream.aclose()
    with pytest.raises((DualcastError, RuntimeError), match=r"closed|once"):
        await asyncio.wait_for(entering, 10)


# ── what is done ──


async def test_a_gap_is_told_again_when_the_program_died_before_it_had_dealt_with_it() -> None:
    for ends in ("crash", "next", "ack"):
        server = Server([HELLO, note(1), LATE, note(6)])
        stream = stream_of(server, ack="manual")
        with pytest.raises((GapError, ZeroDivisionError)):
            async with stream, asyncio.timeout(10):
                await stream.ack(await anext(stream))
                try:
                    await anext(stream)
                except GapError:
                    assert stream.acked == "e-1"
                    if ends == "ack":
                        await stream.ack()
                    elif ends == "next":
                        await anext(stream)
                    if ends != "crash":
                        assert stream.acked == "e-5"
                        raise
                    _ = 1 // 0
        assert stream.acked == ("e-1" if ends == "crash" else "e-5")


async def test_an_older_position_is_not_written_after_a_newer_one() -> None:
    class Slow:
        kept = ""
        delays = iter((5, 0))

        def load(self) -> None: ...

        async def save(self, cursor: str) -> None:
            for _ in range(next(self.delays)):
                await asyncio.sleep(0)
            self.kept = cursor

    store = Slow()
    position = Position(store)
    position.done = "e-1"
    first = asyncio.create_task(position.save(now=True))
    await asyncio.sleep(0)
    position.done = "e-2"
    await position.save(now=True)
    await first
    assert store.kept == "e-2"


def test_a_position_file_may_be_a_link_and_is_written_over_none_but_that(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    (tmp_path / "cursor").symlink_to(tmp_path / "data/cursor")
    store = FileCursorStore(tmp_path / "cursor")
    store.save("e-1")
    assert (tmp_path / "cursor").is_symlink() and store.load() == "e-1"
    assert (tmp_path / "data/cursor").stat().st_mode & 0o777 == 0o600
    (tmp_path / "other").write_text("precious")
    (tmp_path / "data/cursor.new").symlink_to(tmp_path / "other")
    with pytest.raises(OSError):
        store.save("e-2")
    assert (tmp_path / "other").read_text() == "precious"
    store.save("e-2")
    assert store.load() == "e-2"
    with pytest.raises(FileNotFoundError):
        FileCursorStore(tmp_path / "missing/cursor").save("e-1")
