"""What a node missed and reads from history: the copy with the badge comes first."""

from __future__ import annotations

import secrets

import pytest

from dualcast.model.inbox import InboxRider
from support.bus_engines import TOY_EXTENSIONS, draft, watch
from support.flaky_proxy import FlakyProxy
from support.redis_nodes import node
from support.redis_server import RedisServer

pytestmark = pytest.mark.anyio


async def test_channels_with_a_badge_come_first_after_an_outage_too() -> None:
    tenant = "t-" + secrets.token_hex(5)
    with RedisServer() as server:
        proxy = FlakyProxy(server.socket)
        await proxy.start()
        try:
            async with node(proxy.url) as away, node(server.url, extensions=TOY_EXTENSIONS) as publisher:
                for channel in ("topic:x", "user:a", "all"):
                    await watch(away.bus, away.recorder, tenant, channel)
                proxy.refuse = True
                proxy.cut_all()
                await away.status(False)
                for rider in (InboxRider(("a",)), InboxRider(wide=True)):
                    await publisher.bus.append(draft(tenant, "topic:x", "user:a", "all", inbox=rider))
                proxy.refuse = False
                await away.recorder.until(lambda: len(away.recorder.of(tenant)) == 6)
                names = [entry.channel for entry in away.recorder.of(tenant)]
                assert names == ["user:a", "topic:x", "all", "all", "topic:x", "user:a"]
        finally:
            await proxy.close()
