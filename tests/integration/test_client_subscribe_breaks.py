"""Subscriptions of the Python client over what breaks lines: nothing is missing, nothing comes twice."""

from __future__ import annotations

import asyncio
import signal
import threading
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from support.blackhole import Blackhole
from support.client_package import package
from support.front_door import FrontDoor
from support.nginx import Nginx
from support.node import Node, running_node
from support.server_process import ServerProcess, token

pytestmark = pytest.mark.anyio
TRANSPORTS = ("websocket", "sse")
PATIENCE_S = 40.0
TOPIC = "topic:a"
QUICK = package.Reconnects(base_s=0.2, cap_s=1.0)


class Load:
    """Publishes numbers until it is told to stop; what was acknowledged must arrive once."""

    def __init__(self, client: package.AsyncClient) -> None:
        self._client = client
        self.acknowledged: list[int] = []
        self.stop = asyncio.Event()

    async def run(self) -> None:
        n = 0
        while not self.stop.is_set():
            await self.publish(n)
            n += 1
            await asyncio.sleep(0.01)
        await self.publish(-1)

    async def publish(self, n: int) -> None:
        await self._client.publish(package.Publication(channel=TOPIC, type="n", data=n))
        self.acknowledged.append(n)

    async def until(self, count: int) -> None:
        async with asyncio.timeout(PATIENCE_S):
            while len(self.acknowledged) < count:
                await asyncio.sleep(0.01)


async def collect(stream: package.Stream, pause_s: float = 0.0) -> list[int]:
    """Everything up to -1."""
    found: list[int] = []
    async with asyncio.timeout(PATIENCE_S):
        async for publication in stream:
            found.append(publication.data)
            if publication.data == -1:
                break
            if pause_s:
                await asyncio.sleep(pause_s)
    return found


@asynccontextmanager
async def server(tmp_path: Path, **settings: Any) -> AsyncIterator[ServerProcess]:
    given = {"delivery.retry_min_ms": 200, "delivery.retry_max_ms": 600, "server.drain_s": 2, **settings}
    async with ServerProcess("sqlite", tmp_path, settings=given) as running:
        yield running


def reader(url: str, **more: Any) -> package.AsyncClient:
    return package.AsyncClient(url, token("alice", channels=["topic:*"]), **more)


def writer(url: str) -> package.AsyncClient:
    retries = package.Retries(count=100, cap_s=0.3)
    return package.AsyncClient(url, token("backend", roles=["publisher"]), retries=retries)


@pytest.mark.parametrize("how", ["kill", "drain"])
async def test_a_server_that_goes_and_comes_back_under_load_loses_nothing(tmp_path: Path, how: str) -> None:
    async with (
        server(tmp_path) as running,
        writer(running.base_url) as backend,
        reader(running.base_url) as client,
        client.subscribe([TOPIC], transport="websocket", reconnects=QUICK) as one,
        client.subscribe([TOPIC], transport="sse", reconnects=QUICK) as other,
        client.subscribe([TOPIC], reconnects=QUICK) as auto,
    ):
        load = Load(backend)
        work = asyncio.gather(load.run(), *(collect(stream) for stream in (one, other, auto)))
        for turn in range(1, 4):
            await load.until(30 * turn)
            if how == "kill":
                running.kill()
            else:
                running.signal(signal.SIGTERM)
                assert await running.exited() == 0
            await running.start()
        load.stop.set()
        _, *all_found = await work
        assert auto.transport == "websocket", "a server that was away is no reason to fall back"
    for found in all_found:
        assert len(found) == len(set(found)), "twice"
        assert found == load.acknowledged, "missing, or out of order"


async def test_a_drain_is_waited_for_as_long_as_the_server_says(tmp_path: Path) -> None:
    settings = {"delivery.retry_min_ms": 1500, "delivery.retry_max_ms": 1600}
    async with (
        server(tmp_path, **settings) as running,
        reader(running.base_url) as client,
        client.subscribe(transport="websocket") as one,
        client.subscribe(transport="sse") as other,
    ):
        for stream in (one, other):
            assert isinstance(await stream.next_event(), package.Welcome)
        running.signal(signal.SIGTERM)
        for stream in (one, other):
            event = await asyncio.wait_for(stream.next_event(), PATIENCE_S)
            assert isinstance(event, package.Disconnected)
            assert event.reason == "drain"
            assert 1.4 < event.wait_s <= 1.6
        assert await running.exited() == 0
        await running.start()
        for stream in (one, other):
            event = await asyncio.wait_for(stream.next_event(), PATIENCE_S)
            while isinstance(event, package.Disconnected):
                event = await asyncio.wait_for(stream.next_event(), PATIENCE_S)
            assert isinstance(event, package.Welcome)


@pytest.fixture
async def node() -> AsyncIterator[Node]:
    async with running_node(
        "memory", session={"heartbeat_sse_s": 1, "heartbeat_ws_s": 1, "sweep_s": 1}
    ) as running:
        yield running


def subscriber(node: Node, url: str) -> package.AsyncClient:
    return package.AsyncClient(url, node.token("alice", channels=["topic:*"]))


@pytest.mark.parametrize("transport", TRANSPORTS)
async def test_a_line_that_has_gone_silent_is_left(
    node: Node, transport: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("dualcast_client.intake.HEARTBEAT_MORE_S", 1.0)
    async with Blackhole("127.0.0.1", node.port) as line:
        url = f"http://127.0.0.1:{line.port}"
        async with (
            subscriber(node, url) as client,
            client.subscribe([TOPIC], transport=transport, reconnects=QUICK) as stream,
        ):
            await node.publish(TOPIC, 1)
            assert (await anext(stream)).data == 1
            line.swallow()
            await node.publish(TOPIC, 2)
            seen = []
            async with asyncio.timeout(PATIENCE_S):
                async for event in stream.events():
                    seen.append(type(event).__name__)
                    if isinstance(event, package.Published):
                        assert event.data == 2
                        break
                    if isinstance(event, package.Disconnected):
                        assert event.reason == "silent"
            assert seen == ["Disconnected", "Welcome", "Published"]


async def test_a_line_with_nothing_but_heartbeats_is_kept(
    node: Node, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("dualcast_client.intake.HEARTBEAT_MORE_S", 1.0)
    async with (
        subscriber(node, node.base_url) as client,
        client.subscribe([TOPIC], transport="websocket") as one,
        client.subscribe([TOPIC], transport="sse") as other,
    ):
        for stream in (one, other):
            assert isinstance(await stream.next_event(), package.Welcome)
        waiting = [asyncio.ensure_future(stream.next_event()) for stream in (one, other)]
        done, _ = await asyncio.wait(waiting, timeout=6)  # limit 2 s, and 2 s of grace
        assert not done
        for task in waiting:
            task.cancel()
        await asyncio.gather(*waiting, return_exceptions=True)


class Swallower:
    """Answers a WebSocket handshake for the server, and passes nothing on; anything else is passed on."""

    def __init__(self, port: int) -> None:
        self._to = port
        self.swallowed = 0
        self._writers: list[asyncio.StreamWriter] = []

    async def accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._writers.append(writer)
        try:
            head = await reader.readuntil(b"\r\n\r\n")
            up_reader, up_writer = await asyncio.open_connection("127.0.0.1", self._to)
            self._writers.append(up_writer)
            up_writer.write(head)
            swallow = b"upgrade: websocket" in head.lower()
            if swallow:
                self.swallowed += 1
                writer.write(await up_reader.readuntil(b"\r\n\r\n"))
            while data := await up_reader.read(65_536):
                if not swallow:
                    writer.write(data)
                    await writer.drain()
        except (OSError, asyncio.IncompleteReadError):
            pass
        finally:
            writer.transport.abort()

    def cut(self) -> None:
        for writer in self._writers:
            writer.transport.abort()


async def test_a_proxy_that_opens_sockets_and_swallows_their_frames(node: Node) -> None:
    door = Swallower(node.port)
    async with await asyncio.start_server(door.accept, "127.0.0.1", 0) as listening:
        url = f"http://127.0.0.1:{listening.sockets[0].getsockname()[1]}"
        try:
            rules = package.Reconnects(base_s=0.1, cap_s=0.2, probe_s=1.0, probe_cap_s=1.0)
            async with (
                subscriber(node, url) as client,
                client.subscribe([TOPIC], open_timeout_s=1.5, reconnects=rules) as stream,
            ):
                assert stream.transport == "sse" and door.swallowed
                found: list[int] = []
                while door.swallowed < 2:  # it is tried again now and then, and nothing is lost by that
                    await node.publish(TOPIC, len(found))
                    found.append((await asyncio.wait_for(anext(stream), PATIENCE_S)).data)
                    await asyncio.sleep(0.05)
                assert found == list(range(len(found)))
        finally:
            listening.close()
            door.cut()


async def test_a_proxy_that_refuses_upgrades_and_later_lets_them_through(node: Node, tmp_path: Path) -> None:
    async with FrontDoor(tmp_path, [node.port]) as door:
        door.sockets = False
        rules = package.Reconnects(base_s=0.1, cap_s=0.2, probe_s=1.0)
        async with subscriber(node, door.base_url) as client:
            async with client.subscribe([TOPIC], reconnects=rules) as stream:
                assert stream.transport == "sse"
                door.sockets = True
                found: list[int] = []
                async with asyncio.timeout(PATIENCE_S):
                    while stream.transport != "websocket":
                        await node.publish(TOPIC, len(found))
                        found.append((await anext(stream)).data)
                        await asyncio.sleep(0.05)
                assert found == list(range(len(found)))
            door.sockets = False
            only = client.subscribe([TOPIC], transport="websocket", reconnects=rules, patience_s=1)
            with pytest.raises(package.DualcastError) as caught:
                async with only:
                    pass
            assert caught.value.code == "http-502"


@pytest.mark.parametrize("transport", TRANSPORTS)
async def test_over_tls_through_the_shipped_proxy(
    node: Node, transport: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with Nginx([node.port], tls=True) as proxy:
        untrusting = subscriber(node, proxy.base_url)
        with pytest.raises(package.DualcastError) as caught:
            async with untrusting, untrusting.subscribe(transport=transport, patience_s=0.1):
                pass
        assert caught.value.code == "tls"
        monkeypatch.setenv("SSL_CERT_FILE", str(proxy.certificate))
        async with (
            subscriber(node, proxy.base_url) as client,
            client.subscribe([TOPIC], transport=transport) as stream,
        ):
            await node.publish(TOPIC, 1)
            assert (await asyncio.wait_for(anext(stream), PATIENCE_S)).data == 1


async def test_nobody_there_ends_with_the_patience() -> None:
    client = package.AsyncClient("http://127.0.0.1:9", "a.b.c")
    with pytest.raises(package.DualcastError) as caught:
        async with client, client.subscribe(patience_s=0.5, reconnects=QUICK):
            pass
    assert caught.value.code == "unreachable"


@pytest.mark.parametrize("transport", TRANSPORTS)
async def test_a_program_that_reads_slowly_holds_the_server_back_and_gets_all(transport: Any) -> None:
    async with (
        running_node("memory", delivery={"lag_limit_s": 2}) as node,
        subscriber(node, node.base_url) as client,
        client.subscribe([TOPIC], transport=transport, reconnects=QUICK) as stream,
    ):
        pad = "x" * 40_000
        for n in range(400):
            await node.publish(TOPIC, {"n": n, "pad": pad})
        await node.until(lambda: not node.sessions, "the server lets go of a session that is far behind")
        found = []
        broken = 0
        async with asyncio.timeout(PATIENCE_S):
            async for event in stream.events():
                broken += isinstance(event, package.Disconnected)
                if isinstance(event, package.Published):
                    found.append(event.data["n"])
                    if found[-1] == 399:
                        break
        assert found == list(range(400))
        assert broken, "the server had kept all of it in memory"


# ── threads ──


async def in_thread(work: Callable[[], Any]) -> Any:
    return await asyncio.wait_for(asyncio.to_thread(work), PATIENCE_S)


async def test_threads_read_over_a_restart(tmp_path: Path) -> None:
    async with server(tmp_path) as running, writer(running.base_url) as backend:
        load = Load(backend)
        entered = threading.Barrier(4)

        def read(transport: Any) -> list[int]:
            found = []
            with (
                package.Client(running.base_url, token("alice", channels=["topic:*"])) as client,
                client.subscribe([TOPIC], transport=transport, reconnects=QUICK) as stream,
            ):
                entered.wait(PATIENCE_S)
                for publication in stream:
                    found.append(publication.data)
                    if publication.data == -1:
                        break
            return found

        reading = asyncio.gather(*(in_thread(partial(read, how)) for how in (*TRANSPORTS, "auto")))
        await asyncio.to_thread(entered.wait, PATIENCE_S)
        work = asyncio.ensure_future(load.run())
        await load.until(20)
        running.kill()
        await running.start()
        await load.until(60)
        load.stop.set()
        await work
        assert await reading == [load.acknowledged] * 3
        assert not [one for one in threading.enumerate() if one.name == "dualcast-subscription"]


async def test_a_thread_waits_for_a_time_and_is_woken_by_close(node: Node) -> None:
    def read() -> str:
        with package.Client(node.base_url, node.token("alice")) as client:
            with client.subscribe() as stream:
                assert isinstance(stream.next_event(), package.Welcome)
                with pytest.raises(TimeoutError):
                    stream.next_event(timeout_s=0.05)
                closer = threading.Timer(0.2, stream.close)
                closer.start()
                assert list(stream) == []
                closer.join()
                assert stream.next_event() is None
            with pytest.raises(package.DualcastError) as caught, client.subscribe(["topic:secret"]):
                pass
            return caught.value.code

    assert await in_thread(read) == "forbidden-channel"
    assert not [one for one in threading.enumerate() if one.name == "dualcast-subscription"]
