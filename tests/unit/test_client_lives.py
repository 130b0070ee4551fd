"""The Python client over event loops, threads and processes: whose connections are used."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import httpx
import pytest

import dualcast_client as package
from dualcast_client import conversations, default, topics

RECEIPT = b'{"id":"n1","cursor":"e-1"}'


class Site(ThreadingHTTPServer):
    """Takes everything; `connections` counts them."""

    daemon_threads = True
    connections = 0

    def get_request(self) -> Any:
        self.connections += 1
        return super().get_request()


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["content-length"]))
        self.send_response(201)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(RECEIPT)))
        self.end_headers()
        self.wfile.write(RECEIPT)

    def log_message(self, format: str, *args: Any) -> None: ...


@pytest.fixture
def site(monkeypatch: pytest.MonkeyPatch) -> Iterator[Site]:
    monkeypatch.setattr(default, "_default", default._Default())
    with Site(("127.0.0.1", 0), _Handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        package.configure(f"http://127.0.0.1:{server.server_port}", "t", retries=0)
        yield server
        server.shutdown()
        thread.join()


def in_threads(count: int, work: Callable[[], None]) -> None:
    failed: list[BaseException] = []

    def guarded() -> None:
        try:
            work()
        except BaseException as error:
            failed.append(error)

    threads = [threading.Thread(target=guarded) for _ in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failed == []


def test_loops_that_run_side_by_side_keep_their_own_connections(site: Site) -> None:
    turn = threading.Barrier(2)

    async def speak() -> None:
        for _ in range(5):
            await asyncio.to_thread(turn.wait)  # in turns: each asks for the default after the other did
            await package.ws_manager.publish("t", {"n": 1})
        await package.close_default()

    in_threads(2, lambda: asyncio.run(speak()))
    assert site.connections == 2
    assert default._default.clients == {}


def test_one_loop_after_the_other_and_closing_twice(site: Site) -> None:
    async def speak() -> None:
        await package.ws_manager.publish("t", {"n": 1})
        await package.close_default()
        await package.close_default()

    for _ in range(3):
        asyncio.run(speak())
    assert site.connections == 3


def test_a_loop_that_was_left_open_is_forgotten_and_breaks_no_other(site: Site) -> None:
    async def ask() -> package.AsyncClient:
        return package.ws_manager.client  # and never closes it

    left = asyncio.run(ask())

    async def close() -> None:
        await package.close_default()
        assert package.ws_manager.client is not left
        await package.close_default()

    asyncio.run(close())
    assert default._default.clients == {}


def test_threads_share_one_client_and_may_speak_inside_a_running_loop(site: Site) -> None:
    speaker = topics.SyncWebSocketManager()

    def speak() -> None:
        for _ in range(10):
            assert speaker.publish("t", {"n": 1}).id == "n1"

    in_threads(4, speak)

    async def inside() -> None:
        speak()
        await package.close_default()

    asyncio.run(inside())
    assert site.connections <= 5


FORKS = """
import os
from dualcast_client import configure, default
configure("http://127.0.0.1:1", "t")
parent = default.default_sync_client()
child = os.fork()
if not child:
    os._exit(0 if default.default_sync_client() is not parent else 3)
assert default.default_sync_client() is parent
raise SystemExit(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there are no forks here")
def test_a_forked_process_does_not_speak_on_its_parents_connections() -> None:
    environment = {**os.environ, "PYTHONPATH": str(Path(package.__file__).parents[1])}
    command = [sys.executable, "-P", "-c", FORKS]
    assert subprocess.run(command, check=False, timeout=60, env=environment).returncode == 0


def test_a_closed_client_says_so(site: Site) -> None:
    sync = default.default_sync_client()
    sync.close()
    sync.close()
    with pytest.raises(package.DualcastError, match="closed"):
        topics.SyncWebSocketManager(sync).publish("t", {})

    async def speak() -> None:
        client = package.ws_manager.client
        await package.close_default()
        await client.aclose()
        with pytest.raises(package.DualcastError, match="closed"):
            await topics.WebSocketManager(client).publish("t", {})

    asyncio.run(speak())


def test_the_same_call_again_has_the_same_ids_in_all_its_parts() -> None:
    sent: list[list[str]] = []

    def speak() -> None:
        ids: list[str] = []

        def take(request: httpx.Request) -> httpx.Response:
            ids.append(httpx.Response(200, content=request.content).json()["id"])
            return httpx.Response(201, content=RECEIPT, headers={"Content-Type": "application/json"})

        with package.Client("http://n", "t", transport=httpx.MockTransport(take)) as client:
            body = {"id": "x" * 128, "title": "T"}
            topics.SyncWebSocketManager(client).send_notification(body, [f"u{n}" for n in range(2001)])
        sent.append(ids)

    speak()
    speak()
    assert sent[0] == sent[1]
    assert len(set(sent[0])) == 3 and all(len(one) <= 128 for one in sent[0])


def test_a_text_in_place_of_a_list_of_users_is_no_list_of_letters() -> None:
    def refuse(request: httpx.Request) -> httpx.Response:
        raise AssertionError(request.content)

    with package.Client("http://n", "t", transport=httpx.MockTransport(refuse)) as client:
        with pytest.raises(TypeError):
            client.set_participants("c", "alice")
        with pytest.raises(TypeError):
            client.change_participants("c", add="alice")
        with pytest.raises(TypeError):
            client.read("c", "m1")
        with pytest.raises(TypeError):
            conversations.SyncBroadcastingService(client).broadcast_read_status("c", "u", "m1")
