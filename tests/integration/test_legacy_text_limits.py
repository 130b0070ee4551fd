"""Close codes and limits of `rooms`, `topics` and `conversations` (docs/contracts/legacy-wire.md section 1.4)
that no well-behaved client ever sees, and many users at a time."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack
from typing import Any

import pytest

from dualcast.gateway.legacy import connect
from dualcast.model.cursor import parse_cursor
from support.legacy_sockets import LegacySocket, legacy_socket
from support.node import ENGINES, running_node

pytestmark = pytest.mark.anyio

PATHS = {"rooms": "/api/v1/ws/u1", "topics": "/api/ws", "conversations": "/api/v1/ws"}
GREETINGS = {"rooms": 2, "topics": 1, "conversations": 1}


@pytest.mark.covers("S3.102", "R23")
@pytest.mark.parametrize(
    ("dialect", "told"),
    [
        ("rooms", (1013, "try again later")),
        ("topics", (1013, "try again later")),
        ("conversations", (4002, "Connection failed")),
    ],
)
async def test_a_connection_that_cannot_be_registered(
    dialect: str, told: tuple[int, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its channels cannot be watched although the bus is there."""

    async def never(*_given: Any) -> bool:
        return False

    monkeypatch.setattr(connect, "watched", never)
    async with running_node("memory") as node:
        async with legacy_socket(node, PATHS[dialect], node.token("u1")) as socket:
            assert await socket.closed() == told
        assert not node.sessions


@pytest.mark.covers("S3.102", "R23", "R27")
@pytest.mark.parametrize(("dialect", "code"), [("rooms", 4000), ("topics", 1011), ("conversations", 4000)])
async def test_an_unexpected_fault_is_told_without_its_text(
    dialect: str, code: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def broken(*_given: Any) -> bool:
        raise RuntimeError("secret of the server")

    monkeypatch.setattr(connect, "watched", broken)
    async with running_node("memory") as node:
        async with legacy_socket(node, PATHS[dialect], node.token("u1")) as socket:
            assert await socket.closed() == (code, "Internal error")
        assert not node.sessions


@pytest.mark.covers("S2.71")
@pytest.mark.parametrize("dialect", ["rooms", "topics", "conversations"])
async def test_a_client_that_says_too_much_is_asked_to_come_later(dialect: str) -> None:
    async with (
        running_node("memory") as node,
        legacy_socket(node, PATHS[dialect], node.token("u1")) as socket,
        legacy_socket(node, "/api/ws", node.token("u2")) as other,
    ):
        await other.json()
        for _ in range(3000):
            socket.say({"type": "ping"})
        assert await ended(socket) == (1013, "try again later")
        await other.quiet()


async def ended(socket: LegacySocket) -> tuple[int, str]:
    """How it was closed, whatever came before."""
    while (frame := await socket.wire.frame()).opcode != 8:
        pass
    return frame.close_code, frame.payload[2:].decode()


@pytest.mark.covers("S0.52", "R12")
@pytest.mark.parametrize("engine", ENGINES)
async def test_many_users_with_many_connections_each_get_their_own(engine: str) -> None:
    users, each = [f"u{number}" for number in range(20)], 4
    async with AsyncExitStack() as stack:
        node = await stack.enter_async_context(running_node(engine))
        sockets: dict[str, list[LegacySocket]] = {user: [] for user in users}
        for user in users * each:
            path = f"/api/v1/ws/{user}"
            socket = await stack.enter_async_context(legacy_socket(node, path, node.token(user)))
            await socket.text(), await socket.text()
            sockets[user].append(socket)
        publishing = [node.publish(f"user:{user}", {"for": user}, kind="sync_update") for user in users]
        await asyncio.gather(*publishing, node.publish("all", {"for": "all"}, kind="system_message"))
        await node.settled()
        for user, own in sockets.items():
            for socket in own:
                got = [(await socket.json())["data"]["for"] for _ in range(2)]
                assert sorted(got) == sorted([user, "all"])
                await socket.quiet()


@pytest.mark.covers("S2.60")
@pytest.mark.parametrize("engine", ENGINES)
async def test_a_batch_of_publications_comes_in_the_order_of_the_log(engine: str) -> None:
    async with running_node(engine) as node, legacy_socket(node, "/api/ws", node.token("u1")) as socket:
        await socket.json()
        items = [{"to": {"all": True}, "title": str(number)} for number in range(100)]
        headers = node.auth("backend", "publisher")
        answer = await node.http.post("/v1/notifications/batch", json=items, headers=headers)
        assert answer.json()["accepted"] == 100, answer.text
        results = answer.json()["results"]
        order = sorted(range(100), key=lambda number: parse_cursor(results[number]["cursor"])[1])
        assert [(await socket.json())["data"]["title"] for _ in items] == [str(number) for number in order]
        await socket.quiet()


@pytest.mark.covers("R19")
@pytest.mark.parametrize("dialect", ["topics", "conversations"])
async def test_r19_a_connection_s_name_is_taken_in_its_own_tenant_only(dialect: str) -> None:
    """Whether another tenant's client uses an id is nobody's business."""
    asked = {"topics": "?client_id=c1", "conversations": "?connectionId=c1"}[dialect]
    path = PATHS[dialect] + asked
    async with running_node("memory") as node, AsyncExitStack() as stack:
        named = []
        for tenant in ("default", "other", "default"):
            token = node.token("u1", tenant=tenant)
            socket = await stack.enter_async_context(legacy_socket(node, path, token))
            frame = await socket.json()
            named.append(frame["client_id"] if dialect == "topics" else frame["data"]["connection_id"])
        assert named[:2] == ["c1", "c1"]
        assert named[2] != "c1"


@pytest.mark.parametrize(
    "path", ["/api/v1/ws/u1", "/api/v1/ws/a%2Fb", "/ws/u1", "/api/ws/tasks/t1", "/api/ws"]
)
async def test_bug_a_socket_asked_for_without_a_handshake_was_a_fault_of_the_server(path: str) -> None:
    """Behind a proxy without the `Upgrade` headers; paths with an id were answered with 500."""
    async with running_node("memory") as node:
        for method in ("GET", "POST", "DELETE", "OPTIONS"):
            answer = await node.http.request(method, path, headers=node.auth("u1"))
            assert (answer.status_code, answer.json()["code"]) == (426, "upgrade-required")
        for named in ("/api/v1/ws/stats", "/api/v1/ws/test", "/api/v1/ws/stats/"):
            assert (await node.http.get(named, headers=node.auth("root", "admin"))).status_code == 200
        wrong = await node.http.get("/api/v1/ws/broadcast", headers=node.auth("root", "admin"))
        assert wrong.status_code == 405
