"""Python clients that are not ours, against a server process: `httpx-sse`, `sseclient-py`, `websockets`.

The first two read streams and leave reconnecting to the program, which does it as their documentation says:
with the last id in `Last-Event-ID`, after the delay of `retry`. `websockets` comes back by itself and is
given the cursor. What was sent is there once and in order after a cut and a restart.
"""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from itertools import repeat
from typing import Any

import httpx
import pytest
import sseclient
from httpx_sse import SSEError, aconnect_sse
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed
from websockets.typing import Subprotocol

from support.client_door import Door
from support.plain_http import http_client
from support.server_process import ServerProcess, token

pytestmark = pytest.mark.anyio

USER = "alice"
STREAMS = {"native": "/v1/stream", "legacy": "/api/notifications/stream"}
PATIENCE_S = 30.0
MAX_FRAME = 65_536


class Site:
    """A server, and the network before it."""

    def __init__(self, server: ServerProcess, door: Door) -> None:
        self.server = server
        self.door = door

    @property
    def socket_url(self) -> str:
        return str(self.door.base_url).replace("http", "ws", 1)

    async def call(self, method: str, path: str, body: Any) -> None:
        headers = {"authorization": "Bearer " + token("root", roles=("admin", "operator")), "if-match": "*"}
        async with http_client(base_url=self.server.base_url, headers=headers, timeout=30) as http:
            answer = await http.request(method, path, json=body)
        assert answer.is_success, (path, answer.status_code, answer.text)

    async def stage(self, stage: str, **more: int) -> None:
        body = {"stage": stage, "why": "a test", "force": True, **more}
        await self.call("PUT", "/v1/tenants/default/migration", body)

    async def send(self, titles: list[str]) -> None:
        items = [{"to": {"user": USER}, "title": title, "store": False} for title in titles]
        await self.call("POST", "/v1/notifications/batch", items)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    settings = {"delivery.retry_min_ms": 100, "delivery.retry_max_ms": 200, "delivery.compression": "true"}
    server = ServerProcess("sqlite", tmp_path_factory.mktemp("interop"), settings=settings)
    server.launch()
    try:
        asyncio.run(server.ready())
        yield server
    finally:
        server.kill()


@pytest.fixture
async def site(server: ServerProcess) -> AsyncIterator[Site]:
    async with Door(server.port) as door:
        yield Site(server, door)


class Got:
    """What one client received."""

    def __init__(self) -> None:
        self.titles: list[str] = []
        self.ids: list[str] = []
        self.greeted = 0
        self.positions: list[str] = []
        """With which it connected."""

    def take(self, event: str, text: str | bytes, cursor: str | None) -> None:
        if event in ("welcome", "connected"):
            self.greeted += 1
        elif event == "notification":
            data = json.loads(text)
            self.titles.append(data["title"] if "title" in data else data["data"]["title"])
            self.ids.append(cursor or "")


# ── the three, each as its documentation says ──


async def read_with_httpx_sse(url: str, bearer: str, got: Got) -> None:
    """Until cancelled."""
    last_id, delay_s = "", 0.1
    async with http_client(timeout=httpx.Timeout(10, read=None)) as http:
        while True:
            got.positions.append(last_id)
            headers = {"authorization": f"Bearer {bearer}", **({"last-event-id": last_id} if last_id else {})}
            try:
                async with aconnect_sse(http, "GET", url, headers=headers) as source:
                    if source.response.status_code != 502:  # the site's, while the server is away
                        source.response.raise_for_status()
                        async for event in source.aiter_sse():
                            last_id = event.id
                            delay_s = delay_s if event.retry is None else event.retry / 1000
                            if event.data:  # a comment, and a block that only moves the position, have none
                                got.take(event.event, event.data, event.id)
            except httpx.TransportError:
                pass
            await asyncio.sleep(delay_s)


def read_with_sseclient(url: str, bearer: str, got: Got, ended: threading.Event) -> None:
    """In a thread, until `ended` and the end of the line."""
    last_id, delay_s = "", 0.1
    with httpx.Client(timeout=httpx.Timeout(10, read=None), trust_env=False) as http:
        while not ended.wait(delay_s):
            got.positions.append(last_id)
            headers = {"last-event-id": last_id} if last_id else {}
            try:
                with http.stream("GET", url, params={"token": bearer}, headers=headers) as answer:
                    for event in sseclient.SSEClient(answer.iter_bytes()).events():
                        last_id = event.id or last_id
                        delay_s = delay_s if event.retry is None else int(event.retry) / 1000
                        got.take(event.event, event.data, event.id)
            except httpx.TransportError:
                continue


async def read_with_websockets(url: str, bearer: str, got: Got) -> None:
    """Until cancelled. Its URL stays, so `resume` names the cursor: what comes before that is read comes live
    and then once more, in its place (PROTO-20). So ids that were had are dropped."""
    cursor = ""
    had: set[str] = set()
    async for socket in native(url, bearer, reconnect_delays=lambda: repeat(0.1)):
        got.positions.append(cursor)
        if cursor:
            await socket.send(json.dumps({"type": "resume", "cursor": cursor}))
        try:
            async for text in socket:
                frame = json.loads(text)
                cursor = frame.get("cursor") or cursor
                if frame.get("id") not in had:
                    got.take(frame.get("event", frame["type"]), text, frame.get("cursor", ""))
                if "id" in frame:
                    had.add(frame["id"])
        except ConnectionClosed:
            continue


def native(url: str, bearer: str, **how: Any) -> connect:
    protocols = [Subprotocol("dualcast"), Subprotocol(f"bearer.{bearer}")]
    return connect(url + "/v1/socket", subprotocols=protocols, proxy=None, **how)


async def until(condition: Callable[[], bool], what: str) -> None:
    async with asyncio.timeout(PATIENCE_S):
        while not condition():
            await asyncio.sleep(0.02)
    assert condition(), what


# ── through a cut and a restart ──


async def test_every_library_resumes_without_a_loss_or_a_double(site: Site) -> None:
    found: dict[str, Got] = {}
    ended = threading.Event()
    threads = []
    async with asyncio.TaskGroup() as tasks:
        running = []
        for kind, path in STREAMS.items():
            got = found[f"httpx-sse, {kind}"] = Got()
            running.append(
                tasks.create_task(read_with_httpx_sse(site.door.base_url + path, token(USER), got))
            )
            got = found[f"sseclient-py, {kind}"] = Got()
            arguments = (site.door.base_url + path, token(USER), got, ended)
            threads.append(threading.Thread(target=read_with_sseclient, args=arguments, daemon=True))
            threads[-1].start()
        got = found["websockets"] = Got()
        running.append(tasks.create_task(read_with_websockets(site.socket_url, token(USER), got)))

        async def all_got(count: int) -> None:
            try:
                await until(lambda: all(len(one.titles) >= count for one in found.values()), "")
            except TimeoutError:
                raise AssertionError({name: len(one.titles) for name, one in found.items()}) from None

        await until(lambda: all(one.greeted == 1 for one in found.values()), "all are greeted")
        sent = [f"n{number}" for number in range(60)]
        await site.send(sent[:20])
        await all_got(20)
        site.door.cut()
        await site.send(sent[20:40])
        await all_got(40)
        site.server.kill()
        await site.server.start()
        await site.send(sent[40:])
        await all_got(60)
        ended.set()
        site.door.away = True
        site.door.cut()
        for task in running:
            task.cancel()
    for thread in threads:
        await asyncio.to_thread(thread.join, PATIENCE_S)
        assert not thread.is_alive()
    for name, one in found.items():
        assert one.titles == sent, name
        assert len(set(one.ids)) == len(sent), name
        first, *again = one.positions
        assert first == "" and len(again) >= 2 and all(again), (name, one.positions)
        assert again[0] == one.ids[19], name


# ── refusals ──

Refusal = tuple[str, str, dict[str, str], int]
"""Path, token, query, status."""

SOCKETS = [
    ("/v1/socket", ["dualcast", "bearer.bad"], 4001),
    ("/v1/socket", ["dualcast", f"bearer.{token(USER, life_s=-60)}"], 4201),
    ("/v1/socket?channel=topic:closed", ["dualcast", f"bearer.{token(USER)}"], 4003),
    ("/api/ws/notifications?token=bad", [], 1008),
    ("/api/v1/ws/alice?token=bad", [], 4001),
    (f"/api/v1/ws/bob?token={token(USER)}", [], 4003),
]


async def test_refusals(site: Site) -> None:
    await of_a_socket(site)
    over = token(USER, life_s=-60)
    cases: list[Refusal] = [(STREAMS["native"], over, {}, 401), (STREAMS["legacy"], over, {}, 401)]
    cases += [(STREAMS["native"], token(USER), {"channel": "topic:closed"}, 403)]
    async with http_client(base_url=site.door.base_url) as http:
        await refusals(http, cases)
        await site.stage("websocket", deprecated_at=1_000, sunset_at=2_000)
        try:
            await refusals(http, [(STREAMS["native"], token(USER), {}, 204)])
        finally:
            await site.stage("fallback")


async def refusals(http: httpx.AsyncClient, cases: list[Refusal]) -> None:
    for path, bearer, more, status in cases:
        headers = {"authorization": f"Bearer {bearer}"}
        async with aconnect_sse(http, "GET", path, params=more, headers=headers) as source:
            assert source.response.status_code == status
            with pytest.raises(SSEError, match="text/event-stream"):  # not a stream, and it says so
                await anext(source.aiter_sse())
        answer = await http.get(path, params={**more, "token": bearer})
        assert answer.status_code == status
        assert list(sseclient.SSEClient(iter([answer.content])).events()) == [], "a refusal is no event"


async def of_a_socket(site: Site) -> None:
    for path, protocols, code in SOCKETS:
        named = [Subprotocol(name) for name in protocols] or None
        async with connect(site.socket_url + path, subprotocols=named, proxy=None) as socket:
            with pytest.raises(ConnectionClosed) as caught:
                while True:
                    assert json.loads(await socket.recv())["type"] == "bye", "only the reason may come first"
        assert caught.value.rcvd is not None and caught.value.rcvd.code == code, path


# ── websockets: frames ──


async def talk(site: Site, say: Callable[[ClientConnection], Awaitable[None]], **how: Any) -> None:
    async with native(site.socket_url, token(USER), **how) as socket:
        assert json.loads(await socket.recv())["type"] == "welcome"
        await say(socket)


async def test_websockets_compresses_fragments_pings_and_closes(site: Site) -> None:
    async def pong(socket: ClientConnection, ref: str) -> None:
        answer = json.loads(await socket.recv())
        assert (answer["type"], answer["ref"]) == ("pong", ref)

    async def compressed(socket: ClientConnection) -> None:
        assert socket.subprotocol == "dualcast"
        assert [extension.name for extension in socket.protocol.extensions] == ["permessage-deflate"]
        await socket.send(['{"type":"ping",', '"ref":"in ', 'parts"}'])
        await pong(socket, "in parts")
        await socket.send('{"type":"ping","ref":"large"}'.ljust(MAX_FRAME))
        await pong(socket, "large")
        await (await socket.ping())
        text = "世界 " * 8_000
        await site.call("POST", "/v1/publish", {"channel": f"user:{USER}", "type": "bulk", "data": text})
        assert json.loads(await socket.recv())["data"] == text
        await socket.send(" " * 20 * MAX_FRAME)
        with pytest.raises(ConnectionClosed):
            while True:
                await socket.recv()
        assert socket.close_code == 4005

    async def plain(socket: ClientConnection) -> None:
        assert socket.protocol.extensions == []
        await socket.send('{"type":"ping","ref":"plain"}')
        await pong(socket, "plain")
        await socket.close(4321, "my own")
        assert socket.close_code == 4321

    await talk(site, compressed)
    await talk(site, plain, compression=None)
    await on_an_older_contract(site)


async def on_an_older_contract(site: Site) -> None:
    url = f"{site.socket_url}/api/ws?token={token(USER)}"
    async with connect(url, proxy=None) as socket:
        assert json.loads(await socket.recv())["type"] == "connection"
        await socket.send(['{"type":"subscribe",', '"topic":"wallet_updates"}'])
        subscribed = {"type": "subscribed", "topic": "wallet_updates", "success": True}
        assert json.loads(await socket.recv()) == subscribed
        await (await socket.ping())
        await site.send(["hello"])
        assert json.loads(await socket.recv())["data"]["title"] == "hello"
