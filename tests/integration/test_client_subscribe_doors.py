"""Subscriptions of the Python client through doors that half work, in programs that are busy, cancelled or
out of means: each of these lost the line, the way back, or a socket once."""

from __future__ import annotations

import asyncio
import gc
import threading
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import psutil  # type: ignore[import-untyped]
import pytest

from support.client_package import package
from support.node import Node, running_node

pytestmark = pytest.mark.anyio
PATIENCE_S = 30.0
TOPIC = "topic:a"
TRANSPORTS: Any = ("websocket", "sse")
QUICK = package.Reconnects(base_s=0.05, cap_s=0.2, settle_s=0.5, answer_s=0.5)


@pytest.fixture(scope="module")
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture(scope="module")
async def node() -> AsyncIterator[Node]:
    async with running_node("memory") as running:
        yield running


class Proxy:
    """Before a server. `cut_s`: WebSockets live so long; `deaf`: what a client says after its handshake does
    not get through."""

    def __init__(self, port: int, *, cut_s: float | None = None, deaf: bool = False) -> None:
        self._to = port
        self.cut_s = cut_s
        self.deaf = deaf
        self.sockets = 0
        self.url = ""
        self._writers: set[asyncio.StreamWriter] = set()

    async def accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._writers.add(writer)
        with suppress(OSError, asyncio.IncompleteReadError):
            head = await reader.readuntil(b"\r\n\r\n")
            up_reader, up_writer = await asyncio.open_connection("127.0.0.1", self._to)
            socket = b"upgrade: websocket" in head.lower()
            self.sockets += socket
            up_writer.write(head)
            swallow = socket and self.deaf
            pumps = [
                asyncio.ensure_future(pump(reader, None if swallow else up_writer)),
                asyncio.ensure_future(pump(up_reader, writer)),
            ]
            limit_s = self.cut_s if socket else None
            await asyncio.wait(pumps, timeout=limit_s, return_when=asyncio.FIRST_COMPLETED)
            for one in pumps:
                one.cancel()
            await asyncio.gather(*pumps, return_exceptions=True)
            up_writer.transport.abort()
        self._writers.discard(writer)
        writer.transport.abort()

    def cut(self) -> None:
        for writer in list(self._writers):
            writer.transport.abort()


async def pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter | None) -> None:
    while data := await reader.read(65_536):
        if writer is not None:
            writer.write(data)
            await writer.drain()


@asynccontextmanager
async def proxy(node: Node, **how: Any) -> AsyncIterator[Proxy]:
    door = Proxy(node.port, **how)
    listening = await asyncio.start_server(door.accept, "127.0.0.1", 0)
    door.url = f"http://127.0.0.1:{listening.sockets[0].getsockname()[1]}"
    try:
        yield door
    finally:
        listening.close()
        door.cut()
        await asyncio.sleep(0)


def client_of(node: Node, url: str = "", **more: Any) -> package.AsyncClient:
    return package.AsyncClient(url or node.base_url, node.token("alice", channels=["topic:*"]), **more)


@pytest.mark.parametrize("how", [{"cut_s": 0.2}, {"deaf": True}])
async def test_a_proxy_that_lets_sockets_open_and_no_more_is_found(node: Node, how: Any) -> None:
    async with (
        proxy(node, **how) as door,
        client_of(node, door.url) as client,
        client.subscribe([TOPIC], reconnects=QUICK) as stream,
    ):
        found: list[int] = []
        async with asyncio.timeout(PATIENCE_S):
            while not stream.status.fallback_reason:
                await node.publish(TOPIC, len(found))
                found.append((await anext(stream)).data)
                await asyncio.sleep(0.05)
        assert stream.status.fallback_reason == ("ended" if "cut_s" in how else "silent")
        assert found == list(range(len(found))), "nothing is lost meanwhile"


async def test_a_probe_of_the_socket_does_not_interrupt_the_stream(node: Node) -> None:
    rules = package.Reconnects(base_s=0.05, cap_s=0.2, settle_s=0.5, answer_s=0.5, probe_s=0.3)
    async with (
        proxy(node, deaf=True) as door,
        client_of(node, door.url) as client,
        client.subscribe([TOPIC], reconnects=rules, open_timeout_s=0.6) as stream,
    ):
        breaks = 0
        sent = 0
        async with asyncio.timeout(PATIENCE_S):
            while door.sockets < 3:
                await node.publish(TOPIC, sent)
                async for event in stream.events():
                    breaks += isinstance(event, package.Disconnected)
                    if isinstance(event, package.Published) and event.data == sent:
                        break
                sent += 1
                await asyncio.sleep(0.03)
            assert breaks <= 2, "those before the fallback"
            door.deaf = False
            while stream.transport != "websocket":
                await node.publish(TOPIC, sent)
                assert (await anext(stream)).data == sent
                sent += 1
                await asyncio.sleep(0.03)
        assert stream.status.fallback_reason == ""


async def test_a_program_that_is_busy_keeps_its_line_its_patience_and_its_token() -> None:
    made: list[float] = []
    async with running_node("memory", session={"auth_warning_s": 2}) as node:

        def token() -> str:
            made.append(0)
            return node.token("alice", life_s=3, channels=["topic:*"])

        async with (
            proxy(node) as door,
            package.AsyncClient(door.url, token) as client,
            client.subscribe([TOPIC], patience_s=1.5, open_timeout_s=0.3, reconnects=QUICK) as stream,
        ):
            assert isinstance(await stream.next_event(), package.Welcome)
            door.cut()
            for _ in range(11):  # works on something else, longer than each of these times
                await asyncio.sleep(0.2)
                node.sweep()
            await node.publish(TOPIC, 1)
            assert (await anext(stream)).data == 1
            assert stream.transport == "websocket"
            assert len(made) > 1, "the token was renewed before it expired"


async def test_whoever_is_cancelled_in_the_middle_of_anything_leaves_nothing_behind(node: Node) -> None:
    async def live(transport: Any, client: package.AsyncClient) -> None:
        async with client.subscribe([TOPIC], transport=transport) as stream:
            await stream.subscribe("topic:b")
            await stream.inbox.counts()
            await stream.ack()
            await stream.unsubscribe("topic:b")
            async for _ in stream:
                pass

    async with client_of(node) as client:
        await node.until(lambda: not node.sessions, "nobody is there")
        tasks, before = asyncio.all_tasks(), len(psutil.Process().net_connections("tcp"))
        for transport in TRANSPORTS:
            for turns in [*range(24), 40, 60, 90, 140, 200]:
                living = asyncio.ensure_future(live(transport, client))
                for _ in range(turns):
                    await asyncio.sleep(0)
                living.cancel()
                with suppress(asyncio.CancelledError):
                    await living
        assert ours(asyncio.all_tasks() - tasks) == []
        await node.until(lambda: not node.sessions, "every connection has ended")
        gc.collect()  # a socket that nobody closed is a ResourceWarning, and that an error
        assert len(psutil.Process().net_connections("tcp")) <= before + 8, "kept for REST"


def ours(tasks: set[asyncio.Task[Any]]) -> list[str]:
    return [repr(one) for one in tasks if "dualcast_client" in repr(one)]


@pytest.mark.parametrize("transport", TRANSPORTS)
async def test_a_close_that_is_cancelled_goes_on_by_itself(node: Node, transport: Any) -> None:
    async with client_of(node) as client:
        for turns in range(1, 7):
            stream = client.subscribe(transport=transport)
            await stream.__aenter__()
            closing = asyncio.ensure_future(stream.aclose())
            for _ in range(turns):
                await asyncio.sleep(0)
            closing.cancel()
            with suppress(asyncio.CancelledError):
                await closing
            await node.until(lambda: not node.sessions, "the connection has ended")
            assert await stream.next_event() is None


async def test_the_scheme_in_capitals_is_no_reason_for_a_plain_socket() -> None:
    async with package.AsyncClient("HTTPS://Push.Example/path/", "a.b.c") as client:
        assert client.base_url == "https://push.example/path"


async def test_a_redirect_is_not_followed(node: Node) -> None:
    asked: list[bytes] = []

    def door(answer: bytes) -> Callable[[asyncio.StreamReader, asyncio.StreamWriter], Any]:
        async def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            asked.append(await reader.readuntil(b"\r\n\r\n"))
            writer.write(answer)
            await writer.drain()
            writer.close()

        return accept

    other = await asyncio.start_server(
        door(b"HTTP/1.1 404 Not Found\r\ncontent-length: 0\r\n\r\n"), "127.0.0.1", 0
    )
    there = f"ws://127.0.0.1:{other.sockets[0].getsockname()[1]}/v1/socket"
    head = f"HTTP/1.1 302 Found\r\nlocation: {there}\r\ncontent-length: 0\r\n\r\n"
    first = await asyncio.start_server(door(head.encode()), "127.0.0.1", 0)
    url = f"http://127.0.0.1:{first.sockets[0].getsockname()[1]}"
    with pytest.raises(package.DualcastError) as caught:
        async with client_of(node, url) as client, client.subscribe(transport="websocket", patience_s=0.2):
            pass
    assert caught.value.code == "http-302"
    assert asked and all(url.encode().removeprefix(b"http://") in one for one in asked)
    for listening in (first, other):
        listening.close()


@pytest.mark.parametrize("content", [b"", b"\xff\xfe", b"x" * 300])
async def test_a_position_that_cannot_be_read_is_a_gap_and_no_silent_beginning(
    node: Node, tmp_path: Path, content: bytes
) -> None:
    (tmp_path / "cursor").write_bytes(content)
    store = package.FileCursorStore(tmp_path / "cursor")
    async with client_of(node) as client, client.subscribe([TOPIC], store=store) as stream:
        with pytest.raises(package.GapError):
            await asyncio.wait_for(anext(stream), PATIENCE_S)
    async with client_of(node) as client, client.subscribe([TOPIC], store=store) as stream:
        await node.publish(TOPIC, 1)
        assert (await anext(stream)).data == 1, "from then on it is known"


async def test_a_thread_that_gets_no_loop_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    def run(work: Any) -> None:
        work.close()
        raise OSError(24, "too many open files")

    def enter() -> str:
        with package.Client("http://127.0.0.1:9", "a.b.c") as client:
            stream = client.subscribe()
            with monkeypatch.context() as patch:
                patch.setattr("dualcast_client.sync_stream.asyncio.run", run)
                with pytest.raises(OSError, match="too many"):
                    stream.__enter__()
            stream.close()
            return repr(stream)

    assert "SyncStream" in await asyncio.wait_for(asyncio.to_thread(enter), PATIENCE_S)
    assert not [one for one in threading.enumerate() if one.name == "dualcast-subscription"]
