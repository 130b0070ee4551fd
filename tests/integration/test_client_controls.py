"""What a program says to an open subscription of the Python client: channels, commands, tokens, what it is
done with."""

from __future__ import annotations

import asyncio
import logging
import os
import threading
from collections.abc import AsyncIterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from dualcast_client.wanted import Backend
from support.client_package import bodies, package
from support.client_rig import numbers_of
from support.node import Node, running_node

pytestmark = pytest.mark.anyio
TRANSPORTS: Any = ("websocket", "sse")
PATIENCE_S = 30.0
numbers = partial(numbers_of, seconds=PATIENCE_S)


@pytest.fixture(scope="module", params=["memory", "redis"])
async def node(request: pytest.FixtureRequest) -> AsyncIterator[Node]:
    async with running_node(request.param) as running:
        yield running


@pytest.fixture(scope="module")
def anyio_backend() -> str:
    return "asyncio"


def client_of(node: Node, sub: str = "alice", **more: Any) -> package.AsyncClient:
    return package.AsyncClient(node.base_url, node.token(sub, channels=["topic:*"]), **more)


@pytest.mark.parametrize("transport", TRANSPORTS)
async def test_channels_come_and_go_while_it_is_open(node: Node, transport: Any) -> None:
    channel = f"topic:{transport}"
    async with client_of(node) as client, client.subscribe([f"{channel}-a"], transport=transport) as stream:
        first = await node.publish(f"{channel}-b", {"n": 1})
        await node.publish(f"{channel}-b", {"n": 2})
        waiting = asyncio.ensure_future(numbers(stream, 4))  # one reads while another asks
        await stream.subscribe(f"{channel}-b", f"{channel}-a", since=first["cursor"])
        assert stream.channels == (f"{channel}-a", f"{channel}-b")
        await node.publish(f"{channel}-b", {"n": 3})
        await node.publish(f"{channel}-a", {"n": 4})
        found = await waiting
        assert 2 in found and [n for n in found if n > 2] == [3, 4]
        with pytest.raises(package.DualcastError) as caught:
            await stream.subscribe("topic:ok", "task:not-mine")
        assert caught.value.code == "forbidden-channel"
        assert caught.value.channels == ("task:not-mine",)
        assert stream.channels == (f"{channel}-a", f"{channel}-b"), "all or nothing"
        await node.publish(f"{channel}-b", {"n": 5})
        await stream.unsubscribe(f"{channel}-b")
        await node.publish(f"{channel}-b", {"n": 6})
        await node.publish(f"{channel}-a", {"n": 7})
        assert await numbers(stream, 7) == [7], "nothing more of it, not even what had been read"
        await stream.subscribe()
        await stream.unsubscribe("topic:never")
    with pytest.raises(package.DualcastError, match="closed"):
        await stream.subscribe("topic:late")


async def test_what_is_added_and_taken_away_holds_after_a_break(node: Node) -> None:
    async with client_of(node) as client, client.subscribe(["topic:gone"], transport="websocket") as stream:
        await stream.subscribe("topic:new")
        await stream.unsubscribe("topic:gone")
        session = await node.session_of("alice")
        session.transport.abort()
        for n, channel in enumerate(("topic:gone", "topic:new")):
            await node.publish(channel, {"n": n})
        assert await numbers(stream, 1) == [1]


async def test_a_subscribe_that_is_cancelled_leaves_no_trace(node: Node) -> None:
    async with client_of(node) as client:
        for transport in TRANSPORTS:
            async with client.subscribe(["topic:a"], transport=transport) as stream:
                for turns in range(12):
                    asking = asyncio.ensure_future(stream.subscribe(f"topic:x{turns}"))
                    for _ in range(turns):
                        await asyncio.sleep(0)
                    asking.cancel()
                    await asyncio.gather(asking, return_exceptions=True)
                await node.publish("topic:a", {"n": 1})
                assert (await numbers(stream, 1))[-1] == 1
                await stream.subscribe("topic:b")
                assert "topic:b" in stream.channels


async def test_the_inbox_over_the_socket_and_over_rest(node: Node, monkeypatch: pytest.MonkeyPatch) -> None:
    backend = package.AsyncClient(node.base_url, node.token("backend", roles=["publisher"]))
    rest: list[str] = []
    real = Backend.call

    async def call(self: Backend, one: Any) -> Any:
        rest.append(one.path)
        return await real(self, one)

    monkeypatch.setattr(Backend, "call", call)
    for transport, user in zip(TRANSPORTS, ("ida", "ina"), strict=True):
        async with backend, client_of(node, user) as client:
            ids = [
                (await backend.notify(bodies.Notification(to=bodies.Target(user=user), title=f"T{n}"))).id
                for n in range(5)
            ]
            async with client.subscribe(transport=transport, on_gap="event") as stream:
                inbox = stream.inbox
                page = await inbox.page(limit=2)
                assert [one.title for one in page.notifications] == ["T4", "T3"] and page.unread == 5
                assert [one.id async for one in inbox.items()] == ids[::-1]
                marked = await inbox.mark_read([ids[0], "unknown"])
                assert (marked.changed, marked.unknown, marked.unread) == ((ids[0],), ("unknown",), 4)
                assert (await inbox.mark_seen()).unseen == 0
                assert (await inbox.mark_unread([ids[0]])).unread == 5
                assert (await inbox.delete(ids[1])).count == 1
                with pytest.raises(package.DualcastError, match="unknown-notification"):
                    await inbox.delete(ids[1])
                await inbox.archive([ids[2]])
                counts = await inbox.counts(by_kind=True)
                assert (counts.unread, counts.unseen) == (3, 0) and sum((counts.kinds or {}).values()) == 3
                assert bool(rest) is (transport == "sse"), "a command where there is a socket"
        backend = package.AsyncClient(node.base_url, node.token("backend", roles=["publisher"]))
    await backend.aclose()


async def test_a_command_whose_reply_does_not_come_goes_over_rest(node: Node) -> None:
    async with client_of(node, "eve") as client, client.subscribe(transport="websocket") as stream:
        session = await node.session_of("eve")
        session.transport.abort()  # the client has not heard of it yet
        assert (await stream.inbox.counts()).unread == 0


async def test_many_commands_at_once_and_much_that_is_unread(node: Node) -> None:
    async with client_of(node) as client, client.subscribe(["topic:m"], buffer=10) as stream:
        for n in range(60):
            await node.publish("topic:m", {"n": n})
        counts = await asyncio.gather(*(stream.inbox.counts() for _ in range(100)))
        assert len(counts) == 100, "the replies stand behind what is unread"
        assert await numbers(stream, 59) == list(range(60))
        assert stream.transport == "websocket"


# ── tokens ──


@pytest.mark.parametrize("transport", TRANSPORTS)
async def test_another_token_is_taken_to_the_server(node: Node, transport: Any) -> None:
    given: list[str] = []

    async def token() -> str:
        given.append(node.token("alice", channels=["topic:*"], jti=str(len(given))))
        return given[-1]

    async with (
        package.AsyncClient(node.base_url, token) as client,
        client.subscribe(["topic:a"], transport=transport) as stream,
    ):
        first = stream.welcome
        await stream.authenticate()
        await node.publish("topic:a", {"n": 1})
        assert await numbers(stream, 1) == [1] and len(given) == 2
        assert (stream.welcome is first) is (transport == "websocket")
        await stream.authenticate(node.token("alice", channels=["topic:*"], jti="by hand"))
        await node.publish("topic:a", {"n": 2})
        assert await numbers(stream, 2) == [2] and len(given) == 2
        with pytest.raises(package.DualcastError) as caught:
            await stream.authenticate("a b")
        assert caught.value.code == "bad-token"


async def test_tickets_in_place_of_headers(node: Node, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    async with client_of(node) as client, client.subscribe(["topic:t"], auth="ticket") as stream:
        assert stream.transport == "websocket"
        (await node.session_of("alice")).transport.abort()
        await node.publish("topic:t", {"n": 1})
        assert await numbers(stream, 1) == [1], "each connection has a ticket of its own"
    ours = [one for one in caplog.records if one.name.startswith(("dualcast_client", "websockets", "http"))]
    assert ours and "ticket=" not in "".join(one.getMessage() for one in ours)
    bad = package.AsyncClient(node.base_url, "a.b.c")
    with pytest.raises(package.DualcastError) as caught:
        async with bad, bad.subscribe(auth="ticket"):
            pass
    assert caught.value.code == "unauthorized"


# ── what the program is done with ──


async def test_what_is_not_acknowledged_comes_again_after_a_restart(node: Node, tmp_path: Path) -> None:
    store = package.FileCursorStore(tmp_path / "cursor")
    options: Any = {"store": store, "ack": "manual"}
    async with client_of(node) as client:
        async with client.subscribe(["topic:k"], **options) as stream:
            for n in range(6):
                await node.publish("topic:k", {"n": n})
            given = [await anext(stream) for _ in range(5)]
            before = store.load()
            await stream.ack(given[2])
            await stream.ack(given[1])
            assert store.load() == before, "the first one is still being dealt with"
            await stream.ack(given[0])
            assert store.load() == given[2].cursor == stream.acked
        async with client.subscribe(["topic:k"], transport="sse", **options) as stream:
            again = [await anext(stream) for _ in range(3)]
            assert [one.data["n"] for one in again] == [3, 4, 5]
            with pytest.raises(ValueError, match="not given"):
                await stream.ack("another-1")
            assert again[1].cursor is not None
            await stream.ack(again[1].cursor)
            assert store.load() == again[1].cursor
        async with client.subscribe(["topic:k"], **options) as stream:
            assert (await anext(stream)).data["n"] == 5
            await stream.ack()
            assert store.load() == stream.cursor
        assert os.listdir(tmp_path) == ["cursor"]


async def test_one_who_acknowledges_nothing_is_given_so_many_and_no_more(node: Node) -> None:
    options: Any = {"ack": "manual", "max_unacked": 3}
    async with client_of(node) as client, client.subscribe(["topic:u"], **options) as stream:
        for n in range(5):
            await node.publish("topic:u", {"n": n})
        given = [await anext(stream) for _ in range(3)]
        waiting = asyncio.ensure_future(anext(stream))
        done, _ = await asyncio.wait({waiting}, timeout=0.2)
        assert not done
        await stream.ack(given[1])
        assert (await asyncio.wait_for(waiting, PATIENCE_S)).data["n"] == 3


async def test_a_gap_is_filled_on_demand(node: Node) -> None:
    channel = f"topic:gap-{node.port}"
    async with client_of(node) as client:
        for n in range(3):
            await node.publish(channel, {"n": n})
        async with client.subscribe([channel], cursor="zzzz-5", on_gap="event") as stream:
            async with asyncio.timeout(PATIENCE_S):
                async for event in stream.events():
                    if isinstance(event, package.Gap) and event.channel == channel:
                        break
            assert isinstance(event, package.Gap)
            assert [one.data["n"] for one in await stream.backfill(event)] == [0, 1, 2]
            assert await stream.backfill(event) == [], "each once"


async def test_the_status_is_told(node: Node) -> None:
    told: list[package.Status] = []

    def on_status(status: package.Status) -> None:
        told.append(status)
        raise RuntimeError("a mistake of the program's")

    async with client_of(node) as client, client.subscribe(on_status=on_status) as stream:
        assert stream.status == package.Status(state="live", transport="websocket")
        (await node.session_of("alice")).transport.abort()
        async with asyncio.timeout(PATIENCE_S):
            async for event in stream.events():
                if isinstance(event, package.Welcome) and len(told) > 3:
                    break
    assert [one.state for one in told] == ["connecting", "live", "waiting", "connecting", "live", "closed"]
    assert told[2].reason == "ended" and stream.status.state == "closed"


async def test_threads_have_the_same(node: Node, tmp_path: Path) -> None:
    store = package.FileCursorStore(tmp_path / "cursor")
    publisher = node.token("backend", roles=["publisher"])

    def work() -> list[int]:
        found = []
        with (
            package.Client(node.base_url, node.token("tom", channels=["topic:*"])) as client,
            package.Client(node.base_url, publisher) as backend,
            client.subscribe(store=store, ack="manual") as stream,
        ):
            others = [threading.Thread(target=stream.subscribe, args=(f"topic:t{n}",)) for n in range(5)]
            for one in others:
                one.start()
            for one in others:
                one.join()
            assert set(stream.channels) == {f"topic:t{n}" for n in range(5)}
            stream.unsubscribe("topic:t4")
            for n in range(5):
                backend.publish(package.Publication(channel=f"topic:t{n}", type="n", data=n))
            for publication in stream:
                found.append(publication.data)
                stream.ack(publication)
                if len(found) == 4:
                    break
            assert stream.acked == stream.cursor == store.load()
            assert stream.inbox.counts().unread == 0
            assert stream.status.state == "live"
            stream.authenticate(node.token("tom", channels=["topic:*"], jti="x"))
        with pytest.raises(package.DualcastError, match="closed"):
            stream.subscribe("topic:late")
        return found

    assert await asyncio.wait_for(asyncio.to_thread(work), PATIENCE_S) == [0, 1, 2, 3]
