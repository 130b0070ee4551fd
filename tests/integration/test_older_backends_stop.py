"""A server that stops, next to older backends: what it still had to say is said."""

from __future__ import annotations

from collections.abc import Iterator
from unittest import mock

import pytest

from dualcast import features
from dualcast.presence.port import PresenceSettings
from support.legacy_node import socket
from support.node import Node, place, running_node
from support.older_backend import OlderBackend
from support.redis_server import RedisServer

pytestmark = pytest.mark.anyio


@pytest.fixture
def redis() -> Iterator[RedisServer]:
    with RedisServer() as server:
        yield server


def told(old: OlderBackend, user: str) -> list[str]:
    return [one["event_type"] for one in old.on("ws:presence") if one["user_id"] == user]


async def hears(node: Node) -> None:
    """The node is subscribed to the older names."""
    backends = node.composition.features.backends
    assert backends is not None
    await node.until(lambda: bool(backends.gauges()["older_connected"]), "the subscription")


@pytest.mark.covers("S3.71")
async def test_a_server_that_stops_takes_its_users_out_of_the_older_set(redis: RedisServer) -> None:
    async with place("redis", redis_url=redis.url) as where, OlderBackend(redis.url) as old:
        quiet = PresenceSettings(flush_s=3600)  # what the loop would tell, the end has to tell
        with mock.patch.object(features, "presence_settings", lambda settings: quiet):
            running = running_node(where)
            node = await running.__aenter__()
        try:
            await hears(node)
            chat = await socket(node, "/api/v1/ws", "bob")
            await chat.text()
            await node.composition.features.tracker.flush()
            await old.until_listed(lambda users: users == {"bob"})
        finally:
            await running.__aexit__(None, None, None)
        # It has stopped with bob still connected.
        await old.until(lambda: "user_offline" in told(old, "bob"), "bob went")
        await old.until(lambda: "device_disconnected" in told(old, "bob"), "the device went")
        assert await old.listed() == set()
        assert told(old, "bob").count("user_offline") == 1
