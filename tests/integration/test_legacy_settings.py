"""Names of older deployments, set in the environment of a started server, and the effect of each (contract
section 9, R47)."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed, InvalidStatus

from support.server_process import ServerProcess, token

pytestmark = [pytest.mark.anyio, pytest.mark.covers("R47")]

ALICE = token("alice")
BACKEND = {"authorization": "Bearer " + token("backend", roles=["publisher"])}


class Site:
    """A started server, and clients of it."""

    def __init__(self, server: ServerProcess, http: httpx.AsyncClient) -> None:
        self.server = server
        self.http = http

    def socket(self, path: str, bearer: str = ALICE, **how: Any) -> connect:
        query = f"?token={bearer}" if bearer else ""
        return connect(f"ws://127.0.0.1:{self.server.port}{path}{query}", **how)

    @asynccontextmanager
    async def blocks(self, path: str, bearer: str = ALICE) -> AsyncIterator[AsyncIterator[str]]:
        """The blocks of a stream until it ends."""
        once = {"connection": "close"}  # a stream's end is its connection's: it is not to be used again
        async with self.http.stream("GET", f"{path}?token={bearer}", headers=once, timeout=20) as answer:
            assert answer.status_code == 200

            async def read() -> AsyncIterator[str]:
                text = ""
                async for part in answer.aiter_text():
                    *blocks, text = (text + part).split("\n\n")
                    for block in blocks:
                        yield block

            yield read()


@asynccontextmanager
async def site(folder: Path, **environ: str) -> AsyncIterator[Site]:
    async with (
        ServerProcess("memory", folder, environ=environ) as server,
        httpx.AsyncClient(base_url=server.base_url, timeout=10) as http,
    ):
        yield Site(server, http)


async def closed(socket: Any) -> tuple[int, str]:
    """Reads to the end: code and reason."""
    with pytest.raises(ConnectionClosed) as ended:
        while True:
            await socket.recv()
    assert ended.value.rcvd is not None
    return ended.value.rcvd.code, ended.value.rcvd.reason


async def register(http: httpx.AsyncClient, path: str) -> None:
    answer = await http.put(path, json={"owner": "alice"}, headers=BACKEND)
    assert answer.status_code in (200, 201), answer.text


@pytest.mark.covers("S1.31", "S1.32", "S1.43", "S3.89", "S3.90", "S3.91", "R48")
async def test_the_names_of_sockets(tmp_path: Path) -> None:
    names = {
        "WS_HEARTBEAT_INTERVAL": "1000",
        "WS_MAX_CONNECTIONS_PER_USER": "1",
        "WS_CONNECTION_TIMEOUT": "5000",
        "WS_MAX_RECONNECT_ATTEMPTS": "3",
        "WEBSOCKET_PING_INTERVAL": "1",
        "WEBSOCKET_MAX_CONNECTIONS": "1",
        "WS_IDLE_TIMEOUT": "2",
        "TOPICS_PUBLIC": "wallet_updates",
    }
    async with site(tmp_path, **names) as here:
        config = (await here.http.get("/api/ws/config")).json()
        assert config["heartbeatInterval"] == 1000
        assert (config["connectionTimeout"], config["maxReconnectAttempts"]) == (5000, 3)
        async with here.socket("/api/ws/notifications") as older:
            kinds = [json.loads(await older.recv())["type"] for _ in range(2)]
            assert kinds == ["connected", "heartbeat"]
            async with here.socket("/api/ws/notifications") as newer:
                assert json.loads(await newer.recv())["type"] == "connected"
                assert await closed(older) == (4409, "connection limit")
        async with here.socket("/ws/alice") as job:
            assert [json.loads(await job.recv())["type"] for _ in range(2)] == ["connection", "ping"]
            async with here.socket("/ws/bob", token("bob")) as second:
                assert json.loads(await second.recv())["error_code"] == "CONNECTION_LIMIT_EXCEEDED"
                assert (await closed(second))[0] == 1013
        async with here.socket("/api/ws", "") as anonymous:
            await anonymous.recv()
            await anonymous.send('{"type":"subscribe","topic":"wallet_updates"}')
            assert json.loads(await anonymous.recv())["type"] == "subscribed"
            assert await closed(anonymous) == (4408, "idle timeout")


@pytest.mark.covers("S1.47")
async def test_the_names_of_streams(tmp_path: Path) -> None:
    names = {
        "SSE_HEARTBEAT_INTERVAL_SECONDS": "1",
        "SSE_TASK_MAX_IDLE_SECONDS": "3",
        "SSE_BATCH_MAX_IDLE_SECONDS": "2",
        "LEGACY_STREAM_IDS": "false",
    }
    async with site(tmp_path, **names) as here:
        await register(here.http, "/v1/tasks/T1")
        await register(here.http, "/v1/batches/B1")
        async with here.blocks("/api/stream/tasks/T1") as blocks:
            events = [block.split("\n")[0] async for block in blocks]
        assert events[0] == "event: connected" and "event: heartbeat" in events, "and it ended by itself"
        async with here.blocks("/api/stream/batches/B1") as blocks:
            assert "event: heartbeat" not in [block.split("\n")[0] async for block in blocks]
        async with here.blocks("/api/notifications/stream") as blocks:
            assert (await anext(blocks)).startswith("event: connected")
            await here.http.post(
                "/v1/notifications", json={"to": {"user": "alice"}, "title": "t"}, headers=BACKEND
            )
            assert (await anext(blocks)).startswith("event: notification\ndata: "), "without id"


@pytest.mark.covers("S2.11", "S4.44", "S0.79")
async def test_the_names_of_access(tmp_path: Path) -> None:
    names = {
        "LEGACY_STATS_PUBLIC": "true",
        "TEST_PAGE": "true",
        "CORS_ORIGINS": "https://app.example",
        "JWT_SECRET": "j" * 32,
        "SECRET_KEY": "s" * 32,
        "LEGACY_CUT_ON_EXPIRY": "true",
        "DUALCAST_IDENTITY__LEEWAY_S": "0",
    }
    async with site(tmp_path, **names) as here:
        stats = await here.http.get("/api/ws/stats")
        assert (stats.status_code, stats.json()["total_connections"]) == (200, 0)
        assert (await here.http.get("/websocket-test")).status_code == 200
        assert (await here.http.get("/docs")).status_code == 200
        for secret in ("j" * 32, "s" * 32):
            async with here.socket("/api/ws/notifications", token("alice", secret=secret)) as either:
                assert json.loads(await either.recv())["type"] == "connected"
        async with here.socket("/api/ws/notifications", origin="https://app.example") as named:
            assert json.loads(await named.recv())["type"] == "connected"
        try:
            async with here.socket("/api/ws/notifications", origin="https://other.example") as other:
                code, _ = await closed(other)
                assert code == 1008
        except InvalidStatus as refused:
            assert refused.response.status_code == 403
        async with here.socket("/api/ws/notifications", token("alice", life_s=2)) as short:
            await closed(short)


async def test_without_the_names_statistics_and_pages_are_closed(tmp_path: Path) -> None:
    async with site(tmp_path) as here:
        assert (await here.http.get("/api/ws/stats")).status_code == 401
        assert (await here.http.get("/websocket-test")).status_code == 404
        async with here.socket("/api/ws", "") as anonymous:
            await anonymous.recv()
            await anonymous.send('{"type":"subscribe","topic":"wallet_updates"}')
            assert json.loads(await anonymous.recv())["type"] == "error"
