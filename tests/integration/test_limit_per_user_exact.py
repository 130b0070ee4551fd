"""The limit of connections per user holds when handshakes of one user are under way at the same time: every
one of them was let in before any of them was attached."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from dualcast.dialects.legacy import LegacySettings
from dualcast.gateway import connect as native_door
from dualcast.gateway import socket as native_socket
from dualcast.gateway import stream as native_stream
from dualcast.gateway.legacy.connect import Door
from support import legacy_toy as toy
from support.clients import TRANSPORTS, Client, open_client
from support.legacy_node import legacy_node, socket, stream
from support.node import running_node

pytestmark = pytest.mark.anyio

MANY = 12
LIMIT = 3


def at_once(made: Any) -> Any:
    """`made`, whose results are held back until MANY are there."""
    together = asyncio.Barrier(MANY)

    async def held(*given: Any, **rest: Any) -> Any:
        found = await made(*given, **rest)
        await together.wait()
        return found

    return held


@pytest.mark.parametrize("view", [{}, {"view": "notifications"}], ids=["own events", "view"])
@pytest.mark.parametrize("transport", TRANSPORTS)
async def test_handshakes_under_way_together_stay_within_the_users_limit(
    transport: str, view: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    held = at_once(native_door.make_session)
    for gate in (native_socket, native_stream):
        monkeypatch.setattr(gate, "make_session", held)
    limit = {"connections_per_user": LIMIT}
    limit = {"connections_per_user": LIMIT}
    async with running_node("memory", limits=limit, legacy=limit) as node:
        openings = (open_client(transport, node.port, node.token("alice"), **view) for _ in range(MANY))
        clients: list[Client] = list(await asyncio.gather(*openings))
        for client in clients:
            await client.welcome()
        assert len(node.sessions) == LIMIT
        assert node.sessions[0].counters.replaced == MANY - LIMIT
        await asyncio.gather(*(client.close() for client in clients))


@pytest.mark.parametrize("detach", [True, False], ids=["detached", "plain-asgi"])
@pytest.mark.parametrize("path", [toy.SOCKET, toy.STREAM])
async def test_legacy_handshakes_under_way_together_stay_within_the_users_limit(
    path: str, detach: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Door, "admit", at_once(Door.admit))
    used = LegacySettings(max_connections_per_user=LIMIT)
    async with legacy_node("memory", toy.endpoints(used), settings=used, detach=detach) as node:
        enter: Any = socket if path == toy.SOCKET else stream
        clients = await asyncio.gather(*(enter(node, path, "alice") for _ in range(MANY)))
        for client in clients:
            await (client.text() if path == toy.SOCKET else client.block())
        assert len(node.sessions) == LIMIT
        assert node.legacy.registry.gauges()["legacy_evictions"] == MANY - LIMIT
        await asyncio.gather(*(client.close() for client in clients))
