"""A grant that is withdrawn takes the channel from live sessions, on both transports and over REST."""

from __future__ import annotations

import pytest

from support.clients import TRANSPORTS, open_client
from support.node import ENGINES, running_node

pytestmark = pytest.mark.anyio


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("transport", TRANSPORTS)
async def test_a_withdrawn_grant_takes_the_channel_from_a_live_session(engine: str, transport: str) -> None:
    async with running_node(engine) as node:
        await node.grant("room:7", "alice", "bob")
        how = {"channels": ["room:7", "topic:mine"]}
        alice, bob = (node.token(sub, channels=["topic:mine"]) for sub in ("alice", "bob"))
        async with (
            await open_client(transport, node.port, alice, **how) as out,
            await open_client(transport, node.port, bob, **how) as stays,
        ):
            for client in (out, stays):
                await client.welcome()
            await node.publish("room:7", "before")
            for client in (out, stays):
                assert [got.data for got in await client.publications(1)] == ["before"]
            taken = await node.http.post(
                "/v1/channels/room:7/grants",
                headers=node.auth("backend", "publisher"),
                json={"remove": ["alice"]},
            )
            assert taken.status_code == 200
            told = await out.next()
            assert (told.kind, told.body) == ("unsubscribed", {"channels": ["room:7"]})
            await node.publish("room:7", "secret")
            await node.publish("topic:mine", "after")
            assert [got.data for got in await out.publications(1)] == ["after"]
            assert [got.data for got in await stays.publications(2)] == ["secret", "after"]


async def test_who_is_in_by_token_keeps_the_channel() -> None:
    async with running_node("memory") as node:
        await node.grant("room:7", "alice")
        token = node.token(channels=["room:*"])
        async with await open_client("ws", node.port, token, channels=["room:7"]) as client:
            await client.welcome()
            await node.http.delete("/v1/channels/room:7/grants", headers=node.auth("backend", "publisher"))
            await node.composition.follower.refresh()
            await node.publish("room:7", "still mine")
            assert [got.data for got in await client.publications(1)] == ["still mine"]
