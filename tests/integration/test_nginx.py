"""The shipped nginx configuration (docs/deploy/nginx.conf), run by a real nginx."""

from __future__ import annotations

import asyncio
import re
import secrets
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import httpx
import pytest
from websockets.asyncio.client import connect
from websockets.exceptions import InvalidStatus

from dualcast.sections import Delivery
from support.clients import open_client, open_socket, open_stream
from support.nginx import SHIPPED, Nginx
from support.plain_http import http_client
from support.redis_server import shared
from support.server_process import ServerProcess, token

pytestmark = pytest.mark.anyio
ANN = token("ann")
BACKEND = token("backend", roles=["publisher"])
QUICK = {"delivery.sse_heartbeat_s": 5, "delivery.ws_heartbeat_s": 5, "delivery.dead_after_s": 5}


@asynccontextmanager
async def site(folder: Path, **lines: str) -> AsyncIterator[Nginx]:
    async with (
        ServerProcess("memory", folder, settings=QUICK) as server,
        Nginx([server.port], lines) as nginx,
    ):
        yield nginx


async def notify(nginx: Nginx, title: str) -> None:
    """Publishes; repeats it with the same id when the proxy cannot say whether a node took it (502)."""
    note = {"to": {"user": "ann"}, "title": title, "id": secrets.token_hex(8)}
    async with http_client(base_url=nginx.base_url) as backend:
        for _ in range(5):
            answer = await backend.post(
                "/v1/notifications", json=note, headers={"authorization": f"Bearer {BACKEND}"}
            )
            if answer.status_code != 502:
                break
        assert answer.status_code in (200, 201), answer.text


@pytest.mark.covers("S2.69")
@pytest.mark.parametrize("transport", ["sse", "ws"])
async def test_what_is_published_comes_through_while_the_connection_is_open(
    tmp_path: Path, transport: str
) -> None:
    async with site(tmp_path) as nginx, await open_client(transport, nginx.port, ANN) as client:
        await client.welcome()
        for title in ("one", "two"):
            await notify(nginx, title)
            (got,) = await client.publications(1)
            assert got.data["title"] == title, "a buffered stream would give it when it ends"


async def test_streams_are_neither_buffered_nor_compressed(tmp_path: Path) -> None:
    async with (
        site(tmp_path) as nginx,
        await open_stream(nginx.port, ANN, headers={"accept-encoding": "gzip"}) as client,
    ):
        assert client.status == 200
        assert "content-encoding" not in client.headers
        await client.welcome()


async def test_quiet_connections_outlive_the_proxys_patience(tmp_path: Path) -> None:
    """The heartbeats of a server, here one in 5 s, reach the proxy before it gives a connection up."""
    async with (
        site(tmp_path, **{r"proxy_read_timeout .*": "proxy_read_timeout 8s;"}) as nginx,
        await open_stream(nginx.port, ANN) as stream,
        await open_socket(nginx.port, ANN) as socket,
    ):
        for client in (stream, socket):
            await client.welcome()
        beats = stream.parser.comments + stream.parser.positions
        while stream.parser.comments + stream.parser.positions < beats + 3:
            await stream.read_some()
        await notify(nginx, "still here")
        for client in (stream, socket):
            (got,) = await client.publications(1)
            assert got.data["title"] == "still here"


def test_the_proxy_waits_longer_than_any_heartbeat() -> None:
    found = re.search(r"proxy_read_timeout (\d+)s;", SHIPPED.read_text(encoding="utf-8"))
    assert found is not None
    delivery = Delivery()
    sweep_s = 5
    longest = max(delivery.sse_heartbeat_s, delivery.ws_heartbeat_s) + delivery.dead_after_s + sweep_s
    assert int(found[1]) > longest


@pytest.mark.parametrize("transport", ["sse", "ws"])
async def test_tokens_in_query_strings_are_in_no_log_of_the_proxy(tmp_path: Path, transport: str) -> None:
    async with site(tmp_path) as nginx:
        async with await open_client(transport, nginx.port, token=ANN) as client:
            await client.welcome()
        async with httpx.AsyncClient() as other:
            await other.get(nginx.base_url + "/v1/stream?token=not.a.token")
        async with asyncio.timeout(10):
            while len(nginx.access_log.read_text().splitlines()) < 2:
                await asyncio.sleep(0.01)
        written = nginx.access_log.read_text() + nginx.log()
        assert "/v1/stream" in written
        assert "token" not in written
        assert ANN not in written


@pytest.mark.covers("S1.34")
async def test_without_the_upgrade_headers_sockets_fail_and_streams_go_on(tmp_path: Path) -> None:
    """What a proxy that was not told of WebSocket does: the client hears of it at once and stays on SSE."""
    lines = {r"proxy_set_header Upgrade .*": "", r"proxy_set_header Connection .*": ""}
    async with site(tmp_path, **lines) as nginx:
        with pytest.raises(InvalidStatus) as refused:
            await open_socket(nginx.port, ANN)
        assert refused.value.response.status_code == 426
        async with await open_stream(nginx.port, ANN, fallback_reason="upgrade-failed") as client:
            await client.welcome()


async def test_the_metrics_stay_inside(tmp_path: Path) -> None:
    async with site(tmp_path) as nginx, httpx.AsyncClient(base_url=nginx.base_url) as client:
        assert (await client.get("/metrics")).status_code == 404
        assert (await client.get("/healthz")).status_code == 200


@pytest.mark.covers("S0.81", "S3.94")
async def test_who_loses_a_node_comes_back_to_another_with_the_cursor(tmp_path: Path) -> None:
    folders = [tmp_path / name for name in ("a", "b")]
    for folder in folders:
        folder.mkdir()
    prefix = {"redis.key_prefix": "nginx" + tmp_path.name[-8:].replace("_", "-")}
    nodes = [
        ServerProcess("redis", folder, redis_url=shared().url, settings={**QUICK, **prefix})
        for folder in folders
    ]
    async with nodes[0], nodes[1], Nginx([node.port for node in nodes]) as nginx:
        for transport in ("sse", "ws"):
            async with await open_client(transport, nginx.port, ANN) as client:
                welcome = await client.welcome()
                at = [await node.metric("dualcast_sessions") for node in nodes].index(1)
                nodes[at].kill()
                await client.end()
            await notify(nginx, "meanwhile")
            async with await open_client(transport, nginx.port, ANN, cursor=welcome.cursor) as again:
                await again.welcome()
                (got,) = await again.publications(1)
                assert got.data["title"] == "meanwhile"
            await nodes[at].start()
            async with asyncio.timeout(30):
                while await nodes[1 - at].metric("dualcast_sessions"):
                    await asyncio.sleep(0.02)


@pytest.mark.covers("S0.82", "S2.70")
async def test_over_tls_with_http_2_for_streams_and_http_1_for_sockets(tmp_path: Path) -> None:
    async with (
        ServerProcess("memory", tmp_path, settings=QUICK) as server,
        Nginx([server.port], tls=True) as nginx,
    ):
        trusted = ssl.create_default_context(cafile=nginx.certificate)
        async with httpx.AsyncClient(base_url=nginx.base_url, verify=trusted) as client:
            assert (await client.get("/healthz")).status_code == 200
        url = nginx.base_url.replace("https", "wss") + "/v1/socket?token=" + ANN
        async with connect(url, ssl=trusted, proxy=None) as socket:
            assert '"welcome"' in str(await socket.recv())
        trusted.set_alpn_protocols(["h2", "http/1.1"])
        _, writer = await asyncio.open_connection(
            nginx.host, nginx.port, ssl=trusted, server_hostname="localhost"
        )
        try:
            assert writer.get_extra_info("ssl_object").selected_alpn_protocol() == "h2"
        finally:
            writer.close()
            await writer.wait_closed()
