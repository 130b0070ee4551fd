"""What an older deployment consists of, with dualcast in the place of its server
(docs/guides/older-deployments.md)."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml
from websockets.asyncio.client import connect

from dualcast.settings import load
from support.clients import open_client, open_stream
from support.flaky_proxy import FlakyProxy
from support.nginx import SHIPPED, Nginx
from support.plain_http import http_client
from support.redis_server import RedisServer
from support.server_process import SECRET, ServerProcess, token

pytestmark = pytest.mark.anyio
ALERTS = SHIPPED.with_name("alerts.yml")
ADMIN = {"authorization": "Bearer " + token("backend", roles=["admin", "publisher"])}
OLDER_PROXY = {
    r"location / \{": "location /api/ {",
    r"proxy_pass http://dualcast;": "proxy_pass http://dualcast/api/; proxy_cache off;",
    r"proxy_set_header Upgrade .*": "proxy_set_header Upgrade $http_upgrade;",
    r"proxy_set_header Connection .*": 'proxy_set_header Connection "upgrade";',
    r"proxy_connect_timeout .*": "proxy_connect_timeout 120s;",
    r"proxy_send_timeout .*": "proxy_send_timeout 3600s;",
    r"proxy_read_timeout .*": "proxy_read_timeout 3600s;",
}
"""The lines of the older site, in place of ours. `proxy_http_version` and `proxy_buffering` are the same."""


async def publish(base_url: str, title: str, user: str = "ann") -> None:
    async with http_client(base_url=base_url, headers=ADMIN) as http:
        answer = await http.post("/v1/notifications", json={"to": {"user": user}, "title": title})
    assert answer.is_success, answer.text


@pytest.mark.covers("S1.33", "S1.34", "S1.35", "S1.36")
async def test_the_proxy_of_an_older_site_stays_as_it_is(tmp_path: Path) -> None:
    """A call, a stream and a socket through it; each block of the stream when it is written."""
    shipped = SHIPPED.read_text(encoding="utf-8")
    assert "proxy_http_version 1.1;" in shipped and "proxy_buffering off;" in shipped
    secret = {"jwt_secret": SECRET}
    async with (
        ServerProcess("memory", tmp_path, dev=True, settings=secret) as server,
        Nginx([server.port], OLDER_PROXY) as nginx,
        http_client(base_url=nginx.base_url, timeout=30) as page,
        http_client(base_url=nginx.base_url, headers=ADMIN, timeout=30) as http,
    ):
        stream = f"/api/notifications/stream?token={token('ann')}"
        socket = nginx.base_url.replace("http", "ws") + f"/api/v1/ws/ann?token={token('ann')}"
        async with page.stream("GET", stream) as blocks, connect(socket, proxy=None) as older:
            assert blocks.headers["content-type"].startswith("text/event-stream")
            lines = blocks.aiter_lines()
            assert '"connection_established"' in str(await older.recv())
            for number in range(2):
                body = {"title": f"n{number}", "message": "m"}
                answer = await http.post("/api/v1/ws/notify/ann", json=body)
                assert answer.is_success, answer.text
                async with asyncio.timeout(10):
                    while f'"n{number}"' not in await anext(lines):
                        pass
                    while f'"n{number}"' not in str(await older.recv()):
                        pass


@pytest.mark.covers("S0.81", "S3.94")
@pytest.mark.parametrize("policy", ["least_conn", "ip_hash"])
async def test_nodes_share_clients_and_can_keep_them_too(tmp_path: Path, policy: str) -> None:
    """As shipped two nodes have two clients each, who all hear the same; sticky, one node has all of one
    address."""
    with RedisServer() as redis:
        nodes = [ServerProcess("redis", tmp_path, redis_url=redis.url) for _ in range(2)]
        replacing = {"least_conn;": f"{policy};"}
        async with nodes[0], nodes[1], Nginx([node.port for node in nodes], replacing) as nginx:
            clients = [await open_client("ws", nginx.port, token("ann")) for _ in range(4)]
            for client in clients:
                await client.welcome()
            found = sorted([await node.metric("dualcast_sessions") for node in nodes])
            assert found == ([2, 2] if policy == "least_conn" else [0, 4])
            await publish(nodes[0].base_url, "for all")
            for client in clients:
                (got,) = await client.publications(1)
                assert got.data["title"] == "for all"
                await client.close()


@pytest.mark.covers("S3.94")
async def test_a_replica_takes_over_from_its_primary(tmp_path: Path) -> None:
    """The address follows the failover; an open stream goes on."""
    with (
        RedisServer(tcp=True) as primary,
        RedisServer(options=("--replicaof", "127.0.0.1", str(primary.port))) as replica,
    ):
        address = FlakyProxy(primary.socket)
        await address.start()
        try:
            async with (
                ServerProcess("redis", tmp_path, redis_url=address.url) as server,
                await open_stream(server.port, token("ann")) as client,
            ):
                await client.welcome()
                await publish(server.base_url, "before")
                (got,) = await client.publications(1)
                assert got.data["title"] == "before"
                await settled(replica)
                replica.command("REPLICAOF", "NO", "ONE")
                primary.kill()
                address.move(replica.socket)
                await server.until_metric("dualcast_bus_available", lambda value: value == 1)
                await publish(server.base_url, "after")
                got = await client.until("publication")
                assert got.data["title"] == "after"
        finally:
            await address.close()


async def settled(replica: RedisServer) -> None:
    """Waits until it has all its primary has."""
    async with asyncio.timeout(30):
        while not re.search(rb"master_link_status:up", bytes(replica.command("INFO", "replication"))):  # type: ignore[call-overload]
            await asyncio.sleep(0.05)


@pytest.mark.covers("S3.93")
async def test_a_page_server_beside_the_api_and_redis(tmp_path: Path) -> None:
    """Ports 3000, 8000 and 6379 by the older names; here with free ports for the last two."""
    older = {"REDIS_URL": "redis://localhost:6379", "CORS_ORIGINS": "http://localhost:3000"}
    found = load(environ={**older, "JWT_SECRET": SECRET}).settings
    assert (found.server.port, found.redis.url) == (8000, "redis://localhost:6379")
    page = {"origin": "http://localhost:3000"}
    with RedisServer(tcp=True) as redis:
        environ = {**older, "REDIS_URL": redis.url}
        async with (
            ServerProcess("redis", tmp_path, environ=environ) as server,
            http_client(base_url=server.base_url) as http,
        ):
            answer = await http.get("/v1/inbox", headers={**page, "authorization": f"Bearer {token('ann')}"})
            assert answer.headers["access-control-allow-origin"] == page["origin"]
            socket = server.base_url.replace("http", "ws") + f"/v1/socket?token={token('ann')}"
            async with connect(socket, additional_headers=page, proxy=None) as open_one:
                assert '"welcome"' in str(await open_one.recv())
            other = await http.get("/v1/inbox", headers={"origin": "http://localhost:3001"})
            assert "access-control-allow-origin" not in other.headers


def rules() -> list[Mapping[str, Any]]:
    groups = yaml.safe_load(ALERTS.read_text(encoding="utf-8"))["groups"]
    return [rule for group in groups for rule in group["rules"]]


@pytest.mark.covers("S4.65")
async def test_availability_is_measured_and_its_loss_is_an_alert(tmp_path: Path) -> None:
    """The rules take what a server gives; it says 0 while its bus is away, and 1 again after."""
    terms = " ".join(rule["expr"] for rule in rules())
    names = set(re.findall(r"\bdualcast_\w+", terms))
    assert names == {"dualcast_bus_available", "dualcast_publish_failures_total"}
    objective = next(rule for rule in rules() if rule.get("alert") == "DualcastAvailabilityMissed")
    assert objective["expr"] == "dualcast:availability:30d < 0.999"
    recorded = {rule["record"] for rule in rules() if "record" in rule}
    assert set(re.findall(r"\bdualcast:[\w:]+", terms)) <= recorded
    with RedisServer() as redis:
        async with ServerProcess("redis", tmp_path, redis_url=redis.url) as server:
            assert await server.metric("dualcast_bus_available") == 1
            redis.kill()
            await server.until_metric("dualcast_bus_available", lambda value: value == 0)
            async with http_client(base_url=server.base_url) as http:
                said = {"channel": "topic:a", "type": "t", "data": 1}
                refused = await http.post("/v1/publish", json=said, headers=ADMIN)
                text = (await http.get("/metrics")).text
            assert (refused.status_code, refused.json()["code"]) == (503, "bus-unavailable")
            assert 'dualcast_publish_failures_total{code="bus-unavailable",' in text
            redis.start()
            await server.until_metric("dualcast_bus_available", lambda value: value == 1)
