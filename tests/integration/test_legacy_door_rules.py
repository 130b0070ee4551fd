"""Legacy contracts over the wire: pages that may not come in, ids of other tenants, bursts of messages and of
handshakes."""

from __future__ import annotations

import asyncio
import json

import pytest

from dualcast.dialects.legacy import LegacySettings
from support import legacy_toy as toy
from support.legacy_node import Closed, legacy_node, refusal, socket

pytestmark = pytest.mark.anyio

HOW = [("memory", True), ("memory", False), ("redis", True)]
both = pytest.mark.parametrize(("engine", "detach"), HOW)
OURS, FOREIGN = {"origin": "https://app.example.com"}, {"origin": "https://evil.example.net"}


async def test_a_foreign_page_opens_no_socket_with_or_without_a_token() -> None:
    anonymous = toy.socket_endpoint(path="/toy/open", anonymous=True)
    only = {"origins": [OURS["origin"]]}
    async with legacy_node("memory", (toy.socket_endpoint(), anonymous), identity=only) as node:
        for path, user in (("/toy/open", None), ("/toy/open", "alice"), (toy.SOCKET, "alice")):
            assert await refusal(node, path, user, headers=FOREIGN) == (1008, "Unauthorized"), (path, user)
            for headers in (OURS, {}):
                async with await socket(node, path, user, headers=headers) as client:
                    assert json.loads(await client.text())["hello"] == (user or "")


async def test_an_id_taken_in_another_tenant_is_free() -> None:
    async with legacy_node("memory", toy.endpoints(LegacySettings())) as node:
        other = node.token("alice", tenant="other")
        async with (
            await socket(node, toy.SOCKET, token=other, client_id="c1") as first,
            await socket(node, toy.SOCKET, "alice", client_id="c1") as second,
        ):
            for client in (first, second):
                assert json.loads(await client.text())["id"] == "c1"


@both
async def test_a_page_that_joins_all_its_channels_at_once_is_let_in_everywhere(
    engine: str, detach: bool
) -> None:
    """It asks right after the open, and would ask for the same again after a close."""
    async with (
        legacy_node(engine, dialects=("topics",), detach=detach) as node,
        await socket(node, "/api/ws", "alice") as client,
    ):
        await client.text()
        for number in range(100):
            await client.say(f'{{"type":"subscribe","topic":"t{number}"}}')
        await client.say('{"type":"get_stats"}')
        joined = [json.loads(text) for text in await client.texts(101)]
        assert [one.get("topic") for one in joined] == [*(f"t{number}" for number in range(100)), None]
        await node.publish("topic:t99", {"n": 1}, kind="topic_message")
        assert json.loads(await client.text())["topic"] == "t99"


@both
async def test_a_dialect_takes_no_more_than_it_may_in_a_burst(engine: str, detach: bool) -> None:
    few = toy.socket_endpoint(max_connections=3, full=lambda facts: (b'{"full":1}',), dialect="small")
    async with legacy_node(engine, (few,), detach=detach) as node:
        clients = await asyncio.gather(*(socket(node, toy.SOCKET, f"u{number}") for number in range(12)))
        first = [json.loads(await client.text()) for client in clients]
        refused = [client for client, said in zip(clients, first, strict=True) if "full" in said]
        assert len(refused) == 9
        for client in refused:
            with pytest.raises(Closed) as closed:
                await client.text()
            assert (closed.value.code, closed.value.reason) == (1013, "try again later")
        assert node.legacy.registry.dialects["small"] == 3
        for client in clients:
            await client.close()
