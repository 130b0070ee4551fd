"""A flood of one tenant over the real server on real engines: the other tenant loses nothing, its order is
right, it reads and recovers; the flood is told when too much of it waits.
"""

from __future__ import annotations

import asyncio
import json

import httpx
import pytest

from support.clients import TRANSPORTS, open_client
from support.node import Node, running_node

pytestmark = pytest.mark.anyio

ENGINES = ("sqlite", "redis")
LINE = b'{"to":{"user":"u"},"title":"t","store":false}'


async def post(node: Node, body: bytes, tenant: str) -> httpx.Response:
    headers = {
        **node.auth("backend", "publisher", tenant=tenant),
        "Content-Type": "application/json" if body.startswith(b"[") else "application/x-ndjson",
    }
    return await node.http.post("/v1/notifications/batch", headers=headers, content=body)


def lines(name: str, count: int, user: str) -> bytes:
    items = [{"to": {"user": user}, "title": "t", "id": f"{name}-{n}", "store": False} for n in range(count)]
    return "\n".join(map(json.dumps, items)).encode()


@pytest.mark.parametrize("engine", ENGINES)
async def test_under_a_flood_the_other_tenant_loses_nothing_and_reads_on(engine: str) -> None:
    async with running_node(engine, limits={"connections_per_user": 0}) as node:
        turns = node.composition.publisher.turns
        sent: list[str] = []
        clients = [
            await open_client(transport, node.port, node.token("alice", tenant="other"))
            for transport in TRANSPORTS
        ]
        start = (await clients[0].welcome()).cursor
        await clients[1].welcome()
        quiet_is_done = asyncio.Event()

        async def poster(number: int) -> None:
            turn = 0
            while not quiet_is_done.is_set():
                name = f"f{number}-{turn}"
                turn += 1
                found = (await post(node, lines(name, 1_000, "loud"), "default")).json()
                assert (found["accepted"], found["failed"]) == (1_000, 0)
                assert [one["id"] for one in found["results"]] == [f"{name}-{n}" for n in range(1_000)]
                offsets = [int(one["cursor"].rpartition("-")[2]) for one in found["results"]]
                assert offsets == sorted(set(offsets))

        flood = [asyncio.create_task(poster(number)) for number in range(12)]
        await node.until(lambda: turns.waiting >= 4_000, "the flood is there")
        for number in range(30):
            ident = f"q-{number}"
            body = {"to": {"user": "alice"}, "title": "t", "id": ident}
            answer = await node.http.post(
                "/v1/notifications",
                json=body,
                headers=node.auth("backend", "publisher", tenant="other"),
            )
            assert answer.status_code == 201
            sent.append(ident)
        assert (await post(node, lines("b", 250, "alice"), "other")).json()["accepted"] == 250
        sent += [f"b-{number}" for number in range(250)]
        for client in clients:
            assert [one.body["id"] for one in await client.publications(len(sent))] == sent
            await client.close()
        for transport in TRANSPORTS:
            how = {"cursor": start}
            async with await open_client(
                transport, node.port, node.token("alice", tenant="other"), **how
            ) as again:
                await again.welcome()
                assert [one.body["id"] for one in await again.publications(len(sent))] == sent
        assert turns.waiting > 0, "and all the while the flood went on"
        quiet_is_done.set()
        await asyncio.gather(*flood)
        assert (turns.in_flight, turns.waiting) == (0, 0)


async def test_too_much_of_a_tenant_is_refused_with_a_time_to_come_back_and_nobody_else_is() -> None:
    limits = {"waiting_per_tenant": 1_500}
    async with running_node("memory", limits=limits) as node:
        bodies = [lines(f"f{n}", 1_000, "loud") for n in range(3)]
        bodies.append(b"[" + lines("array", 1_000, "loud").replace(b"\n", b",") + b"]")
        place = node.composition.publisher.turns.enter("default", 1_500, 0)
        for body in bodies:
            answer = await post(node, body, "default")
            assert (answer.status_code, answer.json()["code"]) == (429, "tenant-busy")
            assert answer.json()["retryable"] is True
            assert answer.headers["retry-after"] == "1"
        assert (await post(node, bodies[0], "other")).json()["accepted"] == 1_000
        one = {"to": {"user": "alice"}, "title": "t"}
        auth = node.auth("backend", "publisher", tenant="default")
        # There is room at the bus: a single one needs no turn, and does not wait.
        assert (await node.http.post("/v1/notifications", json=one, headers=auth)).status_code == 201
        place.leave()
        for body in bodies:
            assert (await post(node, body, "default")).json()["accepted"] == 1_000
