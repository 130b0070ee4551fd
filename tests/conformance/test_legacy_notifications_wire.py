"""The golden vectors of the contract `notifications` on the wire of a running server: what is published
arrives byte for byte, on both kinds of connection and every engine."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from dualcast.bus.announcing import Announcer
from support.legacy_notifications import Ended, LegacyNode, block, event, legacy_node, text
from support.node import ENGINES
from support.raw_http import Wire

pytestmark = pytest.mark.anyio
FILE = Path(__file__).parent / "vectors" / "legacy_notifications.json"
VECTORS: list[dict[str, Any]] = json.loads(FILE.read_text(encoding="utf-8"))["vectors"]
PATHS = sorted({vector["path"] for vector in VECTORS})
SETUPS = [*((engine, True) for engine in ENGINES), ("memory", False)]


@pytest.fixture(params=SETUPS, ids=lambda setup: f"{setup[0]}-{'detached' if setup[1] else 'plain'}")
async def node(request: pytest.FixtureRequest) -> AsyncIterator[LegacyNode]:
    engine, detach = request.param
    async with legacy_node(engine, detach=detach) as running:
        await running.task()
        await running.batch()
        yield running


async def opened(node: LegacyNode, path: str) -> Wire:
    """A connection that has been told how its task or batch stands."""
    sent = path.replace("{task_id:str}", "T1").replace("{batch_id:str}", "B1")
    if "/ws/" in path:
        wire = await node.socket(sent)
        await text(wire)
        return wire
    wire = await node.stream(sent)
    await event(wire)
    if "batches" in path:
        await event(wire)
    return wire


@pytest.mark.parametrize("path", PATHS)
async def test_published_vectors_arrive_byte_for_byte(node: LegacyNode, path: str) -> None:
    announcer = Announcer(node.node.composition.bus)
    wire = await opened(node, path)
    checked = 0
    for number, vector in enumerate(VECTORS):
        if vector["path"] != path or "publication" not in vector:
            continue
        given = vector["publication"]
        receipt = await announcer.announce(
            "default",
            (given["channel"],),
            given["event"],
            given["data_json"].encode(),
            ident=f"p{number}",
            ephemeral=given["offset"] == 0,
        )
        for expected in vector.get("sse", vector.get("ws")):
            if "ws" in vector:
                assert await text(wire) == expected, vector["name"]
            else:
                assert await block(wire) == expected.replace("id: e1-7\n", f"id: {receipt.cursor}\n")
            checked += 1
        if vector.get("ends"):
            node.node.sweep(3)
            with pytest.raises(Ended):
                await block(wire)
            wire = await opened(node, path)
    assert checked, "vectors of this path"
