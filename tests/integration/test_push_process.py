"""Pushes of started servers: two nodes over one Redis, a real webhook, kill -9, and starts that must fail."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import httpx
import pytest

from support.clients import open_client
from support.push_receiver import SECRET, WAIT_S, Receiver, receiving
from support.redis_server import RedisServer
from support.server_process import ServerProcess, token

pytestmark = pytest.mark.anyio
BACKEND = {"Authorization": "Bearer " + token("backend", roles=["publisher"])}
ADMIN = {"Authorization": "Bearer " + token("root", roles=["admin"])}


def webhook(receiver: Receiver, **more: Any) -> dict[str, Any]:
    return {"push.provider": "webhook", "push.url": receiver.url, "push.secret": SECRET, **more}


async def notify(node: ServerProcess, user: str, title: str, **more: Any) -> str:
    """Publishes a notification; gives its id."""
    async with httpx.AsyncClient(headers=BACKEND) as http:
        body = {"to": {"user": user}, "title": title, **more}
        answer = await http.post(node.base_url + "/v1/notifications", json=body)
    assert answer.status_code == 201, answer.text
    return str(answer.json()["id"])


async def overview(node: ServerProcess) -> Any:
    async with httpx.AsyncClient(headers=ADMIN) as http:
        return (await http.get(node.base_url + "/v1/push")).json()


async def test_online_live_and_offline_push_over_two_nodes(tmp_path: Path) -> None:
    """R42 too: who is online on a desktop at one node gets the push for the phone, published at the other."""
    async with receiving() as receiver:
        with RedisServer() as redis:
            one = ServerProcess("redis", tmp_path, redis_url=redis.url, settings=webhook(receiver))
            two = ServerProcess("redis", tmp_path, redis_url=redis.url, settings=webhook(receiver))
            async with one, two:
                client = await open_client("ws", two.port, token("alice"), device="desktop")
                async with client:
                    await client.welcome()
                    await until_online(one, "alice")
                    away = await notify(one, "bob", "away")
                    live = await notify(one, "alice", "live")
                    phone = await notify(one, "alice", "phone", push="offline", push_devices=["mobile"])
                    got = await client.publications(2)
                    assert {item.data["id"] for item in got} == {live, phone}
                    await receiver.until(lambda: len(receiver.calls) >= 2)
                assert all(call.verified for call in receiver.calls)
                sent = {(call.json["id"], call.json["user"]) for call in receiver.calls}
                assert sent == {(away, "bob"), (phone, "alice")}
                totals = (await overview(two))["totals"]
                assert (totals["queued"], totals["skipped"]) == (2, 1)
                assert await one.metric("dualcast_push_success_ratio") == 1.0


async def until_online(node: ServerProcess, user: str) -> None:
    """Waits until presence knows, at `node`, that `user` is connected at some node."""
    async with httpx.AsyncClient(headers=ADMIN) as http:
        for _ in range(400):
            answer = await http.get(f"{node.base_url}/v1/connections", params={"user": user})
            if answer.json()["connections"]:
                return
    raise AssertionError(f"{user} is not online")


async def test_a_push_outlives_the_node_that_was_sending_it(tmp_path: Path) -> None:
    async with receiving() as receiver:
        receiver.answers = ["hang", "200 OK"]
        with RedisServer() as redis:
            one = ServerProcess("redis", tmp_path, redis_url=redis.url, settings=webhook(receiver))
            async with one:
                ident = await notify(one, "bob", "away")
                await receiver.until(lambda: len(receiver.calls) == 1)
                one.kill()
            # The lease runs out sooner when the job lies in the past.
            key = "dualcast:{default}:x:d"
            (job,) = redis.command("ZRANGE", key, 0, -1)  # type: ignore[misc]
            redis.command("ZINCRBY", key, -61_000, job)
            async with ServerProcess("redis", tmp_path, redis_url=redis.url, settings=webhook(receiver)):
                await receiver.until(lambda: len(receiver.calls) == 2)
        first, second = receiver.calls
        assert (first.json["id"], first.json["attempt"]) == (ident, 1)
        assert (second.json["id"], second.json["attempt"], second.json["collapse_id"]) == (ident, 2, ident)
        assert first.headers["idempotency-key"] == second.headers["idempotency-key"]


async def test_a_push_outlives_the_only_server_on_sqlite(tmp_path: Path) -> None:
    async with receiving() as receiver:
        receiver.answers = ["503 No|Retry-After: 3", "200 OK"]
        server = ServerProcess("sqlite", tmp_path, settings=webhook(receiver))
        async with server:
            ident = await notify(server, "bob", "away")
            async with asyncio.timeout(WAIT_S):
                while (await overview(server))["totals"]["retried"] != 1:
                    await asyncio.sleep(0.02)
            assert len(receiver.calls) == 1
            server.kill()
            await server.start()
            await receiver.until(lambda: receiver.calls[-1].json["attempt"] >= 2)
        assert {call.json["id"] for call in receiver.calls} == {ident}


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"push.provider": "firebase"}, "there is no push provider 'firebase'"),
        ({"push.provider": "webhook", "push.url": "http://192.0.2.1/", "push.secret": SECRET}, "https"),
        ({"push.provider": "webhook", "push.url": "https://push.test/"}, "32 bytes"),
    ],
)
@pytest.mark.covers("R44")
async def test_an_unusable_provider_stops_the_start(
    tmp_path: Path, settings: dict[str, Any], words: str
) -> None:
    """R44."""
    server = ServerProcess("memory", tmp_path, settings=settings)
    server.launch()
    try:
        assert await server.exited() != 0
    finally:
        server.kill()
    log = server.log()
    assert words in log
    assert "Traceback" not in log, log
    assert SECRET not in log
